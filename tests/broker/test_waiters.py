"""Parked requests: who is on a channel, in which order, and until when."""

from typing import Any

import trio

from rocksmq.broker.commit import Commit
from rocksmq.broker.waiters import Waiter, Waiters

from .support import in_mock_time


class Parked:
    """Waiters of a table that note when they expire."""

    def __init__(self) -> None:
        self.waiters = Waiters()
        self.expired: list[tuple[str, float]] = []
        self.begin = trio.current_time()

    def park(self, name: str, seconds: float, channel: int = 1) -> Waiter:
        def attempt(commit: Commit, sealing: bool) -> bool:
            return False

        def done(reply: Any) -> None:
            raise AssertionError(f"{name} was answered: {reply}")

        def expire() -> None:
            self.expired.append((name, round(trio.current_time() - self.begin, 6)))

        waiter = Waiter([channel], attempt, expire, done)
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
