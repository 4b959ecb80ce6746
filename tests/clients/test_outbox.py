"""The outbox step by step: numbers, the window, recovery, and producers with a name (contract §4, SPEC §7.3, §7.5)."""

from itertools import count

import pytest

from rocksmq.clients.outbox import Outbox, Parcel, Sequence
from rocksmq.protocol.errors import (
    ConnectionFailed,
    InternalError,
    MessageTooLarge,
    OutOfSequence,
    Overloaded,
    PermissionDenied,
    RocksMQError,
    ShuttingDown,
    Timeout,
    Unauthenticated,
)
from rocksmq.protocol.identity import Identity
from rocksmq.protocol.messages import pack_messages

LOST = ConnectionFailed("lost")
WINDOW = 16  # SPEC §7.3


class Bench:
    """An outbox, the parcels put into it by name, and the ids it was given."""

    def __init__(self, has_name: bool = False) -> None:
        births = count(1)
        self.outbox = Outbox(lambda: Identity.new(next(births)), has_name=has_name)
        self.has_name = has_name
        self.parcels: dict[str, Parcel] = {}

    def add(self, *names: str) -> None:
        for name in names:
            sequence: Sequence = ord(name)
            parcel = Parcel(pack_messages([name.encode()]), [sequence, sequence] if self.has_name else None)
            self.parcels[name] = parcel
            self.outbox.add(parcel)

    def send(self) -> list[tuple[str, int]]:
        """All that may be sent now, with their numbers."""
        sent: list[tuple[str, int]] = []
        while (parcel := self.outbox.to_send()) is not None:
            sent.append((self.name_of(parcel), parcel.number))
        return sent

    def stored(self, *names: str) -> None:
        for name in names:
            self.outbox.stored(self.parcels[name])

    def failed(self, error: RocksMQError, *names: str) -> None:
        for name in names:
            self.outbox.failed(self.parcels[name], error)

    def name_of(self, parcel: Parcel) -> str:
        return bytes(parcel.batch.payloads).decode()

    @property
    def unsettled(self) -> list[str]:
        return [self.name_of(parcel) for parcel in self.outbox]

    @property
    def given_up(self) -> list[tuple[str, type[RocksMQError]]]:
        return [(self.name_of(parcel), type(error)) for parcel, error in self.outbox.failures]


def bench(*names: str, has_name: bool = False) -> Bench:
    """With ``names`` added, and all sent."""
    found = Bench(has_name)
    found.add(*names)
    found.send()
    return found


def out_of_sequence(expected_number: int | None) -> OutOfSequence:
    return OutOfSequence("not that one", expected_number=expected_number, present_id=9)


# -- without faults ------------------------------------------------------------------


def test_given_parcels_when_sent_then_they_are_numbered_from_0_in_order_and_each_is_sent_once() -> None:
    found = Bench()
    assert found.send() == []
    found.add("a", "b")
    assert found.send() == [("a", 0), ("b", 1)]
    found.add("c")
    assert found.send() == [("c", 2)]
    assert found.unsettled == ["a", "b", "c"]


def test_given_all_stored_when_more_is_added_then_numbers_go_on() -> None:
    found = bench("a", "b")
    found.stored("a", "b")
    assert not found.outbox
    found.add("c")
    assert found.send() == [("c", 2)]


def test_given_a_full_window_when_the_oldest_is_stored_then_one_more_is_sent() -> None:
    names = [chr(ord("a") + i) for i in range(WINDOW + 3)]
    found = Bench()
    found.add(*names)
    assert found.send() == [(name, i) for i, name in enumerate(names[:WINDOW])]
    found.stored(names[0])
    assert found.send() == [(names[WINDOW], WINDOW)]
    found.stored(names[1], names[2])
    assert found.send() == [(names[WINDOW + 1], WINDOW + 1), (names[WINDOW + 2], WINDOW + 2)]


def test_given_answers_in_another_order_when_the_oldest_is_unanswered_then_the_window_does_not_move() -> None:
    names = [chr(ord("a") + i) for i in range(WINDOW + 1)]
    found = Bench()
    found.add(*names)
    found.send()
    found.stored(*names[1:WINDOW])
    assert found.send() == []
    found.stored(names[0])
    assert found.send() == [(names[WINDOW], WINDOW)]


def test_given_a_parcel_that_could_not_be_sent_when_sent_later_then_its_number_is_the_same_and_others_are_behind_it() -> None:
    found = Bench()
    found.add("a", "b", "c")
    found.outbox.to_send()
    unsent = found.outbox.to_send()
    assert unsent is not None
    found.outbox.unsent(unsent)
    assert found.send() == []
    found.stored("a")
    assert found.send() == [("b", 1), ("c", 2)]
    assert not found.parcels["b"].is_unanswered


# -- lost connections ----------------------------------------------------------------


def test_given_a_failure_when_others_are_on_their_way_then_nothing_is_sent_until_all_are_answered() -> None:
    found = bench("a", "b", "c")
    found.failed(Overloaded("full"), "a")
    found.add("d")
    assert found.send() == []
    found.failed(out_of_sequence(0), "b")
    assert found.send() == []
    found.failed(out_of_sequence(0), "c")
    assert found.send() == [("a", 0), ("b", 1), ("c", 2), ("d", 3)]


def test_given_a_lost_connection_when_sent_again_then_under_the_old_numbers_and_the_rest_only_when_they_are_settled() -> None:
    found = bench("a", "b", "c")
    found.stored("a")
    found.add("d")
    identity = found.outbox.identity
    found.failed(LOST, "b", "c")
    assert found.send() == [("b", 1), ("c", 2)]
    found.add("e")
    found.stored("b")
    assert found.send() == []
    found.stored("c")
    assert found.send() == [("d", 3), ("e", 4)]
    assert found.outbox.identity is identity


def test_given_a_connection_that_was_lost_twice_when_sent_again_then_still_under_the_old_numbers() -> None:
    found = bench("a", "b")
    found.failed(LOST, "a", "b")
    found.send()
    found.stored("a")
    found.failed(LOST, "b")
    assert found.send() == [("b", 1)]
    found.stored("b")
    assert not found.outbox


@pytest.mark.parametrize("error", [ShuttingDown("stopping"), Overloaded("full"), out_of_sequence(0)])
def test_given_a_parcel_that_is_not_stored_when_those_behind_it_are_unanswered_then_they_are_not_stored_either(
    error: RocksMQError,
) -> None:
    found = bench("a", "b", "c")
    found.failed(error, "a")
    found.failed(LOST, "b", "c")
    assert not any(parcel.is_unanswered for parcel in found.outbox)
    assert found.send() == [("a", 0), ("b", 1), ("c", 2)]


def test_given_a_refused_parcel_when_those_behind_it_are_unanswered_then_they_take_its_number() -> None:
    found = bench("a", "b", "c")
    found.failed(LOST, "c")
    found.failed(MessageTooLarge("too large"), "b")
    found.failed(LOST, "a")
    assert found.send() == [("a", 0)]
    found.stored("a")
    assert found.send() == [("c", 1)]


def test_given_an_unanswered_parcel_behind_one_of_unknown_outcome_then_it_is_settled_first_under_its_number() -> None:
    found = bench("a", "b", "c")
    found.failed(InternalError("a bug"), "a")
    found.failed(LOST, "b", "c")
    assert found.send() == [("b", 1), ("c", 2)]


def test_given_unanswered_parcels_that_the_broker_has_not_when_told_so_then_they_are_numbered_on_from_what_it_expects() -> None:
    found = bench("a", "b", "c")
    found.stored("a")
    found.failed(LOST, "b", "c")
    found.send()
    found.failed(out_of_sequence(0), "b", "c")  # the broker lost its tail
    assert found.send() == [("b", 0), ("c", 1)]


@pytest.mark.parametrize(("error", "is_unanswered"), [(Overloaded("full"), False), (ShuttingDown("stopping"), True)])
def test_given_an_unanswered_parcel_when_refused_for_now_then_only_a_refusal_behind_the_look_up_answers_it(
    error: RocksMQError, is_unanswered: bool
) -> None:
    found = bench("a")
    found.failed(LOST, "a")
    found.send()
    found.failed(error, "a")
    assert found.parcels["a"].is_unanswered == is_unanswered
    assert found.send() == [("a", 0)]


# -- refusals ------------------------------------------------------------------------


def test_given_a_refused_parcel_then_its_number_goes_to_the_next() -> None:
    found = bench("a", "b", "c")
    found.failed(MessageTooLarge("too large"), "b")
    found.failed(out_of_sequence(1), "c")
    found.stored("a")
    assert found.given_up == [("b", MessageTooLarge)]
    assert found.send() == [("c", 1)]


def test_given_an_unanswered_parcel_when_refused_before_the_look_up_then_it_is_given_up_in_doubt_and_the_id_is_over() -> None:
    found = bench("a", "b")
    identity = found.outbox.identity
    found.failed(LOST, "a", "b")
    assert found.send() == [("a", 0), ("b", 1)]
    found.failed(PermissionDenied("no"), "a")
    found.stored("b")
    assert found.given_up == [("a", ConnectionFailed)]
    found.add("c")
    assert found.send() == [("c", 0)]
    assert found.outbox.identity.id != identity.id


# -- new ids -------------------------------------------------------------------------


def test_given_an_unknown_id_and_nothing_unanswered_then_all_goes_again_under_a_new_id_unseen_by_the_caller() -> None:
    found = bench("a", "b")
    identity = found.outbox.identity
    found.failed(out_of_sequence(None), "a", "b")
    found.add("c")
    assert found.send() == [("a", 0), ("b", 1), ("c", 2)]
    assert found.outbox.identity is not identity
    assert found.given_up == []


def test_given_an_unknown_id_and_something_unanswered_then_that_is_settled_under_the_old_id_before_a_new_one_is_used() -> None:
    found = bench("a", "b", "c")
    identity = found.outbox.identity
    found.failed(out_of_sequence(None), "a")
    found.failed(LOST, "b", "c")
    assert found.send() == [("b", 1), ("c", 2)]
    assert found.outbox.identity is identity
    found.failed(out_of_sequence(None), "b")
    assert found.send() == []
    found.failed(ShuttingDown("stopping"), "c")
    assert found.given_up == [("b", OutOfSequence)]
    assert found.send() == [("c", 2)]
    assert found.outbox.identity is identity
    found.failed(Overloaded("full"), "c")
    assert found.send() == [("a", 0), ("c", 1)]
    assert found.outbox.identity is not identity


@pytest.mark.parametrize("error", [InternalError("a bug"), Timeout("late"), out_of_sequence(5)])
def test_given_a_parcel_of_unknown_outcome_then_the_caller_is_told_once_and_the_rest_goes_under_a_new_id(
    error: RocksMQError,
) -> None:
    found = bench("a", "b")
    identity = found.outbox.identity
    found.failed(LOST, "a", "b")
    found.send()
    found.failed(error, "a")
    found.failed(out_of_sequence(0), "b")
    assert [(parcel, told) for parcel, told in found.outbox.failures] == [(found.parcels["a"], error)]
    assert found.send() == [("b", 0)]
    assert found.outbox.identity is not identity


# -- giving up -----------------------------------------------------------------------


def test_given_all_given_up_then_the_unanswered_are_told_in_doubt_and_what_is_added_goes_under_a_new_id() -> None:
    found = bench("a", "b")
    identity = found.outbox.identity
    found.failed(LOST, "a")
    found.failed(ShuttingDown("stopping"), "b")
    found.add("c")
    found.outbox.give_up_all(Unauthenticated("no"))
    assert found.given_up == [("a", ConnectionFailed), ("b", Unauthenticated), ("c", Unauthenticated)]
    assert not found.outbox
    found.add("d", "e")
    assert found.send() == [("d", 0), ("e", 1)]
    assert found.outbox.identity is not identity


# -- with a name ---------------------------------------------------------------------


@pytest.mark.parametrize("error", [InternalError("a bug"), out_of_sequence(None)])
def test_given_a_name_and_an_unknown_outcome_when_opened_again_then_what_is_stored_decides(error: RocksMQError) -> None:
    found = bench("a", "b", "c", has_name=True)
    found.add("d")
    found.failed(error, "a")
    assert not found.outbox.must_reopen
    found.failed(LOST, "b", "c")
    assert found.outbox.must_reopen
    assert found.send() == []
    identity = Identity.new(7)
    assert found.outbox.reopened(identity, ord("b")) == [found.parcels["a"], found.parcels["b"]]
    assert found.outbox.identity is identity
    assert found.unsettled == ["c", "d"]
    assert found.send() == [("c", 0), ("d", 1)]
    assert found.given_up == []


def test_given_a_name_under_which_nothing_is_stored_when_opened_again_then_all_goes_again() -> None:
    found = bench("a", "b", has_name=True)
    found.failed(InternalError("a bug"), "a", "b")
    assert found.outbox.reopened(Identity.new(7), None) == []
    assert found.send() == [("a", 0), ("b", 1)]


def test_given_a_name_and_a_lost_connection_then_no_opening_is_needed() -> None:
    found = bench("a", has_name=True)
    found.failed(LOST, "a")
    assert not found.outbox.must_reopen
    assert found.send() == [("a", 0)]


def test_given_a_name_and_a_refused_parcel_then_all_behind_it_is_given_up_once_all_is_answered() -> None:
    found = bench("a", "b", "c", has_name=True)
    found.add("d")
    found.failed(MessageTooLarge("too large"), "b")
    assert found.outbox.is_refusing
    assert found.send() == []
    found.failed(out_of_sequence(1), "c")
    found.stored("a")
    assert not found.outbox.is_refusing
    assert found.given_up == [("b", MessageTooLarge), ("c", MessageTooLarge), ("d", MessageTooLarge)]
    found.add("e")
    assert found.send() == [("e", 1)]


def test_given_a_name_and_a_refused_parcel_behind_one_of_unknown_outcome_then_that_one_is_given_up_in_doubt() -> None:
    found = bench("a", "b", has_name=True)
    found.failed(InternalError("a bug"), "a")
    found.failed(MessageTooLarge("too large"), "b")
    assert found.given_up == [("b", MessageTooLarge), ("a", ConnectionFailed)]
    found.add("c")
    assert found.outbox.must_reopen
    assert found.outbox.reopened(Identity.new(7), ord("a")) == []
    assert found.send() == [("c", 0)]


def test_given_a_name_and_all_given_up_when_more_is_added_then_the_name_is_opened_first() -> None:
    found = bench("a", has_name=True)
    found.failed(LOST, "a")
    found.outbox.give_up_all(Unauthenticated("no"))
    found.add("b")
    assert found.outbox.must_reopen
    assert found.send() == []
