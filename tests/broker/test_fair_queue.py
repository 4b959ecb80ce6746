"""The queue of those who add to a full commit: driven by tasks, held against what fairness by bytes means."""

import math
from random import Random

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from rocksmq.broker.fair_queue import FairQueue, Writer

from .support import in_trio

SOFT, EXCESS_MAX = 1_000, 100_000


class Commits:
    """An open commit, and the queue before it."""

    def __init__(self) -> None:
        self.size = 0
        self.queue = FairQueue(lambda: SOFT - self.size, EXCESS_MAX)
        self.served: dict[Writer, int] = {}
        self.order: list[Writer] = []

    def add(self, writer: Writer, size: int) -> None:
        self.size += size
        self.served[writer] = self.served.get(writer, 0) + size
        self.order.append(writer)
        self.queue.added(writer, size)

    async def bring(self, writer: Writer, size: int) -> None:
        """One batch, when it may be added."""
        while self.queue.must_wait(writer):
            await self.queue.wait(writer)
        self.add(writer, size)

    async def bring_without_end(self, writer: Writer, size: int) -> None:
        while True:
            await self.bring(writer, size)
            await trio.lowlevel.checkpoint()

    async def take(self) -> int:
        """The commit is written; who was waiting adds to the next one. How large the last was."""
        await wait_all_tasks_blocked()
        size, self.size = self.size, 0
        self.queue.taken()
        await wait_all_tasks_blocked()
        return size


def writers(commits: Commits, count: int, size: int) -> list[Writer]:
    """They have added a batch each, and the commit is full."""
    made = [Writer() for _ in range(count)]
    for writer in made:
        commits.add(writer, size)
    return made


@in_trio
async def test_given_room_or_nothing_added_when_asked_then_nobody_waits() -> None:
    commits = Commits()
    writer, reader = Writer(), Writer()
    commits.add(writer, SOFT - 1)
    assert not commits.queue.must_wait(writer)
    commits.add(writer, 1)
    assert commits.queue.must_wait(writer)
    assert not commits.queue.must_wait(reader)
    commits.queue.added(writer, 0)  # it has read, too
    assert commits.queue.must_wait(writer)
    await commits.take()
    commits.add(reader, SOFT)
    commits.queue.added(writer, 0)
    assert not commits.queue.must_wait(writer)


@in_trio
async def test_given_large_batches_that_wait_when_a_small_one_comes_then_it_is_before_them() -> None:
    commits = Commits()
    large, small = writers(commits, 50, SOFT), Writer()
    commits.add(small, 1)
    async with trio.open_nursery() as nursery:
        for writer in large:
            nursery.start_soon(commits.bring_without_end, writer, SOFT)
        await commits.take()
        for _ in range(200):
            assert not commits.queue.must_wait(small)
            commits.add(small, 1)
            await commits.take()
        nursery.cancel_scope.cancel()


@in_trio
async def test_given_some_that_wait_when_there_is_room_then_those_are_first_who_would_have_finished_first() -> None:
    commits = Commits()
    sizes = (1 * SOFT, 3 * SOFT, 2 * SOFT)
    small, large, middle = who = [Writer() for _ in sizes]
    for writer, size in zip(who, sizes, strict=True):
        commits.add(writer, size)
    async with trio.open_nursery() as nursery:
        for writer, size in zip(who, sizes, strict=True):
            assert commits.queue.must_wait(writer)
            nursery.start_soon(commits.bring, writer, size)
            await wait_all_tasks_blocked()
        for _ in range(4):
            await commits.take()
    assert commits.order[3:] == [small, middle, large]


@in_trio
@pytest.mark.parametrize("seed", range(10))
async def test_given_writers_without_end_when_commits_are_taken_then_nobody_gets_much_more_than_who_brings_most_at_a_time(
    seed: int,
) -> None:
    random = Random(seed)
    sizes = [random.choice((1, 10, 300, SOFT, 3 * SOFT)) for _ in range(random.randint(2, 30))]
    commits = Commits()
    who = [Writer() for _ in sizes]
    async with trio.open_nursery() as nursery:
        for writer, size in zip(who, sizes, strict=True):
            nursery.start_soon(commits.bring_without_end, writer, size)
        await commits.take()
        before = dict(commits.served)
        for _ in range(15 * len(who)):
            taken = await commits.take()
            assert 0 < taken <= SOFT + 4 * max(sizes) * len(who)
        nursery.cancel_scope.cancel()
    shares = [commits.served[writer] - before[writer] for writer in who]
    largest = [share for share, size in zip(shares, sizes, strict=True) if size == max(sizes)]
    assert max(shares) - min(largest) <= 2 * max(sizes) + SOFT, (sizes, shares)
    assert min(shares) > 0


@in_trio
async def test_given_a_newcomer_when_others_have_had_much_then_it_gets_no_more_than_they_from_now_on() -> None:
    commits = Commits()
    old, newcomer = writers(commits, 3, SOFT), Writer()
    async with trio.open_nursery() as nursery:
        for writer in old:
            nursery.start_soon(commits.bring_without_end, writer, SOFT)
        for _ in range(300):
            await commits.take()
        before = dict(commits.served)
        nursery.start_soon(commits.bring_without_end, newcomer, SOFT)
        for _ in range(40):
            await commits.take()
        nursery.cancel_scope.cancel()
    assert commits.served[newcomer] <= 3 * SOFT + min(commits.served[writer] - before[writer] for writer in old)


@in_trio
async def test_given_many_small_ones_that_overtake_when_the_commit_is_not_taken_then_it_is_only_that_much_too_large() -> None:
    commits = Commits()
    large = Writer()
    commits.add(large, 100 * EXCESS_MAX)
    commits.size = SOFT
    async with trio.open_nursery() as nursery:
        nursery.start_soon(commits.bring, large, 100 * EXCESS_MAX)
        await wait_all_tasks_blocked()
        for _ in range(EXCESS_MAX // 50):
            small = Writer()
            commits.queue.added(small, 100)
            if not commits.queue.must_wait(small):
                commits.add(small, 100)
        assert commits.size == SOFT + EXCESS_MAX
        nursery.cancel_scope.cancel()


@in_trio
async def test_given_a_promise_that_is_not_used_when_passed_on_then_the_next_is_let_in() -> None:
    commits = Commits()
    first, second, third = writers(commits, 3, SOFT)
    let_in: list[Writer] = []

    async def wait(writer: Writer) -> None:
        await commits.queue.wait(writer)
        let_in.append(writer)

    async with trio.open_nursery() as nursery:
        for writer in (first, second, third):
            nursery.start_soon(wait, writer)
            await wait_all_tasks_blocked()
        await commits.take()
        assert let_in == [first]
        assert not commits.queue.must_wait(first)
        commits.queue.pass_on(first)  # it has pinged
        await wait_all_tasks_blocked()
        assert let_in == [first, second]
        commits.queue.leave(second)  # it has gone
        await wait_all_tasks_blocked()
        assert let_in == [first, second, third]


@in_trio
async def test_given_one_that_goes_while_it_waits_when_there_is_room_then_it_has_woken_and_nothing_is_promised_to_it() -> None:
    commits = Commits()
    first, second = writers(commits, 2, SOFT)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(commits.queue.wait, first)
        await wait_all_tasks_blocked()
        nursery.start_soon(commits.queue.wait, second)
        await wait_all_tasks_blocked()
        commits.queue.leave(first)
        await wait_all_tasks_blocked()
        assert len(nursery.child_tasks) == 1
        await commits.take()
        assert not nursery.child_tasks
    assert (first.promised, second.promised) == (0, SOFT)


@in_trio
@pytest.mark.parametrize("seed", range(10))
async def test_given_writers_that_read_ping_and_go_when_commits_are_taken_then_none_is_left_waiting(seed: int) -> None:
    random = Random(seed)
    commits = Commits()
    done: list[int] = []

    async def live(number: int) -> None:
        writer = Writer()
        for _ in range(random.randint(1, 20)):
            while commits.queue.must_wait(writer):
                with trio.move_on_after(random.choice((math.inf, 0))) as waiting:
                    await commits.queue.wait(writer)
                if waiting.cancelled_caught:
                    commits.queue.leave(writer)
                    done.append(number)
                    return
            action = random.random()
            if action < 0.7:
                commits.add(writer, random.choice((1, 100, SOFT)))
            elif action < 0.8:
                commits.queue.added(writer, 0)
            elif action < 0.9:
                commits.queue.pass_on(writer)
            else:
                break
            await trio.lowlevel.checkpoint()
        commits.queue.leave(writer)
        done.append(number)

    count = 30
    async with trio.open_nursery() as nursery:
        for number in range(count):
            nursery.start_soon(live, number)
        with trio.fail_after(30):
            while len(done) < count:
                await commits.take()
    assert sorted(done) == list(range(count))
