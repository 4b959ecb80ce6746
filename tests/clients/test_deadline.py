"""Deadlines on a clock of the test's."""

import math

import pytest

from rocksmq.clients.deadline import Deadline, checked_timeout
from rocksmq.protocol.errors import InvalidRequest
from tests.clients.support import Clock


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """What deadlines take for the time."""
    clock = Clock()
    monkeypatch.setattr("rocksmq.clients.deadline.time", clock)
    return clock


def test_given_seconds_when_they_pass_then_what_remains_falls_to_0_and_not_below(clock: Clock) -> None:
    deadline = Deadline(2.5)
    assert (deadline.remaining, deadline.milliseconds, deadline.is_over) == (2.5, 2_500, False)
    clock.now += 2
    assert (deadline.remaining, deadline.milliseconds, deadline.is_over) == (0.5, 500, False)
    clock.now += 0.5
    assert (deadline.remaining, deadline.is_over) == (0, True)
    clock.now += 1
    assert (deadline.remaining, deadline.milliseconds, deadline.is_over) == (0, 0, True)


def test_given_0_seconds_then_it_is_over_at_once(clock: Clock) -> None:
    assert Deadline(0).is_over


def test_given_never_when_time_passes_then_it_is_not_over(clock: Clock) -> None:
    deadline = Deadline(None)
    clock.now += 1e9
    assert (deadline.remaining, deadline.is_over, deadline.is_never) == (math.inf, False, True)
    assert not Deadline(1e9).is_never


@pytest.mark.parametrize(("seconds", "limit", "expected"), [(5, 2, 2), (2, 5, 2), (None, 2, 2), (5, math.inf, 5)])
def test_given_a_limit_then_the_sooner_of_both_holds(
    seconds: float | None, limit: float, expected: float, clock: Clock
) -> None:
    assert Deadline(seconds).at_most(limit).remaining == expected


@pytest.mark.parametrize(("seconds", "more", "expected"), [(2, 3, 5), (2, None, math.inf), (None, 3, math.inf), (2, 0, 2)])
def test_given_more_time_then_it_counts_from_the_deadline_and_that_itself_stays(
    seconds: float | None, more: float | None, expected: float, clock: Clock
) -> None:
    deadline = Deadline(seconds)
    clock.now += 1
    elapsed = 0 if expected == math.inf else 1
    assert deadline.extended(more).remaining == expected - elapsed
    assert deadline.remaining == (math.inf if seconds is None else seconds - 1)


@pytest.mark.parametrize("seconds", [None, 0, 0.5, 10, math.inf])
def test_given_a_timeout_that_can_be_waited_for_then_it_is_returned(seconds: float | None) -> None:
    assert checked_timeout(seconds) == seconds


@pytest.mark.parametrize("seconds", [-1, -0.001, math.nan, -math.inf])
def test_given_a_timeout_that_is_negative_or_no_number_then_it_is_refused(seconds: float) -> None:
    with pytest.raises(InvalidRequest, match=r"timeout .* is not allowed"):
        checked_timeout(seconds)
