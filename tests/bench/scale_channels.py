"""Many channels with some messages each: making and filling them, starts, reading them one by one and all at once."""

import time
from collections.abc import Callable, Sequence
from functools import partial

from rocksmq.clients import Client, OwnerDescription
from rocksmq.clients.many import cut
from rocksmq.protocol.columns import unpack_numbers
from tests.broker.many_support import describing, fetching
from tests.helpers.raw import Raw

from .scale_channel import GROUP, PAYLOAD_BYTES, TIMEOUT_SECONDS, index_of, payloads
from .scale_place import START_SECONDS_MAX, Tally, Watched, timed

AT_ONCE = 1_000  # channels in a request
OWNER = OwnerDescription("scale", "", "")


def measure(broker: Watched, tally: Tally, channels: int, messages: int, *, rounds: int) -> None:
    """All about ``channels`` with ``messages`` each; ``broker`` is stopped, and is so again."""
    broker.start()
    with broker.client(TIMEOUT_SECONDS) as mq:
        broker.begin_peak()
        names = _make(mq, tally, channels)
        filling = payloads(0, messages)
        _pass(tally, "produce, a channel after the other", names, messages, lambda name: mq.produce(name, filling))
        broker.note_peak(tally, "producing to many channels")
        _pass(tally, "create a group on each", names, 1, lambda name: mq.create_consumer_group(name, GROUP))
    broker.kill()
    tally.note("start with many channels after kill -9", "s", broker.start_seconds(), at_most=START_SECONDS_MAX)
    for _ in range(rounds):
        assert broker.terminate() == 0, f"see {broker.log}"
        tally.note("start with many channels after a stop", "s", broker.start_seconds(), at_most=START_SECONDS_MAX)
    with broker.client(TIMEOUT_SECONDS) as mq:
        broker.begin_peak()
        seconds, found = timed(mq.list_channels)
        assert sorted(names) == found, f"{len(found)} channels are listed of {len(names)}"
        tally.note("list all channels", "ms", seconds * 1e3)
        described = [timed(partial(mq.describe_channel, name)) for name in names]
        assert all(info.message_count == messages for _, info in described), "each has all of its messages"
        assert all(info.byte_count == messages * PAYLOAD_BYTES for _, info in described)
        tally.note_calls("describe, of many", [seconds for seconds, _ in described])
        _consume(mq, tally, names, messages)
    _fetch_many(broker, tally, names[:AT_ONCE], messages)
    broker.note_peak(tally, "reading many channels")
    assert broker.terminate() == 0, f"see {broker.log}"


def _make(mq: Client, tally: Tally, channels: int) -> list[str]:
    names: list[str] = []
    while len(names) < channels:
        wanted = min(AT_ONCE, channels - len(names))
        seconds, made = timed(partial(mq.create_channels, OWNER, wanted))
        names += made
        tally.note("make channels, 1,000 a call", "channels/s", wanted / seconds)
    return names


def _pass(tally: Tally, name: str, names: Sequence[str], count: int, call: Callable[[str], object]) -> None:
    begin = time.perf_counter()
    for channel in names:
        call(channel)
    tally.note(name, "1/s" if count == 1 else "msg/s", count * len(names) / (time.perf_counter() - begin))


def _consume(mq: Client, tally: Tally, names: Sequence[str], messages: int) -> None:
    wanted = list(range(messages))

    def consume(name: str) -> None:
        found = mq.consume(name, GROUP, messages)
        assert list(map(index_of, found.payloads)) == wanted, f"{name} gave other messages than it got"

    _pass(tally, "consume, a channel after the other", names, messages, consume)
    assert not any(mq.consume(name, GROUP) for name in names[:: max(1, len(names) // 100)]), "they are read to their ends"


def _fetch_many(broker: Watched, tally: Tally, names: Sequence[str], messages: int) -> None:
    """All of them by requests that name each, until each is read."""
    with Raw(broker.address) as raw:
        numbers = list(unpack_numbers(raw.call(describing(names)).numbers))
        places, counts = [0] * len(names), [0] * len(names)
        seconds: list[float] = []
        while sum(counts) < messages * len(names):
            taken, reply = timed(partial(raw.call, fetching(zip(numbers, places, strict=True))))
            seconds.append(taken)
            whole, cuts = cut(reply, len(names))
            assert cuts, f"nothing more comes, and {sum(counts)} messages have come"
            for part in cuts:
                index, begin, end, next_place = part[:4]
                found = list(map(index_of, whole.payloads[begin:end]))
                assert found == list(range(counts[index], counts[index] + len(found))), f"{names[index]} is out of order"
                counts[index] += len(found)
                places[index] = next_place
        assert set(counts) == {messages}, "each was read to its end"
        tally.note_calls(f"FETCH_MANY of {len(names):,} channels", seconds)
        tally.note("FETCH_MANY", "msg/s", sum(counts) / sum(seconds))
