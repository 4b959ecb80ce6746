"""The one table of operations (SPEC §3): number, name, request, reply, permission and on what, idempotent.

Dispatch, the codec, metrics labels, permissions, the CDDL check and the docs all derive from
`OPS`. A request or reply is a NamedTuple; each field's wire type stands in its
annotation; `codec` refuses whatever does not match.
"""

from enum import IntEnum
from typing import Any, NamedTuple

from .administration import (
    BackupBegin,
    BackupBegun,
    BackupEnd,
    ConfirmClock,
    SetChannel,
    Status,
    StatusReported,
)
from .batch import RecordBatch
from .cbor import Gathered
from .permissions import Permission, Scope
from .wire import (
    U32,
    U64,
    Bytes,
    Column,
    Flag,
    GapRange,
    GapRanges,
    HeldSpace,
    Id,
    Limits,
    Milliseconds,
    OutcomeKind,
    Owner,
    Owners,
    PositionKind,
    Retention,
    SeekKind,
    SequenceNumber,
    SequenceRange,
    Text,
    Texts,
)

MAGIC = "RocksMQ"
VERSION_MIN = VERSION_MAX = 1
POLL_MS_MAX = 30_000
METADATA_BYTES_MAX = 256
REQUEST_CHANNELS_MAX = 1_000  # the owners of more would not fit into the items of a frame
STATUS_LINES_MAX = 100_000  # of metrics in a reply: a reader makes some 300 bytes of each
STATUS_ROOM_BYTES = 65_536  # that these leave in a frame for the other fields
OWNER_BYTES_MAX = 12_400  # of a channel in the reply to DESCRIBE_CHANNELS: three texts, their heads, its number


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
    """``end_id`` outlives the messages; ``begin_id`` is ``end_id + 1`` when there are none.

    ``retention`` is what is in force, of the broker's if the channel ``has_default``. ``held``: the group without which more
    could be removed, the id from which on it keeps messages, and their bytes. ``is_age_suspended``: no message is removed
    for its age, as the clock is in doubt.
    """

    number: U64
    owner: Owner | None
    created_ms: Milliseconds
    begin_id: U64
    end_id: U64
    message_count: U64
    byte_count: U64
    durability: Text
    retention: Retention
    has_default: Flag
    held: HeldSpace | None
    is_age_suspended: Flag


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
    """One merged batch. ``runs``: for each stretch of contiguous ids first_id u64, count u32, little-endian.

    ``next_offset``: messages ever appended to the channel before ``next_position``; None: not known, without messages.
    """

    next_position: U64
    next_offset: U64 | None
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
    """``offset``: messages ever appended to the channel before ``position``."""

    position: U64
    offset: U64
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
    """Ends the use of a consumer id; of consume ``number`` the messages from ``position`` on are given back.

    ``message_count``: how many these are; 0 with ``position`` 0, which is all of them.
    """

    channel: Text
    group: Text
    consumer: Id
    number: U64
    position: U64
    message_count: U32


class CreateChannels(NamedTuple):
    """All or none. Their names are made of the owner's role and ``request_id``, so that a repeat makes no more of them."""

    owner: Owner
    channel_count: U32
    request_id: Id


class ChannelsCreated(NamedTuple):
    names: Texts


class DestroyChannels(NamedTuple):
    """All or none. ``numbers``, u64 each, are what DESCRIBE_CHANNELS gave just before; those that are gone are done."""

    channels: Texts
    numbers: Column


class DescribeChannels(NamedTuple):
    channels: Texts


class ChannelsDescribed(NamedTuple):
    """In the order of the request. ``numbers``: u64 each, 0 for one that does not exist."""

    numbers: Column
    owners: Owners


class Subscribe(NamedTuple):
    """Creates the group on each of the channels that have none of its name: all or none. ``numbers``: u64 each."""

    group: Text
    numbers: Column
    start_kind: PositionKind
    start: U64
    request_id: Id


class SeekMany(NamedTuple):
    """One new generation for the group on each of the channels: all or none.

    ``generations``: u64 each, in which they must be; null: whatever they are in. ``positions``: u64 each, and
    ``metadata``, gathered, with ``metadata_lengths`` u32 each; null, all three: they stay where they are.
    ``request_id`` is kept as by SEEK.
    """

    group: Text
    numbers: Column
    generations: Column | None
    positions: Column | None
    metadata_lengths: Column | None
    metadata: Column | None
    request_id: Id


class SoughtMany(NamedTuple):
    """In the order of the request: u64 each, and the metadata of each with u32 lengths.

    ``offsets``: messages ever appended to the channel before the position.
    """

    positions: Column
    offsets: Column
    generations: Column
    metadata_lengths: Column
    metadata: Column


class FetchMany(NamedTuple):
    """``starts``: for each channel its number u64 and the id to read from u64."""

    starts: Column
    max_messages: U32
    max_bytes: U32
    wait_ms: U32


class ManyMessages(NamedTuple):
    """One merged batch over several channels.

    ``parts``: for each channel with messages or a gap its index in the request u32, how many runs u32 and messages u32 are its
    own, where to go on, u64, and how many messages were ever appended before that, u64. ``gaps``: index, from id, to id, count
    or null.
    """

    parts: Column
    gaps: GapRanges
    runs: Column
    message_count: U32
    lengths: Column | Gathered
    payloads: Column | Gathered
    header_lengths: Column | Gathered | None
    headers: Column | Gathered | None


class CommitMany(NamedTuple):
    """COMMIT on several channels: all or none. Columns as in SEEK_MANY; all have a generation."""

    group: Text
    numbers: Column
    generations: Column
    positions: Column
    metadata_lengths: Column
    metadata: Column


class Unsubscribe(NamedTuple):
    """Destroys the group on each of the channels, where it is in that generation: all or none; what is gone is done."""

    group: Text
    numbers: Column
    generations: Column


class Operation(NamedTuple):
    """One row of OPS. ``idempotent``: the same request sent again does no more than the first did."""

    number: int
    name: str
    request: type[Any]
    reply: type[Any]
    permission: Permission
    scope: Scope
    idempotent: bool


OPS: dict[int, Operation] = {
    row[0]: Operation(*row)
    for row in (
        (1, "HELLO", Hello, HelloReply, Permission.CONNECT, Scope.NONE, True),
        (2, "PING", Empty, Empty, Permission.CONNECT, Scope.NONE, True),
        (3, "CREATE_CHANNEL", CreateChannel, Created, Permission.ADMIN, Scope.CHANNEL, True),
        (4, "DESTROY_CHANNEL", DestroyChannel, Empty, Permission.ADMIN, Scope.CHANNEL, True),
        (5, "LIST_CHANNELS", ListChannels, Names, Permission.DESCRIBE, Scope.LISTED, True),
        (6, "DESCRIBE_CHANNEL", DescribeChannel, ChannelDescribed, Permission.DESCRIBE, Scope.CHANNEL, True),
        (7, "CREATE_GROUP", CreateGroup, Created, Permission.CONSUME, Scope.CHANNEL, True),
        (8, "DESTROY_GROUP", DestroyGroup, Empty, Permission.CONSUME, Scope.CHANNEL, True),
        (9, "LIST_GROUPS", ListGroups, Names, Permission.DESCRIBE, Scope.CHANNEL, True),
        (10, "DESCRIBE_GROUP", DescribeGroup, GroupDescribed, Permission.DESCRIBE, Scope.CHANNEL, True),
        (11, "PRODUCE", Produce, Produced, Permission.PRODUCE, Scope.CHANNEL, True),
        (12, "CONSUME", Consume, Messages, Permission.CONSUME, Scope.CHANNEL, True),
        (13, "FETCH", Fetch, Messages, Permission.CONSUME, Scope.CHANNEL, True),
        (14, "COMMIT", Commit, Empty, Permission.CONSUME, Scope.CHANNEL, True),
        (15, "SEEK", Seek, Sought, Permission.CONSUME, Scope.CHANNEL, True),
        (16, "OPEN_PRODUCER", OpenProducer, ProducerOpened, Permission.PRODUCE, Scope.CHANNEL, True),
        (17, "RELEASE_CONSUMER", ReleaseConsumer, Empty, Permission.CONSUME, Scope.CHANNEL, True),
        (18, "CREATE_CHANNELS", CreateChannels, ChannelsCreated, Permission.ADMIN, Scope.MADE, True),
        (19, "DESTROY_CHANNELS", DestroyChannels, Empty, Permission.ADMIN, Scope.CHANNELS, True),
        (20, "DESCRIBE_CHANNELS", DescribeChannels, ChannelsDescribed, Permission.DESCRIBE, Scope.CHANNELS, True),
        (21, "SUBSCRIBE", Subscribe, Empty, Permission.CONSUME, Scope.NUMBERS, True),
        (22, "SEEK_MANY", SeekMany, SoughtMany, Permission.CONSUME, Scope.NUMBERS, True),
        (23, "FETCH_MANY", FetchMany, ManyMessages, Permission.CONSUME, Scope.STARTS, True),
        (24, "COMMIT_MANY", CommitMany, Empty, Permission.CONSUME, Scope.NUMBERS, True),
        (25, "UNSUBSCRIBE", Unsubscribe, Empty, Permission.CONSUME, Scope.NUMBERS, True),
        (26, "STATUS", Status, StatusReported, Permission.DESCRIBE, Scope.ALL, True),
        (27, "SET_CHANNEL", SetChannel, Empty, Permission.ADMIN, Scope.CHANNEL, True),
        (28, "CONFIRM_CLOCK", ConfirmClock, Empty, Permission.ADMIN, Scope.ALL, True),
        (29, "BACKUP_BEGIN", BackupBegin, BackupBegun, Permission.ADMIN, Scope.ALL, True),
        (30, "BACKUP_END", BackupEnd, Empty, Permission.ADMIN, Scope.ALL, True),
    )
}
OP_OF_REQUEST: dict[type[Any], Operation] = {op.request: op for op in OPS.values() if op.request is not Empty}
HELLO, PING = OPS[1], OPS[2]
