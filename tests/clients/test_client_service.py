"""Many channels at once: `create_channels`, `destroy_channels` and `describe_channels`, and numbers for streams."""

from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from rocksmq.clients import (
    ChannelDescription,
    ChannelNotFound,
    Client,
    GroupNotFound,
    InvalidRequest,
    LimitExceeded,
    OwnerDescription,
    ProtocolError,
    RocksMQError,
)
from rocksmq.clients.address import Address
from rocksmq.clients.admin import channel_numbers
from rocksmq.clients.credentials import Credentials
from rocksmq.clients.deadline import Deadline
from rocksmq.clients.link import Link
from rocksmq.clients.testing import Broker
from rocksmq.protocol.columns import pack_numbers
from rocksmq.protocol.errors import Overloaded
from rocksmq.protocol.operations import (
    ChannelsCreated,
    ChannelsDescribed,
    CreateChannels,
    DescribeChannels,
    DestroyChannels,
    Empty,
    Produce,
    Produced,
)
from tests.clients.support import PATIENCE, answering
from tests.helpers.fake_server import LIMITS, PRESENT_ID, FakeServer, Peer

OWNER = OwnerDescription("proxy", "10.0.0.1:1", "größe")
TEXTS = ["proxy", "10.0.0.1:1", "größe"]
NUMBERS = {"a": 1, "b": 772, "c": 1 << 63, "d": 4, "e": 5}
Call = Callable[[Client], Any]


class Service:
    """A broker with the channels of NUMBERS, all of one owner, that tells ``limits``; ``asked``: each request but HELLO."""

    def __init__(self, limits: dict[str, int] | None = None) -> None:
        self.asked: list[Any] = []
        self._limits = {**LIMITS, "request_channels_max": 1_000, **(limits or {})}

    def __call__(self, peer: Peer) -> None:
        peer.greet(self._limits)
        while True:
            correlation, request = peer.receive()
            self.asked.append(request)
            self.answer(peer, correlation, request)

    def answer(self, peer: Peer, correlation: int, request: Any) -> None:
        """As a broker does."""
        if isinstance(request, DescribeChannels):
            numbers = [NUMBERS.get(name, 0) for name in request.channels]
            peer.reply(correlation, ChannelsDescribed(pack_numbers(numbers), [TEXTS if number else None for number in numbers]))
        elif isinstance(request, CreateChannels):
            peer.reply(correlation, ChannelsCreated([f"made-{index}" for index in range(request.channel_count)]))
        elif isinstance(request, Produce):
            peer.reply(correlation, Produced(PRESENT_ID))
        else:
            assert isinstance(request, DestroyChannels)
            peer.reply(correlation, Empty())


class Losing(Service):
    """One that fails each kind of request the first time: its reply is lost, or it is refused with ``refusal``."""

    def __init__(self, refusal: RocksMQError | None) -> None:
        super().__init__()
        self._refusal = refusal
        self._failed: set[str] = set()

    def answer(self, peer: Peer, correlation: int, request: Any) -> None:
        kind = type(request).__name__
        if kind in self._failed:
            super().answer(peer, correlation, request)
            return
        self._failed.add(kind)
        if self._refusal is None:
            peer.cut()
            raise EOFError
        peer.refuse(correlation, self._refusal)


@contextmanager
def served(service: Service) -> Generator[Client]:
    """A client of ``service``."""
    with FakeServer(service) as server, Client(server.url, timeout=PATIENCE) as mq:
        yield mq


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    """Threads for calls, all ended before the test is."""
    with ThreadPoolExecutor(4) as threads:
        yield threads


def link_to(url: str) -> Link:
    """A connection of its own; the caller closes it."""
    link = Link(Address.parse(url), Credentials(), "test")
    link.connected(Deadline(PATIENCE))
    return link


# -- what is sent ------------------------------------------------------------------------


def test_given_an_owner_when_channels_are_created_then_one_request_has_it_the_count_and_an_id_new_with_each_call() -> None:
    service = Service()
    with served(service) as mq:
        assert mq.create_channels(OWNER, 2) == ["made-0", "made-1"]
        assert mq.create_channels(OwnerDescription("r"), 1) == ["made-0"]
    first, second = service.asked
    assert (first.owner, first.channel_count, second.owner, second.channel_count) == (TEXTS, 2, ["r", "", ""], 1)
    assert first.request_id != second.request_id


def test_given_channels_when_destroyed_then_their_numbers_are_looked_up_and_sent_a_name_that_comes_twice_once() -> None:
    service = Service()
    with served(service) as mq:
        mq.destroy_channels(["b", "a", "b"])
    assert service.asked == [DescribeChannels(["b", "a"]), DestroyChannels(["b", "a"], pack_numbers([772, 1]))]


def test_given_channels_when_described_then_each_is_answered_in_order_also_twice() -> None:
    service = Service()
    with served(service) as mq:
        assert mq.describe_channels(name for name in "bab") == [ChannelDescription(name, OWNER) for name in "bab"]
    assert service.asked == [DescribeChannels(["b", "a", "b"])]


@pytest.mark.parametrize("limits", [{"request_channels_max": 2}, {"frame_bytes_max": 25_000}], ids=["channels", "frame"])
def test_given_more_channels_than_a_request_or_a_reply_takes_when_looked_up_then_it_takes_several(
    limits: dict[str, int],
) -> None:
    service = Service(limits)
    with served(service) as mq:
        assert mq.describe_channels(list("abcde")) == [ChannelDescription(name, OWNER) for name in "abcde"]
        with pytest.raises(ChannelNotFound, match="'x', 'y':"):
            mq.describe_channels(list("xabcyx"))
    pages = [["a", "b"], ["c", "d"], ["e"], ["x", "a"], ["b", "c"], ["y", "x"]]
    assert service.asked == [DescribeChannels(page) for page in pages]


def test_given_a_broker_that_does_not_tell_how_many_it_takes_when_looked_up_then_it_is_a_thousand_at_a_time() -> None:
    def answer(peer: Peer, correlation: int, request: DescribeChannels) -> None:
        sizes.append(len(request.channels))
        peer.reply(correlation, ChannelsDescribed(pack_numbers([1] * sizes[-1]), [None] * sizes[-1]))

    def serve(peer: Peer) -> None:
        peer.greet({**LIMITS, "frame_bytes_max": 64 << 20})
        while True:
            answer(peer, *peer.receive())

    sizes: list[int] = []
    with FakeServer(serve) as server, Client(server.url) as mq:
        assert mq.describe_channels(["a"] * 1_001) == [ChannelDescription("a", None)] * 1_001
    assert sizes == [1_000, 1]


TOO_MANY: list[Call] = [lambda mq: mq.create_channels(OWNER, 3), lambda mq: mq.destroy_channels(["a", "b", "c", "a"])]


@pytest.mark.parametrize("call", TOO_MANY, ids=["create", "destroy"])
def test_given_more_channels_than_a_request_takes_when_changed_then_the_limit_is_named_and_nothing_is_sent(call: Call) -> None:
    service = Service({"request_channels_max": 2})
    with served(service) as mq:
        with pytest.raises(LimitExceeded, match=r"3 channels .* limit of 2 \(request_channels_max\)"):
            call(mq)
        mq.create_channels(OWNER, 2)
        mq.destroy_channels(["a", "b", "a"])
    assert len(service.asked) == 3


WRONG: list[tuple[Call, str]] = [
    (lambda mq: mq.create_channels(OWNER, 0), "count 0"),
    (lambda mq: mq.create_channels(OWNER, -1), "count -1"),
    (lambda mq: mq.create_channels(OWNER, True), "count True"),
    (lambda mq: mq.create_channels(OWNER, 1.0), "count 1.0"),  # type: ignore[arg-type]  # pyright: ignore
    (lambda mq: mq.create_channels("proxy", 1), "owner is an OwnerDescription, not str"),  # type: ignore[arg-type]  # pyright: ignore
    (lambda mq: mq.create_channels(None, 1), "owner is an OwnerDescription, not NoneType"),  # type: ignore[arg-type]  # pyright: ignore
    (lambda mq: mq.create_channels(OwnerDescription(""), 1), "channel name '-"),
    (lambda mq: mq.create_channels(OwnerDescription("a b"), 1), "channel name 'a b-"),
    (lambda mq: mq.create_channels(OwnerDescription("x" * 166), 1), "channel name 'x"),
    (lambda mq: mq.create_channels(OwnerDescription("x" * 165), 11), "channel name 'x"),
    (lambda mq: mq.create_channels(OwnerDescription(7), 1), "owner must be"),  # type: ignore[arg-type]  # pyright: ignore
    (lambda mq: mq.create_channels(OwnerDescription("r", "x" * 5_000), 1), "owner must be"),
    (lambda mq: mq.create_channels(OwnerDescription("r", "", "\ud800"), 1), "owner must be"),
    (lambda mq: mq.destroy_channels("abc"), "names are a list"),
    (lambda mq: mq.destroy_channels(["a", "b/c"]), "channel name 'b/c'"),
    (lambda mq: mq.destroy_channels(["a", 7]), "channel name 7"),  # type: ignore[list-item]  # pyright: ignore
    (lambda mq: mq.destroy_channels(b"ab"), "channel name 97"),  # type: ignore[arg-type]  # pyright: ignore
    (lambda mq: mq.describe_channels("abc"), "names are a list"),
    (lambda mq: mq.describe_channels(["a", ""]), "channel name ''"),
]


@pytest.mark.parametrize(("call", "said"), WRONG, ids=[said for _, said in WRONG])
def test_given_a_wrong_argument_when_called_then_it_is_refused_before_anything_is_sent(call: Call, said: str) -> None:
    service = Service()
    with served(service) as mq, pytest.raises(InvalidRequest, match=said):
        call(mq)
    assert service.asked == []


def test_given_the_longest_role_when_channels_are_created_then_it_is_sent() -> None:
    service = Service()
    with served(service) as mq:
        mq.create_channels(OwnerDescription("x" * 165), 10)
    assert len(service.asked) == 1


def test_given_no_names_when_destroyed_or_described_then_nothing_is_sent() -> None:
    service = Service()
    with served(service) as mq:
        mq.destroy_channels([])
        assert mq.describe_channels(()) == []
    assert service.asked == []


def test_given_unknown_channels_when_destroyed_or_looked_up_then_the_error_lists_each_once_and_nothing_is_done() -> None:
    service = Service()
    with served(service) as mq:
        for call in (mq.destroy_channels, mq.describe_channels):
            with pytest.raises(ChannelNotFound, match=r"^there is no channel 'x', 'y': check the name, or create it$"):
                call(["x", "a", "y", "x"])
    assert {type(request) for request in service.asked} == {DescribeChannels}


# -- sent again ----------------------------------------------------------------------------


@pytest.mark.parametrize("refusal", [None, Overloaded("later")], ids=["lost", "refused"])
def test_given_replies_that_do_not_come_when_called_then_each_request_is_repeated_as_it_was(
    refusal: RocksMQError | None,
) -> None:
    service = Losing(refusal)
    with served(service) as mq:
        assert mq.create_channels(OWNER, 2) == ["made-0", "made-1"]
        mq.destroy_channels(["a", "b"])
    create, create_again, look, look_again, destroy, destroy_again = service.asked
    assert isinstance(create, CreateChannels)
    assert create == create_again
    assert look == look_again == DescribeChannels(["a", "b"])
    assert destroy == destroy_again == DestroyChannels(["a", "b"], pack_numbers([1, 772]))


def test_given_a_producer_of_a_channel_when_that_is_destroyed_then_the_next_batch_has_a_new_id_from_number_0() -> None:
    service = Service()
    with served(service) as mq:
        for channel in ("a", "b", "c"):
            mq.produce(channel, [b"1"])
        mq.destroy_channels(["a", "b"])
        for channel in ("a", "b", "c"):
            mq.produce(channel, [b"2"])
    sent = [request for request in service.asked if isinstance(request, Produce)]
    before, after = ({request.channel: request for request in part} for part in (sent[:3], sent[3:]))
    assert [after[channel].number for channel in "abc"] == [0, 0, 1]
    assert [before[channel].producer == after[channel].producer for channel in "abc"] == [False, False, True]


@pytest.mark.parametrize(
    "reply",
    [
        ChannelsDescribed(pack_numbers([1]), [None]),
        ChannelsDescribed(pack_numbers([1, 2]), [None]),
        ChannelsDescribed(pack_numbers([1, 2])[:-1], [None, None]),
        ChannelsDescribed(pack_numbers([1, 2]) + b"\0", [None, None]),
        ChannelsDescribed(pack_numbers([1, 2, 3]), [None, None, None]),
        ChannelsDescribed(b"", []),
    ],
    ids=["too few", "owner missing", "cut off", "a byte too many", "too many", "nothing"],
)
def test_given_a_broker_that_describes_other_than_it_was_asked_when_called_then_it_is_a_protocol_error(
    reply: ChannelsDescribed,
) -> None:
    with FakeServer(answering(lambda peer, correlation, _: peer.reply(correlation, reply))) as server, Client(server.url) as mq:
        for call in (mq.describe_channels, mq.destroy_channels):
            with pytest.raises(ProtocolError, match="described"):
                call(["a", "b"])


# -- a real broker -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A broker that this module shares."""
    with Broker(tmp_path_factory.mktemp("service") / "data") as process:
        yield process


@pytest.fixture
def mq(shared: Broker) -> Iterator[Client]:
    """A client of it, without any channels."""
    with shared.client() as client:
        for name in client.list_channels():
            client.destroy_channel(name)
        yield client


def test_given_a_broker_when_channels_are_created_then_all_are_there_with_their_owner_and_names_of_its_role(mq: Client) -> None:
    names = mq.create_channels(OWNER, 12)
    assert [name.rpartition("-")[2] for name in names] == [str(index) for index in range(12)]
    (stem,) = {name.rpartition("-")[0] for name in names}
    role, _, request_id = stem.partition("-")
    assert (role, len(bytes.fromhex(request_id))) == ("proxy", 16)
    assert mq.list_channels() == sorted(names)
    assert mq.describe_channels(names) == [ChannelDescription(name, OWNER) for name in names]
    for name in names:
        assert mq.describe_channel(name).owner == OWNER
        assert mq.fetch(name, "earliest", timeout=0).payloads == []
        assert len(mq.produce(name, [name.encode()])) == 1
    assert len(set(names) | set(mq.create_channels(OWNER, 12))) == 24


def test_given_channels_with_and_without_owner_when_described_then_each_is_told(mq: Client) -> None:
    mq.create_channel("plain")
    mq.create_channel("owned", owner=OWNER)
    described = mq.describe_channels(["plain", "owned", "plain"])
    assert described == [
        ChannelDescription("plain", None),
        ChannelDescription("owned", OWNER),
        ChannelDescription("plain", None),
    ]


def test_given_an_unknown_channel_among_others_when_destroyed_or_described_then_all_unknown_are_listed_and_none_is_gone(
    mq: Client,
) -> None:
    names = mq.create_channels(OWNER, 2)
    for call in (mq.destroy_channels, mq.describe_channels):
        with pytest.raises(ChannelNotFound, match="'no', 'nor':"):
            call([names[0], "no", names[1], "nor"])
    assert mq.list_channels() == names


def test_given_channels_in_use_when_destroyed_then_data_and_groups_are_gone_and_who_waits_is_told(
    mq: Client, shared: Broker, pool: ThreadPoolExecutor
) -> None:
    kept, *names = mq.create_channels(OWNER, 4)
    for name in names:
        mq.produce(name, [b"old"])
        mq.create_consumer_group(name, "billing", start="latest")
    with shared.client(timeout=PATIENCE) as other:
        waiting = pool.submit(other.consume, names[0], "billing", timeout=PATIENCE)
        mq.destroy_channels([*names, names[0]])
        assert isinstance(waiting.exception(PATIENCE), (ChannelNotFound, GroupNotFound))
    assert mq.list_channels() == [kept]
    for name in names:
        assert mq.create_channel(name)
        assert mq.list_consumer_groups(name) == []
        assert mq.fetch(name, "earliest").payloads == []
        mq.produce(name, [b"new"])
        assert mq.fetch(name, "earliest").payloads == [b"new"]


def test_given_as_many_channels_as_a_request_takes_when_created_described_and_destroyed_then_it_works_and_one_more_does_not(
    mq: Client,
) -> None:
    most = mq.server.limits["request_channels_max"]
    owner = OwnerDescription("r" * 160, "a" * 4_096, "d" * 4_096)
    names = mq.create_channels(owner, most)
    assert mq.list_channels() == sorted(names)
    assert mq.describe_channels(names) == [ChannelDescription(name, owner) for name in names]
    for call in (lambda: mq.create_channels(OWNER, most + 1), lambda: mq.destroy_channels([*names, "one.more"])):
        with pytest.raises(LimitExceeded, match="request_channels_max"):
            call()
    assert len(mq.list_channels()) == most
    mq.destroy_channels(names)
    assert mq.list_channels() == []


def test_given_a_broker_that_is_killed_when_called_then_it_is_done_by_the_next_one_and_lasts(
    broker: Broker, client: Client, pool: ThreadPoolExecutor
) -> None:
    def by_the_next(call: Callable[[], Any]) -> Any:
        broker.kill()
        calling = pool.submit(call)
        broker.start()
        return calling.result(PATIENCE)

    names = by_the_next(lambda: client.create_channels(OWNER, 3))
    assert by_the_next(lambda: client.describe_channels(names)) == [ChannelDescription(name, OWNER) for name in names]
    by_the_next(lambda: client.destroy_channels(names[:2]))
    assert by_the_next(client.list_channels) == [names[2]]


def relaying(link: Link) -> Callable[[Peer], None]:
    """For `FakeServer`: hands requests on to a real broker. The first reply to each kind of request is lost."""
    lost: set[str] = set()

    def serve(peer: Peer) -> None:
        peer.greet()
        while True:
            correlation, request = peer.receive()
            reply = link.call(request, Deadline(PATIENCE))
            kind = type(request).__name__
            if kind not in lost:
                lost.add(kind)
                peer.cut()
                return
            peer.reply(correlation, reply)

    return serve


def test_given_lost_replies_when_channels_are_created_and_destroyed_then_the_broker_has_done_it_once(
    mq: Client, shared: Broker
) -> None:
    link = link_to(shared.url)
    try:
        with FakeServer(relaying(link)) as server, Client(server.url, timeout=PATIENCE) as behind:
            names = behind.create_channels(OWNER, 3)
            assert mq.list_channels() == sorted(names)
            behind.destroy_channels(names[1:])
            assert mq.list_channels() == names[:1]
        assert server.connection_count == 4
    finally:
        link.close()


def test_given_a_channel_recreated_while_its_destruction_is_repeated_then_the_successor_stays(
    mq: Client, shared: Broker
) -> None:
    names = mq.create_channels(OWNER, 2)
    link = link_to(shared.url)
    try:
        request = DestroyChannels(names, pack_numbers(channel_numbers(link, names, Deadline(PATIENCE))))
        link.call(request, Deadline(PATIENCE))
        mq.create_channel(names[0])
        link.call(request, Deadline(PATIENCE))
    finally:
        link.close()
    assert mq.list_channels() == names[:1]


def test_given_channels_when_their_numbers_are_looked_up_then_they_are_those_of_the_broker_and_unknown_ones_are_listed(
    mq: Client, shared: Broker
) -> None:
    names = mq.create_channels(OWNER, 2)
    link = link_to(shared.url)
    try:
        first, second, again = channel_numbers(link, [*names, names[0]], Deadline(PATIENCE))
        assert first == again != second
        with pytest.raises(ChannelNotFound, match="'x', 'y'"):
            channel_numbers(link, ["x", names[0], "y"], Deadline(PATIENCE))
        with pytest.raises(InvalidRequest, match="names are a list"):
            channel_numbers(link, "abc", Deadline(PATIENCE))
    finally:
        link.close()
