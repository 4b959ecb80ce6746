"""A table's blocks: each byte of it is covered, whoever wants what is in it."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rocksmq.broker.store import DeleteRange, Family, Put, Store
from rocksmq.broker.tables import damage

PLACES = 1_000  # of a large table


def random_text(number: int) -> bytes:
    return os.urandom(100)


def equal_text(number: int) -> bytes:
    return b"x" * 100_000


def large(number: int) -> bytes:
    return os.urandom(1 << 20)


@pytest.fixture(
    params=[(5, random_text), (20_000, random_text), (300, equal_text), (8, large)], ids=["few", "many", "equal", "large"]
)
def table(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """One with batches, some of which were removed."""
    count: int
    payload: Callable[[int], bytes]
    count, payload = request.param
    store = Store(tmp_path)
    store.write([Put(Family.DATA, number.to_bytes(16, "big"), payload(number)) for number in range(count)])
    store.write([DeleteRange(Family.DATA, bytes(16), (3).to_bytes(16, "big"))])
    store._families[Family.DATA].flush()  # pyright: ignore[reportPrivateUsage]
    (found,) = store.tables()
    store.close()
    return tmp_path / found.name


def changed(table: Path) -> Iterator[tuple[int, Path]]:
    """The table with one bit flipped, in many places."""
    content = bytearray(table.read_bytes())
    copy = table.with_name("copy")
    for place in range(0, len(content), max(1, len(content) // PLACES)):
        content[place] ^= 1 << place % 8
        copy.write_bytes(content)
        yield place, copy
        content[place] ^= 1 << place % 8


def test_given_a_table_when_nothing_is_wrong_then_nothing_is_told(table: Path) -> None:
    assert not list(damage(table))


def test_given_a_table_when_a_bit_of_it_is_flipped_then_it_is_told_where(table: Path) -> None:
    size = table.stat().st_size
    for place, copy in changed(table):
        found = list(damage(copy))
        assert found, place
        assert all(0 <= told.offset <= size and str(table) not in told.what for told in found)


def test_given_a_table_when_its_end_is_missing_then_it_is_told(table: Path) -> None:
    content = table.read_bytes()
    copy = table.with_name("copy")
    for size in (0, 1, 52, 53, len(content) // 2, len(content) - 53, len(content) - 1):
        copy.write_bytes(content[:size])
        assert list(damage(copy)), size


def test_given_a_table_when_a_piece_of_it_is_missing_then_it_is_told(table: Path) -> None:
    content = table.read_bytes()
    copy = table.with_name("copy")
    for begin in range(0, len(content) - 64, max(1, len(content) // 50)):
        copy.write_bytes(content[:begin] + content[begin + 64 :])
        assert list(damage(copy)), begin
