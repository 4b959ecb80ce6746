"""The time-tick stream, on a real broker and in memory: packs between ticks, restarts, silent channels, bounds."""

import threading
from collections.abc import Iterator

import pytest

from rocksmq.clients import GapFound, InvalidRequest
from rocksmq.clients.msgstream import BufferFull, MsgPack, MsgPosition, MsgStream, StreamGap, TimeSyncMsg, TtMsgStream
from tests.clients.msgstream.worlds import (
    MemWorld,
    RmqWorld,
    World,
    drained,
    insert,
    numbers,
    produce,
    reader,
    search,
    tick,
    writer,
)


@pytest.fixture
def stream(world: World, channels: list[str]) -> Iterator[TtMsgStream]:
    """Reads them."""
    with reader(world, channels) as opened:
        yield opened


def load(out: MsgStream) -> None:
    """Three packs: on time, one that straddles a tick, one late; then one message without a tick behind it."""
    produce(out, search(1, 5, key=0), search(2, 7, key=1))
    produce(out, insert(3, [8, 14], key=1))
    tick(out, 10)
    produce(out, search(4, 12, key=0), search(5, 9, key=1))
    tick(out, 20)
    tick(out, 30)
    produce(out, search(6, 31, key=0))


def shape(packs: list[MsgPack]) -> list[tuple[int, int, list[int], int]]:
    """Of each pack its range, its messages, and how many are late."""
    return [(pack.begin_ts, pack.end_ts, sorted(numbers(pack)), pack.late_count) for pack in packs]


PACKS: list[tuple[int, int, list[int], int]] = [(0, 10, [1, 2], 0), (10, 20, [3, 4, 5], 1), (20, 30, [], 0)]


def test_given_ticks_when_read_then_packs_end_at_them_and_late_ones_are_marked(out: MsgStream, stream: TtMsgStream) -> None:
    load(out)

    packs = drained(stream)

    assert shape(packs) == PACKS
    assert [msg.id for msg in packs[1].msgs if msg.late] == [5]
    assert stream.stalled_channels == []


def test_given_packs_when_read_then_each_begins_where_the_one_before_ended(
    out: MsgStream, stream: TtMsgStream, channels: list[str]
) -> None:
    load(out)

    packs = drained(stream)

    assert packs[0].start_positions == [MsgPosition(name) for name in channels]
    assert [pack.start_positions for pack in packs[1:]] == [pack.end_positions for pack in packs[:-1]]
    assert [{position.timestamp_filter for position in pack.end_positions} for pack in packs] == [{10}, {20}, {30}]


@pytest.mark.parametrize("done", range(4))
def test_given_the_positions_of_a_pack_when_a_fresh_stream_seeks_there_then_it_goes_on_exactly(
    world: World, out: MsgStream, stream: TtMsgStream, channels: list[str], done: int
) -> None:
    load(out)
    packs = drained(stream)
    positions = packs[done - 1].end_positions if done else packs[0].start_positions

    with reader(world, channels, name="fresh", positions=positions) as fresh:
        tick(out, 40)
        assert shape(drained(fresh)) == [*PACKS[done:], (30, 40, [6], 0)]


@pytest.mark.parametrize("done", range(1, 4))
def test_given_a_pack_in_hand_when_the_reader_dies_then_the_next_gets_it_again(
    world: World, out: MsgStream, channels: list[str], done: int
) -> None:
    load(out)
    stream = reader(world, channels)
    for _ in range(done):
        stream.consume(timeout=5.0)
    with pytest.raises(KeyError), stream:
        raise KeyError

    with reader(world, channels) as following:
        assert shape(drained(following)) == PACKS[done - 1 :]


def test_given_a_stream_that_ends_well_when_another_starts_then_it_goes_on_behind(
    world: World, out: MsgStream, channels: list[str]
) -> None:
    load(out)
    with reader(world, channels) as stream:
        stream.consume(timeout=5.0)

    with reader(world, channels) as following:
        assert shape(drained(following)) == PACKS[1:]


def test_given_a_channel_without_ticks_when_read_then_it_stalls_the_stream_and_is_named(
    out: MsgStream, stream: TtMsgStream, channels: list[str]
) -> None:
    produce(out, search(1, 5, key=0))
    tick(out, 10, key=0)

    assert stream.consume(timeout=0.05) is None
    assert stream.stalled_channels == channels[1:]

    tick(out, 10, key=1)
    assert shape(drained(stream)) == [(0, 10, [1], 0)]
    assert stream.stalled_channels == []


def test_given_a_silence_timeout_when_a_channel_is_silent_then_packs_go_on_and_it_comes_late(
    world: World, out: MsgStream, channels: list[str]
) -> None:
    with reader(world, channels, silence_timeout=0.05) as stream:
        produce(out, search(1, 5, key=0), search(2, 6, key=1))
        tick(out, 10, key=0)
        left = stream.consume(timeout=20.0)
        assert left is not None
        assert shape([left]) == [(0, 10, [1], 0)]
        assert stream.stalled_channels == channels[1:]
        assert left.end_positions[1] == MsgPosition(channels[1], "", 0)

        tick(out, 20)
        assert shape(drained(stream)) == [(10, 20, [2], 1)]
        assert stream.stalled_channels == []


def test_given_a_subscription_that_a_client_sought_back_when_started_then_nothing_is_filtered(rmq: RmqWorld) -> None:
    channels = rmq.channels(2)
    with writer(rmq, channels) as out:
        load(out)
    with reader(rmq, channels) as stream:
        assert shape(drained(stream)) == PACKS

    for channel in channels:
        rmq.client.seek(channel, "reading", "earliest")

    with reader(rmq, channels) as following:
        assert shape(drained(following)) == PACKS


def test_given_time_syncs_when_read_then_they_are_delivered_and_are_no_ticks(out: MsgStream, stream: TtMsgStream) -> None:
    out.broadcast(MsgPack(msgs=[TimeSyncMsg(5, id=1)]))
    assert stream.consume(timeout=0.05) is None

    tick(out, 10)
    assert shape(drained(stream)) == [(0, 10, [1, 1], 0)]


def test_given_a_full_buffer_when_no_tick_comes_then_the_channel_is_named_and_a_tick_heals_nothing_else_does(
    world: World, out: MsgStream, channels: list[str]
) -> None:
    with reader(world, channels, buffer_size=10) as stream:
        produce(out, *(search(number, number, key=0) for number in range(1, 31)))
        tick(out, 40)
        for _ in range(2):
            with pytest.raises(BufferFull, match=channels[0]):
                stream.consume(timeout=5.0)

    with reader(world, channels) as larger:
        assert shape(drained(larger)) == [(0, 40, list(range(1, 31)), 0)]


def test_given_a_small_buffer_when_ticks_come_often_enough_then_all_is_read(
    world: World, out: MsgStream, channels: list[str]
) -> None:
    with reader(world, channels, buffer_size=10) as stream:
        for number in range(1, 41):
            produce(out, search(number, number, key=number))
            if not number % 4:
                tick(out, number)

        packs = drained(stream)

    assert [pack.end_ts for pack in packs] == list(range(4, 41, 4))
    assert sorted(number for pack in packs for number in numbers(pack)) == list(range(1, 41))


def test_given_an_added_channel_when_read_then_what_it_has_before_the_last_end_is_late(
    world: World, out: MsgStream, channels: list[str]
) -> None:
    produce(out, search(1, 5, key=0), search(2, 6, key=1))
    tick(out, 10)
    with reader(world, channels[:1]) as stream:
        assert shape(drained(stream)) == [(0, 10, [1], 0)]
        stream.as_consumer(channels, "reading")
        tick(out, 20)
        assert shape(drained(stream)) == [(10, 20, [2], 1)]


def test_given_positions_of_some_channels_when_sought_then_the_missing_ones_are_named(
    out: MsgStream, stream: TtMsgStream, channels: list[str]
) -> None:
    load(out)

    with pytest.raises(InvalidRequest, match=channels[1]):
        stream.seek(MsgPosition(channels[0], "", 0))
    assert shape(drained(stream)) == PACKS


def test_given_a_waiting_reader_when_the_last_tick_comes_then_it_has_its_pack(out: MsgStream, stream: TtMsgStream) -> None:
    found: list[MsgPack | None] = []
    waiting = threading.Thread(target=lambda: found.append(stream.consume(timeout=20.0)))
    waiting.start()

    produce(out, search(1, 1))
    tick(out, 5, key=1)
    tick(out, 6, key=0)
    waiting.join()

    assert found[0] is not None
    assert shape([found[0]]) == [(0, 5, [1], 0)]


# -- what retention removed: in memory, where it can be asked for ------------------


@pytest.fixture
def trimmed() -> tuple[MemWorld, list[str]]:
    """A subscription that has had its first pack, in whose first channel two messages that follow were removed since."""
    world = MemWorld()
    channels = world.channels(2)
    with writer(world, channels) as out, reader(world, channels) as stream:
        load(out)
        stream.consume(timeout=5.0)
    world.broker.trim(channels[0], 3)  # message 1, tick 10, message 4
    return world, channels


def test_given_removed_messages_when_read_then_the_gap_is_reported_and_nothing_else_is_missing(
    trimmed: tuple[MemWorld, list[str]],
) -> None:
    world, channels = trimmed
    with reader(world, channels) as stream:
        packs = drained(stream)

    assert [pack.gaps for pack in packs] == [[StreamGap(channels[0], 2, 4, 2)], []]
    assert shape(packs) == [(10, 20, [3, 5], 1), (20, 30, [], 0)]


def test_given_on_gap_raise_when_messages_were_removed_then_it_raises_once_and_goes_on(
    trimmed: tuple[MemWorld, list[str]],
) -> None:
    world, channels = trimmed
    with reader(world, channels, on_gap="raise") as stream:
        with pytest.raises(GapFound) as caught:
            stream.consume(timeout=0.0)
        assert shape(drained(stream)) == [(10, 20, [3, 5], 1), (20, 30, [], 0)]
    assert caught.value.gap == StreamGap(channels[0], 2, 4, 2)


def test_given_a_callable_for_gaps_that_seeks_when_told_then_nothing_read_before_comes_after_it(
    trimmed: tuple[MemWorld, list[str]],
) -> None:
    world, channels = trimmed
    ends: list[MsgPosition] = []

    def seek(gap: StreamGap) -> None:
        opened.seek(ends)

    with reader(world, channels, on_gap=seek) as opened:
        with reader(world, channels, name="other") as other:
            ends += drained(other)[-1].end_positions
        assert opened.consume(timeout=0.0) is None
        with writer(world, channels) as out:
            tick(out, 40)
        assert shape(drained(opened)) == [(30, 40, [6], 0)]


def test_given_a_callable_for_gaps_when_messages_were_removed_then_it_is_told(trimmed: tuple[MemWorld, list[str]]) -> None:
    world, channels = trimmed
    told: list[StreamGap] = []
    with reader(world, channels, on_gap=told.append) as stream:
        drained(stream)
    assert told == [StreamGap(channels[0], 2, 4, 2)]
