"""Many processes with many connections that come and go, and are killed; then the broker holds what it held before.

python -m tests.crash.churn [--processes N] [--connections N] [--seconds N] [--stay SECONDS]
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from random import Random
from typing import NamedTuple

import click

from rocksmq.clients import Client
from rocksmq.clients.testing import Broker

from .churner import CHANNEL, GROUP
from .footprint import Footprint

_ROOT = Path(__file__).parents[2]
KILL_SECONDS = 0.5  # between two processes that are killed, and begun anew
WARM_SECONDS = 3.0
SETTLE_SECONDS = 30.0  # for the broker to have closed what is gone


class Churned(NamedTuple):
    """What the broker held before, at the most, and at the end; and how many processes were killed."""

    before: Footprint
    most: Footprint
    after: Footprint
    killed: int


class Crowd:
    """The processes."""

    def __init__(self, address: str, connections: int, stay_s: float, seed: object) -> None:
        self._address = address
        self._connections = connections
        self._stay_s = stay_s
        self._random = Random(f"{seed}")
        self._processes: list[subprocess.Popen[bytes]] = []

    def begin(self, count: int) -> None:
        """So many more."""
        for _ in range(count):
            arguments = [self._address, str(self._connections), str(self._stay_s), str(self._random.random())]
            command = [sys.executable, "-m", "tests.crash.churner", *arguments]
            self._processes.append(subprocess.Popen(command, stdin=subprocess.PIPE, cwd=_ROOT))

    def kill_one(self) -> None:
        """kill -9 any of them. Raises AssertionError when it has ended by itself."""
        process = self._processes.pop(self._random.randrange(len(self._processes)))
        assert process.poll() is None, f"one ended by itself, {process.returncode}"
        _kill(process)

    def end(self) -> None:
        """Tell all to end. Raises AssertionError when one failed."""
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.close()
        codes = [process.wait(SETTLE_SECONDS) for process in self._processes]
        self._processes.clear()
        assert not any(codes), f"exit codes {codes}"

    def kill(self) -> None:
        """What is left of them."""
        for process in self._processes:
            _kill(process)


def _kill(process: "subprocess.Popen[bytes]") -> None:
    process.kill()
    process.wait()
    if process.stdin is not None:
        process.stdin.close()


def churn(broker: Broker, processes: int, connections: int, seconds: float, stay_s: float, seed: object) -> Churned:
    """Warm up with a few, measure, churn, and measure again once the broker has let go of everything."""
    idle = Footprint.of(broker.pid, broker.directory)
    with Client(broker.url) as mq:
        mq.create_channel(CHANNEL)
        mq.create_consumer_group(CHANNEL, GROUP)
    _crowded(broker, min(processes, 3), connections, WARM_SECONDS, stay_s, seed)
    before = _settled(broker, idle)
    most, killed = _crowded(broker, processes, connections, seconds, stay_s, seed)
    return Churned(before, most, _settled(broker, before), killed)


def _crowded(
    broker: Broker, processes: int, connections: int, seconds: float, stay_s: float, seed: object
) -> tuple[Footprint, int]:
    crowd = Crowd(broker.address, connections, stay_s, seed)
    killed = 0
    most = Footprint.of(broker.pid, broker.directory)
    try:
        crowd.begin(processes)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(KILL_SECONDS)
            now = Footprint.of(broker.pid, broker.directory)
            most = Footprint(*(max(pair) for pair in zip(most, now, strict=True)))
            crowd.kill_one()
            crowd.begin(1)
            killed += 1
        crowd.end()
    finally:
        crowd.kill()
    return most, killed


def _settled(broker: Broker, wanted: Footprint) -> Footprint:
    """Once it holds as many sockets and other files as are ``wanted``, or else what it holds after SETTLE_SECONDS."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while True:
        found = Footprint.of(broker.pid, broker.directory)
        if (found.sockets, found.files) == (wanted.sockets, wanted.files) or time.monotonic() > deadline:
            return found
        time.sleep(0.1)


@click.command()
@click.option("--processes", type=click.IntRange(min=1), default=50, show_default=True)
@click.option("--connections", type=click.IntRange(min=1), default=20, show_default=True, help="Of each process.")
@click.option("--seconds", type=float, default=60.0, show_default=True)
@click.option("--stay", type=float, default=10.0, show_default=True, help="Seconds that a connection is there, at most.")
@click.option("--seed", default="7660", show_default=True)
def main(processes: int, connections: int, seconds: float, stay: float, seed: str) -> None:
    """Churn against a broker of its own, and say what it held."""
    with tempfile.TemporaryDirectory(prefix="rocksmq-churn-") as name, Broker(Path(name) / "data") as broker:
        found = churn(broker, processes, connections, seconds, stay, seed)
        click.echo(f"before  {found.before}\nmost    {found.most}\nafter   {found.after}\n{found.killed} processes killed")
        if (found.after.sockets, found.after.files) != (found.before.sockets, found.before.files):
            raise click.ClickException("the broker does not let go of what is gone")


if __name__ == "__main__":
    main()
