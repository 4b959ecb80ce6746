"""Requests and replies as frames (SPEC §2.3, §5.1), by the table of operations.

`decode_request` refuses whatever does not match the wire types of the fields, naming the field.
"""

import types
from collections.abc import Sequence
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

from .cbor import Buffer, encode_frame
from .errors import CODE_MAX, ERRORS, InternalError, InvalidRequest, ProtocolError, RocksMQError
from .operations import OPS, Operation
from .wire import Wire

SUCCESS = 0
NO_CORRELATION = 0  # of frames that answer no request: the broker's ping, and the error before it closes
MESSAGE_CHARACTERS_MAX = 1_000  # of an error: below the bound of any text, whatever the characters are

Tuple = TypeVar("Tuple")


def _wire_of(hint: Any) -> Wire:
    if get_origin(hint) is Annotated:
        return next(extra for extra in get_args(hint)[1:] if isinstance(extra, Wire))
    options = get_args(hint)
    assert get_origin(hint) in (Union, types.UnionType), f"{hint} has no wire type"
    wire = _wire_of(options[0])
    if type(None) not in options:
        return wire

    def check(value: object) -> bool:
        return value is None or wire.check(value)

    return Wire(check, f"{wire.description}, or null")


def _fields_of(shape: type[Any]) -> tuple[tuple[str, Wire], ...]:
    return tuple((name, _wire_of(hint)) for name, hint in get_type_hints(shape, include_extras=True).items())


_FIELDS = {shape: _fields_of(shape) for op in OPS.values() for shape in (op.request, op.reply)}


def _decode(what: str, shape: type[Tuple], items: Sequence[Any]) -> Tuple:
    fields = _FIELDS[shape]
    if len(items) != len(fields):
        raise ProtocolError(f"{what} has {len(items)} fields, not {len(fields)}")
    for (name, wire), item in zip(fields, items, strict=True):
        if not wire.check(item):
            raise ProtocolError(f"{what}: {name} must be {wire.description}")
    return shape(*items)


def decode_request(items: Sequence[Any]) -> tuple[Operation, int, Any]:
    """Operation, correlation id and typed request of a frame's array. Raises ProtocolError."""
    if len(items) < 2 or type(items[0]) is not int or type(items[1]) is not int or not 0 < items[1] < 1 << 32:
        raise ProtocolError("a request begins with an operation's number and a correlation id from 1 to 2^32 - 1")
    op = OPS.get(items[0])
    if op is None:
        raise ProtocolError(f"there is no operation {items[0]}")
    return op, items[1], _decode(op.name, op.request, items[2:])


def encode_request(op: Operation, correlation: int, request: Sequence[Any]) -> list[Buffer]:
    """The frame of a request, as buffers to send in order. Raises InvalidRequest for a field that cannot travel."""
    for (name, wire), value in zip(_FIELDS[op.request], request, strict=True):
        if not wire.check(value):
            raise InvalidRequest(f"{op.name}: {name} must be {wire.description}")
    return encode_frame((op.number, correlation, *request))


def encode_reply(correlation: int, reply: Sequence[Any]) -> list[Buffer]:
    """The frame of a successful reply."""
    return encode_frame((correlation, SUCCESS, *reply))


def encode_error(correlation: int, error: RocksMQError) -> list[Buffer]:
    """The frame of a refusal (SPEC §5): correlation, code, message, retry_after_ms, expected number, present id."""
    retry_after_ms = None if error.retry_after is None else round(error.retry_after * 1000)
    return encode_frame(
        (
            correlation,
            int(error.code),
            error.message[:MESSAGE_CHARACTERS_MAX],
            retry_after_ms,
            error.expected_number,
            error.present_id,
        )
    )


def decode_reply(op: Operation, items: Sequence[Any]) -> Any:
    """Typed reply of a frame's array; ``items[0]`` is the correlation id, looked up before.

    Raises the error that the broker answered, or ProtocolError.
    """
    if len(items) < 2 or type(items[1]) is not int:
        raise ProtocolError("a reply begins with a correlation id and a status")
    if items[1] == SUCCESS:
        return _decode(f"reply to {op.name}", op.reply, items[2:])
    raise decode_error(items)


def decode_error(items: Sequence[Any]) -> RocksMQError:
    """The refusal in a frame's array. Raises ProtocolError for an array that is none."""
    if (
        len(items) != 6
        or type(items[1]) is not int
        or not isinstance(items[2], str)
        or any(type(v) not in (int, type(None)) for v in items[3:])
    ):
        raise ProtocolError("not an error reply: [correlation, code, message, retry_after_ms, expected number, present id]")
    _, code, message, retry_after_ms, expected_number, present_id = items
    return ERRORS.get(code if code <= CODE_MAX else 0, InternalError)(
        message,
        retry_after=None if retry_after_ms is None else retry_after_ms / 1000,
        expected_number=expected_number,
        present_id=present_id,
    )
