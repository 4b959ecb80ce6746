"""The records of the family ``meta``, read once and held against each other, for `check`.

Owns what they say of themselves and of each other: every record decodes, channels and groups belong together, no id in
use lies beyond the id window. What the messages say stands in `sweep`. Memory goes by channels, groups and their
consumer ids, as in the broker; producers' records are not kept.
"""

import struct
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress

from rocksmq.protocol.errors import StorageFailed
from rocksmq.protocol.names import checked_name

from . import keys, log_chain, proposals
from .config import EMBEDDED
from .durability import Durability, Mode
from .findings import Finding, Repair, counted, note, problem
from .plausible import check_clock, check_group_types, check_retention, check_types, is_possible, wrong_of
from .producers import WINDOW
from .records import ChannelSettings, Extent, GroupState, MetaBinding, ProducedEntry, ProducerName, Shadow
from .store import Family, Store

PRODUCER_KEY_BYTES = 1 + 8 + 16 + 1
CHANNEL_KEY_BYTES = 1 + 8
PRODUCER_ID_BYTES = 16


class FoundChannel:
    """What the records say of one channel number; ``extent`` is None where its record is missing or damaged."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.settings: ChannelSettings | None = None
        self.extent: Extent | None = None
        self.groups: dict[str, GroupState] = {}
        self.producer_records = 0
        self.produced_end = 0  # last id that a producer's record says is stored
        self.is_damaged = False  # some record of it did not decode
        self.is_group_store = True  # its groups are kept in this directory

    @contextmanager
    def damaged_on_error(self) -> Generator[None, None, None]:
        """What fails in the block is a record of this channel."""
        try:
            yield
        except Exception:
            self.is_damaged = True
            raise

    @property
    def name(self) -> str:
        return self.settings.name if self.settings is not None else f"number {self.number}"

    @property
    def subject(self) -> str:
        return f"channel {self.name}"

    def group_repair(self, group: str) -> Iterator[Repair]:
        """What would bring the group in line with the messages, if it is kept here."""
        if self.is_group_store:
            yield proposals.group(self.name, group)


class Inventory:
    """Everything in ``meta``, after `read`; groups of another store come in by `add_group`; then `compare`.

    ``durability`` is that of channels that name none.
    """

    def __init__(self, durability: Durability) -> None:
        self.channels: dict[int, FoundChannel] = {}
        self.is_whole = False  # every key was read
        self.binding: MetaBinding | None = MetaBinding(EMBEDDED, EMBEDDED, 0, 0)  # None: it is damaged
        self._durability = durability
        self._groups: list[tuple[str, str, GroupState]] = []
        self._copied: list[tuple[str, str, GroupState]] = []  # of what is kept elsewhere
        self._current: tuple[str, str, bytes] | None = None  # group, channel and value of a `current_id` without `state` yet
        self._highest = (0, "nothing")
        self._handlers: dict[bytes, Callable[[bytes, bytes], Iterator[Finding | Repair]]] = {
            keys.SETTINGS: self._read_settings,
            keys.EXTENT: self._read_extent,
            keys.PRODUCER: self._read_produced,
            keys.NAME: self._read_name,
            keys.GROUP: self._read_group,
            b"!": self._read_number,
        }

    def read(self, store: Store) -> Iterator[Finding | Repair]:
        """Take in every record."""
        last = b""
        try:
            for key, value in store.scan(Family.META, b"", log_chain.PREFIX):
                last = key
                handler = next((found for prefix, found in self._handlers.items() if key.startswith(prefix)), _unknown)
                try:
                    yield from handler(key, value)
                except (StorageFailed, ValueError, struct.error) as error:
                    yield problem(f"record {key!r}", _text(error))
                    yield from self._record_repair(key)
            self.is_whole = True
        except StorageFailed as error:
            yield problem("records", f"what comes behind {last!r} was not read: {error.message}; only a backup has it")
        yield from self._flush_current()
        if self.binding is not None and self.binding.store != EMBEDDED and self._groups:
            self._copied, self._groups = self._groups, []  # (meta_shadow.py)

    @property
    def has_groups(self) -> bool:
        """Whether there is any that counts."""
        return bool(self._groups)

    @property
    def highest_id(self) -> int:
        """Of all that the records name; after `compare`."""
        return self._highest[0]

    def numbers(self) -> dict[str, int]:
        """The number of each channel, by its name."""
        return {found.settings.name: number for number, found in self.channels.items() if found.settings is not None}

    def add_group(self, group: str, channel: str, state: GroupState) -> None:
        """A group whose state was read; `compare` looks at it."""
        self._groups.append((group, channel, state))

    def compare(self, window_end: int | None) -> Iterator[Finding | Repair]:
        """Hold the records against each other. ``window_end``: no id at or above it was given out, by the stored id window."""
        by_name: dict[str, FoundChannel] = {}
        for channel in self.channels.values():
            yield from self._compare_channel(channel)
            if channel.settings is not None:
                self._use(channel.number, f"the number of {channel.subject}")
                if channel.settings.name in by_name:
                    other = by_name[channel.settings.name]
                    yield problem(channel.subject, f"there are two of this name, number {other.number} and {channel.number}")
                by_name[channel.settings.name] = channel
        for group, channel_name, state in self._groups:
            yield from self._compare_group(group, channel_name, state, by_name.get(channel_name))
        self._groups.clear()
        if window_end is not None and self._highest[0] >= window_end:
            yield problem(
                "id window",
                f"it ends at {window_end}, but {self._highest[1]} is {self._highest[0]}: ids would be given out twice",
            )
            yield proposals.IDS

    # -- one record each -------------------------------------------------------

    def _read_settings(self, key: bytes, value: bytes) -> Iterator[Finding]:
        channel = self._channel(key, CHANNEL_KEY_BYTES)
        with channel.damaged_on_error():
            settings = ChannelSettings.decode(value)
            checked_name("channel", settings.name)
            check_types(settings.durability, str, type(None))
            if settings.durability is not None:
                Durability.parse(settings.durability)
            check_retention(settings.retention)
        channel.settings = settings
        channel.is_group_store = self._is_group_store
        yield from ()

    def _read_extent(self, key: bytes, value: bytes) -> Iterator[Finding | Repair]:
        channel = self._channel(key, CHANNEL_KEY_BYTES)
        with channel.damaged_on_error():
            channel.extent = extent = Extent.decode(value)
        if not is_possible(extent):
            yield problem(channel.subject, f"its extent contradicts itself: {extent}")
            if channel.settings is not None:
                yield proposals.extent(channel.name)
        self._use(extent.end_id, f"the last id of {channel.subject}")

    def _read_produced(self, key: bytes, value: bytes) -> Iterator[Finding | Repair]:
        channel = self._channel(key, PRODUCER_KEY_BYTES)
        channel.producer_records += 1
        entry = ProducedEntry.decode(value)
        if entry.number % WINDOW != key[-1]:
            yield problem(f"record {key!r}", f"it is of batch {entry.number}, which does not belong under this key")
            yield from self._record_repair(key)
        if entry.message_count:
            channel.produced_end = max(channel.produced_end, entry.first_id + entry.message_count - 1)
        self._use(entry.first_id, f"a producer's id on {channel.subject}")

    def _read_name(self, key: bytes, value: bytes) -> Iterator[Finding]:
        number, name = keys.name_of(key)
        self.channels.setdefault(number, FoundChannel(number)).producer_records += 1
        checked_name("producer", name)
        record = ProducerName.decode(value)
        check_types(record.producer, bytes)
        check_types(record.last_sequence, int, bytes, type(None))
        check_types(record.last_use, int)
        if len(record.producer) != PRODUCER_ID_BYTES:
            yield problem(f"record {key!r}", f"its producer id has {len(record.producer)} bytes")

    def _read_group(self, key: bytes, value: bytes) -> Iterator[Finding | Repair]:
        group, channel, leaf = keys.group_of(key)
        if leaf == keys.CURRENT_ID:
            yield from self._flush_current()
            self._current = (group, channel, value)
            return
        if leaf != keys.STATE:
            yield note(f"record {key!r}", "this version does not know what it is")
            return
        state = GroupState.decode(value)
        check_group_types(state)
        current_id: bytes | None = None
        if self._current is not None and self._current[:2] == (group, channel):
            current_id, self._current = self._current[2], None
        self.add_group(group, channel, state)
        if current_id is None:
            yield problem(_group_subject(group, channel), "its record current_id is missing")
            yield from self._group_repair(group, channel)
        elif current_id != str(state.position).encode():
            shown = current_id.decode(errors="backslashreplace")
            yield problem(_group_subject(group, channel), f"current_id says {shown}, and state says {state.position}")
            yield from self._group_repair(group, channel)

    def _group_repair(self, group: str, channel: str) -> Iterator[Repair]:
        for found in self.channels.values():
            if found.settings is not None and found.name == channel:
                yield from found.group_repair(group)

    def _flush_current(self) -> Iterator[Finding | Repair]:
        """A `current_id` that no `state` followed."""
        if self._current is not None:
            group, channel, current_id = self._current
            self._current = None
            yield problem(_group_subject(group, channel), "its record state is missing: the group is lost")
            if self._is_group_store:
                yield proposals.removed_group(channel, group, current_id)

    def _read_number(self, key: bytes, value: bytes) -> Iterator[Finding]:
        if key == keys.FORGOTTEN:
            self._use(keys.from_u64(value), "the mark of forgotten producers")
        elif key == keys.META_BINDING:
            self.binding = None
            binding = MetaBinding.decode(value)
            check_types(binding.store, str)
            check_types(binding.epochs_of, str)
            check_types(binding.planned_epoch, int)
            check_types(binding.applied_epoch, int)
            self.binding = binding
        elif key == keys.META_SHADOW:
            Shadow.decode(value)
        elif key == keys.CLOCK:
            check_clock(value)
        elif key not in (keys.COMMIT_NUMBER, keys.IDS):
            yield from _unknown(key, value)

    @property
    def _is_group_store(self) -> bool:
        """Whether groups are kept in this directory, for all that is known."""
        return self.binding is not None and self.binding.store == EMBEDDED

    def _record_repair(self, key: bytes) -> Iterator[Repair]:
        """Of one that is damaged. What concerns a channel's own two records is told where they are compared."""
        name = self._name_in(key)
        if key.startswith(keys.GROUP):
            with suppress(ValueError):
                group, channel, leaf = keys.group_of(key)
                if self._is_group_store and leaf == keys.STATE:
                    current_id = None
                    if self._current is not None and self._current[:2] == (group, channel):
                        current_id, self._current = self._current[2], None
                    yield proposals.removed_group(channel, group, current_id)
        elif key.startswith(keys.PRODUCER) and len(key) == PRODUCER_KEY_BYTES and name is not None:
            yield proposals.producer(name, keys.producer_of(key)[1])
        elif key.startswith((keys.PRODUCER, keys.NAME)):
            yield proposals.record(key)

    def _name_in(self, key: bytes) -> str | None:
        """Of the channel whose number stands behind the first byte of ``key``."""
        found = self.channels.get(int.from_bytes(key[1:9], "big"))
        return None if found is None or found.settings is None else found.name

    def _channel(self, key: bytes, key_bytes: int) -> FoundChannel:
        if len(key) != key_bytes:
            raise ValueError(f"its key has {len(key)} bytes, not {key_bytes}")
        number = keys.from_u64(key[1:9])
        return self.channels.setdefault(number, FoundChannel(number))

    def _use(self, message_id: int, what: str) -> None:
        if message_id > self._highest[0]:
            self._highest = (message_id, what)

    # -- against each other ----------------------------------------------------

    def _compare_channel(self, channel: FoundChannel) -> Iterator[Finding | Repair]:
        extent = channel.extent
        if channel.settings is None:
            if not self.is_whole:
                return
            if extent is not None and not channel.is_damaged:
                held = counted(extent.message_count, "message")
                yield problem(channel.subject, f"its settings are missing, so the channel is lost, with {held}")
            if extent is not None or channel.is_damaged:
                yield from self._lost_channel(channel)
            elif channel.producer_records:
                left = counted(channel.producer_records, "producers' record")
                yield note(channel.subject, f"{left} of a channel that does not exist: garbage")
                yield proposals.GARBAGE
        elif extent is None:
            if self.is_whole and not channel.is_damaged:
                yield problem(channel.subject, "the record of what it holds is missing")
            yield proposals.extent(channel.name)
        elif channel.produced_end > extent.end_id:
            yield problem(
                channel.subject, f"it ends at id {extent.end_id}, but a producer was answered with {channel.produced_end}"
            )
            yield proposals.producers_beyond(channel.name)

    def _lost_channel(self, channel: FoundChannel) -> Iterator[Repair]:
        """Its settings are damaged or missing."""
        taken = {found.name for found in self.channels.values() if found.settings is not None}
        yield proposals.settings(channel.number, (*self._groups, *self._copied), taken)
        yield proposals.removed_channel(channel.number, channel.extent)

    def _is_lost(self, number: int) -> bool:
        """Whether the channel's own records are damaged or missing, which is told of it."""
        found = self.channels.get(number)
        return found is not None and found.settings is None and (found.is_damaged or found.extent is not None)

    def _compare_group(
        self, group: str, name: str, state: GroupState, channel: FoundChannel | None
    ) -> Iterator[Finding | Repair]:
        subject = _group_subject(group, name)
        if channel is None or channel.number != state.channel_number:
            if self.is_whole and not self._is_lost(state.channel_number):
                yield note(subject, f"its channel, number {state.channel_number}, does not exist: garbage")
                if self._is_group_store:
                    yield proposals.GARBAGE
            return
        channel.groups[group] = state
        self._use(state.creation_id, f"the creation id of {subject}")
        self._use(state.generation, f"the generation of {subject}")
        self._use(state.forgotten, f"the mark of forgotten consumers of {subject}")
        if state.generation < state.creation_id:
            yield problem(subject, f"its generation {state.generation} lies before its creation, {state.creation_id}")
            yield from channel.group_repair(group)
        if channel.extent is None:
            return
        end = channel.extent.end_id + 1
        mode = self._mode_of(channel)
        if state.position > end and mode is Mode.FSYNC:
            yield problem(subject, f"its position {state.position} lies beyond the channel's end: at most {end} is possible")
            yield from channel.group_repair(group)
        elif state.position > end:
            ahead = f"its position {state.position} lies beyond the channel's end"
            yield note(subject, f"{ahead}, as a power cut may leave it in mode {mode}: the next start moves it to {end}")
        for consumer, entry in state.consumers.items():
            if (wrong := wrong_of(entry, state, end if mode is Mode.FSYNC else None)) is not None:
                yield problem(subject, f"consumer id {consumer.hex()}: {wrong}")
                yield from channel.group_repair(group)

    def _mode_of(self, channel: FoundChannel) -> Mode:
        named = None if channel.settings is None else channel.settings.durability
        return (self._durability if named is None else Durability.parse(named)).mode


def _unknown(key: bytes, value: bytes) -> Iterator[Finding]:
    yield note(f"record {key!r}", "this version does not know what it is")


def _group_subject(group: str, channel: str) -> str:
    return f"group {group} of {channel}"


def _text(error: Exception) -> str:
    return error.message if isinstance(error, StorageFailed) else f"it is damaged: {error}"
