"""What goes wrong beside the data: lost answers, slow callbacks, other threads, buffers that are full and silent channels."""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from rocksmq.clients import ConnectionFailed, DiskFull, GapFound, Timeout
from rocksmq.clients.deadline import Deadline
from rocksmq.clients.msgstream import BufferFull, MsgPosition, StreamGap
from rocksmq.clients.msgstream import stream as stream_module
from rocksmq.clients.msgstream.memory import MemTransport
from rocksmq.clients.msgstream.rmq import RmqTransport
from rocksmq.protocol.errors import RocksMQError
from tests.clients.msgstream.worlds import (
    PATIENCE,
    MemWorld,
    RmqWorld,
    drained,
    numbers,
    plain_reader,
    produce,
    reader,
    search,
    tick,
    writer,
)
from tests.clients.support import wait_until


@pytest.mark.parametrize("error", [DiskFull, Timeout, ConnectionFailed])
def test_given_a_seek_whose_answer_is_lost_when_going_on_then_the_next_call_finishes_it(
    monkeypatch: pytest.MonkeyPatch, error: type[RocksMQError]
) -> None:
    world = MemWorld()
    channels = world.channels(1)
    with writer(world, channels) as out:
        produce(out, *(search(number, 1) for number in range(4)))
    with plain_reader(world, channels) as stream:
        (pack,) = drained(stream)
        done: Callable[..., Any] = MemTransport.seek

        def lost(self: MemTransport, positions: Sequence[MsgPosition], request_id: bytes) -> None:
            done(self, positions, request_id)
            raise error("the answer is lost")

        with monkeypatch.context() as patch:
            patch.setattr(MemTransport, "seek", lost)
            with pytest.raises(error):
                stream.seek(pack.msgs[2].position or ())
        assert numbers(stream.consume(timeout=0.0)) == [2, 3]


def test_given_a_seek_whose_answer_is_lost_when_sought_again_then_it_stands_there(
    rmq: RmqWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    channels = rmq.channels(1)
    with writer(rmq, channels) as out:
        produce(out, *(search(number, 1) for number in range(4)))
    with plain_reader(rmq, channels) as stream:
        (pack,) = drained(stream)
        done: Callable[..., Any] = RmqTransport.seek

        def lost(self: RmqTransport, positions: Sequence[MsgPosition], request_id: bytes) -> None:
            generations = dict(self._generations)  # pyright: ignore[reportPrivateUsage]
            done(self, positions, request_id)
            self._generations = generations  # pyright: ignore[reportPrivateUsage]
            raise Timeout("the answer is lost")

        with monkeypatch.context() as patch:
            patch.setattr(RmqTransport, "seek", lost)
            with pytest.raises(Timeout):
                stream.seek(pack.msgs[2].position or ())
        stream.seek(pack.msgs[1].position or ())
        assert numbers(stream.consume(timeout=0.0)) == [1, 2, 3]


def test_given_a_position_beyond_the_end_when_sought_then_nothing_is_filtered_on_its_channel(rmq: RmqWorld) -> None:
    channels = rmq.channels(2)
    with writer(rmq, channels) as out, reader(rmq, channels) as stream:
        tick(out, 20)
        (pack,) = drained(stream)
        lost, kept = pack.end_positions
        stream.seek([lost._replace(msg_id=str(1 << 62)), kept])
        produce(out, search(1, 5, key=0))
        tick(out, 30)
        (pack,) = drained(stream)
        assert (numbers(pack), pack.late_count) == ([1], 1)
    assert rmq.client.describe_consumer_group(channels[1], "reading").metadata.startswith(b"30@")


def test_given_a_long_consume_when_it_asks_once_more_then_that_request_has_its_own_time(rmq: RmqWorld) -> None:
    (channel,) = rmq.channels(1)
    with writer(rmq, [channel]) as out:
        produce(out, search(1, 1))
    transport = RmqTransport(rmq.broker.url)
    try:
        transport.subscribe([channel], "reading", "earliest")
        transport.take_over([channel])
        (received,) = transport.receive([(channel, 0)], 10, 1 << 20, Deadline(-PATIENCE), lambda: False)
    finally:
        transport.close()
    assert len(received.payloads) == 1


def test_given_a_channel_with_data_and_without_ticks_when_the_buffer_is_full_then_it_is_left_out_in_the_end() -> None:
    world = MemWorld()
    channels = world.channels(2)
    with writer(world, channels) as out, reader(world, channels, buffer_size=10, silence_timeout=0.05) as stream:
        produce(out, *(search(number, number, key=0) for number in range(1, 51)))
        tick(out, 60, key=1)
        begin = time.monotonic()
        pack = None
        while pack is None and time.monotonic() < begin + PATIENCE:
            try:
                pack = stream.consume(timeout=0.01)
            except BufferFull:
                continue
        assert pack is not None
        assert (pack.end_ts, pack.msgs) == (60, [])
        assert stream.stalled_channels == channels[:1]


def test_given_a_callback_for_a_gap_that_fails_while_another_thread_closes_then_the_pack_comes_again() -> None:
    world = MemWorld()
    channels = world.channels(1)
    with writer(world, channels) as out:
        produce(out, *(search(number, 1) for number in range(4)))
    with plain_reader(world, channels, buffer_size=1) as stream:
        stream.consume(timeout=0.0)
    world.broker.trim(channels[0], 2)
    is_told, may_fail = threading.Event(), threading.Event()

    def fail(gap: StreamGap) -> None:
        is_told.set()
        may_fail.wait(PATIENCE)
        raise GapFound("it is too much")

    stream = plain_reader(world, channels, on_gap=fail)
    raised: list[BaseException] = []

    def consume() -> None:
        try:
            stream.consume(timeout=0.0)
        except GapFound as error:
            raised.append(error)

    consuming, closing = threading.Thread(target=consume), threading.Thread(target=stream.close)
    consuming.start()
    is_told.wait(PATIENCE)
    closing.start()
    wait_until(lambda: "closed" in repr(stream))
    may_fail.set()
    for thread in (consuming, closing):
        thread.join(PATIENCE)

    assert len(raised) == 1
    with plain_reader(world, channels) as following:
        assert [number for pack in drained(following) for number in numbers(pack)] == [2, 3]


def test_given_another_threads_call_that_does_not_end_when_closed_then_it_says_that_nothing_was_committed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stream_module, "EXIT_SECONDS", 0.02)
    world = MemWorld()
    stream = plain_reader(world, world.channels(1))
    is_in, may_end = threading.Event(), threading.Event()

    def hang(positions: object, deadline: object = None) -> None:
        is_in.set()
        may_end.wait(PATIENCE)

    with writer(world, list(stream._consuming)) as out:  # pyright: ignore[reportPrivateUsage]
        produce(out, search(1, 1))
    stream.consume(timeout=0.0)
    monkeypatch.setattr(stream._transport, "commit", hang)  # pyright: ignore[reportPrivateUsage]
    committing = threading.Thread(target=stream.commit)
    committing.start()
    is_in.wait(PATIENCE)
    with pytest.raises(Timeout, match="may come again"):
        stream.close()
    may_end.set()
    committing.join(PATIENCE)
