"""The store over a real RocksDB: atomic writes, scans, space given back, errors told apart."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from rocksmq.broker.keys import batch_key, channel_span
from rocksmq.broker.store import DataRefused, Delete, DeleteRange, DirectoryInUse, Family, Put, Store, looking_at
from rocksmq.protocol.errors import DiskFull, StorageFailed

from .disk_support import table_sizes

DATA, META = Family.DATA, Family.META


def keys_of(store: Store, begin: bytes, end: bytes, *, at_or_before: bool = False) -> list[bytes]:
    return [key for key, _ in store.scan(DATA, begin, end, at_or_before=at_or_before)]


def test_given_changes_when_written_then_they_apply_in_order_each_in_its_family(store: Store) -> None:
    store.write([Put(DATA, b"a", b"1"), Put(META, b"a", b"2"), Put(DATA, b"b", b""), Put(DATA, b"c", b"3")])
    assert store.get(DATA, b"a") == b"1"
    assert store.get(META, b"a") == b"2"
    assert store.get(DATA, b"b") == b""
    assert store.get(META, b"b") is None
    store.write([Put(DATA, b"d", b"4"), DeleteRange(DATA, b"a", b"c"), Put(DATA, b"b", b"5"), Delete(DATA, b"c")])
    assert [store.get(DATA, key) for key in (b"a", b"b", b"c", b"d")] == [None, b"5", None, b"4"]
    assert store.get(META, b"a") == b"2"


def test_given_a_scan_when_bounded_then_it_holds_the_begin_and_not_the_end(store: Store) -> None:
    store.write([Put(DATA, key, b"") for key in (b"a", b"b", b"c", b"d")])
    assert keys_of(store, b"b", b"d") == [b"b", b"c"]
    assert keys_of(store, b"aa", b"z") == [b"b", b"c", b"d"]
    assert keys_of(store, b"x", b"z") == []


def test_given_a_scan_at_or_before_when_its_begin_is_missing_then_it_starts_with_the_key_before(store: Store) -> None:
    store.write([Put(DATA, key, b"") for key in (b"b", b"d", b"f")])
    assert keys_of(store, b"e", b"z", at_or_before=True) == [b"d", b"f"]
    assert keys_of(store, b"d", b"z", at_or_before=True) == [b"d", b"f"]
    assert keys_of(store, b"a", b"z", at_or_before=True) == [b"b", b"d", b"f"]
    assert keys_of(store, b"y", b"z", at_or_before=True) == [b"f"]


def test_given_a_written_store_when_opened_again_then_everything_is_there(tmp_path: Path) -> None:
    first = Store(tmp_path / "db")
    first.write([Put(DATA, b"a", b"1"), Put(META, b"b", b"2")])
    first.sync()
    first.close()
    second = Store(tmp_path / "db")
    assert (second.get(DATA, b"a"), second.get(META, b"b")) == (b"1", b"2")
    second.close()


def test_given_a_store_that_is_open_when_opened_again_then_it_is_refused(store: Store, tmp_path: Path) -> None:
    with pytest.raises(DirectoryInUse):
        Store(tmp_path / "db")


@pytest.mark.parametrize(
    "message", ["Corruption: block checksum mismatch: stored = 1", "Corruption: bad magic", "IO error: Input/output error"]
)
def test_given_a_database_that_is_damaged_when_opened_then_it_is_refused_and_not_taken_for_one_in_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, message: str
) -> None:
    monkeypatch.setattr("rocksmq.broker.store.Rdict", Broken(message).open)
    with pytest.raises(DataRefused, match=message):
        Store(tmp_path / "db")


def test_given_something_else_in_its_place_when_opened_then_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "db").write_text("a file")
    with pytest.raises(DataRefused):
        Store(tmp_path / "db")


def test_given_a_log_that_is_damaged_in_the_middle_when_opened_then_it_never_shows_wrong_bytes(tmp_path: Path) -> None:
    first = Store(tmp_path / "db")
    for number in range(100):
        first.write([Put(DATA, batch_key(1, number), b"%03d" % number * 100)])
    first.sync()
    shutil.copytree(tmp_path / "db", tmp_path / "killed")
    first.close()
    log = max((tmp_path / "killed").glob("*.log"), key=lambda file: file.stat().st_size)
    content = bytearray(log.read_bytes())
    content[len(content) // 2] ^= 0xFF
    log.write_bytes(content)
    try:
        second = Store(tmp_path / "killed")
    except DataRefused:
        return
    found = list(second.scan(DATA, *channel_span(1)))
    assert found == [(batch_key(1, number), b"%03d" % number * 100) for number in range(len(found))]
    second.close()


def test_given_a_destroyed_span_when_compacted_then_the_disk_gets_its_bytes_back_and_neighbours_stay(tmp_path: Path) -> None:
    store, megabyte = Store(tmp_path / "db"), os.urandom(1 << 20)
    for number in range(8):
        store.write([Put(DATA, batch_key(channel, number), megabyte) for channel in (1, 2)])
    store.compact(DATA, *channel_span(1))
    store.compact(DATA, *channel_span(2))
    assert sum(table_sizes(tmp_path / "db")) >= 16 << 20
    store.write([DeleteRange(DATA, *channel_span(1))])
    store.compact(DATA, *channel_span(1))
    assert sum(table_sizes(tmp_path / "db")) < 9 << 20
    assert keys_of(store, *channel_span(1)) == []
    assert len(keys_of(store, *channel_span(2))) == 8
    store.close()


class Broken:
    """A database whose every call fails as RocksDB does."""

    def __init__(self, message: str) -> None:
        self.message = message

    def __getattr__(self, name: str) -> Any:
        def fail(*args: Any, **options: Any) -> None:
            raise Exception(self.message)  # what rocksdict raises

        return fail


@pytest.mark.parametrize(
    ("message", "error"),
    [
        ("IO error: No space left on device: While appending to file: 000005.log", DiskFull),
        ("IO error: no space left on device", DiskFull),
        ("Corruption: block checksum mismatch", StorageFailed),
        ("IO error: Input/output error", StorageFailed),
    ],
)
def test_given_a_database_that_refuses_when_written_then_a_full_disk_is_told_from_a_broken_one(
    store: Store, monkeypatch: pytest.MonkeyPatch, message: str, error: type[Exception]
) -> None:
    monkeypatch.setattr(store, "_db", Broken(message))
    with pytest.raises(error) as refused:
        store.write([Put(DATA, b"a", b"1")])
    assert type(refused.value) is error
    monkeypatch.undo()


@pytest.mark.parametrize("message", ["IO error: No space left on device", "IO error: Input/output error"])
def test_given_a_sync_that_fails_when_made_then_even_a_full_disk_is_a_failed_store(
    store: Store, monkeypatch: pytest.MonkeyPatch, message: str
) -> None:
    monkeypatch.setattr(store, "_db", Broken(message))
    with pytest.raises(StorageFailed):
        store.sync()
    monkeypatch.undo()


def test_given_a_sync_that_failed_when_anything_follows_then_none_succeeds(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(store, "_db", Broken("IO error: Input/output error"))
        with pytest.raises(StorageFailed):
            store.sync()
    with pytest.raises(StorageFailed, match="Input/output error"):
        store.sync()
    with pytest.raises(StorageFailed, match="Input/output error"):
        store.write([Put(DATA, b"a", b"1")])
    assert store.get(DATA, b"a") is None


def test_given_reads_that_fail_when_made_then_the_store_has_failed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "_families", [Broken("Corruption: bad block")] * len(Family))
    with pytest.raises(StorageFailed, match="bad block"):
        store.get(DATA, b"a")
    with pytest.raises(StorageFailed, match="bad block"):
        list(store.scan(DATA, b"a", b"b"))
    monkeypatch.undo()


def test_given_a_store_when_looked_at_then_it_reads_as_an_opening_would_and_no_file_is_touched(tmp_path: Path) -> None:
    first = Store(tmp_path / "db")
    first.write([Put(DATA, b"a", b"1"), Put(META, b"b", b"2")])
    first.sync()
    shutil.copytree(tmp_path / "db", tmp_path / "killed")
    first.close()
    before = {entry: (entry.stat().st_mtime_ns, entry.read_bytes()) for entry in (tmp_path / "killed").iterdir()}
    with looking_at(tmp_path / "killed") as store:
        assert store is not None
        assert (store.get(DATA, b"a"), store.get(META, b"b")) == (b"1", b"2")
        assert list(store.scan(DATA, b"", b"z")) == [(b"a", b"1")]
        with pytest.raises(StorageFailed):
            store.write([Put(DATA, b"c", b"3")])
    assert {entry: (entry.stat().st_mtime_ns, entry.read_bytes()) for entry in (tmp_path / "killed").iterdir()} == before


def test_given_no_database_yet_when_looked_at_then_there_is_none(tmp_path: Path) -> None:
    with looking_at(tmp_path / "db") as store:
        assert store is None
    assert not (tmp_path / "db").exists()


def test_given_a_missing_catalogue_when_looked_at_then_it_is_refused_by_the_name_of_the_directory(tmp_path: Path) -> None:
    Store(tmp_path / "db").close()
    (manifest,) = (tmp_path / "db").glob("MANIFEST-*")
    manifest.unlink()
    with pytest.raises(DataRefused, match=f"RocksDB cannot open {tmp_path}/db"), looking_at(tmp_path / "db"):
        pass
