"""Whose turn it is among threads: a lock that no interrupt can leave without an owner.

A signal may raise between taking a lock and noting that it was taken. Here both are one step.
"""

import threading

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
