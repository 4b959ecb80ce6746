"""Positions from one store to another: nothing is lost on the way, whatever fails, and what does not belong is refused."""

import json
import re
import shutil
from collections.abc import Iterator, Sized
from contextlib import closing
from pathlib import Path

import pytest

from rocksmq.broker import keys
from rocksmq.broker.check import NoDataDirectory
from rocksmq.broker.directory import DataDirectory
from rocksmq.broker.durability import Durability
from rocksmq.broker.engine import RocksMQ
from rocksmq.broker.meta_move import Check, Importer, Positions, read_positions, refusing
from rocksmq.broker.prefix import DATA, OWNER, DataMark, GroupKey, Owner, group_entries
from rocksmq.broker.reconcile import PrefixInUse
from rocksmq.broker.records import ConsumerEntry, GroupState, MetaBinding
from rocksmq.broker.remote import RemoteFailed
from rocksmq.broker.store import Change, DataRefused, DirectoryInUse, Family, Put, Store
from rocksmq.protocol.errors import StorageFailed

from .check_support import Healthy, change, change_group, findings, listing, number_of
from .meta_support import MemoryRemote, binding_of, embedded_groups, live
from .support import in_trio

FSYNC, OS = Durability.parse("fsync"), Durability.parse("os")
BEYOND = 1 << 60  # an id that nothing has


@pytest.fixture
def path(healthy: Healthy) -> Path:
    """A directory with groups that have everything that a group can have."""
    change_group(healthy.path, "late", lambda state: state._replace(metadata=b"\x00\xff"))
    states = embedded_groups(healthy.path)
    assert any(entry.is_released for state in states.values() for entry in state.consumers.values())
    assert any(state.last_seek for state in states.values())
    return healthy.path


def exported(path: Path, remote: MemoryRemote | None = None, check: Check = refusing) -> Positions:
    """By way of the text."""
    positions = read_positions(path, remote, check)
    read = Positions.parse(f"{line}\n" for line in positions.lines())
    assert read == positions
    return read


def imported(
    path: Path,
    positions: Positions,
    remote: MemoryRemote | None = None,
    check: Check = refusing,
    durability: Durability = FSYNC,
) -> list[GroupKey]:
    """What was left out."""
    with closing(DataDirectory(path)) as directory:
        importer = Importer(directory, remote, durability, check)
        importer.write(positions)
        return importer.left_out


def add_groups(path: Path, count: int, consumers: int = 0) -> None:
    """Copies of `billing`, each with so many consumer entries besides."""
    state = embedded_groups(path)["billing", "orders"]
    entry = ConsumerEntry(keys.ID_MAX, state.position - 1, state.position, 1, state.creation_id, keys.ID_MAX)
    state = state._replace(consumers={**state.consumers, **{number.to_bytes(16, "big"): entry for number in range(consumers)}})
    changes: list[Change] = []
    for number in range(count):
        for leaf, value in ((keys.STATE, state.encode()), (keys.CURRENT_ID, str(state.position).encode())):
            changes.append(Put(Family.META, keys.group_key(f"g{number}", "orders", leaf), value))
    change(path, *changes)


# -- there and back ------------------------------------------------------------------------------


def test_given_groups_when_moved_there_and_back_then_every_field_is_kept_and_check_finds_nothing(path: Path) -> None:
    remote, before = MemoryRemote(), embedded_groups(path)
    imported(path, exported(path), remote)
    assert remote.groups == before
    assert embedded_groups(path) == {}
    assert binding_of(path).store == remote.name
    assert findings(path, remote) == []
    imported(path, exported(path, remote))
    assert embedded_groups(path) == before
    assert binding_of(path).store == "embedded"
    assert findings(path) == []


def test_given_a_broker_s_life_in_each_store_when_moved_on_then_each_message_is_read_once(path: Path) -> None:
    remote, other = MemoryRemote(), MemoryRemote("etcd prefix q")
    ways = [(None, remote), (remote, None), (None, remote), (remote, other)]
    read: list[bytes] = []

    async def consume(mq: RocksMQ) -> None:
        read.extend(message.payload for message in await mq.consume("aside", "readers", 3))

    live(path, work=lambda mq: mq.create_consumer_group("aside", "readers"))
    for source, target in ways:
        live(path, source, consume)
        imported(path, exported(path, source), target)
    live(path, other, consume)

    async def all_of(mq: RocksMQ) -> None:
        assert [message.payload for message in await mq.fetch("aside", "earliest", 15)] == read

    live(path, other, all_of)
    assert len(set(read)) == 15


@pytest.mark.parametrize("consumers", [0, 250])
def test_given_many_groups_when_moved_then_each_transaction_is_one_that_etcd_takes(path: Path, consumers: int) -> None:
    add_groups(path, 130, consumers)
    remote, before = MemoryRemote(), embedded_groups(path)
    imported(path, exported(path), remote)
    assert remote.groups == before
    imported(path, exported(path, remote))
    assert embedded_groups(path) == before


def test_given_no_groups_when_moved_then_the_directory_is_bound_all_the_same(tmp_path: Path) -> None:
    remote = MemoryRemote()
    live(tmp_path)
    imported(tmp_path, exported(tmp_path), remote)
    live(tmp_path, remote)
    imported(tmp_path, exported(tmp_path, remote))
    live(tmp_path)


def test_given_what_was_there_before_when_imported_then_groups_go_and_keys_of_nobody_stay(path: Path) -> None:
    remote = MemoryRemote()
    first = exported(path)
    imported(path, first, remote)
    imported(path, exported(path, remote))
    state = first.groups["billing", "orders"]
    remote.entries |= {k: str(v) for k, v in group_entries(("stale", "orders"), state).items()} | {"a/b/c/d": "x"}
    imported(path, exported(path), remote)
    assert remote.groups == first.groups
    assert remote.entries["a/b/c/d"] == "x"


def test_given_a_group_of_no_channel_when_imported_then_it_is_left_out(path: Path) -> None:
    state = embedded_groups(path)["billing", "orders"]
    change(
        path,
        Put(Family.META, keys.group_key("billing", "former", keys.STATE), state.encode()),
        Put(Family.META, keys.group_key("billing", "former", keys.CURRENT_ID), str(state.position).encode()),
    )
    remote = MemoryRemote()
    assert imported(path, exported(path), remote) == [("billing", "former")]
    assert ("billing", "former") not in remote.groups


# -- export ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("has_lock", [True, False])
def test_given_any_directory_when_exported_then_nothing_is_changed(path: Path, has_lock: bool) -> None:
    if not has_lock:
        (path / "lock").unlink()
    before = listing(path)
    exported(path)
    assert listing(path) == before
    assert (path / "lock").exists() == has_lock


def test_given_a_store_elsewhere_when_exported_then_nothing_is_changed_there(path: Path) -> None:
    remote = MemoryRemote()
    imported(path, exported(path), remote)
    before, files = dict(remote.entries), listing(path)
    exported(path, remote)
    assert remote.entries == before
    assert listing(path) == files


def test_given_another_store_than_named_when_exported_then_it_is_refused_with_the_right_one(path: Path) -> None:
    remote = MemoryRemote()
    with pytest.raises(DataRefused, match="are kept in embedded, not in etcd prefix p: --meta names their store"):
        exported(path, remote)
    imported(path, exported(path), remote)
    with pytest.raises(DataRefused, match="are kept in etcd prefix p, not in embedded: --meta names their store"):
        exported(path)


@in_trio
async def test_given_a_broker_that_runs_when_moved_then_it_is_refused(path: Path) -> None:
    positions = exported(path)
    async with RocksMQ(path):
        with pytest.raises(DirectoryInUse, match="in use by rocksmqd with pid"):
            exported(path)
        with pytest.raises(DirectoryInUse, match="in use by rocksmqd with pid"):
            imported(path, positions, MemoryRemote())


def test_given_no_data_directory_when_exported_then_it_is_refused_and_nothing_is_made(tmp_path: Path) -> None:
    with pytest.raises(NoDataDirectory):
        exported(tmp_path)
    assert not list(tmp_path.iterdir())


# -- the file --------------------------------------------------------------------------------------


def damaged_files(text: str) -> Iterator[tuple[str, str]]:
    lines = text.splitlines()
    for cut in range(len(text) - 1):
        yield f"cut at {cut}", text[:cut]
    for index in range(len(lines)):
        yield f"without line {index}", "\n".join(lines[:index] + lines[index + 1 :])
        yield f"line {index} twice", "\n".join([*lines[: index + 1], *lines[index:]])
    for digit in re.finditer(r"\d", text):
        at = digit.start()
        yield f"another digit at {at}", text[:at] + str((int(text[at]) + 1) % 10) + text[at + 1 :]


def test_given_a_file_that_was_damaged_anyhow_when_read_then_it_is_refused(tmp_path: Path) -> None:
    live(tmp_path, work=_one_group)
    text = "".join(f"{line}\n" for line in exported(tmp_path).lines())
    for what, damaged in damaged_files(text):
        with pytest.raises(DataRefused):
            raise AssertionError(f"{what}: {Positions.parse(damaged.splitlines())}")


async def _one_group(mq: RocksMQ) -> None:
    await mq.create_channel("orders")
    await mq.create_consumer_group("orders", "billing")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no file of `rocksmq meta export`"),
        ("\n", "no file of"),
        ("[]", "no file of"),
        ("7", "no file of"),
        ("{}", "no file of"),
        ("[" * 100_000, "no file of"),
        ('{"kind": "rocksmq positions", "version": 2}', "a file of rocksmq positions 2, and this rocksmq reads"),
        ('{"kind": "rocksmq positions", "version": 1}', "was changed, or a part of it is missing"),
        ('{"kind": "rocksmq positions", "version": 1}\n' + "[" * 100_000, "was changed, or a part of it is missing"),
    ],
)
def test_given_another_file_when_read_then_it_is_refused(text: str, why: str) -> None:
    with pytest.raises(DataRefused, match=why):
        Positions.parse(text.splitlines())


def test_given_a_file_with_line_ends_of_elsewhere_when_read_then_it_is_the_same(path: Path) -> None:
    positions = exported(path)
    assert Positions.parse(f"{line}\r\n" for line in positions.lines()) == positions


# -- what does not belong together -------------------------------------------------------------------


def refused(path: Path, positions: Positions, remote: MemoryRemote | None, durability: Durability = FSYNC) -> str:
    """Why; nothing is changed in either store, and accepting it gets over it."""
    groups, binding, entries = embedded_groups(path), binding_of(path), dict(remote.entries) if remote else {}
    with pytest.raises(DataRefused) as error:
        imported(path, positions, remote, durability=durability)
    assert (embedded_groups(path), binding_of(path)) == (groups, binding)
    assert remote is None or remote.entries == entries
    accepted: list[str] = []
    imported(path, positions, remote, accepted.extend, durability)
    assert all(problem in str(error.value) for problem in accepted)
    assert str(error.value).endswith(". --accept-loss goes on all the same")
    return str(error.value)


def test_given_a_file_of_another_directory_when_imported_then_it_is_refused(path: Path, tmp_path: Path) -> None:
    live(tmp_path / "other", work=_one_group)
    assert "the file is of the data directory of instance" in refused(path, exported(tmp_path / "other"), MemoryRemote())


def test_given_a_broker_that_ran_since_the_export_when_imported_then_it_is_refused(path: Path) -> None:
    async def produce(mq: RocksMQ) -> None:
        await mq.produce("orders", [b"x"])

    positions, remote = exported(path), MemoryRemote()
    live(path, work=produce)
    assert "a broker has run since the export" in refused(path, positions, remote)
    positions = exported(path, remote)
    live(path, remote)
    assert "a broker has run since the export" in refused(path, positions, None)


def test_given_a_file_that_was_imported_before_when_imported_again_then_it_is_refused(path: Path) -> None:
    positions, remote = exported(path), MemoryRemote()
    imported(path, positions, remote)
    other = MemoryRemote("etcd prefix q")
    assert "have moved to etcd prefix p since they were exported from embedded" in refused(path, positions, other)
    assert "are kept in etcd prefix q already, and would be replaced" in refused(path, positions, other)


def test_given_the_store_that_they_are_in_when_imported_then_it_is_refused(path: Path) -> None:
    positions = exported(path)
    add_groups(path, 1)
    assert "are kept in embedded already, and would be replaced" in refused(path, positions, None)
    assert embedded_groups(path) == positions.groups


def test_given_a_position_beyond_the_end_when_imported_then_it_is_refused_as_a_start_would(path: Path) -> None:
    change_group(path, "late", lambda state: state._replace(position=BEYOND))
    text = refused(path, exported(path), MemoryRemote())
    assert f"group 'late' of channel 'orders' is at {BEYOND}, and the channel ends at" in text


def test_given_a_position_beyond_the_end_in_another_mode_when_imported_then_it_goes_as_it_is(path: Path) -> None:
    state = change_group(path, "late", lambda state: state._replace(position=BEYOND))
    remote = MemoryRemote()
    imported(path, exported(path), remote, durability=OS)
    assert remote.groups["late", "orders"] == state


def test_given_a_prefix_of_another_directory_when_imported_then_it_is_refused(path: Path, tmp_path: Path) -> None:
    remote = MemoryRemote()
    live(tmp_path / "other", remote)
    assert "to the data directory of instance" in refused(path, exported(path), remote)


def test_given_a_prefix_of_another_directory_when_its_loss_is_accepted_then_that_one_s_groups_stay(
    path: Path, tmp_path: Path
) -> None:
    async def make(mq: RocksMQ) -> None:
        await mq.create_channel("theirs")
        await mq.create_consumer_group("theirs", "readers")

    remote, own = MemoryRemote(), embedded_groups(path)
    live(tmp_path / "other", remote, make)
    theirs = remote.groups
    assert theirs.keys() == {("readers", "theirs")}
    imported(path, exported(path), remote, lambda problems: None)
    assert remote.groups == theirs | own
    assert binding_of(path).store == remote.name


def test_given_an_older_copy_of_the_directory_when_moved_then_both_ways_are_refused(path: Path, tmp_path: Path) -> None:
    remote, positions = MemoryRemote(), exported(path)
    imported(path, positions, remote)
    for _ in range(2):
        live(path, remote)
    change(path, Put(Family.META, keys.META_BINDING, MetaBinding(remote.name, remote.name, 1, 1).encode()))
    with pytest.raises(DataRefused, match="older than the positions, or a copy"):
        exported(path, remote)
    change(path, Put(Family.META, keys.META_BINDING, MetaBinding("embedded", "embedded", 0, 0).encode()))
    assert "older than the positions, or a copy" in refused(path, positions, remote)


def test_given_positions_that_were_deleted_when_exported_then_it_is_refused_and_another_move_needs_none(path: Path) -> None:
    remote = MemoryRemote()
    imported(path, exported(path), remote)
    positions = exported(path, remote)
    imported(path, positions)
    remote.entries.clear()
    imported(path, exported(path), remote)
    assert binding_of(path).applied_epoch == 2, "an older copy of the directory knows of 1"
    remote.entries.clear()
    with pytest.raises(DataRefused, match="deleted"):
        exported(path, remote)


@pytest.mark.parametrize("is_own", [True, False])
def test_given_a_broker_on_the_prefix_when_moved_then_it_is_refused_whatever_is_accepted(path: Path, is_own: bool) -> None:
    remote, positions = MemoryRemote(), exported(path)
    imported(path, positions, remote)
    instance = positions.header.instance if is_own else "another"
    remote.entries[OWNER] = Owner(instance, 1, "broker-1", 4711).encode()
    with pytest.raises(PrefixInUse, match="in use by the broker with pid 4711 on broker-1"):
        exported(path, remote, lambda problems: None)
    with pytest.raises(PrefixInUse, match="lets go of it after 10 seconds"):
        imported(path, positions, remote, lambda problems: None)


def test_given_a_damaged_prefix_when_imported_then_it_is_refused_with_the_key(path: Path) -> None:
    remote = MemoryRemote()
    remote.entries["billing/orders/state"] = "{"
    with pytest.raises(DataRefused, match="etcd prefix p: the value of billing/orders/state is none that"):
        imported(path, exported(path), remote)


# -- what fails on the way -----------------------------------------------------------------------------


@pytest.mark.parametrize("is_done", [False, True])
@pytest.mark.parametrize("from_remote", [False, True])
def test_given_a_store_that_fails_at_any_call_when_imported_then_the_old_one_is_kept_and_it_can_be_given_again(
    path: Path, is_done: bool, from_remote: bool
) -> None:
    add_groups(path, 70)
    before = embedded_groups(path)
    source = MemoryRemote("etcd prefix source") if from_remote else None
    if source is not None:
        imported(path, exported(path), source)
    positions, bound = exported(path, source), binding_of(path)
    fails_at, outcomes = 0, set[bool]()
    while True not in outcomes:
        fails_at += 1
        remote, copy = MemoryRemote(), shutil.copytree(path, path.with_name(str(fails_at)))
        remote.fails_at, remote.is_done = fails_at, is_done
        try:
            imported(copy, positions, remote)
        except RemoteFailed:
            assert binding_of(copy) == bound
            assert exported(copy, source) == positions
            imported(copy, positions, remote)  # again
        assert remote.groups == before
        assert binding_of(copy).store == remote.name
        outcomes.add(remote.calls < fails_at)
    assert fails_at == len(["read", "take over", *transactions_of(before), "read back", "clean up", "no more"])


def transactions_of(groups: Sized) -> range:
    """Of 124 keys each, two of them a group's."""
    return range(-(-len(groups) // 62))


@pytest.mark.parametrize("to_remote", [True, False])
def test_given_a_directory_that_takes_no_binding_when_imported_then_the_old_store_goes_on(
    path: Path, to_remote: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = MemoryRemote("etcd prefix old"), MemoryRemote() if to_remote else None
    imported(path, exported(path), old)
    live(path, old)
    positions = exported(path, old)

    def fail(importer: Importer, binding: MetaBinding, *changes: Change) -> None:
        raise StorageFailed("no more")

    with monkeypatch.context() as patched:
        patched.setattr(Importer, "_bind", fail)
        with pytest.raises(StorageFailed):
            imported(path, positions, new)
    assert exported(path, old) == positions
    imported(path, positions, new)
    assert exported(path, new).groups == positions.groups


@pytest.mark.parametrize("to_remote", [True, False])
def test_given_another_content_read_back_when_imported_then_nothing_is_bound(
    path: Path, to_remote: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote, positions = MemoryRemote(), exported(path)

    def other(entries: dict[str, str]) -> dict[str, str]:
        return {key: value for key, value in entries.items() if not key.startswith("late/")}

    remote.on_read = other
    if not to_remote:
        remote.on_read = lambda entries: entries
        imported(path, positions, remote)
        positions = exported(path, remote)
        monkeypatch.setattr("rocksmq.broker.meta_move.stored_groups", no_groups)
    bound = binding_of(path)
    with pytest.raises(DataRefused, match="differs from what is read back: nothing was moved"):
        imported(path, positions, remote if to_remote else None)
    assert binding_of(path) == bound


def no_groups(store: Store) -> Iterator[tuple[GroupKey, GroupState]]:
    """As `stored_groups`."""
    return iter(())


def test_given_another_writer_when_imported_then_it_stops(path: Path) -> None:
    remote = MemoryRemote()

    def taken_over(entries: dict[str, str]) -> dict[str, str]:
        remote.entries["commit"] = "5 5"
        return entries

    remote.on_read = taken_over
    with pytest.raises(RemoteFailed, match="something else writes there"):
        imported(path, exported(path), remote)
    assert binding_of(path).store == "embedded"


def test_given_an_import_that_was_cut_short_when_a_newer_broker_took_over_then_it_is_refused(path: Path) -> None:
    remote, positions = MemoryRemote(), exported(path)
    remote.fails_at = 3
    with pytest.raises(RemoteFailed):
        imported(path, positions, remote)
    remote.entries["commit"] = "2 5"
    assert "older than the positions, or a copy" in refused(path, positions, remote)


def test_given_many_problems_when_refused_then_the_first_are_told_and_the_others_counted() -> None:
    refusing([])
    with pytest.raises(DataRefused, match=r"^0; 1; 2; 3; 4 \(and 2 more\)\. --accept-loss"):
        refusing([str(number) for number in range(7)])


def test_given_an_import_when_done_then_the_prefix_tells_whose_it_is(path: Path) -> None:
    remote, positions = MemoryRemote(), exported(path)
    imported(path, positions, remote)
    assert DataMark.decode(remote.entries[DATA]) == (positions.header.instance, positions.header.commit_number)
    assert {key for key in remote.entries if "/" not in key} == {"commit", "data"}
    assert json.loads(remote.entries["billing/orders/state"])["channel_number"] == number_of(path, "orders")
