"""When an answer leaves: with the commit that holds what it tells of, and never before that is durable.

Owns the parked requests and attempts them again; knows the two places where commits are open, the group commit
of the messages and the store of the positions. Nothing here knows what an operation does.
"""

from collections.abc import Callable, Sequence
from typing import Any

from rocksmq.protocol.errors import ChannelNotFound, GroupNotFound, RocksMQError

from .channels import Channel
from .commit import Commit, Committer, Done
from .durability import Durability, Mode
from .groups import Group
from .meta import MetaStore
from .waiters import Many, Waiter, Waiters


class Answers:
    """``meta`` is set once by the owner."""

    meta: MetaStore

    def __init__(self, committer: Committer, waiting_channels_max: int) -> None:
        self.committer = committer
        self.waiters = Waiters(waiting_channels_max, self.refuse, self.attempt)

    def refuse(self, done: Done, error: RocksMQError) -> None:
        """Answer with ``error``; that something is gone, once its removal is durable: until then it may come back."""
        channels = self.removing_channels() if isinstance(error, (ChannelNotFound, GroupNotFound)) else None
        groups = self.removing_groups() if isinstance(error, GroupNotFound) else None
        self.in_both(groups, channels, done, error)

    def in_open(self, done: Done, reply: Any, durability: Durability | None = None) -> None:
        """Answer with the open group commit: as durable as ``durability`` asks, or fsynced."""
        self.committer.open.answer(done, reply, durability)
        if durability is not None and durability.mode is Mode.INTERVAL:
            self.committer.sync_within(durability.interval_ms / 1000)
        self.committer.wake()

    def in_commit(self, commit: Commit | None, done: Done, reply: Any, durability: Durability | None = None) -> None:
        """Answer with the commit that holds what ``reply`` tells of; at once when that is durable (None)."""
        if commit is None:
            done(reply)
        elif commit is self.committer.open:
            self.in_open(done, reply, durability)
        else:
            commit.answer(done, reply, durability)

    def in_both(self, first: Commit | None, second: Commit | None, done: Done, reply: Any) -> None:
        """Answer once both are durable; None: that one is. With the error of one that could not be."""
        if first is None or second is None or first is second:
            self.in_commit(first or second, done, reply)
            return
        results: list[Any] = []

        def one_is_over(result: Any) -> None:
            results.append(result)
            if len(results) == 2:
                done(next((result for result in results if result is not reply), reply))

        self.in_commit(first, one_is_over, reply)
        self.in_commit(second, one_is_over, reply)

    def holding(self, is_in: Callable[[Commit], bool]) -> Commit | None:
        """The commit that holds something of a group and is not durable yet; None: it is durable."""
        return next(filter(is_in, self.meta.pending), None)

    def removing_channels(self) -> Commit | None:
        """The latest commit that removes a channel and is not durable yet: never one of a store elsewhere."""
        return self.committer.holding(_removes)

    def removing_groups(self) -> Commit | None:
        """The latest commit that removes a group and is not durable yet."""
        return self.holding(_removes)

    def creating(self, made: Channel | Group) -> Commit | None:
        """The commit that creates it; None: it is durable, and may be shown."""
        if isinstance(made, Group):
            return self.creating_one_of([made])
        if made.is_public:
            return None
        return next((commit for commit in reversed(self.committer.pending) if made in commit.cells), None)  # others change it

    def creating_one_of(self, groups: Sequence[Group]) -> Commit | None:
        """The latest commit that creates one of them; None: they are durable. What is ``visible`` may not be synced."""
        return self.holding(lambda commit: any(group in commit.cells and commit.cells[group] is None for group in groups))

    def telling(self, channels: Sequence[Channel | None]) -> Commit | None:
        """The latest commit that brings one of ``channels`` or may have taken one that is missing; None: all is durable."""
        is_one_missing = None in channels
        unsure = [channel for channel in channels if channel is not None and not channel.is_public]

        def tells(commit: Commit) -> bool:
            return (is_one_missing and bool(commit.removed)) or any(channel in commit.cells for channel in unsure)

        return self.committer.holding(tells)

    def in_meta(self, channel_number: int, operate: Callable[[Commit], None], done: Done) -> Waiter | None:
        """Do an operation on a group of a channel in the commit of the store that keeps it."""
        return self.meta.submit(_operation(channel_number, operate, done), 0)

    def in_meta_at_once(self, many: Many, operate: Callable[[Commit], None], done: Done) -> Waiter | None:
        """Do an operation on several groups, all in one commit of that store."""
        waiter = _operation(many.channel_numbers[0], operate, done)
        waiter.many = many
        return self.meta.submit(waiter, 0)

    def attempt_all(self, channel_number: int) -> None:
        """A channel is gone: those who wait on it are told."""
        for waiter in self.waiters.of(channel_number):
            waiter.ready.add(channel_number)
            self.attempt(waiter)

    def attempt_consumers(self, channel_number: int) -> None:
        """A group of a channel was changed: that brings nothing to a fetch, which may wait on a thousand channels."""
        for waiter in self.waiters.of(channel_number):
            if waiter.starts is None:
                self.attempt(waiter)

    def attempt(self, waiter: Waiter) -> None:
        """There may be more for one that waits."""
        if waiter.starts is None:
            self.meta.attempt(waiter)
        else:
            self.waiters.attempt(waiter, self.committer.open)

    def attempt_held(self) -> None:
        """Attempt again those whose answer could not leave, or would have made the commit too large."""
        held, self.waiters.passed_over = self.waiters.passed_over, {}
        for waiter in filter(self.waiters.holds, held):
            self.attempt(waiter)


def _removes(commit: Commit) -> bool:
    return bool(commit.removed)


def _operation(channel_number: int, operate: Callable[[Commit], None], done: Done) -> Waiter:
    """What waits for its store only: it is done at the first attempt, so one channel is enough to find it by."""

    def attempt(commit: Commit, sealing: bool) -> bool:
        operate(commit)
        return True

    return Waiter((channel_number,), attempt, lambda: None, done)
