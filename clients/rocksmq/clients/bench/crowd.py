"""Many connections in processes of their own, each of which produces one message at a time.

    python -m rocksmq.clients.bench.crowd CHANNEL CONNECTIONS COUNT

Such a process says a line when all of its connections have stored a message, and begins at the first line that it reads.
It ends with a line of JSON: the CLOCK_MONOTONIC nanoseconds at which COUNT messages of each were durable, and its CPU seconds.
"""

import json
import secrets
import sys
import threading
import time
from contextlib import ExitStack
from typing import NamedTuple

import click

from rocksmq.clients.client import Client
from rocksmq.protocol.errors import RocksMQError

from .latency import PAYLOAD_BYTES
from .processes import other

PROCESSES = 2  # at most; with one, its interpreter's lock would be what is measured
CROWD = "rocksmq.clients.bench.crowd"


class Crowded(NamedTuple):
    """How long all of them took together, and their CPU seconds."""

    wall: float
    cpu: float


def produce_one_by_one(url: str | None, channel: str, connections: int, count: int) -> Crowded:
    """``count`` messages by each of ``connections``, all at once. Raises RocksMQError when one could not."""
    shares = [len(range(number, connections, PROCESSES)) for number in range(min(PROCESSES, connections))]
    with ExitStack() as stack:
        processes = [stack.enter_context(other(url, CROWD, channel, str(share), str(count))) for share in shares]
        for process in processes:
            process.line()
        begin = time.monotonic_ns()
        for process in processes:
            process.tell("begin")
        found = [json.loads(process.line()) for process in processes]
    return Crowded((max(end for end, _ in found) - begin) / 1e9, sum(cpu for _, cpu in found))


def _produce(mq: Client, channel: str, count: int, failures: list[RocksMQError]) -> None:
    payload = secrets.token_bytes(PAYLOAD_BYTES)
    try:
        for _ in range(count):
            mq.produce(channel, [payload])
    except RocksMQError as error:
        failures.append(error)


def main(channel: str, connections: int, count: int) -> None:
    """As the module says. Raises RocksMQError."""
    failures: list[RocksMQError] = []
    with ExitStack() as stack:
        clients = [stack.enter_context(Client()) for _ in range(connections)]
        for mq in clients:
            mq.produce(channel, [b"connected"])
        threads = [threading.Thread(target=_produce, args=(mq, channel, count, failures)) for mq in clients]
        click.echo("connected")
        sys.stdin.readline()
        cpu_begin = time.process_time()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures:
            raise failures[0]
        click.echo(json.dumps([time.monotonic_ns(), time.process_time() - cpu_begin]))


if __name__ == "__main__":
    name, wanted, each = sys.argv[1:]
    try:
        main(name, int(wanted), int(each))
    except RocksMQError as error:
        sys.exit(f"a producing process: {error}")
