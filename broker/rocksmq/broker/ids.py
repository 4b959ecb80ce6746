"""Message ids (design: unix milliseconds << 18 | counter): unique in the broker, rising, contiguous within a call.

A window of ids is persisted ahead of use: after a restart ids go on behind it, so none is
given out twice, whatever the clock does. The engine saves the window in the same write as
the messages that begin it, and acknowledges none of them before that write is synced.
"""

import time
from collections.abc import Callable

from rocksmq.protocol.errors import InvalidRequest

COUNTER_BITS = 18
WINDOW_MS = 3_000  # a crash makes the ids jump ahead of the clock by at most this


def clock_ms() -> int:
    """Milliseconds since 1970, UTC."""
    return time.time_ns() // 1_000_000


def time_ms_of(message_id: int) -> int:
    """When the id was given out, in milliseconds since 1970, UTC."""
    return message_id >> COUNTER_BITS


class IDAllocator:
    """Gives out ids. ``save(end)`` must make a new window's end durable before it returns.

    Not thread-safe: it belongs to the engine's thread. `alloc` returns a half-open pair.
    """

    def __init__(self, *, clock: Callable[[], int] = clock_ms) -> None:
        self._clock = clock
        self._next = 1
        self._window_end = 1
        self._saved_end = 1
        self._save: Callable[[int], None] | None = None

    def restore(self, saved_end: int, save: Callable[[int], None]) -> None:
        """Go on behind the window that was saved last, in one engine at a time: each saves the window for itself only."""
        if self._save is not None:
            raise RuntimeError("this IDAllocator belongs to another engine: give each its own")
        self._next = max(self._next, saved_end)
        self._window_end = self._saved_end = self._next
        self._save = save

    def release(self) -> None:
        """The engine is closed; another may take it."""
        self._save = None

    @property
    def present_id(self) -> int:
        """The id that would be given out now, without taking it. It never falls, even when the clock does."""
        self._next = max(self._next, self._clock() << COUNTER_BITS)
        return self._next

    @property
    def unsaved_end(self) -> int | None:
        """The end of a window in use that was not saved yet."""
        return self._window_end if self._window_end != self._saved_end else None

    def saved(self, end: int) -> None:
        """The window up to ``end`` is durable."""
        self._saved_end = max(self._saved_end, end)

    def close_window(self) -> None:
        """End the window at the next id, so that a clean restart makes no jump."""
        self._window_end = self._next

    def reserve(self, count: int) -> int:
        """The first of ``count`` ids. They may be made known only once `unsaved_end` is saved."""
        first = self.present_id
        self._next = first + count
        if self._next > self._window_end:
            self._window_end = self._next + (WINDOW_MS << COUNTER_BITS)
        return first

    def alloc(self, count: int) -> tuple[int, int]:
        """``count`` ids as a half-open pair ``(begin, end)``. Raises InvalidRequest for a count below 1."""
        if count < 1:
            raise InvalidRequest(f"count {count}: at least one id is allocated")
        first = self.reserve(count)
        self._save_window()
        return first, first + count

    def alloc_one(self) -> int:
        """One id."""
        return self.alloc(1)[0]

    def update_id(self) -> None:
        """Move the next id and the window up to the clock, so that the next `alloc` need not save."""
        self._next = self.present_id
        if self._window_end - self._next < WINDOW_MS << COUNTER_BITS >> 1:
            self._window_end = self._next + (WINDOW_MS << COUNTER_BITS)
            self._save_window()

    def _save_window(self) -> None:
        if self._save is not None and (end := self.unsaved_end) is not None:
            self._save(end)
            self.saved(end)
