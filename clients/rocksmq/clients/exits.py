"""What is still open when the interpreter exits: it is closed, within a few seconds in all."""

import atexit
import weakref
from typing import Protocol

from .deadline import Deadline

EXIT_SECONDS = 5.0


class Closable(Protocol):
    """What `close_at_exit` takes."""

    def close_at_exit(self, deadline: Deadline) -> None:
        """Close it by then; what is lost thereby is told by a ResourceWarning."""
        ...


_open: "weakref.WeakSet[Closable]" = weakref.WeakSet()


def close_at_exit(opened: Closable) -> None:
    """Close it when the interpreter exits, if it lives so long and is not `closed` before."""
    _open.add(opened)


def closed(opened: Closable) -> None:
    """It was closed."""
    _open.discard(opened)


def _close_all() -> None:
    deadline = Deadline(EXIT_SECONDS)
    failures: list[Exception] = []
    for opened in tuple(_open):
        try:
            opened.close_at_exit(deadline)
        except Exception as error:  # a ResourceWarning too, where warnings are errors: the others are closed all the same
            failures.append(error)
    if failures:
        raise failures[0]


atexit.register(_close_all)
