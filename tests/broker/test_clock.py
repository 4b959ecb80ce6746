"""When the clock is in doubt: steps either way, over restarts, ids ahead of it, and what a confirmation does."""

import time

import pytest

from rocksmq.broker.clock import AHEAD_MS_MAX, BOOT_ID, STEP_MS_MAX, ClockGuard, ClockNote

from .support import NOON_MS

HOUR_MS = 3_600_000


class Clocks:
    """A machine's: both go, and the wall clock can be set. A machine that starts anew has another boot."""

    def __init__(self) -> None:
        self.wall_ms = NOON_MS
        self.boot_ms = 1_000_000
        self.boot = "first"

    def go(self, milliseconds: int) -> None:
        self.wall_ms += milliseconds
        self.boot_ms += milliseconds

    def start_machine(self) -> None:
        self.boot, self.boot_ms = "second", 500

    def guard(self, stored: ClockNote | None = None) -> ClockGuard:
        return ClockGuard(stored, wall_ms=lambda: self.wall_ms, boot_ms=lambda: self.boot_ms, boot_id=lambda: self.boot)

    def doubt(self, guard: ClockGuard, ahead_ms: int = 0) -> str | None:
        guard.look(self.wall_ms + ahead_ms)
        return guard.doubt


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


def test_given_a_clock_that_goes_when_looked_at_then_there_is_no_doubt(clocks: Clocks) -> None:
    guard = clocks.guard()
    for _ in range(1_000):
        clocks.go(HOUR_MS)
        assert clocks.doubt(guard) is None


@pytest.mark.parametrize("way", [1, -1], ids=["forward", "back"])
def test_given_a_step_when_it_is_more_than_a_minute_then_the_clock_is_in_doubt(clocks: Clocks, way: int) -> None:
    guard = clocks.guard()
    clocks.go(HOUR_MS)
    clocks.wall_ms += way * STEP_MS_MAX
    assert clocks.doubt(guard) is None, "a minute is none"
    clocks.wall_ms += way
    assert clocks.doubt(guard) == f"the wall clock was set {'forward' if way > 0 else 'back'} by 60 s"
    clocks.wall_ms -= way * (STEP_MS_MAX + 1)
    assert clocks.doubt(guard) is not None, "only somebody can say that it is right"


@pytest.mark.parametrize("way", [1, -1])
def test_given_many_small_steps_when_they_come_to_a_minute_then_the_clock_is_in_doubt(clocks: Clocks, way: int) -> None:
    guard = clocks.guard()
    for _ in range(60):
        clocks.go(HOUR_MS)
        clocks.wall_ms += way * 1_000
        assert clocks.doubt(guard) is None
    clocks.wall_ms += way * 1_000
    assert clocks.doubt(guard) is not None


def test_given_ids_ahead_when_it_is_more_than_a_minute_then_the_clock_is_in_doubt(clocks: Clocks) -> None:
    guard = clocks.guard()
    assert clocks.doubt(guard, AHEAD_MS_MAX) is None
    assert clocks.doubt(guard, AHEAD_MS_MAX + 1) == "the wall clock is 60 s behind the last ids"
    assert clocks.doubt(guard, 0) is not None, "only somebody can say that it is right"


def test_given_a_doubt_when_confirmed_then_it_is_over_and_the_clock_is_watched_from_there(clocks: Clocks) -> None:
    guard = clocks.guard()
    clocks.wall_ms += HOUR_MS
    assert clocks.doubt(guard) is not None
    guard.confirm()
    assert clocks.doubt(guard) is None
    clocks.wall_ms += STEP_MS_MAX
    assert clocks.doubt(guard) is None
    clocks.wall_ms += 1
    assert clocks.doubt(guard) is not None


def test_given_ids_ahead_when_confirmed_then_it_is_over_until_they_have_been_caught_up_with(clocks: Clocks) -> None:
    guard = clocks.guard()
    assert clocks.doubt(guard, HOUR_MS) is not None
    guard.confirm()
    assert clocks.doubt(guard, HOUR_MS) is None
    assert clocks.doubt(guard, AHEAD_MS_MAX) is None
    assert clocks.doubt(guard, AHEAD_MS_MAX + 1) is not None, "ahead once more"


@pytest.mark.parametrize("way", [1, -1])
def test_given_a_step_while_no_broker_ran_when_the_machine_is_the_same_then_it_is_seen(clocks: Clocks, way: int) -> None:
    note = ClockNote.decode(clocks.guard().note.encode())
    clocks.go(HOUR_MS)
    clocks.wall_ms += way * (STEP_MS_MAX + 1)
    assert clocks.doubt(clocks.guard(note)) is not None


def test_given_a_machine_that_was_started_anew_when_looked_at_then_its_clocks_are_compared_from_there(clocks: Clocks) -> None:
    note = clocks.guard().note
    clocks.go(HOUR_MS)
    clocks.start_machine()
    guard = clocks.guard(note)
    assert clocks.doubt(guard) is None
    clocks.wall_ms += STEP_MS_MAX + 1
    assert clocks.doubt(guard) is not None


@pytest.mark.parametrize("is_same_boot", [True, False])
def test_given_a_doubt_when_restarted_then_it_stays_until_it_is_confirmed(clocks: Clocks, is_same_boot: bool) -> None:
    guard = clocks.guard()
    clocks.wall_ms += HOUR_MS
    doubt = clocks.doubt(guard)
    assert doubt is not None
    note = ClockNote.decode(guard.note.encode())
    clocks.go(HOUR_MS)
    if not is_same_boot:
        clocks.start_machine()
    again = clocks.guard(note)
    assert again.doubt == clocks.doubt(again) == doubt
    again.confirm()
    assert clocks.doubt(clocks.guard(ClockNote.decode(again.note.encode()))) is None


def test_given_a_wall_clock_behind_the_start_of_the_machine_when_stored_then_it_is_read_again() -> None:
    note = ClockNote("boot", -5_000, "said")
    assert ClockNote.decode(note.encode()) == note


def test_given_the_machine_s_own_clocks_when_looked_at_then_they_agree() -> None:
    guard = ClockGuard(None)
    guard.look(time.time_ns() // 1_000_000)
    assert guard.doubt is None
    assert guard.note.boot == BOOT_ID.read_text().strip()
    assert abs(guard.note.offset_ms - (time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)) * 1000) < 1_000
