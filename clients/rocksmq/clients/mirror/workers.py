"""What blocks, on threads of its own: openings, looks and closings of topics; apart from them, what the broker is asked for.

Whose openings hang, as those of topics that a frozen broker of Pulsar owns do, holds up others that hang, and none else.
"""

import heapq
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count

from rocksmq.protocol.errors import InternalError, RocksMQError

from .lane import Job, Lane

logger = logging.getLogger("rocksmq.mirror")

OPENERS = 64  # threads are made as they are needed: while that many hang, on their first try
HUNG_OPENERS = 8  # for those that have hung
BROKER_ASKERS = 2  # one lists, one connects
HANG_SECONDS = 1.0
Result = Callable[[], None]  # to be done in the loop


class Workers:
    """``done`` is called on any thread with what is to be done in the loop; ``failing`` makes that of a failure."""

    def __init__(self, done: Callable[[Result], None], failing: Callable[[Lane, int, RocksMQError], Result]) -> None:
        self._done = done
        self._failing = failing
        self._openers = ThreadPoolExecutor(OPENERS, "mirror")
        self._hung_openers = ThreadPoolExecutor(HUNG_OPENERS, "mirror-hung")
        self._askers = ThreadPoolExecutor(BROKER_ASKERS, "mirror-broker")
        self._lock = threading.Lock()
        self._hung: list[tuple[int, int, Lane]] = []  # a heap: how often, in a row, then first come first served
        self._numbers = count()

    def ask(self, job: Callable[[], None]) -> None:
        """Ask the broker, soon."""
        self._askers.submit(job)

    def do(self, lane: Lane, job: Job) -> None:
        """In the loop. What ``job`` returns is done there; one at a time a lane, in order."""
        lane.jobs.append((lane.opening, job))
        if not lane.is_busy:
            self._begin(lane)

    def close(self) -> None:
        """Waits for what runs; what does not yet is not done."""
        for pool in (self._askers, self._openers, self._hung_openers):
            pool.shutdown(wait=False, cancel_futures=True)
        for pool in (self._askers, self._openers, self._hung_openers):
            pool.shutdown()

    def _begin(self, lane: Lane) -> None:
        lane.is_busy = True
        if not lane.hangs:
            self._openers.submit(self._work, lane)
            return
        with self._lock:
            heapq.heappush(self._hung, (lane.hangs, next(self._numbers), lane))
        self._hung_openers.submit(self._work_for_hung)

    def _work_for_hung(self) -> None:
        with self._lock:
            *_, lane = heapq.heappop(self._hung)
        self._work(lane)

    def _work(self, lane: Lane) -> None:
        while True:
            try:
                opening, job = lane.jobs.popleft()
            except IndexError:
                self._done(lambda: self._rest(lane))
                return
            begin, result = time.monotonic(), None
            is_done = False
            try:
                result = job()
                is_done = True
            except Exception as error:
                result = self._failing(lane, opening, told_bug(lane, error))
            if time.monotonic() - begin >= HANG_SECONDS:
                lane.hangs += 1
            elif is_done:
                lane.hangs = 0
            if result is not None:
                self._done(result)

    def _rest(self, lane: Lane) -> None:
        lane.is_busy = False
        if lane.jobs:
            self._begin(lane)


def told_bug(lane: Lane, error: Exception) -> RocksMQError:
    """``error`` itself, or what a bug of ours is told as: it harms one channel only."""
    if isinstance(error, RocksMQError):
        return error
    logger.error("a bug: mirroring %s", lane.channel, exc_info=error)
    return InternalError(f"a bug: {error!r}")
