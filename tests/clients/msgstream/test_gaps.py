"""Gaps of streams: what retention removed is told once and counted, on a broker and in memory alike."""

from collections.abc import Sequence
from typing import Any

import pytest

from rocksmq.clients.msgstream import MsgPosition, MsgStream, StreamGap
from tests.clients.msgstream.worlds import (
    MemWorld,
    RmqWorld,
    World,
    drained,
    numbers,
    plain_reader,
    produce,
    reader,
    search,
    tick,
    writer,
)
from tests.clients.support import keep_last


@pytest.fixture(params=["rmq", "memory"], ids=["rocksmq", "memory"])
def world(request: pytest.FixtureRequest) -> World:
    """Where messages can be removed."""
    found: World = request.getfixturevalue(request.param)
    return found


def keep(world: World, channel: str, count: int, *, of: int) -> None:
    """Remove all but the last ``count`` of ``of`` messages."""
    if isinstance(world, RmqWorld):
        keep_last(world.client, channel, count)
    else:
        assert isinstance(world, MemWorld)
        world.broker.trim(channel, of - count)


def fill(out: MsgStream, begin: int, end: int, key: int = 0) -> None:
    produce(out, *(search(number, number + 1, key) for number in range(begin, end)))


def counts(gaps: Sequence[StreamGap]) -> list[tuple[str, int | None]]:
    return [(gap.channel_name, gap.message_count) for gap in gaps]


def all_of(stream: MsgStream) -> tuple[list[int], list[StreamGap]]:
    """Numbers of all messages that are there, and the gaps before them."""
    packs = drained(stream)
    return [number for pack in packs for number in numbers(pack)], [gap for pack in packs for gap in pack.gaps]


def test_given_a_stream_that_was_passed_when_it_reads_on_then_the_gap_is_counted(world: World, channels: list[str]) -> None:
    told: list[StreamGap] = []
    with writer(world, channels) as out, plain_reader(world, channels, buffer_size=3, on_gap=told.append) as stream:
        fill(out, 0, 10)
        assert numbers(stream.consume(timeout=5.0)) == [0, 1, 2]
        keep(world, channels[0], 2, of=10)
        got, gaps = all_of(stream)
        assert (got, counts(gaps)) == ([8, 9], [(channels[0], 5)])
        fill(out, 10, 14)
        assert all_of(stream) == ([10, 11, 12, 13], [])
    assert told == gaps


def test_given_a_stream_that_ended_when_another_goes_on_behind_what_was_removed_then_the_gap_is_counted_from_where_it_stood(
    world: World, channels: list[str]
) -> None:
    with writer(world, channels) as out:
        fill(out, 0, 10)
        fill(out, 100, 104, key=1)
        with plain_reader(world, channels) as stream:
            drained(stream)
        fill(out, 10, 20)
        keep(world, channels[0], 3, of=20)
        with plain_reader(world, channels) as stream:
            got, gaps = all_of(stream)
    assert (got, counts(gaps)) == ([17, 18, 19], [(channels[0], 7)])


def test_given_a_subscription_that_never_read_when_messages_go_then_their_number_is_told(
    world: World, channels: list[str]
) -> None:
    with writer(world, channels) as out:
        fill(out, 0, 10)
        with world.factory().new_msg_stream() as stream:
            stream.as_consumer(channels, "reading")
            keep(world, channels[0], 4, of=10)
            stream.start()
            got, gaps = all_of(stream)
    assert (got, counts(gaps)) == ([6, 7, 8, 9], [(channels[0], 6)])


def test_given_a_subscription_made_behind_what_was_removed_when_read_then_there_is_no_gap(
    world: World, channels: list[str]
) -> None:
    with writer(world, channels) as out:
        fill(out, 0, 10)
        keep(world, channels[0], 4, of=10)
        with plain_reader(world, channels) as stream:
            assert all_of(stream) == ([6, 7, 8, 9], [])


def test_given_a_seek_to_what_was_removed_when_read_then_the_gap_is_told_and_the_next_one_is_counted(
    world: World, channels: list[str]
) -> None:
    with writer(world, channels) as out, plain_reader(world, channels) as stream:
        fill(out, 0, 10)
        (pack,) = drained(stream)
        place = pack.msgs[2].position
        assert place is not None
        keep(world, channels[0], 4, of=10)
        stream.seek(place)
        got, (gap,) = all_of(stream)
        assert (got, str(gap.from_id)) == ([6, 7, 8, 9], place.msg_id)
        assert gap.message_count in ((None,) if isinstance(world, RmqWorld) else (4,))  # a broker does not know that place
        fill(out, 10, 13)
        keep(world, channels[0], 1, of=7)
        got, gaps = all_of(stream)
        assert (got, counts(gaps)) == ([12], [(channels[0], 2)])


def test_given_a_seek_to_the_beginning_when_read_then_nothing_was_passed(world: World, channels: list[str]) -> None:
    with writer(world, channels) as out, plain_reader(world, channels) as stream:
        fill(out, 0, 10)
        drained(stream)
        keep(world, channels[0], 4, of=10)
        stream.seek(MsgPosition(channels[0]))
        assert all_of(stream) == ([6, 7, 8, 9], [])


def test_given_all_messages_removed_when_read_then_the_gap_is_told_with_nothing_behind_it(
    world: World, channels: list[str]
) -> None:
    with writer(world, channels) as out, plain_reader(world, channels, buffer_size=3) as stream:
        fill(out, 0, 10)
        assert numbers(stream.consume(timeout=5.0)) == [0, 1, 2]
        keep(world, channels[0], 0, of=10)
        pack = stream.consume(timeout=5.0)
        assert pack is not None
        assert (pack.msgs, counts(pack.gaps)) == ([], [(channels[0], 7)])
        fill(out, 10, 12)
        assert all_of(stream) == ([10, 11], [])


def test_given_an_interrupt_in_the_first_read_when_read_again_then_the_gap_is_still_told(
    world: World, channels: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(payload: Any) -> Any:
        monkeypatch.undo()
        raise KeyboardInterrupt

    with writer(world, channels) as out, world.factory().new_msg_stream() as stream:
        fill(out, 0, 10)
        stream.as_consumer(channels, "reading")
        keep(world, channels[0], 4, of=10)
        stream.start()
        monkeypatch.setattr(stream.dispatcher, "read", interrupted)
        with pytest.raises(KeyboardInterrupt):
            stream.consume(timeout=5.0)
        pack = stream.consume(timeout=5.0)
        assert pack is not None
        assert (numbers(pack), counts(pack.gaps)) == ([6, 7, 8, 9], [(channels[0], 6)])


def test_given_a_time_tick_stream_that_ended_when_another_goes_on_behind_what_was_removed_then_the_gap_is_counted(
    world: World, channels: list[str]
) -> None:
    with writer(world, channels) as out:
        fill(out, 0, 5)
        tick(out, 10)
        with reader(world, channels) as stream:
            assert numbers(stream.consume(timeout=5.0)) == [0, 1, 2, 3, 4]
        produce(out, *(search(number, 15) for number in range(5, 9)))
        tick(out, 20)
        keep(world, channels[0], 2, of=11)  # the message 8, and the tick
        with reader(world, channels) as stream:
            got, gaps = all_of(stream)
    # The tick at 10 is where it stood: it and the messages 5 to 7 are gone.
    assert (got, counts(gaps)) == ([8], [(channels[0], 4)])
