"""A disk that tests slow down or break: it stands before every store of the process."""

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import trio

from rocksmq.broker.store import Change, Store
from tests.helpers.model_systems import copy_as_killed

BLOCK_BYTES = 1 << 12
FOR_ROOT_BLOCKS = 7  # free, and for nobody else


def file_system(free: int, total: int, *, inodes: int = 1_000_000, free_inodes: int = 1_000_000) -> os.statvfs_result:
    """What statvfs(2) says of one with so many bytes."""
    free_blocks = free // BLOCK_BYTES
    blocks = (BLOCK_BYTES, BLOCK_BYTES, total // BLOCK_BYTES, free_blocks + FOR_ROOT_BLOCKS, free_blocks)
    return os.statvfs_result((*blocks, inodes, free_inodes, free_inodes, 0, 255))


def table_sizes(database: Path) -> list[int]:
    """In bytes, of the tables that are there: RocksDB removes those that it has merged at any time."""
    sizes: list[int] = []
    for file in database.glob("*.sst"):
        with suppress(FileNotFoundError):
            sizes.append(file.stat().st_size)
    return sizes


class Disk:
    """Stands before every store: counts syncs, and fails or waits when a test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.syncs = 0
        self.on_write: Callable[[], None] = lambda: None
        self.on_sync: Callable[[], None] = lambda: None
        write, sync = Store.write, Store.sync

        def noted_write(store: Store, changes: list[Change]) -> None:
            self.on_write()
            write(store, changes)

        def noted_sync(store: Store) -> None:
            self.syncs += 1
            self.on_sync()
            sync(store)

        monkeypatch.setattr(Store, "write", noted_write)
        monkeypatch.setattr(Store, "sync", noted_sync)


def fail(error: Exception) -> Callable[[], None]:
    def failing() -> None:
        raise error

    return failing


def hold() -> tuple[threading.Event, trio.Event, Callable[[], None]]:
    """What a sync does to wait for the first event, after it has set the second."""
    release, begun = threading.Event(), trio.Event()
    token = trio.lowlevel.current_trio_token()

    def held() -> None:
        token.run_sync_soon(begun.set)
        assert release.wait(30)

    return release, begun, held


def crashed(path: Path) -> Path:
    """What a kill -9 now would leave behind: the files as they are, under another name."""
    copy = path.with_name(path.name + "-crashed")
    copy_as_killed(path, copy)
    return copy
