"""Whose turn it is among threads.

`Turn` is a lock that no interrupt can leave without an owner: a signal may raise between taking a lock and noting that it was
taken; there both are one step. `Lanes` let a few of many threads go on, for threads that no signal strikes.
"""

import threading
from collections import deque

from .deadline import Deadline


class Turn:
    """Held by one thread at a time."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # entered itself: entering a Condition is a call, in which a signal may strike
        self._changed = threading.Condition(self._lock)
        self._holder: int | None = None

    def take(self, deadline: Deadline) -> bool:
        """Whether this thread has the turn by then; at once when an interrupt kept it from passing it on."""
        mine = threading.get_ident()
        with self._lock:
            while self._holder not in (None, mine):
                if deadline.is_over:
                    return False
                self._changed.wait(min(deadline.remaining, threading.TIMEOUT_MAX))
            self._holder = mine
        return True

    def pass_on(self) -> None:
        """Let another thread have it; nothing when this one does not hold it."""
        with self._lock:
            if self._holder == threading.get_ident():
                self._holder = None
                self._changed.notify_all()


class Lanes:
    """At most ``count`` threads are in at once, first come first served."""

    def __init__(self, count: int) -> None:
        self._lock = threading.Lock()
        self._free = count
        self._waiting: deque[threading.Lock] = deque()  # each is released by who leaves

    @property
    def is_wanted(self) -> bool:
        """Whether somebody waits to enter."""
        return bool(self._waiting)

    def enter(self) -> None:
        """Wait for a free one, however long that takes."""
        with self._lock:
            if self._free:
                self._free -= 1
                return
            let_in = threading.Lock()
            let_in.acquire()
            self._waiting.append(let_in)
        let_in.acquire()

    def leave(self) -> None:
        """Let the next one in."""
        with self._lock:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._free += 1
