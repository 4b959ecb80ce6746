"""The one place that touches RocksDB: open, write, sync, read, compact.

Owns the database and the translation of its errors. Knows bytes only: what keys and
values mean stands in `keys` and `records`. Used from the loop's thread, except for `sync`
and `compact`, which release the GIL and may run in a thread of their own.
"""

import errno
import logging
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from enum import IntEnum
from os import scandir
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock, Thread
from typing import NamedTuple, TypeAlias

from rocksdict import AccessType, Cache, Rdict, ReadOptions, WriteBatch

from rocksmq.protocol.errors import DiskFull, StorageFailed

from . import log_chain
from . import store_options as options
from .disk import disk_piece_bytes
from .live_links import NeverStill, link_live_files
from .log_chain import LOG_BLOCK_BYTES, LOG_HEADER_BYTES, LogChain, end_of_record
from .store_options import LEVEL_PIECES, MEMTABLES_MAX, MIB, in_pieces

logger = logging.getLogger("rocksmq.broker")

MEMTABLE_BYTES = 64 * MIB  # at most: on a disk of less than 20 GiB a memtable is a piece of it (disk.py)
ENTRIES = "rocksdb.num-entries-active-mem-table"
UNSYNCED_BYTES_MAX = 8 * MIB  # then a sync begins by itself: 5 ms are left of it when a log is switched, not 35
PADDING = b"\xff padding"  # a key that nobody has
OWED_PIECES_MAX = 48  # of what compaction is behind with; it may be much more, but one takes no more at once
BLOCK_CACHE_BYTES = 64 * MIB


class Family(IntEnum):
    """Column families."""

    DATA = 0
    META = 1


class Put(NamedTuple):
    family: Family
    key: bytes
    value: bytes


class Delete(NamedTuple):
    family: Family
    key: bytes


class DeleteRange(NamedTuple):
    """Every key from ``begin`` up to, not including, ``end``."""

    family: Family
    begin: bytes
    end: bytes


class Table(NamedTuple):
    """A file; ``begin`` is its first key, of whichever family, removed or not."""

    name: str
    begin: bytes


Change: TypeAlias = Put | Delete | DeleteRange


class DirectoryInUse(Exception):
    """Another process holds the data directory."""


class DataRefused(Exception):
    """The data directory cannot be opened without losing what was acknowledged, or not by this version."""


class Peeked(NamedTuple):
    """``log_gap``: what recovery did not find of the logs, in words; None: nothing is missing."""

    value: bytes | None
    log_gap: str | None


def peek(directory: Path, family: Family, key: bytes) -> Peeked:
    """A value of the database as an opening for writing would find it, which changes nothing in it. Raises DataRefused.

    Opening for writing drops for good what recovery could not read; so whoever may refuse must look first.
    """
    if not _is_database(directory):
        return Peeked(None, None)
    cache = Cache(BLOCK_CACHE_BYTES)
    name, meta = family.name.lower(), Family.META.name.lower()
    try:
        families = {found: options.options_of(cache) for found in Rdict.list_cf(str(directory), options.options_of(cache))}
        if not families.keys() >= {name, meta}:
            return Peeked(None, None)  # its creation was cut short
        db = Rdict(str(directory), options.options_of(cache), column_families=families, access_type=AccessType.read_only())
        value: bytes | None = db.get_column_family(name).get(key)
        chain = LogChain(_scan(db.get_column_family(meta), log_chain.PREFIX, log_chain.END))
        db.close()
    except Exception as error:
        raise _not_opened(directory, str(error)) from error
    return Peeked(value, chain.gap)


def _not_opened(directory: Path, told: str) -> DataRefused | DiskFull:
    if "no space left" in told.lower():
        return DiskFull(f"the disk is full, so the database in {directory} cannot be opened: free space on it")
    return DataRefused(f"RocksDB cannot open {directory}: {told}")


def _is_database(directory: Path) -> bool:
    """Whether there is one. Raises DataRefused for what RocksDB would take for none, and remove at its second opening."""
    if (directory / "CURRENT").exists():
        return True
    left = [file.name for file in directory.glob("*") if file.suffix in (".sst", ".log")]
    if left:
        raise DataRefused(
            f"{directory} lacks the file CURRENT, and has {len(left)} tables and logs: CURRENT holds the name of the newest"
            " MANIFEST file, and a line feed"
        )
    return False


OWN_FILE = "rocksdict-config.json"  # rocksdict writes it at each opening, for reading too


@contextmanager
def looking_at(directory: Path) -> Generator["Store | None", None, None]:
    """The database for reading, as an opening for writing would find it; None: nothing was ever stored. Raises DataRefused.

    It changes no file in ``directory``, and may lack the right to: what rocksdict writes comes to lie among links to the files.
    """
    with TemporaryDirectory(prefix="rocksmq-") as name:
        links = Path(name)
        for entry in directory.resolve().iterdir() if _is_database(directory) else ():
            if entry.name != OWN_FILE:
                (links / entry.name).symlink_to(entry)
        if not _has_families(links, directory):
            yield None
            return
        store = Store(directory, links)
        try:
            yield store
        finally:
            store.close()


def _has_families(links: Path, directory: Path) -> bool:
    """Whether the creation of the database was not cut short."""
    if not (links / "CURRENT").exists():
        return False
    try:
        found = Rdict.list_cf(str(links), options.options_of(Cache(BLOCK_CACHE_BYTES)))
    except Exception as error:
        told = str(error).replace(str(links), str(directory))
        raise _not_opened(directory, told) from error
    return all(family.name.lower() in found for family in Family)


def _refusal(error: Exception) -> DiskFull | StorageFailed:
    """What a write that RocksDB refused means."""
    if "no space left" in str(error).lower():
        return DiskFull("the broker's disk is full: nothing was stored; free space on it, then it goes on by itself")
    advice = ": a part of it is damaged: stop the broker, and run `rocksmq check` on its data directory"
    return StorageFailed(f"the database refused a write: {error}{advice if 'corruption' in str(error).lower() else ''}")


def _scan(family: Rdict, begin: bytes, end: bytes, *, at_or_before: bool = False) -> Iterator[tuple[bytes, bytes]]:
    """See `Store.scan`. Raises what rocksdict does."""
    reading = ReadOptions()
    reading.set_iterate_upper_bound(end)
    reading.fill_cache(False)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]  # the stub forgets the argument
    entries = family.iter(reading)
    if at_or_before:
        entries.seek_for_prev(begin)
        if not entries.valid():
            entries.status()  # it may be there, and not be readable
            entries.seek(begin)
    else:
        entries.seek(begin)
    while entries.valid():
        yield entries.key(), entries.value()
        entries.next()
    entries.status()


def _closed(handle: Rdict) -> Exception | None:
    """Why it could not be closed, if it could not."""
    try:
        handle.close()
    except Exception as error:
        return error.with_traceback(None)
    return None


class Store:
    """A RocksDB with the families of `Family`.

    Errors: DiskFull (nothing was written; heals by itself) and StorageFailed (written or
    not: unknown; no write succeeds until the store is opened anew).
    """

    def __init__(self, directory: Path, links: Path | None = None) -> None:
        """Open ``directory``, or links to its files for reading only. Raises DirectoryInUse, DataRefused, DiskFull."""
        cache = Cache(BLOCK_CACHE_BYTES)
        self._directory, self._opened = directory, links or directory
        access = AccessType.read_write() if links is None else AccessType.read_only()
        self._disk_piece_bytes = disk_piece_bytes(directory)
        families = {family.name.lower(): in_pieces(options.options_of(cache), self._memtable_bytes) for family in Family}
        whole = in_pieces(options.options_of(cache), self._memtable_bytes)
        try:
            self._db = Rdict(str(self._opened), whole, column_families=families, access_type=access)
        except Exception as error:  # rocksdict raises plain Exception with RocksDB's text
            if "lock hold by" in str(error) or "While lock file" in str(error):
                raise DirectoryInUse(f"another process holds the database in {directory}") from error
            raise _not_opened(directory, self._told(error)) from error
        self._handles = [self._db.get_column_family_handle(f.name.lower()) for f in Family]
        self._families = [self._db.get_column_family(f.name.lower()) for f in Family]
        self._entries = self._figures(ENTRIES)  # of the memtables, as the last write left them
        self._log_end = 0 if links is not None else self._newest_log_bytes()
        self._unsynced_bytes = 0
        self._syncing = Lock()
        self._sync_failure: str | None = None
        self._sync_ahead: Thread | None = None
        self._is_compacting = self._is_stopped = False
        self._chain = LogChain(self.scan(Family.META, log_chain.PREFIX, log_chain.END))

    @property
    def _memtable_bytes(self) -> int:
        return min(MEMTABLE_BYTES, self._disk_piece_bytes)

    def write(self, changes: Iterable[Change]) -> None:
        """Apply ``changes`` in order, all or none. Readable at once; survives kill -9, and a power cut only after `sync`.

        A power cut may take the last writes that were not synced, never one before another that it leaves.
        """
        batch = WriteBatch(raw_mode=True)
        added = [0] * len(Family)
        for change in changes:
            handle = self._handles[change.family]
            added[change.family] += 1
            if isinstance(change, Put):
                batch.put(change.key, change.value, handle)
            elif isinstance(change, Delete):
                batch.delete(change.key, handle)
            else:
                batch.delete_range(change.begin, change.end, handle)
        self._check_synced()
        self._sync_old_logs(self._entries)
        if self._is_log_full():
            self._switch_log()
        added[Family.META] += self._note_log(batch)
        end = end_of_record(self._log_end, batch.size_in_bytes())
        if -end % LOG_BLOCK_BYTES < LOG_HEADER_BYTES:
            end = self._pad(batch)
            added[Family.META] += 1
        try:
            self._db.write(batch)
        except Exception as error:
            raise _refusal(error) from error
        self._chain.written()
        self._unsynced_bytes += end - self._log_end
        self._log_end = end
        self._sync_old_logs([before + more for before, more in zip(self._entries, added, strict=True)])
        if self._unsynced_bytes > UNSYNCED_BYTES_MAX:
            self._begin_sync()

    def _note_log(self, batch: WriteBatch) -> int:
        """Let ``batch`` say which write of which log it is; how many entries that takes."""
        note, handle = self._chain.note(), self._handles[Family.META]
        if note.clears:
            batch.delete_range(log_chain.PREFIX, log_chain.END, handle)
        for key in note.outdated:
            batch.delete(key, handle)
        batch.put(note.key, note.value, handle)
        return note.clears + len(note.outdated) + 1

    @property
    def log_gap(self) -> str | None:
        """What recovery did not find of the database's logs, in words; None: nothing is missing. The next write accepts it."""
        return self._chain.gap

    def _pad(self, batch: WriteBatch) -> int:
        """Let ``batch`` reach into the next block; where it ends.

        So no record begins a block, but for a log's first. If a power cut takes a block, then what follows it begins with
        the rest of a record, and recovery ends there; else it would take the missing block for nothing, and go on.
        """
        batch.delete(PADDING, self._handles[Family.META])
        return end_of_record(self._log_end, batch.size_in_bytes())

    def _is_log_full(self) -> bool:
        """Whether to begin a new log: before RocksDB would, and not while it would make us wait for a compaction."""
        if sum(self._figures("rocksdb.cur-size-active-mem-table")) < self._memtable_bytes * 15 // 16:
            return False
        is_slow = self.figure("actual-delayed-write-rate") or self.figure("is-write-stopped")
        return not is_slow and max(self._figures("rocksdb.num-files-at-level0")) < options.LEVEL0_FILES_SLOW - MEMTABLES_MAX - 1

    def _switch_log(self) -> None:
        """Begin a new log with nothing unsynced in the old one, and give the memtables to be made tables.

        RocksDB does not sync the old one first. Recovery cannot tell a log without its end from a whole one: it would
        go on with the next, and what the power cut took would be missing in the middle.
        """
        self.sync()
        try:
            for family in self._families:  # all of them, or one that holds little keeps its log for long
                family.flush(wait=False)
        except Exception as error:
            raise _refusal(error) from error
        self._entries, self._log_end = self._figures(ENTRIES), self._newest_log_bytes()
        self._chain.begin_log()

    def _sync_old_logs(self, entries: list[int]) -> None:
        """Sync if the memtables do not hold so many: then RocksDB switched its log itself, as a compaction may make it do."""
        found = self._figures(ENTRIES)
        if found != entries:
            self._log_end = self._newest_log_bytes()
            self._chain.begin_log()
            self.sync()
        self._entries = found

    def _begin_sync(self) -> None:
        """Sync in a thread, unless one does, so that little is left to wait for when the log is switched."""
        if self._sync_ahead is None or not self._sync_ahead.is_alive():
            self._sync_ahead = Thread(target=self._sync, name="sync ahead")
            self._sync_ahead.start()

    def _sync(self) -> None:
        """Once a sync has failed none is tried again: the system tells of it only once, and the next would seem to succeed."""
        with self._syncing:
            self._unsynced_bytes = 0
            try:
                if self._sync_failure is None:
                    self._db.flush_wal(True)
            except Exception as error:
                self._sync_failure = f"the database could not sync its log: {error}"

    def _check_synced(self) -> None:
        if self._sync_failure is not None:
            raise StorageFailed(self._sync_failure)

    def sync(self) -> None:
        """Make everything written so far durable (fdatasync of the WAL). Raises StorageFailed."""
        self._sync()
        self._check_synced()

    def get(self, family: Family, key: bytes) -> bytes | None:
        """The value of ``key``. Raises StorageFailed."""
        try:
            value: bytes | None = self._families[family].get(key)
        except Exception as error:
            raise StorageFailed(f"the database could not read: {self._told(error)}") from error
        return value

    def scan(self, family: Family, begin: bytes, end: bytes, *, at_or_before: bool = False) -> Iterator[tuple[bytes, bytes]]:
        """Keys and values from ``begin`` up to, not including, ``end``, in order.

        With ``at_or_before`` it starts one earlier if ``begin`` itself is missing: with the last key before it.
        """
        try:
            yield from _scan(self._families[family], begin, end, at_or_before=at_or_before)
        except Exception as error:
            raise StorageFailed(f"the database could not read: {self._told(error)}") from error

    def compact(self, family: Family, begin: bytes, end: bytes) -> None:
        """Give the disk back what was deleted from ``begin`` to ``end``. Takes seconds. Raises StorageFailed."""
        failed = self.background_errors()  # rocksdict does not tell of them; others' count too
        self._is_compacting = True
        try:
            self._families[family].compact_range(begin, end)
        except Exception as error:
            raise StorageFailed(f"the database could not compact: {error}") from error
        finally:
            self._is_compacting = False
        if self.background_errors() > failed:
            raise StorageFailed("the database could not compact: its own log (LOG in the data directory) says why")

    def stop_compacting(self) -> None:
        """End what `compact` does in another thread, before `close`: then nothing is written any more."""
        if self._is_compacting:
            self._db.cancel_all_background(wait=False)
            self._is_stopped = True

    def checkpoint(self, target: Path) -> None:
        """Make the directory ``target``, on the same file system: the database as a kill -9 now would leave it.

        All that was written before is in it, as hard links where it does not change any more: the files stay on the disk
        until ``target`` is removed. Nothing waits for it; it may run in a thread. Raises DiskFull, StorageFailed.
        """
        try:
            link_live_files(self._directory, target)
        except (OSError, NeverStill) as error:
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise DiskFull("the disk is full: there is no room to begin a backup; free space on it") from error
            raise StorageFailed(f"a checkpoint of the database could not be made: {error}") from error

    def tables(self) -> list[Table]:
        """Of which the database consists, but for what its memtables hold."""
        return [Table(str(found["name"]).lstrip("/"), bytes(found["start_key"])) for found in self._db.live_files()]

    def figure(self, name: str, family: Family = Family.META) -> int:
        """A property of RocksDB's by its name without ``rocksdb.``, of a family; for those of the whole database, any does."""
        return self._families[family].property_int_value(f"rocksdb.{name}") or 0

    def background_errors(self) -> int:
        """Flushes and compactions that failed; RocksDB counts those of all families with the default one."""
        return self._db.property_int_value("rocksdb.background-errors") or 0

    def _figures(self, name: str) -> list[int]:
        """A property by its whole name, of each family."""
        return [family.property_int_value(name) or 0 for family in self._families]

    def owed_bytes(self) -> int:
        """What it may have to write before it can delete anything, about.

        Memtables become tables; those of level 0 are merged with the next level as a whole, which is larger after much was.
        """
        memtables = sum(self._figures("rocksdb.cur-size-all-mem-tables"))
        tables = max(self._figures("rocksdb.num-files-at-level0")) + LEVEL_PIECES
        behind = min(max(self._figures("rocksdb.estimate-pending-compaction-bytes")), OWED_PIECES_MAX * self._memtable_bytes)
        return memtables + max(tables * self._memtable_bytes, behind)

    def log_bytes(self) -> int:
        """Of the files of the write-ahead log."""
        total = 0
        with scandir(self._directory) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):  # RocksDB has just deleted it
                    total += entry.stat().st_size if entry.name.endswith(".log") else 0
        return total

    def _newest_log_bytes(self) -> int:
        """How long the log is that is written to."""
        newest = max(self._directory.glob("*.log"), key=lambda log: int(log.stem), default=None)
        return newest.stat().st_size if newest else 0

    def _told(self, error: Exception) -> str:
        """RocksDB's text, with the files named by where they are."""
        return str(error).replace(str(self._opened), str(self._directory))

    def close(self) -> None:
        """Give the database up. RocksDB lets go of it once its last handle is gone."""
        if self._sync_ahead is not None:
            self._sync_ahead.join()
        self._handles.clear()
        failure = None
        while self._families:
            failure = _closed(self._families.pop()) or failure
        failure = _closed(self._db) or failure
        del self._db
        if (
            failure is not None and not self._is_stopped
        ):  # a write failed; what was synced is safe, and nothing else can be saved
            logger.error("the database did not close cleanly: %s", self._told(failure))
