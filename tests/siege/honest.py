"""The honest client: one message at a time at a modest rate, fsynced, beside whatever else the broker has to bear.

Its times are what others do to it, so they are always taken twice in one run: alone, and beside. All it was acknowledged must
be there at the end, once and in order.
"""

import time
from statistics import quantiles
from types import TracebackType
from typing import NamedTuple, Self

from rocksmq.clients.testing import Broker

CHANNEL = "honest"
PAUSE_SECONDS = 0.01  # between the times at which sends are due
PAYLOAD_BYTES = 100
NUMBER_BYTES = 8
PATIENCE_SECONDS = 30.0
WARM_UP = 100  # sends before those that count


class Pair(NamedTuple):
    """Seconds of each send, alone and beside a load."""

    alone: list[float]
    beside: list[float]

    @classmethod
    def new(cls) -> Self:
        return cls([], [])

    @property
    def ratio(self) -> float:
        """Of the 99th percentiles."""
        return p99(self.beside) / p99(self.alone)

    def measured(self) -> dict[str, float]:
        """In milliseconds."""
        return {
            "p99 alone ms": 1e3 * p99(self.alone),
            "p99 beside ms": 1e3 * p99(self.beside),
            "p50 alone ms": 1e3 * p50(self.alone),
            "p50 beside ms": 1e3 * p50(self.beside),
        }


class Send(NamedTuple):
    """When one began, in seconds since the first did, and how long it took."""

    begin: float
    seconds: float


def p99(seconds: list[float]) -> float:
    return quantiles(seconds, n=100)[-1]


def p50(seconds: list[float]) -> float:
    return quantiles(seconds, n=2)[0]


class Honest:
    """A producer of one channel; a context manager."""

    def __init__(self, broker: Broker) -> None:
        self.sent = 0
        self._mq = broker.client(timeout=PATIENCE_SECONDS)
        self._mq.create_channel(CHANNEL)

    def __enter__(self) -> Self:
        for _ in range(WARM_UP):
            self._send()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._mq.close()

    def seconds_of_sends(self, seconds: float) -> list[float]:
        """As of `sends`, without when they began."""
        return [send.seconds for send in self.sends(seconds)]

    def sends(self, seconds: float) -> list[Send]:
        """Send at the fixed rate for that long. While one waits, those that fall due are left out."""
        taken: list[Send] = []
        start = due = time.perf_counter()
        end = start + seconds
        while (now := time.perf_counter()) < end:
            if now < due:
                time.sleep(due - now)
            begin = time.perf_counter()
            self._send()
            taken.append(Send(begin - start, time.perf_counter() - begin))
            due = max(due + PAUSE_SECONDS, begin)
        return taken

    def missing(self) -> int:
        """How many acknowledged messages are not there, once and in order."""
        found: list[int] = []
        position: str | int = "earliest"
        while batch := self._mq.fetch(CHANNEL, position):
            found += [int.from_bytes(payload[:NUMBER_BYTES], "big") for payload in batch.payloads]
            position = batch.next_position
        return 0 if found == list(range(self.sent)) else max(1, self.sent - len(set(found)))

    def _send(self) -> None:
        self._mq.produce(CHANNEL, [self.sent.to_bytes(NUMBER_BYTES, "big") + bytes(PAYLOAD_BYTES - NUMBER_BYTES)])
        self.sent += 1
