"""The reserve of free disk space."""

import os
from pathlib import Path

import pytest

from rocksmq.broker.disk import (
    CHECK_BYTES,
    CHECK_SECONDS,
    INODES_MIN,
    STUCK_SECONDS,
    DiskGuard,
    disk_piece_bytes,
    piece_bytes,
    reserve_bytes,
)

from .disk_support import file_system

MIB = 1 << 20
TOTAL = 10 << 30
RESERVE = 512 * MIB


class Disk:
    """A file system with as many free bytes as the test says, which counts the looks at it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.free = TOTAL
        self.looks = 0
        self.now = 100.0
        self.total = TOTAL
        self.inodes = self.free_inodes = 1_000_000
        self.owed = self.waiting = 0
        monkeypatch.setattr(os, "statvfs", self._statvfs)
        self.guard = DiskGuard(Path("/data"), owed=lambda: self.owed, waiting=lambda: self.waiting, clock=lambda: self.now)

    def _statvfs(self, path: Path) -> os.statvfs_result:
        assert path == Path("/data")
        self.looks += 1
        return file_system(self.free, self.total, inodes=self.inodes, free_inodes=self.free_inodes)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


@pytest.mark.parametrize(
    ("total", "reserve"),
    [(1 << 30, 64 * MIB), (10 << 30, 512 * MIB), (20 << 30, 1 << 30), (1 << 50, 1 << 30), (0, 64 * MIB)],
)
def test_given_a_disk_when_asked_for_its_reserve_then_it_is_five_percent_within_bounds(total: int, reserve: int) -> None:
    assert reserve_bytes(total) == reserve


@pytest.mark.parametrize(
    ("total", "piece"),
    [(1 << 50, 64 * MIB), (20 << 30, 64 * MIB), (10 << 30, 32 * MIB), (2 << 30, 107_374_182 // 16), (256 * MIB, 4 * MIB)],
)
def test_given_a_disk_when_its_database_is_made_then_what_it_rewrites_at_once_fits_into_the_reserve(
    disk: Disk, total: int, piece: int
) -> None:
    disk.total = total
    assert piece_bytes(total) == piece
    assert 12 * piece < reserve_bytes(total)


def test_given_a_directory_that_is_not_made_yet_when_asked_for_a_piece_then_it_is_of_the_disk_where_it_will_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Path] = []

    def statvfs(path: Path) -> os.statvfs_result:
        asked.append(path)
        return file_system(0, 10 << 30)

    monkeypatch.setattr(os, "statvfs", statvfs)
    assert disk_piece_bytes(tmp_path / "data" / "db") == disk_piece_bytes(tmp_path) == 32 * MIB
    assert asked == [tmp_path, tmp_path]


def test_given_space_above_the_reserve_when_asked_then_it_admits(disk: Disk) -> None:
    disk.free = RESERVE
    assert disk.guard.admits(1)
    assert (disk.guard.free_bytes, disk.guard.reserve) == (RESERVE, RESERVE)


def test_given_less_than_the_reserve_when_asked_then_it_refuses(disk: Disk) -> None:
    disk.free = RESERVE - 4096
    assert not disk.guard.admits(1)


def test_given_a_database_that_owes_more_than_the_reserve_when_asked_then_that_much_is_left_free(disk: Disk) -> None:
    disk.free, disk.owed = RESERVE + 200 * MIB, RESERVE + 200 * MIB
    assert disk.guard.admits(1)
    assert disk.guard.reserve == RESERVE + 200 * MIB
    disk.owed += 4096
    disk.guard.look()
    assert not disk.guard.admits(1)
    # What it owes shrinks as it merges.
    disk.owed = 0
    disk.guard.look()
    assert disk.guard.admits(1)
    assert disk.guard.reserve == RESERVE


def test_given_much_that_is_admitted_and_not_written_when_asked_then_it_is_not_free(disk: Disk) -> None:
    disk.free, disk.waiting = RESERVE + 8 * MIB, 8 * MIB
    assert disk.guard.admits(1)
    disk.waiting += 1
    disk.guard.look()
    assert not disk.guard.admits(1)
    assert disk.guard.free_bytes == RESERVE + 8 * MIB


def test_given_a_small_disk_when_a_piece_was_produced_then_it_looks_again(disk: Disk) -> None:
    disk.total = disk.free = 256 * MIB
    assert disk.guard.admits(1)
    disk.free = 0
    assert disk.guard.admits(4 * MIB)
    assert not disk.guard.admits(1)


def test_given_little_produced_when_asked_within_a_second_then_it_does_not_look_again(disk: Disk) -> None:
    for _ in range(100):
        assert disk.guard.admits(1000)
    assert disk.looks == 1


def test_given_a_disk_that_filled_up_when_a_second_has_passed_then_it_refuses(disk: Disk) -> None:
    assert disk.guard.admits(1)
    disk.free = 0
    assert disk.guard.admits(1)
    disk.now += CHECK_SECONDS
    assert not disk.guard.admits(1)


def test_given_a_disk_that_filled_up_when_much_was_produced_then_it_looks_at_once(disk: Disk) -> None:
    assert disk.guard.admits(1)
    disk.free = 0
    assert disk.guard.admits(CHECK_BYTES)
    assert not disk.guard.admits(1)


def test_given_a_full_disk_when_space_is_freed_then_it_resumes_only_well_above_the_reserve(disk: Disk) -> None:
    disk.free = 0
    assert not disk.guard.admits(1)
    disk.free = RESERVE + MIB
    disk.now += CHECK_SECONDS
    assert not disk.guard.admits(1)
    disk.free = RESERVE * 2
    disk.now += CHECK_SECONDS
    assert disk.guard.admits(1)


def test_given_a_disk_that_fills_and_is_freed_when_looked_at_then_each_turn_is_logged_once(
    disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "rocksmq")
    for free in (RESERVE, RESERVE - 4096, RESERVE - 8192, RESERVE, 2 * RESERVE, RESERVE):
        disk.free = free
        disk.guard.look()
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


def test_given_a_file_system_that_does_not_answer_when_asked_then_it_is_asked_now_and_then(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0

    def refuse(path: Path) -> None:
        nonlocal looks
        looks += 1
        raise OSError(5, "no answer")

    assert disk.guard.admits(1)
    monkeypatch.setattr(os, "statvfs", refuse)
    disk.now += CHECK_SECONDS
    for _ in range(100):
        assert disk.guard.admits(CHECK_BYTES // 10)
    assert not disk.guard.is_known
    assert looks <= 11


def test_given_few_free_inodes_when_looked_at_then_the_disk_is_full_whatever_its_bytes(disk: Disk) -> None:
    disk.free_inodes = INODES_MIN - 1
    assert not disk.guard.admits(1)
    disk.now, disk.free_inodes = disk.now + CHECK_SECONDS, INODES_MIN
    assert disk.guard.admits(1)


def test_given_a_file_system_that_counts_no_inodes_when_looked_at_then_it_is_not_full_for_that(disk: Disk) -> None:
    disk.inodes = disk.free_inodes = 0
    assert disk.guard.admits(1)


def test_given_a_database_that_finds_no_room_where_there_is_when_that_lasts_then_it_is_stuck(disk: Disk) -> None:
    assert not disk.guard.refused()
    disk.now += STUCK_SECONDS - 1
    assert not disk.guard.refused()
    disk.now += 1
    assert disk.guard.refused()
    disk.guard.accepted()
    assert not disk.guard.refused()


def test_given_a_full_disk_when_the_database_finds_no_room_then_it_is_not_stuck_before_there_is_some(disk: Disk) -> None:
    disk.free = 0
    for _ in range(3):
        assert not disk.guard.refused()
        disk.now += STUCK_SECONDS
    disk.free = TOTAL
    assert not disk.guard.refused()
    disk.now += STUCK_SECONDS
    assert disk.guard.refused()
