"""Many channels in one request: even shares, and what a reply may hold."""

from collections.abc import Iterable, Sequence

import pytest

from rocksmq.broker import shares
from rocksmq.broker.limits import Limits
from rocksmq.protocol.cbor import decode
from rocksmq.protocol.codec import encode_reply
from rocksmq.protocol.columns import pack_numbers
from rocksmq.protocol.errors import ChannelNotFound, InvalidRequest, LimitExceeded, RocksMQError
from rocksmq.protocol.messages import OutgoingMessage, pack_messages
from rocksmq.protocol.operations import (
    FetchMany,
    Produce,
)

from .many_support import ManyBroker, Read, fetching, read
from .support import batch_of

MIB = 1 << 20


@pytest.fixture(autouse=True)
def repeatable() -> None:
    """The channel at which a reply begins is drawn the same each time."""
    shares.RANDOM.seed(7)


def size_of(found: dict[int, Read]) -> int:
    return sum(len(payload) for part in found.values() for payload in part.payloads)


def count_of(found: dict[int, Read]) -> int:
    return sum(len(part.messages) for part in found.values())


class Reader:
    """Reads on where it was told to go on, as a stream does."""

    def __init__(self, broker: ManyBroker, numbers: Sequence[int]) -> None:
        self.broker = broker
        self.starts = dict.fromkeys(numbers, 0)
        self.payloads: dict[int, list[bytes]] = {number: [] for number in numbers}

    def poll(self, n: int = 10_000, size: int = 1 << 30) -> dict[int, Read]:
        found = read(self.broker.ask(fetching(self.starts.items(), n, size)))
        numbers = list(self.starts)
        for index, part in found.items():
            assert part.messages
            assert part.messages[0].id >= self.starts[numbers[index]]
            self.starts[numbers[index]] = part.next_position
            self.payloads[numbers[index]] += part.payloads
        return found


def filled(broker: ManyBroker, count: int, payloads: Iterable[bytes]) -> list[int]:
    """The numbers of so many channels that hold those."""
    names = broker.channels(count)
    kept = list(payloads)
    for name in names:
        broker.core.submit(Produce(name, broker.unique(), 0, *batch_of(*kept)), lambda reply: None)
    broker.commit()
    return broker.numbers(names)


# -- what is refused -------------------------------------------------------------------------


def test_given_a_wrong_request_when_it_comes_then_it_is_refused() -> None:
    broker = ManyBroker(Limits(request_channels_max=3))
    a, b = filled(broker, 2, [b"x"])
    cases: list[tuple[FetchMany, type[RocksMQError], str]] = [
        (fetching([]), InvalidRequest, "one at least"),
        (FetchMany(pack_numbers([a, 0, b]), 1, 1, 0), InvalidRequest, "starts"),
        (FetchMany(b"\0" * 17, 1, 1, 0), InvalidRequest, "starts"),
        (fetching([(a, 0), (b, 0), (a, 5)]), InvalidRequest, "twice"),
        (fetching((number, 0) for number in range(4)), LimitExceeded, "request_channels_max"),
        (fetching([(a, 0), (12_345, 0)]), ChannelNotFound, "12345"),
        (fetching([(a, 0)], n=0), InvalidRequest, "max_messages"),
        (fetching([(a, 0)], size=0), InvalidRequest, "max_bytes"),
    ]
    for request, error, match in cases:
        with pytest.raises(error, match=match):
            raise broker.ask(request)
    assert broker.core.committer.open.is_empty


# -- what a reply holds ------------------------------------------------------------------------


def test_given_channels_when_fetched_then_each_part_says_what_is_its_own_and_where_to_go_on() -> None:
    broker = ManyBroker()
    names = broker.channels(4)
    a, b, c, d = broker.numbers(names)
    ends = [broker.produce(names[i], *(b"%d%d" % (i, j) for j in range(3))) for i in (0, 1, 3)]
    broker.produce(names[0], b"more")
    found = read(broker.ask(fetching([(d, ends[2] - 1), (c, 0), (b, ends[1]), (a, 0)])))
    assert {index: part.payloads for index, part in found.items()} == {0: [b"32"], 3: [b"00", b"01", b"02", b"more"]}
    assert found[0].next_position == ends[2]
    assert found[0].messages[0].id == ends[2] - 1
    assert found[3].messages[0].id == ends[0] - 3
    nothing = broker.ask(fetching([(c, 0), (b, ends[1])]))
    assert (nothing.parts, nothing.gaps, nothing.message_count, nothing.header_lengths) == (b"", [], 0, None)


def test_given_headers_on_some_channels_when_fetched_then_each_message_has_its_own() -> None:
    broker = ManyBroker()
    names = broker.channels(3)
    broker.produce(names[0], b"plain")
    broker.do(Produce(names[1], broker.unique(), 0, *pack_messages([OutgoingMessage(b"with", {"k": b"v"}), b"none"])))
    broker.produce(names[2], b"plain too")
    found = read(broker.ask(fetching([(number, 0) for number in broker.numbers(names)])))
    headers = {index: [message.headers for message in part.messages] for index, part in found.items()}
    assert headers == {0: [{}], 1: [{"k": b"v"}, {}], 2: [{}]}


def test_given_ten_thousand_tiny_messages_over_a_thousand_channels_when_fetched_then_all_come_in_one_frame() -> None:
    broker = ManyBroker()
    numbers = filled(broker, 1_000, [b"%d" % i for i in range(15)])
    reader = Reader(broker, numbers)
    reply = broker.ask(fetching(reader.starts.items()))
    frame = b"".join(encode_reply(1, reply))
    assert len(frame) < Limits().frame_bytes_max
    assert len(decode(memoryview(frame)[4:])) == 10
    first = reader.poll()
    assert {len(part.messages) for part in first.values()} == {10}
    assert len(first) == 1_000
    assert count_of(reader.poll()) == 5_000
    assert reader.poll() == {}
    assert all(payloads == [b"%d" % i for i in range(15)] for payloads in reader.payloads.values())


def test_given_messages_of_a_mebibyte_on_many_channels_when_fetched_then_frames_hold_and_every_channel_gets_its_turn() -> None:
    broker = ManyBroker()
    numbers = filled(broker, 16, [bytes(MIB), bytes(MIB)])
    reader = Reader(broker, numbers)
    for polls in range(1, 100):
        reply = broker.ask(fetching(reader.starts.items()))
        assert sum(map(len, encode_reply(1, reply))) <= Limits().frame_bytes_max
        assert count_of(reader.poll()) == (7 if polls < 5 else 4)
        if polls == 5:
            break
    assert all(len(payloads) == 2 for payloads in reader.payloads.values())


@pytest.mark.parametrize("consume_bytes_max", [2 * MIB, 64 * MIB])
def test_given_limits_at_their_most_when_fetched_then_the_reply_still_fits_into_a_frame(consume_bytes_max: int) -> None:
    limits = Limits(consume_messages_max=12_000, frame_bytes_max=2 * MIB, consume_bytes_max=consume_bytes_max)
    broker = ManyBroker(limits)
    names = broker.channels(1_000)
    batch = pack_messages([OutgoingMessage(bytes(140), {"k": bytes(20)})])
    for _ in range(12):
        for name in names:
            broker.core.submit(Produce(name, broker.unique(), 0, *batch), lambda reply: None)
        broker.commit()
    size = sum(map(len, encode_reply(1, broker.ask(fetching([(number, 0) for number in broker.numbers(names)], n=1 << 20)))))
    assert 0.99 * limits.frame_bytes_max < size <= limits.frame_bytes_max


@pytest.mark.parametrize("size", [1, 99, 100, 101, 1_000, 1_299, 1_300, 1_301, 9_999])
def test_given_a_bound_of_bytes_when_fetched_then_it_is_kept_but_for_a_first_message(size: int) -> None:
    broker = ManyBroker()
    reader = Reader(broker, filled(broker, 3, [bytes(100), bytes(1_300), b"", bytes(50)]))
    for _ in range(100):
        found = reader.poll(size=size)
        if not found:
            break
        assert size_of(found) <= size or count_of(found) == 1
    assert all(list(map(len, payloads)) == [100, 1_300, 0, 50] for payloads in reader.payloads.values())


# -- even shares -------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 3, 10, 97, 100, 300, 399])
def test_given_a_backlog_everywhere_when_fetched_then_each_channel_has_as_much_to_within_a_message(n: int) -> None:
    broker = ManyBroker()
    reader = Reader(broker, filled(broker, 4, [b"x"] * 100))
    found = reader.poll(n)
    counts = [len(found[index].messages) if index in found else 0 for index in range(4)]
    assert sum(counts) == n
    assert max(counts) - min(counts) <= 1


def test_given_bytes_for_a_few_when_fetched_then_each_channel_has_as_many_bytes_to_within_a_message() -> None:
    broker = ManyBroker()
    names = broker.channels(4)
    sizes = (10, 100, 400, 1_000)
    for name, size in zip(names, sizes, strict=True):
        broker.produce(name, *[bytes(size)] * 1_000)
    found = Reader(broker, broker.numbers(names)).poll(size=40_000)
    shares = [sum(map(len, found[index].payloads)) for index in range(4)]
    assert 40_000 - 1_000 < sum(shares) <= 40_000
    assert all(abs(share - 10_000) <= 1_000 for share in shares)


def test_given_one_backlog_among_many_with_little_when_fetched_then_all_have_theirs_and_the_backlog_has_the_rest() -> None:
    broker = ManyBroker()
    names = broker.channels(50)
    for name in names:
        broker.produce(name, b"one", b"two")
    for backlogged in (names[0], names[20], names[49]):
        broker.produce(backlogged, *[b"x"] * 9_000)
    reader = Reader(broker, broker.numbers(names))
    found = reader.poll(n=6_000)
    assert len(found) == 50
    assert count_of(found) == 6_000
    counts = [len(found[index].messages) for index in (0, 20, 49)]
    assert max(counts) - min(counts) < 100


def test_given_room_for_one_when_all_have_a_backlog_then_no_channel_waits_for_ever() -> None:
    broker = ManyBroker()
    reader = Reader(broker, filled(broker, 8, [b"x"] * 100))
    polls = 0
    while min(map(len, reader.payloads.values())) == 0:
        assert count_of(reader.poll(n=1)) == 1
        polls += 1
        assert polls < 200


def test_given_batches_larger_than_a_share_when_fetched_again_and_again_then_all_is_read_in_order_in_few_runs() -> None:
    broker = ManyBroker()
    names = broker.channels(5)
    for part in range(3):
        for name in names:
            broker.produce(name, *(b"%06d" % (part * 1_000 + i) for i in range(1_000)))
    reader = Reader(broker, broker.numbers(names))
    while True:
        reply = broker.ask(fetching(reader.starts.items(), n=700))
        assert len(reply.runs) <= 12 * 5 * 2, "what follows on is one run"
        if not reader.poll(n=700):
            break
    assert all(payloads == [b"%06d" % i for i in range(3_000)] for payloads in reader.payloads.values())
