"""The records of the family ``meta``, read once and held against each other, for `check`.

Owns what they say of themselves and of each other: every record decodes, channels and groups belong together, no id in
use lies beyond the id window. What the messages say stands in `sweep`. Memory goes by channels, groups and their
consumer ids, as in the broker; producers' records are not kept.
"""

import struct
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager

from rocksmq.protocol.errors import StorageFailed
from rocksmq.protocol.names import checked_name

from . import keys
from .config import EMBEDDED
from .durability import Durability, Mode
from .findings import Finding, counted, note, problem
from .producers import WINDOW
from .records import ChannelSettings, ConsumerEntry, Extent, GroupState, MetaBinding, ProducedEntry, ProducerName, Shadow
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

    @contextmanager
    def damaged_on_error(self) -> Generator[None, None, None]:
        """What fails in the block is a record of this channel."""
        try:
            yield
        except Exception:
            self.is_damaged = True
            raise

    @property
    def subject(self) -> str:
        return f"channel {self.settings.name}" if self.settings is not None else f"channel number {self.number}"


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
        self._current: tuple[str, str, bytes] | None = None  # group, channel and value of a `current_id` without `state` yet
        self._highest = (0, "nothing")
        self._handlers: dict[bytes, Callable[[bytes, bytes], Iterator[Finding]]] = {
            keys.SETTINGS: self._read_settings,
            keys.EXTENT: self._read_extent,
            keys.PRODUCER: self._read_produced,
            keys.NAME: self._read_name,
            keys.GROUP: self._read_group,
            b"!": self._read_number,
        }

    def read(self, store: Store) -> Iterator[Finding]:
        """Take in every record."""
        last = b""
        try:
            for key, value in store.scan(Family.META, b"", b"\xff" * 64):
                last = key
                handler = next((found for prefix, found in self._handlers.items() if key.startswith(prefix)), _unknown)
                try:
                    yield from handler(key, value)
                except (StorageFailed, ValueError, struct.error) as error:
                    yield problem(f"record {key!r}", _text(error))
            self.is_whole = True
        except StorageFailed as error:
            yield problem("records", f"what comes behind {last!r} was not read: {error.message}")
        yield from self._flush_current()
        if self.binding is not None and self.binding.store != EMBEDDED and self._groups:
            self._groups.clear()  # a copy (meta_shadow.py)

    @property
    def has_groups(self) -> bool:
        """Whether there is any that counts."""
        return bool(self._groups)

    def numbers(self) -> dict[str, int]:
        """The number of each channel, by its name."""
        return {found.settings.name: number for number, found in self.channels.items() if found.settings is not None}

    def add_group(self, group: str, channel: str, state: GroupState) -> None:
        """A group whose state was read; `compare` looks at it."""
        self._groups.append((group, channel, state))

    def compare(self, window_end: int | None) -> Iterator[Finding]:
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

    # -- one record each -------------------------------------------------------

    def _read_settings(self, key: bytes, value: bytes) -> Iterator[Finding]:
        channel = self._channel(key, CHANNEL_KEY_BYTES)
        with channel.damaged_on_error():
            settings = ChannelSettings.decode(value)
            checked_name("channel", settings.name)
            _check_types(settings.durability, str, type(None))
            if settings.durability is not None:
                Durability.parse(settings.durability)
        channel.settings = settings
        yield from ()

    def _read_extent(self, key: bytes, value: bytes) -> Iterator[Finding]:
        channel = self._channel(key, CHANNEL_KEY_BYTES)
        with channel.damaged_on_error():
            channel.extent = extent = Extent.decode(value)
        is_empty = extent.begin_offset == extent.end_offset
        if extent.begin_offset > extent.end_offset or (extent.begin_id > extent.end_id) != is_empty:
            yield problem(channel.subject, f"its extent contradicts itself: {extent}")
        self._use(extent.end_id, f"the last id of {channel.subject}")

    def _read_produced(self, key: bytes, value: bytes) -> Iterator[Finding]:
        channel = self._channel(key, PRODUCER_KEY_BYTES)
        channel.producer_records += 1
        entry = ProducedEntry.decode(value)
        if entry.number % WINDOW != key[-1]:
            yield problem(f"record {key!r}", f"it is of batch {entry.number}, which does not belong under this key")
        if entry.message_count:
            channel.produced_end = max(channel.produced_end, entry.first_id + entry.message_count - 1)
        self._use(entry.first_id, f"a producer's id on {channel.subject}")

    def _read_name(self, key: bytes, value: bytes) -> Iterator[Finding]:
        number, name = keys.name_of(key)
        self.channels.setdefault(number, FoundChannel(number)).producer_records += 1
        checked_name("producer", name)
        record = ProducerName.decode(value)
        _check_types(record.producer, bytes)
        _check_types(record.last_sequence, int, bytes, type(None))
        _check_types(record.last_use, int)
        if len(record.producer) != PRODUCER_ID_BYTES:
            yield problem(f"record {key!r}", f"its producer id has {len(record.producer)} bytes")

    def _read_group(self, key: bytes, value: bytes) -> Iterator[Finding]:
        group, channel, leaf = keys.group_of(key)
        if leaf == keys.CURRENT_ID:
            yield from self._flush_current()
            self._current = (group, channel, value)
            return
        if leaf != keys.STATE:
            yield note(f"record {key!r}", "this version does not know what it is")
            return
        current_id: bytes | None = None
        if self._current is not None and self._current[:2] == (group, channel):
            current_id, self._current = self._current[2], None
        state = GroupState.decode(value)
        _check_group_types(state)
        self.add_group(group, channel, state)
        if current_id is None:
            yield problem(_group_subject(group, channel), "its record current_id is missing")
        elif current_id != str(state.position).encode():
            shown = current_id.decode(errors="backslashreplace")
            yield problem(_group_subject(group, channel), f"current_id says {shown}, and state says {state.position}")

    def _flush_current(self) -> Iterator[Finding]:
        """A `current_id` that no `state` followed."""
        if self._current is not None:
            group, channel, _ = self._current
            self._current = None
            yield problem(_group_subject(group, channel), "its record state is missing: the group is lost")

    def _read_number(self, key: bytes, value: bytes) -> Iterator[Finding]:
        if key == keys.FORGOTTEN:
            self._use(keys.from_u64(value), "the mark of forgotten producers")
        elif key == keys.META_BINDING:
            self.binding = None
            binding = MetaBinding.decode(value)
            _check_types(binding.store, str)
            _check_types(binding.epochs_of, str)
            _check_types(binding.planned_epoch, int)
            _check_types(binding.applied_epoch, int)
            self.binding = binding
        elif key == keys.META_SHADOW:
            Shadow.decode(value)
        elif key not in (keys.COMMIT_NUMBER, keys.IDS):
            yield from _unknown(key, value)

    def _channel(self, key: bytes, key_bytes: int) -> FoundChannel:
        if len(key) != key_bytes:
            raise ValueError(f"its key has {len(key)} bytes, not {key_bytes}")
        number = keys.from_u64(key[1:9])
        return self.channels.setdefault(number, FoundChannel(number))

    def _use(self, message_id: int, what: str) -> None:
        if message_id > self._highest[0]:
            self._highest = (message_id, what)

    # -- against each other ----------------------------------------------------

    def _compare_channel(self, channel: FoundChannel) -> Iterator[Finding]:
        extent = channel.extent
        if channel.settings is None:
            if channel.is_damaged or not self.is_whole:
                return
            if extent is not None:
                held = counted(extent.end_offset - extent.begin_offset, "message")
                yield problem(channel.subject, f"its settings are missing, so the channel is lost, with {held}")
            elif channel.producer_records:
                left = counted(channel.producer_records, "producers' record")
                yield note(channel.subject, f"{left} of a channel that does not exist: garbage")
        elif extent is None:
            if self.is_whole and not channel.is_damaged:
                yield problem(channel.subject, "the record of what it holds is missing")
        elif channel.produced_end > extent.end_id:
            yield problem(
                channel.subject, f"it ends at id {extent.end_id}, but a producer was answered with {channel.produced_end}"
            )

    def _is_lost(self, number: int) -> bool:
        """Whether the channel's own records are damaged or missing, which is told of it."""
        found = self.channels.get(number)
        return found is not None and found.settings is None and (found.is_damaged or found.extent is not None)

    def _compare_group(self, group: str, name: str, state: GroupState, channel: FoundChannel | None) -> Iterator[Finding]:
        subject = _group_subject(group, name)
        if channel is None or channel.number != state.channel_number:
            if self.is_whole and not self._is_lost(state.channel_number):
                yield note(subject, f"its channel, number {state.channel_number}, does not exist: garbage")
            return
        channel.groups[group] = state
        self._use(state.creation_id, f"the creation id of {subject}")
        self._use(state.generation, f"the generation of {subject}")
        self._use(state.forgotten, f"the mark of forgotten consumers of {subject}")
        if state.generation < state.creation_id:
            yield problem(subject, f"its generation {state.generation} lies before its creation, {state.creation_id}")
        if channel.extent is None:
            return
        end = channel.extent.end_id + 1
        mode = self._mode_of(channel)
        if state.position > end and mode is Mode.FSYNC:
            yield problem(subject, f"its position {state.position} lies beyond the channel's end: at most {end} is possible")
        elif state.position > end:
            ahead = f"its position {state.position} lies beyond the channel's end"
            yield note(subject, f"{ahead}, as a power cut may leave it in mode {mode}: the next start moves it to {end}")
        for consumer, entry in state.consumers.items():
            if (wrong := _wrong_of(entry, state, end if mode is Mode.FSYNC else None)) is not None:
                yield problem(subject, f"consumer id {consumer.hex()}: {wrong}")

    def _mode_of(self, channel: FoundChannel) -> Mode:
        named = None if channel.settings is None else channel.settings.durability
        return (self._durability if named is None else Durability.parse(named)).mode


def _wrong_of(entry: ConsumerEntry, state: GroupState, end: int | None) -> str | None:
    """What cannot be in a consumer's entry, if anything. ``end``: behind the last message; None: some may be lost."""
    told = f"it was handed {counted(entry.message_count, 'message')} from {entry.begin} up to {entry.end}"
    if not entry.begin < entry.end or not 1 <= entry.message_count <= entry.end - entry.begin:
        return f"{told}, which cannot be"
    if end is not None and entry.end > end:
        return f"{told}, beyond the channel's end"
    if entry.generation > state.generation:
        return f"{told} in generation {entry.generation}, which the group has not reached"
    if entry.generation == state.generation and entry.end > state.position:
        return f"{told}, beyond the group's position {state.position}"
    return None


def _check_group_types(state: GroupState) -> None:
    _check_types(state.metadata, bytes)
    numbers = [state.channel_number, state.creation_id, state.position, state.offset, state.generation, state.forgotten]
    if state.last_seek is not None:
        numbers += state.last_seek[1:]
    for consumer, entry in state.consumers.items():
        _check_types(consumer, bytes)
        _check_types(entry.is_released, bool)
        numbers += entry[:6]
    for number in numbers:
        _check_types(number, int)


def _check_types(value: object, *types: type) -> None:
    """Raises ValueError: a decoded record may hold anything."""
    if not isinstance(value, types):
        raise ValueError(f"it holds a {type(value).__name__} where a {types[0].__name__} belongs")


def _unknown(key: bytes, value: bytes) -> Iterator[Finding]:
    yield note(f"record {key!r}", "this version does not know what it is")


def _group_subject(group: str, channel: str) -> str:
    return f"group {group} of {channel}"


def _text(error: Exception) -> str:
    return error.message if isinstance(error, StorageFailed) else f"it is damaged: {error}"
