"""The types of fields on the wire (SPEC §3): each a check, and the words for it in an error."""

from collections.abc import Callable
from typing import Annotated, Any, NamedTuple, TypeAlias, cast

from .cbor import TEXT_BYTES_MAX, Buffer

ID_BYTES = 16
SEQUENCE_BYTES_MAX = 32
POSITION_MAX, SEEK_MAX, OUTCOME_MAX = 3, 4, 3
MS_MAX = 253_402_300_799_999  # the last millisecond of the year 9999, since 1970


class Wire(NamedTuple):
    """How a field travels: its check and the words for it in an error."""

    check: Callable[[object], bool]
    description: str


def _up_to(most: int, description: str) -> Wire:
    def check(value: object) -> bool:
        return _is_integer(value, most)

    return Wire(check, description)


def _unsigned(bits: int) -> Wire:
    return _up_to((1 << bits) - 1, f"an unsigned {bits}-bit integer")


def _a(kind: type | tuple[type, ...], description: str) -> Wire:
    def check(value: object) -> bool:
        return isinstance(value, kind)

    return Wire(check, description)


def _is_integer(value: object, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most


def _is_id(value: object) -> bool:
    return isinstance(value, bytes) and len(value) == ID_BYTES


def _is_text(value: object) -> bool:
    if not isinstance(value, str) or len(value) > TEXT_BYTES_MAX:
        return False
    try:
        return value.isascii() or len(value.encode()) <= TEXT_BYTES_MAX
    except UnicodeEncodeError:  # a lone surrogate
        return False


def _is_u64(value: object) -> bool:
    return _is_integer(value, (1 << 64) - 1)


def _is_limits(value: object) -> bool:
    entries = cast(dict[object, object], value) if isinstance(value, dict) else {0: 0}
    return all(_is_text(k) and _is_u64(v) for k, v in entries.items())


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and all(_is_text(v) for v in cast(list[object], value))


def _is_owner(value: object) -> bool:
    return _is_texts(value) and len(cast(list[object], value)) == 3


def _is_gap(value: object) -> bool:
    if not isinstance(value, list) or len(cast(list[object], value)) != 3:
        return False
    begin, end, count = cast(list[object], value)
    return _is_u64(begin) and _is_u64(end) and (count is None or _is_u64(count))


def _is_held(value: object) -> bool:
    entries = cast(list[object], value) if isinstance(value, list) else []
    return len(entries) == 3 and _is_text(entries[0]) and _is_u64(entries[1]) and _is_u64(entries[2])


def _is_owners(value: object) -> bool:
    return isinstance(value, list) and all(owner is None or _is_owner(owner) for owner in cast(list[object], value))


def _is_gaps(value: object) -> bool:
    return isinstance(value, list) and all(map(_is_indexed_gap, cast(list[object], value)))


def _is_indexed_gap(value: object) -> bool:
    entry = cast(list[object], value) if isinstance(value, list) else []
    return len(entry) == 4 and _is_integer(entry[0], (1 << 32) - 1) and _is_gap(entry[1:])


def _is_sequence(value: object) -> bool:
    return _is_u64(value) or (isinstance(value, bytes) and len(value) <= SEQUENCE_BYTES_MAX)


def _is_sequence_range(value: object) -> bool:
    entries = cast(list[object], value) if isinstance(value, list) else []
    return len(entries) == 2 and all(_is_sequence(entry) for entry in entries)


U32: TypeAlias = Annotated[int, _unsigned(32)]
U64: TypeAlias = Annotated[int, _unsigned(64)]
Text: TypeAlias = Annotated[str, Wire(_is_text, f"a text of at most {TEXT_BYTES_MAX} bytes in UTF-8")]
Flag: TypeAlias = Annotated[bool, _a(bool, "a boolean")]
Id: TypeAlias = Annotated[bytes, Wire(_is_id, f"a byte string of {ID_BYTES} bytes")]
Bytes: TypeAlias = Annotated[Buffer, _a((bytes, bytearray, memoryview), "a byte string")]
Column: TypeAlias = Annotated[Buffer, _a((bytes, bytearray, memoryview), "a byte string")]
Texts: TypeAlias = Annotated[list[str], Wire(_is_texts, "an array of texts")]
Limits: TypeAlias = Annotated[dict[str, int], Wire(_is_limits, "a map from text to integer")]
Retention: TypeAlias = Limits
Owner: TypeAlias = Annotated[list[str], Wire(_is_owner, "an array [role, address, description]")]
Owners: TypeAlias = Annotated[list[list[str] | None], Wire(_is_owners, "an array of null or [role, address, description]")]
GapRange: TypeAlias = Annotated[list[Any], Wire(_is_gap, "an array [from id, to id, count or null]")]
GapRanges: TypeAlias = Annotated[list[list[Any]], Wire(_is_gaps, "an array of [index, from id, to id, count or null]")]
HeldSpace: TypeAlias = Annotated[list[str | int], Wire(_is_held, "an array [group, from id, bytes]")]
Milliseconds: TypeAlias = Annotated[int, _up_to(MS_MAX, "milliseconds, up to the year 9999")]
OutcomeKind: TypeAlias = Annotated[int, _up_to(OUTCOME_MAX, "0 exact, 1 next, 2 earliest or 3 latest")]
PositionKind: TypeAlias = Annotated[int, _up_to(POSITION_MAX, "0 id, 1 earliest, 2 latest or 3 time")]
SeekKind: TypeAlias = Annotated[int, _up_to(SEEK_MAX, "0 id, 1 earliest, 2 latest, 3 time or 4 current")]
SequenceNumber: TypeAlias = Annotated[
    int | bytes, Wire(_is_sequence, f"an unsigned 64-bit integer, or a byte string of at most {SEQUENCE_BYTES_MAX} bytes")
]
SequenceRange: TypeAlias = Annotated[list[int | bytes], Wire(_is_sequence_range, "an array [first, last] of sequences")]
