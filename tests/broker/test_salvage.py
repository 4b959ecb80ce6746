"""Reading on behind damaged blocks: all that can be read is found, also what lies between two of them."""

import os
from itertools import combinations
from pathlib import Path

import pytest

from rocksmq.broker import keys
from rocksmq.broker.salvage import Unread, entries
from rocksmq.broker.store import Family, Put, Store

NUMBER, COUNT, STEP = 5, 12, 1_000
VALUES = [os.urandom(40 * 1024) for _ in range(COUNT)]  # each has a block of its own
SPAN = keys.channel_span(NUMBER)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with a table of entries whose ids are STEP apart."""
    path = tmp_path_factory.mktemp("salvage") / "db"
    store = Store(path)
    store.write([Put(Family.DATA, keys.batch_key(NUMBER, (index + 1) * STEP), value) for index, value in enumerate(VALUES)])
    store._families[Family.DATA].flush()  # pyright: ignore[reportPrivateUsage]
    store.close()
    return path


@pytest.mark.parametrize("damaged", [*combinations(range(COUNT), 1), *combinations(range(COUNT), 2), (1, 3, 5), (2, 3, 8, 10)])
def test_given_damaged_blocks_when_read_then_every_other_entry_is_there_and_each_hole_is_told(
    whole: Path, damaged: tuple[int, ...]
) -> None:
    (table,) = [file for file in whole.glob("*.sst") if VALUES[0] in file.read_bytes()]
    content = table.read_bytes()
    broken = bytearray(content)
    for index in damaged:
        broken[content.index(VALUES[index]) + 100] ^= 1
    table.write_bytes(broken)
    store = Store(whole)
    try:
        found = list(entries(store, *SPAN))
    finally:
        store.close()
        table.write_bytes(content)
    read = [entry[1] for entry in found if not isinstance(entry, Unread)]
    assert read == [value for index, value in enumerate(VALUES) if index not in damaged]
    holes = sum(index - 1 not in damaged for index in damaged)
    assert sum(isinstance(entry, Unread) for entry in found) == holes
