"""The recovery rule as a table: each error, with and without an unanswered transmission (contract §1, §4; SPEC §5.2, §7.3)."""

import pytest

from rocksmq.clients.recovery import Next, in_doubt, verdict
from rocksmq.protocol.errors import (
    ERRORS,
    OUTCOME_UNKNOWN,
    BufferFull,
    ChannelNotFound,
    Conflict,
    ConnectionFailed,
    DiskFull,
    GapFound,
    GroupNotFound,
    InternalError,
    InvalidRequest,
    LimitExceeded,
    MessageTooLarge,
    MetaUnavailable,
    OutOfSequence,
    Overloaded,
    PackPartlyProduced,
    PermissionDenied,
    ProtocolError,
    ReadOnly,
    RocksMQError,
    ShuttingDown,
    StorageFailed,
    Timeout,
    Unauthenticated,
    UnsupportedVersion,
)

Outcome = tuple[Next, bool]  # what to do, and whether a transmission is unanswered now

# What follows when no earlier transmission of the batch is unanswered, and when one is.
LOST: tuple[Outcome, Outcome] = (Next.AGAIN, True), (Next.AGAIN, True)
UNKNOWN: tuple[Outcome, Outcome] = (Next.UNKNOWN, True), (Next.UNKNOWN, True)
NOT_NOW: tuple[Outcome, Outcome] = (Next.AGAIN, False), (Next.AGAIN, False)
NOT_NOW_UNSEEN: tuple[Outcome, Outcome] = (Next.AGAIN, False), (Next.AGAIN, True)
NEVER: tuple[Outcome, Outcome] = (Next.REFUSED, False), (Next.REFUSED, False)
NEVER_UNSEEN: tuple[Outcome, Outcome] = (Next.REFUSED, False), (Next.UNKNOWN, True)

TABLE: dict[type[RocksMQError], tuple[Outcome, Outcome]] = {
    ConnectionFailed: LOST,
    Timeout: UNKNOWN,
    StorageFailed: UNKNOWN,
    InternalError: UNKNOWN,
    ProtocolError: UNKNOWN,
    Overloaded: NOT_NOW,
    DiskFull: NOT_NOW,
    MetaUnavailable: LOST,
    ShuttingDown: NOT_NOW_UNSEEN,
    ChannelNotFound: NEVER_UNSEEN,
    GroupNotFound: NEVER_UNSEEN,
    Unauthenticated: NEVER_UNSEEN,
    PermissionDenied: NEVER_UNSEEN,
    InvalidRequest: NEVER,
    Conflict: NEVER,
    MessageTooLarge: NEVER,
    LimitExceeded: NEVER,
    ReadOnly: NEVER,
    UnsupportedVersion: NEVER,
}
WAS_UNANSWERED = pytest.mark.parametrize("was_unanswered", [False, True], ids=["all answered", "one unanswered"])


def test_given_the_table_then_no_error_that_a_request_can_end_with_is_missing() -> None:
    assert set(TABLE) | {OutOfSequence, GapFound, BufferFull, PackPartlyProduced} == set(ERRORS.values())


@pytest.mark.parametrize("kind", TABLE, ids=lambda kind: kind.__name__)
@WAS_UNANSWERED
def test_given_an_error_when_asked_what_it_says_about_the_batch_then_it_is_as_the_table_has_it(
    kind: type[RocksMQError], was_unanswered: bool
) -> None:
    error = kind("so it is")
    found = verdict(error, 7, was_unanswered)
    assert (found.next, found.is_unanswered) == TABLE[kind][was_unanswered]
    assert found.expected_number is None


@pytest.mark.parametrize("kind", TABLE, ids=lambda kind: kind.__name__)
@WAS_UNANSWERED
def test_given_an_error_that_ends_the_batch_then_what_is_told_says_whether_it_may_be_stored(
    kind: type[RocksMQError], was_unanswered: bool
) -> None:
    error = kind("so it is")
    found = verdict(error, 7, was_unanswered)
    if found.next is Next.REFUSED:
        assert found.error is error
        assert not isinstance(found.error, OUTCOME_UNKNOWN)
    if found.next is Next.UNKNOWN:
        assert isinstance(found.error, OUTCOME_UNKNOWN)
        assert found.error.message.startswith("so it is")


@pytest.mark.parametrize("kind", [ChannelNotFound, Unauthenticated, PermissionDenied])
def test_given_an_unanswered_transmission_when_refused_before_the_look_up_then_the_connection_is_said_to_have_failed(
    kind: type[RocksMQError],
) -> None:
    found = verdict(kind("not you"), 7, True)
    assert type(found.error) is ConnectionFailed
    assert found.error.message == "not you; whether an earlier transmission was stored is unknown"


@pytest.mark.parametrize(
    ("expected_number", "was_unanswered", "outcome"),
    [
        (6, False, (Next.AGAIN, False)),
        (6, True, (Next.AGAIN, False)),
        (7, False, (Next.AGAIN, False)),
        (7, True, (Next.AGAIN, False)),
        (8, False, (Next.NEW_ID, False)),
        (8, True, (Next.UNKNOWN, True)),
        (None, False, (Next.NEW_ID, False)),
        (None, True, (Next.UNKNOWN, True)),
    ],
)
def test_given_out_of_sequence_for_batch_7_then_it_goes_again_at_or_above_the_expected_number_and_else_if_all_was_answered(
    expected_number: int | None, was_unanswered: bool, outcome: Outcome
) -> None:
    error = OutOfSequence("not that one", expected_number=expected_number, present_id=5)
    found = verdict(error, 7, was_unanswered)
    assert (found.next, found.is_unanswered) == outcome
    assert found.error is error
    assert found.expected_number == (expected_number if found.next is Next.AGAIN else None)


def test_given_number_0_of_an_unknown_id_then_0_is_no_missing_expected_number() -> None:
    found = verdict(OutOfSequence("not that one", expected_number=0), 0, True)
    assert (found.next, found.is_unanswered, found.expected_number) == (Next.AGAIN, False, 0)


@pytest.mark.parametrize("kind", OUTCOME_UNKNOWN)
def test_given_an_error_that_leaves_the_outcome_open_when_told_in_doubt_then_it_stays_as_it_is(
    kind: type[RocksMQError],
) -> None:
    error = kind("so it is")
    assert in_doubt(error) is error


def test_given_a_refusal_when_told_in_doubt_then_it_is_of_a_class_of_unknown_outcome() -> None:
    told = in_doubt(MessageTooLarge("too large"))
    assert isinstance(told, OUTCOME_UNKNOWN)
    assert told.message == "too large; whether an earlier transmission was stored is unknown"
