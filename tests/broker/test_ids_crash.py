"""No id twice, wherever it stops: every point of the allocator over a model of a disk, and over the engine's real files."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import pairwise, product
from pathlib import Path

import pytest
import trio

from rocksmq.broker import keys
from rocksmq.broker.durability import Durability
from rocksmq.broker.engine import RocksMQ
from rocksmq.broker.ids import COUNTER_BITS, WINDOW_MS, IDAllocator
from rocksmq.broker.store import DataRefused, Delete, Family, Put, Store
from rocksmq.protocol.errors import StorageFailed
from rocksmq.protocol.operations import Produce, Produced
from tests.helpers.model_systems import copy_as_killed

from .disk_support import Disk
from .support import NOON_MS, batch_of, identity, in_trio

DAY_MS = 24 * 3600 * 1000


# -- a model of the disk ---------------------------------------------------------------


class PowerCut(Exception):
    """The machine stops here."""


class ModelDisk:
    """One number on a disk: what was written is there after a kill, after a power cut only what was synced.

    Each step on the way is a point; at the point numbered ``fatal`` it stops.
    """

    def __init__(self, fatal: int) -> None:
        self.written = self.synced = 1
        self.points = 0
        self._fatal = fatal

    def point(self) -> None:
        self.points += 1
        if self.points == self._fatal:
            raise PowerCut

    def write(self, end: int) -> None:
        self.point()
        self.written = end
        self.point()

    def sync(self) -> None:
        self.point()
        self.synced = self.written
        self.point()

    def save(self, end: int) -> None:
        self.write(end)
        self.sync()


class Life:
    """One allocator on the disk, as an engine drives it: ``known`` gets every id once it may be known outside."""

    def __init__(self, disk: ModelDisk, now_ms: int, known: list[range]) -> None:
        self._disk = disk
        self._known = known
        self.now_ms = now_ms
        self._ids = IDAllocator(clock=lambda: self.now_ms)
        self._ids.restore(disk.written, disk.save)

    def alloc(self, count: int) -> None:
        self._disk.point()
        self._known.append(range(*self._ids.alloc(count)))

    def commit(self, *counts: int) -> None:
        """A group commit, in which each of ``counts`` was reserved."""
        taken = [(self._ids.reserve(count), count) for count in counts]
        self._disk.point()
        if (end := self._ids.unsaved_end) is not None:
            self._disk.write(end)
            self._disk.sync()
            self._ids.saved(end)
        self._known.extend(range(first, first + count) for first, count in taken)

    def alloc_in_commit(self) -> None:
        """A call from the same process while a commit is being synced in a thread."""
        first = self._ids.reserve(2)
        end = self._ids.unsaved_end
        if end is not None:
            self._disk.write(end)
        self.alloc(3)
        if end is not None:
            self._disk.sync()
            self._ids.saved(end)
        self._known.append(range(first, first + 2))

    def update(self) -> None:
        self._ids.update_id()

    def close(self) -> None:
        self._ids.close_window()
        self.commit()
        self._ids.release()


def lived(disk: ModelDisk, now_ms: int, known: list[range]) -> None:
    """Everything that takes ids, with the clock standing, going on, and jumping by days either way."""
    life = Life(disk, now_ms, known)
    life.alloc(1)
    life.commit(3, 1)
    life.now_ms += WINDOW_MS // 2
    life.update()
    life.alloc(5)
    life.now_ms += WINDOW_MS
    life.alloc_in_commit()
    life.now_ms += 3 * DAY_MS
    life.commit(2)
    life.now_ms -= 9 * DAY_MS
    life.commit(1)
    life.alloc(WINDOW_MS << COUNTER_BITS - 1)
    life.commit(WINDOW_MS << COUNTER_BITS)
    life.close()


def points_of_a_life() -> int:
    disk = ModelDisk(fatal=0)
    lived(disk, NOON_MS, [])
    return disk.points


CLOCKS_MS = (-9 * DAY_MS, -1, 0, 9 * DAY_MS)


@pytest.mark.parametrize("keeps", ["written", "synced"])
@pytest.mark.parametrize("jump_ms", CLOCKS_MS)
def test_given_a_crash_at_every_point_when_started_again_then_no_id_is_given_out_twice(keeps: str, jump_ms: int) -> None:
    points = points_of_a_life()
    assert points > 30
    for fatal in range(1, points + 1):
        before: list[range] = []
        disk = ModelDisk(fatal)
        with pytest.raises(PowerCut):
            lived(disk, NOON_MS, before)
        after: list[range] = []
        again = ModelDisk(fatal=0)
        again.written = again.synced = getattr(disk, keeps)
        lived(again, NOON_MS + jump_ms, after)
        assert_rise([before, after], f"point {fatal}")


def test_given_a_second_crash_during_the_recovery_from_the_first_when_started_again_then_no_id_is_given_out_twice() -> None:
    for first, second, keeps in product(range(1, points_of_a_life() + 1, 3), range(1, 12), ("written", "synced")):
        lives: list[list[range]] = []
        left = 1
        for fatal in (first, second, 0):
            disk = ModelDisk(fatal)
            disk.written = disk.synced = left
            lives.append([])
            with suppress(PowerCut):
                lived(disk, NOON_MS, lives[-1])
            left = getattr(disk, keeps)
        assert_rise(lives, f"points {first} and {second}, {keeps}")


def assert_rise(lives: list[list[range]], where: str) -> None:
    """Each range once, and each life's behind those of the lives before it."""
    known = [taken for life in lives for taken in sorted(life, key=lambda taken: taken.start)]
    for earlier, later in pairwise(known):
        assert earlier.stop <= later.start, where


# -- the engine's files ------------------------------------------------------------------


class Moment:
    """The files as they were at one point, and the ids that were known by then.

    ``synced``: as a power cut would leave them, ``written``: as a kill would.
    """

    def __init__(self, name: str, written: Path, synced: Path, known: frozenset[int]) -> None:
        self.name = name
        self.written = written
        self.synced = synced
        self.known = known


class Recorder:
    """Copies a directory at every write and every sync of its store."""

    def __init__(self, path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
        self.known: list[int] = []
        self.moments: list[Moment] = []
        self._path = path
        self._synced: Path | None = None
        disk.on_write = lambda: self.take("before a write")
        disk.on_sync = lambda: self.take("written, not synced")
        sync = Store.sync

        def noted(store: Store) -> None:
            sync(store)
            self.take("synced", is_synced=True)

        monkeypatch.setattr(Store, "sync", noted)

    def take(self, name: str, *, is_synced: bool = False) -> None:
        copy = self._path.with_name(f"moment-{len(self.moments)}")
        copy_as_killed(self._path, copy)
        if is_synced or self._synced is None:
            self._synced = copy
        self.moments.append(Moment(f"{len(self.moments)}: {name}", copy, self._synced, frozenset(self.known)))

    def outcomes(self) -> Iterator[tuple[str, Path, frozenset[int]]]:
        """What each crash leaves: files, and the ids that were known."""
        for moment in self.moments:
            yield f"killed at {moment.name}", moment.written, moment.known
            yield f"power cut at {moment.name}", moment.synced, moment.known


async def produced(mq: RocksMQ, known: list[int]) -> None:
    """Produce two messages; their ids are known at the very moment of the answer, which a sync may still follow."""
    answered = trio.Event()

    def done(reply: Produced) -> None:
        assert reply.first_id is not None, "it has no sequences that were stored before"
        known.extend((reply.first_id, reply.first_id + 1))
        answered.set()

    mq.core.submit(Produce("orders", identity(mq.core.ids.present_id), 0, *batch_of(b"a", b"b")), done)
    await answered.wait()


@pytest.mark.parametrize("durability", ["fsync", "os"])
@pytest.mark.parametrize("jump_ms", [-9 * DAY_MS, 9 * DAY_MS])
def test_given_an_engine_that_stops_at_any_write_or_sync_when_opened_again_then_its_ids_go_on_behind_all_that_were_known(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch, durability: str, jump_ms: int
) -> None:
    now_ms, mode = NOON_MS, Durability.parse(durability)
    recorder = Recorder(tmp_path / "data", disk, monkeypatch)

    @in_trio
    async def live() -> None:
        nonlocal now_ms
        ids = IDAllocator(clock=lambda: now_ms)
        async with RocksMQ(tmp_path / "data", ids, durability=mode) as mq:
            await mq.create_channel("orders")
            for step_ms in (0, WINDOW_MS // 2, WINDOW_MS, -DAY_MS, 2 * DAY_MS):
                now_ms += step_ms
                await produced(mq, recorder.known)
                recorder.known += range(*ids.alloc(3))
                ids.update_id()
                recorder.known.append(ids.alloc_one())
                recorder.take("acknowledged")

    live()
    monkeypatch.undo()
    assert recorder.known == sorted(set(recorder.known))
    assert len(recorder.moments) > 20
    now_ms += jump_ms

    @in_trio
    async def goes_on(path: Path, known: frozenset[int], name: str) -> None:
        ids = IDAllocator(clock=lambda: now_ms)
        async with RocksMQ(path, ids, durability=mode) as mq:
            await mq.create_channel("orders")
            found = [ids.alloc_one(), *await mq.produce("orders", [b"c"]), ids.alloc_one()]
        assert found == sorted(set(found)), name
        assert found[0] > max(known, default=0), name

    for name, path, known in recorder.outcomes():
        copy_as_killed(path, tmp_path / "again")
        goes_on(tmp_path / "again", known, name)


# -- a window that cannot be read ----------------------------------------------------------


async def opened(path: Path) -> None:
    async with RocksMQ(path) as mq:
        await mq.create_channel("orders")


def damaged(path: Path, change: Put | Delete) -> None:
    store = Store(path / "db")
    store.write([change])
    store.sync()
    store.close()


@in_trio
async def test_given_a_window_that_is_missing_when_opened_then_it_is_refused_and_stays_as_it_is(tmp_path: Path) -> None:
    await opened(tmp_path)
    damaged(tmp_path, Delete(Family.META, keys.IDS))
    for _ in range(2):
        with pytest.raises(DataRefused, match="id window"):
            await opened(tmp_path)


@in_trio
async def test_given_a_window_that_the_disk_does_not_give_when_opened_then_it_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await opened(tmp_path)
    get = Store.get

    def failing(store: Store, family: Family, key: bytes) -> bytes | None:
        if key == keys.IDS:
            raise StorageFailed("the database could not read: Input/output error")
        return get(store, family, key)

    monkeypatch.setattr(Store, "get", failing)
    with pytest.raises(DataRefused, match="Input/output"):
        await opened(tmp_path)
    monkeypatch.undo()
    await opened(tmp_path)


@in_trio
async def test_given_a_closed_engine_when_its_allocator_is_asked_then_it_gives_out_no_id(tmp_path: Path) -> None:
    ids = IDAllocator()
    async with RocksMQ(tmp_path, ids):
        before = ids.alloc_one()
    asks: list[Callable[[], object]] = [ids.alloc_one, ids.update_id]
    for ask in asks:
        with pytest.raises(RuntimeError, match="closed"):
            ask()
    async with RocksMQ(tmp_path, ids):
        assert ids.alloc_one() > before


@in_trio
async def test_given_ids_taken_before_the_engine_was_opened_when_it_stops_then_the_next_goes_on_behind_them(
    tmp_path: Path,
) -> None:
    ahead = IDAllocator(clock=lambda: NOON_MS)
    taken = ahead.alloc_one()
    async with RocksMQ(tmp_path, ahead):
        pass
    behind = IDAllocator(clock=lambda: NOON_MS - DAY_MS)
    async with RocksMQ(tmp_path, behind):
        assert behind.alloc_one() > taken
