"""The durable mark: the highest whole slot counts, and one torn write never loses it."""

from pathlib import Path

import pytest

from rocksmq.broker.mark import SLOT_BYTES, SLOTS, MarkFile
from rocksmq.broker.store import DataRefused


def reopened(path: Path) -> int:
    mark = MarkFile(path)
    mark.close()
    return mark.number


def overwrite(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def test_given_a_new_mark_when_opened_again_then_it_holds_its_first_number(tmp_path: Path) -> None:
    MarkFile.create(tmp_path / "mark", 17).close()
    assert reopened(tmp_path / "mark") == 17
    assert (tmp_path / "mark").stat().st_size == SLOTS * SLOT_BYTES


def test_given_an_interrupted_making_when_made_again_then_it_is_whole(tmp_path: Path) -> None:
    (tmp_path / "mark.new").write_bytes(b"torn")
    MarkFile.create(tmp_path / "mark", 3).close()
    assert reopened(tmp_path / "mark") == 3
    assert [entry.name for entry in tmp_path.iterdir()] == ["mark"]


@pytest.mark.parametrize("number", [0, 1, 16])
def test_given_a_mark_when_reset_then_no_slot_keeps_a_higher_number(tmp_path: Path, number: int) -> None:
    mark = MarkFile.create(tmp_path / "mark", 17)
    mark.write(18)
    mark.reset(number)
    mark.close()
    assert reopened(tmp_path / "mark") == number


def test_given_numbers_written_when_opened_again_each_time_then_the_last_one_counts(tmp_path: Path) -> None:
    path = tmp_path / "mark"
    mark = MarkFile.create(path)
    for number in (1, 2, 5, 1 << 40, (1 << 64) - 1):
        mark.write(number)
        assert mark.number == number
        assert reopened(path) == number
    mark.close()


def test_given_a_mark_opened_again_when_written_then_the_newest_slot_is_spared(tmp_path: Path) -> None:
    path = tmp_path / "mark"
    MarkFile.create(path).close()
    for number in range(1, 6):
        before = path.read_bytes()
        mark = MarkFile(path)
        mark.write(number)
        mark.close()
        after = path.read_bytes()
        changed = [
            slot for slot in range(SLOTS) if before[slot * SLOT_BYTES :][:SLOT_BYTES] != after[slot * SLOT_BYTES :][:SLOT_BYTES]
        ]
        assert len(changed) == 1
        untouched = path.with_name("torn")
        untouched.write_bytes(after)
        overwrite(untouched, changed[0] * SLOT_BYTES, b"\xff" * SLOT_BYTES)
        assert reopened(untouched) == number - 1


@pytest.mark.parametrize("offset", range(20))
def test_given_any_byte_of_the_newest_slot_damaged_when_opened_then_the_slot_before_counts(tmp_path: Path, offset: int) -> None:
    path = tmp_path / "mark"
    mark = MarkFile.create(path, 1)
    mark.write(2)
    mark.close()
    content = path.read_bytes()
    newest = 0 if (2).to_bytes(8, "little") == content[8:16] else SLOT_BYTES
    overwrite(path, newest + offset, bytes((content[newest + offset] ^ 0x10,)))
    assert reopened(path) == 1


@pytest.mark.parametrize("content", [b"", b"\0" * SLOTS * SLOT_BYTES, b"RMQMARK1", b"x" * 9000])
def test_given_no_whole_slot_when_opened_then_the_data_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "mark").write_bytes(content)
    with pytest.raises(DataRefused, match="damaged"):
        MarkFile(tmp_path / "mark")
