"""The head of every payload: type, id and time range, which can be read without knowing the type.

    0A 20                 field 1, 32 bytes
    0D type     fixed32   ┐
    11 id       sfixed64  │ `Header` of messages.proto, all four fields,
    19 begin_ts fixed64   │ zeros too
    21 end_ts   fixed64   ┘
    ...                   the body: the other fields of the message

Header and body together are one protobuf message, since protobuf messages concatenate. Other valid encodings of
the same are read as well, only slower.
"""

import struct
from typing import Any, NamedTuple

from rocksmq.protocol.errors import InvalidRequest

from .schema import ANY, body_class, decode_error
from .types import HASH_KEY_MAX, TIMESTAMP_MAX

TYPE_MAX = HASH_KEY_MAX
_LAYOUT = struct.Struct("<3sIcqcQcQ")
_pack, _unpack_from = _LAYOUT.pack, _LAYOUT.unpack_from
_from_bytes = int.from_bytes
_START = b"\x0a\x20\x0d"
_ID, _BEGIN, _END = b"\x11", b"\x19", b"\x21"


class Undecodable(ValueError):
    """The payload is not a message, or not one of the type that was asked for."""


class Header(NamedTuple):
    """What every payload begins with."""

    type: int
    id: int
    begin_ts: int
    end_ts: int


def pack_header(msg_type: int, id: int, begin_ts: int, end_ts: int) -> bytes:  # noqa: A002
    """The 34 bytes that a payload begins with. Whoever writes a `marshal` of one's own puts them first; behind them goes
    whatever is a protobuf message's other fields, field numbers from 2, or nothing.

    Raises InvalidRequest for what no header can say: a type outside 1 to 2^32-1, an id that is no signed 64-bit integer,
    timestamps that are no unsigned ones, an end before the begin.
    """
    try:
        packed = _pack(_START, msg_type, _ID, id, _BEGIN, begin_ts, _END, end_ts)
    except struct.error:
        raise InvalidRequest(
            f"no header has type {msg_type!r}, id {id!r}, begin_ts {begin_ts!r}, end_ts {end_ts!r}: "
            f"the type is an integer from 1 to {TYPE_MAX}, the id a signed 64-bit one, the timestamps from 0 to {TIMESTAMP_MAX}"
        ) from None
    if begin_ts > end_ts or not msg_type:
        raise InvalidRequest(f"begin_ts {begin_ts} is above end_ts {end_ts}" if msg_type else "type 0 is no type of messages")
    return packed


def header_of(payload: bytes) -> Header:
    """The header of a payload of any type, known or not. Raises Undecodable where there is none."""
    return _leading(payload) or _parsed(ANY, payload)[0]


def type_of(payload: bytes) -> int:
    """As `header_of`, its type alone: of a header as `pack_header` makes it nothing else is looked at."""
    return _from_bytes(payload[3:7], "little") if payload[:3] == _START else header_of(payload).type


def decoded(msg_type: int, payload: bytes) -> tuple[Header, Any]:
    """The header and the parsed body of a payload of that type. Raises Undecodable."""
    header = _leading(payload)
    if header is None:
        header, body = _parsed(msg_type, payload)
    else:
        body = _body(msg_type, payload[_LAYOUT.size :])
        if body.HasField("header"):
            raise Undecodable("the payload has two headers")
    if header.type != msg_type:
        raise Undecodable(f"the payload is of type {header.type}, not {msg_type}")
    return header, body


def _leading(payload: bytes) -> Header | None:
    """The header where it is encoded as `pack_header` does."""
    try:
        start, msg_type, a, msg_id, b, begin_ts, c, end_ts = _unpack_from(payload)
    except (struct.error, TypeError):
        return None
    if start != _START or a != _ID or b != _BEGIN or c != _END:
        return None
    return _checked(Header(msg_type, msg_id, begin_ts, end_ts))


def _parsed(msg_type: int, payload: bytes) -> tuple[Header, Any]:
    """The header and all else as protobuf finds them, wherever they are."""
    body = _body(msg_type, payload)
    if not body.HasField("header"):
        raise Undecodable("the payload has no header")
    found = body.header
    return _checked(Header(found.type, found.id, found.begin_ts, found.end_ts)), body


def _body(msg_type: int, payload: bytes) -> Any:
    parse = body_class(msg_type).FromString
    try:
        return parse(payload)
    except (decode_error(), TypeError, ValueError) as error:
        raise Undecodable(f"the payload is no protobuf message: {error}") from None


def _checked(header: Header) -> Header:
    if not header.type or header.begin_ts > header.end_ts:
        raise Undecodable(f"no message has such a header: {header}")
    return header
