"""What a stream asks for: one group on many channels, and many channels in one long poll (SPEC §3.22 to §3.26).

All or none: each operation looks at all channels first, works out what becomes of each group, and only then
changes anything, in one commit. What the groups and the log themselves do is in `groups`, `log` and `shares`.
"""

from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any, NamedTuple

from rocksmq.protocol.batch import pack_lengths
from rocksmq.protocol.cbor import Buffer
from rocksmq.protocol.columns import pack_numbers
from rocksmq.protocol.errors import ChannelNotFound, InvalidRequest
from rocksmq.protocol.names import checked_name
from rocksmq.protocol.operations import Commit as CommitRequest
from rocksmq.protocol.operations import (
    CommitMany,
    CreateGroup,
    Empty,
    FetchMany,
    ManyMessages,
    Position,
    SeekMany,
    SoughtMany,
    Subscribe,
    Unsubscribe,
)

from . import columns
from .answers import Answers
from .channels import Channel, Channels
from .commit import Commit, Done
from .durability import Durability
from .groups import Group, Groups
from .limits import Bounds, Limits
from .log import Log, Reading
from .records import GroupState, LastSeek
from .replies import IndexedGap, Part, gap_before, merged_many
from .shares import Place, read_evenly
from .telemetry import Telemetry
from .waiters import Many, Waiter

GAPS_MAX = 800  # in a reply, so that its CBOR items fit into a frame; those of other channels come with the next
NOTHING = ManyMessages(b"", [], b"", 0, b"", b"", None, None)


class Move(NamedTuple):
    """Where a SEEK_MANY leads a group to, and what is kept there."""

    position: int
    metadata: bytes


class Streams:
    """The operations; ``handlers`` by their requests."""

    def __init__(
        self,
        answers: Answers,
        channels: Channels,
        groups: Groups,
        log: Log,
        limits: Limits,
        telemetry: Telemetry,
        when_left: Callable[[Done, Sequence[Channel]], Done],
    ) -> None:
        """``when_left`` makes of who is answered one that also tells retention that groups of these channels are gone."""
        self._answers = answers
        self._when_left = when_left
        self._channels = channels
        self._groups = groups
        self._log = log
        self._limits = limits
        self._telemetry = telemetry
        self.handlers: dict[type[Any], Callable[[Any, Done], Waiter | None]] = {
            Subscribe: self._subscribe,
            SeekMany: self._seek,
            FetchMany: self._fetch,
            CommitMany: self._commit,
            Unsubscribe: self._unsubscribe,
        }

    # -- groups ------------------------------------------------------------------

    def _subscribe(self, request: Subscribe, done: Done) -> Waiter | None:
        numbers = columns.channel_numbers(request.numbers, self._limits)
        checked_name("group", request.group)

        def subscribe(commit: Commit) -> None:
            planned: list[tuple[Channel, CreateGroup, GroupState]] = []
            present: list[Group] = []
            for channel in self._found(numbers):
                creation = CreateGroup(channel.name, request.group, request.start_kind, request.start, request.request_id)
                if (group := channel.groups.get(request.group)) is not None:
                    present.append(group)
                else:
                    state = self._groups.planned(channel.groups, channel.number, channel.visible, creation)
                    planned.append((channel, creation, state))
            if planned:
                self._channels.check_room_for_groups(len(planned))
            for channel, creation, state in planned:
                self._groups.add(commit, channel.groups, creation, state)
            self._answers.in_commit(commit if planned else self._answers.creating_one_of(present), done, Empty())

        return self._answers.in_meta_at_once(Many(request.group, numbers, only_missing=True), subscribe, done)

    def _seek(self, request: SeekMany, done: Done) -> Waiter | None:
        numbers = columns.channel_numbers(request.numbers, self._limits)
        moves = _moves(request, len(numbers))
        generations = _generations(request.generations, len(numbers))

        def seek(commit: Commit) -> None:
            channels = self._found(numbers)
            groups = self._groups_of(channels, request.group)
            repeated = [last for group in groups if (last := self._groups.last_seek(group, request.request_id)) is not None]
            if len(repeated) == len(groups):
                holding = self._answers.holding(lambda commit: any(_sought_in(commit, group) for group in groups))
                self._answers.in_commit(holding, done, _sought(groups))
                return
            for group, generation in zip(groups, generations, strict=True):
                if generation is not None:
                    self._groups.check_generation(group, generation)
            states = [
                self._sought(channel, group, move, request.request_id)
                for channel, group, move in zip(channels, groups, moves, strict=True)
            ]
            for group, state in zip(groups, states, strict=True):
                commit.set(group, state)
            self._answers.in_commit(commit, done, _sought(groups))
            for channel in channels:
                self._answers.attempt_consumers(channel.number)

        return self._answers.in_meta_at_once(Many(request.group, numbers), seek, done)

    def _sought(self, channel: Channel, group: Group, move: Move | None, request_id: bytes) -> GroupState:
        if move is None:
            state = self._groups.sought(group, channel.visible, Position.CURRENT, 0, request_id)
            if not state.metadata and state.offset == channel.visible.begin_offset and state.last_seek is not None:
                state = state._replace(last_seek=state.last_seek._replace(position=0))  # told as the beginning
            return state
        state = self._groups.sought(group, channel.visible, Position.ID, move.position, request_id)
        return state._replace(metadata=move.metadata)

    def _commit(self, request: CommitMany, done: Done) -> Waiter | None:
        numbers = columns.channel_numbers(request.numbers, self._limits)
        generations = columns.numbers("generations", request.generations, len(numbers))
        positions = columns.numbers("positions", request.positions, len(numbers))
        metadata = columns.metadata(request.metadata_lengths, request.metadata, len(numbers))

        def move(commit: Commit) -> None:
            channels = self._found(numbers)
            groups = self._groups_of(channels, request.group)
            moved: list[tuple[Group, GroupState]] = []
            wanted = zip(channels, groups, positions, generations, metadata, strict=True)
            for channel, group, position, generation, kept in wanted:
                one = CommitRequest(channel.name, group.name, position, generation, kept)
                if (state := self._groups.moved(group, channel.visible, one)) is not None:
                    moved.append((group, state))
            for group, state in moved:
                commit.set(group, state)
            holding = self._answers.holding(lambda commit: any(group in commit.cells for group in groups))
            durability = Durability.strictest(channel.durability for channel in channels)
            self._answers.in_commit(commit if moved else holding, done, Empty(), durability)

        return self._answers.in_meta_at_once(Many(request.group, numbers), move, done)

    def _unsubscribe(self, request: Unsubscribe, done: Done) -> Waiter | None:
        numbers = columns.channel_numbers(request.numbers, self._limits)
        generations = columns.numbers("generations", request.generations, len(numbers))
        checked_name("group", request.group)

        def unsubscribe(commit: Commit) -> None:
            leaving: list[tuple[Channel, Group]] = []
            channels = [self._channels.get_numbered(number) for number in numbers]
            for channel, generation in zip(channels, generations, strict=True):
                group = channel.groups.get(request.group) if channel is not None else None
                if channel is not None and group is not None:
                    self._groups.check_generation(group, generation)
                    leaving.append((channel, group))
            for channel, group in leaving:
                self._groups.remove(commit, channel.groups, group)
            of_groups = commit if leaving else self._answers.removing_groups()
            of_channels = self._answers.removing_channels() if None in channels else None
            told = self._when_left(done, [channel for channel, _ in leaving])
            self._answers.in_both(of_groups, of_channels, told, Empty())
            for channel, _ in leaving:
                self._answers.attempt_consumers(channel.number)

        return self._answers.in_meta_at_once(Many(request.group, numbers, is_written=False), unsubscribe, done)

    def _found(self, numbers: Sequence[int]) -> list[Channel]:
        """The channels of those numbers. Raises ChannelNotFound."""
        return [self._channels.numbered(number) for number in numbers]

    def _groups_of(self, channels: Sequence[Channel], name: str) -> list[Group]:
        """The group on each of them. Raises GroupNotFound."""
        return [self._groups.find(channel.groups, channel.name, name) for channel in channels]

    # -- messages ------------------------------------------------------------------

    def _fetch(self, request: FetchMany, done: Done) -> Waiter | None:
        bounds = Bounds.of(request, self._limits)
        starts = columns.starts(request.starts, self._limits)
        channels = self._found(tuple(starts))
        ready = set(starts)  # at first each is looked at

        def attempt(commit: Commit, sealing: bool) -> bool:
            reply = self._read(bounds, channels, starts, ready)
            if reply.parts:
                done(reply)
            return bool(reply.parts)

        if attempt(self._answers.committer.open, False):
            return None
        ready.clear()
        waiter = Waiter(tuple(starts), attempt, lambda: done(NOTHING), done, starts, ready)
        return self._answers.waiters.wait(waiter, bounds.wait_ms)

    def _read(
        self, bounds: Bounds, channels: Sequence[Channel], starts: Mapping[int, int], ready: Container[int]
    ) -> ManyMessages:
        """What there is on the channels that are ``ready``. Raises ChannelNotFound, which names the channel."""
        places: list[Place] = []
        gaps: dict[int, IndexedGap] = {}
        for index, (number, start) in enumerate(starts.items()):
            if number not in ready:
                continue
            channel = channels[index]
            extent = channel.visible
            if self._channels.get_numbered(number) is None:
                raise ChannelNotFound(f"channel {channel.name!r} of number {number} was destroyed: leave it out")
            if (gap := gap_before(start, number, extent)) is not None:
                if len(gaps) == GAPS_MAX:
                    continue
                gaps[index] = [index, *gap]
            if start <= extent.end_id and extent.message_count:
                places.append(Place(index, number, max(start, extent.begin_id), extent))
        readings = read_evenly(self._log, places, bounds.count_max, bounds.bytes_max, self._limits.frame_bytes_max)
        for index, reading in readings.items():
            self._telemetry.deliver(reading, channels[index].delivered)
        parts = [_part(index, readings.get(index), channels[index]) for index in sorted(readings.keys() | gaps.keys())]
        return merged_many(parts, [gaps[index] for index in sorted(gaps)])


def _part(index: int, reading: Reading | None, channel: Channel) -> Part:
    """Of the channel that was read, or where it goes on behind a gap."""
    if reading is None:
        return Part(index, [], 0, channel.visible.begin_id, channel.visible.begin_offset)
    return Part(index, reading.slices, reading.message_count, reading.next_position, reading.next_offset)


def _generations(column: Buffer | None, count: int) -> Sequence[int | None]:
    """In which each of ``count`` groups must be, None: in any. Raises InvalidRequest."""
    return [None] * count if column is None else columns.numbers("generations", column, count)


def _moves(request: SeekMany, count: int) -> Sequence[Move | None]:
    """Where each of ``count`` groups is led to. Raises InvalidRequest."""
    given = (request.positions, request.metadata_lengths, request.metadata)
    if request.positions is None or request.metadata_lengths is None or request.metadata is None:
        if any(column is not None for column in given):
            raise InvalidRequest("positions, metadata_lengths and metadata go together: all or none of them")
        return [None] * count
    positions = columns.numbers("positions", request.positions, count)
    metadata = columns.metadata(request.metadata_lengths, request.metadata, count)
    return [Move(*pair) for pair in zip(positions, metadata, strict=True)]


def _last_seek(state: GroupState | None) -> LastSeek | None:
    return None if state is None else state.last_seek


def _sought_in(commit: Commit, group: Group) -> bool:
    """Whether the group's last seek is in ``commit``, and not in one before it."""
    return group in commit.cells and _last_seek(commit.cells[group]) != group.state.last_seek


def _sought(groups: Sequence[Group]) -> SoughtMany:
    """The answer about groups that were just sought, or are asked about again."""
    seeks = [seek for group in groups if (seek := group.state.last_seek) is not None]
    metadata = [group.state.metadata for group in groups]
    return SoughtMany(
        pack_numbers(seek.position for seek in seeks),
        pack_numbers(seek.offset for seek in seeks),
        pack_numbers(seek.generation for seek in seeks),
        pack_lengths([len(kept) for kept in metadata]),
        b"".join(metadata),
    )
