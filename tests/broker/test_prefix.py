"""What stands under the prefix: each state comes back as it was, damage is refused by name, the rest is left alone."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rocksmq.broker.fence import CommitValue
from rocksmq.broker.keys import ID_MAX
from rocksmq.broker.prefix import (
    COMMIT,
    CURRENT_ID,
    DATA,
    OWNER,
    STATE,
    DataMark,
    Found,
    Owner,
    channel_entries,
    decode_state,
    encode_state,
    group_entries,
)
from rocksmq.broker.records import ConsumerEntry, GroupState, LastSeek
from rocksmq.broker.store import DataRefused

WHERE = "etcd prefix p"
KEY = ("billing", "orders")
PATH = "billing/orders"
ids = st.integers(0, ID_MAX)
identities = st.binary(min_size=16, max_size=16)
entries = st.builds(ConsumerEntry, ids, ids, ids, st.integers(0, 10_000), ids, ids, st.booleans(), ids, ids)
states = st.builds(
    GroupState,
    ids,
    ids,
    identities,
    ids,
    ids,
    ids,
    st.binary(max_size=256),
    st.none() | st.builds(LastSeek, identities, ids, ids, st.integers(0, 3), ids),
    st.dictionaries(identities, entries, max_size=4),
    ids,
)
STATE_HERE = GroupState(
    1, 2, bytes(16), 9, 4, 5, b"m", LastSeek(bytes(16), 9, 4, 1, 5), {bytes(16): ConsumerEntry(0, 8, 9, 1, 5, 7)}, 0
)


def written(state: GroupState = STATE_HERE) -> dict[str, str]:
    """As a broker writes it."""
    found = {COMMIT: "3 77", OWNER: Owner("1f", 3, "here", 1).encode(), DATA: DataMark("1f", 5).encode()}
    both = group_entries(KEY, state) | channel_entries("orders", (1, 8))
    return found | {key: value for key, value in both.items() if value is not None}


@settings(derandomize=True, database=None, deadline=None)
@given(states)
def test_given_any_state_when_written_and_read_then_it_is_the_same(state: GroupState) -> None:
    assert decode_state(encode_state(state)) == state
    assert Found.decode(written(state), WHERE).groups == {KEY: state}


def test_given_all_that_a_broker_writes_when_read_then_it_is_the_same() -> None:
    assert Found.decode(written(), WHERE) == Found(
        CommitValue(3, 77), Owner("1f", 3, "here", 1), DataMark("1f", 5), {KEY: STATE_HERE}, {"orders"}
    )
    assert Found.decode({}, WHERE) == Found(None, None, None, {}, set())


def test_given_a_group_or_a_channel_that_is_gone_when_written_then_both_its_keys_are_deleted() -> None:
    assert group_entries(KEY, None) == {f"{PATH}/current_id": None, f"{PATH}/state": None}
    assert channel_entries("orders", None) == {"orders/begin_id": None, "orders/end_id": None}


def test_given_a_state_when_written_then_a_person_can_read_it() -> None:
    text = encode_state(STATE_HERE)
    assert "\n" not in text
    assert json.loads(text)["position"] == 9
    assert written()[f"{PATH}/{CURRENT_ID}"] == "9"
    assert written()["orders/end_id"] == "8"


@pytest.mark.parametrize(
    "key",
    [
        *("motd", "x/y", "orders/note", "billing/orders/note", "a/b/c/state", "a/b/c/current_id", "", "/", "//"),
        *("nested/commit", "nested/owner", "nested/data", "nested/orders/begin_id", "nested/orders/end_id"),
        *("nested/billing/orders/current_id", "nested/billing/orders/state", "a/b/commit", "a/b/owner", "a/b/data"),
    ],
)
def test_given_keys_of_somebody_else_or_of_a_prefix_within_when_read_then_they_are_left_alone(key: str) -> None:
    assert Found.decode({**written(), key: "anything"}, WHERE) == Found.decode(written(), WHERE)


# -- damage ------------------------------------------------------------------------------------------

NONE_OF_OURS = ["", "x", "null", "5", "[]", '"x"', "{}", '{"version": 1}', "[[[", "\ufffd", "-1", "1.5", "1 2 3", "a b"]


@pytest.mark.parametrize("text", NONE_OF_OURS)
@pytest.mark.parametrize("key", [COMMIT, OWNER, DATA, f"{PATH}/{STATE}", f"{PATH}/{CURRENT_ID}"])
def test_given_a_value_that_no_broker_wrote_when_read_then_it_is_refused_and_key_and_prefix_are_named(
    key: str, text: str
) -> None:
    with pytest.raises(DataRefused) as refused:
        Found.decode({**written(), key: text}, WHERE)
    assert WHERE in str(refused.value)
    assert key in str(refused.value)


@pytest.mark.parametrize("missing", [STATE, CURRENT_ID])
def test_given_half_of_a_group_when_read_then_the_half_that_is_missing_is_named(missing: str) -> None:
    entries = written()
    del entries[f"{PATH}/{missing}"]
    with pytest.raises(DataRefused, match=f"{WHERE}.*{PATH}/{missing} is missing"):
        Found.decode(entries, WHERE)


def test_given_a_position_that_was_moved_by_hand_when_read_then_it_is_refused_with_both() -> None:
    with pytest.raises(DataRefused, match=r"orders/current_id is 8, and the state beside it says 9.*group seek"):
        Found.decode({**written(), f"{PATH}/{CURRENT_ID}": "8"}, WHERE)


def test_given_a_state_of_a_newer_version_when_read_then_it_says_so() -> None:
    fields = {**json.loads(encode_state(STATE_HERE)), "version": 2}
    with pytest.raises(DataRefused, match=r"version 2; this broker reads 1"):
        Found.decode({**written(), f"{PATH}/{STATE}": json.dumps(fields)}, WHERE)


@pytest.mark.parametrize("damage", [None, "9", 9.0, True, -1, 1 << 64, [], {}, [1], "zz"])
@pytest.mark.parametrize("field", [*GroupState._fields, "version"])
def test_given_a_field_of_another_type_when_read_then_it_is_refused(field: str, damage: Any) -> None:
    if damage == {} and field == "consumers":
        return  # none is none
    if (field, damage) in (("last_seek", None), ("version", True)):
        return
    fields = {**json.loads(encode_state(STATE_HERE)), field: damage}
    with pytest.raises(DataRefused, match=PATH):
        Found.decode({**written(), f"{PATH}/{STATE}": json.dumps(fields)}, WHERE)


@pytest.mark.parametrize("field", [*GroupState._fields, "version"])
def test_given_a_field_missing_or_too_many_when_read_then_it_is_refused(field: str) -> None:
    fields = json.loads(encode_state(STATE_HERE))
    for changed in ({key: value for key, value in fields.items() if key != field}, {**fields, f"{field}2": 1}):
        with pytest.raises(DataRefused, match=PATH):
            Found.decode({**written(), f"{PATH}/{STATE}": json.dumps(changed)}, WHERE)


@pytest.mark.parametrize("damage", [None, "9", 9.5, -1, []])
@pytest.mark.parametrize("field", ConsumerEntry._fields[:-1])
def test_given_a_consumer_entry_of_another_type_when_read_then_it_is_refused(field: str, damage: Any) -> None:
    fields = json.loads(encode_state(STATE_HERE))
    fields["consumers"][bytes(16).hex()][field] = damage
    with pytest.raises(DataRefused, match=PATH):
        Found.decode({**written(), f"{PATH}/{STATE}": json.dumps(fields)}, WHERE)


@pytest.mark.parametrize("damage", [None, "9", -1, []])
@pytest.mark.parametrize("field", LastSeek._fields)
def test_given_a_last_seek_of_another_type_when_read_then_it_is_refused(field: str, damage: Any) -> None:
    if (field, damage) == ("request_id", "9"):
        damage = "9z"
    fields = json.loads(encode_state(STATE_HERE))
    fields["last_seek"][field] = damage
    with pytest.raises(DataRefused, match=PATH):
        Found.decode({**written(), f"{PATH}/{STATE}": json.dumps(fields)}, WHERE)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (DATA, '{"instance": "1f", "commit_number": "5"}'),
        (DATA, '{"instance": "1f", "commit_number": 5.0}'),
        (DATA, '{"instance": "1f"}'),
        (OWNER, '{"instance": "1f", "epoch": 3, "host": "here", "pid": 1, "more": 1}'),
        (COMMIT, "3  77"),
    ],
)
def test_given_a_value_that_is_almost_one_when_read_then_it_is_refused(key: str, value: str) -> None:
    with pytest.raises(DataRefused, match=key):
        Found.decode({**written(), key: value}, WHERE)
