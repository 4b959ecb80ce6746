"""The one table of operations (SPEC §3): number, name, request, reply, permission, idempotent.

Dispatch, the codec, metrics labels, permissions, the CDDL check and the docs all derive from
`OPS`. A request or reply is a NamedTuple; each field's wire type stands in its
annotation, and `decode_request` refuses whatever does not match, naming the field.
"""

import types
from collections.abc import Sequence
from enum import IntEnum, StrEnum
from typing import Annotated, Any, NamedTuple, TypeVar, Union, get_args, get_origin, get_type_hints

from .batch import RecordBatch
from .cbor import Buffer, Gathered, encode_frame
from .errors import CODE_MAX, ERRORS, InternalError, InvalidRequest, ProtocolError, RocksMQError
from .wire import (
    U32,
    U64,
    Bytes,
    Column,
    Flag,
    GapRange,
    Id,
    Limits,
    Milliseconds,
    OutcomeKind,
    Owner,
    PositionKind,
    Retention,
    SeekKind,
    SequenceNumber,
    SequenceRange,
    Text,
    Texts,
    Wire,
)

MAGIC = "RocksMQ"
VERSION_MIN = VERSION_MAX = 1
POLL_MS_MAX = 30_000
METADATA_BYTES_MAX = 256
MESSAGE_CHARACTERS_MAX = 1_000  # of an error: below the bound of any text, whatever the characters are


class Permission(StrEnum):
    """What a token must allow for an operation."""

    CONNECT = "connect"
    ADMIN = "admin"
    PRODUCE = "produce"
    CONSUME = "consume"


class Position(IntEnum):
    """How `start` of FETCH, SEEK and CREATE_GROUP is meant."""

    ID = 0
    EARLIEST = 1
    LATEST = 2
    TIME_MS = 3  # the first message at or after this many milliseconds since 1970, UTC
    CURRENT = 4  # SEEK only: where the group stands, or the first message that was given back to it


class Outcome(IntEnum):
    """What a SEEK found."""

    EXACT = 0
    NEXT = 1
    EARLIEST = 2
    LATEST = 3


class Empty(NamedTuple):
    """A request or reply without fields."""


class Hello(NamedTuple):
    """SPEC §3.2. ``client_id`` names the client over its connections; the newest connection wins."""

    magic: Text
    version_min: U32
    version_max: U32
    client_name: Text
    client_id: Id
    token: Text | None


class HelloReply(NamedTuple):
    version: U32
    server: Text
    durability: Text
    limits: Limits
    present_id: U64


class CreateChannel(NamedTuple):
    """``request_id`` is kept with the channel, so that a repeat of the creating request is answered alike."""

    channel: Text
    durability: Text | None
    retention: Retention | None
    owner: Owner | None
    request_id: Id


class Created(NamedTuple):
    created: Flag


class DestroyChannel(NamedTuple):
    """``number`` is what DESCRIBE_CHANNEL gave just before: a successor of the same name is left alone."""

    channel: Text
    number: U64


class ListChannels(NamedTuple):
    """One page: names that start with ``prefix`` and sort behind ``after``."""

    prefix: Text
    after: Text


class Names(NamedTuple):
    """A page of names, sorted; ``more`` says that another page follows."""

    names: Texts
    more: Flag


class DescribeChannel(NamedTuple):
    channel: Text


class ChannelDescribed(NamedTuple):
    """``end_id`` outlives the messages; ``begin_id`` is ``end_id + 1`` when there are none."""

    number: U64
    owner: Owner | None
    created_ms: Milliseconds
    begin_id: U64
    end_id: U64
    message_count: U64
    byte_count: U64
    durability: Text
    retention: Retention


class CreateGroup(NamedTuple):
    channel: Text
    group: Text
    start_kind: PositionKind
    start: U64
    request_id: Id


class DestroyGroup(NamedTuple):
    """``creation_id`` is what DESCRIBE_GROUP gave just before: a successor of the same name is left alone."""

    channel: Text
    group: Text
    creation_id: U64


class ListGroups(NamedTuple):
    channel: Text
    after: Text


class DescribeGroup(NamedTuple):
    channel: Text
    group: Text


class GroupDescribed(NamedTuple):
    """``lag_ms`` is the age of the oldest unread message, 0 without any."""

    creation_id: U64
    position: U64
    lag_messages: U64
    lag_ms: U64
    generation: U64
    metadata: Bytes


class Produce(NamedTuple):
    """``number`` counts the producer's batches on this channel from 0, without holes.

    ``sequences``: of a named producer, the caller's numbers of the first and the last message.
    """

    channel: Text
    producer: Id
    number: U64
    message_count: U32
    lengths: Column
    payloads: Column
    header_lengths: Column | None
    headers: Column | None
    sequences: SequenceRange | None = None

    @property
    def batch(self) -> RecordBatch:
        return RecordBatch(self.message_count, self.lengths, self.payloads, self.header_lengths, self.headers)


class Produced(NamedTuple):
    """Message i of the batch has id ``first_id + i``; None: a named producer stored these sequences before."""

    first_id: U64 | None


class Consume(NamedTuple):
    """``number`` is raised by the client only once the messages were returned to the caller."""

    channel: Text
    group: Text
    consumer: Id
    number: U64
    max_messages: U32
    max_bytes: U32
    wait_ms: U32


class Fetch(NamedTuple):
    channel: Text
    start_kind: PositionKind
    start: U64
    max_messages: U32
    max_bytes: U32
    wait_ms: U32


class Messages(NamedTuple):
    """One merged batch. ``runs``: for each stretch of contiguous ids first_id u64, count u32, little-endian."""

    next_position: U64
    generation: U64
    gap: GapRange | None
    runs: Column
    message_count: U32
    lengths: Column | Gathered
    payloads: Column | Gathered
    header_lengths: Column | Gathered | None
    headers: Column | Gathered | None


class Commit(NamedTuple):
    channel: Text
    group: Text
    position: U64
    generation: U64 | None
    metadata: Bytes


class Seek(NamedTuple):
    """The group keeps the last ``request_id`` with its answer, so that a repeat moves nothing."""

    channel: Text
    group: Text
    to_kind: SeekKind
    to: U64
    request_id: Id


class Sought(NamedTuple):
    position: U64
    outcome: OutcomeKind
    generation: U64


class OpenProducer(NamedTuple):
    """Ties ``name`` to the producer id; the id that held it before is fenced."""

    channel: Text
    name: Text
    producer: Id


class ProducerOpened(NamedTuple):
    """``last_sequence`` of what is stored under the name; None: nothing yet."""

    last_sequence: SequenceNumber | None


class ReleaseConsumer(NamedTuple):
    """Ends the use of a consumer id; of consume ``number`` the messages from ``position`` on are given back."""

    channel: Text
    group: Text
    consumer: Id
    number: U64
    position: U64


class Operation(NamedTuple):
    """One row of OPS. ``idempotent``: the same request sent again does no more than the first did."""

    number: int
    name: str
    request: type[Any]
    reply: type[Any]
    permission: Permission
    idempotent: bool


OPS: dict[int, Operation] = {
    row[0]: Operation(*row)
    for row in (
        (1, "HELLO", Hello, HelloReply, Permission.CONNECT, True),
        (2, "PING", Empty, Empty, Permission.CONNECT, True),
        (3, "CREATE_CHANNEL", CreateChannel, Created, Permission.ADMIN, True),
        (4, "DESTROY_CHANNEL", DestroyChannel, Empty, Permission.ADMIN, True),
        (5, "LIST_CHANNELS", ListChannels, Names, Permission.CONSUME, True),
        (6, "DESCRIBE_CHANNEL", DescribeChannel, ChannelDescribed, Permission.CONSUME, True),
        (7, "CREATE_GROUP", CreateGroup, Created, Permission.CONSUME, True),
        (8, "DESTROY_GROUP", DestroyGroup, Empty, Permission.CONSUME, True),
        (9, "LIST_GROUPS", ListGroups, Names, Permission.CONSUME, True),
        (10, "DESCRIBE_GROUP", DescribeGroup, GroupDescribed, Permission.CONSUME, True),
        (11, "PRODUCE", Produce, Produced, Permission.PRODUCE, True),
        (12, "CONSUME", Consume, Messages, Permission.CONSUME, True),
        (13, "FETCH", Fetch, Messages, Permission.CONSUME, True),
        (14, "COMMIT", Commit, Empty, Permission.CONSUME, True),
        (15, "SEEK", Seek, Sought, Permission.CONSUME, True),
        (16, "OPEN_PRODUCER", OpenProducer, ProducerOpened, Permission.PRODUCE, True),
        (17, "RELEASE_CONSUMER", ReleaseConsumer, Empty, Permission.CONSUME, True),
    )
}
OP_OF_REQUEST: dict[type[Any], Operation] = {op.request: op for op in OPS.values() if op.request is not Empty}
HELLO, PING = OPS[1], OPS[2]
SUCCESS = 0
NO_CORRELATION = 0  # of frames that answer no request: the broker's ping, and the error before it closes

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
