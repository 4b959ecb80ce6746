"""A new database of what can be read of the old one, where RocksDB itself finds blocks of messages damaged.

RocksDB stops at such a block when it compacts, and with it the broker, whether a message in it is still wanted or not; and
nothing but a new table is without it. Records are not left out: where one of them cannot be read, nothing is done. The old
database stays beside the new one.
"""

import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from rocksmq.protocol.errors import StorageFailed

from . import log_chain
from .directory import REWRITTEN, sync_directory
from .patch import NotRepaired
from .salvage import Unread, entries
from .store import Change, Family, Put, Store, looking_at

OLD, NEW, DAMAGED = "db", REWRITTEN, "db.damaged"
WRITTEN_AT_ONCE = 1 << 20
ALL = b"", b"\xff" * 64
RECORDS = b"", log_chain.PREFIX


def rewrite(directory: Path, progress: Callable[[int, int], None]) -> str:
    """Put the new database in the place of the old one; what it did. Raises NotRepaired, StorageFailed, DiskFull, OSError."""
    damaged, new = directory / DAMAGED, directory / NEW
    if damaged.exists():
        raise NotRepaired(f"{damaged} is there already, from another time: move it away or remove it")
    shutil.rmtree(new, ignore_errors=True)
    with looking_at(directory / OLD) as source:
        if source is None:
            raise NotRepaired("there is no database")
        size = sum(file.stat().st_size for file in (directory / OLD).iterdir())
        new.mkdir(mode=0o700)
        try:
            told = _copied(source, new, lambda done: progress(done, size))
        except BaseException:
            shutil.rmtree(new)
            raise
    sync_directory(new)
    sync_directory(directory)
    (directory / OLD).rename(damaged)
    new.rename(directory / OLD)
    sync_directory(directory)
    return f"{told}; the old database is {damaged}: remove it when all is well"


def _copied(source: Store, new: Path, progress: Callable[[int], None]) -> str:
    with closing(Store(new)) as target:
        told = _copy(source, target, progress)
        target.sync()
    return told


def _copy(source: Store, target: Store, progress: Callable[[int], None]) -> str:
    batch: list[Change] = []
    size = done = count = parts = 0
    try:
        batch += [Put(Family.META, key, value) for key, value in source.scan(Family.META, *RECORDS)]
    except StorageFailed as error:
        raise NotRepaired(f"a record cannot be read: only a backup has it; {error.message}") from error
    for entry in entries(source, *ALL):
        if isinstance(entry, Unread):
            parts += 1
            continue
        key, value = entry
        batch.append(Put(Family.DATA, key, value))
        count += 1
        size += len(value)
        if size >= WRITTEN_AT_ONCE:
            target.write(batch)
            batch.clear()
            done += size
            size = 0
            progress(done)
    target.write(batch)
    places = "1 place" if parts == 1 else f"{parts:,} places"
    batches = "1 batch" if count == 1 else f"{count:,} batches"
    return f"{batches} copied; what could not be read lay in {places}"
