"""The state of channels: what exists, how far each reaches, and appending to it.

Pure and synchronous: every method checks first and raises a RocksMQError with nothing changed,
then changes memory at once and notes in the open commit how to store and how to undo it.
`Channel.value` is the extent with everything accepted so far; `Channel.visible` is
what is durable in the channel's mode, and all that a reader may see.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice, takewhile
from typing import NamedTuple

from rocksmq.metrics.instruments import Traffic
from rocksmq.protocol.administration import SetChannel
from rocksmq.protocol.errors import ChannelNotFound, Conflict, LimitExceeded
from rocksmq.protocol.names import checked_name
from rocksmq.protocol.operations import (
    ChannelDescribed,
    CreateChannel,
    CreateChannels,
    ListChannels,
    Names,
    Produce,
)

from . import keys
from .commit import Commit
from .durability import Durability
from .groups import Group
from .ids import IDAllocator, clock_ms
from .limits import Limits
from .log import Log
from .names import ProducerNames
from .producers import Producers
from .records import EMPTY_EXTENT, Begin, ChannelSettings, Extent, GroupState, ProducedEntry, StoredBatch
from .retention import KEEP_ALL, Rules
from .store import Change, Delete, DeleteRange, Family, Put


class Channel:
    """One channel. Its number is never used again for another. ``is_public`` once its creation is durable.

    ``produced`` and ``delivered`` count what became durable, and what fetches were answered, since the broker's start.
    """

    __slots__ = (
        "delivered",
        "durability",
        "groups",
        "is_public",
        "number",
        "produced",
        "rules",
        "settings",
        "value",
        "visible",
    )

    def __init__(self, number: int, settings: ChannelSettings, extent: Extent, durability: Durability, rules: Rules) -> None:
        self.number = number
        self.settings = settings
        self.durability = durability
        self.rules = rules
        self.value = extent
        self.visible = extent
        self.groups: dict[str, Group] = {}
        self.is_public = False
        self.produced = Traffic()
        self.delivered = Traffic()

    @property
    def name(self) -> str:
        return self.settings.name

    def changes(self, old: Extent) -> list[Change]:
        """As a cell of the commit: its extent."""
        return [Put(Family.META, keys.extent_key(self.number), self.value.encode())]


class Listing(NamedTuple):
    """LIST_CHANNELS of who may not see all of them."""

    request: ListChannels
    shows: Callable[[str], bool]


class Channels:
    """All channels by name and by number, and the producers' tables."""

    def __init__(
        self,
        log: Log,
        ids: IDAllocator,
        producers: Producers,
        names: ProducerNames,
        limits: Limits,
        durability: Durability,
        rules: Rules = KEEP_ALL,
    ) -> None:
        self._log = log
        self._ids = ids
        self._producers = producers
        self._names = names
        self._limits = limits
        self._durability = durability  # of channels that name none
        self._rules = rules  # likewise
        self._channels: dict[str, Channel] = {}
        self._numbered: dict[int, Channel] = {}
        self._sorted: list[str] | None = None

    def load(self, number: int, settings: ChannelSettings, extent: Extent) -> Channel:
        """Add a channel that was found in the store at start."""
        channel = Channel(number, settings, extent, self._durability_of(settings), self._rules_of(settings))
        channel.is_public = True
        self._add(channel)
        return channel

    def publish(self, channel: Channel) -> None:
        """The channel's creation is durable."""
        channel.is_public = True
        self._sorted = None

    def find(self, name: str) -> Channel:
        """The channel. Raises ChannelNotFound, or InvalidRequest for a name that none can have."""
        channel = self._channels.get(name)
        if channel is None:
            raise ChannelNotFound(f"there is no channel {checked_name('channel', name)!r}: check the name, or create it")
        return channel

    def get(self, name: str) -> Channel | None:
        """The channel, if there is one."""
        return self._channels.get(name)

    def numbered(self, number: int) -> Channel:
        """The channel with that number. Raises ChannelNotFound."""
        channel = self._numbered.get(number)
        if channel is None:
            raise ChannelNotFound(
                f"there is no channel of number {number}: it was destroyed; describe its name to see if it is there anew"
            )
        return channel

    def get_numbered(self, number: int) -> Channel | None:
        """The channel with that number, if there is one."""
        return self._numbered.get(number)

    def __len__(self) -> int:
        return len(self._channels)

    def __iter__(self) -> Iterator[Channel]:
        return iter(self._channels.values())

    def attach(self, found: Iterable[tuple[tuple[str, str], GroupState]]) -> tuple[list[Group], list[tuple[str, str]]]:
        """Give channels the groups that their store has; those groups, and the names of what belongs to no channel."""
        for channel in self:
            channel.groups.clear()
        attached: list[Group] = []
        garbage: list[tuple[str, str]] = []
        for (name, channel_name), state in found:
            owner = self.get(channel_name)
            if owner is None or owner.number != state.channel_number:
                garbage.append((name, channel_name))
            else:
                attached.append(Group(name, channel_name, state))
                owner.groups[name] = attached[-1]
        return attached, garbage

    def extents(self) -> dict[int, Extent]:
        """What each channel holds, by its number."""
        return {channel.number: channel.visible for channel in self}

    @property
    def group_count(self) -> int:
        """Of all channels."""
        return sum(len(channel.groups) for channel in self._channels.values())

    def check_room_for_groups(self, count: int) -> None:
        """Raises LimitExceeded when ``count`` more groups would be too many in all."""
        found = self.group_count
        if found + count > self._limits.groups_total_max:
            raise LimitExceeded(
                f"{found} groups on all channels and {count} more exceed the limit of {self._limits.groups_total_max}"
                " (groups_total_max)"
            )

    def create(self, commit: Commit, request: CreateChannel) -> bool:
        """Create the channel; True if this request did, also when it is a repeat of the one that did."""
        checked_name("channel", request.channel)
        settings = ChannelSettings(
            request.channel, request.request_id, clock_ms(), request.durability, request.retention, request.owner
        )
        durability, rules = self._durability_of(settings), self._rules_of(settings)
        if (existing := self._channels.get(request.channel)) is not None:
            return existing.settings.request_id == request.request_id
        self._check_room(1)
        self._make(commit, settings, durability, rules)
        return True

    def create_many(self, commit: Commit, request: CreateChannels) -> list[Channel]:
        """Create all channels of the request; those of them that are there, when it is a repeat, and then it creates none.

        Raises InvalidRequest, Conflict, LimitExceeded.
        """
        names = names_of(request)
        checked_name("channel", names[-1])  # the longest
        existing = [channel for channel in map(self._channels.get, names) if channel is not None]
        for channel in existing:
            if channel.settings.request_id != request.request_id:
                raise Conflict(f"there is a channel {channel.name!r}, and another request has made it: nothing was created")
        if existing:
            return existing
        self._check_room(len(names))
        created_ms, owner = clock_ms(), request.owner
        return [
            self._make(
                commit, ChannelSettings(name, request.request_id, created_ms, None, None, owner), self._durability, self._rules
            )
            for name in names
        ]

    def destroy(self, commit: Commit, wanted: Iterable[tuple[str, int]]) -> list[Channel]:
        """Remove the channels of those names and numbers with all that belongs to them but their groups.

        Those that are gone already are left out.
        """
        pairs = [(self._channels.get(checked_name("channel", name)), number) for name, number in wanted]
        channels = [channel for channel, number in pairs if channel is not None and channel.number == number]
        for channel in channels:
            self._remove(channel)
            commit.removed.append(channel)
            commit.undo.append(partial(self._add, channel))
            commit.discard(channel)
            commit.changes += (
                Delete(Family.META, keys.settings_key(channel.number)),
                Delete(Family.META, keys.extent_key(channel.number)),
                DeleteRange(Family.META, *keys.producer_span(channel.number)),
                DeleteRange(Family.META, *keys.name_span(channel.number)),
                DeleteRange(Family.DATA, *keys.channel_span(channel.number)),
            )
        if channels:
            numbers = {channel.number for channel in channels}
            self._producers.drop(commit, numbers)
            self._names.drop(commit, numbers)
        return channels

    def page(self, request: ListChannels, shows: Callable[[str], bool] = lambda name: True) -> Names:
        """Names in order, those only that ``shows``."""
        if self._sorted is None:
            self._sorted = sorted(name for name, channel in self._channels.items() if channel.is_public)
        names = self._sorted
        begin = max(bisect_left(names, request.prefix), bisect_right(names, request.after))
        behind = takewhile(lambda name: name.startswith(request.prefix), islice(names, begin, None))
        page = list(islice(filter(shows, behind), self._limits.page_names_max + 1))
        return Names(page[: self._limits.page_names_max], len(page) > self._limits.page_names_max)

    def set_retention(self, commit: Commit, request: SetChannel) -> Channel:
        """Other rules for the channel, from now on. Raises ChannelNotFound, InvalidRequest."""
        channel = self.find(request.channel)
        former = channel.settings, channel.rules
        settings = channel.settings._replace(retention=request.retention)
        channel.settings, channel.rules = settings, self._rules_of(settings)

        def restore() -> None:
            channel.settings, channel.rules = former

        commit.undo.append(restore)
        commit.put(Put(Family.META, keys.settings_key(channel.number), settings.encode()))
        return channel

    @staticmethod
    def trim(commit: Commit, channel: Channel, begin: Begin, first_kept_id: int, few: list[int] | None) -> None:
        """Let the channel begin at ``begin``, which readers have; ``first_kept_id`` is of the batch that holds it.

        ``few``: the first ids of the batches before that one, unless they are many. Readers go on from there once ``commit`` is
        written; see `trimmed`.
        """
        commit.set(channel, channel.value.trimmed(begin))
        if few is None:
            span = keys.channel_span(channel.number)[0], keys.batch_key(channel.number, first_kept_id)
            commit.changes.append(DeleteRange(Family.DATA, *span))
        else:
            commit.changes += (Delete(Family.DATA, keys.batch_key(channel.number, first_id)) for first_id in few)

    @staticmethod
    def trimmed(channel: Channel, extent: Extent) -> None:
        """``extent`` is written: what lies before it can no longer be read, synced or not."""
        if extent.begin_id > channel.visible.begin_id:
            channel.visible = channel.visible.trimmed(extent.begin)

    @staticmethod
    def describe(channel: Channel) -> ChannelDescribed:
        """What readers may see of the channel."""
        settings, extent = channel.settings, channel.visible
        return ChannelDescribed(
            channel.number,
            settings.owner,
            settings.created_ms,
            extent.begin_id,
            extent.end_id,
            extent.message_count,
            extent.byte_count,
            str(channel.durability),
            channel.rules.as_map(),
            settings.retention is None,
            None,
            False,
        )

    def produce(self, commit: Commit, request: Produce, admit: Callable[[int], None]) -> tuple[Channel, int | None]:
        """Append the batch, or find that it was appended before; its channel and first id.

        The id is None when a named producer had stored its sequences before: then only the number is spent.

        ``admit`` raises when a batch of so many bytes cannot be taken now; it is asked only behind
        the look-up, so that a repeat always gets its first answer. Raises ChannelNotFound, OutOfSequence, Conflict,
        InvalidRequest for sequences, and what RecordBatch.check raises.
        """
        channel = self.find(request.channel)
        verdict = self._producers.look_up(channel.number, request.producer, request.number, self._ids.present_id)
        if verdict.repeated is not None:
            return channel, verdict.repeated.first_id if verdict.repeated.message_count else None
        batch = request.batch
        batch.check(messages_max=self._limits.batch_messages_max, payload_bytes_max=self._limits.payload_bytes_max)
        named = self._names.admit(channel.number, request)
        if named is not None and named.is_stored:
            entry = ProducedEntry(request.number, self._ids.reserve(1), 0)
            self._producers.stored(commit, verdict.cell, entry)
            return channel, None
        admit(batch.size)
        if named is not None:
            self._names.stored(commit, named)
        first_id = self._ids.reserve(batch.message_count)
        key, stored = StoredBatch.encode(channel.number, first_id, channel.value, batch)
        commit.put(Put(Family.DATA, key, stored.value))
        commit.message_count += batch.message_count
        commit.set(channel, channel.value.appended(first_id, batch.message_count, batch.size))
        self._producers.stored(commit, verdict.cell, ProducedEntry(request.number, first_id, batch.message_count))
        self._log.cache.append(channel.number, stored)
        return channel, first_id

    def _durability_of(self, settings: ChannelSettings) -> Durability:
        return self._durability if settings.durability is None else Durability.parse(settings.durability)

    def _rules_of(self, settings: ChannelSettings) -> Rules:
        return self._rules if settings.retention is None else Rules.parse(settings.retention)

    def _check_room(self, count: int) -> None:
        if len(self._channels) + count > self._limits.channels_max:
            raise LimitExceeded(
                f"there are {len(self._channels)} channels, and the limit is {self._limits.channels_max} (channels_max)"
            )

    def _make(self, commit: Commit, settings: ChannelSettings, durability: Durability, rules: Rules) -> Channel:
        # Numbers are ids: they rise over restarts and are never given out twice.
        channel = Channel(self._ids.reserve(1), settings, EMPTY_EXTENT, durability, rules)
        self._add(channel)
        commit.undo.append(partial(self._remove, channel))
        commit.put(Put(Family.META, keys.settings_key(channel.number), settings.encode()))
        commit.set(channel, EMPTY_EXTENT)
        return channel

    def _add(self, channel: Channel) -> None:
        self._channels[channel.name] = self._numbered[channel.number] = channel
        self._sorted = None

    def _remove(self, channel: Channel) -> None:
        del self._channels[channel.name], self._numbered[channel.number]
        self._sorted = None


def names_of(request: CreateChannels) -> list[str]:
    """The names of the channels that it makes."""
    return [f"{request.owner[0]}-{request.request_id.hex()}-{index}" for index in range(request.channel_count)]
