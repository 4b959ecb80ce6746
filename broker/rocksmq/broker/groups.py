"""The state of consumer groups: positions, claims, seeks (contract §1, §4).

Pure and synchronous like `channels`. A group's position is the id of the next message to read;
`offset` counts the messages before it, so that lag is exact. What a consumer id was handed
last is kept with the position and in the same write, so that a repeat gets it again.
"""

from typing import NamedTuple

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
    Sought,
)
from rocksmq.protocol.operations import Commit as CommitRequest
from rocksmq.protocol.operations import Seek as SeekRequest

from .commit import Commit
from .ids import COUNTER_BITS, IDAllocator, clock_ms, time_ms_of
from .limits import Limits
from .log import Log, Place, Reading
from .meta import MetaStore
from .records import ConsumerEntry, Extent, GroupState, LastSeek
from .store import Change

IDLE_CONSUMER_MS_MAX = 3600 * 1000


class Group:
    """One consumer group of one channel. ``value`` is its state with everything accepted, None before its creation.

    ``visible`` is the state that is durable, and all that a description may show.
    """

    __slots__ = ("channel_name", "meta", "name", "value", "visible")

    def __init__(self, name: str, channel_name: str, meta: MetaStore, value: GroupState | None) -> None:
        self.name = name
        self.channel_name = channel_name
        self.meta = meta
        self.value = value
        self.visible = value

    @property
    def state(self) -> GroupState:
        assert self.value is not None, "the group exists"
        return self.value

    def repeats(self, request: Consume) -> bool:
        """Whether it asks once more for what its consumer id was handed last, and the group was not sought since."""
        entry = self.state.consumers.get(request.consumer)
        return entry is not None and entry.number == request.number and entry.generation == self.state.generation

    def came_with(self, commit: Commit, consumer: bytes) -> bool:
        """Whether the last claim of ``consumer`` is in ``commit``, and not in one before it."""
        if self not in commit.cells:
            return False
        before: GroupState | None = commit.cells[self]
        return before is None or before.consumers.get(consumer) != self.state.consumers.get(consumer)

    def changes(self, old: GroupState | None) -> list[Change]:
        """As a cell of the commit."""
        return self.meta.changes(self.name, self.channel_name, self.value)

    def deletion(self) -> list[Change]:
        """What removes it from the store."""
        return self.meta.changes(self.name, self.channel_name, None)


class Target(NamedTuple):
    """Where a seek leads."""

    place: Place
    outcome: Outcome


class Claim(NamedTuple):
    """What a consume was handed, and the generation it was handed in."""

    reading: Reading
    generation: int


class Groups:
    """The operations on the groups of a channel, given that channel's groups, number and extent."""

    def __init__(self, log: Log, ids: IDAllocator, meta: MetaStore, limits: Limits) -> None:
        self._log = log
        self._ids = ids
        self._meta = meta
        self._limits = limits

    def load(self, name: str, channel_name: str, state: GroupState) -> Group:
        """A group that was found in the store at start."""
        return Group(name, channel_name, self._meta, state)

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
        if len(groups) >= self._limits.groups_max:
            raise LimitExceeded(
                f"the channel has {len(groups)} groups, and the limit is {self._limits.groups_max} (groups_max)"
            )
        place = self.target(number, extent, request.start_kind, request.start).place
        creation_id = self._ids.reserve(1)
        group = Group(request.group, request.channel, self._meta, None)
        groups[group.name] = group
        commit.undo.append(lambda: groups.__delitem__(group.name))
        commit.set(
            group,
            GroupState(number, creation_id, request.request_id, place.message_id, place.offset, creation_id, b"", None, {}, 0),
        )
        return True

    def destroy(self, commit: Commit, groups: dict[str, Group], name: str, creation_id: int) -> Group | None:
        """Remove the group that was created as ``creation_id``; None if it is gone already."""
        checked_name("group", name)
        group = groups.get(name)
        if group is None or group.state.creation_id != creation_id:
            return None
        del groups[name]
        commit.undo.append(lambda: groups.__setitem__(name, group))
        commit.discard(group)
        commit.changes += group.deletion()
        return group

    def describe(self, group: Group, number: int, extent: Extent) -> GroupDescribed:
        """Position and exact lag, as far as they are durable."""
        state = group.visible or group.state
        lag = max(0, extent.end_offset - max(state.offset, extent.begin_offset))
        lag_ms = 0
        if lag:
            oldest = self._log.place(number, state.position, extent).message_id
            lag_ms = max(0, clock_ms() - time_ms_of(oldest))
        return GroupDescribed(state.creation_id, state.position, lag, lag_ms, state.generation, state.metadata)

    def consume(self, commit: Commit, group: Group, extent: Extent, request: Consume) -> Claim | None:
        """Claim the next messages up to ``extent`` for the consumer id, or repeat its last claim; None when there are none.

        Raises OutOfSequence for a number that is neither.
        """
        state = group.state
        entry = state.consumers.get(request.consumer)
        self._check_number(state, entry, request)
        if entry is not None and group.repeats(request):
            reading = self._log.read(state.channel_number, entry.begin, extent, entry.message_count, 1 << 62)
            return Claim(reading, state.generation)
        reading = self._log.read(
            state.channel_number,
            state.position,
            extent,
            min(request.max_messages, self._limits.consume_messages_max),
            min(request.max_bytes, self._limits.consume_bytes_max),
        )
        if not reading.message_count:
            return None
        claimed = ConsumerEntry(
            request.number,
            state.position,
            reading.next_position,
            reading.message_count,
            state.generation,
            self._ids.present_id,
        )
        state = self._remember(state, request.consumer, claimed)
        commit.set(group, state._replace(position=reading.next_position, offset=state.offset + reading.message_count))
        return Claim(reading, state.generation)

    def move(self, commit: Commit, group: Group, extent: Extent, request: CommitRequest) -> None:
        """COMMIT: move the position forward. Raises InvalidRequest, Conflict."""
        state = group.state
        if len(request.metadata) > METADATA_BYTES_MAX:
            raise InvalidRequest(f"metadata of {len(request.metadata)} bytes exceed the limit of {METADATA_BYTES_MAX}")
        if request.generation is not None and request.generation != state.generation:
            raise Conflict(
                f"group {group.name!r} is in generation {state.generation}, not {request.generation}:"
                " it was sought, or another consumer has taken it over"
            )
        if request.position > max(extent.end_id + 1, state.position):
            raise InvalidRequest(f"position {request.position} lies beyond the channel's end: at most {extent.end_id + 1}")
        if request.position < state.position:
            return
        offset = self._log.place(state.channel_number, request.position, extent).offset
        commit.set(
            group, state._replace(position=request.position, offset=max(offset, state.offset), metadata=bytes(request.metadata))
        )

    def seek(self, commit: Commit, group: Group, extent: Extent, request: SeekRequest) -> Sought:
        """Move the position anywhere and begin a new generation; a repeat gets the first answer and moves nothing."""
        state = group.state
        if state.last_seek is not None and state.last_seek.request_id == request.request_id:
            return Sought(*state.last_seek[1:])
        place, outcome = self.target(state.channel_number, extent, request.to_kind, request.to)
        generation = self._ids.reserve(1)
        sought = Sought(place.message_id, outcome, generation)
        commit.set(
            group,
            state._replace(
                position=place.message_id,
                offset=place.offset,
                generation=generation,
                last_seek=LastSeek(request.request_id, *sought),
            ),
        )
        return sought

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

    def _remember(self, state: GroupState, consumer: bytes, claimed: ConsumerEntry) -> GroupState:
        """With the claim noted, and the longest idle consumer ids forgotten when there are too many."""
        consumers = {**state.consumers, consumer: claimed}
        forgotten = state.forgotten
        idle_before = claimed.last_use - (IDLE_CONSUMER_MS_MAX << COUNTER_BITS)
        by_use = sorted(consumers, key=lambda known: consumers[known].last_use) if len(consumers) > 1 else []
        for known in by_use:
            last_use = consumers[known].last_use
            if known == consumer or (last_use >= idle_before and len(consumers) <= self._limits.consumers_max):
                break
            forgotten = max(forgotten, last_use)
            del consumers[known]
        if len(consumers) < len(by_use):
            self._ids.reserve(1)  # so that whoever is born from now on is younger than the mark
        return state._replace(consumers=consumers, forgotten=forgotten)
