"""`check` on a healthy directory, which it leaves alone, and on each damage to one."""

import json
import shutil
import tracemalloc
from pathlib import Path

import pytest
import trio
from crc32c import crc32c

from rocksmq.broker import keys
from rocksmq.broker.check import ChannelFound, NoDataDirectory, Overview, Total, check
from rocksmq.broker.directory import FORMAT, DataDirectory
from rocksmq.broker.engine import RocksMQ
from rocksmq.broker.findings import Finding, Repair
from rocksmq.broker.mark import MarkFile
from rocksmq.broker.records import Begin, Extent
from rocksmq.broker.store import Delete, DirectoryInUse, Family, Put
from tests.helpers.model_systems import copy_as_killed

from .check_support import (
    PAYLOAD_BYTES,
    Healthy,
    batch_entry,
    change,
    change_extent,
    entries,
    findings,
    flip_stored,
    listing,
    made,
    number_of,
    only,
    settle,
    stored,
)
from .support import in_trio

DATA, META = Family.DATA, Family.META


# -- healthy -----------------------------------------------------------------------------


def test_given_a_healthy_directory_when_checked_then_nothing_is_found_and_everything_is_counted(healthy: Healthy) -> None:
    overview, *channels, total = check(healthy.path)
    assert isinstance(overview, Overview)
    assert overview.format == FORMAT
    assert overview.instance == json.loads((healthy.path / "format").read_text())["instance"]
    assert overview.commit_number == overview.mark != 0
    assert overview.window_end is not None
    assert overview.window_end > healthy.ids[-1]
    by_name = {found.name: found for found in channels if isinstance(found, ChannelFound)}
    assert len(by_name) == len(channels) == 4
    headers = sum(len(b"\xa1\x61n\x40") + len(str(number)) for number in range(1, 20, 2)) * 3
    assert by_name["orders"] == ChannelFound(
        "orders", 61, 60 * PAYLOAD_BYTES + len(b"named") + headers, healthy.ids[0], healthy.ids[-1], 3
    )
    assert by_name["plain"][1:3] == (40, sum(range(20)))
    assert by_name["empty"][1:] == (0, 0, None, None, 1)
    assert total == Total(4, 4, 61 + 40 + 21, sum(found.byte_count for found in by_name.values()), 0, 0)


def test_given_a_broker_that_was_killed_when_its_directory_is_checked_then_nothing_is_found(tmp_path: Path) -> None:
    made(tmp_path / "data", lambda path: copy_as_killed(path, tmp_path / "killed"))
    assert findings(tmp_path / "killed") == []


def test_given_everything_in_tables_when_checked_then_nothing_is_found(healthy: Healthy) -> None:
    settle(healthy.path)
    assert findings(healthy.path) == []


@pytest.mark.parametrize("has_lock", [True, False])
def test_given_any_directory_when_checked_then_no_file_of_it_is_changed_and_none_is_made(
    healthy: Healthy, has_lock: bool
) -> None:
    if not has_lock:
        (healthy.path / "lock").unlink()
    before = listing(healthy.path)
    assert findings(healthy.path) == []
    assert listing(healthy.path) == before
    assert (healthy.path / "lock").exists() == has_lock


def test_given_a_database_whose_current_file_is_gone_when_checked_then_it_is_a_problem_with_no_repair(healthy: Healthy) -> None:
    for file in ("db/CURRENT", "mark"):
        (healthy.path / file).unlink()
        found = [item for item in check(healthy.path, offers_repairs=True) if isinstance(item, Finding | Repair)]
        assert len(found) == 1
        assert isinstance(found[0], Finding)
        assert "lacks the file CURRENT" in found[0].text


def test_given_a_broker_that_was_killed_when_its_directory_is_checked_then_that_is_not_forgotten(tmp_path: Path) -> None:
    made(tmp_path / "data", lambda path: copy_as_killed(path, tmp_path / "killed"))
    findings(tmp_path / "killed")
    after = DataDirectory(tmp_path / "killed")
    assert after.follows_crash
    after.close()


@in_trio
async def test_given_a_directory_that_was_checked_when_the_broker_starts_then_it_serves(tmp_path: Path) -> None:
    for _ in range(2):
        async with RocksMQ(tmp_path) as mq:
            await mq.create_channel("orders")
            await mq.produce("orders", [b"a"])
        assert findings(tmp_path) == []


@in_trio
async def test_given_a_broker_that_runs_when_its_directory_is_checked_then_it_is_refused_with_its_pid(tmp_path: Path) -> None:
    async with RocksMQ(tmp_path):
        with pytest.raises(DirectoryInUse, match="in use by rocksmqd with pid"):
            findings(tmp_path)


@in_trio
async def test_given_a_check_under_way_when_a_broker_starts_then_it_is_refused(healthy: Healthy) -> None:
    items = check(healthy.path)
    next(items)
    with pytest.raises(DirectoryInUse, match="in use by rocksmq check with pid"):
        async with RocksMQ(healthy.path):
            pass
    items.close()
    async with RocksMQ(healthy.path):
        await trio.lowlevel.checkpoint()


def test_given_a_directory_of_something_else_when_checked_then_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a file").touch()
    with pytest.raises(NoDataDirectory, match="neither `format` nor `db`"):
        findings(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a file"]


@pytest.mark.parametrize("has_mark", [True, False])
def test_given_a_first_start_that_was_cut_short_when_checked_then_it_is_only_a_note(tmp_path: Path, has_mark: bool) -> None:
    (tmp_path / "format").write_text(json.dumps({"format": FORMAT, "instance": "x"}))
    (tmp_path / "db").mkdir()
    if has_mark:
        MarkFile.create(tmp_path / "mark").close()
    assert only(tmp_path) == "note database: nothing was ever stored"


def test_given_a_new_directory_when_checked_then_it_is_only_a_note(tmp_path: Path) -> None:
    DataDirectory(tmp_path).close()
    assert only(tmp_path) == "note database: nothing was ever stored"


def test_given_much_data_when_checked_then_little_of_it_is_in_memory_at_a_time_and_its_progress_is_told(tmp_path: Path) -> None:
    @in_trio
    async def fill() -> None:
        async with RocksMQ(tmp_path) as mq:
            await mq.create_channel("orders")
            for number in range(48):
                await mq.produce("orders", [bytes((number,)) * (1 << 20)])

    fill()
    told: list[tuple[int, int]] = []
    tracemalloc.start()
    try:
        *_, total = check(tmp_path, progress=lambda done, total: told.append((done, total)))
        assert tracemalloc.get_traced_memory()[1] < 6 << 20
    finally:
        tracemalloc.stop()
    assert isinstance(total, Total)
    assert (total.message_count, total.problems) == (48, 0)
    done, totals = zip(*told, strict=True)
    assert len(set(totals)) == 1
    assert list(done) == sorted(done)
    assert done[47] == pytest.approx(48 << 20, rel=0.001)
    assert done[-1] == pytest.approx(totals[-1], rel=0.001)


# -- messages ------------------------------------------------------------------------------


@pytest.mark.parametrize(("first", "last"), [(10, 10), (0, 0), (0, 19), (7, 12), (19, 19)])
def test_given_bits_flipped_in_a_table_when_checked_then_what_is_lost_is_counted_and_the_rest_is_read(
    healthy: Healthy, first: int, last: int
) -> None:
    settle(healthy.path)
    for index in range(first, last + 1):
        flip_stored(healthy.path, healthy.payloads[3 * index])
    *channels, total = [item for item in check(healthy.path) if isinstance(item, (ChannelFound, Total))]
    (orders,) = [found for found in channels if isinstance(found, ChannelFound) and found.name == "orders"]
    lost = 61 - orders.message_count
    assert (last - first + 1) * 3 <= lost < (last - first + 1) * 3 + 9  # a block of the table holds some 2 batches
    found = findings(healthy.path)
    assert any("block checksum mismatch" in text and f"{healthy.path}/db/" in text for text in found)
    missing = [text for text in found if text.startswith("problem channel orders: ") and " missing " in text]
    assert sum(int(text.partition(" message")[0].rpartition(" ")[2]) for text in missing) == lost
    tables = [text for text in found if text.startswith("problem table ") and "is damaged" in text]  # blocks behind the first
    assert bool(tables) == (last > first)
    others = [text for text in found if not text.startswith(("problem channel ", "problem table "))]
    # a neighbour may share a block with it
    assert all(text.startswith("note messages: where no channel is, ") for text in others), others
    assert isinstance(total, Total)
    assert (total.problems, total.channels) == (len(found) - len(others), 4)


@pytest.mark.parametrize("index", [0, 9, 20])
@pytest.mark.parametrize("at", [0, 4, 12, 20, 28, 32, -1])
def test_given_a_batch_with_a_wrong_byte_when_checked_then_it_is_named_and_its_messages_count_as_missing(
    healthy: Healthy, index: int, at: int
) -> None:
    key, value = batch_entry(healthy, index)
    damaged = bytearray(value)
    damaged[at] ^= 1
    change(healthy.path, Put(DATA, key, bytes(damaged)))
    damage, missing = findings(healthy.path)
    assert damage.startswith(f"problem channel orders: the batch with id {healthy.batches[index][0]}: the record ")
    assert f"{len(healthy.batches[index])} message" in missing
    assert " missing " in missing


@pytest.mark.parametrize("value", [b"", b"\x01", bytes(24)])
def test_given_a_batch_cut_short_when_checked_then_it_is_named(healthy: Healthy, value: bytes) -> None:
    key, _ = batch_entry(healthy, 9)
    change(healthy.path, Put(DATA, key, value))
    assert f"the batch with id {healthy.batches[9][0]}" in findings(healthy.path)[0]


def with_crc(key: bytes, value: bytes) -> bytes:
    """``value`` with the CRC that its bytes have."""
    crc = crc32c(value[32:], crc32c(value[:28], crc32c(key)))
    return value[:28] + crc.to_bytes(4, "little") + value[32:]


@pytest.mark.parametrize(
    ("at", "new"),
    [
        (slice(1, 2), b"\x02"),
        (slice(2, 4), b"\x01\x00"),
        (slice(20, 24), (2).to_bytes(4, "little")),
        (slice(20, 24), (0).to_bytes(4, "little")),
        (slice(20, 24), (1 << 31).to_bytes(4, "little")),
        (slice(24, 28), (14_999).to_bytes(4, "little")),
        (slice(32, 36), (4_999).to_bytes(4, "little")),
    ],
)
@pytest.mark.parametrize("index", [8, 9], ids=["plain", "headers"])
def test_given_a_head_that_does_not_fit_its_columns_when_checked_then_it_is_named_though_its_crc_is_right(
    healthy: Healthy, index: int, at: slice, new: bytes
) -> None:
    key, value = batch_entry(healthy, index)
    changed = bytearray(value)
    changed[at] = new
    change(healthy.path, Put(DATA, key, with_crc(key, bytes(changed))))
    damage, missing = findings(healthy.path)
    assert f"the batch with id {healthy.batches[index][0]}" in damage
    assert "3 messages missing between ids" in missing


@pytest.mark.parametrize(
    ("index", "where"), [(0, "at its begin, before id"), (9, "between ids"), (20, "at its end, behind id")]
)
def test_given_a_batch_that_is_gone_when_checked_then_its_messages_are_counted_as_missing(
    healthy: Healthy, index: int, where: str
) -> None:
    key, _ = batch_entry(healthy, index)
    change(healthy.path, Delete(DATA, key))
    count = "1 message" if index == 20 else "3 messages"
    assert only(healthy.path).startswith(f"problem channel orders: {count} missing {where}")


def test_given_all_batches_of_a_channel_gone_when_checked_then_all_its_messages_are_missing(healthy: Healthy) -> None:
    begin, _ = keys.channel_span(number_of(healthy.path, "orders"))
    change(healthy.path, *(Delete(DATA, key) for key, _ in entries(healthy.path, DATA, begin)))
    assert "61 messages missing at its end, behind id 0" in only(healthy.path)


def test_given_a_batch_whose_offset_is_too_low_when_checked_then_it_is_named(healthy: Healthy) -> None:
    key, value = batch_entry(healthy, 9)
    change(healthy.path, Put(DATA, key, with_crc(key, value[:4] + (26).to_bytes(8, "little") + value[12:])))
    first, second = findings(healthy.path)
    assert f"the batch with id {healthy.batches[9][0]} counts 26 messages before it, not 27" in first
    assert "1 message missing between ids" in second


def test_given_batches_that_overlap_when_checked_then_ids_do_not_rise(healthy: Healthy) -> None:
    key, value = batch_entry(healthy, 9)
    overlapping = key[:8] + keys.u64(healthy.batches[8][-1])
    change(healthy.path, Delete(DATA, key), Put(DATA, overlapping, with_crc(overlapping, value)))
    assert f"ids do not rise: {healthy.batches[8][-1]} comes behind {healthy.batches[8][-1]}" in findings(healthy.path)[0]


def test_given_an_entry_with_a_key_of_no_batch_when_checked_then_it_is_named(healthy: Healthy) -> None:
    key, value = batch_entry(healthy, 9)
    change(healthy.path, Put(DATA, key + b"x", value))
    assert "which is none of a batch" in only(healthy.path)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"begin_id": -1}, "its begin says"),
        ({"begin_offset": 1}, "counts 0 messages before it, not 1"),
        ({"end_id": 1}, "but its end says"),
        ({"end_offset": 2}, "2 messages missing at its end"),
        ({"end_offset": -1}, "1 message more are stored than its end says"),
        ({"end_bytes": 1}, "but its record says"),
        ({"begin_bytes": 1}, "counts 0 bytes before it, not 1"),
        ({"begin_offset": 100}, "its extent contradicts itself"),
        ({"begin_bytes": 1 << 40}, "its extent contradicts itself"),
        ({"removed_end": 1}, "its extent contradicts itself"),
    ],
)
def test_given_an_extent_that_does_not_match_when_checked_then_it_is_told(
    healthy: Healthy, fields: dict[str, int], text: str
) -> None:
    change_extent(healthy.path, "aside", **fields)
    found = findings(healthy.path)
    assert any(line.startswith("problem channel aside: ") and text in line for line in found), found


def test_given_an_end_that_is_too_low_when_checked_then_whoever_was_promised_more_is_told_of(healthy: Healthy) -> None:
    change_extent(healthy.path, "orders", end_id=-1)
    assert any("but a producer was answered with" in line for line in findings(healthy.path))


def trim(healthy: Healthy, count: int, **fields: int) -> Extent:
    """Let `orders` begin behind its first ``count`` messages, as retention does; the extent before."""
    key = keys.extent_key(number_of(healthy.path, "orders"))
    extent = Extent.decode(stored(healthy.path, META, key))
    headers = sum(len(b"\xa1\x61n\x40") + len(str(index // 3)) for index in range(count) if index // 3 % 2)
    size = sum(map(len, healthy.payloads[:count])) + headers
    begin_id = healthy.ids[count]
    trimmed = extent.trimmed(Begin(begin_id, count, size, begin_id))._replace(**fields)
    change(healthy.path, Put(META, key, trimmed.encode()))
    return extent


def test_given_batches_before_the_begin_when_checked_then_they_are_a_note(healthy: Healthy) -> None:
    trim(healthy, 6)
    assert only(healthy.path) == f"note channel orders: 2 batches before its begin, {healthy.ids[6]}: not removed yet"


@pytest.mark.parametrize("count", [1, 4, 5])
def test_given_a_begin_inside_of_a_batch_when_checked_then_what_is_behind_it_counts(healthy: Healthy, count: int) -> None:
    trim(healthy, count)
    assert [line for line in findings(healthy.path) if line.startswith("problem")] == []
    (orders,) = [item for item in check(healthy.path) if isinstance(item, ChannelFound) and item.name == "orders"]
    assert (orders.message_count, orders.begin_id, orders.end_id) == (61 - count, healthy.ids[count], healthy.ids[-1])


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"begin_offset": 5}, "counts 3 messages before it, not 4"),
        ({"begin_offset": 3}, "1 message missing at its begin"),
        ({"begin_bytes": 5}, "bytes before it, not "),
        ({"removed_end": 7}, "that only what lies before 7 was removed"),
        ({"removed_end": 0}, "its extent contradicts itself"),
    ],
)
def test_given_a_begin_inside_of_a_batch_that_is_wrong_when_checked_then_it_is_told(
    healthy: Healthy, fields: dict[str, int], text: str
) -> None:
    trim(healthy, 4, **fields)
    found = findings(healthy.path)
    assert any(line.startswith("problem channel orders: ") and text in line for line in found), found


def test_given_a_damaged_batch_before_the_begin_when_checked_then_it_is_a_note_and_where_it_may_reach_further_a_problem(
    healthy: Healthy,
) -> None:
    trim(healthy, 3)
    for index in (0, 1):
        key, value = batch_entry(healthy, index)
        change(healthy.path, Put(DATA, key, value[:-1]))
        found = findings(healthy.path)
        assert [line.startswith("problem") for line in found] == [[False], [False, True, True]][index]
        assert f"note channel orders: the batch with id {healthy.ids[0]}: " in found[0]


# -- commits, mark, format, window ------------------------------------------------------------


def test_given_a_log_that_is_deleted_when_checked_then_all_its_commits_are_missing(tmp_path: Path) -> None:
    @in_trio
    async def fill() -> None:
        async with RocksMQ(tmp_path / "data") as mq:
            for name in ("a", "b", "c"):
                await mq.create_channel(name)
            copy_as_killed(tmp_path / "data", tmp_path / "killed")

    fill()
    path = tmp_path / "killed"
    mark = MarkFile(path / "mark")
    mark.write(3)
    mark.close()
    assert findings(path) == []
    for log in (path / "db").glob("*.log"):
        log.unlink()
    lost = "problem mark: commit 3 was synced, the database ends at 0: 3 commits missing"
    assert lost in findings(path)


@pytest.mark.parametrize(("missing", "text"), [(1, "1 commit missing"), (3, "3 commits missing")])
def test_given_a_mark_beyond_the_database_when_checked_then_the_missing_commits_are_numbered(
    healthy: Healthy, missing: int, text: str
) -> None:
    mark = MarkFile(healthy.path / "mark")
    number = mark.number
    mark.write(number + missing)
    mark.close()
    assert only(healthy.path) == (f"problem mark: commit {number + missing} was synced, the database ends at {number}: {text}")


def test_given_an_older_database_when_checked_against_the_newer_mark_then_the_missing_commits_are_numbered(
    healthy: Healthy, tmp_path: Path
) -> None:
    @in_trio
    async def more() -> None:
        async with RocksMQ(healthy.path) as mq:
            await mq.produce("orders", [b"more"])

    shutil.copytree(healthy.path / "db", tmp_path / "older")
    more()
    shutil.rmtree(healthy.path / "db")
    (tmp_path / "older").rename(healthy.path / "db")
    assert only(healthy.path).endswith("commit missing") or only(healthy.path).endswith("commits missing")


def test_given_no_database_when_checked_then_every_commit_is_missing(healthy: Healthy) -> None:
    shutil.rmtree(healthy.path / "db")
    found = findings(healthy.path)
    assert any("the database ends at 0" in line for line in found), found


def test_given_no_mark_when_checked_then_it_is_told(healthy: Healthy) -> None:
    (healthy.path / "mark").unlink()
    assert "problem mark: it is missing" in only(healthy.path)


def test_given_a_damaged_mark_when_checked_then_it_is_told(healthy: Healthy) -> None:
    (healthy.path / "mark").write_bytes(b"rubbish")
    assert "damaged" in findings(healthy.path)[0]


@pytest.mark.parametrize("content", ["{", "[]", '{"format": 1}'])
def test_given_a_damaged_format_when_checked_then_it_is_told_and_the_rest_is_checked(healthy: Healthy, content: str) -> None:
    (healthy.path / "format").write_text(content)
    *_, total = check(healthy.path)
    assert total[:3] == (4, 4, 122)
    assert only(healthy.path).startswith("problem format: ")


def test_given_no_format_when_checked_then_it_is_told_and_the_rest_is_checked(healthy: Healthy) -> None:
    (healthy.path / "format").unlink()
    assert only(healthy.path).startswith("problem format: the file is missing")


@pytest.mark.parametrize("version", [FORMAT + 1, 0])
def test_given_another_format_when_checked_then_it_is_told_and_nothing_is_guessed(healthy: Healthy, version: int) -> None:
    (healthy.path / "format").write_text(json.dumps({"format": version, "instance": "x"}))
    overview, *_, total = check(healthy.path)
    assert isinstance(overview, Overview)
    assert (overview.format, overview.instance) == (version, "x")
    assert total == Total(0, 0, 0, 0, 1, 0)
    assert f"has format {version}" in only(healthy.path)


@pytest.mark.parametrize("pattern", ["MANIFEST-*", "*.sst"])
def test_given_a_file_of_the_database_missing_when_checked_then_it_is_told(healthy: Healthy, pattern: str) -> None:
    settle(healthy.path)
    for file in (healthy.path / "db").glob(pattern):
        file.unlink()
    found = findings(healthy.path)
    assert any("database" in line or "could not read" in line for line in found), found
    assert not any("/rocksmq-" in line for line in found), "a name of no use"


def test_given_a_window_below_an_id_in_use_when_checked_then_it_is_told(healthy: Healthy) -> None:
    change(healthy.path, Put(META, keys.IDS, keys.u64(healthy.ids[5])))
    assert only(healthy.path).startswith(f"problem id window: it ends at {healthy.ids[5]}, but ")


def test_given_a_window_just_behind_the_highest_id_when_checked_then_it_is_good_and_one_lower_is_not(healthy: Healthy) -> None:
    change(healthy.path, Put(META, keys.IDS, keys.u64(healthy.ids[5])))
    highest = int(only(healthy.path).partition(" is ")[2].partition(":")[0])
    change(healthy.path, Put(META, keys.IDS, keys.u64(highest + 1)))
    assert findings(healthy.path) == []
    change(healthy.path, Put(META, keys.IDS, keys.u64(highest)))
    assert "given out twice" in only(healthy.path)


@pytest.mark.parametrize("key", [keys.IDS, keys.COMMIT_NUMBER])
def test_given_a_number_that_is_damaged_when_checked_then_it_is_told(healthy: Healthy, key: bytes) -> None:
    change(healthy.path, Put(META, key, b"\0\0\1"))
    assert "its record is damaged" in only(healthy.path)


def test_given_no_window_when_checked_then_it_is_told(healthy: Healthy) -> None:
    change(healthy.path, Delete(META, keys.IDS))
    assert only(healthy.path) == "problem id window: its record is missing"
