"""What is called in a forked child: whoever holds a socket or ids must let go of what is the parent's."""

import logging
import os
from collections.abc import Callable
from types import MethodType
from weakref import WeakKeyDictionary

logger = logging.getLogger("rocksmq.client")
_callbacks: WeakKeyDictionary[object, Callable[[object], None]] = WeakKeyDictionary()


def call_in_child(callback: Callable[[], None]) -> None:
    """Call the bound method ``callback`` in every child that is forked while its object lives; one an object."""
    assert isinstance(callback, MethodType), "a bound method"
    _callbacks[callback.__self__] = callback.__func__


def _after_fork() -> None:
    for held, callback in tuple(_callbacks.items()):
        try:
            callback(held)
        except Exception:  # the others must let go all the same
            logger.exception("a bug: %r could not be made the child's own", held)


os.register_at_fork(after_in_child=_after_fork)
