"""`check` with positions in a store elsewhere: it says what a start would refuse, in the same words, and only reads."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from rocksmq.broker import keys
from rocksmq.broker.check import ChannelFound, Overview, Total, check
from rocksmq.broker.directory import DataDirectory
from rocksmq.broker.durability import Durability
from rocksmq.broker.engine import RocksMQ
from rocksmq.broker.findings import Finding
from rocksmq.broker.meta_move import read_positions, refusing
from rocksmq.broker.prefix import COMMIT, DATA, OWNER, DataMark, Owner, decode_state, group_entries
from rocksmq.broker.reconcile import PrefixInUse
from rocksmq.broker.records import GroupState, MetaBinding
from rocksmq.broker.store import DataRefused, Family, Put

from .check_support import Healthy, change, findings, listing, only
from .meta_support import MemoryRemote, embedded_groups, live
from .support import FSYNC

BEYOND = 1 << 60  # an id that nothing has
OS, INTERVAL = Durability.parse("os"), Durability.parse("interval:100")


class Place:
    """A healthy directory whose positions are in ``remote``."""

    def __init__(self, path: Path, remote: MemoryRemote) -> None:
        self.path = path
        self.remote = remote

    def change_group(self, new: Callable[[GroupState], GroupState], group: str = "late", channel: str = "orders") -> None:
        state = new(decode_state(self.remote.entries[f"{group}/{channel}/state"]))
        self.put_group(group, channel, state)

    def put_group(self, group: str, channel: str, state: GroupState) -> None:
        self.remote.entries |= {key: str(value) for key, value in group_entries((group, channel), state).items()}

    def bind(self, store: str, planned_epoch: int, applied_epoch: int) -> None:
        binding = MetaBinding(store, store, planned_epoch, applied_epoch)
        change(self.path, Put(Family.META, keys.META_BINDING, binding.encode()))


@pytest.fixture(scope="module")
def moved(tmp_path_factory: pytest.TempPathFactory, checked_original: Healthy) -> Place:
    """The original."""
    path = tmp_path_factory.mktemp("moved") / "data"
    shutil.copytree(checked_original.path, path)
    groups, remote = embedded_groups(path), MemoryRemote()
    place = Place(path, remote)
    place.bind(remote.name, 0, 0)
    live(path, remote)
    for (group, channel), state in groups.items():
        place.put_group(group, channel, state)
    live(path, remote)
    return place


@pytest.fixture
def place(moved: Place, tmp_path: Path) -> Place:
    """A copy to damage."""
    shutil.copytree(moved.path, tmp_path / "data")
    remote = MemoryRemote()
    remote.entries = dict(moved.remote.entries)
    return Place(tmp_path / "data", remote)


def started(place: Place) -> str:
    """Why a start is refused; empty when it is not."""
    try:
        live(place.path, place.remote)
    except (DataRefused, PrefixInUse) as error:
        return str(error)
    return ""


def end_of(place: Place, channel: str) -> int:
    """The id behind the last message."""
    ends = [item.end_id for item in check(place.path) if isinstance(item, ChannelFound) and item.name == channel]
    assert ends[0] is not None
    return ends[0] + 1


# -- healthy ---------------------------------------------------------------------------------------


def test_given_a_healthy_store_elsewhere_when_checked_then_its_groups_count_and_nothing_is_changed(place: Place) -> None:
    entries, files = dict(place.remote.entries), listing(place.path)
    overview, *_, total = check(place.path, place.remote)
    assert isinstance(overview, Overview)
    assert isinstance(total, Total)
    assert (total.channels, total.groups, total.problems, total.notes) == (4, 4, 0, 0)
    assert place.remote.entries == entries
    assert place.remote.calls == 1
    assert listing(place.path) == files


def test_given_a_directory_that_is_bound_elsewhere_when_no_store_is_named_then_it_is_a_note(place: Place) -> None:
    assert only(place.path) == (
        "note positions: they are kept in etcd prefix p: not checked; --meta etcd://HOST:PORT/PREFIX names it"
    )


def test_given_a_store_that_lost_what_it_acknowledged_when_checked_then_the_copy_counts_which_a_start_writes_there(
    place: Place,
) -> None:
    before = dict(place.remote.entries)
    live(place.path, place.remote, lambda mq: mq.create_consumer_group("orders", "acknowledged"))
    lost = place.remote.entries
    epoch, number = lost[COMMIT].split()
    place.remote.entries = before | {COMMIT: f"{epoch} {int(number) - 5}"}
    *items, total = check(place.path, place.remote)
    assert isinstance(total, Total)
    assert (total.groups, total.problems, total.notes) == (5, 0, 1)
    assert any("etcd prefix p has lost what it had acknowledged" in str(item) for item in items)
    with pytest.raises(DataRefused, match=r"has lost what it had acknowledged: .*; start the broker on it once"):
        read_positions(place.path, place.remote, refusing)
    live(place.path, place.remote, lambda mq: mq.create_consumer_group("orders", "more"))
    assert "acknowledged/orders/state" in place.remote.entries
    assert place.remote.entries["acknowledged/orders/state"] == lost["acknowledged/orders/state"]
    assert findings(place.path, place.remote) == []


def test_given_a_group_of_a_destroyed_channel_when_checked_then_it_is_a_note(place: Place) -> None:
    place.put_group("billing", "gone", decode_state(place.remote.entries["late/orders/state"]))
    assert only(place.path, place.remote).startswith("note group billing of gone: its channel, number ")
    assert not started(place)


def test_given_a_broker_of_this_instance_there_when_checked_then_it_is_a_note(place: Place) -> None:
    instance = DataMark.decode(place.remote.entries[DATA]).instance
    place.remote.entries[OWNER] = Owner(instance, 2, "broker-1", 4711).encode()
    found = only(place.path, place.remote)
    assert found.startswith("note positions: etcd prefix p is owned by this instance (pid 4711 on broker-1): ")
    assert not started(place)


# -- what a start refuses ------------------------------------------------------------------------------


def of_another_directory(place: Place) -> None:
    place.remote.entries[DATA] = DataMark("another", 1).encode()


def in_use_by_another(place: Place) -> None:
    place.remote.entries[OWNER] = Owner("another", 2, "broker-1", 4711).encode()


def older_directory(place: Place) -> None:
    place.bind(place.remote.name, 1, 1)


def less_data(place: Place) -> None:
    mark = DataMark.decode(place.remote.entries[DATA])
    place.remote.entries[DATA] = mark._replace(commit_number=mark.commit_number + 100).encode()


def older_positions(place: Place) -> None:
    place.bind(place.remote.name, 5, 5)


def older_in_both(place: Place) -> None:
    less_data(place)
    older_positions(place)


def deleted(place: Place) -> None:
    place.remote.entries.clear()


def bound_to_another(place: Place) -> None:
    place.bind("etcd prefix q", 2, 2)


def bound_to_itself(place: Place) -> None:
    place.bind("embedded", 2, 2)


def damaged_state(place: Place) -> None:
    place.remote.entries["late/orders/state"] = "[]"


def missing_state(place: Place) -> None:
    del place.remote.entries["late/orders/state"]


def missing_position(place: Place) -> None:
    del place.remote.entries["late/orders/current_id"]


def other_position(place: Place) -> None:
    place.remote.entries["late/orders/current_id"] = "7"


def damaged_commit(place: Place) -> None:
    place.remote.entries[COMMIT] = "x"


def damaged_data(place: Place) -> None:
    place.remote.entries[DATA] = "x"


def damaged_owner(place: Place) -> None:
    place.remote.entries[OWNER] = "x"


WRONG = [
    of_another_directory,
    in_use_by_another,
    older_directory,
    less_data,
    older_positions,
    older_in_both,
    deleted,
    bound_to_another,
    bound_to_itself,
    damaged_state,
    missing_state,
    missing_position,
    other_position,
    damaged_commit,
    damaged_data,
    damaged_owner,
]


@pytest.mark.parametrize("damage", WRONG)
def test_given_what_a_start_refuses_when_checked_then_it_is_said_in_the_same_words(
    place: Place, damage: Callable[[Place], None]
) -> None:
    damage(place)
    found = list(check(place.path, place.remote))
    refusal = started(place)
    problems = [item for item in found if isinstance(item, Finding)]
    assert problems
    assert refusal
    for item in problems:
        assert item.is_problem
        assert item.text in refusal
    assert isinstance(found[-1], Total)
    assert (found[-1].channels, found[-1].message_count) == (4, 122), "the rest was checked all the same"


def test_given_positions_of_another_directory_when_checked_then_its_groups_are_none_of_this_one_s(place: Place) -> None:
    of_another_directory(place)
    *_, total = check(place.path, place.remote)
    assert isinstance(total, Total)
    assert (total.groups, total.problems, total.notes) == (0, 1, 0)


def test_given_one_damaged_group_when_checked_then_the_others_are_held_against_the_messages(place: Place) -> None:
    damaged_state(place)
    place.change_group(lambda state: state._replace(offset=state.offset + 1), "shipping")
    damage, offset = findings(place.path, place.remote)
    assert "etcd prefix p: the value of late/orders/state is none that" in damage
    assert "problem group shipping of orders: " in offset


def test_given_several_stores_in_one_place_when_checked_then_only_its_own_keys_count(place: Place) -> None:
    place.remote.entries |= {"b/commit": "x", "b/data": "x", "b/late/orders/state": "x", "b/orders/begin_id": "x", "c": "x"}
    assert findings(place.path, place.remote) == []
    assert not started(place)


@pytest.mark.parametrize("group", ["billing/orders", "early/empty"])
def test_given_a_position_beyond_the_end_when_checked_then_it_is_a_problem_as_for_a_start(place: Place, group: str) -> None:
    name, channel = group.split("/")
    place.change_group(lambda state: state._replace(position=BEYOND, consumers={}), name, channel)
    assert only(place.path, place.remote).startswith(f"problem group {name} of {channel}: its position {BEYOND} lies beyond")
    assert f"group '{name}' of channel '{channel}' is at {BEYOND}, and the channel ends at" in started(place)


@pytest.mark.parametrize("durability", [OS, INTERVAL])
def test_given_a_position_beyond_the_end_in_another_mode_when_checked_then_it_is_a_note_with_where_it_goes(
    place: Place, durability: Durability
) -> None:
    place.change_group(lambda state: state._replace(position=BEYOND))
    end = end_of(place, "orders")
    note = only(place.path, place.remote, durability)
    mode = durability.mode
    assert note == (
        f"note group late of orders: its position {BEYOND} lies beyond the channel's end, as a power cut may leave it in mode"
        f" {mode}: the next start moves it to {end}"
    )


def test_given_a_channel_that_names_its_mode_when_checked_then_that_counts(place: Place) -> None:
    live(place.path, place.remote, lambda mq: mq.create_consumer_group("plain", "late"))
    place.change_group(lambda state: state._replace(position=BEYOND), channel="plain")
    assert only(place.path, place.remote, FSYNC).startswith("note group late of plain: its position ")
    live(place.path, place.remote, lambda mq: mq.create_consumer_group("plain", "later"))
    assert json.loads(place.remote.entries["late/plain/state"])["position"] == end_of(place, "plain")
    assert findings(place.path, place.remote) == []


def test_given_what_a_consumer_was_handed_and_a_power_cut_took_when_checked_then_only_the_position_is_told(
    place: Place,
) -> None:
    def further(state: GroupState) -> GroupState:
        consumers = {id_: entry._replace(end=BEYOND) for id_, entry in state.consumers.items()}
        return state._replace(position=BEYOND, consumers=consumers)

    place.change_group(further, "billing")
    assert all(re.match("note group billing of orders: its position", text) for text in findings(place.path, place.remote, OS))
    assert len(findings(place.path, place.remote, FSYNC)) > 1


# -- what cannot be read ----------------------------------------------------------------------------------


def test_given_a_store_that_is_away_when_checked_then_it_is_a_problem_and_the_rest_is_checked(place: Place) -> None:
    place.remote.fails_at = 1
    *items, total = check(place.path, place.remote)
    assert isinstance(total, Total)
    assert (total.problems, total.message_count) == (1, 122)
    assert any("etcd prefix p: no answer: they were not checked" in str(item) for item in items)


def test_given_a_new_directory_and_positions_of_another_life_when_checked_then_it_is_told(place: Place, tmp_path: Path) -> None:
    DataDirectory(tmp_path / "new").close()
    (note,) = (text for text in findings(tmp_path / "new", MemoryRemote()) if text.startswith("note"))
    assert note == "note database: nothing was ever stored"
    (problem,) = (text for text in findings(tmp_path / "new", place.remote) if text.startswith("problem"))
    assert "to the data directory of instance" in problem


def test_given_a_damaged_binding_when_checked_then_the_groups_are_read_all_the_same(place: Place) -> None:
    change(place.path, Put(Family.META, keys.META_BINDING, b"x"))
    found = findings(place.path, place.remote)
    assert len(found) == 1
    assert found[0].startswith("problem record b'!meta': a meta binding record is damaged")


def test_given_a_format_that_is_damaged_when_checked_then_the_positions_are_read_all_the_same(place: Place) -> None:
    (place.path / "format").write_text("x")
    (found,) = findings(place.path, place.remote)
    assert found.startswith("problem format: ")


def test_given_an_export_of_what_was_checked_when_read_then_it_has_the_groups_that_were_counted(place: Place) -> None:
    *_, total = check(place.path, place.remote)
    assert isinstance(total, Total)
    assert len(read_positions(place.path, place.remote, lambda problems: None).groups) == total.groups


def test_given_a_store_named_for_a_directory_without_groups_when_checked_then_nothing_is_found(tmp_path: Path) -> None:
    async def channel_only(mq: RocksMQ) -> None:
        await mq.create_channel("orders")

    live(tmp_path, work=channel_only)
    assert findings(tmp_path, MemoryRemote()) == []
