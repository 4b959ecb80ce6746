"""What the server tells of its connections and their requests."""

import re
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import trio

from rocksmq.broker.engine import RocksMQ
from rocksmq.broker.limits import Limits
from rocksmq.protocol.identity import Identity
from rocksmq.protocol.operations import Consume, CreateChannel, CreateGroup, DescribeChannel, Fetch, Position, Produce
from tests.helpers.raw import frame, hello
from tests.helpers.raw_trio import RawTrio, run, served

from .test_telemetry import of, told

LIMITS = Limits()
Scenario = Callable[[RocksMQ, int], Awaitable[None]]


def serve(tmp_path: Path, scenario: Scenario, limits: Limits = LIMITS) -> None:
    """Run ``scenario`` with an engine and the port of its server, on a jumping clock."""

    async def test() -> None:
        async with served(tmp_path, limits) as (engine, _, port):
            await scenario(engine, port)

    run(test)


async def ended(mq: RocksMQ, reason: str, count: int = 1) -> None:
    """Wait until so many connections have ended by ``reason``."""
    while of(told(mq), "rocksmq_connections_closed_total").get((reason,), 0) < count:
        await trio.sleep(0.1)


def one(lengths: bytes = b"\1\0\0\0") -> tuple[int, bytes, bytes, None, None]:
    """The columns of a batch of one message."""
    return 1, lengths, b"x", None, None


def test_given_requests_when_answered_then_each_counts_by_operation_and_result(tmp_path: Path) -> None:
    async def scenario(mq: RocksMQ, port: int) -> None:
        async with RawTrio.connected(port) as raw:
            await raw.call(CreateChannel("orders", None, None, None, b"r" * 16))
            identity = Identity.new(mq.core.ids.present_id)
            await raw.call(Produce("orders", identity.id, 0, *one()))
            await raw.call(Produce("orders", identity.id, 7, *one()))
            await raw.call(DescribeChannel("nowhere"))
            found = told(mq)
        requests = {labels: count for labels, count in of(found, "rocksmq_requests_total").items() if count}
        assert requests == {
            ("HELLO", "OK"): 1,
            ("CREATE_CHANNEL", "OK"): 1,
            ("PRODUCE", "OK"): 1,
            ("PRODUCE", "OutOfSequence"): 1,
            ("DESCRIBE_CHANNEL", "ChannelNotFound"): 1,
        }
        assert of(found, "rocksmq_request_duration_seconds_count") == {
            ("CREATE_CHANNEL",): 1,
            ("DESCRIBE_CHANNEL",): 1,
            ("PRODUCE",): 2,
        }
        assert found["rocksmq_received_bytes_total",] > 100
        assert found["rocksmq_sent_bytes_total",] > 100

    serve(tmp_path, scenario)


def test_given_long_polls_when_they_waited_then_their_time_does_not_count_as_the_brokers(tmp_path: Path) -> None:
    async def scenario(mq: RocksMQ, port: int) -> None:
        async with RawTrio.connected(port) as raw:
            await raw.call(CreateChannel("orders", None, None, None, b"r" * 16))
            await raw.call(CreateGroup("orders", "billing", Position.EARLIEST, 0, b"r" * 16))
            consumer = Identity.new(mq.core.ids.present_id).id
            # When: one waits in vain, one for messages, one finds them there.
            await raw.call(Fetch("orders", Position.EARLIEST, 0, 10, 100, 5_000))
            waiting = await raw.send(Consume("orders", "billing", consumer, 0, 10, 100, 30_000))
            while not of(told(mq), "rocksmq_group_waiting_consumers").get(("orders", "billing")):
                await trio.sleep(0.1)
            assert told(mq)["rocksmq_requests_in_flight",] == told(mq)["rocksmq_long_polls",] == 1
            await mq.produce("orders", [b"x"])
            assert (await raw.receive())[0] == waiting
            await raw.call(Fetch("orders", Position.EARLIEST, 0, 10, 100, 5_000))
            # Then
            found = told(mq)
            assert of(found, "rocksmq_requests_total")["FETCH", "OK"] == 2
            assert of(found, "rocksmq_requests_total")["CONSUME", "OK"] == 1
            durations = of(found, "rocksmq_request_duration_seconds_count")
            assert (durations["FETCH",], durations.get(("CONSUME",))) == (1, None)
            assert found["rocksmq_requests_in_flight",] == found["rocksmq_in_flight_bytes",] == 0
            assert of(found, "rocksmq_group_waiting_consumers") == {("orders", "billing"): 0}

    serve(tmp_path, scenario)


def test_given_connections_when_they_end_then_each_end_has_its_reason(tmp_path: Path) -> None:
    async def scenario(mq: RocksMQ, port: int) -> None:
        # Given
        assert of(told(mq), "rocksmq_connections") == {("handshake",): 0, ("open",): 0}
        async with RawTrio.connected(port) as first:
            assert of(told(mq), "rocksmq_connections") == {("handshake",): 0, ("open",): 1}
            assert told(mq)["rocksmq_connections_limit",] == LIMITS.connections_max
            async with RawTrio.connected(port, hello()), await trio.open_tcp_stream("127.0.0.1", port) as silent:
                while of(told(mq), "rocksmq_connections")["handshake",] != 1:
                    await trio.sleep(0.1)
                assert not await silent.receive_some()  # after handshake_seconds
            await ended(mq, "handshake_seconds")
            await first.closed()  # the helper's pings are not answered
        await ended(mq, "idle_close_seconds")
        greeting = hello()
        async with RawTrio.connected(port, greeting) as older, RawTrio.connected(port, greeting):
            await older.closed()
        await ended(mq, "replaced")
        async with RawTrio.connected(port) as raw:
            await raw.stream.send_all(b"\0\0\0\1\xff")
            await raw.closed()
        await ended(mq, "protocol")
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(frame([1, 1, *hello()._replace(version_min=900, version_max=900)]))
            await RawTrio(stream).closed()
        await ended(mq, "version")
        # Then
        found = told(mq)
        assert of(found, "rocksmq_protocol_errors_total") == {("protocol",): 1, ("version",): 1}
        ends = of(found, "rocksmq_connections_closed_total")
        assert sum(ends.values()) == found["rocksmq_connections_opened_total",]
        assert (ends["write_seconds",], ends["stop",], ends["bug",]) == (0, 0, 0)

    serve(tmp_path, scenario)


def test_given_no_room_when_another_connects_then_the_limit_that_refused_it_is_told(tmp_path: Path) -> None:
    async def scenario(mq: RocksMQ, port: int) -> None:
        async with RawTrio.connected(port), await trio.open_tcp_stream("127.0.0.1", port) as refused:
            text = str(await RawTrio(refused).receive())
            limit = re.search(r"\((\w+)\)", text)
            assert limit is not None
            assert of(told(mq), "rocksmq_connections_rejected_total")[limit[1],] == 1

    serve(tmp_path / "open", scenario, replace(LIMITS, connections_max=1))

    async def silent(mq: RocksMQ, port: int) -> None:
        async with await trio.open_tcp_stream("127.0.0.1", port):
            await scenario_of_silent(mq, port)

    async def scenario_of_silent(mq: RocksMQ, port: int) -> None:
        while of(told(mq), "rocksmq_connections")["handshake",] != 1:
            await trio.sleep(0.1)
        async with await trio.open_tcp_stream("127.0.0.1", port) as refused:
            assert "handshakes_max" in str(await RawTrio(refused).receive())
        assert of(told(mq), "rocksmq_connections_rejected_total") == {
            ("connections_max",): 0,
            ("handshakes_max",): 1,
            ("handshakes_per_address_max",): 0,
        }

    serve(tmp_path / "silent", silent, replace(LIMITS, handshakes_max=1))
