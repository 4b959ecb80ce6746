"""The state of consumer groups: positions, claims, seeks (contract §1, §4).

Pure and synchronous like `channels`. A group's position is the id of the next message to read;
`offset` counts the messages before it, so that lag is exact. What a consumer id was handed
last is kept with the position and in the same write, so that a repeat gets it again.
"""

import time
from collections.abc import Iterable
from typing import NamedTuple

from rocksmq.metrics.instruments import Traffic
from rocksmq.protocol.errors import Conflict, GroupNotFound, InvalidRequest, LimitExceeded, OutOfSequence
from rocksmq.protocol.identity import birth_of
from rocksmq.protocol.names import checked_name
from rocksmq.protocol.operations import (
    METADATA_BYTES_MAX,
    Consume,
    CreateGroup,
    GroupDescribed,
    Outcome,
    Position,
    ReleaseConsumer,
    Sought,
)
from rocksmq.protocol.operations import Commit as CommitRequest
from rocksmq.protocol.operations import Seek as SeekRequest

from . import keys
from .commit import Commit
from .ids import COUNTER_BITS, IDAllocator, clock_ms, time_ms_of
from .limits import Limits
from .log import Log, Place, Reading
from .records import ConsumerEntry, Extent, GroupState, LastSeek
from .replies import Gap
from .store import Change, Delete, Family, Put

IDLE_CONSUMER_MS_MAX = 3600 * 1000


class Group:
    """One consumer group of one channel. ``value`` is its state with everything accepted, None before its creation.

    ``visible`` is the state that is durable, and all that a description may show. ``polls``: when consumer ids with an entry
    last asked in vain, as present ids; kept in memory only, for which ids are idle. ``used_at``: when it was last read,
    committed or sought, by time.monotonic. ``delivered`` is what its consumes were answered since the broker's start.
    """

    __slots__ = ("channel_name", "delivered", "name", "oldest", "polls", "used_at", "value", "visible")

    def __init__(self, name: str, channel_name: str, value: GroupState | None) -> None:
        self.name = name
        self.channel_name = channel_name
        self.value = value
        self.visible = value
        self.polls: dict[bytes, int] = {}
        self.delivered = Traffic()
        self.used_at = time.monotonic()
        self.oldest: tuple[tuple[int, int], int] | None = None  # what `Groups.lag_ms` found last, and for what

    @property
    def state(self) -> GroupState:
        assert self.value is not None, "the group exists"
        return self.value

    def repeats(self, request: Consume | ReleaseConsumer) -> bool:
        """Whether it is about what its consumer id was handed last, and the group was not sought since."""
        entry = self.state.consumers.get(request.consumer)
        return entry is not None and entry.number == request.number and entry.generation == self.state.generation

    def came_with(self, commit: Commit, consumer: bytes) -> bool:
        """Whether the last claim of ``consumer`` is in ``commit``, and not in one before it."""
        if self not in commit.cells:
            return False
        before: GroupState | None = commit.cells[self]
        return before is None or before.consumers.get(consumer) != self.state.consumers.get(consumer)

    def changes(self, old: GroupState | None) -> list[Change]:
        """As a cell of the commit: the seeds' key, and everything else beside it."""
        return [
            Put(Family.META, self._key(keys.CURRENT_ID), str(self.state.position).encode()),
            Put(Family.META, self._key(keys.STATE), self.state.encode()),
        ]

    def deletion(self) -> list[Change]:
        """What removes it from the store."""
        return [Delete(Family.META, self._key(leaf)) for leaf in (keys.CURRENT_ID, keys.STATE)]

    def _key(self, leaf: str) -> bytes:
        return keys.group_key(self.name, self.channel_name, leaf)


class Target(NamedTuple):
    """Where a seek leads."""

    place: Place
    outcome: Outcome


class Claim(NamedTuple):
    """What a consume was handed, the generation it was handed in, and what was removed unread before it.

    ``is_repeat``: it was claimed before; else the commit claims it.
    """

    reading: Reading
    generation: int
    gap: Gap | None
    is_repeat: bool


class Lost(NamedTuple):
    """So many messages from ``begin`` on that retention removed before the group read them, or could ask for them again."""

    begin: int
    message_count: int

    def __add__(self, other: object) -> "Lost":
        if not isinstance(other, Lost):
            return NotImplemented
        begins = [lost.begin for lost in (self, other) if lost.message_count]
        return Lost(min(begins, default=0), self.message_count + other.message_count)

    def gap(self, end: int) -> Gap | None:
        """As a reply tells it, before the message with id ``end``."""
        return [self.begin, end, self.message_count] if self.message_count else None


NOTHING_LOST = Lost(0, 0)


class Groups:
    """The operations on the groups of a channel, given that channel's groups, number and extent."""

    def __init__(self, log: Log, ids: IDAllocator, limits: Limits) -> None:
        self._log = log
        self._ids = ids
        self._limits = limits

    @staticmethod
    def find(groups: dict[str, Group], channel: str, name: str) -> Group:
        """The group. Raises GroupNotFound, or InvalidRequest for a name that none can have."""
        group = groups.get(name)
        if group is None:
            raise GroupNotFound(
                f"channel {channel!r} has no consumer group {checked_name('group', name)!r}: check the name, or create it"
            )
        return group

    def create(self, commit: Commit, groups: dict[str, Group], number: int, extent: Extent, request: CreateGroup) -> bool:
        """Create the group; True if this request did, also when it is a repeat of the one that did."""
        checked_name("group", request.group)
        if (existing := groups.get(request.group)) is not None:
            return existing.state.request_id == request.request_id
        self.add(commit, groups, request, self.planned(groups, number, extent, request))
        return True

    def planned(self, groups: dict[str, Group], number: int, extent: Extent, request: CreateGroup) -> GroupState:
        """The state of a group that ``request`` would create; nothing is changed. Raises InvalidRequest, LimitExceeded."""
        checked_name("group", request.group)
        if len(groups) >= self._limits.groups_max:
            raise LimitExceeded(
                f"channel {request.channel!r} has {len(groups)} groups, and the limit is {self._limits.groups_max} (groups_max)"
            )
        place = self.target(number, extent, request.start_kind, request.start).place
        creation_id = self._ids.reserve(1)
        return GroupState(
            number, creation_id, request.request_id, place.message_id, place.offset, creation_id, b"", None, {}, 0
        )

    def add(self, commit: Commit, groups: dict[str, Group], request: CreateGroup, state: GroupState) -> None:
        """Create the group as it was planned."""
        group = Group(request.group, request.channel, None)
        groups[group.name] = group
        commit.undo.append(lambda: groups.__delitem__(group.name))
        commit.set(group, state)

    def destroy(self, commit: Commit, groups: dict[str, Group], name: str, creation_id: int) -> Group | None:
        """Remove the group that was created as ``creation_id``; None if it is gone already."""
        checked_name("group", name)
        group = groups.get(name)
        if group is None or group.state.creation_id != creation_id:
            return None
        self.remove(commit, groups, group)
        return group

    @staticmethod
    def remove(commit: Commit, groups: dict[str, Group], group: Group) -> None:
        """Remove the group from its channel."""
        del groups[group.name]
        commit.removed.append(group)
        commit.undo.append(lambda: groups.__setitem__(group.name, group))
        commit.discard(group)
        commit.changes += group.deletion()

    @staticmethod
    def destroy_all(commit: Commit, groups: Iterable[Group]) -> None:
        """Remove ``groups`` from the store, with their channel."""
        for group in groups:
            commit.discard(group)
            commit.changes += group.deletion()

    def describe(self, group: Group, number: int, extent: Extent) -> GroupDescribed:
        """Position and exact lag, as far as they are durable."""
        state = group.visible or group.state
        position = max(state.position, extent.begin_id if extent.begin_offset > state.offset else 0)
        lag = self.lag(group, extent)
        lag_ms = self.lag_ms(group, number, extent)
        return GroupDescribed(state.creation_id, position, lag, lag_ms, state.generation, state.metadata)

    def lag(self, group: Group, extent: Extent) -> int:
        """How many durable messages the group has not read."""
        state = group.visible or group.state
        unread = max(0, extent.end_offset - max(state.offset, extent.begin_offset))
        if not state.consumers:
            return unread
        return unread + sum(self._kept(state, entry, extent) for _, entry in _released(state))

    def _kept(self, state: GroupState, entry: ConsumerEntry, extent: Extent) -> int:
        """How many of the messages in the range that ``entry`` names are still there."""
        if entry.begin >= extent.begin_id or extent.begin_offset == 0:
            return entry.message_count
        if entry.end <= extent.begin_id:
            return 0
        return min(entry.message_count, self._log.place(state.channel_number, entry.end, extent).offset - extent.begin_offset)

    def lag_ms(self, group: Group, number: int, extent: Extent) -> int:
        """How long ago the oldest of them was appended; 0 if there is none.

        It may look into the store, but for a group that has not moved since. Raises StorageFailed.
        """
        if not self.lag(group, extent):
            return 0
        state = group.visible or group.state
        position = min((entry.begin for _, entry in _released(state)), default=state.position)
        key = position, extent.begin_id
        if group.oldest is None or group.oldest[0] != key:
            group.oldest = key, self._log.place(number, position, extent).message_id
        return max(0, clock_ms() - time_ms_of(group.oldest[1]))

    def consume(self, commit: Commit, group: Group, extent: Extent, request: Consume) -> Claim | None:
        """Claim the next messages up to ``extent`` for the consumer id, or repeat its last claim; None when there are none.

        What retention removed before them is told with them, and again with a repeat. A claim of which nothing is left is
        made anew, under its number. Raises OutOfSequence for a number that is neither.
        """
        group.used_at = time.monotonic()
        state = group.state
        entry = state.consumers.get(request.consumer)
        self._check_number(state, entry, request)
        lost = NOTHING_LOST
        if entry is not None and group.repeats(request):
            left = self._kept(state, entry, extent)
            lost = Lost(entry.gap_begin, entry.gap_count) + Lost(entry.begin, entry.message_count - left)
            if left:
                reading = self._log.read(state.channel_number, entry.begin, extent, left, 1 << 62)
                return Claim(reading, state.generation, lost.gap(reading.first_id), is_repeat=True)
        state, returned, of_returned = self._returned(state, extent)
        lost += of_returned
        if returned is None:
            begin, count_max = state.position, request.max_messages
            lost += Lost(state.position, max(0, extent.begin_offset - state.offset))
        else:
            begin, count_max = returned[1].begin, min(request.max_messages, returned[1].message_count)
        reading = self._log.read(
            state.channel_number,
            begin,
            extent,
            min(count_max, self._limits.consume_messages_max),
            min(request.max_bytes, self._limits.consume_bytes_max),
        )
        if not reading.message_count:
            if entry is not None:
                group.polls[request.consumer] = self._ids.present_id
            return None
        claimed = ConsumerEntry(
            request.number,
            reading.first_id,
            reading.next_position,
            reading.message_count,
            state.generation,
            self._ids.present_id,
            gap_begin=lost.begin,
            gap_count=lost.message_count,
        )
        if returned is None:
            offset = max(state.offset, extent.begin_offset) + reading.message_count
            state = state._replace(position=reading.next_position, offset=offset)
        else:
            state = _with_entry(state, returned[0], _behind(returned[1], reading))
        commit.set(group, self._remember(group, state, request.consumer, claimed))
        return Claim(reading, state.generation, lost.gap(reading.first_id), is_repeat=False)

    def _returned(self, state: GroupState, extent: Extent) -> tuple[GroupState, tuple[bytes, ConsumerEntry] | None, Lost]:
        """The first of what was given back and is still there; the state without what is not, and how much that is."""
        lost = NOTHING_LOST
        for consumer, entry in sorted(_released(state), key=lambda known: known[1].begin):
            left = self._kept(state, entry, extent)
            lost += Lost(entry.gap_begin, entry.gap_count) + Lost(entry.begin, entry.message_count - left)
            if left:
                begin = max(entry.begin, extent.begin_id) if left < entry.message_count else entry.begin
                return state, (consumer, entry._replace(begin=begin, message_count=left)), lost
            state = _with_entry(state, consumer, None)
        return state, None, lost

    def release(self, commit: Commit, group: Group, extent: Extent, request: ReleaseConsumer) -> None:
        """End the use of a consumer id; what it was handed and did not hand on is served first to who comes next.

        Raises OutOfSequence for an id that may be forgotten: what it was handed last can not be given back.
        """
        state = group.state
        entry = state.consumers.get(request.consumer)
        if entry is None and birth_of(request.consumer) <= state.forgotten:
            raise OutOfSequence(
                "the consumer id is unknown, maybe long forgotten: nothing was given back", present_id=self._ids.present_id
            )
        if entry is None or entry.is_released:
            return
        left: ConsumerEntry | None = None
        if group.repeats(request) and request.position < entry.end:
            begin = max(request.position, entry.begin)
            count = self._given_back(state, entry, extent, request)
            left = entry._replace(begin=begin, message_count=count, is_released=True)
            if request.position:  # its client has heard of the gap before it
                left = left._replace(gap_begin=0, gap_count=0)
        group.polls.pop(request.consumer, None)
        commit.set(group, _with_entry(state, request.consumer, left))

    def _given_back(self, state: GroupState, entry: ConsumerEntry, extent: Extent, request: ReleaseConsumer) -> int:
        """How many messages of ``entry`` the request gives back; as it says itself where some of them are no longer there."""
        if request.position <= entry.begin:
            return entry.message_count
        if request.position < extent.begin_id:
            return max(1, min(request.message_count, entry.message_count))
        behind, end = (self._log.place(state.channel_number, p, extent).offset for p in (request.position, entry.end))
        return end - behind

    def move(self, commit: Commit, group: Group, extent: Extent, request: CommitRequest) -> None:
        """COMMIT: move the position forward. Raises InvalidRequest, Conflict."""
        if (state := self.moved(group, extent, request)) is not None:
            commit.set(group, state)

    def moved(self, group: Group, extent: Extent, request: CommitRequest) -> GroupState | None:
        """The state that a COMMIT leads to, None: it has no effect; nothing is changed. Raises InvalidRequest, Conflict."""
        group.used_at = time.monotonic()
        state = group.state
        if len(request.metadata) > METADATA_BYTES_MAX:
            raise InvalidRequest(f"metadata of {len(request.metadata)} bytes exceed the limit of {METADATA_BYTES_MAX}")
        if request.generation is not None:
            self.check_generation(group, request.generation)
        if request.position > max(extent.end_id + 1, state.position):
            raise InvalidRequest(
                f"position {request.position} on {group.channel_name!r} lies beyond the channel's end:"
                f" at most {extent.end_id + 1}"
            )
        if request.position < state.position:
            return None
        if request.position < extent.removed_end and state.offset < extent.begin_offset:
            # The next consume tells of all that was removed from where it stood on.
            return state._replace(metadata=bytes(request.metadata))
        offset = self._log.place(state.channel_number, request.position, extent).offset
        return state._replace(position=request.position, offset=max(offset, state.offset), metadata=bytes(request.metadata))

    @staticmethod
    def check_generation(group: Group, generation: int) -> None:
        """Raises Conflict when the group is in another one."""
        if generation != group.state.generation:
            raise Conflict(
                f"group {group.name!r} of channel {group.channel_name!r} is in generation {group.state.generation},"
                f" not {generation}: it was sought, or another consumer has taken it over"
            )

    def seek(self, commit: Commit, group: Group, extent: Extent, request: SeekRequest) -> Sought:
        """Move the position anywhere and begin a new generation; a repeat gets the first answer and moves nothing."""
        if (last := self.last_seek(group, request.request_id)) is not None:
            return _answer_to(last)
        state = self.sought(group, extent, request.to_kind, request.to, request.request_id)
        commit.set(group, state)
        assert state.last_seek is not None, "it is noted"
        return _answer_to(state.last_seek)

    @staticmethod
    def last_seek(group: Group, request_id: bytes) -> LastSeek | None:
        """The group's last seek, if it was this one."""
        last = group.state.last_seek
        return last if last is not None and last.request_id == request_id else None

    def sought(self, group: Group, extent: Extent, kind: int, to: int, request_id: bytes) -> GroupState:
        """The state that a seek leads to, with the seek noted; nothing is changed."""
        group.used_at = time.monotonic()
        state = group.state
        if kind == Position.CURRENT:
            place, outcome = self._current(state, extent), Outcome.EXACT
        else:
            place, outcome = self.target(state.channel_number, extent, kind, to)
        consumers = {consumer: entry for consumer, entry in state.consumers.items() if not entry.is_released}
        generation = self._ids.reserve(1)
        return state._replace(
            position=place.message_id,
            offset=place.offset,
            generation=generation,
            consumers=consumers,
            last_seek=LastSeek(request_id, place.message_id, place.offset, outcome, generation),
        )

    def bring_back(self, commit: Commit, group: Group, extent: Extent) -> None:
        """Move the position to the channel's end, which lies before it: what was handed out beyond it is lost."""
        consumers = {consumer: entry for consumer, entry in group.state.consumers.items() if not entry.is_released}
        position, offset, generation = extent.end_id + 1, extent.end_offset, self._ids.reserve(1)
        state = group.state._replace(position=position, offset=offset, generation=generation, consumers=consumers)
        commit.set(group, state)

    def _current(self, state: GroupState, extent: Extent) -> Place:
        """Where the group stands, or the first message that was given back."""
        _, returned, lost = self._returned(state, extent)
        if lost.message_count:  # it goes on at the begin, wherever it stood
            return Place(lost.begin, min(state.offset, extent.begin_offset) - lost.message_count)
        if returned is not None:
            return self._log.place(state.channel_number, returned[1].begin, extent)
        return Place(state.position, state.offset)

    def target(self, number: int, extent: Extent, kind: int, value: int) -> Target:
        """Where a seek to ``value`` of ``kind`` leads; never a future id."""
        latest = Target(Place(extent.end_id + 1, extent.end_offset), Outcome.LATEST)
        earliest = Target(Place(extent.begin_id, extent.begin_offset), Outcome.EARLIEST)
        if extent.begin_offset == extent.end_offset or kind == Position.LATEST:
            return latest
        if kind == Position.EARLIEST:
            return earliest
        wanted = value << COUNTER_BITS if kind == Position.TIME_MS else value
        if wanted > extent.end_id:
            return latest
        if wanted < extent.begin_id:
            return earliest._replace(outcome=Outcome.NEXT) if kind == Position.TIME_MS else earliest
        place = self._log.place(number, wanted, extent)
        exact = kind == Position.ID and place.message_id == wanted
        return Target(place, Outcome.EXACT if exact else Outcome.NEXT)

    def _check_number(self, state: GroupState, entry: ConsumerEntry | None, request: Consume) -> None:
        if entry is not None and entry.is_released:
            raise OutOfSequence("the consumer id is over: it was released", present_id=self._ids.present_id)
        if entry is None:
            if request.number == 0 and birth_of(request.consumer) > state.forgotten:
                return
            raise OutOfSequence(
                f"consume {request.number} of an unknown consumer id: it may be long forgotten", present_id=self._ids.present_id
            )
        if request.number not in (entry.number, entry.number + 1):
            raise OutOfSequence(
                f"consume {request.number} is not the next of this consumer id: {entry.number + 1} is",
                expected_number=entry.number + 1,
                present_id=self._ids.present_id,
            )

    def _remember(self, group: Group, state: GroupState, consumer: bytes, claimed: ConsumerEntry) -> GroupState:
        """With the claim noted, and the longest idle consumer ids forgotten when there are too many. Raises LimitExceeded."""
        consumers = {**state.consumers, consumer: claimed}
        forgotten = state.forgotten
        idle_before = claimed.last_use - (IDLE_CONSUMER_MS_MAX << COUNTER_BITS)
        last_uses = {known: max(entry.last_use, group.polls.get(known, 0)) for known, entry in consumers.items()}
        for known in sorted(last_uses, key=last_uses.__getitem__):
            last_use = last_uses[known]
            if last_use >= idle_before and len(consumers) <= self._limits.consumers_max:
                break
            if known != consumer and not consumers[known].is_released:
                forgotten = max(forgotten, last_use)
                del consumers[known]
        if len(consumers) > self._limits.consumers_max:
            raise LimitExceeded(
                f"{len(consumers) - 1} consumers of group {group.name!r} have given messages back that nobody has read"
                f" yet, and the limit is {self._limits.consumers_max} (consumers_max): ask for more messages at a time, or seek"
            )
        if len(consumers) < len(last_uses):
            self._ids.reserve(1)  # so that whoever is born from now on is younger than the mark
        group.polls = {known: poll for known, poll in group.polls.items() if known in consumers}
        return state._replace(consumers=consumers, forgotten=forgotten)


def _answer_to(seek: LastSeek) -> Sought:
    return Sought(seek.position, seek.offset, seek.outcome, seek.generation)


def _released(state: GroupState) -> list[tuple[bytes, ConsumerEntry]]:
    """The entries that hold messages given back."""
    return [(consumer, entry) for consumer, entry in state.consumers.items() if entry.is_released]


def _with_entry(state: GroupState, consumer: bytes, entry: ConsumerEntry | None) -> GroupState:
    """With another entry of ``consumer``, or with none."""
    consumers = {known: kept for known, kept in state.consumers.items() if known != consumer}
    if entry is not None:
        consumers[consumer] = entry
    return state._replace(consumers=consumers)


def _behind(entry: ConsumerEntry, reading: Reading) -> ConsumerEntry | None:
    """What is left of a range given back once ``reading`` was taken from its beginning."""
    left = entry.message_count - reading.message_count
    return entry._replace(begin=reading.next_position, message_count=left, gap_begin=0, gap_count=0) if left else None
