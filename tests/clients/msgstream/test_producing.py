"""Producing, on a real broker and in memory: which channel gets what, and what is refused before anything is sent."""

from collections.abc import Sequence

import pytest

from rocksmq.clients import ChannelNotFound, InvalidRequest
from rocksmq.clients.msgstream import (
    MsgPack,
    MsgStream,
    PackPartlyProduced,
    TimeTickMsg,
    TsMsg,
)
from tests.clients.msgstream.worlds import World, all_numbers, drained, insert, produce, require_refusals, search


def test_given_a_pack_when_produced_then_each_message_comes_once_in_the_order_of_its_channel(
    out: MsgStream, stream: MsgStream, channels: list[str]
) -> None:
    produce(out, *(search(number, 100 + number, key=number) for number in range(10)))

    found = [msg for pack in drained(stream) for msg in pack.msgs]

    by_channel = [[m.id for m in found if m.position is not None and m.position.channel_name == name] for name in channels]
    assert by_channel == [[0, 2, 4, 6, 8], [1, 3, 5, 7, 9]]


def test_given_a_pack_when_consumed_then_its_range_is_that_of_its_messages(out: MsgStream, stream: MsgStream) -> None:
    produce(out, insert(1, [30, 10, 20]), insert(2, [15]))  # one channel

    pack = stream.consume(timeout=5.0)

    assert pack is not None
    assert (pack.begin_ts, pack.end_ts) == (10, 30)
    assert (pack.late_count, pack.gaps) == (0, [])


def test_given_ticks_when_a_plain_stream_reads_them_then_they_come_like_any_message(out: MsgStream, stream: MsgStream) -> None:
    out.broadcast(MsgPack(msgs=[TimeTickMsg(7)]))

    ticks = [msg for pack in drained(stream) for msg in pack.msgs]

    assert [msg.end_ts for msg in ticks] == [7, 7]


def test_given_a_broadcast_when_answered_then_it_has_an_id_a_message_by_channel(out: MsgStream, channels: list[str]) -> None:
    ids = out.broadcast(MsgPack(msgs=[search(1, 1), search(2, 1)]))

    assert list(ids) == channels
    assert [len(found) for found in ids.values()] == [2, 2]


def test_given_an_empty_pack_when_produced_then_nothing_is_sent(out: MsgStream, stream: MsgStream) -> None:
    assert out.produce(MsgPack()) == {}
    assert out.broadcast(MsgPack()) == {}
    assert stream.consume(timeout=0.0) is None


def test_given_a_repack_function_when_set_then_it_chooses_the_channels(
    out: MsgStream, stream: MsgStream, channels: list[str]
) -> None:
    def all_to_the_second(msgs: list[TsMsg], keys: list[Sequence[int]]) -> dict[int, MsgPack]:
        return {1: MsgPack(msgs=msgs)}

    out.set_repack_func(all_to_the_second)
    ids = out.produce(MsgPack(msgs=[search(1, 1, key=0), search(2, 2, key=1)]))

    assert list(ids) == [channels[1]]
    assert all_numbers(stream) == [1, 2]


def test_given_a_repack_function_beyond_the_channels_when_called_then_nothing_is_sent(
    out: MsgStream, stream: MsgStream
) -> None:
    out.set_repack_func(lambda msgs, keys: {0: MsgPack(msgs=msgs[:1]), 2: MsgPack(msgs=msgs[1:])})

    with pytest.raises(InvalidRequest, match="2"):
        produce(out, search(1, 1), search(2, 1))
    assert stream.consume(timeout=0.0) is None


def test_given_no_channels_when_produced_then_it_says_what_to_call(world: World) -> None:
    with world.factory().new_msg_stream() as stream, pytest.raises(InvalidRequest, match="as_producer"):
        produce(stream, search(1, 1))


def test_given_something_else_than_a_pack_when_produced_then_it_is_refused(out: MsgStream) -> None:
    with pytest.raises(InvalidRequest, match="MsgPack"):
        out.produce([search(1, 1)])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    for no_list in (None, 5):
        with pytest.raises(InvalidRequest, match="msgs"):
            out.produce(MsgPack(msgs=no_list))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert out.produce(MsgPack(msgs=iter([search(1, 1)])))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with pytest.raises(InvalidRequest, match="msgs="):
        out.produce(MsgPack([search(1, 1)]))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def test_given_channels_that_do_not_exist_when_named_then_all_of_them_are_told(world: World, channels: list[str]) -> None:
    require_refusals(world)
    with world.factory().new_msg_stream() as stream:
        with pytest.raises(ChannelNotFound, match=r"nope\.1.*nope\.2"):
            stream.as_producer([channels[0], "nope.1", "nope.2"])
        with pytest.raises(ChannelNotFound, match=r"nope\.1.*nope\.2"):
            stream.as_consumer([channels[0], "nope.1", "nope.2"], "reading")


def test_given_a_channel_that_is_gone_when_produced_then_the_rest_waits_for_it_alone(
    world: World, out: MsgStream, stream: MsgStream, channels: list[str]
) -> None:
    world.destroy(channels[1:])

    with pytest.raises(PackPartlyProduced) as caught:
        produce(out, search(1, 1, key=0), search(2, 1, key=1))
    again = caught.value
    with pytest.raises(PackPartlyProduced) as caught:
        out.produce(again.rest)

    assert list(again.ids) == channels[:1]
    assert list(again.errors) == list(caught.value.errors) == channels[1:]
    assert isinstance(again.errors[channels[1]], ChannelNotFound)
    assert channels[1] in again.message
    assert caught.value.ids == {}
