"""Places in a topic: as text, as numbers, in order."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rocksmq.clients import InvalidRequest
from rocksmq.clients.pulsar.client import pulsar
from rocksmq.clients.pulsar.places import Place, decoded

PLACES = st.builds(Place, st.integers(0, 1 << 50), st.integers(0, (1 << 40) - 1), st.integers(-1, (1 << 24) - 2))


@given(PLACES)
def test_given_a_place_when_told_as_text_or_as_a_number_then_it_is_read_again(place: Place) -> None:
    assert decoded(str(place)) == decoded(str(place.number)) == place


@given(PLACES, PLACES)
def test_given_two_places_when_compared_then_their_numbers_have_the_same_order(one: Place, other: Place) -> None:
    assert (one < other) == (one.number < other.number)


def test_given_messages_of_a_batch_when_numbered_then_the_numbers_follow_each_other() -> None:
    first = Place(5, 7, 0)
    assert first.behind == Place(5, 7, 1)
    assert first.behind.number == first.number + 1
    assert Place(5, 7).behind == Place(5, 8)


def test_given_the_text_of_a_place_when_pulsar_reads_it_then_it_is_its_own_message_id() -> None:
    import base64

    found = pulsar.MessageId.deserialize(base64.urlsafe_b64decode(str(Place(5, 7, 3))))
    assert (found.ledger_id(), found.entry_id(), found.batch_index()) == (5, 7, 3)


def test_given_the_beginning_when_told_then_it_is_empty() -> None:
    assert decoded("") is None


@pytest.mark.parametrize("text", ["five", "-5", "9" * 5_000, "9" * 40, "AAAA", "CCo=", "\x00", 5, None])
def test_given_what_is_no_place_when_read_then_it_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest):
        decoded(text)
