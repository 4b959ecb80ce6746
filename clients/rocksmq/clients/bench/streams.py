"""What goes through message streams in a benchmark: packs as fast as they can be made, ticks beside them, a light load."""

import json
import threading
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from typing import TypeAlias

from rocksmq.clients.msgstream import InsertMsg, MsgPack, MsgStream, SearchMsg, TimeTickMsg, TsMsg
from rocksmq.protocol.errors import RocksMQError

from .processes import Other, other
from .stream_reader import Job, Pack, Report

ROW = b"sixteen bytes..."
TICK_SECONDS = 0.01
LIGHT_MESSAGES = 10  # a tick: 1,000 a second
READER = "rocksmq.clients.bench.stream_reader"
Making: TypeAlias = Callable[[int, int], TsMsg]
"""A message from its timestamp and its hash key."""
Ticked: TypeAlias = dict[int, tuple[int, float]]
"""What `tick` told, by timestamp."""


def insert(ts: int, key: int) -> TsMsg:
    """One row of 16 bytes."""
    return InsertMsg(id=key, timestamps=[ts], row_ids=[key], rows=[ROW], hash_keys=[key])


def search(ts: int, key: int) -> TsMsg:
    """A payload of 16 bytes."""
    return SearchMsg(id=key, timestamp=ts, payload=ROW, hash_keys=[key])


class ReaderProcess:
    """A started one. Used by one thread."""

    def __init__(self, process: Other) -> None:
        self._process = process
        self.pid = process.pid
        self.open_seconds = float(process.line())

    def report(self) -> Report:
        """What it read, when that is all."""
        found = json.loads(self._process.line())
        return Report([Pack(*pack) for pack in found["packs"]], found["cpu_seconds"])


@contextmanager
def reading(url: str | None, job: Job) -> Generator[ReaderProcess, None, None]:
    """A process that does the job, its stream open, until the block's end."""
    with other(url, READER) as process:
        process.tell(json.dumps(asdict(job)))
        yield ReaderProcess(process)


def produce(stream: MsgStream, make: Making, count: int, pack_messages: int, settled: list[int] | None = None) -> None:
    """Messages of the timestamps from 1 to ``count``; durable when it returns.

    ``settled``: gets as its one item the timestamp up to which all are durable.
    """
    for begin in range(1, count + 1, pack_messages):
        end = min(begin + pack_messages, count + 1)
        stream.produce(MsgPack(msgs=[make(ts, ts) for ts in range(begin, end)]))
        if settled is not None:
            settled[0] = end - 1


def produce_with_ticks(stream: MsgStream, ticker: MsgStream, make: Making, count: int, pack_messages: int) -> None:
    """`produce`, while a thread broadcasts every TICK_SECONDS up to which timestamp all are durable, if that is news."""
    settled, is_over = [0], threading.Event()
    with ThreadPoolExecutor(1) as pool:
        ticking = pool.submit(_tick, ticker, settled, is_over)
        try:
            produce(stream, make, count, pack_messages, settled)
        finally:
            is_over.set()
        ticking.result()


def _tick(ticker: MsgStream, settled: list[int], is_over: threading.Event) -> None:
    told, due = 0, time.monotonic()
    is_last = False
    while not is_last:
        due = max(due + TICK_SECONDS, time.monotonic())
        is_last = is_over.wait(due - time.monotonic())
        if (ts := settled[0]) > told:
            tick(ticker, ts)
            told = ts


def tick(stream: MsgStream, ts: int) -> tuple[int, float]:
    """Broadcasts a tick; when that began, on CLOCK_MONOTONIC, and its seconds."""
    begin = time.monotonic_ns()
    stream.broadcast(MsgPack(msgs=[TimeTickMsg(timestamp=ts)]))
    return begin, (time.monotonic_ns() - begin) / 1e9


def light_load(stream: MsgStream, ticks: int, pace: float, messages: Callable[[int], list[TsMsg]] | None = None) -> Ticked:
    """Every ``pace`` seconds the messages for a timestamp, from 1 to ``ticks``, and its tick."""
    told: Ticked = {}
    due = time.monotonic()
    for ts in range(1, ticks + 1):
        if messages is not None:
            stream.produce(MsgPack(msgs=messages(ts)))
        told[ts] = tick(stream, ts)
        due = max(due + pace, time.monotonic())
        time.sleep(max(0.0, due - time.monotonic()))
    return told


def check_count(packs: Sequence[Pack], count: int) -> None:
    """Raises RocksMQError unless they have so many messages."""
    if (found := sum(pack.message_count for pack in packs)) != count:
        raise RocksMQError(f"{found} of {count} messages came back")


def delays(told: Ticked, report: Report) -> list[float]:
    """Seconds from before each tick to the pack that it ended in the reader's hands. Raises RocksMQError if one is missing."""
    received = {pack.end_ts: pack.received_ns for pack in report.packs}
    if received.keys() != told.keys():
        raise RocksMQError(f"{len(received)} packs came back of {len(told)} ticks")
    return [(received[ts] - begin) / 1e9 for ts, (begin, _) in told.items()]
