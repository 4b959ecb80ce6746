"""For models of exactly once with positions elsewhere: readers of any group, groups that note who was handed what."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import trio

from rocksmq.broker.commit import Commit
from rocksmq.broker.groups import Claim, Group, Groups
from rocksmq.broker.records import Extent
from rocksmq.protocol.errors import ChannelNotFound, GroupNotFound, MetaUnavailable
from rocksmq.protocol.messages import Message
from rocksmq.protocol.operations import Commit as CommitRequest
from rocksmq.protocol.operations import Consume, CreateGroup, ReleaseConsumer, Seek, Sought

from .reference_client import EVERYTHING, Client, Link, Reader
from .simulated_remote import RemoteSimulation

COMMITTED = b"commit" * 3  # the consumer of what a COMMIT passes over


class Handed(NamedTuple):
    """Who was handed what of one group in one generation."""

    number: int  # of its channel
    start: int
    claims: dict[tuple[bytes, int], list[int]]  # by consumer id and number

    @property
    def claimed(self) -> set[int]:
        return {message_id for ids in self.claims.values() for message_id in ids}


class Ledger:
    """What a broker has handed out, by channel, group and generation; the present generation of each group."""

    def __init__(self) -> None:
        self.handed: dict[int, Handed] = {}
        self.generations: dict[tuple[str, str], int] = {}

    def copy(self) -> "Ledger":
        copied = Ledger()
        copied.handed = {key: Handed(one.number, one.start, dict(one.claims)) for key, one in self.handed.items()}
        copied.generations = dict(self.generations)
        return copied

    def restore(self, other: "Ledger") -> None:
        self.handed, self.generations = other.handed, other.generations


class WatchedGroups(Groups):
    """Notes everything in its ledger, and with each commit how to take it back."""

    ledger: Ledger
    logs: Mapping[int, list[Message]]  # what is visible, by channel number

    def _note(self, commit: Commit) -> Ledger:
        commit.undo.append(partial(self.ledger.restore, self.ledger.copy()))
        return self.ledger

    def create(self, commit: Commit, groups: dict[str, Group], number: int, extent: Extent, request: CreateGroup) -> bool:
        is_new = request.group not in groups
        created = super().create(commit, groups, number, extent, request)
        if is_new:
            state = groups[request.group].state
            ledger = self._note(commit)
            ledger.handed[state.generation] = Handed(number, state.position, {})
            ledger.generations[request.channel, request.group] = state.generation
        return created

    def destroy(self, commit: Commit, groups: dict[str, Group], name: str, creation_id: int) -> Group | None:
        destroyed = super().destroy(commit, groups, name, creation_id)
        if destroyed is not None:
            del self._note(commit).generations[destroyed.channel_name, name]
        return destroyed

    def consume(self, commit: Commit, group: Group, extent: Extent, request: Consume) -> Claim | None:
        claim = super().consume(commit, group, extent, request)
        if claim is not None:
            ids = [piece.first_id + i for piece in claim.reading.slices for i in range(piece.stop - piece.start)]
            handed, key = self._note(commit).handed[claim.generation], (request.consumer, request.number)
            assert key in handed.claims or handed.claimed.isdisjoint(ids), "a message was handed to two"
            assert handed.claims.setdefault(key, ids) == ids, "a repeat is the same"
        return claim

    def release(self, commit: Commit, group: Group, extent: Extent, request: ReleaseConsumer) -> None:
        is_claim_known = group.repeats(request) and not group.state.consumers[request.consumer].is_released
        super().release(commit, group, extent, request)
        if is_claim_known:
            claims, key = self._note(commit).handed[group.state.generation].claims, (request.consumer, request.number)
            claims[key] = [message_id for message_id in claims[key] if message_id < request.position]

    def move(self, commit: Commit, group: Group, extent: Extent, request: CommitRequest) -> None:
        before = group.state.position
        super().move(commit, group, extent, request)
        if group.state.position > before:
            log = self.logs[group.state.channel_number]
            passed = [message.id for message in log if before <= message.id < request.position]
            self._note(commit).handed[group.state.generation].claims[COMMITTED, request.position] = passed

    def seek(self, commit: Commit, group: Group, extent: Extent, request: Seek) -> Sought:
        before = group.state
        sought = super().seek(commit, group, extent, request)
        if group.state is not before:
            ledger = self._note(commit)
            ledger.handed[sought.generation] = Handed(before.channel_number, sought.position, {})
            ledger.generations[group.channel_name, group.name] = sought.generation
        return sought


class PlacedReader(Reader):
    """Of any group; one that is told MetaUnavailable asks again, and knows that its claim may have been made."""

    def __init__(self, client: Client, place: tuple[str, str], which: int = 0) -> None:
        super().__init__(client)
        self.channel, self.group = place
        self.which = which

    def is_of(self, place: tuple[str, str], which: int) -> bool:
        return (self.channel, self.group, self.which) == (*place, which)

    def connected(self) -> None:
        if not self.client.is_connected:
            return
        if self.releasing is not None:
            self.releasing = self.releasing._replace(channel=self.channel, group=self.group)
            self.client.call(self.releasing, self._released)
        elif (consuming := self.consuming) is not None:
            self.id = self.id or self.client.witness.unique(self.client.present_id)
            consuming.is_in_flight = True
            request = Consume(self.channel, self.group, self.id, self.number, consuming.count, EVERYTHING, consuming.wait_ms)
            self.client.call(request, lambda reply: self._answered(consuming, reply))

    def _answered(self, consuming: Any, reply: Any) -> None:
        if isinstance(reply, MetaUnavailable):
            self.is_unresolved = True
            if consuming is self.consuming:
                self.connected()
        elif isinstance(reply, ChannelNotFound):
            super()._answered(consuming, GroupNotFound(reply.message))
        else:
            super()._answered(consuming, reply)

    def _released(self, reply: Any) -> None:
        if isinstance(reply, MetaUnavailable):
            self.connected()
        else:
            super()._released(GroupNotFound(reply.message) if isinstance(reply, ChannelNotFound) else reply)


class Broker(RemoteSimulation):
    """One that shows which replies leave, before they do."""

    on_reply: Callable[[Any, Any], None]
    scope: trio.CancelScope  # of its tasks

    @property
    def has_taken_over(self) -> bool:
        try:
            self.meta.check_loaded()
        except MetaUnavailable:
            return False
        return True

    def take(self, link: Link) -> None:
        if not link.requests or link.requests[0][1] is None or self._present.get(link.client) is not link:
            super().take(link)
            return
        correlation, request = link.requests.popleft()

        def answer(reply: Any) -> None:
            self.on_reply(request, reply)
            link.replies.append((correlation, reply))

        waiter = self.core.submit(request, answer)
        if waiter is not None:
            self._waiting.append((link, waiter))
