"""The repairs of channels, their groups and producers: what each of them changes, as a `Patch`, and what it did in words.

Nothing is guessed: counts and ends are those of the batches that are there. Who passed what is no longer there gets a new
generation, and who might send it again is refused rather than believed, as after what the broker itself forgets.
"""

from collections.abc import Callable, Iterator
from typing import TypeVar

from rocksmq.protocol.errors import InvalidRequest, StorageFailed

from . import keys
from .findings import counted
from .ids import COUNTER_BITS, clock_ms
from .patch import NotRepaired, Patch
from .plausible import wrong_of
from .records import EMPTY_EXTENT, Begin, ChannelSettings, ConsumerEntry, Extent, GroupState, ProducedEntry, StoredBatch
from .store import Family
from .sweep import BATCH_KEY_BYTES, checked

Record = TypeVar("Record")


def cut_end(patch: Patch, channel: str, message_id: int) -> str:
    """The channel ends before ``message_id``: with a batch that ends there."""
    number = patch.number_of(channel)
    extent = patch.extent_of(number)
    last = _last_before(patch, number, message_id)
    if last is None or not extent.begin_id <= last.end_id < message_id:
        raise NotRepaired(f"no batch of {channel} ends before id {message_id}")
    end_offset, end_bytes = last.base_offset + last.count, last.base_bytes + last.size
    kept = extent._replace(end_id=last.end_id, end_offset=end_offset, end_bytes=end_bytes)
    _, span_end = keys.channel_span(number)
    patch.delete_range(Family.DATA, keys.batch_key(number, message_id), span_end)
    patch.put(keys.extent_key(number), kept.encode())
    moved = [
        _mend_group(patch, key, state, kept) for key, state in _groups_of(patch, channel) if state.position > kept.end_id + 1
    ]
    forgotten = _forget_producers(patch, number, lambda entry: _end_of(entry) > kept.end_id)
    gone = counted(extent.end_offset - kept.end_offset, "message")
    return (
        f"channel {channel} ends with id {kept.end_id}, no longer {extent.end_id}: {gone} removed,"
        f" {counted(len(moved), 'group')} brought back, {counted(forgotten, 'producer')} forgotten"
    )


def cut_begin(patch: Patch, channel: str, message_id: int) -> str:
    """The channel begins with ``message_id``, the first of a batch, or behind its end: then it is empty."""
    number = patch.number_of(channel)
    extent = patch.extent_of(number)
    if message_id == extent.end_id + 1:
        offset, size = extent.end_offset, extent.end_bytes
    else:
        value = patch.store.get(Family.DATA, keys.batch_key(number, message_id))
        if value is None:
            raise NotRepaired(f"there is no batch with id {message_id}")
        batch = checked(keys.batch_key(number, message_id), value)
        offset, size = batch.base_offset, batch.base_bytes
    removed_end = message_id if offset else 0
    kept = extent._replace(begin_id=message_id, begin_offset=offset, begin_bytes=size, removed_end=removed_end)
    span_begin, span_end = keys.channel_span(number)
    end = span_end if message_id == extent.end_id + 1 else keys.batch_key(number, message_id)
    patch.delete_range(Family.DATA, span_begin, end)
    patch.put(keys.extent_key(number), kept.encode())
    gone = counted(kept.begin_offset - extent.begin_offset, "message")
    return f"channel {channel} begins with id {kept.begin_id}, no longer {extent.begin_id}: {gone} removed"


def rebuild_extent(patch: Patch, channel: str) -> str:
    """By the batches. The begin stays where the record has it, if it agrees with the batch that holds it."""
    number = patch.number_of(channel)
    former = _former_extent(patch, number)
    first: Begin | None = None
    stays = False
    extent = _empty_extent(patch, channel)
    for batch in _batches(patch, number):
        if first is None:
            first = Begin(batch.first_id, batch.base_offset, batch.base_bytes, batch.first_id if batch.base_offset else 0)
            extent = EMPTY_EXTENT.trimmed(first)
        if former is not None and batch.first_id <= former.begin_id <= batch.end_id and _agrees(former, batch):
            extent, stays = extent.trimmed(former.begin), True
        end_offset, end_bytes = batch.base_offset + batch.count, batch.base_bytes + batch.size
        extent = extent._replace(end_id=batch.end_id, end_offset=end_offset, end_bytes=end_bytes)
    patch.put(keys.extent_key(number), extent.encode())
    held = counted(extent.message_count, "message")
    begin = "its begin stays" if stays else "it begins with the first that is stored"
    return f"channel {channel} holds {held}, ids {extent.begin_id} to {extent.end_id}, as its batches say; {begin}"


def rebuild_settings(patch: Patch, number: int, name: str) -> str:
    """What was lost of them are the defaults."""
    settings = ChannelSettings(name, b"", clock_ms(), None, None, None)
    patch.put(keys.settings_key(number), settings.encode())
    return f"channel number {number} is named {name}, and has the broker's defaults"


def remove_channel(patch: Patch, number: int) -> str:
    """All of it."""
    span_begin, span_end = keys.channel_span(number)
    patch.delete_range(Family.DATA, span_begin, span_end)
    for begin, end in (keys.producer_span(number), keys.name_span(number)):
        patch.delete_range(Family.META, begin, end)
    patch.delete(keys.settings_key(number))
    patch.delete(keys.extent_key(number))
    for key, value in patch.records(keys.GROUP):
        group, channel, leaf = keys.group_of(key)
        if leaf == keys.STATE and (state := _decoded(GroupState.decode, value)) and state.channel_number == number:
            remove_group(patch, channel, group)
    return f"channel number {number} is removed"


def mend_group(patch: Patch, channel: str, group: str) -> str:
    """Its position, counts and entries, by the messages."""
    number = patch.number_of(channel)
    key = keys.group_key(group, channel, keys.STATE)
    value = patch.get(key)
    if value is None:
        raise NotRepaired(f"there is no group {group} of {channel}")
    before = GroupState.decode(value)
    after = _mend_group(patch, key, before, patch.extent_of(number))
    dropped = counted(len(before.consumers) - len(after.consumers), "consumer")
    return (
        f"group {group} of {channel} stands at {after.position}, {after.offset} messages before it,"
        f" no longer at {before.position}, {before.offset}; {dropped} forgotten"
    )


def remove_group(patch: Patch, channel: str, group: str) -> str:
    """Both of its records."""
    for leaf in (keys.STATE, keys.CURRENT_ID):
        patch.delete(keys.group_key(group, channel, leaf))
    return f"group {group} of {channel} is removed"


def forget_producer(patch: Patch, channel: str, producer: str) -> str:
    """One of them."""
    wanted = bytes.fromhex(producer)
    _forget_producers(patch, patch.number_of(channel), lambda entry: False, wanted)
    return f"producer {producer} on {channel} is forgotten"


def forget_producers(patch: Patch, channel: str) -> str:
    """Those that were answered with messages beyond the channel's end."""
    number = patch.number_of(channel)
    end_id = patch.extent_of(number).end_id
    count = _forget_producers(patch, number, lambda entry: _end_of(entry) > end_id)
    return f"{counted(count, 'producer')} on {channel} forgotten"


# -- parts ---------------------------------------------------------------------------


def _end_of(entry: ProducedEntry) -> int:
    return entry.first_id + entry.message_count - 1


def last_id(patch: Patch, number: int) -> int:
    """Of the batches that are there, whole or not; 0: there is none."""
    span_begin, span_end = keys.channel_span(number)
    found = next(patch.store.scan(Family.DATA, keys.batch_key(number, keys.ID_MAX), span_end, at_or_before=True), None)
    if found is None or not span_begin <= found[0] < span_end or len(found[0]) != BATCH_KEY_BYTES:
        return 0
    batch = _whole(*found)
    return keys.first_id_of(found[0]) + (1 << COUNTER_BITS) if batch is None else batch.end_id


def _last_before(patch: Patch, number: int, message_id: int) -> StoredBatch | None:
    """The last batch whose id is below ``message_id``."""
    key = keys.batch_key(number, message_id - 1)
    span_begin, span_end = keys.channel_span(number)
    found = next(patch.store.scan(Family.DATA, key, span_end, at_or_before=True), None)
    if found is None or not span_begin <= found[0] < keys.batch_key(number, message_id):
        return None
    batch = _whole(*found)
    if batch is None:
        raise NotRepaired(f"the batch with id {keys.first_id_of(found[0])} is damaged: cut it off before")
    return batch


def _batches(patch: Patch, number: int) -> Iterator[StoredBatch]:
    """Those that are whole."""
    for key, value in patch.store.scan(Family.DATA, *keys.channel_span(number)):
        if len(key) == BATCH_KEY_BYTES and (batch := _whole(key, value)) is not None:
            yield batch


def _whole(key: bytes, value: bytes) -> StoredBatch | None:
    try:
        return checked(key, value)
    except (StorageFailed, InvalidRequest):  # `check` told of it
        return None


def _decoded(decode: Callable[[bytes], Record], value: bytes) -> Record | None:
    try:
        return decode(value)
    except StorageFailed:  # `check` told of it
        return None


def _former_extent(patch: Patch, number: int) -> Extent | None:
    value = patch.get(keys.extent_key(number))
    return None if value is None else _decoded(Extent.decode, value)


def _agrees(extent: Extent, batch: StoredBatch) -> bool:
    """Whether the extent's begin, which lies in ``batch``, is what that counts."""
    before = extent.begin_id - batch.first_id
    begin = batch.base_offset + before, batch.base_bytes + sum(batch.sizes(0, before))
    return begin == (extent.begin_offset, extent.begin_bytes) and (0 < extent.removed_end <= extent.begin_id) == (begin[0] > 0)


def _empty_extent(patch: Patch, channel: str) -> Extent:
    """Of a channel without batches: its end is where its groups have come."""
    states = [state for _, state in _groups_of(patch, channel)]
    last = max(states, key=lambda state: state.position, default=None)
    if last is None or not last.offset:
        return EMPTY_EXTENT
    return Extent(last.position, last.position - 1, last.offset, last.offset, 0, 0, last.position)


def _groups_of(patch: Patch, channel: str) -> list[tuple[bytes, GroupState]]:
    """The keys and states of those that are kept in this directory."""
    found: list[tuple[bytes, GroupState]] = []
    for key, value in patch.records(keys.GROUP):
        _, name, leaf = keys.group_of(key)
        if name == channel and leaf == keys.STATE and (state := _decoded(GroupState.decode, value)) is not None:
            found.append((key, state))
    return found


def _mend_group(patch: Patch, key: bytes, state: GroupState, extent: Extent) -> GroupState:
    """The state as the messages up to the end of ``extent`` let it be; it is put into ``patch``."""
    position, end = min(state.position, extent.end_id + 1), extent.end_id + 1
    generation = max(patch.new_id(), state.generation + 1)
    consumers = {
        consumer: _given_back(patch, state, entry, extent, generation) if entry.is_released else entry
        for consumer, entry in state.consumers.items()
        if wrong_of(entry, state, end) is None
    }
    dropped = [entry.last_use for consumer, entry in state.consumers.items() if consumer not in consumers]
    mended = state._replace(
        position=position,
        offset=_offset_of(patch, state, position, extent),
        generation=generation,
        consumers=consumers,
        forgotten=max(state.forgotten, *dropped, 0),
    )
    group, channel, _ = keys.group_of(key)
    patch.put(key, mended.encode())
    patch.put(keys.group_key(group, channel, keys.CURRENT_ID), str(position).encode())
    return mended


def _given_back(patch: Patch, state: GroupState, entry: ConsumerEntry, extent: Extent, generation: int) -> ConsumerEntry:
    """What is still to be read, counted anew."""
    count = entry.message_count
    if entry.begin >= extent.begin_id:
        count = _offset_of(patch, state, entry.end, extent) - _offset_of(patch, state, entry.begin, extent)
    return entry._replace(generation=generation, message_count=count)


def _offset_of(patch: Patch, state: GroupState, position: int, extent: Extent) -> int:
    """How many messages were ever appended before ``position``."""
    if position > extent.end_id:
        return extent.end_offset
    last = _last_before(patch, state.channel_number, position + 1)
    if last is not None and (position <= last.end_id or position >= extent.begin_id):
        return last.base_offset + min(position - last.first_id, last.count)
    return extent.begin_offset if position >= extent.removed_end else min(state.offset, extent.begin_offset)


def _forget_producers(patch: Patch, number: int, is_wrong: Callable[[ProducedEntry], bool], wanted: bytes | None = None) -> int:
    """Those of the channel with a wrong entry, and ``wanted``; how many. Their repeats are refused from then on."""
    forgotten: set[bytes] = {wanted} if wanted is not None else set()
    begin, end = keys.producer_span(number)
    found = [(key, _decoded(ProducedEntry.decode, value)) for key, value in patch.store.scan(Family.META, begin, end)]
    forgotten |= {keys.producer_of(key)[1] for key, entry in found if entry is not None and is_wrong(entry)}
    last_use = 0
    for key, entry in found:
        if keys.producer_of(key)[1] in forgotten:
            patch.delete(key)
            last_use = max(last_use, patch.new_id() if entry is None else entry.first_id)
    if forgotten:
        stored = patch.get(keys.FORGOTTEN)
        patch.put(keys.FORGOTTEN, keys.u64(max(last_use, 0 if stored is None else keys.from_u64(stored))))
    return len(forgotten)
