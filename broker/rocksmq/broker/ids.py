"""Message ids (design: unix milliseconds << 18 | counter): unique in the broker, rising, contiguous within a call.

A window of ids is persisted ahead of use: after a restart ids go on behind it, so none is
given out twice, whatever the clock does. The engine saves the window in the same write as
the messages that begin it, and acknowledges none of them before that write is synced.
"""

import time
from collections.abc import Callable
from operator import index

from rocksmq.protocol.errors import InvalidRequest

COUNTER_BITS = 18
WINDOW_MS = 3_000  # a crash makes the ids jump ahead of the clock by at most this
COUNT_MAX = (1 << 32) - 1  # as in the seeds; ids then run 16 s ahead of the clock, and are not used up by a slip


def clock_ms() -> int:
    """Milliseconds since 1970, UTC."""
    return time.time_ns() // 1_000_000


def time_ms_of(message_id: int) -> int:
    """When the id was given out, in milliseconds since 1970, UTC."""
    return message_id >> COUNTER_BITS


class IDAllocator:
    """Gives out message ids: the ``id_allocator`` of the engine.

    What it promises, whatever the clock does and wherever the process or the machine stops: no id is given out twice,
    and each is above all before it. For that, `alloc`, `alloc_one` and `update_id` return only once a window of ids
    beyond the last one given out is durable in the engine's RocksDB, in every durability mode; a start goes on behind
    that window. So about every 3 s one call takes as long as a sync, and the others no more than the
    arithmetic. Ids that nobody made known, because of a crash or of an error, are left out.

    Before an engine has opened it, nothing is durable: ids rise in this object only. Once its engine is closed, it gives out
    none (RuntimeError) until another engine opens it. It belongs to the engine's thread.

    ``clock`` tells the milliseconds since 1970, UTC. It may jump either way: ids do not follow it back.
    """

    def __init__(self, *, clock: Callable[[], int] = clock_ms) -> None:
        self._clock = clock
        self._next = 1
        self._window_end = 1
        self._saved_end = 1
        self._save: Callable[[int], None] | None = None
        self._is_over = False

    def alloc(self, count: int) -> tuple[int, int]:
        """``count`` ids as a half-open pair ``(begin, end)``: ``begin`` to ``end - 1``, contiguous, and of nobody else.

        Raises InvalidRequest for a count below 1 or above COUNT_MAX, TypeError for one that is no integer, and what the
        store raises when a window cannot be saved: DiskFull, StorageFailed. After an error no id was given out.
        """
        if not 1 <= index(count) <= COUNT_MAX:
            raise InvalidRequest(f"count {count}: at least one id is allocated, and at most {COUNT_MAX}")
        self._check_is_open()
        first = self.reserve(count)
        self._save_window()
        return first, first + count

    def alloc_one(self) -> int:
        """One id. Raises what `alloc` raises."""
        return self.alloc(1)[0]

    def update_id(self) -> None:
        """Move the next id up to the clock, and the window ahead of it, so that the next `alloc` need not save.

        It gives out no id. Raises DiskFull, StorageFailed; then the next call saves again.
        """
        self._check_is_open()
        self._next = self.present_id
        if self._window_end - self._next < WINDOW_MS << COUNTER_BITS >> 1:
            self._window_end = self._next + (WINDOW_MS << COUNTER_BITS)
        self._save_window()

    # -- for the engine --------------------------------------------------------

    def restore(self, saved_end: int, save: Callable[[int], None]) -> None:
        """Go on behind the window that was saved last, in one engine at a time: each saves the window for itself only.

        ``save(end)`` makes a new window's end durable before it returns.
        """
        if self._save is not None:
            raise RuntimeError("this IDAllocator belongs to another engine: give each its own")
        self._next = max(self._next, saved_end)
        self._window_end, self._saved_end = self._next, saved_end
        self._save = save
        self._is_over = False

    def release(self) -> None:
        """The engine is closed; another may take it."""
        self._save = None
        self._is_over = True

    @property
    def present_id(self) -> int:
        """The id that would be given out now, without taking it. It never falls, even when the clock does."""
        self._next = max(self._next, self._clock() << COUNTER_BITS)
        return self._next

    @property
    def unsaved_end(self) -> int | None:
        """The end of a window that was not saved yet."""
        return self._window_end if self._window_end != self._saved_end else None

    def saved(self, end: int) -> None:
        """The window up to ``end`` is durable. Called late, when more was saved since, it only has that saved again."""
        self._saved_end = end

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

    def _check_is_open(self) -> None:
        if self._is_over:
            raise RuntimeError("the engine of this IDAllocator is closed: whoever opens its data next gives out the same ids")

    def _save_window(self) -> None:
        if self._save is not None and (end := self.unsaved_end) is not None:
            self._save(end)
            self.saved(end)
