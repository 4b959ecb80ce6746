"""Pulsar's client at the end of the interpreter, where a thread of it that still calls into Python would abort the process.

What is still open is closed then. And each of its threads lets go of what it has of Python when it ends, a moment after its
client was closed: that is waited for, not for long.
"""

import atexit
import os
import threading
import time
import weakref
from functools import cache
from typing import Protocol

END_SECONDS = 0.5
_POLL_SECONDS = 0.002
_TASKS = "/proc/self/task"


class Closable(Protocol):
    """What has a client."""

    def close(self) -> None:
        """End it. May be repeated."""
        ...


_open: "weakref.WeakSet[Closable]" = weakref.WeakSet()


def close_at_exit(opened: Closable) -> None:
    """To be called before a client is made."""
    _open.add(opened)
    _watch()


@cache
def _watch() -> None:
    before = _foreign()

    def end() -> None:
        for opened in tuple(_open):
            opened.close()
        until = time.monotonic() + END_SECONDS
        while _foreign() - before and time.monotonic() < until:
            time.sleep(_POLL_SECONDS)

    atexit.register(end)


def _foreign() -> set[str]:
    """Threads that Python has not started."""
    try:
        tasks = set(os.listdir(_TASKS))
    except OSError:
        return set()
    return tasks - {str(thread.native_id) for thread in threading.enumerate()}
