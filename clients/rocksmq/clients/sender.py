"""The thread of a `Link` that sends for all of its producers.

One for all: a thousand producers would be as many threads in each other's way, each with small batches. It goes round those
that have something to send, in the order in which they had it; while REQUESTS_MAX are on their way the others' batches grow.
There is a thread while anything is to be sent or answered, and for a moment longer.
"""

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from heapq import heapify, heappop, heappush
from itertools import count
from typing import NamedTuple, Protocol

from .connection import Call, Connection
from .deadline import Deadline
from .outbox import Parcel

logger = logging.getLogger("rocksmq.client")

REQUESTS_MAX = 64  # on their way
SLICE_SECONDS_MIN = 0.001
LATE_SECONDS = 0.02  # beyond its linger that a batch may leave while an earlier one is not answered for long
IDLE_SECONDS = 1.0  # without work, until the thread ends
TIMERS_MIN = 64


class Sent(NamedTuple):
    """A batch on its way."""

    parcel: Parcel
    call: Call
    connection: Connection


class Sending(Protocol):
    """A producer's half of it. All is called by the sender's thread."""

    timer: float | None  # the sender's own: when it looks again

    def advance(self) -> Sequence[Sent]:
        """Send what is to be sent now; what is on its way thereby."""
        ...

    def settle(self, answered: Sequence[Sent]) -> None:
        """These were answered, or their connection has ended."""
        ...

    @property
    def due(self) -> float | None:
        """When it has something to send, on time.monotonic; None: once it says so, or something is settled."""
        ...

    def end(self) -> None:
        """After a bug: give up everything."""
        ...


class Sender:
    """May be called by any thread, also from a signal handler in the midst of a call."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._work = threading.Condition(self._lock)
        self._thread: threading.Thread | None = None
        self._ready: OrderedDict[Sending, None] = OrderedDict()  # its steps are atomic
        self._timers: list[tuple[float, int, Sending]] = []
        self._timers_max = TIMERS_MIN  # before those are swept out that were set anew
        self._timer_numbers = count()
        self._on_their_way: list[tuple[Sending, Sent]] = []
        self._patience_s = SLICE_SECONDS_MIN

    def attend(self, sending: Sending) -> None:
        """``sending`` has something to send, maybe: see that it is advanced soon."""
        self._ready[sending] = None
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                thread = threading.Thread(target=self._run, name="rocksmq producers", daemon=True)
                thread.start()
                self._thread = thread
            self._work.notify()

    def _run(self) -> None:
        with self._lock:
            if self._thread is not None and self._thread is not threading.current_thread() and self._thread.is_alive():
                return  # an interrupt had kept `attend` from noting it
            self._thread = threading.current_thread()
        while self._has_work():
            self._advance()
            if self._on_their_way:
                self._await()

    def _has_work(self) -> bool:
        """Wait for something to do; whether there was. Otherwise the thread is over."""
        with self._lock:
            if not self._ready and not self._on_their_way:
                self._work.wait(min(self._remaining(IDLE_SECONDS), threading.TIMEOUT_MAX))
            if self._ready or self._on_their_way or self._timers:
                return True
            self._thread = None
            return False

    def _advance(self) -> None:
        while self._remaining(1.0) == 0.0:
            _, _, sending = heappop(self._timers)
            sending.timer = None
            self._ready[sending] = None
        while self._ready and len(self._on_their_way) < REQUESTS_MAX:
            sending, _ = self._ready.popitem(last=False)
            try:
                self._on_their_way += [(sending, sent) for sent in sending.advance()]
                self._set_timer(sending, sending.due)
            except BaseException:
                self._end(sending)

    def _set_timer(self, sending: Sending, due: float | None) -> None:
        if due != sending.timer:
            sending.timer = due
            if due is not None:
                if len(self._timers) >= self._timers_max:
                    self._timers = [timer for timer in self._timers if timer[0] == timer[-1].timer]
                    heapify(self._timers)
                    self._timers_max = 2 * len(self._timers) + TIMERS_MIN
                heappush(self._timers, (due, next(self._timer_numbers), sending))

    def _remaining(self, otherwise: float) -> float:
        """Seconds until the next timer; ``otherwise`` if there is none."""
        while self._timers and self._timers[0][0] != self._timers[0][-1].timer:
            heappop(self._timers)  # it was set anew
        return max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else otherwise

    def _await(self) -> None:
        """Wait for the oldest answer, but not beyond what is due; then settle all that came."""
        _, oldest = self._on_their_way[0]
        # Looking often costs; so the longer nothing happens, the later a first message is seen, up to LATE_SECONDS.
        self._patience_s, patience_s = min(2 * self._patience_s, LATE_SECONDS), self._patience_s
        oldest.connection.is_answered(
            oldest.call, Deadline(max(min(self._remaining(patience_s), patience_s), SLICE_SECONDS_MIN))
        )
        answered: dict[Sending, list[Sent]] = {}
        left: list[tuple[Sending, Sent]] = []
        for sending, sent in self._on_their_way:
            if sent.call.done:  # asked once: other threads deliver replies too
                answered.setdefault(sending, []).append(sent)
            else:
                left.append((sending, sent))
        self._on_their_way = left
        for sending, ended in answered.items():
            self._patience_s = SLICE_SECONDS_MIN
            try:
                sending.settle(ended)
                self._ready[sending] = None
            except BaseException:
                self._end(sending)

    def _end(self, sending: Sending) -> None:
        logger.exception("a bug: %r cannot go on", sending)
        self._on_their_way = [(other, sent) for other, sent in self._on_their_way if other is not sending]
        sending.end()
