"""Counts how often each fail point is reached, and strikes when a fault is due.

The points are made real by `points_storage` and `points_network`, which wrap methods of the broker in this process
before it starts: the production code knows nothing of it, and a name that it no longer has fails at once.
"""

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from .points import POINTS, Action, Fault

Method = Callable[..., Any]


def wrap(owner: object, name: str, around: Method) -> None:
    """Call ``around`` in the place of a method or function, with the original as its first argument."""
    setattr(owner, name, _wrapped(getattr(owner, name), around))


def _wrapped(original: Method, around: Method) -> Method:
    def wrapped(*arguments: Any, **options: Any) -> Any:
        return around(original, *arguments, **options)

    return wrapped


class Faults:
    """The faults to come in this process. May be shared by threads."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self._faults = tuple(faults)
        self._counts: Counter[tuple[str, str | None]] = Counter()
        self._announced: set[Fault] = set()
        self._lock = threading.Lock()

    def reach(self, point: str, operation: str | None = None) -> None:
        """The point is reached; whatever is due there happens."""
        self.strike(self.due(point, operation))

    def due(self, point: str, operation: str | None = None) -> list[Fault]:
        """Count that the point is reached, and say what is due."""
        assert point in POINTS, f"{point} is not in the table"
        with self._lock:
            self._counts[point, None] += 1
            if operation is not None:
                self._counts[point, operation] += 1
            return [
                fault
                for fault in self._faults
                if fault.point == point
                and fault.operation in (None, operation)
                and fault.at in (None, self._counts[point, fault.operation])
            ]

    def strike(self, due: Iterable[Fault]) -> None:
        """Do what is due. Raises what the first of them to raise says."""
        for fault in due:
            self._announce(fault)
            if fault.action is Action.KILL:
                os.kill(os.getpid(), signal.SIGKILL)
            elif fault.error is not None:
                raise fault.error()
            else:
                time.sleep(fault.delay_s)

    def _announce(self, fault: Fault) -> None:
        """In one write, since the process may be gone the moment after; what comes each time is told once."""
        with self._lock:
            is_new = fault not in self._announced
            self._announced.add(fault)
        if is_new:
            os.write(2, f"fault: {fault.text}\n".encode())
