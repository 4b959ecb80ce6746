"""`check` on damaged records of channels, producers and groups."""

import shutil
from typing import Any

import pytest

from rocksmq.broker import keys
from rocksmq.broker.records import EMPTY_EXTENT, ChannelSettings, Extent, GroupState, ProducedEntry, ProducerName
from rocksmq.broker.store import Delete, Family, Put

from .check_support import (
    CONSUMER,
    Healthy,
    batch_entry,
    change,
    change_group,
    entries,
    findings,
    number_of,
    only,
    stored,
)

DATA, META = Family.DATA, Family.META


# -- records -------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", [keys.SETTINGS, keys.EXTENT, keys.PRODUCER, keys.NAME, b"g/billing/orders/state"])
@pytest.mark.parametrize("cut", [0, 1])
def test_given_a_record_cut_short_when_checked_then_it_is_named(healthy: Healthy, prefix: bytes, cut: int) -> None:
    key, value = entries(healthy.path, META, prefix)[-1]
    change(healthy.path, Put(META, key, value[:-1] if cut else b""))
    damage, *others = findings(healthy.path)
    assert damage.startswith(f"problem record {key!r}: a ")
    assert all("not checked" in line for line in others), others


def test_given_settings_that_are_gone_when_checked_then_the_channel_is_lost(healthy: Healthy) -> None:
    number = number_of(healthy.path, "orders")
    change(healthy.path, Delete(META, keys.settings_key(number)))
    lost, rest = findings(healthy.path)
    assert lost == f"problem channel number {number}: its settings are missing, so the channel is lost, with 61 messages"
    assert rest == "problem messages: 21 entries of a channel whose records are damaged: not checked"


def test_given_an_extent_that_is_gone_when_checked_then_it_is_told(healthy: Healthy) -> None:
    change(healthy.path, Delete(META, keys.extent_key(number_of(healthy.path, "orders"))))
    assert "problem channel orders: the record of what it holds is missing" in findings(healthy.path)


def test_given_two_channels_of_one_name_when_checked_then_it_is_told(healthy: Healthy) -> None:
    settings = keys.settings_key(number_of(healthy.path, "plain"))
    change(healthy.path, Put(META, settings, stored(healthy.path, META, keys.settings_key(number_of(healthy.path, "aside")))))
    assert any("there are two of this name" in line for line in findings(healthy.path))


def test_given_what_belongs_to_no_channel_when_checked_then_it_is_garbage_and_no_problem(healthy: Healthy) -> None:
    state = GroupState.decode(stored(healthy.path, META, keys.group_key("billing", "orders", "state")))
    _, value = batch_entry(healthy, 9)
    change(
        healthy.path,
        *(Put(DATA, keys.batch_key(number, 1), value) for number in (1, state.channel_number - 1, keys.ID_MAX)),
        Put(META, keys.group_key("billing", "former", "state"), state.encode()),
        Put(META, keys.group_key("billing", "former", "current_id"), str(state.position).encode()),
        Put(META, keys.producer_key(1, b"p" * 16, 0), bytes(20)),
        Put(META, b"z", b""),
        Put(META, b"!z", b""),
        Put(META, keys.group_key("billing", "orders", "other"), b""),
    )
    found = findings(healthy.path)
    assert len(found) == 8
    assert all(line.startswith("note ") for line in found), found


def test_given_a_producer_s_record_under_another_number_s_key_when_checked_then_it_is_told(healthy: Healthy) -> None:
    key, value = entries(healthy.path, META, keys.PRODUCER)[0]
    change(healthy.path, Put(META, key[:-1] + bytes((key[-1] + 1,)), value))
    assert "does not belong under this key" in only(healthy.path)


# -- groups --------------------------------------------------------------------------------------


def test_given_a_position_beyond_the_end_when_checked_then_it_is_told(healthy: Healthy) -> None:
    end = healthy.ids[-1] + 1
    change_group(healthy.path, "late", lambda state: state._replace(position=end + 1))
    assert only(healthy.path) == (
        f"problem group late of orders: its position {end + 1} lies beyond the channel's end: at most {end} is possible"
    )


@pytest.mark.parametrize("group", ["billing", "shipping", "late"])
@pytest.mark.parametrize("step", [-1, 1])
def test_given_an_offset_that_does_not_match_when_checked_then_it_is_told(healthy: Healthy, group: str, step: int) -> None:
    state = change_group(healthy.path, group, lambda state: state._replace(offset=state.offset + step))
    assert only(healthy.path).endswith(f"before its position {state.position}, but it counts {state.offset}")


def test_given_a_position_before_the_begin_when_checked_then_fewer_messages_before_it_are_fine_and_more_are_not(
    healthy: Healthy,
) -> None:
    change_group(healthy.path, "billing", lambda state: state._replace(position=1, offset=0, consumers={}))
    assert findings(healthy.path) == []
    change_group(healthy.path, "billing", lambda state: state._replace(offset=1))
    assert "0 messages lie before its position 1, but it counts 1" in only(healthy.path)


def test_given_a_current_id_that_differs_when_checked_then_it_is_told(healthy: Healthy) -> None:
    change(healthy.path, Put(META, keys.group_key("billing", "orders", "current_id"), b"7"))
    assert only(healthy.path).startswith("problem group billing of orders: current_id says 7, and state says ")


@pytest.mark.parametrize(("leaf", "text"), [("current_id", "current_id is missing"), ("state", "the group is lost")])
@pytest.mark.parametrize("group", ["billing", "shipping"])
def test_given_one_of_a_group_s_two_records_missing_when_checked_then_it_is_told(
    healthy: Healthy, group: str, leaf: str, text: str
) -> None:
    change(healthy.path, Delete(META, keys.group_key(group, "orders", leaf)))
    found = only(healthy.path)
    assert found.startswith(f"problem group {group} of orders: ")
    assert text in found


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"end": 1 << 60}, "beyond the channel's end"),
        ({"begin": 1 << 61}, "which cannot be"),
        ({"message_count": 0}, "which cannot be"),
        ({"message_count": 2}, "but it counts 2"),
        ({"generation": 1 << 62}, "which the group has not reached"),
    ],
)
def test_given_a_consumer_s_entry_that_cannot_be_when_checked_then_it_is_told(
    healthy: Healthy, fields: dict[str, Any], text: str
) -> None:
    def changed(state: GroupState) -> GroupState:
        return state._replace(consumers={**state.consumers, CONSUMER: state.consumers[CONSUMER]._replace(**fields)})

    change_group(healthy.path, "billing", changed)
    found = findings(healthy.path)
    assert found[0].startswith(f"problem group billing of orders: consumer id {CONSUMER.hex()}: ")
    assert text in found[0]


def test_given_an_entry_beyond_its_group_s_position_when_checked_then_it_is_told(healthy: Healthy) -> None:
    change_group(healthy.path, "billing", lambda state: state._replace(position=healthy.ids[8], offset=8))
    assert any("beyond the group's position" in line for line in findings(healthy.path))


def test_given_a_state_of_wrong_types_when_checked_then_it_does_not_decode(healthy: Healthy) -> None:
    for wrong in ({"position": "7"}, {"metadata": 7}, {"offset": None}):
        key = keys.group_key("billing", "orders", "state")
        state = GroupState.decode(stored(healthy.path, META, key))
        change(healthy.path, Put(META, key, state._replace(**wrong).encode()))
        assert "it holds a " in only(healthy.path)
        change(healthy.path, Put(META, key, state.encode()))


def test_given_a_binding_that_is_damaged_when_checked_then_it_is_told(healthy: Healthy) -> None:
    change(healthy.path, Put(META, keys.META_BINDING, b""))
    assert only(healthy.path).startswith("problem record b'!meta': a meta binding record is damaged")


FAR = 1 << 62  # an id that nobody has been given


@pytest.mark.parametrize("field", ["creation_id", "generation", "forgotten"])
def test_given_a_group_s_id_beyond_the_window_when_checked_then_it_is_told(healthy: Healthy, field: str) -> None:
    fields: dict[str, Any] = {"generation": FAR} | {field: FAR}
    change_group(healthy.path, "late", lambda state: state._replace(**(fields if field == "creation_id" else {field: FAR})))
    assert f"of group late of orders is {FAR}: ids would be given out twice" in only(healthy.path)


def test_given_other_ids_beyond_the_window_when_checked_then_they_are_told(healthy: Healthy) -> None:
    number = number_of(healthy.path, "orders")
    settings = stored(healthy.path, META, keys.settings_key(number))
    far_settings = ChannelSettings.decode(settings)._replace(name="far")
    changes: list[tuple[Put, ...]] = [
        (Put(META, keys.FORGOTTEN, keys.u64(FAR)),),
        (Put(META, keys.producer_key(number, b"p" * 16, 0), ProducedEntry(0, FAR, 0).encode()),),
        (
            Put(META, keys.settings_key(FAR), far_settings.encode()),
            Put(META, keys.extent_key(FAR), EMPTY_EXTENT.encode()),
        ),
        (Put(META, keys.extent_key(number), Extent(FAR + 1, FAR, 61, 61, 0, 0, FAR + 1).encode()),),
    ]
    for index, puts in enumerate(changes):
        path = healthy.path.with_name(f"data-{index}")
        shutil.copytree(healthy.path, path)
        change(path, *puts)
        assert any(f" is {FAR}: ids would be given out twice" in line for line in findings(path)), puts


def test_given_a_group_at_the_end_when_checked_then_its_offset_is_the_end_s(healthy: Healthy) -> None:
    change_group(healthy.path, "late", lambda state: state._replace(position=healthy.ids[-1] + 1, offset=61))
    assert findings(healthy.path) == []
    change_group(healthy.path, "late", lambda state: state._replace(offset=60))
    assert "61 messages lie before its position" in only(healthy.path)


def test_given_a_position_among_messages_that_are_gone_when_checked_then_only_those_are_told_of(healthy: Healthy) -> None:
    state = GroupState.decode(stored(healthy.path, META, keys.group_key("shipping", "orders", "state")))
    assert state.position == healthy.batches[4][2]
    key, _ = batch_entry(healthy, 4)
    change(healthy.path, Delete(DATA, key))
    assert "3 messages missing" in only(healthy.path)


def test_given_a_generation_before_the_creation_when_checked_then_it_is_told(healthy: Healthy) -> None:
    change_group(healthy.path, "late", lambda state: state._replace(generation=1))
    assert "its generation 1 lies before its creation" in only(healthy.path)


@pytest.mark.parametrize("fields", [{"name": "a/b"}, {"name": 7}, {"durability": "never"}, {"durability": 7}])
def test_given_settings_that_no_channel_has_when_checked_then_they_are_told(healthy: Healthy, fields: dict[str, Any]) -> None:
    key = keys.settings_key(number_of(healthy.path, "aside"))
    settings = ChannelSettings.decode(stored(healthy.path, META, key))
    change(healthy.path, Put(META, key, settings._replace(**fields).encode()))
    damage, rest = findings(healthy.path)
    assert damage.startswith(f"problem record {key!r}: it is damaged: ")
    assert "not checked" in rest


def test_given_producers_records_that_cannot_be_when_checked_then_they_are_told(healthy: Healthy) -> None:
    number = number_of(healthy.path, "orders")
    change(
        healthy.path,
        Put(META, keys.name_key(number, "a/b"), ProducerName(b"p" * 16, None, 1).encode()),
        Put(META, keys.name_key(number, "short"), ProducerName(b"p", None, 1).encode()),
        Put(META, keys.settings_key(number) + b"x", stored(healthy.path, META, keys.settings_key(number))),
        Put(META, keys.producer_key(number, b"p" * 16, 0) + b"x", bytes(20)),
    )
    found = findings(healthy.path)
    assert len(found) == 4
    assert all(line.startswith("problem record ") for line in found), found
