"""When the store's log is synced and another one begun: before RocksDB would, and with nothing unsynced left behind."""

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from rocksdict import Rdict, WriteBatch

from rocksmq.broker.store import Change, Delete, DeleteRange, Family, Put, Store
from rocksmq.broker.store_options import MIB
from rocksmq.protocol.errors import DiskFull, StorageFailed
from tests.helpers.model_systems import copy_as_killed

DATA, META = Family.DATA, Family.META
FULL = "IO error: No space left on device"
BROKEN = "IO error: Input/output error"
SEED = int(os.environ.get("TEST_SEED", "7660"))
FULL_BYTES = 64 * MIB  # more than a test writes
BLOCK_BYTES = 32 * 1024
WHOLE_BLOCK = 32_735  # a value that fills one, with a key of 8 bytes and what RocksDB adds


def fail(message: str) -> None:
    raise Exception(message)  # what rocksdict raises


class Database:
    """A RocksDB that notes its newest log at each sync; syncs, flushes and writes fail or do more when a test says so."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.syncs: list[str] = []
        self.sync_begun = threading.Event()
        self.on_sync: Callable[[], None] = lambda: None
        self.on_flush: Callable[[], None] = lambda: None
        self.on_write: Callable[[], None] = lambda: None

    def open(self, *arguments: Any, **options: Any) -> "Database":
        self._db = Rdict(*arguments, **options)
        return self

    @property
    def log(self) -> str:
        """The newest."""
        return max(file.name for file in self.directory.glob("*.log"))

    def flush_wal(self, sync: bool) -> None:
        self.syncs.append(self.log)
        self.sync_begun.set()
        self.on_sync()
        self._db.flush_wal(sync)

    def write(self, batch: WriteBatch) -> None:
        self.on_write()
        self._db.write(batch)

    def switch_log(self) -> None:
        """As RocksDB may by itself."""
        for family in Family:
            self._db.get_column_family(family.name.lower()).flush()

    def get_column_family(self, name: str) -> "Table":
        return Table(self, self._db.get_column_family(name))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._db, name)


class Table:
    """A family of the database."""

    def __init__(self, database: Database, family: Rdict) -> None:
        self._database, self._family = database, family

    def flush(self, wait: bool) -> None:
        self._database.on_flush()
        self._family.flush(wait)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._family, name)


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Database:
    """Of the store."""
    opened = Database(tmp_path / "data" / "db")
    opened.directory.parent.mkdir()
    monkeypatch.setattr("rocksmq.broker.store.Rdict", opened.open)
    return opened


@pytest.fixture
def store(database: Database, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """RocksDB's memtables are full at 64 MiB; the store takes them for full at 1 MiB."""
    opened = Store(database.directory)
    monkeypatch.setattr("rocksmq.broker.store.MEMTABLE_BYTES", MIB)
    yield opened
    opened.close()


def fill(store: Store) -> None:
    """The memtable and the log, with one write."""
    store.write([Put(DATA, b"full", os.urandom(2 * MIB))])


def test_given_a_full_log_when_written_then_it_is_synced_before_another_is_begun(store: Store, database: Database) -> None:
    old = database.log
    fill(store)
    assert (database.syncs, database.log) == ([], old)
    store.write([Put(DATA, b"a", b"1")])
    assert database.syncs == [old]
    assert database.log > old
    assert store.get(DATA, b"full") is not None
    assert store.get(DATA, b"a") == b"1"


def test_given_a_full_log_that_cannot_be_synced_when_written_then_no_other_is_begun(store: Store, database: Database) -> None:
    old = database.log
    fill(store)
    database.on_sync = lambda: fail(FULL)
    with pytest.raises(StorageFailed):
        store.write([Put(DATA, b"a", b"1")])
    assert database.log == old
    assert store.get(DATA, b"a") is None


@pytest.mark.parametrize(("message", "error"), [(FULL, DiskFull), (BROKEN, StorageFailed)])
def test_given_no_other_log_can_be_begun_when_written_then_nothing_is_stored_and_a_full_disk_heals(
    store: Store, database: Database, message: str, error: type[Exception]
) -> None:
    fill(store)
    database.on_flush = lambda: fail(message)
    with pytest.raises(error) as refused:
        store.write([Put(DATA, b"a", b"1")])
    assert type(refused.value) is error
    assert store.get(DATA, b"a") is None
    database.on_flush = lambda: None
    store.write([Put(DATA, b"a", b"1")])
    assert store.get(DATA, b"a") == b"1"


def test_given_tables_that_wait_for_compaction_when_the_log_is_full_then_it_goes_on_without_waiting(
    store: Store, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rocksmq.broker.store_options.LEVEL0_FILES_SLOW", 0)
    old = database.log
    fill(store)
    store.write([Put(DATA, b"a", b"1")])
    assert (database.syncs, database.log) == ([], old)


def test_given_a_compaction_that_switched_the_log_when_written_then_the_old_one_is_synced_first(
    store: Store, database: Database
) -> None:
    old = database.log
    changes: list[Change] = [Put(DATA, b"a", b"1"), Put(DATA, b"a", b"2"), Put(META, b"a", b"3"), Delete(META, b"b")]
    store.write([*changes, DeleteRange(DATA, b"b", b"c")])
    assert database.syncs == []
    store.compact(DATA, b"a", b"z")
    new = database.log
    assert new > old
    found: list[bytes | None] = []
    database.on_sync = lambda: found.append(store.get(META, b"c"))
    store.write([*changes, Put(META, b"c", b"4")])
    assert (database.syncs, found) == ([new], [None])
    store.write(changes)
    assert database.syncs == [new]


def test_given_rocksdb_switches_the_log_while_it_writes_when_written_then_the_old_one_is_synced_at_once(
    store: Store, database: Database
) -> None:
    store.write([Put(DATA, b"a", b"1"), Put(META, b"a", b"1")])
    database.on_write = database.switch_log
    store.write([Put(DATA, b"a", b"2"), Put(META, b"a", b"2")])
    assert database.syncs == [database.log]
    database.on_write = lambda: None
    store.write([Put(DATA, b"a", b"2"), Put(META, b"a", b"2")])
    assert database.syncs == [database.log]


def test_given_much_that_is_unsynced_when_written_then_a_sync_begins_in_a_thread_and_its_failure_is_told(
    store: Store, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rocksmq.broker.store.MEMTABLE_BYTES", FULL_BYTES)
    go_on = threading.Event()

    def fail_late() -> None:
        assert go_on.wait(30)
        fail(BROKEN)

    database.on_sync = fail_late
    for number in range(9):
        store.write([Put(DATA, b"%d" % number, os.urandom(MIB))])
    assert database.sync_begun.wait(30)
    store.write([Put(DATA, b"a", b"1")])
    go_on.set()
    with pytest.raises(StorageFailed, match=BROKEN):
        store.sync()
    assert len(database.syncs) == 1, "another would seem to succeed"


def untouched(store: Store, database: Database) -> int:
    """The log is empty."""
    return FULL_BYTES


def filled(store: Store, database: Database) -> int:
    """The next write begins another log."""
    fill(store)
    return MIB


def compacted(store: Store, database: Database) -> int:
    """Another log was begun."""
    store.write([Put(DATA, b"a", b"1")])
    store.compact(DATA, b"a", b"z")
    return FULL_BYTES


def switching(store: Store, database: Database) -> int:
    """RocksDB begins another log with the next write."""
    store.write([Put(DATA, b"a", b"1")])
    database.on_write = database.switch_log
    return FULL_BYTES


@pytest.mark.parametrize("before", [untouched, filled, compacted, switching])
@pytest.mark.parametrize("less", [0, 1, 6, 7])
def test_given_records_that_end_where_a_block_does_when_one_is_lost_then_what_follows_is_not_found(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch, less: int, before: Callable[[Store, Database], int]
) -> None:
    store = Store(database.directory)
    monkeypatch.setattr("rocksmq.broker.store.MEMTABLE_BYTES", before(store, database))
    for number in range(5):
        store.write([Put(DATA, b"%08d" % number, b"x" * (WHOLE_BLOCK - less))])
        monkeypatch.setattr("rocksmq.broker.store.MEMTABLE_BYTES", FULL_BYTES)
        database.on_write = lambda: None
    torn = tmp_path / "torn"
    copy_as_killed(database.directory.parent, torn)
    store.close()
    log = max(torn.glob("db/*.log"))
    content = bytearray(log.read_bytes())
    content[BLOCK_BYTES : 2 * BLOCK_BYTES] = bytes(BLOCK_BYTES)
    log.write_bytes(content)
    opened = Store(torn / "db")
    assert [key for key, _ in opened.scan(DATA, b"0", b"9")] in ([], [b"%08d" % 0]), "the first may reach into it"
    opened.close()


def test_given_small_and_large_records_when_written_then_none_begins_a_block_but_the_log_s_first(database: Database) -> None:
    random, store = Random(SEED), Store(database.directory)
    for number in range(20_000):
        size = random.randrange(100_000) if number % 500 == 0 else random.randrange(40)
        store.write([Put(DATA, b"%d" % number, bytes(size)), Put(META, b"a", b"1")])
    kinds = (database.directory / database.log).read_bytes()[6::BLOCK_BYTES]
    store.close()
    assert len(kinds) > 90
    assert kinds[0] in (1, 2), "whole, or the first piece of a record"
    assert set(kinds[1:]) <= {3, 4}, "a middle or the last piece"
