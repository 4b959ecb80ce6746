"""`repair`: what was damaged passes `check` afterwards, lacks what was named and no more, and a broker goes on with it."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from rocksmq.broker import keys
from rocksmq.broker.directory import DataDirectory
from rocksmq.broker.engine import RocksMQ
from rocksmq.broker.findings import Finding
from rocksmq.broker.mark import MarkFile
from rocksmq.broker.patch import NotRepaired
from rocksmq.broker.records import ChannelSettings, GroupState, MetaBinding
from rocksmq.broker.repair import locked_for_repair, repair
from rocksmq.broker.store import Delete, DirectoryInUse, Family, Put, Store
from rocksmq.protocol.errors import ChannelNotFound, OutOfSequence, StorageFailed
from rocksmq.protocol.operations import Produce

from .check_support import (
    NAMED,
    Healthy,
    batch_entry,
    change,
    change_extent,
    entries,
    findings,
    flip_stored,
    listing,
    number_of,
    settle,
    stored,
)
from .repair_support import goes_on, messages, offers, repaired
from .support import batch_of, identity, in_trio

DATA, META = Family.DATA, Family.META
NEW = identity((1 << 62) + 1, 9)


def lost(healthy: Healthy, first: int, last: int) -> dict[int, bytes]:
    """All but the batches from ``first`` to ``last``."""
    gone = {message_id for batch in healthy.batches[first : last + 1] for message_id in batch}
    return {message_id: payload for message_id, payload in messages(healthy).items() if message_id not in gone}


def delete_batch(healthy: Healthy, index: int) -> None:
    key, _ = batch_entry(healthy, index)
    change(healthy.path, Delete(DATA, key))


def damage_batch(healthy: Healthy, index: int) -> None:
    key, value = batch_entry(healthy, index)
    change(healthy.path, Put(DATA, key, value[:-1] + bytes((value[-1] ^ 1,))))


DAMAGES: list[Callable[[Healthy, int], None]] = [delete_batch, damage_batch]


@pytest.mark.parametrize("damage", DAMAGES)
def test_given_a_hole_when_the_end_is_cut_then_what_is_before_it_stays(
    healthy: Healthy, damage: Callable[[Healthy, int], None]
) -> None:
    damage(healthy, 9)
    behind = healthy.batches[8][-1] + 1
    (did,) = repaired(healthy.path, f"end:orders:{behind}")
    assert (did.message_count, did.readable_count, did.begin_id, did.end_id) == (34, 31, behind, healthy.ids[-1])
    goes_on(healthy, lost(healthy, 9, 20))


@pytest.mark.parametrize("damage", DAMAGES)
def test_given_a_hole_when_the_beginning_is_cut_then_what_is_behind_it_stays_and_groups_are_told_of_it(
    healthy: Healthy, damage: Callable[[Healthy, int], None]
) -> None:
    damage(healthy, 9)
    begin = healthy.batches[10][0]
    (did,) = repaired(healthy.path, f"begin:orders:{begin}")
    assert (did.message_count, did.readable_count, did.begin_id, did.end_id) == (30, 27, healthy.ids[0], begin - 1)
    goes_on(healthy, lost(healthy, 0, 9))


@pytest.mark.parametrize("damage", DAMAGES)
def test_given_the_first_batch_gone_when_repaired_then_the_rest_stays(
    healthy: Healthy, damage: Callable[[Healthy, int], None]
) -> None:
    damage(healthy, 0)
    assert list(offers(healthy.path).repairs) == [f"begin:orders:{healthy.batches[1][0]}"]
    (did,) = repaired(healthy.path, f"begin:orders:{healthy.batches[1][0]}")
    assert (did.message_count, did.readable_count) == (3, 0)
    goes_on(healthy, lost(healthy, 0, 0))


@pytest.mark.parametrize("damage", DAMAGES)
def test_given_the_last_batch_gone_when_repaired_then_the_rest_stays(
    healthy: Healthy, damage: Callable[[Healthy, int], None]
) -> None:
    damage(healthy, 20)
    (argument,) = offers(healthy.path).repairs
    (did,) = repaired(healthy.path, argument)
    assert (argument, did.message_count, did.readable_count) == (f"end:orders:{healthy.batches[19][-1] + 1}", 1, 0)
    goes_on(healthy, lost(healthy, 20, 20))


def test_given_several_holes_when_both_ends_are_cut_then_the_longest_run_stays(healthy: Healthy) -> None:
    for index in (3, 17, 18):
        delete_batch(healthy, index)
    begin, end = healthy.batches[4][0], healthy.batches[16][-1] + 1
    assert set(offers(healthy.path).repairs) == {
        f"end:orders:{healthy.batches[2][-1] + 1}",
        f"begin:orders:{begin}",
        f"end:orders:{end}",
        f"begin:orders:{healthy.batches[19][0]}",
    }
    repaired(healthy.path, f"end:orders:{end}", f"begin:orders:{begin}")
    goes_on(healthy, {id_: payload for id_, payload in messages(healthy).items() if begin <= id_ < end})


def test_given_all_batches_gone_when_repaired_then_the_channel_is_empty_and_goes_on(healthy: Healthy) -> None:
    begin, _ = keys.channel_span(number_of(healthy.path, "orders"))
    change(healthy.path, *(Delete(DATA, key) for key, _ in entries(healthy.path, DATA, begin)))
    (argument,) = offers(healthy.path).repairs
    (did,) = repaired(healthy.path, argument)
    assert (did.message_count, did.readable_count) == (61, 0)
    goes_on(healthy, {})


def test_given_a_cut_end_when_a_producer_of_what_went_sends_it_again_then_it_is_refused_not_believed(healthy: Healthy) -> None:
    delete_batch(healthy, 19)
    repaired(healthy.path, f"end:orders:{healthy.batches[18][-1] + 1}")

    @in_trio
    async def play() -> None:
        async with RocksMQ(healthy.path) as mq:
            with pytest.raises(OutOfSequence):
                await mq.call(Produce("orders", NAMED, 1, *batch_of(b"named"), sequences=[6, 6]))
            await mq.call(Produce("orders", NEW, 0, *batch_of(b"new")))

    play()


def test_given_a_cut_end_when_the_group_before_it_reads_on_then_it_stands_where_it_stood(healthy: Healthy) -> None:
    # Given: billing has read 13 messages, of which its consumer gave some back.
    delete_batch(healthy, 9)
    before = GroupState.decode(stored(healthy.path, META, keys.group_key("billing", "orders", "state")))
    repaired(healthy.path, f"end:orders:{healthy.batches[8][-1] + 1}")
    assert GroupState.decode(stored(healthy.path, META, keys.group_key("billing", "orders", "state"))) == before


@pytest.mark.parametrize("index", [0, 9, 19])
def test_given_a_bit_flipped_in_a_table_when_rewritten_and_cut_then_compactions_work_again(
    healthy: Healthy, index: int
) -> None:
    settle(healthy.path)
    flip_stored(healthy.path, healthy.payloads[3 * index])
    found = offers(healthy.path)
    assert "rewrite" in found.repairs
    cuts = [argument for argument in found.repairs if argument.startswith("end:orders:")] or [
        argument for argument in found.repairs if argument.startswith("begin:orders:")
    ]
    others = [argument for argument in found.repairs if argument != "rewrite" and ":orders:" not in argument]
    with pytest.raises(NotRepaired, match="name --repair rewrite as well"), locked_for_repair(healthy.path):
        list(repair(healthy.path, found, cuts))
    repaired(healthy.path, "rewrite", cuts[0], *others)
    settle(healthy.path)
    assert [line for line in findings(healthy.path) if line.startswith("problem")] == []
    assert (healthy.path / "db.damaged").is_dir()
    with pytest.raises(NotRepaired), locked_for_repair(healthy.path):
        list(repair(healthy.path, found, ["rewrite", *cuts, *others]))


def nothing(store: Store, *span: object) -> None:
    """Instead of a compaction."""


async def produce_for_ever(path: Path, channel: str) -> None:
    async with RocksMQ(path) as mq:
        with trio.fail_after(60):
            while True:
                await mq.produce(channel, [b"more"])


@in_trio
async def test_given_a_damaged_block_of_what_was_removed_when_rewritten_then_the_broker_does_not_stop_over_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "data"
    compact, removed = Store.compact, os.urandom(100_000)
    monkeypatch.setattr(Store, "compact", nothing)  # as if it was killed before
    async with RocksMQ(path) as mq:
        for channel, payload in (("removed", removed), ("kept", b"kept")):
            await mq.create_channel(channel)
            await mq.produce(channel, [payload] * 3)
        mq.core.log._store._families[Family.DATA].flush()  # pyright: ignore[reportPrivateUsage]
        await mq.destroy_channel("removed")
    flip_stored(path, removed)
    monkeypatch.setattr(Store, "compact", compact)
    with pytest.raises(StorageFailed, match="run `rocksmq check`"):
        await produce_for_ever(Path(shutil.copytree(path, tmp_path / "copy")), "kept")
    (told,) = [text for text in findings(path) if text.startswith("problem")]
    assert "is damaged: a compaction will stop the broker" in told
    assert list(offers(path).repairs) == ["rewrite"]
    repaired(path, "rewrite")
    assert findings(path) == []
    async with RocksMQ(path) as mq:
        mq.core.log._store.compact(Family.DATA, b"", b"\xff" * 17)  # pyright: ignore[reportPrivateUsage]
        batch = await mq.fetch("kept", "earliest", n=10)
    assert batch.payloads == [b"kept"] * 3


def test_given_an_extent_that_is_gone_when_rebuilt_then_nothing_is_lost(healthy: Healthy) -> None:
    change(healthy.path, Delete(META, keys.extent_key(number_of(healthy.path, "orders"))))
    repaired(healthy.path, "extent:orders")
    goes_on(healthy, messages(healthy))


@pytest.mark.parametrize(
    "fields",
    [{"begin_id": -1}, {"begin_offset": 1}, {"end_id": 1}, {"end_offset": -1}, {"end_bytes": 1}, {"begin_offset": 100}],
)
def test_given_an_extent_that_contradicts_its_batches_when_rebuilt_then_nothing_is_lost(
    healthy: Healthy, fields: dict[str, int]
) -> None:
    change_extent(healthy.path, "orders", **fields)
    repaired(healthy.path, "extent:orders")
    goes_on(healthy, messages(healthy))


def test_given_an_extent_of_an_empty_channel_that_is_gone_when_rebuilt_then_it_is_empty(healthy: Healthy) -> None:
    change(healthy.path, Delete(META, keys.extent_key(number_of(healthy.path, "empty"))))
    repaired(healthy.path, "extent:empty")


def test_given_settings_that_are_gone_when_made_anew_then_the_channel_has_its_name_and_messages(healthy: Healthy) -> None:
    number = number_of(healthy.path, "orders")
    change(healthy.path, Delete(META, keys.settings_key(number)))
    repaired(healthy.path, f"settings:{number}:orders")
    goes_on(healthy, messages(healthy))


def test_given_settings_that_are_damaged_when_the_channel_has_no_group_then_it_is_offered_under_a_name_of_its_own(
    healthy: Healthy,
) -> None:
    number = number_of(healthy.path, "aside")
    change(healthy.path, Put(META, keys.settings_key(number), b"x"))
    repaired(healthy.path, f"settings:{number}:recovered-{number}")
    assert ChannelSettings.decode(stored(healthy.path, META, keys.settings_key(number))).name == f"recovered-{number}"


def test_given_positions_elsewhere_when_a_channel_s_settings_are_lost_then_its_name_is_that_of_the_copy(
    healthy: Healthy,
) -> None:
    number = number_of(healthy.path, "orders")
    store = "etcd://127.0.0.1:1/there"
    change(healthy.path, Put(META, keys.META_BINDING, MetaBinding(store, store, 1, 1).encode()))
    change(healthy.path, Delete(META, keys.settings_key(number)))
    assert f"settings:{number}:orders" in offers(healthy.path).repairs


@pytest.mark.parametrize("value", [None, b"x"])
def test_given_a_lost_channel_when_removed_then_all_of_it_is_gone(healthy: Healthy, value: bytes | None) -> None:
    number = number_of(healthy.path, "orders")
    key = keys.settings_key(number)
    change(healthy.path, Delete(META, key) if value is None else Put(META, key, value))
    (did,) = repaired(healthy.path, f"remove-channel:{number}")
    assert (did.message_count, did.begin_id, did.end_id) == (61, healthy.ids[0], healthy.ids[-1])
    assert entries(healthy.path, DATA, keys.u64(number)) == []
    assert entries(healthy.path, META, b"p" + keys.u64(number)) == []

    @in_trio
    async def play() -> None:
        async with RocksMQ(healthy.path) as mq:
            with pytest.raises(ChannelNotFound):
                await mq.fetch("orders", "earliest")

    play()


def test_given_a_damaged_record_of_a_producer_when_forgotten_then_its_repeat_is_refused(healthy: Healthy) -> None:
    producer = identity(1, 77)
    number = number_of(healthy.path, "orders")
    change(
        healthy.path,
        Put(META, keys.producer_key(number, producer, 0), b"x"),
        Put(META, keys.name_key(number, "importer"), b"x"),
    )
    repaired(healthy.path, f"producer:orders:{producer.hex()}", f"record:{keys.name_key(number, 'importer').hex()}")

    @in_trio
    async def play() -> None:
        async with RocksMQ(healthy.path) as mq:
            with pytest.raises(OutOfSequence):
                await mq.call(Produce("orders", producer, 0, *batch_of(b"again")))

    play()


def test_given_garbage_when_removed_then_nothing_else_is(healthy: Healthy) -> None:
    state = GroupState.decode(stored(healthy.path, META, keys.group_key("billing", "orders", "state")))
    _, value = batch_entry(healthy, 9)
    change(
        healthy.path,
        *(Put(DATA, keys.batch_key(number, 1), value) for number in (1, state.channel_number - 1, keys.ID_MAX)),
        Put(META, keys.group_key("billing", "former", "state"), state.encode()),
        Put(META, keys.group_key("billing", "former", "current_id"), str(state.position).encode()),
        Put(META, keys.producer_key(1, b"p" * 16, 0), bytes(20)),
    )
    repaired(healthy.path, "garbage")
    assert findings(healthy.path) == []
    goes_on(healthy, messages(healthy))


def test_given_an_entry_with_a_key_of_no_batch_when_removed_then_the_rest_stays(healthy: Healthy) -> None:
    key, value = batch_entry(healthy, 9)
    change(healthy.path, Put(DATA, key + b"x", value))
    repaired(healthy.path, f"entry:{(key + b'x').hex()}")
    goes_on(healthy, messages(healthy))


@pytest.mark.parametrize("window", [None, 5])
def test_given_a_window_that_is_wrong_when_renewed_then_no_id_is_given_out_twice(healthy: Healthy, window: int | None) -> None:
    change(healthy.path, Delete(META, keys.IDS) if window is None else Put(META, keys.IDS, keys.u64(healthy.ids[5])))
    repaired(healthy.path, "ids")
    goes_on(healthy, messages(healthy))


@pytest.mark.parametrize("mark", [None, b"rubbish"])
def test_given_no_mark_when_written_anew_then_a_broker_starts(healthy: Healthy, mark: bytes | None) -> None:
    file = healthy.path / "mark"
    file.unlink() if mark is None else file.write_bytes(mark)
    (did,) = repaired(healthy.path, "mark")
    assert "proof" in did.loses
    goes_on(healthy, messages(healthy))


def test_given_commits_missing_when_the_mark_is_not_named_then_nothing_is_done(healthy: Healthy) -> None:
    mark = MarkFile(healthy.path / "mark")
    mark.write(mark.number + 3)
    mark.close()
    delete_batch(healthy, 9)
    before = listing(healthy.path)
    found = offers(healthy.path)
    assert "what stood in 3 commits" in found.repairs["mark"].loses
    end = f"end:orders:{healthy.batches[8][-1] + 1}"
    with locked_for_repair(healthy.path), pytest.raises(NotRepaired, match="name --repair mark as well"):
        list(repair(healthy.path, found, [end]))
    assert listing(healthy.path) == before
    repaired(healthy.path, "mark", end)
    goes_on(healthy, lost(healthy, 9, 20))


def test_given_what_is_healthy_when_checked_then_nothing_is_offered(healthy: Healthy) -> None:
    assert offers(healthy.path).repairs == {}


def test_given_a_repair_when_done_then_the_mark_counts_it(healthy: Healthy) -> None:
    delete_batch(healthy, 9)
    repaired(healthy.path, f"end:orders:{healthy.batches[8][-1] + 1}")
    directory = DataDirectory(healthy.path)
    assert directory.commit_number == directory.mark.number
    directory.close()


def test_given_cuts_that_leave_nothing_or_say_two_things_when_named_together_then_none_is_done(healthy: Healthy) -> None:
    for index in (2, len(healthy.batches) - 3):
        damage_batch(healthy, index)
    before = listing(healthy.path)
    with locked_for_repair(healthy.path):
        found = offers(healthy.path)
        begins, ends = ([argument for argument in found.repairs if argument.startswith(verb)] for verb in ("begin:", "end:"))
        assert len(begins) == len(ends) == 2
        lowest = min(ends, key=lambda argument: int(argument.split(":")[2]))
        for together, told in (
            (begins, "one begin only"),
            (ends, "one end only"),
            ((begins[0], lowest), "nothing would be left"),
        ):
            with pytest.raises(NotRepaired, match=told):
                list(repair(healthy.path, found, together))
    assert listing(healthy.path) == before


def test_given_a_window_and_an_extent_that_are_lost_when_repaired_by_a_clock_set_back_then_no_id_is_given_out_again(
    healthy: Healthy, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = number_of(healthy.path, "orders")
    change(healthy.path, Delete(META, keys.IDS), Delete(META, keys.extent_key(number)))
    monkeypatch.setattr("rocksmq.broker.repair.clock_ms", lambda: 1)
    monkeypatch.setattr("rocksmq.broker.patch.clock_ms", lambda: 1)
    found = [argument for argument in offers(healthy.path).repairs if argument == "ids" or argument.startswith("extent:")]
    repaired(healthy.path, *found)
    goes_on(healthy, messages(healthy))


@in_trio
async def test_given_a_broker_that_runs_when_repaired_then_it_is_refused(tmp_path: Path) -> None:
    async with RocksMQ(tmp_path):
        with pytest.raises(DirectoryInUse, match="in use by rocksmqd"), locked_for_repair(tmp_path):
            pass


@in_trio
async def test_given_a_repair_under_way_when_a_broker_starts_then_it_is_refused(healthy: Healthy) -> None:
    with locked_for_repair(healthy.path), pytest.raises(DirectoryInUse, match="in use by rocksmq check --repair"):
        async with RocksMQ(healthy.path):
            pass


def test_given_a_manifest_that_is_gone_when_checked_then_a_backup_is_all_that_is_advised(healthy: Healthy) -> None:
    for file in (healthy.path / "db").glob("MANIFEST-*"):
        file.unlink()
    found = offers(healthy.path)
    assert found.repairs == {}
    assert any(isinstance(item, Finding) and "rocksmq backup restore" in item.text for item in found.items)


def test_given_a_rewrite_cut_short_when_checked_then_it_says_how_to_end_it(healthy: Healthy) -> None:
    shutil.copytree(healthy.path / "db", healthy.path / "db.new")
    (healthy.path / "db").rename(healthy.path / "db.damaged")
    assert "rename `db.new` to `db`" in findings(healthy.path)[0]
    assert offers(healthy.path).repairs == {}
    (healthy.path / "db.new").rename(healthy.path / "db")
    assert findings(healthy.path) == []
