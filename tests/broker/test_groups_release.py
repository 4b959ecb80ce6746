"""Consumer ids that are over: what they give back, who is served it, what drops it; polls; seeks to where the group stands."""

from pathlib import Path

import pytest

from rocksmq.broker.groups import Group
from rocksmq.broker.limits import Limits
from rocksmq.broker.records import GroupState
from rocksmq.protocol.errors import LimitExceeded, OutOfSequence
from rocksmq.protocol.operations import Consume, DestroyGroup, Outcome, Position, ReleaseConsumer, Seek

from .support import World

CURRENT, EARLIEST, LATEST = Position.CURRENT, Position.EARLIEST, Position.LATEST
ALL = 1 << 63  # a position behind everything
MINUTE_MS = 60_000


@pytest.fixture
def filled(world: World) -> World:
    """Three batches 10 ms apart, the first at +10 ms: a b c, d, e f."""
    world.channel()
    for payloads in ([b"a", b"b", b"c"], [b"d"], [b"e", b"f"]):
        world.now_ms += 10
        world.produce(payloads)
    world.now_ms += 10
    return world


def few(path: Path, consumers_max: int, messages: int = 10) -> World:
    world = World(path / "few", Limits(consumers_max=consumers_max))
    world.produce([b"%d" % number for number in range(messages)])
    return world


def lag(world: World) -> int:
    channel = world.channel()
    return world.groups.describe(world.group(), channel.number, channel.visible).lag_messages


def release(world: World, consumer: bytes, number: int, position: int) -> None:
    request = ReleaseConsumer("orders", "billing", consumer, number, position, 0)
    group = world.group()
    world.groups.release(world.open, group, world.channel().visible, request)


def give_back(world: World, consumer: bytes, number: int, position: int = 0) -> None:
    """Release and commit."""
    release(world, consumer, number, position)
    world.commit()


def claimed(world: World, n: int, number: int = 0) -> bytes:
    """A consumer id that was just handed so many."""
    consumer = world.unique()
    assert len(world.consume(consumer, number, n) or ()) == n
    return consumer


# -- giving back -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offset", "left"),
    [(-1 << 40, b"abc"), (0, b"abc"), (1, b"bc"), (2, b"c"), (3, b""), (4, b""), (ALL, b"")],
)
def test_given_a_claim_when_released_from_a_position_on_then_the_rest_is_read_next_and_counted(
    filled: World, offset: int, left: bytes
) -> None:
    consumer = claimed(filled, 3)
    give_back(filled, consumer, 0, offset if offset == ALL else filled.time_of(10) + offset)
    assert lag(filled) == 3 + len(left)
    assert (consumer in filled.group().state.consumers) == bool(left)
    found: list[bytes] = []
    other, number = filled.unique(), 0
    while batch := filled.consume(other, number):
        found += batch
        number += 1
        assert lag(filled) == 3 + len(left) - len(found)
    assert b"".join(found) == left + b"def"
    assert number == (2 if left else 1), "a range given back is a reply of its own"


def test_given_several_ranges_given_back_when_read_then_the_lowest_ids_come_first_and_one_range_a_reply(filled: World) -> None:
    one, two, three = claimed(filled, 2), claimed(filled, 2), claimed(filled, 1)
    for consumer in (two, three, one):
        give_back(filled, consumer, 0)
    assert lag(filled) == 6
    reader = filled.unique()
    assert filled.consume(reader, 0, 9) == [b"a", b"b"]
    assert filled.consume(reader, 1, 1) == [b"c"]
    assert filled.consume(reader, 2, 9) == [b"d"]
    assert lag(filled) == 2
    assert filled.consume(reader, 2, 9) == [b"d"], "a repeat gets its range again"
    assert filled.consume(reader, 3, 9) == [b"e"]
    assert filled.consume(reader, 4, 9) == [b"f"]
    assert filled.consume(reader, 5, 9) is None
    assert set(filled.group().state.consumers) == {reader}


def test_given_a_range_given_back_when_read_in_part_and_given_back_again_then_nothing_is_lost_or_doubled(filled: World) -> None:
    give_back(filled, claimed(filled, 5), 0)
    second = claimed(filled, 2)
    give_back(filled, second, 0, filled.time_of(10) + 1)
    reader = filled.unique()
    found = [filled.consume(reader, number, 9) for number in range(4)]
    assert found == [[b"b"], [b"c", b"d", b"e"], [b"f"], None]


def test_given_a_limit_of_bytes_when_a_range_given_back_is_read_then_the_rest_of_it_comes_next(filled: World) -> None:
    give_back(filled, claimed(filled, 4), 0)
    reader = filled.unique()
    assert filled.consume(reader, 0, 9, 3) == [b"a", b"b", b"c"]
    assert filled.consume(reader, 1, 9, 3) == [b"d"]
    assert filled.consume(reader, 2, 9, 3) == [b"e", b"f"]


def test_given_a_consume_whose_answer_was_lost_when_released_with_its_number_then_it_is_given_back_whole(filled: World) -> None:
    consumer = claimed(filled, 2)
    assert filled.consume(consumer, 1, 2) == [b"c", b"d"]
    give_back(filled, consumer, 1)
    assert filled.consume(filled.unique(), 0, 9) == [b"c", b"d"]


def test_given_a_consume_that_never_came_when_released_with_its_number_then_what_came_before_stays_read(filled: World) -> None:
    consumer = claimed(filled, 2)
    give_back(filled, consumer, 1)
    assert filled.group().state.consumers == {}
    assert lag(filled) == 4
    assert filled.consume(filled.unique(), 0, 9) == [b"c", b"d", b"e", b"f"]


# -- the id is over ----------------------------------------------------------------------


def test_given_a_released_id_when_released_again_then_nothing_changes_whatever_became_of_its_range(filled: World) -> None:
    consumer = claimed(filled, 3)
    give_back(filled, consumer, 0)
    for position in (0, filled.time_of(10) + 2, ALL):
        release(filled, consumer, 0, position)
        assert filled.open.is_empty
    assert filled.consume(filled.unique(), 0, 2) == [b"a", b"b"]
    release(filled, consumer, 0, 0)
    assert filled.open.is_empty
    assert lag(filled) == 4
    assert filled.consume(filled.unique(), 0, 2) == [b"c"]
    release(filled, consumer, 0, 0)
    assert filled.open.is_empty
    assert lag(filled) == 3


@pytest.mark.parametrize("number", [0, 1, 2])
def test_given_a_released_id_when_it_consumes_then_it_is_told_that_it_is_over(filled: World, number: int) -> None:
    consumer = claimed(filled, 3)
    give_back(filled, consumer, 0)
    before = filled.group().state
    with pytest.raises(OutOfSequence, match="released") as refused:
        filled.consume(consumer, number)
    assert refused.value.expected_number is None
    assert refused.value.present_id == filled.ids.present_id
    assert filled.group().state == before


def test_given_an_id_that_the_group_never_met_when_released_then_nothing_changes(filled: World) -> None:
    before = filled.group().state
    release(filled, filled.unique(), 0, 0)
    assert filled.open.is_empty
    assert filled.group().state is before


def test_given_a_forgotten_id_when_released_then_it_is_told_that_nothing_was_given_back(tmp_path: Path) -> None:
    world = few(tmp_path, consumers_max=1)
    slow = claimed(world, 3)
    claimed(world, 3)
    with pytest.raises(OutOfSequence, match="nothing was given back") as refused:
        release(world, slow, 0, 0)
    assert refused.value.present_id == world.ids.present_id
    assert world.open.is_empty
    assert lag(world) == 4
    release(world, world.unique(), 0, 0)
    assert world.open.is_empty
    world.close()


# -- seeks ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [EARLIEST, LATEST])
def test_given_a_range_given_back_when_the_group_is_sought_then_it_is_dropped(filled: World, kind: Position) -> None:
    give_back(filled, claimed(filled, 3), 0)
    filled.seek(kind)
    assert filled.group().state.consumers == {}
    expected = [b"a", b"b", b"c", b"d", b"e", b"f"] if kind is EARLIEST else None
    assert lag(filled) == len(expected or ())
    assert filled.consume(filled.unique(), 0) == expected


@pytest.mark.parametrize("kind", [EARLIEST, LATEST, CURRENT])
def test_given_a_claim_when_released_after_a_seek_then_it_gives_nothing_back(filled: World, kind: Position) -> None:
    consumer = claimed(filled, 3)
    filled.seek(kind)
    before = lag(filled)
    give_back(filled, consumer, 0)
    assert lag(filled) == before == {EARLIEST: 6, LATEST: 0, CURRENT: 3}[kind]
    assert filled.group().state.consumers == {}


def test_given_a_group_when_sought_to_where_it_stands_then_only_its_generation_rises(filled: World) -> None:
    consumer = claimed(filled, 4)
    before = filled.group().state
    sought = filled.seek(CURRENT)
    after = filled.group().state
    assert sought == (before.position, before.offset, Outcome.EXACT, after.generation)
    assert after.generation > before.generation
    assert (after.position, after.offset) == (before.position, before.offset)
    assert filled.consume(consumer, 0, 9) == [b"e", b"f"], "its number is read anew"
    assert filled.seek(CURRENT).position == filled.channel().visible.end_id + 1
    assert lag(filled) == 0


def test_given_ranges_given_back_when_sought_to_where_the_group_stands_then_it_is_the_first_of_them(filled: World) -> None:
    one, two = claimed(filled, 1), claimed(filled, 4)
    give_back(filled, two, 0, filled.time_of(10) + 2)
    sought = filled.seek(CURRENT)
    assert (sought.position, sought.outcome) == (filled.time_of(10) + 2, Outcome.EXACT)
    assert set(filled.group().state.consumers) == {one}
    assert lag(filled) == 4
    assert filled.consume(filled.unique(), 0, 9) == [b"c", b"d", b"e", b"f"]


def test_given_a_seek_to_where_the_group_stands_when_repeated_then_it_moves_nothing(filled: World) -> None:
    claimed(filled, 2)
    request_id = filled.unique()
    first = filled.seek(CURRENT, request_id=request_id)
    claimed(filled, 2)
    assert filled.seek(CURRENT, request_id=request_id) == first
    assert filled.consume(filled.unique(), 0, 9) == [b"e", b"f"]


# -- what is undone -----------------------------------------------------------------------


def rolled_back(world: World, before: GroupState) -> None:
    world.roll_back()
    assert world.group().state == before
    assert world.open.is_empty


def test_given_a_release_when_rolled_back_then_the_id_is_as_before_and_may_be_released_again(filled: World) -> None:
    consumer = claimed(filled, 3)
    before = filled.group().state
    release(filled, consumer, 0, filled.time_of(10) + 1)
    assert filled.group().state != before
    rolled_back(filled, before)
    assert filled.consume(consumer, 0) == [b"a", b"b", b"c"]
    give_back(filled, consumer, 0, filled.time_of(10) + 2)
    assert filled.consume(filled.unique(), 0) == [b"c"]


@pytest.mark.parametrize("n", [1, 2, 9])
def test_given_a_range_given_back_when_its_next_claim_is_rolled_back_then_it_is_served_again(filled: World, n: int) -> None:
    give_back(filled, claimed(filled, 2), 0)
    before, group = filled.group().state, filled.group()
    request = Consume("orders", "billing", filled.unique(), 0, n, 100, 0)
    assert filled.groups.consume(filled.open, group, filled.channel().visible, request) is not None
    rolled_back(filled, before)
    assert filled.consume(filled.unique(), 0, 9) == [b"a", b"b"]
    assert filled.consume(filled.unique(), 0, 9) == [b"c", b"d", b"e", b"f"]


def test_given_a_seek_that_drops_ranges_when_rolled_back_then_they_are_there_again(filled: World) -> None:
    give_back(filled, claimed(filled, 2), 0)
    before, group = filled.group().state, filled.group()
    filled.groups.seek(filled.open, group, filled.channel().visible, Seek("orders", "billing", CURRENT, 0, filled.unique()))
    rolled_back(filled, before)
    assert filled.consume(filled.unique(), 0, 9) == [b"a", b"b"]


# -- in the store -----------------------------------------------------------------------


def test_given_ranges_given_back_when_read_from_the_store_then_they_are_served_as_before(filled: World) -> None:
    give_back(filled, claimed(filled, 3), 0, filled.time_of(10) + 1)
    group = filled.group()
    loaded = Group("billing", "orders", GroupState.decode(group.state.encode()))
    assert loaded.state == group.state
    filled.channel().groups["billing"] = loaded
    assert lag(filled) == 5
    assert filled.consume(filled.unique(), 0) == [b"b", b"c"]


def test_given_a_group_destroyed_and_made_anew_then_nothing_given_back_is_left(filled: World) -> None:
    consumer = claimed(filled, 3)
    give_back(filled, consumer, 0)
    groups, creation_id = filled.channel().groups, filled.group().state.creation_id
    destroyed = DestroyGroup("orders", "billing", creation_id)
    filled.groups.destroy(filled.open, groups, destroyed.group, destroyed.creation_id)
    filled.commit()
    filled.group(kind=LATEST)
    assert lag(filled) == 0
    release(filled, consumer, 0, 0)
    assert filled.open.is_empty
    assert filled.consume(filled.unique(), 0) is None


# -- forgetting ---------------------------------------------------------------------------


def test_given_a_consumer_that_polls_when_it_is_handed_nothing_for_hours_then_it_is_not_forgotten(filled: World) -> None:
    polling, silent = claimed(filled, 3), claimed(filled, 3)
    for _ in range(4):
        filled.now_ms += 40 * MINUTE_MS
        assert filled.consume(polling, 1) is None
    filled.produce([b"g"])
    filled.produce([b"h"])
    busy = claimed(filled, 1)
    assert set(filled.group().state.consumers) == {polling, busy}
    assert filled.consume(polling, 1) == [b"h"]
    with pytest.raises(OutOfSequence):
        filled.consume(silent, 1)


def test_given_a_poll_long_ago_when_the_consumer_is_forgotten_then_the_mark_is_that_poll(filled: World) -> None:
    polling = claimed(filled, 6)
    filled.now_ms += 30 * MINUTE_MS
    born_before = filled.unique()
    filled.now_ms += 1
    assert filled.consume(polling, 1) is None
    filled.now_ms += 61 * MINUTE_MS
    filled.produce([b"g", b"h"])
    claimed(filled, 1)
    assert polling not in filled.group().state.consumers
    with pytest.raises(OutOfSequence):
        filled.consume(born_before, 0)
    assert filled.consume(filled.unique(), 0) == [b"h"]


def test_given_more_consumers_than_are_remembered_when_one_has_polled_then_the_others_go_first(tmp_path: Path) -> None:
    world = few(tmp_path, consumers_max=2, messages=2)
    one = claimed(world, 1)
    world.now_ms += 1
    two = claimed(world, 1)
    world.now_ms += 1
    assert world.consume(one, 1) is None
    world.produce([b"x"])
    three = claimed(world, 1)
    assert set(world.group().state.consumers) == {one, three}
    with pytest.raises(OutOfSequence):
        world.consume(two, 0)
    world.close()


def test_given_ranges_given_back_when_months_pass_and_many_come_then_they_stay(tmp_path: Path) -> None:
    world = few(tmp_path, consumers_max=3, messages=20)
    given = [claimed(world, 2), claimed(world, 2)]
    for consumer in given:
        give_back(world, consumer, 0)
    world.now_ms += 24 * 60 * 60 * MINUTE_MS
    assert world.consume(world.unique(), 0, 1) == [b"0"]
    assert world.consume(world.unique(), 0, 1) == [b"1"]
    for _ in range(4):
        release(world, world.unique(), 0, 0)
    assert world.consume(world.unique(), 0, 1) == [b"2"]
    assert given[1] in world.group().state.consumers
    assert world.consume(world.unique(), 0, 9) == [b"3"]
    assert lag(world) == 16
    world.close()


def test_given_nothing_but_ranges_given_back_when_another_comes_then_the_limit_is_named_until_one_is_read(
    tmp_path: Path,
) -> None:
    world = few(tmp_path, consumers_max=2)
    given = [claimed(world, 2), claimed(world, 2)]
    for consumer in given:
        give_back(world, consumer, 0)
    before = world.group().state
    with pytest.raises(LimitExceeded, match="consumers_max"):
        world.consume(world.unique(), 0, 1)
    assert world.open.is_empty
    assert world.group().state == before
    reader = world.unique()
    assert world.consume(reader, 0, 2) == [b"0", b"1"], "who reads a whole range takes its place"
    assert world.consume(reader, 1, 1) == [b"2"]
    world.close()
