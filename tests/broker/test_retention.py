"""What may go: rules as requests carry them, where each cuts, and what groups hold. All of it pure."""

from dataclasses import fields
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rocksmq.broker.groups import Group
from rocksmq.broker.ids import COUNTER_BITS
from rocksmq.broker.records import EMPTY_EXTENT, ConsumerEntry, Extent, GroupState
from rocksmq.broker.retention import KEEP_ALL, REPEAT_MS, Cut, Hold, RetentionSection, Rules, cut, holds
from rocksmq.protocol.errors import InvalidRequest

from .support import NOON_MS, identity

BEGIN, END = (NOON_MS << COUNTER_BITS) + 5, (NOON_MS + 90 << COUNTER_BITS) + 3
FULL = Extent(BEGIN, END, 10, 110, 1_000, 6_000, BEGIN)
U64 = st.integers(0, (1 << 64) - 1)


# -- rules -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given_map", "rules"),
    [
        ({}, KEEP_ALL),
        ({"max_age_ms": 1}, Rules(max_age_ms=1)),
        ({"max_bytes": (1 << 64) - 1}, Rules(max_bytes=(1 << 64) - 1)),
        ({"max_messages": 7, "max_bytes": 1}, Rules(max_messages=7, max_bytes=1)),
        ({"consumed_by_all": 1}, Rules(consumed_by_all=True)),
        ({"consumed_by_all": 0}, KEEP_ALL),
        ({"consumed_by_all": 0, "max_age_ms": 5}, Rules(max_age_ms=5)),
        ({"max_messages": 3, "consumed_by_all": 1, "max_bytes": 2, "max_age_ms": 1}, Rules(1, 2, 3, True)),
    ],
)
def test_given_a_map_when_parsed_then_the_rules_are_those_and_are_told_alike(given_map: dict[str, int], rules: Rules) -> None:
    assert Rules.parse(given_map) == rules
    assert rules.as_map() == {key: value for key, value in given_map.items() if value}
    assert Rules.parse(rules.as_map()) == rules


@pytest.mark.parametrize(
    ("given_map", "told"),
    [
        ({"max_age": 1}, "no rule 'max_age'.*max_age_ms, max_bytes, max_messages, consumed_by_all"),
        ({"": 1}, "no rule ''"),
        ({"max_bytes": 0}, "max_bytes is 1 at least, not 0"),
        ({"max_messages": 0, "max_bytes": 1}, "max_messages is 1 at least"),
        ({"max_age_ms": 0}, "max_age_ms is 1 at least"),
        ({"consumed_by_all": 2}, "consumed_by_all is 1, or 0 for no, not 2"),
    ],
)
def test_given_a_map_that_is_none_when_parsed_then_it_is_refused_by_name(given_map: dict[str, int], told: str) -> None:
    with pytest.raises(InvalidRequest, match=told):
        Rules.parse(given_map)


def test_given_the_section_when_it_is_the_default_then_nothing_is_ever_removed() -> None:
    assert RetentionSection().rules == KEEP_ALL
    assert not any(getattr(RetentionSection(), field.name) for field in fields(RetentionSection))


def test_given_the_section_when_set_then_its_rules_are_those_of_channels_without_any() -> None:
    section = RetentionSection(max_age=1.5, max_bytes=2, max_messages=3, consumed_by_all=True, total_bytes_max=9)
    assert section.rules == Rules(1_500, 2, 3, True)
    assert RetentionSection(max_age=0.001).rules == Rules(1)
    assert list(section.problems()) == []


@pytest.mark.parametrize("name", [field.name for field in fields(RetentionSection) if field.name != "consumed_by_all"])
@pytest.mark.parametrize("value", [-1, 1 << 53, float("inf"), float("nan")])
def test_given_an_option_out_of_bounds_when_checked_then_it_is_named(name: str, value: float) -> None:
    assert [problem for problem, _ in RetentionSection(**{name: value}).problems()] == [name]  # type: ignore[arg-type]


def test_given_an_age_below_a_millisecond_when_checked_then_it_is_named() -> None:
    assert [name for name, _ in RetentionSection(max_age=0.0009).problems()] == ["max_age"]


# -- where it cuts ---------------------------------------------------------------------


def test_given_no_rule_when_cut_then_nothing_goes() -> None:
    wanted = cut(KEEP_ALL, FULL, expired_before_ms=NOON_MS + 1_000, lowest=Hold("g", END + 1))
    assert not wanted.takes(FULL)
    assert wanted == Cut(0, 0, 0)


def test_given_each_rule_when_cut_then_it_alone_says_where() -> None:
    hold, before = Hold("g", BEGIN + 9), NOON_MS + 7
    assert cut(Rules(max_age_ms=1), FULL, expired_before_ms=before, lowest=hold) == Cut(before << COUNTER_BITS, 0, 0)
    assert cut(Rules(max_messages=30), FULL, expired_before_ms=before, lowest=hold) == Cut(0, 80, 0)
    assert cut(Rules(max_bytes=70), FULL, expired_before_ms=before, lowest=hold) == Cut(0, 0, 5_930)
    assert cut(Rules(consumed_by_all=True), FULL, expired_before_ms=before, lowest=hold) == Cut(BEGIN + 9, 0, 0)


def test_given_a_cap_that_just_holds_when_cut_then_nothing_goes_and_with_one_less_something_does() -> None:
    for rule, most in (("max_messages", FULL.message_count), ("max_bytes", FULL.byte_count)):
        held = cut(Rules.parse({rule: most}), FULL, expired_before_ms=None, lowest=None)
        assert not held.takes(FULL)
        assert cut(Rules.parse({rule: most - 1}), FULL, expired_before_ms=None, lowest=None).takes(FULL)


def test_given_a_clock_in_doubt_when_cut_then_only_the_age_rests() -> None:
    rules = Rules(1, 70, 30, True)
    wanted = cut(rules, FULL, expired_before_ms=None, lowest=Hold("g", BEGIN + 9))
    assert wanted == Cut(BEGIN + 9, 80, 5_930)
    assert cut(Rules(max_age_ms=1), FULL, expired_before_ms=None, lowest=None) == Cut(0, 0, 0)


def test_given_no_group_when_cut_then_consumed_by_all_rests_and_the_others_do_not() -> None:
    assert not cut(Rules(consumed_by_all=True), FULL, expired_before_ms=NOON_MS + 50, lowest=None).takes(FULL)
    wanted = cut(Rules(5, 0, 30, True), FULL, expired_before_ms=NOON_MS + 50, lowest=None)
    assert wanted == Cut(NOON_MS + 50 << COUNTER_BITS, 80, 0)


def test_given_an_age_beyond_all_times_when_cut_then_nothing_goes() -> None:
    wanted = cut(Rules(max_age_ms=1 << 60), FULL, expired_before_ms=NOON_MS - (1 << 60), lowest=None)
    assert wanted == Cut(0, 0, 0)


def test_given_an_empty_channel_when_cut_then_nothing_goes() -> None:
    everything = Rules(1, 1, 1, True)
    for extent in (EMPTY_EXTENT, Extent(END + 1, END, 110, 110, 6_000, 6_000, END + 1)):
        assert not cut(everything, extent, expired_before_ms=NOON_MS * 2, lowest=Hold("g", END + 1)).takes(extent)


@given(st.data())
def test_given_any_rules_when_cut_then_each_lets_go_what_it_lets_go_alone_and_no_more(data: st.DataObject) -> None:
    count = data.draw(st.integers(0, 1 << 40))
    begin, begin_offset, begin_bytes, length, size = (data.draw(st.integers(1, 1 << 60)) for _ in range(5))
    end_offset, end_bytes = begin_offset + min(count, length), begin_bytes + (size if count else 0)
    extent = Extent(begin, begin + length, begin_offset, end_offset, begin_bytes, end_bytes, begin)
    values = [data.draw(st.integers(1, 1 << 61)) for _ in range(3)]
    before, hold = data.draw(st.none() | st.integers(-(1 << 62), 1 << 45)), Hold("g", data.draw(st.integers(0, 1 << 61)))
    lowest = data.draw(st.sampled_from([None, hold]))
    alone: dict[int, Cut] = {}
    for index in range(4):
        value: Any = True if index == 3 else values[index]
        alone[index] = cut(KEEP_ALL._replace(**{Rules._fields[index]: value}), extent, expired_before_ms=before, lowest=lowest)
    for chosen in product([False, True], repeat=4):
        settings: dict[str, Any] = {
            Rules._fields[index]: (True if index == 3 else values[index]) for index in range(4) if chosen[index]
        }
        found = cut(KEEP_ALL._replace(**settings), extent, expired_before_ms=before, lowest=lowest)
        picked = [alone[index] for index in range(4) if chosen[index]]
        for part in ("message_id", "offset", "size"):
            each = [getattr(one, part) for one in picked]
            assert getattr(found, part) == max([0, *each]) or getattr(found, part) == sum(each)
        assert found.takes(extent) == any(one.takes(extent) for one in picked)
        assert found.message_id <= extent.end_id + 1
        if settings.get("max_messages"):
            assert extent.end_offset - found.offset == values[2], "what stands behind it is the cap"
        if settings.get("max_bytes"):
            assert extent.end_bytes - found.size == values[1]


# -- what groups hold ------------------------------------------------------------------


def state(position: int, entries: dict[int, ConsumerEntry] | None = None, generation: int = 5) -> GroupState:
    consumers = {identity(1, which): entry for which, entry in (entries or {}).items()}
    return GroupState(1, 2, b"r" * 16, position, 0, generation, b"", None, consumers, 0)


def entry(begin: int, *, age_ms: int = 0, generation: int = 5, is_released: bool = False) -> ConsumerEntry:
    last_use = NOON_MS - age_ms << COUNTER_BITS
    return ConsumerEntry(0, begin, begin + 3, 3, generation, last_use, is_released)


def group(name: str, value: GroupState | None, visible: GroupState | None = None) -> Group:
    made = Group(name, "orders", value)
    made.visible = value if visible is None else visible
    return made


def test_given_groups_when_asked_what_they_hold_then_each_holds_from_its_position_and_the_lowest_is_first() -> None:
    groups = [group("b", state(20)), group("a", state(10)), group("c", state(30))]
    assert holds(groups, NOON_MS) == [("a", 10), ("b", 20), ("c", 30)]
    assert holds([], NOON_MS) == []


@pytest.mark.parametrize(
    ("kept", "lowest"),
    [
        (entry(4), 4),
        (entry(4, age_ms=REPEAT_MS - 1), 4),
        (entry(4, age_ms=REPEAT_MS), 10),
        (entry(4, age_ms=REPEAT_MS + 1), 10),
        (entry(4, age_ms=-10_000), 4),
        (entry(4, generation=4), 10),
        (entry(4, is_released=True), 4),
        (entry(4, age_ms=REPEAT_MS * 100, is_released=True), 4),
        (entry(12), 10),
    ],
    ids=["now", "just", "five-minutes", "later", "ahead", "sought-since", "given-back", "given-back-long-ago", "behind"],
)
def test_given_a_range_that_was_handed_out_when_asked_then_it_is_held_as_long_as_it_may_be_asked_for(
    kept: ConsumerEntry, lowest: int
) -> None:
    assert holds([group("a", state(10, {1: kept, 2: entry(11)}))], NOON_MS) == [("a", lowest)]


@pytest.mark.parametrize("is_visible_lower", [False, True])
def test_given_a_state_that_is_not_durable_when_asked_then_both_are_held(is_visible_lower: bool) -> None:
    low, high = state(10, {1: entry(6)}), state(20)
    value, visible = (high, low) if is_visible_lower else (low, high)
    assert holds([group("a", value, visible)], NOON_MS) == [("a", 6)]


def test_given_a_group_whose_creation_is_not_durable_when_asked_then_it_holds() -> None:
    made = Group("new", "orders", state(7))
    made.visible = None
    assert holds([made, group("old", state(9))], NOON_MS) == [("new", 7), ("old", 9)]
