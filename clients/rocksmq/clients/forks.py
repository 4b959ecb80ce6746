"""What is called in a forked child: whoever holds a socket or ids must let go of what is the parent's."""

import logging
import os
import weakref
from collections.abc import Callable

logger = logging.getLogger("rocksmq.client")
_callbacks: list["weakref.WeakMethod[Callable[[], None]]"] = []


def call_in_child(callback: Callable[[], None]) -> None:
    """Call the bound method ``callback`` in every child that is forked while its object lives."""
    _callbacks[:] = [known for known in _callbacks if known() is not None]
    _callbacks.append(weakref.WeakMethod(callback))


def _after_fork() -> None:
    for reference in tuple(_callbacks):
        if (callback := reference()) is not None:
            try:
                callback()
            except Exception:  # the others must let go all the same
                logger.exception("a bug: %r could not be made the child's own", callback)


os.register_at_fork(after_in_child=_after_fork)
