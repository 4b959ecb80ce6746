"""The one recovery rule (contract §4, SPEC §7.3): what an answer says about a batch that was sent, maybe more than once.

Pure. `unanswered`: a transmission of the batch has had neither reply nor error, so it may have been stored.
"""

from enum import Enum, auto
from typing import NamedTuple

from rocksmq.protocol.errors import (
    OUTCOME_UNKNOWN,
    ChannelNotFound,
    ConnectionFailed,
    GroupNotFound,
    MetaUnavailable,
    OutOfSequence,
    PermissionDenied,
    RocksMQError,
    ShuttingDown,
    Unauthenticated,
)

NOT_LOOKED_UP = (
    ChannelNotFound,
    GroupNotFound,
    ShuttingDown,
    Unauthenticated,
    PermissionDenied,
)  # given before the broker looks at the number


class Next(Enum):
    """What to do with the batch."""

    AGAIN = auto()  # send it again, under the same id
    NEW_ID = auto()  # it is not stored: send it again, under a new id
    REFUSED = auto()  # it is not stored: tell the caller
    UNKNOWN = auto()  # stored or not: tell the caller, and use the id no more


class Verdict(NamedTuple):
    """``error`` is what to tell the caller; ``expected_number`` which number comes next, if the broker has told."""

    next: Next
    is_unanswered: bool
    error: RocksMQError
    expected_number: int | None = None


def verdict(error: RocksMQError, number: int, is_unanswered: bool) -> Verdict:
    """On ``error``, with which the newest transmission of batch ``number`` ended."""
    if isinstance(error, (ConnectionFailed, MetaUnavailable)):  # the latter says no more about what was done
        return Verdict(Next.AGAIN, True, error)
    if isinstance(error, OutOfSequence):
        return _out_of_sequence(error, number, is_unanswered)
    if isinstance(error, OUTCOME_UNKNOWN):
        return Verdict(Next.UNKNOWN, True, error)
    is_unanswered = is_unanswered and isinstance(error, NOT_LOOKED_UP)
    if error.retryable:
        return Verdict(Next.AGAIN, is_unanswered, error)
    if is_unanswered:
        return Verdict(Next.UNKNOWN, True, in_doubt(error))
    return Verdict(Next.REFUSED, False, error)


def _out_of_sequence(error: OutOfSequence, number: int, is_unanswered: bool) -> Verdict:
    if error.expected_number is not None and number >= error.expected_number:
        return Verdict(Next.AGAIN, False, error, error.expected_number)
    return Verdict(Next.UNKNOWN if is_unanswered else Next.NEW_ID, is_unanswered, error)


def in_doubt(error: RocksMQError) -> RocksMQError:
    """``error`` as the caller must see it when an earlier transmission may have been stored."""
    if isinstance(error, OUTCOME_UNKNOWN):
        return error
    return ConnectionFailed(f"{error.message}; whether an earlier transmission was stored is unknown")
