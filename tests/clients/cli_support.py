"""Running `rocksmq` in tests: in this process, as a process of its own, and on a terminal."""

import os
import pty
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import IO

import pytest
from click.testing import CliRunner, Result

from rocksmq.clients import Client
from rocksmq.clients.cli import main
from rocksmq.clients.testing import Broker

PROGRAM = [sys.executable, "-c", "from rocksmq.clients.cli import main; main(prog_name='rocksmq')"]


def rocksmq(url: str, *arguments: str, stdin: bytes = b"") -> Result:
    """``rocksmq --url url arguments`` in this process."""
    return CliRunner().invoke(main, ["--url", url, *arguments], stdin)


def started(url: str, *arguments: str) -> subprocess.Popen[bytes]:
    """``rocksmq`` as a process, each of its streams a pipe without a buffer on this side. A context manager."""
    command = [*PROGRAM, "--url", url, *arguments]
    return subprocess.Popen(command, bufsize=0, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def check_outlives_outage(process: subprocess.Popen[bytes], broker: Broker, client: Client) -> None:
    """It follows channel `c`, and goes on when the broker was away for longer than its timeout of 0.2 s."""
    assert process.stdout is not None
    client.produce("c", [b"one"])
    assert process.stdout.readline() == b"one\n"
    broker.kill()
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(2.0)
    broker.start()
    client.produce("c", [b"two"])
    assert process.stdout.readline() == b"two\n"


def on_terminal(arguments: Sequence[str], typed: bytes = b"", stdout: IO[bytes] | None = None) -> tuple[int, str]:
    """Exit code of ``rocksmq`` on a terminal of its own, into which ``typed`` is typed; and what the terminal showed.

    ``stdout``: a file that it goes to instead.
    """
    ours, theirs = pty.openpty()
    with subprocess.Popen([*PROGRAM, *arguments], stdin=theirs, stdout=stdout or theirs, stderr=theirs) as process:
        os.close(theirs)
        os.write(ours, typed)
        shown = b""
        with suppress(OSError):  # how Linux tells that the other side of a terminal was closed
            while chunk := os.read(ours, 4_096):
                shown += chunk
    os.close(ours)
    return process.returncode, shown.decode()
