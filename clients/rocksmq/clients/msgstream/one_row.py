"""The payload of an insert or a delete of one row, packed and unpacked without protobuf.

Most messages of a stream are such, and this takes a quarter of the time. The bytes are those that protobuf makes of it,
and protobuf reads whatever is not exactly this:

    0A 20 ... 34 bytes       the header (header.py), whose begin_ts and end_ts are the timestamp
    12 04 hash key fixed32   ┐
    1A 08 timestamp fixed64  │ columns of one item each
    22 08 row id   sfixed64  ┘ (of a delete: the primary key)
    2A size row              of an insert only; the size is a varint, of two bytes at most here
"""

import struct

_LAYOUT = struct.Struct("<3sIcqcQcQ2sI2sQ2sq")
_pack, _unpack_from = _LAYOUT.pack, _LAYOUT.unpack_from
_END = _LAYOUT.size
_NUMBERS = struct.Struct("<qQqI")
_pack_numbers, _unpack_numbers = _NUMBERS.pack, _NUMBERS.unpack
_TAGS = (b"\x0a\x20\x0d", b"\x11", b"\x19", b"\x21", b"\x12\x04", b"\x1a\x08", b"\x22\x08")
_START, _ID, _BEGIN, _END_TS, _KEY, _STAMP, _ROW_ID = _TAGS
_ROW = 0x2A
ROW_BYTES_MAX = (1 << 14) - 1  # what a size of two bytes can tell; beyond that copying the row is what takes time


def checked_keys(msg_id: int, timestamp: int, row_id: int, hash_key: int) -> tuple[int, int, int, int]:
    """The same as integers of their fields' ranges. Raises struct.error for what is none."""
    return _unpack_numbers(_pack_numbers(msg_id, timestamp, row_id, hash_key))


def pack_keys(msg_type: int, msg_id: int, timestamp: int, row_id: int, hash_key: int) -> bytes:
    """All but the row. Raises struct.error for what is no integer of the field's range."""
    return _pack(
        *(_START, msg_type, _ID, msg_id, _BEGIN, timestamp, _END_TS, timestamp),
        *(_KEY, hash_key, _STAMP, timestamp, _ROW_ID, row_id),
    )


def pack_row(row: bytes) -> bytes:
    """A row of at most ROW_BYTES_MAX, to stand behind its keys."""
    size = len(row)
    return (bytes((_ROW, size)) if size < 128 else bytes((_ROW, size & 127 | 128, size >> 7))) + row


def maybe_keys(msg_type: int, payload: bytes) -> tuple[int, int, int, int] | None:
    """Id, timestamp, row id and hash key where the payload begins as `pack_keys` makes it. Else None."""
    if type(payload) is not bytes or len(payload) < _END:
        return None
    parts = _unpack_from(payload)
    if parts[::2] != _TAGS:
        return None
    found_type, msg_id, begin_ts, end_ts, hash_key, timestamp, row_id = parts[1::2]
    if found_type != msg_type or not begin_ts == timestamp == end_ts:
        return None
    return msg_id, timestamp, row_id, hash_key


def is_keys_alone(payload: bytes) -> bool:
    """Nothing stands behind the keys."""
    return len(payload) == _END


def maybe_row(payload: bytes) -> bytes | None:
    """The row behind the keys, where that is all, and as `pack_row` makes it. Else None."""
    length = len(payload)
    if length < _END + 2 or payload[_END] != _ROW:
        return None
    size = payload[_END + 1]
    start = _END + 2
    if size > 127:
        if length < _END + 3 or payload[start] > 127:
            return None
        size += (payload[start] << 7) - 128
        start += 1
    return payload[start:] if length - start == size else None
