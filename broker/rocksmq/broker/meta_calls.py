"""Calls of a store elsewhere: in a thread, one at a time, timed and counted."""

import time
from collections.abc import Callable, Iterator
from itertools import product
from typing import TypeVar, TypeVarTuple

import trio

from rocksmq.metrics import catalogue
from rocksmq.metrics.instruments import Counters, Histograms, MetricFamily

from .remote import METHODS

Result = TypeVar("Result")
Arguments = TypeVarTuple("Arguments")


class RemoteCalls:
    """Awaited with a method of `Remote` and its arguments."""

    def __init__(self) -> None:
        self._limiter = trio.CapacityLimiter(1)  # its own, lest a slow store keeps threads from the disk
        self._requests = Counters(catalogue.ETCD_REQUESTS, product(METHODS, ("ok", "failed")))
        self._seconds = Histograms(catalogue.ETCD_SECONDS)

    async def __call__(self, function: Callable[[*Arguments], Result], *arguments: *Arguments) -> Result:
        """What ``function`` returns. Raises what it raises."""
        begin = time.perf_counter()
        result: str | None = "failed"
        try:
            answer = await trio.to_thread.run_sync(function, *arguments, limiter=self._limiter)
            result = "ok"
        except trio.Cancelled:
            result = None  # it may not have begun
            raise
        finally:
            if result is not None:
                self._requests.add(function.__name__, result)
                self._seconds.observe(function.__name__, time.perf_counter() - begin)
        return answer

    def families(self) -> Iterator[MetricFamily]:
        """What was counted."""
        yield self._requests.family()
        yield self._seconds.family()
