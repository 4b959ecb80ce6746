"""The plain stream, on a real broker and in memory: what is produced comes, once, and where it goes on."""

import json
import logging
import threading
from collections.abc import Callable
from typing import TypeAlias

import pytest

from rocksmq.clients import ChannelNotFound, Conflict, ConnectionFailed, InvalidRequest
from rocksmq.clients.msgstream import (
    MsgPack,
    MsgPosition,
    MsgStream,
    ProtoUDFactory,
    SearchMsg,
    TsMsg,
    pack_header,
)
from tests.clients.msgstream.worlds import (
    RmqWorld,
    World,
    all_numbers,
    drained,
    numbers,
    plain_reader,
    produce,
    require_refusals,
    search,
    writer,
)
from tests.clients.support import wait_until

# -- consuming -------------------------------------------------------------------


def test_given_nothing_when_consumed_then_there_is_no_pack(stream: MsgStream) -> None:
    assert stream.consume(timeout=0.0) is None
    assert stream.consume(timeout=0.05) is None


def test_given_a_waiting_stream_when_something_comes_on_any_channel_then_it_has_it(out: MsgStream, stream: MsgStream) -> None:
    found: list[MsgPack | None] = []
    waiting = threading.Thread(target=lambda: found.append(stream.consume(timeout=20.0)))
    waiting.start()

    produce(out, search(1, 1, key=1))
    waiting.join()

    assert numbers(found[0]) == [1]


def test_given_a_new_stream_when_read_first_then_its_start_positions_are_the_beginnings(
    out: MsgStream, stream: MsgStream, channels: list[str]
) -> None:
    produce(out, search(1, 1, key=0), search(2, 1, key=1))

    first = [position for pack in drained(stream) for position in pack.start_positions]

    assert sorted(first) == sorted(MsgPosition(name, "", 0) for name in channels)


def test_given_a_pack_in_hand_when_the_stream_ends_without_commit_then_it_comes_again(
    world: World, out: MsgStream, channels: list[str]
) -> None:
    produce(out, search(1, 1))
    stream = plain_reader(world, channels)
    assert numbers(stream.consume(timeout=5.0)) == [1]
    with pytest.raises(KeyError), stream:
        raise KeyError

    with plain_reader(world, channels) as following:
        assert all_numbers(following) == [1]


@pytest.mark.parametrize("end", ["consume", "commit", "close"])
def test_given_a_pack_in_hand_when_moved_past_then_it_does_not_come_again(
    world: World, out: MsgStream, channels: list[str], end: str
) -> None:
    produce(out, search(1, 1))
    stream = plain_reader(world, channels)
    assert numbers(stream.consume(timeout=5.0)) == [1]
    if end == "consume":
        assert stream.consume(timeout=0.0) is None
    elif end == "commit":
        stream.commit()
    if end == "close":
        stream.close()
    else:
        with pytest.raises(KeyError), stream:
            raise KeyError

    with plain_reader(world, channels) as following:
        assert following.consume(timeout=0.0) is None


def test_given_positions_as_json_when_sought_then_it_goes_on_there(
    world: World, out: MsgStream, stream: MsgStream, channels: list[str]
) -> None:
    produce(out, *(search(number, number, key=0) for number in range(1, 6)))
    pack = stream.consume(timeout=5.0)
    assert pack is not None
    middle = json.loads(json.dumps(pack.msgs[2].position))
    ends = json.loads(json.dumps([position._asdict() for position in pack.end_positions]))

    stream.seek(MsgPosition(*middle))
    assert all_numbers(stream) == [3, 4, 5]
    stream.seek(pack.start_positions)
    assert all_numbers(stream) == [1, 2, 3, 4, 5]
    stream.seek([MsgPosition(**end) for end in ends])
    assert all_numbers(stream) == []


def test_given_a_seek_when_the_process_ends_then_another_goes_on_there(
    world: World, out: MsgStream, channels: list[str]
) -> None:
    produce(out, search(1, 1), search(2, 2))
    stream = plain_reader(world, channels)
    pack = stream.consume(timeout=5.0)
    assert pack is not None
    stream.commit()
    stream.seek(pack.msgs[1].position or ())
    with pytest.raises(KeyError), stream:
        raise KeyError

    with plain_reader(world, channels) as following:
        assert all_numbers(following) == [2]


def test_given_positions_that_are_none_when_sought_then_they_are_refused_and_nothing_moves(
    out: MsgStream, stream: MsgStream, channels: list[str]
) -> None:
    produce(out, search(1, 1))
    refused = [
        MsgPosition("elsewhere", "5"),
        MsgPosition(channels[0], "five"),
        MsgPosition(channels[0], "-5"),
        MsgPosition(channels[0], "9" * 5_000),
        MsgPosition(channels[0], 5),  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        MsgPosition(channels[0], "", -1),
        MsgPosition(channels[0], "", 1 << 64),
    ]

    for position in refused:
        with pytest.raises(InvalidRequest):
            stream.seek(position)
    with pytest.raises(InvalidRequest, match="at least"):
        stream.seek([])
    with pytest.raises(InvalidRequest, match="twice"):
        stream.seek([MsgPosition(channels[0]), MsgPosition(channels[0])])
    with pytest.raises(InvalidRequest, match="MsgPosition"):
        stream.seek([{"channel_name": channels[0]}])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
    for no_list in (MsgPack(), None, 5, {"channel_name": channels[0]}):
        with pytest.raises(InvalidRequest, match="end_positions"):
            stream.seek(no_list)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert all_numbers(stream) == [1]


def test_given_a_seek_before_the_start_when_started_then_it_begins_there(
    world: World, out: MsgStream, channels: list[str]
) -> None:
    ids = out.produce(MsgPack(msgs=[search(1, 1), search(2, 2), search(3, 3)]))
    with world.factory().new_msg_stream() as stream:
        stream.as_consumer(channels, "reading")
        stream.seek(MsgPosition(channels[0], str(ids[channels[0]][1])))
        stream.start()
        assert all_numbers(stream) == [2, 3]


def test_given_another_stream_of_the_subscription_when_started_then_the_former_is_fenced(
    world: World, out: MsgStream, stream: MsgStream, channels: list[str]
) -> None:
    produce(out, search(1, 1))
    assert numbers(stream.consume(timeout=5.0)) == [1]

    with plain_reader(world, channels) as following:
        with pytest.raises(Conflict):
            stream.consume(timeout=0.0)
        assert all_numbers(following) == [1]
        with pytest.raises(Conflict):
            stream.close()


def test_given_two_subscriptions_when_read_then_each_has_all(
    world: World, out: MsgStream, stream: MsgStream, channels: list[str]
) -> None:
    produce(out, search(1, 1), search(2, 1, key=1))

    with plain_reader(world, channels, name="other") as other:
        assert all_numbers(other) == all_numbers(stream) == [1, 2]


def test_given_latest_when_subscribed_then_only_what_follows_comes(world: World, out: MsgStream, channels: list[str]) -> None:
    produce(out, search(1, 1))
    with world.factory().new_msg_stream() as stream:
        stream.as_consumer(channels, "reading", "latest")
        produce(out, search(2, 1))
        stream.start()
        assert all_numbers(stream) == [2]


def test_given_an_unsubscribed_stream_when_subscribed_again_then_it_begins_anew(
    world: World, out: MsgStream, stream: MsgStream, channels: list[str]
) -> None:
    produce(out, search(1, 1))
    assert all_numbers(stream) == [1]
    stream.unsubscribe()

    with pytest.raises(InvalidRequest, match="as_consumer"):
        stream.consume(timeout=0.0)
    with plain_reader(world, channels) as following:
        assert all_numbers(following) == [1]


def test_given_more_channels_when_added_to_a_started_stream_then_they_are_read_too(
    world: World, out: MsgStream, channels: list[str]
) -> None:
    produce(out, search(1, 1, key=0), search(2, 1, key=1))
    with plain_reader(world, channels[:1]) as stream:
        assert numbers(stream.consume(timeout=5.0)) == [1]
        stream.as_consumer(channels, "reading")
        assert all_numbers(stream) == [2]


def test_given_a_destroyed_channel_when_the_stream_is_used_then_it_is_named(
    world: World, out: MsgStream, stream: MsgStream, channels: list[str]
) -> None:
    produce(out, search(1, 1, key=1))
    assert numbers(stream.consume(timeout=5.0)) == [1]
    world.destroy(channels[1:])

    calls: list[Callable[[], object]] = [
        lambda: stream.consume(timeout=0.0),
        stream.commit,
        lambda: stream.seek(MsgPosition(channels[1])),
    ]
    for call in calls:
        with pytest.raises(ChannelNotFound, match=channels[1]):
            call()
    with pytest.raises(ChannelNotFound, match=channels[1]):
        stream.close()


def test_given_a_small_buffer_when_read_then_no_pack_is_larger(world: World, out: MsgStream, channels: list[str]) -> None:
    produce(out, *(search(number, 1) for number in range(25)))

    with plain_reader(world, channels, buffer_size=10) as stream:
        packs = drained(stream)

    assert [len(pack.msgs) for pack in packs] == [10, 10, 5]


def test_given_a_stream_that_was_not_started_when_consumed_then_it_says_what_to_call(world: World, channels: list[str]) -> None:
    with world.factory().new_msg_stream() as stream:
        with pytest.raises(InvalidRequest, match="as_consumer"):
            stream.consume(timeout=0.0)
        stream.as_consumer(channels, "reading")
        with pytest.raises(InvalidRequest, match="start"):
            stream.consume(timeout=0.0)
        with pytest.raises(InvalidRequest, match="another stream"):
            stream.as_consumer(channels, "other")


# -- subscriptions that others use too ------------------------------------------------


def test_given_a_refused_subscription_when_another_is_named_then_nothing_of_the_first_is_touched(
    world: World, out: MsgStream, channels: list[str]
) -> None:
    require_refusals(world)
    produce(out, search(1, 1))
    with plain_reader(world, channels, name="alpha") as owner, world.factory().new_msg_stream() as stream:
        with pytest.raises(ChannelNotFound):
            stream.as_consumer(["nope"], "alpha")
        stream.as_consumer(channels, "beta")
        stream.start()
        assert all_numbers(stream) == [1]
        assert all_numbers(owner) == [1]


Call: TypeAlias = Callable[[MsgStream, list[str], list[str]], None]
FENCED: list[Call] = [
    lambda stream, old, new: stream.seek([MsgPosition(name) for name in old]),
    lambda stream, old, new: stream.as_consumer(new, "reading"),
    lambda stream, old, new: stream.unsubscribe(),
]


@pytest.mark.parametrize("call", FENCED)
def test_given_a_fenced_stream_when_it_does_anything_then_it_gets_conflict_for_good_and_the_other_reads_on(
    world: World, out: MsgStream, stream: MsgStream, channels: list[str], call: Call
) -> None:
    more = world.channels(1)
    produce(out, search(1, 1), search(2, 1, key=1))
    assert sorted(numbers(stream.consume(timeout=5.0))) == [1, 2]

    with plain_reader(world, [*channels, *more]) as rightful:
        assert sorted(numbers(rightful.consume(timeout=5.0))) == [1, 2]
        for _ in range(2):
            with pytest.raises(Conflict):
                call(stream, channels, more)
            with pytest.raises(Conflict):
                stream.commit()
        assert rightful.consume(timeout=0.0) is None  # committed, and nothing comes again
        with pytest.raises(Conflict):
            stream.close()


def test_given_a_position_beyond_the_end_when_sought_then_what_follows_comes(
    out: MsgStream, stream: MsgStream, channels: list[str]
) -> None:
    stream.seek(MsgPosition(channels[0], str(1 << 62)))
    produce(out, search(1, 1))
    assert numbers(stream.consume(timeout=5.0)) == [1]


def test_given_a_subscription_that_is_gone_on_a_channel_when_unsubscribed_then_the_rest_goes_too(
    world: World, out: MsgStream, channels: list[str]
) -> None:
    produce(out, search(1, 1), search(2, 1, key=1))
    for is_started in (True, False):
        with plain_reader(world, channels) as stream:
            assert len(all_numbers(stream)) == 2
        with world.factory().new_msg_stream() as stream:
            stream.as_consumer(channels, "reading")
            if is_started:
                stream.start()
            with plain_reader(world, channels[:1]) as other:
                other.unsubscribe()
            stream.unsubscribe()
    with plain_reader(world, channels) as following:
        assert all_numbers(following) == [1, 2]


def test_given_many_bytes_when_read_then_a_pack_holds_no_more_than_the_buffer(rmq: RmqWorld) -> None:
    channels = rmq.channels(1)
    with writer(rmq, channels) as out:
        for number in range(10):
            out.produce(MsgPack(msgs=[SearchMsg(id=number, timestamp=1, payload=bytes(1_000), hash_keys=[0])]))
    with plain_reader(rmq, channels, buffer_bytes=3_500) as stream:
        assert [len(pack.msgs) for pack in drained(stream)] == [3, 3, 3, 1]


# -- the end -----------------------------------------------------------------------


def test_given_a_waiting_consume_when_closed_elsewhere_then_it_raises(stream: MsgStream) -> None:
    raised: list[BaseException] = []

    def wait() -> None:
        try:
            stream.consume()
        except ConnectionFailed as error:
            raised.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    wait_until(lambda: stream._turn._holder is not None)  # pyright: ignore[reportPrivateUsage]
    stream.close()
    waiting.join()

    assert len(raised) == 1


def test_given_a_closed_stream_when_used_then_every_call_says_so(
    out: MsgStream, stream: MsgStream, channels: list[str]
) -> None:
    stream.close()
    stream.close()

    calls: list[Callable[[], object]] = [
        lambda: stream.consume(timeout=0.0),
        stream.commit,
        stream.start,
        stream.unsubscribe,
        lambda: stream.seek(MsgPosition(channels[0])),
        lambda: produce(stream, search(1, 1)),
        lambda: stream.as_producer(channels),
        lambda: stream.as_consumer(channels, "reading"),
    ]
    for call in calls:
        with pytest.raises(ConnectionFailed, match="closed"):
            call()


def test_given_a_stream_that_nobody_closed_when_it_goes_then_it_warns(world: World) -> None:
    stream = world.factory().new_msg_stream()

    with pytest.warns(ResourceWarning, match="not closed"):
        del stream


def test_given_a_message_that_cannot_be_decoded_when_read_then_it_is_counted_told_and_passed_over(
    world: World, channels: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    class Foreign(TsMsg):
        type = 9_999

        def marshal(self) -> bytes:
            return pack_header(self.type, self.id, self.begin_ts, self.end_ts)

    dispatchers = ProtoUDFactory()
    with world.factory(dispatchers=dispatchers).new_msg_stream() as out:
        out.as_producer(channels)
        produce(out, search(1, 1))
        out.broadcast(MsgPack(msgs=[Foreign(3, 1, 1, [0])]))
        produce(out, search(2, 1))

    with plain_reader(world, channels, dispatchers=dispatchers) as stream, caplog.at_level(logging.WARNING):
        assert all_numbers(stream) == [1, 2]
        assert stream.undecodable_count == 2

    assert "cannot be decoded" in caplog.text
    with plain_reader(world, channels, dispatchers=dispatchers) as following:
        assert following.consume(timeout=0.0) is None
