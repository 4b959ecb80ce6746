"""The id allocator: unique, rising and contiguous, whatever the clock and the restarts do."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rocksmq.broker.ids import COUNT_MAX, COUNTER_BITS, WINDOW_MS, IDAllocator, time_ms_of
from rocksmq.protocol.errors import InvalidRequest

from .support import NOON_MS

DAY_MS = 24 * 3600 * 1000


class Clock:
    """Milliseconds that a test sets."""

    def __init__(self, now_ms: int = NOON_MS) -> None:
        self.now_ms = now_ms

    def __call__(self) -> int:
        return self.now_ms


def test_given_a_new_allocator_when_one_is_taken_twice_then_they_differ_and_rise() -> None:
    ids = IDAllocator()
    first, second = ids.alloc_one(), ids.alloc_one()
    assert second > first


def test_given_a_count_when_allocated_then_a_half_open_pair_of_exactly_that_many_comes_back() -> None:
    begin, end = IDAllocator().alloc(2048)
    assert end - begin == 2048


@pytest.mark.parametrize("count", [0, -1, COUNT_MAX + 1])
def test_given_a_count_out_of_bounds_when_allocated_then_it_is_refused_and_nothing_is_taken_or_saved(count: int) -> None:
    saved: list[int] = []
    ids = IDAllocator(clock=Clock())
    ids.restore(1, saved.append)
    with pytest.raises(InvalidRequest, match=f"count {count}: at least one id is allocated, and at most {COUNT_MAX}"):
        ids.alloc(count)
    assert not saved
    assert ids.alloc_one() == NOON_MS << COUNTER_BITS


@pytest.mark.parametrize("count", [1.5, "3", None])
def test_given_a_count_that_is_no_integer_when_allocated_then_it_is_a_type_error_and_nothing_is_taken(count: Any) -> None:
    ids = IDAllocator(clock=Clock())
    with pytest.raises(TypeError):
        ids.alloc(count)
    assert ids.alloc_one() == NOON_MS << COUNTER_BITS


def test_given_the_largest_count_when_allocated_then_the_window_lies_beyond_it() -> None:
    saved: list[int] = []
    ids = IDAllocator(clock=Clock())
    ids.restore(1, saved.append)
    begin, end = ids.alloc(COUNT_MAX)
    assert end - begin == COUNT_MAX
    assert saved[-1] > end


def test_given_more_ids_than_a_millisecond_has_when_allocated_then_they_spill_over_without_a_gap() -> None:
    ids = IDAllocator(clock=Clock())
    begin, end = ids.alloc(1 << 19)
    assert end - begin == 1 << 19
    assert ids.alloc(512) == (end, end + 512)
    assert time_ms_of(end) == NOON_MS + 2


def test_given_a_clock_when_an_id_is_taken_then_it_tells_the_millisecond() -> None:
    clock = Clock()
    ids = IDAllocator(clock=clock)
    assert time_ms_of(ids.alloc_one()) == NOON_MS
    clock.now_ms += 1234
    assert time_ms_of(ids.alloc_one()) == NOON_MS + 1234


@pytest.mark.parametrize("jump_ms", [-400 * DAY_MS, -1, 1, 400 * DAY_MS])
def test_given_a_clock_that_jumps_when_ids_are_taken_then_they_rise_all_the_same(jump_ms: int) -> None:
    clock = Clock()
    ids = IDAllocator(clock=clock)
    before = ids.alloc_one()
    clock.now_ms += jump_ms
    assert ids.alloc_one() > before


def test_given_a_store_when_ids_are_allocated_then_a_window_beyond_them_is_saved_first_and_only_when_needed() -> None:
    clock, saved = Clock(), list[int]()
    ids = IDAllocator(clock=clock)
    ids.restore(1, saved.append)
    begin, end = ids.alloc(10)
    assert len(saved) == 1
    assert saved[0] >= end > begin
    ids.alloc(10)
    assert len(saved) == 1
    clock.now_ms += WINDOW_MS + 1
    _, end = ids.alloc(10)
    assert len(saved) == 2
    assert saved[1] >= end


def test_given_a_save_that_fails_when_ids_are_allocated_then_none_is_given_out_and_the_next_call_saves_again() -> None:
    ends: list[int] = []

    def save(end: int) -> None:
        ends.append(end)
        if len(ends) == 1:
            raise OSError("the disk is gone")

    ids = IDAllocator(clock=Clock())
    ids.restore(1, save)
    with pytest.raises(OSError, match="gone"):
        ids.alloc(1)
    begin, _ = ids.alloc(1)
    assert len(ends) == 2
    assert begin < ends[1]


def test_given_a_saved_window_when_restored_with_the_clock_set_back_then_ids_go_on_behind_it() -> None:
    ids = IDAllocator(clock=Clock(NOON_MS - DAY_MS))
    ids.restore(NOON_MS << COUNTER_BITS, lambda end: None)
    assert ids.alloc_one() >= NOON_MS << COUNTER_BITS


def test_given_reserved_ids_when_their_window_is_not_saved_then_it_is_told_until_it_is() -> None:
    ids = IDAllocator(clock=Clock())
    ids.restore(1, lambda end: None)
    first = ids.reserve(5)
    end = ids.unsaved_end
    assert end is not None
    assert end >= first + 5
    ids.saved(end - 1)
    assert ids.unsaved_end == end
    ids.saved(end)
    assert ids.unsaved_end is None
    assert ids.reserve(1) == first + 5
    assert ids.unsaved_end is None


def test_given_a_window_half_used_when_updated_then_the_next_ids_need_no_save() -> None:
    clock, saved = Clock(), list[int]()
    ids = IDAllocator(clock=clock)
    ids.restore(1, saved.append)
    ids.alloc_one()
    clock.now_ms += WINDOW_MS
    ids.update_id()
    assert len(saved) == 2
    assert time_ms_of(ids.alloc_one()) == clock.now_ms
    assert len(saved) == 2


def test_given_a_window_mostly_left_when_updated_then_nothing_is_saved() -> None:
    clock, saved = Clock(), list[int]()
    ids = IDAllocator(clock=clock)
    ids.restore(1, saved.append)
    ids.alloc_one()
    clock.now_ms += WINDOW_MS // 3
    ids.update_id()
    assert len(saved) == 1
    assert ids.present_id == clock.now_ms << COUNTER_BITS


def test_given_the_clock_set_back_when_updated_then_the_next_id_does_not_follow() -> None:
    clock = Clock()
    ids = IDAllocator(clock=clock)
    ids.restore(1, lambda end: None)
    before = ids.alloc_one()
    clock.now_ms -= DAY_MS
    ids.update_id()
    assert ids.alloc_one() == before + 1


def test_given_a_save_that_fails_when_updated_then_the_next_update_saves() -> None:
    ends: list[int] = []

    def save(end: int) -> None:
        ends.append(end)
        if len(ends) == 1:
            raise OSError("the disk is gone")

    ids = IDAllocator(clock=Clock())
    ids.restore(1, save)
    with pytest.raises(OSError, match="gone"):
        ids.update_id()
    ids.update_id()
    assert len(ends) == 2
    ids.alloc_one()
    assert len(ends) == 2


def test_given_an_id_not_taken_when_the_present_is_asked_then_it_lies_at_or_above_every_id_and_takes_none() -> None:
    ids = IDAllocator(clock=Clock())
    begin, end = ids.alloc(3)
    assert ids.present_id == ids.present_id == end > begin


@settings(derandomize=True, deadline=None)
@given(st.lists(st.tuples(st.integers(-DAY_MS, DAY_MS), st.integers(1, 1 << 20), st.booleans()), max_size=30))
def test_given_any_clock_and_restarts_when_ids_are_taken_then_all_rise_and_lie_below_what_was_saved(
    steps: list[tuple[int, int, bool]],
) -> None:
    clock, saved = Clock(), [1]
    ids = IDAllocator(clock=clock)
    ids.restore(saved[-1], saved.append)
    last_end = 0
    for jump_ms, count, restart in steps:
        clock.now_ms = max(0, clock.now_ms + jump_ms)
        if restart:
            ids = IDAllocator(clock=clock)
            ids.restore(saved[-1], saved.append)
        begin, end = ids.alloc(count)
        assert end - begin == count
        assert begin >= last_end
        assert end <= saved[-1]
        last_end = end


def test_given_an_allocator_of_one_engine_when_given_to_another_then_it_is_refused_until_the_first_is_closed() -> None:
    ids = IDAllocator()
    ids.restore(1, lambda end: None)
    with pytest.raises(RuntimeError, match="another engine"):
        ids.restore(1, lambda end: None)
    ids.release()
    ids.restore(1, lambda end: None)


def test_given_a_released_allocator_when_asked_then_it_gives_out_nothing_until_an_engine_has_it() -> None:
    ids = IDAllocator()
    ids.restore(1, lambda end: None)
    before = ids.alloc_one()
    ids.release()
    for ask in (ids.alloc_one, ids.update_id):
        with pytest.raises(RuntimeError, match="closed"):
            ask()
    ids.restore(1, lambda end: None)
    assert ids.alloc_one() > before


def test_given_ids_taken_before_the_store_was_there_when_restored_then_an_end_behind_them_is_to_be_saved() -> None:
    ids = IDAllocator(clock=Clock())
    taken = ids.alloc_one()
    ids.restore(1, lambda end: None)
    assert ids.unsaved_end is not None
    assert ids.unsaved_end > taken


def test_given_a_window_closed_when_it_is_saved_then_nothing_is_left_to_save_until_more_ids_are_taken() -> None:
    ids = IDAllocator(clock=Clock())
    ids.restore(1, lambda end: None)
    last = ids.alloc_one()
    ids.close_window()
    assert ids.unsaved_end == last + 1
    ids.saved(last + 1)
    assert ids.unsaved_end is None
    ids.reserve(1)
    assert ids.unsaved_end is not None
