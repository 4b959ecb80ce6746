"""Whatever breaks inside of the code of one connection, others are served: bugs are put in where each runs."""

import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
import trio

from rocksmq.broker import server as server_module
from rocksmq.broker import session as session_module
from rocksmq.broker.connection import Connection
from rocksmq.broker.limits import Limits
from rocksmq.broker.server import Server
from rocksmq.broker.session import Session
from rocksmq.protocol.codec import SUCCESS
from rocksmq.protocol.operations import Fetch, Position
from tests.helpers.raw import frame, hello, request_items
from tests.helpers.raw_trio import RawTrio, run, served

MIB = 1 << 20
LIMITS = Limits(connections_max=3, output_bytes_max=MIB)
READ = Fetch("orders", Position.EARLIEST, 0, 100, 7 * MIB, 0)


class Bug(Exception):
    """Nobody expects it."""


def buggy(*arguments: object, **options: object) -> NoReturn:
    raise Bug


async def buggy_task(*arguments: object) -> NoReturn:
    raise Bug


async def connects(port: int) -> None:
    """A client that says HELLO, and is gone once the broker has closed."""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(frame(request_items(1, hello())))
        await RawTrio(stream).closed()


async def asks(port: int) -> None:
    """A client that asks for more than its socket takes, and reads nothing."""
    async with RawTrio.connected(port) as deaf:
        for number in range(8):
            await deaf.stream.send_all(frame(request_items(number + 2, READ)))
        await trio.sleep(2 * LIMITS.write_seconds)


async def waits(port: int) -> None:
    """A client that is silent until it is closed."""
    async with RawTrio.connected(port) as silent:
        await silent.closed()


async def is_refused(port: int) -> None:
    """One client more than there may be."""
    async with (
        RawTrio.connected(port),
        RawTrio.connected(port),
        RawTrio.connected(port),
        await trio.open_tcp_stream("127.0.0.1", port) as stream,
    ):
        await stream.send_all(frame(request_items(1, hello())))
        await trio.sleep(1)


CASES: dict[str, tuple[object, str, Any, Callable[[int], Awaitable[None]]]] = {
    "making its session": (server_module, "Session", buggy, connects),
    "its HELLO": (Session, "_hello", buggy, connects),
    "handing frames over": (Connection, "_hand_over", buggy_task, connects),
    "sending what waits": (Connection, "_drain", buggy_task, asks),
    "encoding a reply": (session_module, "encode_reply", buggy, connects),
    "telling it to go": (Connection, "linger", buggy_task, is_refused),
    "looking at its time": (Server, "_overdue", buggy, waits),
}


@pytest.mark.parametrize("case", CASES)
def test_given_a_bug_in_what_one_connection_runs_when_it_is_met_then_others_are_served(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    owner, name, bug, client = CASES[case]

    async def test() -> None:
        async with served(tmp_path / "data", LIMITS) as (engine, server, port):
            await engine.create_channel("orders")
            await engine.produce("orders", [bytes(MIB)] * 6)
            with monkeypatch.context() as patch:
                patch.setattr(owner, name, bug)
                with trio.fail_after(60):
                    await client(port)
            async with RawTrio.connected(port) as newcomer:
                assert (await newcomer.call(Fetch("orders", Position.LATEST, 0, 1, 1, 0)))[1] == SUCCESS
            with trio.fail_after(LIMITS.idle_close_seconds):
                while server.connection_count:
                    await trio.sleep(0.1)

    caplog.set_level(logging.ERROR)
    run(test)
    assert "a bug: " in caplog.text
    assert "Bug" in caplog.text
