"""The data directory: opened by one at a time, made durably, refused when the promise could not be kept."""

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from rocksmq.broker import keys
from rocksmq.broker.directory import FORMAT, DataDirectory, locked
from rocksmq.broker.engine import RocksMQ
from rocksmq.broker.mark import MarkFile
from rocksmq.broker.store import DataRefused, DirectoryInUse, Family, Put, Store
from rocksmq.protocol.errors import DiskFull, StorageFailed
from tests.helpers.model_systems import copy_as_killed

from .disk_support import Disk, fail
from .support import in_trio


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data"


def fail_with(error: Exception) -> Callable[[Path], Store]:
    def failing(place: Path) -> Store:
        raise error

    return failing


def filled(path: Path, *, recovered: int, marked: int) -> None:
    """A directory whose store ends at commit ``recovered`` and whose mark says ``marked``."""
    opened = DataDirectory(path)
    opened.store.write([Put(Family.META, keys.COMMIT_NUMBER, keys.u64(recovered))])
    opened.store.sync()
    opened.mark.write(max(0, marked - 1))
    opened.mark.write(marked)
    opened.close()


def test_given_no_directory_when_opened_then_it_is_made_private_with_all_its_parts(path: Path) -> None:
    opened = DataDirectory(path / "deep" / "down")
    assert (opened.commit_number, opened.mark.number) == (0, 0)
    opened.close()
    inside = path / "deep" / "down"
    assert {"db", "format", "lock", "mark"} <= {entry.name for entry in inside.iterdir()}
    assert inside.stat().st_mode & 0o077 == 0


def test_given_no_directory_when_made_then_it_and_its_parent_are_synced(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    fsync = os.fsync

    def recording(fd: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{fd}"))
        fsync(fd)

    monkeypatch.setattr(os, "fsync", recording)
    DataDirectory(path).close()
    assert str(path.parent) in synced
    assert str(path) in synced


def test_given_a_directory_when_opened_again_then_instance_and_numbers_are_the_same(path: Path) -> None:
    filled(path, recovered=9, marked=9)
    first = DataDirectory(path)
    instance = first.instance
    assert (first.commit_number, first.mark.number) == (9, 9)
    first.close()
    second = DataDirectory(path)
    assert second.instance == instance != ""
    second.close()


def test_given_a_directory_in_use_when_opened_then_the_holder_is_named_and_it_opens_once_that_is_gone(path: Path) -> None:
    first = DataDirectory(path)
    with pytest.raises(DirectoryInUse, match=str(os.getpid())):
        DataDirectory(path)
    first.close()
    DataDirectory(path).close()


def test_given_a_newer_format_when_opened_then_it_is_refused_untouched_and_unlocked(path: Path) -> None:
    DataDirectory(path).close()
    (path / "format").write_text(json.dumps({"format": FORMAT + 1, "instance": "x"}))
    for _ in range(2):
        with pytest.raises(DataRefused, match=f"format {FORMAT + 1}.*newer"):
            DataDirectory(path)
    assert json.loads((path / "format").read_text())["format"] == FORMAT + 1


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "{}", '{"format": "x", "instance": "y"}', '{"format": 1}', '{"format": Infinity}', "null"]
)
def test_given_a_damaged_format_when_opened_then_it_is_refused(path: Path, content: str) -> None:
    DataDirectory(path).close()
    (path / "format").write_text(content)
    with pytest.raises(DataRefused, match="damaged"):
        DataDirectory(path)


def test_given_a_format_older_than_the_first_when_opened_then_it_is_refused(path: Path) -> None:
    DataDirectory(path).close()
    (path / "format").write_text(json.dumps({"format": 0, "instance": "x"}))
    with pytest.raises(DataRefused, match="format 0"):
        DataDirectory(path)


def test_given_a_database_without_a_format_when_opened_then_it_is_refused(path: Path) -> None:
    DataDirectory(path).close()
    (path / "format").unlink()
    with pytest.raises(DataRefused, match="not a whole"):
        DataDirectory(path)


def test_given_a_database_that_is_gone_when_opened_then_it_is_refused(path: Path) -> None:
    filled(path, recovered=9, marked=9)
    shutil.rmtree(path / "db")
    with pytest.raises(DataRefused, match="9 commits are missing"):
        DataDirectory(path)


@pytest.mark.parametrize("accept_loss", [False, True])
@pytest.mark.parametrize("has_mark", [True, False])
def test_given_a_database_whose_current_file_is_gone_when_opened_then_it_is_refused_as_it_is_until_that_is_back(
    path: Path, accept_loss: bool, has_mark: bool
) -> None:
    filled(path, recovered=9, marked=9)
    if not has_mark:
        (path / "mark").unlink()
    (path / "db" / "CURRENT").rename(path / "aside")
    before = sorted((path / "db").iterdir())
    for _ in range(2):
        with pytest.raises(DataRefused, match="lacks the file CURRENT"):
            DataDirectory(path, accept_loss=accept_loss)
    assert sorted((path / "db").iterdir()) == before
    (path / "aside").rename(path / "db" / "CURRENT")
    again = DataDirectory(path, accept_loss=True)
    assert again.commit_number == 9
    again.close()


@pytest.mark.parametrize("accept_loss", [False, True])
@pytest.mark.parametrize("has_mark", [True, False])
def test_given_a_rewrite_that_was_cut_short_when_opened_then_it_is_refused_until_the_new_one_has_its_name(
    path: Path, accept_loss: bool, has_mark: bool
) -> None:
    filled(path, recovered=9, marked=9)
    if not has_mark:
        (path / "mark").unlink()
    (path / "db").rename(path / "db.new")
    with pytest.raises(DataRefused, match=r"rename `db\.new` to `db`"):
        DataDirectory(path, accept_loss=accept_loss)
    assert not (path / "db").exists()
    (path / "db.new").rename(path / "db")
    DataDirectory(path, accept_loss=True).close()


def test_given_a_full_disk_and_a_checkpoint_left_over_when_opened_then_that_is_removed_first(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(path, recovered=9, marked=9)
    (path / "checkpoint-5e").mkdir()
    (path / "checkpoint-5e" / "000009.sst").write_text("which keeps what was deleted")
    opened = Store

    def open_with_room(place: Path) -> Store:
        if (path / "checkpoint-5e").exists():
            raise DiskFull("the disk is full")
        return opened(place)

    monkeypatch.setattr("rocksmq.broker.directory.Store", open_with_room)
    DataDirectory(path).close()
    monkeypatch.setattr("rocksmq.broker.directory.Store", fail_with(DiskFull("the disk is full")))
    with pytest.raises(DiskFull):
        DataDirectory(path)


def test_given_a_child_that_is_just_being_started_when_the_directory_is_given_up_then_another_may_open_it(path: Path) -> None:
    opened = DataDirectory(path)
    inherited = os.dup(opened._lock_fd)  # pyright: ignore[reportPrivateUsage]  # as between a fork and its exec
    opened.close()
    DataDirectory(path).close()
    os.close(inherited)


@pytest.mark.parametrize("text", ["", "rocksmqd with pid 5 on there"])
def test_given_a_directory_that_is_looked_into_when_that_is_over_then_the_lock_says_what_it_said(path: Path, text: str) -> None:
    DataDirectory(path).close()
    lock = path / "lock"
    lock.write_text(text)
    with locked(lock, "rocksmq check"), pytest.raises(DirectoryInUse, match="in use by rocksmq check with pid"):
        DataDirectory(path)
    assert lock.read_text() == text
    again = DataDirectory(path)
    assert again.follows_crash == bool(text)
    with pytest.raises(DirectoryInUse, match="in use by rocksmqd with pid"), locked(lock, "rocksmq check"):
        pass
    again.close()


def test_given_a_file_system_that_is_only_read_when_looked_into_then_it_is_locked_all_the_same(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    DataDirectory(path).close()
    opened = os.open

    def open_read_only(file: Path, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_RDWR:
            raise OSError(errno.EROFS, "Read-only file system")
        return opened(file, flags, mode)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", open_read_only)
        with locked(path / "lock", "rocksmq check"):
            patch.undo()
            with pytest.raises(DirectoryInUse):
                DataDirectory(path)
    DataDirectory(path).close()


@pytest.mark.parametrize("wanted", ["path", "parent"])
def test_given_a_file_in_its_place_when_opened_then_it_is_an_os_error(path: Path, wanted: str) -> None:
    path.write_text("a file")
    with pytest.raises(OSError, match=r"it is a file|Not a directory"):
        DataDirectory(path if wanted == "path" else path / "below")


def test_given_an_interrupted_first_start_when_opened_then_it_goes_on(path: Path) -> None:
    path.mkdir()
    (path / "format.new").write_text('{"form')
    DataDirectory(path).close()
    (path / "mark").unlink()
    DataDirectory(path).close()


def test_given_a_missing_mark_when_opened_then_it_is_refused_unless_loss_is_accepted(path: Path) -> None:
    filled(path, recovered=9, marked=9)
    (path / "mark").unlink()
    with pytest.raises(DataRefused, match="--accept-loss"):
        DataDirectory(path)
    assert not (path / "mark").exists()
    accepted = DataDirectory(path, accept_loss=True)
    assert accepted.mark.number == 9
    accepted.close()
    DataDirectory(path).close()


@pytest.mark.parametrize("recovered", [0, 1, 6])
def test_given_a_store_that_ends_before_the_mark_when_opened_then_it_says_how_much_is_missing(
    path: Path, recovered: int
) -> None:
    filled(path, recovered=recovered, marked=7)
    with pytest.raises(DataRefused, match=rf"{7 - recovered} commits are missing.*--accept-loss"):
        DataDirectory(path)


def test_given_a_store_that_ends_before_the_mark_when_loss_is_accepted_once_then_it_opens_from_then_on(path: Path) -> None:
    filled(path, recovered=6, marked=7)
    accepted = DataDirectory(path, accept_loss=True)
    assert accepted.mark.number == 6
    accepted.close()
    again = DataDirectory(path)
    assert again.mark.number == 6
    again.close()


@pytest.mark.parametrize("recovered", [7, 8, 1000])
def test_given_a_store_at_or_past_the_mark_when_opened_then_it_opens(path: Path, recovered: int) -> None:
    filled(path, recovered=recovered, marked=7)
    opened = DataDirectory(path)
    assert (opened.commit_number, opened.mark.number) == (recovered, 7)
    opened.close()


def test_given_a_refusal_when_the_cause_is_mended_then_nothing_holds_the_directory(path: Path) -> None:
    filled(path, recovered=6, marked=7)
    with pytest.raises(DataRefused):
        DataDirectory(path)
    (path / "mark").unlink()
    MarkFile.create(path / "mark", 6).close()
    DataDirectory(path).close()


def follows_crash(path: Path) -> bool:
    """What a broker is told that starts there, and ends in order."""
    opened = DataDirectory(path)
    opened.close()
    return opened.follows_crash


@in_trio
async def test_given_brokers_that_ended_in_each_way_when_started_again_then_a_crash_is_told(
    path: Path, tmp_path: Path, disk: Disk
) -> None:
    killed = tmp_path / "killed"
    async with RocksMQ(path) as mq:
        await mq.create_channel("orders")
        copy_as_killed(path, killed)
    assert [follows_crash(path), follows_crash(killed), follows_crash(killed)] == [False, True, False]

    async def fail_on() -> None:
        async with RocksMQ(path) as mq:
            disk.on_sync = fail(StorageFailed("broken"))
            await mq.produce("orders", [b"x"])

    with pytest.raises(StorageFailed):
        await fail_on()
    disk.on_sync = lambda: None
    assert [follows_crash(path), follows_crash(path)] == [True, False]


@pytest.mark.parametrize("crashed", [False, True])
def test_given_a_start_that_was_refused_when_started_again_then_only_the_one_before_counts(path: Path, crashed: bool) -> None:
    DataDirectory(path).close(in_order=not crashed)
    (path / "format").rename(path / "kept")
    with pytest.raises(DataRefused):
        DataDirectory(path)
    (path / "kept").rename(path / "format")
    assert follows_crash(path) == crashed
