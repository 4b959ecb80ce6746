"""Parked requests: who is on a channel, in which order, and until when."""

import weakref
from typing import Any

import trio

from rocksmq.broker.commit import Commit
from rocksmq.broker.waiters import Waiter, Waiters

from .support import in_mock_time


class Parked:
    """Waiters of a table that note when they expire."""

    def __init__(self) -> None:
        self.waiters = Waiters(100_000)
        self.expired: list[tuple[str, float]] = []
        self.begin = trio.current_time()

    def park(self, name: str, seconds: float, *channels: int) -> Waiter:
        def attempt(commit: Commit, sealing: bool) -> bool:
            return False

        def done(reply: Any) -> None:
            raise AssertionError(f"{name} was answered: {reply}")

        def expire() -> None:
            self.expired.append((name, round(trio.current_time() - self.begin, 6)))

        waiter = Waiter(channels or (1,), attempt, expire, done)
        self.waiters.park(waiter, seconds)
        return waiter


@in_mock_time
async def test_given_waiters_when_their_time_comes_then_each_expires_then_and_only_once() -> None:
    parked = Parked()
    parked.park("late", 5)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(parked.waiters.run)
        await trio.sleep(1)
        parked.park("soon", 1)
        parked.park("also soon", 1)
        parked.park("in between", 2)
        await trio.sleep(60)
        nursery.cancel_scope.cancel()
    assert parked.expired == [("soon", 2), ("also soon", 2), ("in between", 3), ("late", 5)]
    assert len(parked.waiters) == 0


@in_mock_time
async def test_given_a_cancelled_waiter_when_its_time_comes_then_nothing_happens() -> None:
    parked = Parked()
    waiter = parked.park("gone", 1)
    parked.park("there", 2)
    assert parked.waiters.cancel(waiter)
    assert not parked.waiters.cancel(waiter)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(parked.waiters.run)
        await trio.sleep(10)
        nursery.cancel_scope.cancel()
    assert parked.expired == [("there", 2)]


@in_mock_time
async def test_given_waiters_on_channels_when_asked_for_then_they_come_in_the_order_they_came() -> None:
    parked = Parked()
    a, b, c, d = (parked.park(name, 9, channel) for name, channel in (("a", 1), ("b", 2), ("c", 1), ("d", 1)))
    assert list(parked.waiters.of(1)) == [a, c, d]
    assert list(parked.waiters.of(2)) == [b]
    assert list(parked.waiters.of(3)) == []
    assert set(parked.waiters) == {a, b, c, d}
    assert len(parked.waiters) == 4
    parked.waiters.cancel(c)
    parked.waiters.cancel(b)
    assert list(parked.waiters.of(1)) == [a, d]
    assert list(parked.waiters.of(2)) == []
    assert len(parked.waiters) == 2


@in_mock_time
async def test_given_waiters_that_are_cancelled_and_parked_while_walking_them_then_the_walk_is_not_disturbed() -> None:
    parked = Parked()
    for name in "abc":
        parked.park(name, 9)
    seen = 0
    for waiter in parked.waiters.of(1):
        parked.waiters.cancel(waiter)
        parked.park("again", 9)
        seen += 1
    assert seen == len(list(parked.waiters.of(1))) == 3


@in_mock_time
async def test_given_a_waiter_that_was_served_or_is_parked_again_when_its_deadline_is_still_kept_then_nothing_of_it_is() -> (
    None
):
    parked = Parked()
    waiters = [parked.park(name, 100, 1, 2) for name in "abc"]
    kept = [weakref.ref(waiter.attempt) for waiter in waiters]
    assert parked.waiters.cancel(waiters.pop())
    parked.waiters.park(waiters[0], 200)
    parked.waiters.serve(waiters[0], Commit())
    assert [one() is not None for one in kept] == [True, True, False]
    parked.waiters.cancel(waiters.pop(0))
    assert [one() is not None for one in kept] == [False, True, False]


# -- on many channels ----------------------------------------------------------------------


@in_mock_time
async def test_given_a_waiter_on_many_channels_when_asked_for_then_it_is_on_each_in_its_turn_and_counted_once() -> None:
    parked = Parked()
    first, many, last = parked.park("first", 9, 7), parked.park("many", 9, *range(1_000)), parked.park("last", 9, 7)
    assert list(parked.waiters.of(7)) == [first, many, last]
    assert all(list(parked.waiters.of(channel)) == [many] for channel in range(1_000) if channel != 7)
    assert list(parked.waiters) == [first, many, last]
    assert len(parked.waiters) == 3
    assert parked.waiters.cancel(many)
    assert not parked.waiters.cancel(many)
    assert not parked.waiters.holds(many)
    assert list(parked.waiters.of(7)) == [first, last]
    assert len(parked.waiters) == 2
    assert list(parked.waiters._waiting) == [7], "nothing is kept for it"  # pyright: ignore[reportPrivateUsage]


@in_mock_time
async def test_given_a_waiter_on_many_channels_when_its_time_comes_then_it_expires_once() -> None:
    parked = Parked()
    parked.park("many", 1, 1, 2, 3)
    again = parked.park("again", 1, 1, 2)
    parked.waiters.park(again, 5)
    assert list(parked.waiters.of(1))[1] is again, "in its former place"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(parked.waiters.run)
        await trio.sleep(10)
        nursery.cancel_scope.cancel()
    assert parked.expired == [("many", 1), ("again", 5)]
    assert not [channel for channel in (1, 2, 3) if list(parked.waiters.of(channel))]


@in_mock_time
async def test_given_waiters_that_go_while_a_channel_is_walked_then_those_are_left_out() -> None:
    parked = Parked()
    first, second, third = (parked.park(name, 9, 1, 2) for name in "abc")
    walked = parked.waiters.of(1)
    assert next(walked) is first
    parked.waiters.cancel(second)
    assert next(walked) is third
    walked = iter(parked.waiters)
    parked.waiters.cancel(first)
    assert list(walked) == [third]


@in_mock_time
async def test_given_a_served_waiter_on_many_channels_when_the_next_of_them_brings_more_then_it_is_not_served_again() -> None:
    waiters = Waiters(100_000)
    replies: list[str] = []

    def attempt(commit: Commit, sealing: bool) -> bool:
        replies.append("served")
        return True

    waiters.park(Waiter((1, 2, 3), attempt, lambda: replies.append("expired"), replies.append), 5)
    for channel in (2, 3, 1):
        for waiter in waiters.of(channel):
            waiters.attempt(waiter, Commit())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(waiters.run)
        await trio.sleep(10)
        nursery.cancel_scope.cancel()
    assert replies == ["served"]


@in_mock_time
async def test_given_a_waiter_whose_answer_cannot_leave_when_it_goes_then_it_is_not_among_the_held_any_more() -> None:
    parked = Parked()
    many, other = parked.park("many", 9, 4, 5, 6), parked.park("other", 9, 5)
    many.must_wait = lambda: True
    for waiter in (*parked.waiters.of(5), *parked.waiters.of(4)):
        parked.waiters.attempt(waiter, Commit())
    assert list(parked.waiters.passed_over) == [many], "once, and nobody beside it"
    parked.waiters.cancel(many)
    assert not parked.waiters.passed_over
    assert list(parked.waiters.of(5)) == [other]
