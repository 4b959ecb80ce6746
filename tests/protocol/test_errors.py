"""Errors (SPEC §5): one class a code, and what each says about trying again."""

import pytest

from rocksmq.protocol.errors import (
    ERRORS,
    ConnectionFailed,
    ErrorCode,
    InvalidRequest,
    OutOfSequence,
    Overloaded,
    PackPartlyProduced,
    RocksMQError,
    Timeout,
)

RETRYABLE = {"OVERLOADED", "DISK_FULL", "META_UNAVAILABLE", "SHUTTING_DOWN", "CONNECTION_FAILED"}


@pytest.mark.parametrize("code", ErrorCode)
def test_given_a_code_when_looked_up_then_it_has_one_class_named_like_it(code: ErrorCode) -> None:
    error = ERRORS[code]
    assert error.code is code
    assert issubclass(error, RocksMQError)
    assert error.__name__.lower() == code.name.replace("_", "").lower()


def test_given_the_table_of_classes_when_compared_then_it_holds_every_code_and_no_other() -> None:
    assert set(ERRORS) == set(ErrorCode)


def test_given_the_codes_when_listed_then_those_that_travel_have_no_holes_and_none_is_success() -> None:
    assert sorted(code for code in ErrorCode if code < 100) == list(range(1, 19))
    assert {code for code in ErrorCode if code >= 100} == {
        ErrorCode.CONNECTION_FAILED,
        ErrorCode.TIMEOUT,
        ErrorCode.GAP_FOUND,
        ErrorCode.BUFFER_FULL,
        ErrorCode.PACK_PARTLY_PRODUCED,
    }


@pytest.mark.parametrize("code", ErrorCode)
def test_given_a_code_when_asked_then_only_what_heals_without_a_change_is_retryable(code: ErrorCode) -> None:
    assert ERRORS[code].retryable == (code.name in RETRYABLE)


def test_given_an_error_when_raised_then_its_text_and_details_can_be_read() -> None:
    error = OutOfSequence("what to do", expected_number=7, present_id=8)
    assert (str(error), error.message) == ("what to do", "what to do")
    assert (error.expected_number, error.present_id, error.retry_after) == (7, 8, None)
    assert Overloaded("later", retry_after=0.5).retry_after == 0.5


def test_given_a_pack_that_was_partly_produced_when_told_then_it_says_what_is_stored_and_what_is_not() -> None:
    failed = Overloaded("later")
    error = PackPartlyProduced("one of two", ids={"a": range(5, 7)}, errors={"b": failed}, rest="a pack")
    assert (str(error), error.ids, error.errors, error.rest) == ("one of two", {"a": range(5, 7)}, {"b": failed}, "a pack")
    bare = PackPartlyProduced("none", retry_after=1.5)
    assert (bare.ids, bare.errors, bare.rest, bare.retry_after) == ({}, {}, None, 1.5)


def test_given_errors_with_a_builtin_twin_when_caught_as_that_then_they_are_caught() -> None:
    with pytest.raises(ValueError, match="a field"):
        raise InvalidRequest("a field")
    with pytest.raises(TimeoutError, match="too late"):
        raise Timeout("too late")
    assert not issubclass(ConnectionFailed, OSError)
