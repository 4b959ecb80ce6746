"""What the golden vectors show: every operation both ways, every error, and the edges of each field."""

from struct import pack
from typing import Any, Literal, NamedTuple, TypeAlias

from rocksmq.protocol.administration import BackupBegun, StatusReported
from rocksmq.protocol.batch import pack_lengths
from rocksmq.protocol.cbor import Gathered
from rocksmq.protocol.codec import encode_error, encode_reply, encode_request
from rocksmq.protocol.columns import pack_numbers
from rocksmq.protocol.errors import (
    ERRORS,
    ErrorCode,
    OutOfSequence,
    Overloaded,
    ProtocolError,
    RocksMQError,
    UnsupportedVersion,
)
from rocksmq.protocol.messages import OutgoingMessage, pack_messages
from rocksmq.protocol.operations import (
    MAGIC,
    OPS,
    ChannelDescribed,
    ChannelsCreated,
    ChannelsDescribed,
    Created,
    Empty,
    GroupDescribed,
    HelloReply,
    ManyMessages,
    Messages,
    Names,
    Operation,
    Outcome,
    Position,
    Produced,
    ProducerOpened,
    Sought,
    SoughtMany,
)

Kind: TypeAlias = Literal["request", "reply", "error", "ping"]
U32_MAX = 2**32 - 1
U64_MAX = 2**64 - 1
FIRST_ID = 1_800_000_000_000 << 18
GENERATION = FIRST_ID + 77
REQUEST_ID = bytes(range(16))
CLIENT_ID = bytes(range(16, 32))
PRODUCER = (FIRST_ID - 5).to_bytes(8, "big") + bytes(range(32, 40))
CONSUMER = (FIRST_ID - 6).to_bytes(8, "big") + bytes(range(40, 48))
LONGEST_NAME = "a.b_c-9" + "z" * 193
LIMITS = {
    "payload_bytes_max": 1 << 20,
    "frame_bytes_max": 8 << 20,
    "batch_messages_max": 10_000,
    "consume_messages_max": 10_000,
    "consume_bytes_max": 7 << 20,
    "poll_ms_max": 30_000,
    "request_channels_max": 1_000,
}


class Case(NamedTuple):
    """One frame: ``value`` is a typed request or reply, an error, or None for the broker's ping."""

    name: str
    kind: Kind
    op: Operation | None
    correlation: int
    value: Any

    @property
    def file(self) -> str:
        """Name of the file that holds it."""
        return {"error": "error", "ping": "broker_ping"}.get(self.kind) or self.op_name.lower()

    @property
    def op_name(self) -> str:
        assert self.op is not None, "the frame belongs to an operation"
        return self.op.name

    @property
    def frame(self) -> bytes:
        """The frame's bytes as the code under test writes them."""
        if isinstance(self.value, RocksMQError):
            return b"".join(encode_error(self.correlation, self.value))
        if self.kind == "request":
            assert self.op is not None, "a request has an operation"
            return b"".join(encode_request(self.op, self.correlation, self.value))
        return b"".join(encode_reply(self.correlation, self.value or ()))


def _request(number: int, name: str, *value: object, correlation: int = 7) -> Case:
    op = OPS[number]
    return Case(name, "request", op, correlation, op.request(*value))


def _reply(number: int, name: str, value: object, correlation: int = 7) -> Case:
    return Case(name, "reply", OPS[number], correlation, value)


def _runs(*runs: tuple[int, int]) -> bytes:
    return b"".join(first.to_bytes(8, "little") + count.to_bytes(4, "little") for first, count in runs)


def _gathered(*parts: bytes) -> Gathered:
    return Gathered(parts, sum(map(len, parts)))


def _metadata(*parts: bytes) -> tuple[bytes, bytes]:
    """The columns metadata_lengths and metadata."""
    return pack_lengths(list(map(len, parts))), b"".join(parts)


def _parts(*parts: tuple[int, int, int, int, int]) -> bytes:
    return b"".join(pack("<IIIQQ", *part) for part in parts)


_NO_MESSAGES = (b"", 0, b"", b"", None, None)
_ONE = pack_messages([b"one"])
_MIXED = pack_messages([b"one", OutgoingMessage(b"two", {"k": b"\xff"}), b"", OutgoingMessage(b"", {"naïve": b"", "z": b"9"})])
_LARGE = pack_messages([bytes(range(256)) * 4, OutgoingMessage(b"small", {"h": b"\x00" * 1_024})])
_MERGED = Messages(
    FIRST_ID + 1_002,
    6,
    GENERATION,
    None,
    _runs((FIRST_ID, 1), (FIRST_ID + 500, 4), (FIRST_ID + 1_001, 1)),
    6,
    _gathered(bytes(_ONE.lengths), bytes(_MIXED.lengths), bytes(_ONE.lengths)),
    _gathered(bytes(_ONE.payloads), bytes(_MIXED.payloads), bytes(_ONE.payloads)),
    _gathered(bytes(4), bytes(_MIXED.header_lengths or b""), bytes(4)),
    _gathered(bytes(_MIXED.headers or b"")),
)

_CONNECTION = (
    _request(1, "without a token", MAGIC, 1, 1, "host:123", CLIENT_ID, None, correlation=1),
    _request(1, "with a token and a wide window", MAGIC, 1, U32_MAX, "ü", CLIENT_ID, "s3cret", correlation=1),
    _reply(1, "version 1 with the default limits", HelloReply(1, "rocksmqd/0.1.0", "fsync", LIMITS, FIRST_ID), 1),
    _reply(1, "largest numbers", HelloReply(U32_MAX, "", "interval:60000", {}, U64_MAX), U32_MAX),
    _request(2, "the smallest correlation id", correlation=1),
    _request(2, "the largest correlation id", correlation=U32_MAX),
    _reply(2, "no fields", Empty()),
    Case("the broker asks whether the client is there", "ping", None, 0, None),
)
_CHANNELS = (
    _request(3, "all defaults", "orders", None, None, None, REQUEST_ID),
    _request(3, "everything set", LONGEST_NAME, "interval:100", {}, ["proxy", "10.0.0.1:1", "größe"], REQUEST_ID),
    _reply(3, "made", Created(True)),
    _reply(3, "was there", Created(False)),
    _request(4, "by number", "orders", U64_MAX),
    _reply(4, "gone", Empty()),
    _request(5, "the first page of all", "", ""),
    _request(5, "a further page of a prefix", "ord", "orders-7"),
    _reply(5, "no channels", Names([], False)),
    _reply(5, "a page with more behind it", Names(["orders", "orders.dead"], True)),
    _request(6, "by name", "orders"),
    _reply(
        6,
        "with messages, an owner and retention",
        ChannelDescribed(
            FIRST_ID,
            ["proxy", "", ""],
            1_800_000_000_000,
            *(FIRST_ID, U64_MAX, 3, 1 << 40),
            "os",
            {"max_bytes": 1 << 33, "consumed_by_all": 1},
            False,
            ["billing", FIRST_ID, 1 << 39],
            True,
        ),
    ),
    _reply(6, "never written", ChannelDescribed(1, None, 0, 1, 0, 0, 0, "fsync", {}, True, None, False)),
)
_GROUPS = (
    _request(7, "from an id", "orders", "billing", Position.ID, FIRST_ID, REQUEST_ID),
    _request(7, "from the earliest", "orders", "billing", Position.EARLIEST, 0, REQUEST_ID),
    _request(7, "from the latest", "orders", "billing", Position.LATEST, 0, REQUEST_ID),
    _request(7, "from a time", "orders", "billing", Position.TIME_MS, 1_800_000_000_000, REQUEST_ID),
    _reply(7, "made", Created(True)),
    _reply(7, "was there", Created(False)),
    _request(8, "by creation id", "orders", "billing", GENERATION),
    _reply(8, "gone", Empty()),
    _request(9, "the first page", "orders", ""),
    _request(9, "a further page", "orders", "billing"),
    _reply(9, "one group", Names(["billing"], False)),
    _request(10, "by name", "orders", "billing"),
    _reply(10, "behind, with metadata", GroupDescribed(GENERATION, FIRST_ID, 12, 3_500, GENERATION, b"\x00\xff")),
    _reply(10, "nothing to read", GroupDescribed(GENERATION, U64_MAX, 0, 0, GENERATION, b"")),
)
_PRODUCING = (
    _request(11, "one message", "orders", PRODUCER, 0, *_ONE, None),
    _request(11, "headers on some, and empty payloads", "orders", PRODUCER, 15, *_MIXED, None),
    _request(11, "columns of 1,024 bytes and more", "orders", PRODUCER, U64_MAX, *_LARGE, None),
    _request(11, "one message with its sequence", "orders", PRODUCER, 0, *_ONE, [0, 0]),
    _request(11, "sequences with a hole, the largest", "orders", PRODUCER, 1, *_MIXED, [41, U64_MAX]),
    _request(11, "sequences of bytes, the shortest and the longest", "orders", PRODUCER, 2, *_LARGE, [b"", b"\xff" * 32]),
    _reply(11, "the first id", Produced(FIRST_ID)),
    _reply(11, "the largest id", Produced(U64_MAX)),
    _reply(11, "stored before under these sequences", Produced(None)),
    _request(16, "a short name", "orders", "importer", PRODUCER),
    _request(16, "the longest names", LONGEST_NAME, LONGEST_NAME, PRODUCER),
    _reply(16, "nothing stored yet", ProducerOpened(None)),
    _reply(16, "the first sequence", ProducerOpened(0)),
    _reply(16, "the largest sequence", ProducerOpened(U64_MAX)),
    _reply(16, "the shortest sequence of bytes", ProducerOpened(b"")),
    _reply(16, "the longest sequence of bytes", ProducerOpened(bytes(range(32)))),
)
_READING = (
    _request(12, "poll for one message", "orders", "billing", CONSUMER, 0, 1, 1, 0),
    _request(12, "largest numbers", "orders", "billing", CONSUMER, U64_MAX, U32_MAX, U32_MAX, U32_MAX),
    _reply(12, "nothing came", Messages(FIRST_ID, None, GENERATION, None, *_NO_MESSAGES)),
    _reply(12, "one run", Messages(FIRST_ID + 1, 1, GENERATION, None, _runs((FIRST_ID, 1)), *_ONE)),
    _reply(12, "three runs, headers in the middle one", _MERGED),
    _reply(12, "large columns", Messages(FIRST_ID + 2, 2, GENERATION, None, _runs((FIRST_ID, 2)), *_LARGE)),
    _reply(
        12,
        "behind a gap of 40 messages",
        Messages(FIRST_ID + 51, 51, GENERATION, [FIRST_ID, FIRST_ID + 50, 40], _runs((FIRST_ID + 50, 1)), *_ONE),
    ),
    _reply(12, "the largest id", Messages(U64_MAX, U64_MAX, U64_MAX, None, _runs((U64_MAX - 1, 1)), *_ONE)),
    _request(13, "from an id", "orders", Position.ID, FIRST_ID, 1_000, 1 << 20, 30_000),
    _request(13, "from the earliest", "orders", Position.EARLIEST, 0, 1_000, 1 << 20, 0),
    _request(13, "from the latest", "orders", Position.LATEST, 0, 1_000, 1 << 20, 30_000),
    _request(13, "from a time", "orders", Position.TIME_MS, U64_MAX, 1_000, 1 << 20, 0),
    _reply(13, "nothing came", Messages(FIRST_ID, 51, 0, None, *_NO_MESSAGES)),
    _reply(
        13,
        "behind a gap of unknown size",
        Messages(FIRST_ID + 51, 51, 0, [1, FIRST_ID + 50, None], _runs((FIRST_ID + 50, 1)), *_ONE),
    ),
    _request(14, "in any generation", "orders", "billing", FIRST_ID + 1, None, b""),
    _request(14, "in one generation, with the most metadata", "orders", "billing", U64_MAX, GENERATION, bytes(256)),
    _reply(14, "moved, or not needed", Empty()),
    _request(15, "to an id", "orders", "billing", Position.ID, FIRST_ID, REQUEST_ID),
    _request(15, "to the earliest", "orders", "billing", Position.EARLIEST, 0, REQUEST_ID),
    _request(15, "to the latest", "orders", "billing", Position.LATEST, 0, REQUEST_ID),
    _request(15, "to a time", "orders", "billing", Position.TIME_MS, 1_800_000_000_000, REQUEST_ID),
    _request(15, "to where the group stands", "orders", "billing", Position.CURRENT, 0, REQUEST_ID),
    *(_reply(15, f"outcome {outcome.name.lower()}", Sought(FIRST_ID, 3, outcome, GENERATION)) for outcome in Outcome),
    _request(17, "nothing of the last consume reached the user", "orders", "billing", CONSUMER, 0, 0, 0),
    _request(17, "all but the messages from an id on", "orders", "billing", CONSUMER, 7, FIRST_ID, 3),
    _request(17, "everything, the largest numbers", "orders", "billing", CONSUMER, U64_MAX, U64_MAX, U32_MAX),
    _reply(17, "over", Empty()),
)
_OWNER = ["proxy", "10.0.0.1:1", "größe"]
_TWO = pack_numbers([1, 772])
_SERVICE = (
    _request(18, "two channels", _OWNER, 2, REQUEST_ID),
    _request(18, "the largest count of the shortest role", ["0", "", ""], U32_MAX, REQUEST_ID),
    _reply(18, "two names", ChannelsCreated([f"proxy-{REQUEST_ID.hex()}-{i}" for i in range(2)])),
    _request(19, "two channels", ["orders", LONGEST_NAME], _TWO),
    _request(19, "the largest number", ["orders"], pack_numbers([U64_MAX])),
    _reply(19, "gone", Empty()),
    _request(20, "one of them twice", ["orders", LONGEST_NAME, "orders"]),
    _reply(
        20,
        "with an owner, unknown, and without an owner",
        ChannelsDescribed(pack_numbers([1, 0, U64_MAX]), [_OWNER, None, None]),
    ),
)
_STREAMS = (
    _request(21, "two channels from the earliest", "billing", _TWO, Position.EARLIEST, 0, REQUEST_ID),
    _request(21, "from an id", "billing", pack_numbers([U64_MAX]), Position.ID, FIRST_ID, REQUEST_ID),
    _request(21, "from the latest", "billing", _TWO, Position.LATEST, 0, REQUEST_ID),
    _request(21, "from a time", "billing", _TWO, Position.TIME_MS, 1_800_000_000_000, REQUEST_ID),
    _reply(21, "subscribed", Empty()),
    _request(22, "opening: whatever generation, no positions", "billing", _TWO, None, None, None, None, REQUEST_ID),
    _request(
        22,
        "in given generations to the beginning and to an id",
        "billing",
        _TWO,
        pack_numbers([GENERATION, GENERATION + 1]),
        pack_numbers([0, FIRST_ID]),
        *_metadata(b"", b"hi"),
        REQUEST_ID,
    ),
    _request(
        22, "the most metadata", "billing", pack_numbers([1]), None, pack_numbers([U64_MAX]), *_metadata(bytes(256)), REQUEST_ID
    ),
    _reply(
        22,
        "positions, generations and metadata of two",
        SoughtMany(
            pack_numbers([FIRST_ID, U64_MAX]),
            pack_numbers([0, 3]),
            pack_numbers([GENERATION, GENERATION]),
            *_metadata(b"hi", b""),
        ),
    ),
    _request(23, "two channels", pack_numbers([1, 0, 2, 5]), 1_000, 1 << 20, 30_000),
    _request(23, "poll for one message, the largest number and start", pack_numbers([U64_MAX, U64_MAX]), 1, 1, 0),
    _reply(23, "nothing came", ManyMessages(b"", [], *_NO_MESSAGES)),
    _reply(
        23,
        "two messages of the second channel",
        ManyMessages(_parts((1, 1, 2, 7, 4)), [], _runs((5, 2)), *pack_messages([b"one", b"two"])),
    ),
    _reply(
        23,
        "three runs of two channels, headers in one of them",
        ManyMessages(
            _parts((0, 1, 4, FIRST_ID + 504, 504), (7, 2, 2, FIRST_ID + 10, 2)),
            [],
            _runs((FIRST_ID + 500, 4), (FIRST_ID, 1), (FIRST_ID + 9, 1)),
            6,
            _gathered(bytes(_MIXED.lengths), bytes(_ONE.lengths) * 2),
            _gathered(bytes(_MIXED.payloads), bytes(_ONE.payloads) * 2),
            _gathered(bytes(_MIXED.header_lengths or b""), bytes(8)),
            _gathered(bytes(_MIXED.headers or b"")),
        ),
    ),
    _reply(
        23,
        "gaps, one of unknown size without messages behind it",
        ManyMessages(
            _parts((0, 1, 1, FIRST_ID + 51, 51), (1, 0, 0, U64_MAX, 7)),
            [[0, FIRST_ID, FIRST_ID + 50, 40], [1, 1, U64_MAX, None]],
            _runs((FIRST_ID + 50, 1)),
            *_ONE,
        ),
    ),
    _request(
        24, "two channels", "billing", _TWO, pack_numbers([GENERATION] * 2), pack_numbers([0, U64_MAX]), *_metadata(b"hi", b"")
    ),
    _reply(24, "moved, or not needed", Empty()),
    _request(25, "two channels", "billing", _TWO, pack_numbers([GENERATION, U64_MAX])),
    _reply(25, "gone", Empty()),
)
_METRICS = b"""# HELP rocksmq_channels Channels.
# TYPE rocksmq_channels gauge
rocksmq_channels 1
# HELP rocksmq_channel_messages Messages kept.
# TYPE rocksmq_channel_messages gauge
rocksmq_channel_messages{channel="orders"} 7
"""
_STATUS = (
    _request(26, "of the broker", ""),
    _request(26, "with a channel's series", LONGEST_NAME),
    _reply(26, "ready, with a few metrics", StatusReported(True, [], _METRICS)),
    _reply(
        26,
        "not ready, two problems",
        StatusReported(False, ["disk: größer als frei", "meta: etcd does not answer"], _gathered(_METRICS, b"# more\n" * 200)),
    ),
    _reply(26, "no metrics", StatusReported(True, [], b"")),
    _request(27, "every rule", "orders", {"max_age_ms": 1, "max_bytes": U64_MAX, "max_messages": 1, "consumed_by_all": 1}),
    _request(27, "no rule", LONGEST_NAME, {}),
    _request(27, "the broker's rules", "orders", None),
    _reply(27, "set", Empty()),
    _request(28, "it is right"),
    _reply(28, "confirmed", Empty()),
)
_BACKUP = (
    _request(29, "a backup", REQUEST_ID),
    _reply(29, "made", BackupBegun("/var/lib/rocksmq/checkpoint-5eed", "0123456789abcdef" * 2, 1_234, 60_000)),
    _reply(29, "largest numbers, a path of many bytes", BackupBegun("/größe/" + "x" * 4_000, "", U64_MAX, U64_MAX)),
    _request(30, "the same", REQUEST_ID),
    _reply(30, "removed", Empty()),
)
_ERRORS = (
    *(
        Case(f"code {code.name}", "error", None, 7, ERRORS[code](f"what is wrong, and what to do about {code.name}"))
        for code in ErrorCode
        if code < ErrorCode.CONNECTION_FAILED
    ),
    Case("wait 100 ms", "error", OPS[11], 7, Overloaded("too much waits to be written", retry_after=0.1)),
    Case(
        "the expected number",
        "error",
        OPS[11],
        U32_MAX,
        OutOfSequence("batch 9 is not the next", expected_number=U64_MAX, present_id=FIRST_ID),
    ),
    Case("an unknown identity", "error", OPS[12], 7, OutOfSequence("consume 3 is of nobody", present_id=FIRST_ID)),
    Case("the versions do not meet", "error", OPS[1], 1, UnsupportedVersion("versions 1 to 1, and 2 to 3")),
    Case("the broker closes the connection", "error", None, 0, ProtocolError("a frame is one CBOR array")),
)
CASES: tuple[Case, ...] = (
    *_CONNECTION,
    *_CHANNELS,
    *_GROUPS,
    *_PRODUCING,
    *_READING,
    *_SERVICE,
    *_STREAMS,
    *_STATUS,
    *_BACKUP,
    *_ERRORS,
)
