"""Each figure of connections, driven to a value that is known beforehand: bytes in and out, what is in flight, who waits."""

import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import pytest
import trio

from rocksmq.broker.connection import VIEW_BYTES
from rocksmq.broker.engine import RocksMQ
from rocksmq.broker.limits import Limits
from rocksmq.broker.server import Door, Server
from rocksmq.broker.session import PARKED_FACTOR, Session
from rocksmq.protocol.frames import LENGTH_BYTES
from rocksmq.protocol.operations import CreateChannel, Empty, Fetch, Position
from tests.helpers.raw import frame, hello, request_items
from tests.helpers.raw_trio import RawTrio, run

from .many_support import fetching
from .test_server_metrics import ended, serve
from .test_telemetry import of, told

LIMITS = Limits()
MIB = 1 << 20
BUFFERS_MAX = 100  # of a few answers
FETCH = Fetch("orders", Position.EARLIEST, 0, 10, 100, 30_000)


async def until(is_so: Callable[[], bool]) -> None:
    """On the jumping clock; when that never comes true, `run` ends it."""
    while not is_so():
        await trio.sleep(0.1)


def body_bytes(correlation: int, request: Any) -> int:
    return len(frame(request_items(correlation, request))) - LENGTH_BYTES


def test_given_an_exchange_when_it_is_over_then_each_byte_of_it_was_counted_once(tmp_path: Path) -> None:
    async def scenario(mq: RocksMQ, port: int) -> None:
        requests = hello(), CreateChannel("orders", None, None, None, b"r" * 16), Empty()
        sent = b"".join(frame(request_items(number, request)) for number, request in enumerate(requests, 1))
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            # When
            await stream.send_all(sent[:10])
            await until(lambda: told(mq)["rocksmq_received_bytes_total",] > 0)
            assert told(mq)["rocksmq_received_bytes_total",] == 10
            await stream.send_all(sent[10:])
            await until(lambda: of(told(mq), "rocksmq_requests_total")["CREATE_CHANNEL", "OK"] == 1)
            await stream.send_eof()
            received = 0
            async for data in stream:
                received += len(data)
        # Then
        found = told(mq)
        assert found["rocksmq_received_bytes_total",] == len(sent)
        assert found["rocksmq_sent_bytes_total",] == received > 100
        assert found["rocksmq_unsent_bytes",] == 0

    serve(tmp_path, scenario)


def test_given_long_polls_when_they_wait_then_they_and_their_bytes_are_in_flight(tmp_path: Path) -> None:
    async def scenario(mq: RocksMQ, port: int) -> None:
        await mq.create_channel("orders")
        many = fetching([(mq.core.channels.find("orders").number, 0)], wait_ms=30_000)
        async with RawTrio.connected(port) as raw, RawTrio.connected(port) as other:
            # When
            numbers = [await raw.send(FETCH), await raw.send(many), await other.send(FETCH)]
            await until(lambda: len(mq.core.waiters) == 3)
            # Then
            found = told(mq)
            assert found["rocksmq_long_polls",] == 3
            assert found["rocksmq_requests_in_flight",] == 3
            sizes = [body_bytes(number, request) for number, request in zip(numbers, (FETCH, many, FETCH), strict=True)]
            assert found["rocksmq_in_flight_bytes",] == sizes[0] + PARKED_FACTOR * sizes[1] + sizes[2]
            # And
            await mq.produce("orders", [b"x"])
            for reader in (raw, raw, other):
                await reader.receive()
            names = ("rocksmq_long_polls", "rocksmq_requests_in_flight", "rocksmq_in_flight_bytes")
            assert [told(mq)[name,] for name in names] == [0, 0, 0]

    serve(tmp_path, scenario)


def test_given_a_connection_with_too_much_in_flight_when_more_comes_then_it_is_paused_until_there_is_room(
    tmp_path: Path,
) -> None:
    async def scenario(mq: RocksMQ, port: int) -> None:
        await mq.create_channel("orders")
        assert told(mq)["rocksmq_connections_limit",] == 7
        async with RawTrio.connected(port) as first, RawTrio.connected(port) as second, RawTrio.connected(port):
            # When
            for raw in (first, second):
                await raw.send(FETCH)
                await raw.send(Empty())
            await until(lambda: len(mq.core.waiters) == 2)
            # Then
            assert told(mq)["rocksmq_connections_paused",] == 2
            assert of(told(mq), "rocksmq_connections") == {("handshake",): 0, ("open",): 3}
            assert told(mq)["rocksmq_requests_in_flight",] == 2
            # And
            await mq.produce("orders", [b"x"])
            for raw in (first, second):
                assert [(await raw.receive())[0] for _ in range(2)] == [2, 3]
            assert told(mq)["rocksmq_connections_paused",] == 0

    serve(tmp_path, scenario, replace(LIMITS, in_flight_requests_max=1, connections_max=7))


def test_given_a_client_that_does_not_read_when_it_asks_for_much_then_the_rest_is_unsent_until_it_does(tmp_path: Path) -> None:
    async def scenario(mq: RocksMQ, port: int) -> None:
        await mq.create_channel("orders")
        for _ in range(6):
            await mq.produce("orders", [b"x" * MIB])
        async with RawTrio.connected(port) as raw:
            raw.stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
            before = told(mq)["rocksmq_sent_bytes_total",]
            # When
            for _ in range(3):
                await raw.send(Fetch("orders", Position.EARLIEST, 0, 6, 7 * MIB, 0))
            await until(lambda: of(told(mq), "rocksmq_requests_total")["FETCH", "OK"] == 3)
            # Then
            unsent = told(mq)["rocksmq_unsent_bytes",]
            sent = told(mq)["rocksmq_sent_bytes_total",] - before
            assert 18 * MIB < sent + unsent < 18 * MIB + BUFFERS_MAX * VIEW_BYTES
            assert unsent > MIB
            # And
            for _ in range(3):
                await raw.receive()
            found = told(mq)
            assert found["rocksmq_unsent_bytes",] == 0
            # What a buffer takes itself is in what waits, not in what was sent.
            views = unsent - (found["rocksmq_sent_bytes_total",] - before - sent)
            assert views in range(VIEW_BYTES, BUFFERS_MAX * VIEW_BYTES, VIEW_BYTES)

    serve(tmp_path, scenario)


def test_given_a_bug_when_a_connection_ends_by_it_then_that_is_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(mq: RocksMQ, port: int) -> None:
        def broken(session: Session, body: "memoryview[int]") -> NoReturn:
            raise ZeroDivisionError

        async with RawTrio.connected(port) as raw:
            monkeypatch.setattr(Session, "receive", broken)
            await raw.send(Empty())
            await raw.closed()
        await ended(mq, "bug")
        ends = of(told(mq), "rocksmq_connections_closed_total")
        assert {reason: count for reason, count in ends.items() if count} == {("bug",): 1}

    serve(tmp_path, scenario)


def test_given_a_server_that_stops_when_its_connections_end_then_that_is_the_reason(tmp_path: Path) -> None:
    async def test() -> None:
        async with RocksMQ(tmp_path) as mq:
            listener = socket.create_server(("127.0.0.1", 0))
            port: int = listener.getsockname()[1]
            server = Server(mq.core, LIMITS, clock=trio.current_time)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(server.serve, Door(listener))
                async with RawTrio.connected(port), RawTrio.connected(port):
                    # When
                    nursery.cancel_scope.cancel()
            # Then
            ends = of(told(mq), "rocksmq_connections_closed_total")
            assert {reason: count for reason, count in ends.items() if count} == {("stop",): 2}
            assert of(told(mq), "rocksmq_connections") == {("handshake",): 0, ("open",): 0}

    run(test)
