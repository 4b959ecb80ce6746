"""A process that measures: one workload on a server that somebody else has started.

    python -m tests.bench.peers.worker PEER MODE URL PID WORKLOAD COUNT SECONDS

Says a line of JSON: what it found. The waiting half of `end-to-end` says a line before, once it waits.
"""

import json
import os
import secrets
import sys
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import click

from rocksmq.clients.bench.latency import PER_SECOND, WARM_UP
from rocksmq.clients.bench.rows import percentiles

from . import PEERS
from .peer import CHUNK, Peer, Timed

TOPICS = 1_000
STAMP_BYTES = 8
PAYLOAD_BYTES = 100


class Task(NamedTuple):
    """Of one workload: ``messages`` at most, for ``seconds`` at most."""

    peer: Peer
    pid: int
    messages: int
    seconds: float

    def timed(self) -> Timed:
        return Timed(self.pid, self.messages, self.seconds)


def payloads(size: int) -> list[bytes]:
    """A chunk of random ones, so that compression gains nothing."""
    return [secrets.token_bytes(size) for _ in range(CHUNK)]


def _rate(timed: Timed) -> dict[str, float]:
    usage = timed.usage()
    assert usage.broker_cpu is not None, "its process is known"
    million = timed.done / 1e6
    return {
        "count": timed.done,
        "rate": timed.done / usage.wall,
        "client_cpu": usage.client_cpu / million,
        "server_cpu": usage.broker_cpu / million,
    }


def _latency(seconds: list[float]) -> dict[str, float]:
    return {"count": len(seconds), **dict(zip(("p50", "p99"), percentiles(seconds), strict=True))}


def produce(task: Task, size: int, way: str) -> dict[str, float]:
    """To a new topic, named by the size, which `consume` reads."""
    timed = task.timed()
    topic = f"{way}{size}"
    task.peer.create([topic])
    getattr(task.peer, way)(topic, payloads(size), timed)
    return _rate(timed)


def consume(task: Task, size: int) -> dict[str, float]:
    """What `produce` of that size has stored."""
    timed = task.timed()
    task.peer.consume(f"produce{size}", timed)
    return _rate(timed)


def spread(task: Task) -> dict[str, float]:
    """Each message to the next of TOPICS."""
    topics = [f"many.{number}" for number in range(TOPICS)]
    task.peer.create(topics)
    time.sleep(1.0)  # some servers go on creating after they have answered
    timed = task.timed()
    task.peer.spread(topics, payloads(PAYLOAD_BYTES), timed)
    return _rate(timed)


def one_at_a_time(task: Task) -> dict[str, float]:
    task.peer.create(["single"])
    return _latency(task.peer.one_at_a_time("single", secrets.token_bytes(PAYLOAD_BYTES), task.messages))


def pace(task: Task) -> dict[str, float]:
    """PER_SECOND messages, each stamped with the moment at which it was to be sent, whether that was kept or not."""

    def due() -> Iterator[bytes]:
        filler = secrets.token_bytes(PAYLOAD_BYTES - STAMP_BYTES)
        begin = time.monotonic_ns() + 100_000_000
        for number in range(task.messages + WARM_UP):
            at = begin + number * 1_000_000_000 // PER_SECOND
            time.sleep(max(0, at - time.monotonic_ns()) / 1e9)
            yield at.to_bytes(STAMP_BYTES, "little") + filler

    task.peer.pace("live", due())
    return {"count": task.messages}


def receive(task: Task) -> dict[str, float]:
    """From the moment at which each was to be sent until it is in hand."""
    taken: list[float] = []

    def got(payload: bytes) -> None:
        taken.append((time.monotonic_ns() - int.from_bytes(payload[:STAMP_BYTES], "little")) / 1e9)

    task.peer.create(["live"])
    task.peer.receive("live", task.messages + WARM_UP, lambda: click.echo("waiting"), got)
    return _latency(taken[WARM_UP:])


WORKLOADS: dict[str, Callable[[Task], dict[str, float]]] = {
    "produce-100B": lambda task: produce(task, 100, "produce"),
    "produce-1KiB": lambda task: produce(task, 1_024, "produce"),
    "send-100B": lambda task: produce(task, 100, "send"),
    "consume-100B": lambda task: consume(task, 100),
    "consume-1KiB": lambda task: consume(task, 1_024),
    "channels-100B": spread,
    "one-at-a-time": one_at_a_time,
    "end-to-end": receive,
    "end-to-end its sender": pace,
}


def main(name: str, mode: str, url: str, pid: str, workload: str, count: str, seconds: str) -> None:
    """As the module says."""
    task = Task(PEERS[name](mode, url), int(pid), int(count), float(seconds))
    click.echo(json.dumps(WORKLOADS[workload](task)))


if __name__ == "__main__":
    main(*sys.argv[1:])
    sys.stdout.flush()
    os._exit(0)  # threads of clients may outlive their work
