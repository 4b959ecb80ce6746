"""Group commit with an injected disk: who is answered when, and what a failure undoes."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from rocksmq.broker import keys
from rocksmq.broker.commit import CELL_BYTES, ON_LOOP_SECONDS, OPEN_BYTES_SOFT, Commit, Committer
from rocksmq.broker.durability import Durability
from rocksmq.broker.fair_queue import Writer
from rocksmq.broker.store import Change, Family, Put
from rocksmq.protocol.errors import DiskFull, RocksMQError, StorageFailed

from .support import FSYNC, in_mock_time, in_trio

OS = Durability.parse("os")
INTERVAL = Durability.parse("interval:100")


class Counter:
    """A cell: a number that is stored under its name."""

    def __init__(self, name: bytes = b"counter", value: int = 0) -> None:
        self.name = name
        self.value = value

    def changes(self, old: int) -> list[Change]:
        return [Put(Family.META, self.name, b"%d>%d" % (old, self.value))]


class Bench:
    """A committer, its disk and its owner, with everything that happened in ``events``."""

    def __init__(self, clock: Callable[[], float] = lambda: 0.0) -> None:
        self.events: list[Any] = []
        self.written_changes: list[list[Change]] = []
        self.write_error: RocksMQError | None = None
        self.sync_error: RocksMQError | None = None
        self.on_sync: Callable[[], None] = lambda: None
        self.on_before_seal: Callable[[Commit], None] = lambda commit: None
        self.committer = Committer(self._write, self._sync, self, clock=clock)

    def _write(self, changes: list[Change]) -> None:
        self.events.append("write")
        if self.write_error is not None:
            raise self.write_error
        self.written_changes.append(list(changes))

    def _sync(self) -> None:
        self.events.append("sync")
        self.on_sync()
        if self.sync_error is not None:
            raise self.sync_error

    def put(self, answer: Any, durability: Durability | None = FSYNC, *, payload: bytes = b"") -> None:
        """One operation: a record, and ``answer`` to its caller."""
        self.committer.open.put(Put(Family.DATA, str(answer).encode(), payload))
        self.committer.open.answer(self.events.append, answer, durability)
        self.committer.wake()

    async def finish(self) -> None:
        """Run until all is done."""
        self.committer.close()
        await self.committer.run()

    # -- as the listener -----------------------------------------------------------

    def before_seal(self, commit: Commit) -> None:
        self.on_before_seal(commit)

    def written(self, commit: Commit) -> None:
        self.events.append("written")

    def synced(self, commit: Commit) -> None:
        self.events.append("synced")

    def answered(self, commit: Commit) -> None:
        self.events.append("answered")

    def rolled_back(self, commit: Commit) -> None:
        self.events.append("rolled back")


def number_of(changes: list[Change]) -> int:
    """The commit's number, which is written with it."""
    *_, last = changes
    assert isinstance(last, Put)
    assert (last.family, last.key) == (Family.META, keys.COMMIT_NUMBER)
    return keys.from_u64(last.value)


# -- groups, and who is answered when ------------------------------------------------


@in_trio
async def test_given_several_operations_in_one_turn_then_one_write_and_one_sync_answer_them_all_in_order() -> None:
    bench = Bench()
    for answer in ("a", "b", "c"):
        bench.put(answer)
    await bench.finish()
    assert bench.events == ["write", "written", "sync", "synced", "a", "b", "c", "answered"]
    assert [number_of(changes) for changes in bench.written_changes] == [1]
    assert bench.committer.written_number == bench.committer.synced_number == 1


@in_trio
async def test_given_operations_while_a_slow_sync_runs_then_they_form_one_group_behind_it_and_the_loop_goes_on() -> None:
    bench, begun, release = Bench(), trio.Event(), threading.Event()
    token = trio.lowlevel.current_trio_token()
    threads: list[threading.Thread] = []

    def slow() -> None:
        threads.append(threading.current_thread())
        token.run_sync_soon(begun.set)
        assert release.wait(30)

    bench.on_sync = slow
    bench.committer.sync_seconds = 1.0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.committer.run)
        bench.put("a")
        await begun.wait()
        bench.put("b")
        bench.put("c")
        await wait_all_tasks_blocked()
        assert bench.events == ["write", "written", "sync"]
        release.set()
        bench.committer.close()
    behind = ["write", "written", "sync", "synced", "b", "c", "answered"]
    assert bench.events == ["write", "written", "sync", "synced", "a", "answered", *behind]
    assert threading.main_thread() not in threads
    assert len(bench.written_changes) == 2


@in_trio
async def test_given_syncs_that_take_long_then_they_move_to_a_thread_and_come_back_once_fast() -> None:
    now, took = 0.0, ON_LOOP_SECONDS * 10
    threads: list[bool] = []
    bench = Bench(clock=lambda: now)

    def sync() -> None:
        nonlocal now
        now += took
        threads.append(threading.current_thread() is not threading.main_thread())

    bench.on_sync = sync

    async def one(answer: int) -> None:
        bench.put(answer)
        while answer not in bench.events:
            await wait_all_tasks_blocked()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.committer.run)
        await one(0)
        await one(1)
        assert threads == [False, True]
        took = 0.0
        for answer in range(2, 40):
            await one(answer)
        assert threads[-1] is False
        bench.committer.close()


@in_trio
async def test_given_mixed_durabilities_when_committed_then_os_and_interval_are_answered_before_the_sync() -> None:
    bench = Bench()
    bench.put("fsync 1")
    bench.put("os", OS)
    bench.put("interval", INTERVAL)
    bench.put("admin", None)
    await bench.finish()
    assert bench.events == ["write", "written", "os", "interval", "sync", "synced", "fsync 1", "admin", "answered"]


@in_trio
async def test_given_only_os_when_committed_then_nothing_is_synced_until_the_end() -> None:
    bench = Bench()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.committer.run)
        for answer in ("a", "b"):
            bench.put(answer, OS)
            await wait_all_tasks_blocked()
        assert bench.events == ["write", "written", "a", "synced", "answered", "write", "written", "b", "synced", "answered"]
        assert (bench.committer.written_number, bench.committer.synced_number) == (2, 0)
        bench.committer.close()
    assert bench.events[-1] == "sync"
    assert bench.committer.synced_number == 2


@in_trio
async def test_given_a_commit_that_must_be_synced_first_when_it_holds_os_then_that_too_waits_for_the_sync() -> None:
    bench = Bench()
    bench.put("os", OS)
    bench.put("admin", None)
    bench.committer.open.sync_first = True
    await bench.finish()
    assert bench.events == ["write", "written", "sync", "synced", "os", "admin", "answered"]


@in_trio
async def test_given_nothing_to_write_but_something_unsynced_before_when_answered_then_it_is_synced_first() -> None:
    bench = Bench()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.committer.run)
        bench.put("os", OS)
        await wait_all_tasks_blocked()
        bench.events.clear()
        bench.committer.open.answer(bench.events.append, "repeat", FSYNC)
        bench.committer.wake()
        await wait_all_tasks_blocked()
        assert bench.events == ["written", "sync", "synced", "repeat", "answered"]
        bench.events.clear()
        bench.committer.open.answer(bench.events.append, "again", FSYNC)
        bench.committer.wake()
        await wait_all_tasks_blocked()
        assert bench.events == ["written", "synced", "again", "answered"]
        bench.committer.close()
    assert len(bench.written_changes) == 1


@in_trio
async def test_given_what_is_added_before_sealing_then_it_is_in_the_same_write() -> None:
    bench = Bench()

    def claim(commit: Commit) -> None:
        commit.put(Put(Family.META, b"position", b"1"))
        commit.answer(bench.events.append, "claim", FSYNC)

    bench.on_before_seal = claim
    bench.put("a")
    await bench.finish()
    assert bench.events == ["write", "written", "sync", "synced", "a", "claim", "answered"]
    assert len(bench.written_changes) == 1


@in_trio
async def test_given_a_cell_changed_often_when_committed_then_it_is_written_once_from_its_first_value_to_its_last() -> None:
    bench, counter = Bench(), Counter()
    for value in (1, 2, 3):
        bench.committer.open.set(counter, value)
    bench.committer.open.answer(bench.events.append, "done", FSYNC)
    await bench.finish()
    assert bench.written_changes[0][0] == Put(Family.META, b"counter", b"0>3")
    assert len(bench.written_changes[0]) == 2


@in_trio
async def test_given_a_discarded_cell_when_committed_then_it_is_not_written() -> None:
    bench, counter = Bench(), Counter()
    bench.committer.open.set(counter, 5)
    bench.committer.open.discard(counter)
    bench.put("a")
    await bench.finish()
    assert [type(change) is Put and change.key for change in bench.written_changes[0]] == [b"a", keys.COMMIT_NUMBER]
    assert counter.value == 5


# -- interval ------------------------------------------------------------------------


@in_mock_time
async def test_given_interval_when_its_time_has_passed_then_all_since_then_is_synced_once() -> None:
    bench, begin = Bench(), trio.current_time()
    synced_at: list[float] = []
    bench.on_sync = lambda: synced_at.append(trio.current_time() - begin)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.committer.run)
        for answer in range(5):
            bench.put(answer, INTERVAL)
            bench.committer.sync_within(0.1)
            await trio.sleep(0.01)
            assert answer in bench.events
        assert synced_at == []
        await trio.sleep(1)
        assert synced_at == [pytest.approx(0.1)]
        assert bench.committer.synced_number == bench.committer.written_number == 5
        bench.committer.close()


@in_mock_time
async def test_given_interval_when_more_comes_in_every_turn_then_it_is_synced_in_time_all_the_same() -> None:
    bench, begin, clock = Bench(), trio.current_time(), trio.lowlevel.current_clock()
    assert isinstance(clock, MockClock)
    synced_at: list[float] = []
    bench.on_sync = lambda: synced_at.append(trio.current_time() - begin)
    left = 400

    def again(answer: object) -> None:
        nonlocal left
        left -= 1
        clock.jump(0.001)
        if left:
            bench.committer.open.put(Put(Family.DATA, b"again", b""))
            bench.committer.open.answer(again, None, OS)
            bench.committer.wake()
        else:
            bench.committer.close()

    bench.committer.open.answer(again, None, INTERVAL)
    bench.committer.sync_within(0.1)
    await bench.committer.run()
    assert synced_at
    assert synced_at[0] <= 0.102


@in_mock_time
async def test_given_a_shorter_interval_behind_a_longer_one_then_the_shorter_one_counts() -> None:
    bench, begin = Bench(), trio.current_time()
    synced_at: list[float] = []
    bench.on_sync = lambda: synced_at.append(trio.current_time() - begin)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.committer.run)
        for seconds in (10.0, 0.5, 5.0):
            bench.put(seconds, INTERVAL)
            bench.committer.sync_within(seconds)
            await trio.sleep(0.1)
        await trio.sleep(20)
        assert synced_at == [pytest.approx(0.6)]
        bench.committer.close()


# -- failures ------------------------------------------------------------------------


@in_trio
async def test_given_a_full_disk_when_written_then_memory_is_as_before_and_each_gets_an_error_of_its_own() -> None:
    bench, counter, gone = Bench(), Counter(value=7), Counter(b"gone", 1)
    steps: list[str] = []
    bench.write_error = DiskFull("no room", retry_after=2.0)
    commit = bench.committer.open
    commit.set(counter, 8)
    commit.undo.append(lambda: steps.append("first"))
    commit.set(gone, 2)
    commit.discard(gone)
    commit.undo.append(lambda: steps.append("last"))
    commit.set(counter, 9)
    bench.put("a")
    bench.put("b", OS)
    bench.put("c", None)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.committer.run)
        await wait_all_tasks_blocked()
        assert (counter.value, gone.value) == (7, 1)
        assert steps == ["last", "first"]
        assert bench.events[:2] == ["write", "rolled back"]
        errors = bench.events[2:]
        assert [type(error) for error in errors] == [DiskFull] * 3
        assert len({id(error) for error in (*errors, bench.write_error)}) == 4
        assert {error.retry_after for error in errors} == {2.0}

        bench.write_error = None
        bench.events.clear()
        bench.put("d")
        bench.committer.close()
    assert bench.events == ["write", "written", "sync", "synced", "d", "answered"]
    assert [number_of(changes) for changes in bench.written_changes] == [1]


async def failed(bench: Bench) -> StorageFailed:
    """What ends the committer."""
    bench.committer.close()
    with pytest.raises(StorageFailed) as raised:
        await bench.committer.run()
    return raised.value


@in_trio
async def test_given_a_store_that_refuses_a_write_then_it_is_over_and_all_are_told_each_with_its_own_error() -> None:
    bench = Bench()
    bench.write_error = StorageFailed("broken")
    bench.put("a")
    bench.put("b", OS)
    error = await failed(bench)
    assert bench.committer.failure is error
    assert bench.events[0] == "write"
    assert [type(found) for found in bench.events[1:]] == [StorageFailed] * 2
    assert bench.events[1] is not bench.events[2]
    assert (bench.committer.written_number, bench.committer.synced_number) == (0, 0)


@in_trio
async def test_given_a_sync_that_fails_then_who_was_answered_stays_so_and_the_others_are_told() -> None:
    bench = Bench()
    bench.sync_error = StorageFailed("broken")
    bench.put("a")
    bench.put("b", OS)
    bench.put("c", None)
    bench.on_sync = lambda: bench.put("open")
    await failed(bench)
    assert bench.events[:4] == ["write", "written", "b", "sync"]
    assert [type(found) for found in bench.events[4:]] == [StorageFailed] * 3
    assert len({id(found) for found in bench.events[4:]}) == 3
    assert (bench.committer.written_number, bench.committer.synced_number) == (1, 0)


@in_mock_time
async def test_given_a_late_sync_that_fails_then_it_is_over_too() -> None:
    bench = Bench()
    bench.sync_error = StorageFailed("broken")
    bench.put("a", INTERVAL)
    bench.committer.sync_within(0.1)
    with pytest.raises(StorageFailed):
        await bench.committer.run()
    assert bench.events == ["write", "written", "a", "synced", "answered", "sync"]
    assert bench.committer.failure is not None


@in_trio
async def test_given_a_slow_sync_that_fails_then_those_who_came_meanwhile_are_told_too() -> None:
    bench = Bench()
    token = trio.lowlevel.current_trio_token()
    bench.committer.sync_seconds = 1.0
    bench.sync_error = StorageFailed("broken")
    bench.put("a")
    bench.on_sync = lambda: trio.from_thread.run_sync(bench.put, "b", trio_token=token)
    await failed(bench)
    assert [type(found) for found in bench.events] == [str, str, str, StorageFailed, StorageFailed]


def test_given_cells_when_changed_or_deleted_then_each_counts_in_the_size_once() -> None:
    commit, cells = Commit(), [Counter(b"a"), Counter(b"b")]
    for value in (1, 2):
        for cell in cells:
            commit.set(cell, value)
    assert commit.size == 2 * CELL_BYTES
    commit.discard(Counter(b"c"))
    assert commit.size == 3 * CELL_BYTES


# -- room ------------------------------------------------------------------------------


@in_trio
async def test_given_much_in_the_open_commit_then_it_is_full_until_it_was_taken() -> None:
    bench = Bench()
    writers, writer = bench.committer.writers, Writer()
    writers.added(writer, 1)
    bench.put("a", payload=bytes(OPEN_BYTES_SOFT - 1))
    assert not writers.must_wait(writer)
    bench.put("b", payload=b"1")
    assert writers.must_wait(writer)
    woken: list[bool] = []

    async def bring_more() -> None:
        await writers.wait(writer)
        woken.append(writers.must_wait(writer))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(bring_more)
        await wait_all_tasks_blocked()
        assert woken == []
        nursery.start_soon(bench.committer.run)
        await wait_all_tasks_blocked()
        assert woken == [False]
        bench.committer.close()


@in_trio
async def test_given_who_waits_for_room_when_the_disk_is_full_then_they_go_on() -> None:
    bench = Bench()
    bench.write_error = DiskFull("no room")
    bench.put("a", payload=bytes(OPEN_BYTES_SOFT))
    writers, writer = bench.committer.writers, Writer()
    writers.added(writer, 1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writers.wait, writer)
        await wait_all_tasks_blocked()
        nursery.start_soon(bench.committer.run)
        await wait_all_tasks_blocked()
        assert not writers.must_wait(writer)
        bench.committer.close()


@in_trio
async def test_given_nothing_open_when_closed_then_it_ends_without_a_write() -> None:
    bench = Bench()
    await bench.finish()
    assert bench.events == []
