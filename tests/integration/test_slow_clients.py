"""Clients that are silent, slow or deaf: each time limit ends the connection when it should, and not before.

The broker runs on the test's clock, which jumps from event to event: the limits are the shipped ones.
"""

import tracemalloc
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from rocksmq.broker.limits import Limits
from rocksmq.broker.server import RATE_GRACE_SECONDS, SWEEP_SECONDS, Server
from rocksmq.broker.session import Session
from rocksmq.protocol.batch import pack_lengths
from rocksmq.protocol.codec import NO_CORRELATION, SUCCESS
from rocksmq.protocol.operations import Empty, Fetch, Position, Produce
from tests.helpers.raw import frame, hello, request_items
from tests.helpers.raw_trio import RawTrio, run, served

LIMITS = Limits()
MIB = 1 << 20
SLACK_SECONDS = 2 * SWEEP_SECONDS
MESSAGES = 7  # of 1 MiB: as much as a reply holds
PING = [NO_CORRELATION, SUCCESS]


@asynccontextmanager
async def broker(tmp_path: Path, limits: Limits = LIMITS) -> AsyncGenerator[tuple[Server, int]]:
    """A broker with a channel ``orders``; at the end it still works for others, and holds no connection."""
    async with served(tmp_path / "data", limits) as (engine, server, port):
        await engine.create_channel("orders")
        for _ in range(MESSAGES):
            await engine.produce("orders", [bytes(1 << 20)])
        yield server, port
        async with RawTrio.connected(port) as bystander:
            await bystander.call(Empty())
        with trio.fail_after(SLACK_SECONDS):
            while server.connection_count:
                await trio.sleep(0.01)
        assert server._memory.held == 0  # pyright: ignore[reportPrivateUsage]


def unsent_bytes(server: Server) -> int:
    """What waits for the one connection there is."""
    return sum(s.connection.unsent_bytes for s in server._sessions)  # pyright: ignore[reportPrivateUsage]


def is_due(since: float, until: float, limit_s: float) -> bool:
    """Whether a limit was kept: not early, and no later than the next sweep."""
    return limit_s <= until - since <= limit_s + SLACK_SECONDS


def test_given_no_hello_when_its_time_is_over_then_the_connection_is_closed(tmp_path: Path) -> None:
    async def test() -> None:
        async with broker(tmp_path) as (_, port):
            begin = trio.current_time()
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                assert is_due(begin, await RawTrio(stream).closed(), LIMITS.handshake_seconds)

    run(test)


def test_given_half_a_hello_when_its_time_is_over_then_the_connection_is_closed(tmp_path: Path) -> None:
    async def test() -> None:
        async with broker(tmp_path) as (_, port):
            begin = trio.current_time()
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream, trio.open_nursery() as nursery:
                nursery.start_soon(drip, stream, frame(request_items(1, hello()))[:-1])
                assert is_due(begin, await RawTrio(stream).closed(), LIMITS.handshake_seconds)
                nursery.cancel_scope.cancel()

    run(test)


async def drip(stream: trio.SocketStream, data: bytes) -> None:
    """A byte every third of a second."""
    try:
        for byte in data:
            await stream.send_all(bytes((byte,)))
            await trio.sleep(1 / 3)
    except trio.BrokenResourceError:
        pass


def test_given_a_frame_that_drips_in_when_its_time_is_over_then_the_connection_is_closed(tmp_path: Path) -> None:
    async def test() -> None:
        async with broker(tmp_path) as (_, port), RawTrio.connected(port) as slow, trio.open_nursery() as nursery:
            begin = trio.current_time()
            nursery.start_soon(drip, slow.stream, bytes((0, 0, 16, 0)) + bytes(4_000))
            assert is_due(begin, await slow.closed(), RATE_GRACE_SECONDS)
            nursery.cancel_scope.cancel()

    run(test)


def test_given_a_frame_that_keeps_its_rate_when_its_time_is_over_then_the_connection_is_closed(tmp_path: Path) -> None:
    async def test() -> None:
        async with broker(tmp_path) as (_, port), RawTrio.connected(port) as slow, trio.open_nursery() as nursery:
            begin = trio.current_time()
            nursery.start_soon(keep_rate, slow.stream)
            assert is_due(begin, await slow.closed(), LIMITS.frame_seconds)
            nursery.cancel_scope.cancel()

    run(test)


async def keep_rate(stream: trio.SocketStream) -> None:
    """A long frame, at what is allowed and no faster."""
    with suppress(trio.BrokenResourceError):
        await stream.send_all(bytes((0, 16, 0, 0)))
        while True:
            await stream.send_all(bytes(LIMITS.frame_rate_min))
            await trio.sleep(1)


def test_given_connections_that_hold_too_much_when_others_want_room_then_who_has_held_it_longest_is_closed(
    tmp_path: Path,
) -> None:
    limits = replace(LIMITS, connections_bytes_max=20 * MIB)

    async def test() -> None:
        async with (
            broker(tmp_path, limits) as (_, port),
            RawTrio.connected(port) as first,
            RawTrio.connected(port) as second,
            RawTrio.connected(port) as third,
        ):
            begun = bytes((0, 0x7F, 0, 0)) + bytes(
                4 * MIB - 4_096
            )  # in a buffer of 8 MiB, which is given back to no more than that
            await first.stream.send_all(begun)
            await trio.sleep(0.1)
            await second.stream.send_all(begun)
            await trio.sleep(0.1)
            assert (await third.call(Fetch("orders", Position.EARLIEST, 0, 1, 1, 0)))[1] == SUCCESS
            await third.stream.send_all(begun)
            await first.closed()
            with trio.move_on_after(1):
                await second.closed()
                raise AssertionError("there was room enough for two")

    run(test)


def test_given_large_buffers_that_nobody_needs_when_others_want_room_then_these_are_taken_and_nobody_is_closed(
    tmp_path: Path,
) -> None:
    limits = replace(LIMITS, connections_bytes_max=20 * MIB)
    ping = frame(request_items(9, Empty()))

    async def test() -> None:
        async with broker(tmp_path, limits) as (server, port), AsyncExitStack() as stack:
            tracemalloc.start()
            stack.callback(tracemalloc.stop)
            hoarders = [await stack.enter_async_context(RawTrio.connected(port)) for _ in range(4)]
            large = frame(
                request_items(2, Produce("missing", bytes(16), 0, 7, pack_lengths([MIB] * 7), bytes(7 * MIB), None, None))
            )
            for hoarder in hoarders:
                await hoarder.stream.send_all(large + ping[: len(ping) // 2])  # and a few bytes more, so that some are pending
                assert (await hoarder.receive())[1] != SUCCESS
            for hoarder in hoarders:
                await hoarder.stream.send_all(ping[len(ping) // 2 :])
                assert (await hoarder.receive())[:2] == [9, SUCCESS]
            assert server.connection_count == len(hoarders)
            assert tracemalloc.get_traced_memory()[0] < len(large) + limits.connections_bytes_max, "they are held on to"

    run(test)


def test_given_whole_frames_that_drip_in_when_each_is_in_time_then_all_are_answered(tmp_path: Path) -> None:
    async def test() -> None:
        async with broker(tmp_path) as (_, port), RawTrio.connected(port) as slow, trio.open_nursery() as nursery:
            count = 30
            data = b"".join(frame(request_items(number + 2, Empty())) for number in range(count))
            nursery.start_soon(drip, slow.stream, data)
            assert [await slow.receive() for _ in range(count)] == [[number + 2, SUCCESS] for number in range(count)]

    run(test)


def test_given_a_silent_client_when_idle_then_it_is_pinged_once_and_closed_later(tmp_path: Path) -> None:
    async def test() -> None:
        async with broker(tmp_path) as (_, port), RawTrio.connected(port) as silent:
            begin = trio.current_time()
            assert await silent.receive() == PING
            assert is_due(begin, trio.current_time(), LIMITS.idle_ping_seconds)
            assert is_due(begin, await silent.closed(), LIMITS.idle_close_seconds)

    run(test)


def test_given_a_client_that_answers_pings_when_idle_for_long_then_it_stays(tmp_path: Path) -> None:
    async def test() -> None:
        async with broker(tmp_path) as (_, port), RawTrio.connected(port) as idle:
            begin = trio.current_time()
            while trio.current_time() < begin + 2 * LIMITS.idle_close_seconds:
                assert await idle.receive() == PING
                assert await idle.call(Empty())

    run(test)


class Turns(trio.abc.Instrument):
    """Counts the turns of the loop."""

    def __init__(self) -> None:
        self.count = 0

    def before_io_wait(self, timeout: float) -> None:
        self.count += 1


def test_given_many_connections_when_they_are_swept_then_others_have_their_turn_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rocksmq.broker.server.SWEEP_AT_ONCE", 10)
    count = 35

    async def test() -> None:
        async with broker(tmp_path) as (server, port), AsyncExitStack() as stack:
            for _ in range(count):
                await stack.enter_async_context(RawTrio.connected(port))
            turns = Turns()
            trio.lowlevel.add_instrument(turns)
            swept: Counter[int] = Counter()  # connections, by the turn in which they were
            overdue = server._overdue  # pyright: ignore[reportPrivateUsage]

            def noted(session: Session, now: float) -> str | None:
                swept[turns.count] += 1
                return overdue(session, now)

            monkeypatch.setattr(server, "_overdue", noted)
            await trio.sleep(2 * SWEEP_SECONDS)
            assert swept.total() >= count
            assert max(swept.values()) <= 10

    run(test)


def test_given_a_long_poll_when_nothing_comes_then_it_is_answered_empty_in_time(tmp_path: Path) -> None:
    async def test() -> None:
        async with broker(tmp_path) as (_, port), RawTrio.connected(port) as reader:
            begin = trio.current_time()
            reply = await reader.call(Fetch("orders", Position.LATEST, 0, 1, 1, 3_600_000))
            assert reply[1] == SUCCESS
            assert is_due(begin, trio.current_time(), LIMITS.poll_ms_max / 1_000)

    run(test)


def test_given_more_long_polls_than_in_flight_when_they_wait_their_turn_then_the_client_is_not_taken_for_idle(
    tmp_path: Path,
) -> None:
    async def test() -> None:
        async with broker(tmp_path) as (_, port), RawTrio.connected(port) as busy:
            polls = 12 * LIMITS.in_flight_requests_max
            request = Fetch("orders", Position.LATEST, 0, 1, 1, LIMITS.poll_ms_max)
            await busy.stream.send_all(b"".join(frame(request_items(number + 2, request)) for number in range(polls)))
            answered = 0
            while answered < polls:
                if (items := await busy.receive()) == PING:
                    await busy.stream.send_all(frame(request_items(polls + 2, Empty())))
                else:
                    assert items[1] == SUCCESS
                    answered += items[0] != polls + 2

    run(test)


def test_given_a_deaf_client_when_replies_pile_up_then_they_are_bounded_and_the_connection_is_closed(tmp_path: Path) -> None:
    async def test() -> None:
        async with broker(tmp_path) as (server, port), RawTrio.connected(port) as deaf:
            begin = trio.current_time()
            most = 0

            async def send() -> None:
                request = frame(request_items(2, Fetch("orders", Position.EARLIEST, 0, 1_000, 7 << 20, 0)))
                with suppress(trio.BrokenResourceError):
                    await deaf.stream.send_all(request * 100_000)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(send)
                while server.connection_count:
                    most = max(most, unsent_bytes(server))
                    await trio.sleep(0.1)
            assert is_due(begin, trio.current_time(), LIMITS.write_seconds)
            assert LIMITS.output_bytes_max < most < LIMITS.output_bytes_max + LIMITS.frame_bytes_max

    run(test)
