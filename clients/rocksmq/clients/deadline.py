"""A moment to be done by, passed down instead of time-outs."""

import math
import time
from collections.abc import Callable
from typing import TypeAlias

from rocksmq.protocol.errors import ConnectionFailed, InvalidRequest

SLICE_SECONDS = 0.1  # of waiting, after which somebody who may be told to stop looks whether he was
# Asked now and then while a call waits; true ends the waiting with ConnectionFailed.
Stopped: TypeAlias = Callable[[], bool] | None


class Deadline:
    """So many seconds from its making; None is never."""

    __slots__ = ("_at",)

    def __init__(self, seconds: float | None) -> None:
        self._at = math.inf if seconds is None else time.monotonic() + seconds

    @property
    def remaining(self) -> float:
        """Seconds left, not below 0; infinite for never."""
        return max(0.0, self._at - time.monotonic())

    @property
    def milliseconds(self) -> int:
        """As `remaining`, for the wire."""
        return round(self.remaining * 1000)

    @property
    def is_never(self) -> bool:
        return self._at == math.inf

    @property
    def is_over(self) -> bool:
        return time.monotonic() >= self._at

    def at_most(self, seconds: float) -> "Deadline":
        """This one, or that many seconds from now if that is sooner."""
        sooner = Deadline(seconds)
        return sooner if sooner._at < self._at else self

    def extended(self, seconds: float | None) -> "Deadline":
        """One that much later."""
        later = Deadline(None)
        later._at = math.inf if seconds is None else self._at + seconds
        return later


def checked_timeout(seconds: float | None) -> float | None:
    """``seconds`` itself. Raises InvalidRequest for a negative one or not a number."""
    if seconds is not None and not (isinstance(seconds, (int, float)) and seconds >= 0):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InvalidRequest(f"timeout {seconds!r} is not allowed: seconds from 0 on, or None to wait for ever")
    return seconds


def check_not(is_stopped: Stopped) -> None:
    """Raise ConnectionFailed if whoever waits was told to stop."""
    if is_stopped is not None and is_stopped():
        raise ConnectionFailed("it was closed while it waited")
