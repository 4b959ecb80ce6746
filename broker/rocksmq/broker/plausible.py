"""What a decoded record may hold, beyond that it decodes; for `check`. Pure."""

from typing import cast

from rocksmq.protocol.errors import ProtocolError

from .clock import ClockNote
from .findings import counted
from .records import ConsumerEntry, Extent, GroupState
from .retention import Rules


def wrong_of(entry: ConsumerEntry, state: GroupState, end: int | None) -> str | None:
    """What cannot be in a consumer's entry, if anything. ``end``: behind the last message; None: some may be lost."""
    told = f"it was handed {counted(entry.message_count, 'message')} from {entry.begin} up to {entry.end}"
    if not entry.begin < entry.end or not 1 <= entry.message_count <= entry.end - entry.begin:
        return f"{told}, which cannot be"
    if entry.gap_count and not 0 < entry.gap_count <= entry.begin - entry.gap_begin:
        return f"{told}, and told of a gap of {entry.gap_count} from {entry.gap_begin} on, which cannot be"
    if entry.generation > state.generation:
        return f"{told} in generation {entry.generation}, which the group has not reached"
    is_over = entry.generation < state.generation  # never handed out again
    if not is_over and end is not None and entry.end > end:
        return f"{told}, beyond the channel's end"
    if not is_over and entry.end > state.position:
        return f"{told}, beyond the group's position {state.position}"
    return None


def is_possible(extent: Extent) -> bool:
    """Whether its fields agree."""
    count, size, removed = extent.message_count, extent.byte_count, extent.removed_end
    if count < 0 or size < 0 or not 0 <= removed <= extent.begin_id or (removed > 0) != (extent.begin_offset > 0):
        return False
    if not count:
        return extent.begin_id == extent.end_id + 1 and not size
    return extent.begin_id + count - 1 <= extent.end_id


def check_retention(retention: object) -> None:
    """Raises ValueError."""
    if retention is None:
        return
    if not isinstance(retention, dict):
        raise ValueError(f"its retention is a {type(retention).__name__}")
    rules = cast(dict[object, object], retention)
    for rule, value in rules.items():
        check_types(rule, str)
        check_types(value, int)
    Rules.parse(cast(dict[str, int], rules))


def check_clock(data: bytes) -> None:
    """Raises ValueError."""
    try:
        note = ClockNote.decode(data)
    except (ProtocolError, TypeError) as error:
        raise ValueError(str(error)) from error
    check_types(note.boot, str)
    check_types(note.offset_ms, int)
    check_types(note.doubt, str, type(None))


def check_group_types(state: GroupState) -> None:
    check_types(state.metadata, bytes)
    numbers = [state.channel_number, state.creation_id, state.position, state.offset, state.generation, state.forgotten]
    if state.last_seek is not None:
        numbers += state.last_seek[1:]
    for consumer, entry in state.consumers.items():
        check_types(consumer, bytes)
        check_types(entry.is_released, bool)
        numbers += [*entry[:6], *entry[7:]]
    for number in numbers:
        check_types(number, int)


def check_types(value: object, *types: type) -> None:
    """Raises ValueError: a decoded record may hold anything."""
    if not isinstance(value, types):
        raise ValueError(f"it holds a {type(value).__name__} where a {types[0].__name__} belongs")
