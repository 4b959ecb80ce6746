"""What systemd is told: over real sockets, and that a bad one does no harm."""

import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
import trio

from rocksmq.broker import notify
from rocksmq.broker.notify import Notifier

from .support import in_mock_time, in_trio


@pytest.fixture(params=["path", "abstract"])
def supervisor(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, socket.socket]]:
    """Where to send, and what arrives."""
    address = str(tmp_path / "notify") if request.param == "path" else f"@rocksmq-{uuid4()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(address.replace("@", "\0", 1))
        sock.settimeout(10)
        yield address, sock


@in_trio
async def test_given_a_socket_when_told_then_the_lines_arrive_as_one_datagram(supervisor: tuple[str, socket.socket]) -> None:
    address, sock = supervisor
    notifier = Notifier({"NOTIFY_SOCKET": address})
    assert notifier.is_asked
    await notifier.tell("READY=1", "STATUS=serving")
    await notifier.tell("STOPPING=1")
    assert sock.recv(1_000) == b"READY=1\nSTATUS=serving"
    assert sock.recv(1_000) == b"STOPPING=1"


def test_given_the_variables_when_taken_then_a_child_would_not_inherit_them() -> None:
    environment = {"NOTIFY_SOCKET": "/run/x", "WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid()), "HOME": "/"}
    assert Notifier(environment).watchdog_seconds == 30
    assert environment == {"HOME": "/"}


@pytest.mark.parametrize(
    ("environment", "seconds"),
    [
        ({"WATCHDOG_USEC": "1500000"}, 1.5),
        ({}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "-5"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "\u0663"}, None),
        ({"WATCHDOG_USEC": "1500000", "WATCHDOG_PID": "1"}, None),
    ],
)
def test_given_what_a_watchdog_wants_when_read_then_it_is_that_or_nothing(
    environment: dict[str, str], seconds: float | None
) -> None:
    assert Notifier({"NOTIFY_SOCKET": "/run/x", **environment}).watchdog_seconds == seconds
    assert Notifier(dict(environment)).watchdog_seconds is None, "there is nobody to tell"


@pytest.mark.parametrize(
    "address", ["/does/not/exist", "/" + "x" * 200, "@" + "x" * 200, "@nobody-listens", "/dev/null", "/a\udc80b"]
)
@in_trio
async def test_given_a_socket_that_is_none_when_told_then_that_is_logged_and_nothing_else(
    address: str, caplog: pytest.LogCaptureFixture
) -> None:
    await Notifier({"NOTIFY_SOCKET": address}).tell("READY=1")
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage().startswith("systemd could not be told READY=1: ")


@pytest.mark.parametrize("address", ["vsock:2:1234", "relative/path", "unix:/x"])
@in_trio
async def test_given_an_address_of_another_kind_when_told_then_nothing_is_sent(
    address: str, caplog: pytest.LogCaptureFixture
) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": address})
    assert not notifier.is_asked
    await notifier.tell("READY=1")
    assert ["nothing is told" in record.getMessage() for record in caplog.records] == [True]


@in_trio
async def test_given_nobody_who_asks_when_told_then_nothing_happens(caplog: pytest.LogCaptureFixture) -> None:
    await Notifier({}).tell("READY=1")
    assert not caplog.records


@in_mock_time
async def test_given_a_supervisor_that_does_not_read_when_told_then_it_goes_on_after_a_while(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(address)
        notifier = Notifier({"NOTIFY_SOCKET": address})
        begin = trio.current_time()
        while not caplog.records:
            await notifier.tell("WATCHDOG=1", "x" * 10_000)
        assert trio.current_time() - begin == pytest.approx(notify.TELL_SECONDS)
    assert "it does not read" in caplog.text
