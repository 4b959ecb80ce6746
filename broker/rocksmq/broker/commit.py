"""Group commit: everything that came in together is written together, synced once, then answered.

There is one open `Commit`; operations change the state at once and note in the commit what
to write, how to undo it and whom to answer. The `Committer` takes the open commit once a turn
of the loop, writes it, syncs it where needed, and only then publishes and answers. It
knows no database: ``write`` and ``sync`` are injected, so tests drive delays and failures.

Order of the commits is the truth: what a later one builds on was written before it.
"""

import time
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import trio

from rocksmq.protocol.errors import DiskFull, RocksMQError, StorageFailed

from . import keys
from .durability import Durability, Mode
from .fair_queue import FairQueue
from .store import Change, Family, Put

ON_LOOP_SECONDS = 0.002  # a sync slower than this goes to a thread: the hand-off costs less than the stall
SMOOTHING = 0.25
OPEN_BYTES_SOFT = 2 << 20  # above it writers wait with their next frame
CELL_BYTES = 300  # what a changed or deleted cell counts in a commit, about
Done = Callable[[Any], None]


class Cell(Protocol):
    """A piece of state that is written as a whole: its present value, and the changes that store it."""

    value: Any

    def changes(self, old: Any) -> list[Change]:
        """What stores the present value over ``old``."""
        ...


Value = TypeVar("Value")


class Commit:
    """One group commit while it is open."""

    __slots__ = (
        *("answers", "cells", "changes", "held_size", "message_count", "number", "removed"),
        *("sealed", "size", "sync", "sync_first", "undo"),
    )

    def __init__(self) -> None:
        self.number = 0  # set when it is sealed
        self.changes: list[Change] = []
        self.cells: dict[Any, Any] = {}  # each changed cell with its value before
        self.removed: list[Any] = []  # what it takes away, which may be shown until it is durable
        self.sealed: dict[Any, Any] = {}  # each changed cell with its value as written
        self.undo: list[Callable[[], object]] = []
        self.answers: list[tuple[bool, Done, Any]] = []  # (after the sync?, whom, what)
        self.size = 0  # bytes, about
        self.held_size = 0  # of that, of answers
        self.message_count = 0  # appended
        self.sync = False
        self.sync_first = False  # nobody is answered before the sync, whatever the durability

    def set(self, cell: Any, value: Any) -> None:
        """Change ``cell``; however often that happens in this commit, it is written once."""
        if cell not in self.cells:
            self.cells[cell] = cell.value
            self.size += CELL_BYTES
        cell.value = value

    def discard(self, cell: Any) -> None:
        """Do not write ``cell``: something else in this commit deletes it."""
        self.size += CELL_BYTES
        if cell in self.cells:
            old = self.cells.pop(cell)
            self.undo.append(lambda: setattr(cell, "value", old))

    def put(self, change: Put) -> None:
        """Add a record."""
        self.changes.append(change)
        self.size += len(change.value)

    def hold(self, size: int) -> None:
        """An answer of so many bytes waits for it."""
        self.size += size
        self.held_size += size

    def answer(self, done: Done, reply: Any, durability: Durability | None = None) -> None:
        """Call ``done(reply)`` once this commit is durable in the sense of ``durability`` (None: synced)."""
        synced = durability is None or durability.mode is Mode.FSYNC
        self.answers.append((synced, done, reply))
        if synced:
            self.sync = True

    @property
    def is_empty(self) -> bool:
        return not (self.changes or self.cells or self.answers)

    def seal(self, number: int) -> list[Change]:
        """Everything to write, with the number of this commit."""
        self.number = number
        changes = self.changes
        for cell, old in self.cells.items():
            self.sealed[cell] = cell.value
            changes += cell.changes(old)
        if changes:
            changes.append(Put(Family.META, keys.COMMIT_NUMBER, keys.u64(number)))
        return changes

    def tell(self, *, before_sync: bool = False) -> None:
        """Answer those who wait for no more than the write (``before_sync``), or all."""
        due = [answer for answer in self.answers if not (before_sync and answer[0])]
        self.answers = [answer for answer in self.answers if before_sync and answer[0]]
        for _, done, reply in due:
            done(reply)

    def fail(self, error: RocksMQError) -> None:
        """Answer each with an error object of its own."""
        due, self.answers = self.answers, []
        for _, done, _ in due:
            done(type(error)(error.message, retry_after=error.retry_after))

    def roll_back(self) -> None:
        """Take back what was changed in memory."""
        for step in reversed(self.undo):
            step()
        for cell, old in self.cells.items():
            cell.value = old


class Listener(Protocol):
    """What the committer tells its owner, in this order, always from the loop's thread."""

    def before_seal(self, commit: Commit) -> None:
        """The last chance to add to ``commit``."""
        ...

    def written(self, commit: Commit) -> None:
        """Readable from the store, and safe from kill -9. Then those are answered who asked for no more."""
        ...

    def synced(self, commit: Commit) -> None:
        """Safe from a power cut, if anything in it asked for that. Then the others are answered."""
        ...

    def answered(self, commit: Commit) -> None:
        """All of ``commit`` is done."""
        ...

    def rolled_back(self, commit: Commit) -> None:
        """Nothing of ``commit`` was stored, and memory is as before it. Raises StorageFailed where that will not get better."""
        ...


class Committer:
    """Writes the open commit, turn by turn.

    ``failure`` is the error that ended writing for good; `run` raises it.
    """

    def __init__(
        self,
        write: Callable[[list[Change]], None],
        sync: Callable[[], None],
        listener: Listener,
        *,
        number: int = 0,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.open = Commit()
        self.current: Commit | None = None  # sealed, and not done yet
        self.written_number = number
        self.synced_number = number
        self.failure: StorageFailed | None = None
        self.sync_seconds = 0.0  # smoothed
        self.sync_began: float | None = None  # of the sync under way
        self._write = write
        self._sync = sync
        self._listener = listener
        self._clock = clock
        self._work = trio.Event()
        self.writers = FairQueue(lambda: OPEN_BYTES_SOFT - self.open.size, OPEN_BYTES_SOFT)
        self._synced = trio.Event()
        self._sync_due: float | None = None  # trio time by which what is written must be synced
        self._closing = False
        self._is_probed = False

    @property
    def syncing_seconds(self) -> float:
        """For how long the present sync has not come back; 0: there is none."""
        return 0.0 if self.sync_began is None else self._clock() - self.sync_began

    def wake(self) -> None:
        """Something was added to the open commit."""
        self._work.set()

    @property
    def pending(self) -> tuple[Commit, ...]:
        """What is not durable yet, the latest first."""
        return (self.open,) if self.current is None else (self.open, self.current)

    def holding(self, is_in: Callable[[Commit], bool]) -> Commit | None:
        """The commit that holds something and is not durable yet; None: it is durable."""
        return next(filter(is_in, self.pending), None)

    def sync_within(self, seconds: float) -> None:
        """What the open commit holds must be synced that soon after now."""
        due = trio.current_time() + seconds
        if self._sync_due is None or due < self._sync_due:
            self._sync_due = due
            self._work.set()

    async def sync_beyond(self, number: int) -> None:
        """Wait until a commit behind ``number`` is synced."""
        while self.synced_number <= number:
            await self._synced.wait()

    async def probe(self) -> None:
        """Wait until a commit has gone all its way, with a sync even if nothing is written; once closed, for ever.

        Raises StorageFailed. Any other answer is one too, also that the disk is full.
        """
        if self.failure is not None:
            raise StorageFailed(self.failure.message)
        answered = trio.Event()
        replies: list[object] = []

        def done(reply: object) -> None:
            replies.append(reply)
            answered.set()

        self._is_probed = True
        self.open.answer(done, None)
        self.wake()
        await answered.wait()
        if isinstance(replies[0], StorageFailed):
            raise replies[0]

    def close(self) -> None:
        """Let `run` return once everything open is written and synced."""
        self._closing = True
        self._work.set()

    async def run(self) -> None:
        """Write commits until `close`. Raises StorageFailed when the store fails; then nothing more is acknowledged."""
        try:
            while not (self._closing and self.open.is_empty):
                await self._wait_for_work()
                if not self.open.is_empty:
                    await self._commit()
                elif self._is_sync_due:
                    await self._sync_written()
            if self.synced_number != self.written_number:
                await self._sync_written()
        except StorageFailed as error:
            self.failure = error
            self.open.fail(error)
            self.open = Commit()
            raise

    @property
    def _is_sync_due(self) -> bool:
        return self._sync_due is not None and self._sync_due <= trio.current_time()

    async def _wait_for_work(self) -> None:
        timeout = float("inf") if self._sync_due is None else max(0, self._sync_due - trio.current_time())
        with trio.move_on_after(timeout):
            await self._work.wait()
        if not self._closing:
            self._work = trio.Event()

    async def _commit(self) -> None:
        commit = self.current = self.open
        is_probed, self._is_probed = self._is_probed, False
        try:
            self._write_open(commit)
            self._listener.written(commit)
            if not commit.sync_first:
                commit.tell(before_sync=True)
            if is_probed or ((commit.sync or self._is_sync_due) and self.synced_number != self.written_number):
                await self._sync_written()
        except DiskFull as error:
            commit.roll_back()
            try:
                self._listener.rolled_back(commit)
            finally:
                commit.fail(error)
            return
        except StorageFailed as error:
            commit.fail(error)
            raise
        finally:
            self.current = None
        self._listener.synced(commit)
        commit.tell()
        self._listener.answered(commit)

    def _write_open(self, commit: Commit) -> None:
        self._listener.before_seal(commit)
        changes = commit.seal(self.written_number + 1)
        self.open = Commit()
        self.writers.taken()
        if changes:
            self._write(changes)
            self.written_number = commit.number

    async def _sync_written(self) -> None:
        """Sync on this thread while that is fast, else in a thread of its own, so that a slow disk never stops the loop."""
        number = self.written_number
        self._sync_due = None
        self.sync_began = self._clock()
        if self.sync_seconds < ON_LOOP_SECONDS:
            seconds = self._timed_sync()
        else:
            seconds = await trio.to_thread.run_sync(self._timed_sync)
        self.sync_seconds += (seconds - self.sync_seconds) * SMOOTHING
        self.synced_number = number
        self.sync_began = None
        self._synced.set()
        self._synced = trio.Event()

    def _timed_sync(self) -> float:
        begin = self._clock()
        self._sync()
        return self._clock() - begin
