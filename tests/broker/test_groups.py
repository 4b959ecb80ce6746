"""The state of consumer groups: where a seek leads, exact lag, claims and their repeats, commits."""

from pathlib import Path

import pytest

from rocksmq.broker import keys
from rocksmq.broker.ids import COUNTER_BITS
from rocksmq.broker.limits import Limits
from rocksmq.broker.store import Family
from rocksmq.protocol.errors import Conflict, GroupNotFound, InvalidRequest, LimitExceeded, OutOfSequence
from rocksmq.protocol.operations import Commit, Consume, CreateGroup, Outcome, Position, Seek

from .support import NOON_MS, World

ID, EARLIEST, LATEST, TIME = Position.ID, Position.EARLIEST, Position.LATEST, Position.TIME_MS


@pytest.fixture
def filled(world: World) -> World:
    """Three batches 10 ms apart, the first at +10 ms: a b c, d, e f."""
    world.channel()
    for payloads in ([b"a", b"b", b"c"], [b"d"], [b"e", b"f"]):
        world.now_ms += 10
        world.produce(payloads)
    world.now_ms += 10
    return world


def lag(world: World) -> int:
    channel = world.channel()
    return world.groups.describe(world.group(), channel.number, channel.visible).lag_messages


def create(world: World, name: str, request_id: bytes, kind: Position = EARLIEST, start: int = 0) -> bool:
    channel = world.channel()
    request = CreateGroup("orders", name, kind, start, request_id)
    return world.groups.create(world.open, channel.groups, channel.number, channel.visible, request)


def move(world: World, position: int, generation: int | None = None, metadata: bytes = b"") -> None:
    request = Commit("orders", "billing", position, generation, metadata)
    group = world.group()
    world.groups.move(world.open, group, world.channel().visible, request)
    world.commit()


# -- where a seek leads ----------------------------------------------------------------

FIRST, LAST = 10 << COUNTER_BITS, (30 << COUNTER_BITS) + 1  # ids of a and f, from NOON on
SEEKS = [
    (EARLIEST, 0, "a", Outcome.EARLIEST),
    (LATEST, 0, "", Outcome.LATEST),
    (ID, FIRST, "a", Outcome.EXACT),
    (ID, FIRST + 1, "b", Outcome.EXACT),
    (ID, FIRST + 2, "c", Outcome.EXACT),
    (ID, FIRST + 3, "d", Outcome.NEXT),
    (ID, (20 << COUNTER_BITS) - 1, "d", Outcome.NEXT),
    (ID, 20 << COUNTER_BITS, "d", Outcome.EXACT),
    (ID, (20 << COUNTER_BITS) + 1, "e", Outcome.NEXT),
    (ID, LAST, "f", Outcome.EXACT),
    (ID, LAST + 1, "", Outcome.LATEST),
    (ID, 1 << 50, "", Outcome.LATEST),
    (ID, FIRST - 1, "a", Outcome.EARLIEST),
    (TIME, 9, "a", Outcome.NEXT),
    (TIME, 10, "a", Outcome.NEXT),
    (TIME, 11, "d", Outcome.NEXT),
    (TIME, 20, "d", Outcome.NEXT),
    (TIME, 21, "e", Outcome.NEXT),
    (TIME, 30, "e", Outcome.NEXT),
    (TIME, 31, "", Outcome.LATEST),
    (TIME, 1 << 30, "", Outcome.LATEST),
]


@pytest.mark.parametrize("cache_bytes", [0, 1 << 20])
@pytest.mark.parametrize(("kind", "value", "letter", "outcome"), SEEKS)
def test_given_messages_when_sought_then_the_next_consume_begins_there(
    tmp_path: Path, cache_bytes: int, kind: Position, value: int, letter: str, outcome: Outcome
) -> None:
    world = World(tmp_path / "seek", Limits(tail_cache_bytes=cache_bytes))
    world.channel()
    for payloads in ([b"a", b"b", b"c"], [b"d"], [b"e", b"f"]):
        world.now_ms += 10
        world.produce(payloads)
    before = world.group().state.generation
    absolute = value + (NOON_MS if kind is TIME else NOON_MS << COUNTER_BITS) if kind in (ID, TIME) else 0
    sought = world.seek(kind, absolute)
    expected = "abcdef"["abcdef".index(letter) :] if letter else ""
    assert sought.outcome == outcome
    assert sought.generation > before
    assert lag(world) == len(expected)
    found = world.consume(world.unique(), 0)
    assert b"".join(found or []) == expected.encode()
    if not letter:
        assert sought.position == world.channel().visible.end_id + 1
    world.close()


@pytest.mark.parametrize("value", [0, 1, (1 << 64) - 1])
def test_given_any_id_when_sought_then_the_position_is_never_a_future_one(filled: World, value: int) -> None:
    sought = filled.seek(ID, value)
    assert sought.position <= filled.channel().visible.end_id + 1
    assert sought.outcome == (Outcome.LATEST if value > 1 else Outcome.EARLIEST)


@pytest.mark.parametrize("kind", [kind for kind in Position if kind is not Position.CURRENT])
def test_given_an_empty_channel_when_sought_then_it_is_the_latest_and_everything_later_is_read(
    world: World, kind: Position
) -> None:
    world.group()
    sought = world.seek(kind, NOON_MS if kind is TIME else NOON_MS << COUNTER_BITS)
    assert (sought.position, sought.outcome) == (1, Outcome.LATEST)
    world.produce([b"a", b"b"])
    assert world.consume(world.unique(), 0) == [b"a", b"b"]


def test_given_a_neighbour_whose_name_begins_alike_when_sought_to_the_latest_then_it_does_not_matter(world: World) -> None:
    world.produce([b"x"], "order")
    world.produce([b"y"], "orders2")
    world.group()
    assert world.seek(LATEST).position == 1
    world.produce([b"z"], "order")
    world.produce([b"a"])
    assert world.consume(world.unique(), 0) == [b"a"]


def test_given_a_seek_when_repeated_then_it_is_answered_alike_and_moves_nothing(filled: World) -> None:
    request_id = filled.unique()
    first = filled.seek(EARLIEST, request_id=request_id)
    assert filled.consume(filled.unique(), 0, 2) == [b"a", b"b"]
    assert filled.seek(EARLIEST, request_id=request_id) == first
    assert filled.seek(LATEST, request_id=request_id) == first
    assert filled.consume(filled.unique(), 0, 2) == [b"c", b"d"]
    another = filled.seek(EARLIEST)
    assert another.generation > first.generation
    assert another.position == first.position


def test_given_a_seek_when_rolled_back_then_the_group_is_as_before(filled: World) -> None:
    filled.consume(filled.unique(), 0, 2)
    before = filled.group().state
    request = Seek("orders", "billing", EARLIEST, 0, filled.unique())
    group = filled.group()
    filled.groups.seek(filled.open, group, filled.channel().visible, request)
    filled.roll_back()
    assert filled.group().state == before


# -- creating and destroying -----------------------------------------------------------


@pytest.mark.parametrize(("kind", "value", "letter", "outcome"), SEEKS)
def test_given_messages_when_a_group_is_created_then_it_begins_where_a_seek_would(
    filled: World, kind: Position, value: int, letter: str, outcome: Outcome
) -> None:
    absolute = value + (NOON_MS if kind is TIME else NOON_MS << COUNTER_BITS) if kind in (ID, TIME) else 0
    filled.group(kind=kind, start=absolute)
    expected = "abcdef"["abcdef".index(letter) :] if letter else ""
    assert lag(filled) == len(expected)
    assert b"".join(filled.consume(filled.unique(), 0) or []) == expected.encode()


def test_given_a_group_when_created_again_then_it_keeps_its_position_and_only_its_maker_is_told_so(filled: World) -> None:
    maker, other = filled.unique(), filled.unique()
    assert create(filled, "billing", maker)
    filled.commit()
    filled.consume(filled.unique(), 0, 2)
    state = filled.group().state
    assert create(filled, "billing", maker, LATEST)
    assert not create(filled, "billing", other, LATEST)
    assert filled.group().state == state


def test_given_a_new_group_when_stored_then_its_position_stands_in_decimal_under_the_seeds_key(filled: World) -> None:
    position = filled.group().state.position
    assert filled.store.get(Family.META, keys.group_key("billing", "orders", "current_id")) == b"%d" % position
    filled.consume(filled.unique(), 0, 1)
    assert filled.store.get(Family.META, keys.group_key("billing", "orders", "current_id")) == b"%d" % (position + 1)


@pytest.mark.parametrize("name", ["", "a/b", "x" * 201, ".", "a b"])
def test_given_a_bad_name_when_created_or_found_then_it_is_refused(filled: World, name: str) -> None:
    with pytest.raises(InvalidRequest, match="group name"):
        create(filled, name, filled.unique())
    with pytest.raises(InvalidRequest, match="group name"):
        filled.groups.find(filled.channel().groups, "orders", name)
    assert filled.open.is_empty


def test_given_no_such_group_when_found_then_it_and_its_channel_are_named(filled: World) -> None:
    with pytest.raises(GroupNotFound, match=r"'orders'.*'billing'"):
        filled.groups.find(filled.channel().groups, "orders", "billing")


def test_given_as_many_groups_as_are_allowed_when_one_more_is_created_then_the_limit_is_named(tmp_path: Path) -> None:
    world = World(tmp_path / "few", Limits(groups_max=1))
    world.group()
    with pytest.raises(LimitExceeded, match="groups_max"):
        create(world, "another", world.unique())
    world.close()


def test_given_a_group_when_destroyed_twice_then_a_successor_is_left_alone(filled: World) -> None:
    groups, creation_id = filled.channel().groups, filled.group().state.creation_id
    assert filled.groups.destroy(filled.open, groups, "billing", creation_id) is not None
    filled.commit()
    assert filled.store.get(Family.META, keys.group_key("billing", "orders", "state")) is None
    assert filled.groups.destroy(filled.open, groups, "billing", creation_id) is None
    successor = filled.group()
    assert successor.state.generation > creation_id
    assert filled.groups.destroy(filled.open, groups, "billing", creation_id) is None
    assert groups["billing"] is successor


def test_given_a_group_moved_and_destroyed_in_one_commit_then_nothing_is_left_and_rolling_back_restores_it(
    filled: World,
) -> None:
    group = filled.group()
    before = group.state
    request = Seek("orders", "billing", LATEST, 0, filled.unique())
    filled.groups.seek(filled.open, group, filled.channel().visible, request)
    filled.groups.destroy(filled.open, filled.channel().groups, "billing", before.creation_id)
    filled.roll_back()
    assert filled.channel().groups["billing"].state == before
    filled.groups.seek(filled.open, group, filled.channel().visible, request)
    filled.groups.destroy(filled.open, filled.channel().groups, "billing", before.creation_id)
    filled.commit()
    assert list(filled.store.scan(Family.META, keys.GROUP, keys.prefix_end(keys.GROUP))) == []


# -- consuming -------------------------------------------------------------------------


def test_given_two_groups_when_they_consume_then_each_gets_everything(filled: World) -> None:
    for name in ("one", "two"):
        create(filled, name, filled.unique())
        group, channel = filled.channel().groups[name], filled.channel()
        request = Consume("orders", name, filled.unique(), 0, 100, 100, 0)
        claim = filled.groups.consume(filled.open, group, channel.visible, request)
        assert claim is not None
        assert claim.reading.message_count == 6
        assert claim.generation == group.state.generation


def test_given_two_consumers_of_a_group_when_they_consume_then_no_message_goes_to_both(filled: World) -> None:
    one, two = filled.unique(), filled.unique()
    assert filled.consume(one, 0, 2) == [b"a", b"b"]
    assert filled.consume(two, 0, 3) == [b"c", b"d", b"e"]
    assert lag(filled) == 1
    assert filled.consume(one, 1, 9) == [b"f"]
    assert lag(filled) == 0
    assert filled.consume(two, 1) is None
    assert filled.consume(one, 2) is None


def test_given_a_claim_when_repeated_then_it_is_the_same_whatever_the_limits_and_nothing_more_is_claimed(filled: World) -> None:
    consumer, other = filled.unique(), filled.unique()
    assert filled.consume(consumer, 0, 3) == [b"a", b"b", b"c"]
    assert filled.consume(other, 0, 1) == [b"d"]
    for n, size in ((1, 1), (9, 1), (100, 100)):
        assert filled.consume(consumer, 0, n, size) == [b"a", b"b", b"c"]
    assert lag(filled) == 2
    assert filled.consume(consumer, 1, 1) == [b"e"]


def test_given_an_empty_claim_when_made_then_it_spends_no_number(filled: World) -> None:
    consumer = filled.unique()
    filled.consume(consumer, 0)
    assert filled.consume(consumer, 1) is None
    assert filled.consume(consumer, 1) is None
    filled.produce([b"g"])
    assert filled.consume(consumer, 1) == [b"g"]


@pytest.mark.parametrize("number", [0, 1, 3, 4, 100])
def test_given_a_number_that_is_neither_the_last_nor_the_next_when_consumed_then_the_next_is_told(
    filled: World, number: int
) -> None:
    consumer = filled.unique()
    if number < 2:
        for sent in range(3):
            filled.consume(consumer, sent, 1)
        expected = 3
    else:
        filled.consume(consumer, 0, 1)
        expected = 1
    before = filled.group().state
    with pytest.raises(OutOfSequence) as refused:
        filled.consume(consumer, number)
    assert refused.value.expected_number == expected
    assert refused.value.present_id == filled.ids.present_id
    assert filled.group().state == before


def test_given_an_unknown_consumer_when_it_begins_with_a_number_then_nothing_is_expected_of_it(filled: World) -> None:
    with pytest.raises(OutOfSequence) as refused:
        filled.consume(filled.unique(), 1)
    assert refused.value.expected_number is None


def test_given_a_claim_when_the_group_was_sought_since_then_its_repeat_reads_anew(filled: World) -> None:
    consumer = filled.unique()
    assert filled.consume(consumer, 0, 2) == [b"a", b"b"]
    filled.seek(ID, filled.time_of(20))
    assert filled.consume(consumer, 0, 1) == [b"d"]
    assert filled.consume(consumer, 0, 1) == [b"d"]
    assert filled.consume(consumer, 1, 9) == [b"e", b"f"]


def test_given_a_claim_when_rolled_back_then_the_same_messages_are_handed_out_again(filled: World) -> None:
    consumer, group, channel = filled.unique(), filled.group(), filled.channel()
    before = group.state
    request = Consume("orders", "billing", consumer, 0, 2, 100, 0)
    assert filled.groups.consume(filled.open, group, channel.visible, request) is not None
    assert group.state != before
    filled.roll_back()
    assert group.state == before
    assert filled.consume(filled.unique(), 0, 1) == [b"a"]
    assert filled.consume(consumer, 0, 1) == [b"b"]


def test_given_a_limit_of_bytes_when_consumed_then_it_is_kept_but_one_message_comes_at_least(filled: World) -> None:
    consumer = filled.unique()
    assert filled.consume(consumer, 0, 9, 2) == [b"a", b"b"]
    filled.produce([bytes(100), bytes(100)])
    assert filled.consume(consumer, 1, 4) == [b"c", b"d", b"e", b"f"]
    assert filled.consume(consumer, 2, 9, 1) == [bytes(100)]


def test_given_the_brokers_limits_when_consumed_then_they_bound_what_is_asked_for(tmp_path: Path) -> None:
    world = World(tmp_path / "few", Limits(consume_messages_max=2, consume_bytes_max=20))
    world.produce([b"a", b"b", b"c", bytes(15), bytes(15)])
    consumer = world.unique()
    assert world.consume(consumer, 0) == [b"a", b"b"]
    assert world.consume(consumer, 1) == [b"c", bytes(15)]
    assert world.consume(consumer, 2) == [bytes(15)]
    world.close()


# -- forgetting consumers --------------------------------------------------------------


def test_given_more_consumers_than_are_remembered_then_the_longest_idle_is_forgotten_and_refused(tmp_path: Path) -> None:
    world = World(tmp_path / "few", Limits(consumers_max=2))
    world.produce([b"%d" % number for number in range(10)])
    consumers = [world.unique() for _ in range(3)]
    for consumer in consumers:
        world.now_ms += 1
        assert world.consume(consumer, 0, 1) is not None
    assert set(world.group().state.consumers) == set(consumers[1:])
    for number in (0, 1):
        with pytest.raises(OutOfSequence) as refused:
            world.consume(consumers[0], number)
        assert refused.value.expected_number is None
    world.close()


def test_given_a_consumer_just_forgotten_when_a_new_one_comes_at_once_then_it_is_accepted(tmp_path: Path) -> None:
    world = World(tmp_path / "few", Limits(consumers_max=2))
    world.produce([b"%d" % number for number in range(10)])
    for expected in range(6):
        assert world.consume(world.unique(), 0, 1) == [b"%d" % expected]
    world.close()


def test_given_a_consumer_idle_for_an_hour_when_another_claims_then_it_is_forgotten(filled: World) -> None:
    idle, busy, minute = filled.unique(), filled.unique(), 60_000
    filled.consume(idle, 0, 1)
    filled.now_ms += 60 * minute
    filled.consume(busy, 0, 1)
    assert set(filled.group().state.consumers) == {idle, busy}
    filled.now_ms += minute
    filled.consume(busy, 1, 1)
    assert set(filled.group().state.consumers) == {busy}
    with pytest.raises(OutOfSequence):
        filled.consume(idle, 0)
    assert filled.consume(filled.unique(), 0, 1) == [b"d"]


# -- committing ------------------------------------------------------------------------


def test_given_a_commit_when_made_then_the_next_message_is_the_one_at_the_position_and_metadata_are_kept(filled: World) -> None:
    move(filled, filled.time_of(10) + 2, metadata=b"m" * 256)
    assert lag(filled) == 4
    assert filled.group().state.metadata == b"m" * 256
    assert filled.consume(filled.unique(), 0, 2) == [b"c", b"d"]
    assert filled.group().state.metadata == b"m" * 256


def test_given_a_commit_when_in_a_hole_or_at_the_end_then_lag_counts_messages(filled: World) -> None:
    for position, expected in ((filled.time_of(15), 3), (filled.time_of(20) + 1, 2), (filled.time_of(30) + 1, 1)):
        move(filled, position)
        assert lag(filled) == expected
    end = filled.channel().visible.end_id
    move(filled, end + 1)
    assert lag(filled) == 0
    assert filled.consume(filled.unique(), 0) is None
    filled.produce([b"g"])
    assert filled.consume(filled.unique(), 0) == [b"g"]


def test_given_a_position_past_the_end_when_committed_then_it_is_refused(filled: World) -> None:
    before = filled.group().state
    with pytest.raises(InvalidRequest, match="beyond the channel's end"):
        move(filled, filled.channel().visible.end_id + 2)
    assert filled.group().state == before


def test_given_a_position_behind_the_group_when_committed_then_there_is_no_effect(filled: World) -> None:
    filled.consume(filled.unique(), 0, 4)
    before = filled.group().state
    for position in (0, before.position - 1):
        move(filled, position, before.generation, b"ignored")
    assert filled.group().state == before


def test_given_another_generation_when_committed_then_it_is_a_conflict(filled: World) -> None:
    old = filled.group().state.generation
    position = filled.time_of(20)
    move(filled, position, old)
    new = filled.seek(EARLIEST).generation
    before = filled.group().state
    for generation in (old, new + 1, 0):
        with pytest.raises(Conflict, match=str(new)):
            move(filled, position, generation)
    assert filled.group().state == before
    move(filled, position, new)
    assert filled.group().state.position == position


def test_given_metadata_that_are_too_long_when_committed_then_they_are_refused(filled: World) -> None:
    before = filled.group().state
    with pytest.raises(InvalidRequest, match="256"):
        move(filled, filled.time_of(20), metadata=bytes(257))
    assert filled.group().state == before


# -- describing ------------------------------------------------------------------------


def test_given_unread_messages_when_described_then_lag_is_the_count_and_the_age_of_the_oldest(
    filled: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rocksmq.broker.groups.clock_ms", lambda: NOON_MS + 1_000)
    channel = filled.channel()
    for consumed, expected, age_ms in ((0, 6, 990), (3, 3, 980), (1, 2, 970), (2, 0, 0)):
        if consumed:
            filled.consume(filled.unique(), 0, consumed)
        described = filled.groups.describe(filled.group(), channel.number, channel.visible)
        assert (described.lag_messages, described.lag_ms) == (expected, age_ms)
    assert described.position == channel.visible.end_id + 1
    assert described.generation == described.creation_id
