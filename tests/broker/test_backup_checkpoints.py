"""The life of a checkpoint: who gets it, and that it goes, whatever happens."""

import shutil
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from rocksmq.broker.checkpoints import LEASE_SECONDS, LOOK_SECONDS
from rocksmq.broker.disk import DiskGuard
from rocksmq.broker.engine import RocksMQ
from rocksmq.broker.store import Family, Store, looking_at
from rocksmq.protocol.administration import BackupBegin, BackupBegun, BackupEnd
from rocksmq.protocol.errors import DiskFull, InternalError, Overloaded, ShuttingDown, StorageFailed
from rocksmq.protocol.operations import (
    Empty,
)

from .support import in_trio

OURS, THEIRS = bytes(16), b"\1" * 16
PATIENCE_LOOKS = 10_000


async def begun(mq: RocksMQ, request_id: bytes = OURS) -> BackupBegun:
    found: BackupBegun = await mq.call(BackupBegin(request_id))
    return found


async def begun_when_free(mq: RocksMQ) -> BackupBegun:
    """As a client does, which tries again while the one before is being removed."""
    for _ in range(PATIENCE_LOOKS):
        try:
            return await begun(mq)
        except Overloaded:
            await trio.to_thread.run_sync(threading.Event().wait, 0.001)
    raise AssertionError("the one before is never over")


def there(tmp_path: Path) -> list[str]:
    """The checkpoints in the data directory."""
    return sorted(path.name for path in tmp_path.glob("checkpoint-*"))


async def until(condition: Callable[[], bool]) -> None:
    """While threads work; the clock stands still."""
    for _ in range(PATIENCE_LOOKS):
        if condition():
            return
        await trio.to_thread.run_sync(threading.Event().wait, 0.001)
    raise AssertionError("it does not come")


@asynccontextmanager
async def holding(monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[tuple[trio.Event, threading.Event]]:
    """Checkpoints wait in their thread: the first event says that one does, the second lets it go on."""
    reached, release = trio.Event(), threading.Event()
    token = trio.lowlevel.current_trio_token()
    make = Store.checkpoint

    def held(store: Store, target: Path) -> None:
        token.run_sync_soon(reached.set)
        assert release.wait(30)
        make(store, target)

    monkeypatch.setattr(Store, "checkpoint", held)
    try:
        yield reached, release
    finally:
        release.set()


@in_trio
async def test_given_messages_when_a_backup_begins_then_they_are_in_it_and_it_goes_at_the_end(
    tmp_path: Path,
) -> None:
    async with RocksMQ(tmp_path) as mq:
        await mq.create_channel("orders")
        await mq.produce("orders", [b"one"])
        found = await begun(mq)
        path = Path(found.path)
        assert path.is_absolute()
        assert path.parent == tmp_path.resolve()
        assert found.instance in (tmp_path / "format").read_text()
        assert found.lease_ms == LEASE_SECONDS * 1000
        with looking_at(path) as store:
            assert store is not None
            number = store.get(Family.META, b"!commit")
        assert number is not None
        assert int.from_bytes(number, "big") == found.mark == mq.core.committer.written_number
        assert await mq.call(BackupEnd(OURS)) == Empty()
        assert there(tmp_path) == []
        assert Path((await begun(mq)).path) != path


@in_trio
async def test_given_a_backup_when_its_request_is_repeated_then_it_is_the_same_and_others_have_to_wait(tmp_path: Path) -> None:
    async with RocksMQ(tmp_path) as mq:
        found = await begun(mq)
        assert await begun(mq) == found
        assert len(there(tmp_path)) == 1
        with pytest.raises(Overloaded, match="another backup is under way"):
            await begun(mq, THEIRS)
        assert await mq.call(BackupEnd(THEIRS)) == Empty()
        assert len(there(tmp_path)) == 1
        await mq.call(BackupEnd(OURS))
        assert await mq.call(BackupEnd(OURS)) == Empty()
        await begun(mq, THEIRS)


@in_trio
async def test_given_a_checkpoint_in_the_making_when_asked_for_twice_then_both_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[BackupBegun] = []
    async with holding(monkeypatch) as (reached, release), RocksMQ(tmp_path) as mq:

        async def ask() -> None:
            found.append(await begun(mq))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await reached.wait()
            nursery.start_soon(ask)
            await wait_all_tasks_blocked()
            assert found == []
            release.set()
    assert len(found) == 2
    assert found[0] == found[1]


@in_trio
async def test_given_a_checkpoint_in_the_making_when_it_ends_then_nothing_is_left_and_the_loop_went_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with holding(monkeypatch) as (reached, release), RocksMQ(tmp_path) as mq:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(begun, mq)
            await reached.wait()
            nursery.start_soon(mq.call, BackupEnd(OURS))
            await mq.create_channel("meanwhile")
            with pytest.raises(Overloaded):
                await begun(mq)
            release.set()
        assert there(tmp_path) == []


def test_given_a_lease_when_it_is_renewed_then_the_checkpoint_stays_and_when_not_then_it_goes(tmp_path: Path) -> None:
    clock = MockClock()

    async def live() -> None:
        async with RocksMQ(tmp_path) as mq:
            found = await begun(mq)
            for _ in range(3):
                clock.jump(LEASE_SECONDS - LOOK_SECONDS)
                await wait_all_tasks_blocked()
                assert await begun(mq) == found
            clock.jump(LEASE_SECONDS - LOOK_SECONDS)
            await wait_all_tasks_blocked()
            assert there(tmp_path) == [Path(found.path).name]
            clock.jump(2 * LOOK_SECONDS)
            await until(lambda: not there(tmp_path))
            assert (await begun_when_free(mq)).path != found.path

    trio.run(live, clock=clock)


def become_full(disk: DiskGuard) -> None:
    """In the place of a look at the file system."""
    disk.is_full = True


def test_given_a_backup_when_the_disk_becomes_full_then_it_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = MockClock()

    async def live() -> None:
        async with RocksMQ(tmp_path) as mq:
            await begun(mq)
            monkeypatch.setattr(DiskGuard, "look", become_full)
            clock.jump(LOOK_SECONDS)
            await until(lambda: not there(tmp_path))
            with pytest.raises(DiskFull, match="less than the reserve"):
                await begun_when_free(mq)
            assert there(tmp_path) == []

    trio.run(live, clock=clock)


@pytest.mark.parametrize(
    ("error", "kind"),
    [(StorageFailed("it broke"), StorageFailed), (DiskFull("no room"), DiskFull), (ValueError("a bug"), InternalError)],
)
@in_trio
async def test_given_a_checkpoint_that_fails_when_asked_for_then_the_error_is_told_and_the_next_one_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, kind: type[Exception]
) -> None:
    def fail(store: Store, target: Path) -> None:
        target.mkdir()
        raise error

    async with RocksMQ(tmp_path) as mq:
        with monkeypatch.context() as patch:
            patch.setattr(Store, "checkpoint", fail)
            with pytest.raises(kind):
                await begun(mq)
        assert Path((await begun_when_free(mq)).path).is_dir()
        assert len(there(tmp_path)) == 1


@in_trio
async def test_given_a_backup_when_the_broker_stops_then_it_is_removed(tmp_path: Path) -> None:
    async with RocksMQ(tmp_path) as mq:
        await begun(mq)
        assert len(there(tmp_path)) == 1
    assert there(tmp_path) == []


@in_trio
async def test_given_a_checkpoint_in_the_making_when_the_broker_stops_then_who_asked_is_told_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: list[object] = []
    async with holding(monkeypatch) as (reached, release), RocksMQ(tmp_path) as mq:
        mq.core.submit(BackupBegin(OURS), answers.append)
        await reached.wait()
        release.set()
    assert len(answers) == 1
    assert isinstance(answers[0], ShuttingDown | BackupBegun)
    assert there(tmp_path) == []


@in_trio
async def test_given_what_a_killed_broker_left_when_the_next_one_starts_then_it_is_removed(tmp_path: Path) -> None:
    left = tmp_path / "checkpoint-0123"
    left.mkdir()
    (left / "000007.sst").write_text("old")
    async with RocksMQ(tmp_path) as mq:
        path = Path((await begun(mq)).path)
        await until(lambda: not left.exists())
        assert path.is_dir()


@in_trio
async def test_given_a_checkpoint_that_cannot_be_removed_when_it_ends_then_that_is_logged_and_the_broker_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(path: Path) -> None:
        raise OSError(5, "I/O error")

    async with RocksMQ(tmp_path) as mq:
        await begun(mq)
        with monkeypatch.context() as patch:
            patch.setattr(shutil, "rmtree", fail)
            await mq.call(BackupEnd(OURS))
        assert "could not be removed" in caplog.text
        await mq.create_channel("orders")
