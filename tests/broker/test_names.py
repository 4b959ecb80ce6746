"""Named producers: whose a name is, what is stored under it, when it is forgotten; and all of it over a full disk."""

from collections.abc import Callable
from pathlib import Path

import pytest

from rocksmq.broker import keys
from rocksmq.broker.ids import COUNTER_BITS
from rocksmq.broker.limits import Limits
from rocksmq.broker.names import IDLE_NAME_MS_MAX, ProducerNames
from rocksmq.broker.records import ProducerName
from rocksmq.broker.store import Family
from rocksmq.protocol.errors import Conflict, InvalidRequest, LimitExceeded, OutOfSequence
from rocksmq.protocol.operations import OpenProducer, Produce

from .support import World, batch_of, identity

ME, YOU, THIRD = identity(1, 1), identity(1, 2), identity(1, 3)
DAY_MS = 24 * 3600 * 1000


def open_name(world: World, producer: bytes, name: str = "importer") -> int | bytes | None:
    """What is stored under the name, which is the producer's now; not committed."""
    number = world.channel().number
    return world.names.open(world.open, number, OpenProducer("orders", name, producer))


def produce(
    world: World, producer: bytes, number: int, first: int | bytes, last: int | bytes | None = None, count: int = 1
) -> int | None:
    """A batch with its sequences; the first id, or None when they were stored before; not committed."""
    sequences = [first, first if last is None else last]
    request = Produce("orders", producer, number, *batch_of(*[b"x"] * count), sequences)
    return world.channels.produce(world.open, request, lambda size: None)[1]


def stored_names(world: World) -> dict[str, ProducerName]:
    """As they lie in the store."""
    found = world.store.scan(Family.META, keys.NAME, keys.prefix_end(keys.NAME))
    return {keys.name_of(key)[1]: ProducerName.decode(value) for key, value in found}


def restarted(world: World) -> ProducerNames:
    """The table as a start loads it."""
    names = ProducerNames(world.ids, world.limits)
    found = world.store.scan(Family.META, keys.NAME, keys.prefix_end(keys.NAME))
    names.load({keys.name_of(key): ProducerName.decode(value) for key, value in found})
    return names


def message_count(world: World) -> int:
    extent = world.channel().value
    return extent.end_offset - extent.begin_offset


# -- opening -------------------------------------------------------------------------


def test_given_a_new_name_when_opened_then_nothing_is_stored_under_it_and_it_lies_in_the_store(world: World) -> None:
    assert open_name(world, ME) is None
    world.commit()
    assert stored_names(world) == {"importer": ProducerName(ME, None, world.ids.present_id)}


def test_given_messages_under_a_name_when_opened_again_then_their_last_sequence_is_told(world: World) -> None:
    open_name(world, ME)
    assert produce(world, ME, 0, 5, 9, 3) is not None
    assert open_name(world, ME) == 9
    world.commit()
    assert open_name(world, ME) == 9
    assert open_name(world, YOU) == 9
    world.commit()
    assert stored_names(world)["importer"][:2] == (YOU, 9)


def test_given_a_name_that_another_opened_when_the_former_holder_produces_then_it_is_a_conflict(world: World) -> None:
    open_name(world, ME)
    first = produce(world, ME, 0, 1)
    open_name(world, YOU)
    with pytest.raises(Conflict, match="opened by another"):
        produce(world, ME, 1, 2)
    assert produce(world, ME, 0, 1) == first, "a repeat gets its first answer"
    assert produce(world, YOU, 0, 2) is not None
    world.commit()
    assert message_count(world) == 2
    assert open_name(world, ME) == 2, "and it may take the name back"
    with pytest.raises(Conflict):
        produce(world, YOU, 1, 3)


def test_given_a_producer_that_never_opened_a_name_when_it_sends_sequences_then_it_is_a_conflict(world: World) -> None:
    world.channel()
    with pytest.raises(Conflict):
        produce(world, ME, 0, 1)
    assert world.open.is_empty


def test_given_a_name_when_its_producer_sends_no_sequences_then_it_is_refused(world: World) -> None:
    open_name(world, ME)
    world.commit()
    with pytest.raises(InvalidRequest, match="no sequences"):
        world.append(Produce("orders", ME, 0, *batch_of(b"x")))
    assert world.open.is_empty
    assert world.append(Produce("orders", YOU, 0, *batch_of(b"x"))), "producers without a name need none"


def test_given_a_producer_that_holds_a_name_when_it_opens_another_then_it_is_refused(world: World) -> None:
    open_name(world, ME, "one")
    open_name(world, YOU, "two")
    world.commit()
    for name in ("two", "three"):
        with pytest.raises(InvalidRequest, match="another name"):
            open_name(world, ME, name)
    assert world.open.is_empty
    assert open_name(world, ME, "one") is None


@pytest.mark.parametrize("name", ["", "a/b", "x" * 201, "a b", ".x"])
def test_given_a_bad_name_when_opened_then_it_is_refused(world: World, name: str) -> None:
    world.channel()
    with pytest.raises(InvalidRequest, match="producer name"):
        open_name(world, ME, name)
    assert world.open.is_empty


def test_given_two_channels_when_both_have_a_name_then_each_counts_for_itself(world: World) -> None:
    open_name(world, ME)
    produce(world, ME, 0, 7)
    other = world.channel("other")
    assert world.names.open(world.open, other.number, OpenProducer("other", "importer", ME)) is None
    assert open_name(world, ME) == 7


def test_given_as_many_names_as_are_allowed_when_one_more_is_opened_then_the_limit_is_named(tmp_path: Path) -> None:
    world = World(tmp_path / "few", Limits(producer_names_max=2))
    open_name(world, ME, "one")
    open_name(world, YOU, "two")
    world.commit()
    with pytest.raises(LimitExceeded, match="producer_names_max"):
        open_name(world, THIRD, "three")
    assert world.open.is_empty
    assert open_name(world, THIRD, "two") is None
    world.close()


# -- sequences -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "last", "count", "is_stored"),
    [(1, 5, 3, True), (5, 5, 1, True), (10, 10, 1, True), (6, 10, 2, True), (11, 11, 1, False), (100, 300, 5, False)],
)
def test_given_a_last_sequence_when_a_batch_lies_before_or_behind_it_then_it_was_stored_or_is(
    world: World, first: int, last: int, count: int, is_stored: bool
) -> None:
    open_name(world, ME)
    produce(world, ME, 0, 10)
    world.commit()
    before = message_count(world)
    first_id = produce(world, ME, 1, first, last, count)
    assert (first_id is None) == is_stored
    assert message_count(world) == before + (0 if is_stored else count)
    world.commit()
    assert produce(world, ME, 1, first, last, count) == first_id, "its repeat is answered alike"
    assert open_name(world, ME) == (10 if is_stored else last)
    assert produce(world, ME, 2, 1_000) is not None, "its number is spent"


@pytest.mark.parametrize(
    ("first", "last", "count", "match"),
    [
        (9, 11, 2, "which is 10"),
        (10, 11, 2, "which is 10"),
        (12, 11, 2, "strictly"),
        (11, 11, 2, "strictly"),
        (11, 12, 1, "strictly"),
        (11, 12, 3, "strictly"),
        (b"11", b"12", 2, "of one kind: integers"),
        (11, b"12", 2, "of one kind: integers"),
    ],
)
def test_given_sequences_that_do_not_follow_when_produced_then_nothing_is_stored_and_the_number_is_free(
    world: World, first: int | bytes, last: int | bytes, count: int, match: str
) -> None:
    open_name(world, ME)
    produce(world, ME, 0, 10)
    world.commit()
    with pytest.raises(InvalidRequest, match=match):
        produce(world, ME, 1, first, last, count)
    assert world.open.is_empty
    assert produce(world, ME, 1, 11) is not None


def test_given_sequences_of_bytes_when_produced_then_they_are_compared_as_bytes(world: World) -> None:
    open_name(world, ME)
    assert produce(world, ME, 0, b"b", b"ba", 2) is not None
    assert produce(world, ME, 1, b"b\x00") is None
    assert produce(world, ME, 2, b"c") is not None
    with pytest.raises(InvalidRequest, match="byte strings"):
        produce(world, ME, 3, 4)
    world.commit()
    assert restarted(world).open(world.open, world.channel().number, OpenProducer("orders", "importer", YOU)) == b"c"


def test_given_a_number_out_of_turn_when_sent_with_sequences_then_it_is_refused_before_they_are_looked_at(world: World) -> None:
    open_name(world, ME)
    produce(world, ME, 0, 10)
    with pytest.raises(OutOfSequence) as refused:
        produce(world, ME, 5, 9, 11)
    assert refused.value.expected_number == 1


# -- what is stored, and what is undone ------------------------------------------------


def test_given_names_when_loaded_then_holders_and_last_sequences_are_as_before(world: World) -> None:
    for producer, name, last in ((ME, "one", 5), (YOU, "two", 6)):
        open_name(world, producer, name)
        produce(world, producer, 0, last)
    open_name(world, THIRD, "two")
    world.commit()
    names, number = restarted(world), world.channel().number
    request = Produce("orders", ME, 1, *batch_of(b"x"), [5, 5])
    admitted = names.admit(number, request)
    assert admitted is not None
    assert admitted.is_stored
    with pytest.raises(Conflict):
        names.admit(number, request._replace(producer=YOU))
    assert names.open(world.open, number, OpenProducer("orders", "two", THIRD)) == 6


def opened(world: World) -> None:
    open_name(world, THIRD, "new")
    produce(world, THIRD, 0, 1)


def fenced(world: World) -> None:
    open_name(world, YOU)
    produce(world, YOU, 0, 11)
    open_name(world, THIRD)


def stored(world: World) -> None:
    produce(world, ME, 1, 11)


def found_stored(world: World) -> None:
    produce(world, ME, 1, 10)


def forgotten(world: World) -> None:
    world.now_ms += IDLE_NAME_MS_MAX + 1
    world.names.forget(world.open)


def destroyed(world: World) -> None:
    open_name(world, YOU)
    world.channels.destroy(world.open, [("orders", world.channel().number)])


@pytest.mark.parametrize("change", [opened, fenced, stored, found_stored, forgotten, destroyed])
def test_given_a_full_disk_when_rolled_back_then_names_holders_and_sequences_are_as_before(
    world: World, change: Callable[[World], None]
) -> None:
    open_name(world, ME)
    produce(world, ME, 0, 10)
    world.commit()
    before, number = stored_names(world), world.channel().number
    change(world)
    world.roll_back()
    with pytest.raises(Conflict):
        produce(world, YOU, 0, 12)
    with pytest.raises(Conflict):
        produce(world, THIRD, 0, 12)
    assert world.open.is_empty
    assert stored_names(world) == before
    assert produce(world, ME, 1, 10) is None
    assert produce(world, ME, 2, 11) is not None
    world.commit()
    assert set(stored_names(world)) == {"importer"}
    assert world.channel().number == number
    assert open_name(world, THIRD, "new") is None
    assert open_name(world, YOU) == 11


# -- forgetting and destroying -----------------------------------------------------------


def test_given_a_name_idle_for_thirty_days_when_forgetting_then_it_goes_and_one_in_use_stays(world: World) -> None:
    for producer, name in ((ME, "idle"), (YOU, "busy"), (THIRD, "opened")):
        open_name(world, producer, name)
    world.commit()
    world.now_ms += 1
    produce(world, YOU, 0, 1)
    open_name(world, THIRD, "opened")
    world.commit()
    world.now_ms += IDLE_NAME_MS_MAX - 1
    world.names.forget(world.open)
    assert world.open.is_empty
    world.now_ms += 1
    world.names.forget(world.open)
    world.commit()
    assert set(stored_names(world)) == {"busy", "opened"}
    with pytest.raises(Conflict, match="forgotten"):
        produce(world, ME, 0, 1)
    assert open_name(world, ME, "idle") is None
    world.now_ms += 1
    world.names.forget(world.open)
    world.commit()
    assert set(stored_names(world)) == {"idle"}


def test_given_names_loaded_when_forgetting_then_the_longest_idle_are_still_the_first(world: World) -> None:
    open_name(world, ME, "b")
    world.commit()
    world.now_ms += DAY_MS
    open_name(world, YOU, "a")
    world.commit()
    names = restarted(world)
    world.now_ms += IDLE_NAME_MS_MAX - DAY_MS + 1
    names.forget(world.open)
    world.commit()
    assert set(stored_names(world)) == {"a"}


def test_given_an_idle_name_that_is_opened_in_the_same_commit_when_forgetting_then_it_stays(world: World) -> None:
    open_name(world, ME)
    produce(world, ME, 0, 10)
    world.commit()
    world.now_ms += IDLE_NAME_MS_MAX + DAY_MS
    assert open_name(world, YOU) == 10
    world.names.forget(world.open)
    world.commit()
    assert stored_names(world)["importer"][:2] == (YOU, 10)


def test_given_a_channel_destroyed_and_made_anew_then_its_names_begin_anew(world: World) -> None:
    old = world.channel()
    open_name(world, ME)
    produce(world, ME, 0, 10)
    other = world.channel("other")
    world.names.open(world.open, other.number, OpenProducer("other", "kept", YOU))
    world.commit()
    produce(world, ME, 1, 11)
    world.channels.destroy(world.open, [("orders", old.number)])
    world.commit()
    assert set(stored_names(world)) == {"kept"}
    world.channel()
    with pytest.raises(Conflict):
        produce(world, ME, 0, 12)
    assert open_name(world, ME) is None
    assert produce(world, ME, 0, 1) is not None
    world.commit()
    assert stored_names(world)["importer"][:2] == (ME, 1)


def test_given_names_when_used_then_their_last_use_is_written_with_it(world: World) -> None:
    open_name(world, ME)
    world.commit()
    world.now_ms += DAY_MS
    produce(world, ME, 0, 1)
    world.commit()
    assert stored_names(world)["importer"].last_use >> COUNTER_BITS == world.now_ms
