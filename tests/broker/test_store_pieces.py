"""A database on a small disk: it works in pieces, and says what it may have to write before it can delete anything."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from rocksmq.broker.store import Family, Put, Store
from rocksmq.broker.store_options import LEVEL_PIECES
from tests.helpers.ledger import wait_until

from .disk_support import table_sizes

MIB = 1 << 20
PIECE = 4 * MIB
VALUE = os.urandom(64 * 1024)


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A store on a disk of 256 MiB, as far as it knows."""

    def piece(directory: Path) -> int:
        return PIECE

    monkeypatch.setattr("rocksmq.broker.store.disk_piece_bytes", piece)
    store = Store(tmp_path / "db")
    yield store
    store.close()


def fill(store: Store, size: int) -> None:
    """In two places by turns, so that no table can be moved down as it is."""
    for number in range(size // len(VALUE)):
        store.write([Put(Family.DATA, bytes([number % 2]) + number.to_bytes(8, "big"), VALUE)])


def test_given_a_small_disk_when_much_is_written_then_tables_are_two_pieces_at_most(small: Store, tmp_path: Path) -> None:
    database = tmp_path / "db"
    fill(small, 40 * MIB)
    wait_until(lambda: sum(table_sizes(database)) > 20 * MIB, "there are tables")
    wait_until(lambda: small.figure("num-files-at-level0", Family.DATA) < 4, "they are merged")
    passing = len(VALUE) + MIB // 16  # the value that makes it twice as large ends it, at the latest; then comes the index
    assert max(table_sizes(database)) < 2 * PIECE + passing


def test_given_a_memtable_when_asked_what_is_owed_then_it_and_the_level_that_is_rewritten_are(small: Store) -> None:
    assert small.owed_bytes() < (LEVEL_PIECES + 1) * PIECE
    before = small.owed_bytes()
    fill(small, 3 * MIB)
    assert small.owed_bytes() - before >= 3 * MIB


def test_given_tables_that_are_not_merged_yet_when_asked_what_is_owed_then_each_is(small: Store) -> None:
    fill(small, 2 * PIECE)
    wait_until(lambda: small.figure("num-files-at-level0", Family.DATA) >= 1, "a memtable became a table")
    files = small.figure("num-files-at-level0", Family.DATA)
    memtables = sum(small.figure("cur-size-all-mem-tables", family) for family in Family)
    assert small.owed_bytes() == memtables + (LEVEL_PIECES + files) * PIECE
