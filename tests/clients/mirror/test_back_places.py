"""Places of a topic as sequences, and what of a topic is stored."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rocksmq.clients.mirror.back_messages import batch_size, check, first_chunk
from rocksmq.clients.mirror.back_places import UNBATCHED, Place, Unstored
from rocksmq.protocol.errors import InvalidRequest, MessageTooLarge

numbers = st.integers(0, (1 << 63) - 1)
places = st.builds(Place, numbers, numbers, st.integers(-1, (1 << 31) - 1))


@given(places, places)
def test_given_two_places_when_made_sequences_then_their_order_is_the_same_and_they_come_back(one: Place, two: Place) -> None:
    assert (one < two) == (one.sequence < two.sequence)
    assert Place.of_sequence(one.sequence) == one
    assert len(one.sequence) == 20


@given(places)
def test_given_a_place_when_read_on_behind_it_then_that_is_above_it_and_not_above_what_may_come_next(place: Place) -> None:
    assert place < place.after
    if place.batch_index == UNBATCHED:
        assert place.after <= Place(place.ledger, place.entry + 1, UNBATCHED)
    else:
        assert place.after == Place(place.ledger, place.entry, place.batch_index + 1)


@pytest.mark.parametrize("sequence", [7, b"", b"x" * 19])
def test_given_a_sequence_of_somebody_else_when_read_then_it_is_refused(sequence: int | bytes) -> None:
    with pytest.raises(InvalidRequest, match="is no place in a topic"):
        Place.of_sequence(sequence)


def test_given_half_a_batch_is_stored_when_asked_then_it_is_counted_and_its_entry_is_not_done() -> None:
    unstored = Unstored()
    first, *batch = [Place(1, 0, UNBATCHED), Place(1, 1, 0), Place(1, 1, 1)]
    unstored.add(first, 10, ends_entry=True)
    unstored.add(batch[0], 20, ends_entry=False)
    unstored.add(batch[1], 40, ends_entry=True)
    unstored.stored(None)
    assert (unstored.messages, unstored.take_done()) == (0, None)
    unstored.stored(batch[0].sequence)
    assert (unstored.messages, unstored.bytes, len(unstored)) == (2, 30, 1)
    assert unstored.take_done() is None, "the last entry stays"
    unstored.stored(batch[1].sequence)
    assert (unstored.messages, unstored.bytes, unstored.take_done()) == (3, 70, first)
    assert unstored.take_done() is None


def test_given_skipped_messages_when_all_before_them_is_stored_then_they_are_done_and_not_counted() -> None:
    unstored = Unstored()
    unstored.add(Place(1, 0, UNBATCHED), 10, ends_entry=True)
    unstored.add(Place(1, 1, UNBATCHED), 0, ends_entry=True, is_skipped=True)
    unstored.stored(None)
    assert unstored.take_done() is None
    unstored.stored(Place(1, 0, UNBATCHED).sequence)
    assert (unstored.messages, unstored.take_done()) == (1, Place(1, 0, UNBATCHED))


@pytest.mark.parametrize(("last", "done"), [(Place(1, 1, 0), None), (Place(1, 0, 7), Place(1, 0, 7)), (None, None)])
def test_given_what_is_stored_when_read_on_then_its_entry_is_done_with_the_next_one(
    last: Place | None, done: Place | None
) -> None:
    unstored = Unstored()
    unstored.forget(last)
    unstored.add(Place(1, 1, 1), 0, ends_entry=True)
    unstored.stored(Place(1, 1, 1).sequence)
    assert unstored.take_done() == done


def test_given_what_was_read_when_it_is_read_again_then_the_counts_stay() -> None:
    unstored = Unstored()
    for entry in (0, 1):
        unstored.add(Place(1, entry, UNBATCHED), 10, ends_entry=True)
    unstored.stored(Place(1, 0, UNBATCHED).sequence)
    unstored.forget()
    assert (len(unstored), unstored.messages, unstored.take_done()) == (0, 1, None)


@pytest.mark.parametrize(
    ("serialized", "size"), [("081d10002009300a", 10), ("081d10002000 30e807", 1000), ("081d1001", 0), ("", 0), ("08", 0)]
)
def test_given_a_message_id_of_pulsar_when_asked_for_the_batch_s_size_then_it_is_told(serialized: str, size: int) -> None:
    assert batch_size(bytes.fromhex(serialized)) == size


@pytest.mark.parametrize(
    ("serialized", "first"),
    [
        ("089a0b10023a05089a0b1001", (1434, 1)),
        ("089a0b10023a03089a0b", None),
        ("089a0b1000", None),
        ("081d10002009300a", None),
        ("", None),
    ],
)
def test_given_a_message_id_of_pulsar_when_asked_for_the_first_chunk_then_it_is_told(
    serialized: str, first: tuple[int, int] | None
) -> None:
    assert first_chunk(bytes.fromhex(serialized)) == first


@pytest.mark.parametrize(
    ("payload", "headers", "what"),
    [
        (b"x" * 11, {}, "11 bytes exceeds the limit of 10"),
        (b"", {str(number): b"" for number in range(65)}, "65 headers"),
        (b"", {"a": b"x" * 300_000}, "header_bytes_max"),
        (b"", {"a" * 5_000: b""}, "header name"),
    ],
)
def test_given_a_message_that_no_broker_takes_when_checked_then_it_is_too_large(
    payload: bytes, headers: dict[str, bytes], what: str
) -> None:
    with pytest.raises(MessageTooLarge, match=what):
        check(payload, headers, 10)
