"""Links to the files of a database in use: whatever it does meanwhile, they are one state of it, with all written before."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from rocksmq.broker import live_links, store
from rocksmq.broker.live_links import NeverStill, link_live_files
from rocksmq.broker.store import Family, Put, Store, looking_at
from rocksmq.protocol.errors import DiskFull, StorageFailed

NUMBER = b"!commit"
END = b"\xff" * 17


def key(number: int) -> bytes:
    return number.to_bytes(16, "big")


def write(database: Store, first: int, last: int, size: int = 100) -> None:
    """Entries ``first`` to ``last``, a write each, with its number in the other family."""
    for number in range(first, last + 1):
        database.write([Put(Family.DATA, key(number), b"x" * size), Put(Family.META, NUMBER, key(number))])


def last_in(directory: Path) -> int:
    """The number that a database has; its entries are those up to it, without a hole."""
    with looking_at(directory) as found:
        assert found is not None
        number = found.get(Family.META, NUMBER)
        assert number is not None
        last = int.from_bytes(number, "big")
        assert [int.from_bytes(at, "big") for at, _ in found.scan(Family.DATA, b"", END)] == list(range(1, last + 1))
        assert {table.name for table in found.tables()} <= {file.name for file in directory.iterdir()}
        return last


@pytest.fixture
def database(tmp_path: Path) -> Store:
    """With tables, and a log."""
    made = Store(tmp_path / "db")
    write(made, 1, 100)
    made.compact(Family.DATA, b"", END)
    write(made, 101, 200)
    return made


def between(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object], *, before_first: bool) -> list[int]:
    """Act once, before or behind the first look at the files; the number of looks."""
    looks: list[int] = []
    link_new = live_links._link_new  # pyright: ignore[reportPrivateUsage]

    def looked(source: Path, target: Path, linked: set[str]) -> set[str]:
        looks.append(len(linked))
        if before_first and len(looks) == 1:
            act()
        new = link_new(source, target, linked)
        if not before_first and len(looks) == 1:
            act()
        return new

    monkeypatch.setattr(live_links, "_link_new", looked)
    return looks


def test_given_tables_and_a_log_when_linked_then_all_that_was_written_is_in_it(database: Store, tmp_path: Path) -> None:
    database.checkpoint(tmp_path / "links")
    assert last_in(tmp_path / "links") == 200
    assert (tmp_path / "links").stat().st_mode & 0o777 == 0o700
    tables = list((tmp_path / "links").glob("*.sst"))
    assert tables
    assert all(table.stat().st_nlink == 2 for table in tables)
    database.close()


def test_given_a_database_that_goes_on_when_its_links_are_read_later_then_what_was_there_is_there_still(
    database: Store, tmp_path: Path
) -> None:
    database.checkpoint(tmp_path / "links")
    write(database, 201, 300)
    for _ in range(2):
        database.compact(Family.DATA, b"", END)
        write(database, 301, 301)
    assert 200 <= last_in(tmp_path / "links") <= 300
    database.close()


def test_given_tables_that_are_replaced_before_they_are_linked_when_linked_then_it_is_done_again(
    database: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = between(monkeypatch, lambda: database.compact(Family.DATA, b"", END), before_first=True)
    database.checkpoint(tmp_path / "links")
    assert last_in(tmp_path / "links") == 200
    assert len(looks) > 2
    database.close()


def test_given_a_log_that_appears_during_the_look_when_linked_then_it_is_there_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = imitated(tmp_path)
    between(monkeypatch, lambda: (source / "000009.log").write_bytes(b"new"), before_first=False)
    link_live_files(source, tmp_path / "links")
    assert sorted(file.name for file in (tmp_path / "links").iterdir()) == [
        *("000004.log", "000007.sst", "000009.log", "CURRENT", "MANIFEST-000005"),
    ]


def imitated(tmp_path: Path) -> Path:
    """Files that look like a database."""
    source = tmp_path / "db"
    source.mkdir()
    for name, content in {"CURRENT": "MANIFEST-000005\n", "MANIFEST-000005": "edits", "000004.log": "", "LOCK": ""}.items():
        (source / name).write_text(content)
    (source / "000007.sst").write_text("table")
    return source


def test_given_a_manifest_that_grew_behind_the_look_when_linked_then_the_copy_is_of_its_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = imitated(tmp_path)
    look = live_links._manifest  # pyright: ignore[reportPrivateUsage]
    looks = 0

    def grown(source: Path) -> object:
        nonlocal looks
        looks += 1
        found = look(source)
        if looks == 2:
            (source / "MANIFEST-000005").write_text("edits, and more")
        return found

    monkeypatch.setattr(live_links, "_manifest", grown)
    link_live_files(source, tmp_path / "links")
    assert (tmp_path / "links" / "MANIFEST-000005").read_text() == "edits"
    assert (tmp_path / "links" / "CURRENT").read_text() == "MANIFEST-000005\n"


def test_given_another_manifest_meanwhile_when_linked_then_it_is_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = imitated(tmp_path)

    def replace() -> None:
        (source / "MANIFEST-000008").write_text("other")
        (source / "CURRENT").write_text("MANIFEST-000008\n")
        (source / "MANIFEST-000005").unlink()

    between(monkeypatch, replace, before_first=True)
    link_live_files(source, tmp_path / "links")
    assert (tmp_path / "links" / "MANIFEST-000008").read_text() == "other"
    assert not (tmp_path / "links" / "MANIFEST-000005").exists()


def test_given_a_manifest_that_grows_all_the_time_when_linked_then_it_ends_with_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = imitated(tmp_path)
    monkeypatch.setattr(live_links, "ATTEMPTS_MAX", 3)

    def grow(source: Path, target: Path, linked: set[str]) -> set[str]:
        with (source / "MANIFEST-000005").open("a") as manifest:
            manifest.write("edit")
        return set()

    monkeypatch.setattr(live_links, "_link_new", grow)
    with pytest.raises(NeverStill, match="is never still"):
        link_live_files(source, tmp_path / "links")


@pytest.mark.parametrize(("error", "kind"), [(OSError(28, "No space"), DiskFull), (OSError(5, "I/O error"), StorageFailed)])
def test_given_a_disk_that_fails_when_a_checkpoint_is_made_then_the_error_says_so(
    database: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError, kind: type[Exception]
) -> None:
    def fail(source: Path, target: Path) -> None:
        raise error

    monkeypatch.setattr(store, "link_live_files", fail)
    with pytest.raises(kind):
        database.checkpoint(tmp_path / "links")
    database.close()


def test_given_writes_flushes_and_compactions_when_linked_again_and_again_then_each_is_whole_up_to_some_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "MEMTABLE_BYTES", 256 << 10)
    database = Store(tmp_path / "db")
    written = 0
    stop = threading.Event()

    def load() -> None:
        nonlocal written
        while not stop.is_set():
            write(database, written + 1, written + 1, 20_000)
            written += 1

    loading = threading.Thread(target=load)
    loading.start()
    least: list[int] = []
    try:
        for index in range(20):
            goal = written + 30
            while written < goal:
                pass
            least.append(written)
            database.checkpoint(tmp_path / f"links-{index}")
    finally:
        stop.set()
        loading.join()
    database.close()
    for index, number in enumerate(least):
        assert last_in(tmp_path / f"links-{index}") >= number
