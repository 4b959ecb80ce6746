"""Messages as users see them: what goes in, and what comes out, built lazily from columns.

Shared by the client and the in-process engine. A `MessageBatch` keeps the columns of the
reply; messages, ids and headers are made when they are asked for.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import copy
from datetime import UTC, datetime, timedelta
from itertools import accumulate, chain, pairwise
from struct import Struct
from typing import NamedTuple, TypeAlias, cast, overload

from .batch import RecordBatch, decode_headers, encode_headers, pack_lengths, unpack_lengths
from .cbor import Buffer, Gathered
from .errors import InvalidRequest, ProtocolError
from .operations import Messages, Position

_RUN = Struct("<QI")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
ID_TIME_BITS = 18


class OutgoingMessage(NamedTuple):
    """A message to produce: ``payload`` is bytes-like and kept exactly, ``headers`` text -> bytes."""

    payload: Buffer
    headers: Mapping[str, bytes] | None = None


Outgoing: TypeAlias = Buffer | OutgoingMessage


class Message(NamedTuple):
    """A message that was read."""

    id: int
    payload: bytes
    headers: dict[str, bytes]

    @property
    def timestamp(self) -> datetime:
        """When the broker took it, UTC, to the millisecond."""
        return timestamp_of(self.id)


class Gap(NamedTuple):
    """Messages ``from_id`` up to, not including, ``to_id`` that retention removed before this reader read them.

    ``message_count`` is exact; None only for a fetch from an arbitrary id.
    """

    from_id: int
    to_id: int
    message_count: int | None


def timestamp_of(message_id: int) -> datetime:
    """When the id was given out, UTC, to the millisecond."""
    return _EPOCH + timedelta(milliseconds=message_id >> ID_TIME_BITS)


def milliseconds_of(moment: datetime) -> int:
    """Milliseconds since 1970 of the first timestamp at or after ``moment``. Raises InvalidRequest for a naive one."""
    if moment.tzinfo is None or moment.utcoffset() is None:
        raise InvalidRequest("a datetime needs a time zone, for example datetime.now(timezone.utc)")
    return max(0, -((_EPOCH - moment) // timedelta(milliseconds=1)))


Start: TypeAlias = int | str | datetime


def start_of(start: Start) -> tuple[Position, int]:
    """Kind and value on the wire of ``"earliest"``, ``"latest"``, an id, or an aware datetime. Raises InvalidRequest."""
    if start == "earliest":
        return Position.EARLIEST, 0
    if start == "latest":
        return Position.LATEST, 0
    if isinstance(start, datetime):
        return Position.TIME_MS, milliseconds_of(start)
    if isinstance(start, int) and not isinstance(start, bool) and 0 <= start < 1 << 64:
        return Position.ID, start
    raise InvalidRequest(f"{start!r} is no position: give 'earliest', 'latest', an id, or a datetime with a time zone")


# A message ready to be packed: its payload alone, or with its headers as encode_headers gives them.
Encoded: TypeAlias = bytes | tuple[bytes, bytes]


def pack_messages(messages: Iterable[Outgoing], headers: Mapping[str, bytes] | None = None) -> RecordBatch:
    """The columns of ``messages``; ``headers`` go on each that has none of its own.

    Raises TypeError for a payload that is not bytes-like, InvalidRequest, LimitExceeded or MessageTooLarge for headers.
    """
    sent: Sequence[Outgoing] = messages if isinstance(messages, (list, tuple)) else list(messages)
    if set(map(type, sent)) <= {bytes} and not headers:
        return columns_of(cast(Sequence[bytes], sent))
    common = encode_headers(headers) if headers else b""
    return columns_of([_encoded(message, common) for message in sent])


def columns_of(messages: Sequence[Encoded]) -> RecordBatch:
    """The columns of messages that were checked and encoded before."""
    if set(map(type, messages)) <= {bytes}:
        payloads = cast(Sequence[bytes], messages)
        return RecordBatch(len(payloads), pack_lengths(list(map(len, payloads))), b"".join(payloads), None, None)
    pairs = [(message, b"") if isinstance(message, bytes) else message for message in messages]
    plain = RecordBatch(
        len(pairs), pack_lengths([len(payload) for payload, _ in pairs]), b"".join([p for p, _ in pairs]), None, None
    )
    if not any(encoded for _, encoded in pairs):
        return plain
    lengths = pack_lengths([len(encoded) for _, encoded in pairs])
    return plain._replace(header_lengths=lengths, headers=b"".join([encoded for _, encoded in pairs]))


def outgoing_of(message: Encoded) -> OutgoingMessage:
    """The message that was encoded."""
    if isinstance(message, bytes):
        return OutgoingMessage(message)
    return OutgoingMessage(message[0], decode_headers(message[1]))


def _encoded(message: Outgoing, common: bytes) -> Encoded:
    if not isinstance(message, OutgoingMessage):
        return payload_of(message), common
    return payload_of(message.payload), common if message.headers is None else encode_headers(message.headers)


def payload_of(payload: Buffer) -> bytes:
    """A payload as bytes of its own. Raises TypeError when it is not bytes-like."""
    if isinstance(payload, bytes):
        return payload
    try:
        return memoryview(payload).tobytes()
    except TypeError:
        how = ": encode text first, for example text.encode()" if isinstance(payload, str) else ""
        raise TypeError(f"a payload is bytes-like, not {type(payload).__name__}{how}") from None


class MessageBatch(Sequence[Message]):
    """Messages in order of their ids, with the columns they came in.

    ``next_position`` is the id to read from next, ``next_offset`` how many messages were ever appended before that (None: not
    known, without messages), ``generation`` the group's (0 for a fetch), ``gap`` what retention removed before them. Slices and
    single messages are built when asked for.
    """

    __slots__ = (
        *("_header_lengths", "_headers", "_ids", "_payloads", "_runs"),
        *("gap", "generation", "next_offset", "next_position"),
    )

    def __init__(self, reply: Messages) -> None:
        """From a reply that owns its columns. Raises ProtocolError when they do not add up."""
        self.next_position = reply.next_position
        self.next_offset = reply.next_offset
        self.generation = reply.generation
        self.gap = None if reply.gap is None else Gap(*reply.gap)
        self._payloads = _split(_whole(reply.lengths), _whole(reply.payloads), reply.message_count)
        if len(reply.runs) % _RUN.size:
            raise ProtocolError("a reply's runs are cut off")
        self._runs = [(first, count) for first, count in _RUN.iter_unpack(reply.runs)]
        self._header_lengths = None if reply.header_lengths is None else _whole(reply.header_lengths)
        self._headers: bytes | list[bytes] | None = None if reply.headers is None else _whole(reply.headers)
        self._ids: Sequence[int] | None = None
        if (self._headers is None) != (self._header_lengths is None):
            raise ProtocolError("a reply's headers come without their lengths, or those without them")
        if sum(count for _, count in self._runs) != reply.message_count:
            raise ProtocolError("a reply's ids do not add up to its messages")

    @classmethod
    def empty(cls, next_position: int = 0, generation: int = 0) -> "MessageBatch":
        """One without messages."""
        return cls(Messages(next_position, None, generation, None, b"", 0, b"", b"", None, None))

    @property
    def payloads(self) -> list[bytes]:
        """All payloads, in order."""
        return self._payloads

    @property
    def ids(self) -> Sequence[int]:
        """All ids, in order."""
        if self._ids is None:
            runs = [range(first, first + count) for first, count in self._runs]
            self._ids = runs[0] if len(runs) == 1 else list(chain.from_iterable(runs))
        return self._ids

    def part(self, start: int, stop: int) -> "MessageBatch":
        """Messages ``start`` up to, not including, ``stop``, as a batch; its ``next_position`` is that of what follows."""
        part = copy(self)
        part._payloads = self._payloads[start:stop]
        part._ids = self.ids[start:stop]
        headers = self._split_headers()
        part._headers = None if headers is None else headers[start:stop]
        part.gap = self.gap if start == 0 else None
        if stop < len(self):
            part.next_position = self.ids[stop]
            part.next_offset = None if self.next_offset is None else self.next_offset - len(self) + stop
        return part

    def headers_of(self, index: int) -> dict[str, bytes]:
        """Headers of message ``index``. Raises ProtocolError when the sender's headers cannot be decoded."""
        headers = self._split_headers()
        return {} if headers is None else decode_headers(headers[index])

    @property
    def encoded_headers(self) -> list[bytes] | None:
        """Each message's headers as the sender packed them; None: no message has any."""
        return self._split_headers()

    def _split_headers(self) -> list[bytes] | None:
        if isinstance(self._headers, bytes) and self._header_lengths is not None:
            self._headers = _split(self._header_lengths, self._headers, len(self))
        assert not isinstance(self._headers, bytes), "headers come with their lengths"
        return self._headers

    def __len__(self) -> int:
        return len(self._payloads)

    @overload
    def __getitem__(self, index: int) -> Message: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Message]: ...
    def __getitem__(self, index: int | slice) -> Message | Sequence[Message]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return Message(self.ids[index], self._payloads[index], {} if self._headers is None else self.headers_of(index))

    def __iter__(self) -> Iterator[Message]:
        if self._headers is None:
            for message_id, payload in zip(self.ids, self._payloads, strict=True):
                yield Message(message_id, payload, {})
        else:
            for index in range(len(self)):
                yield self[index]

    def __repr__(self) -> str:
        return f"<MessageBatch of {len(self)} messages, next_position {self.next_position}>"


def _whole(column: Buffer | Gathered) -> bytes:
    if isinstance(column, Gathered):
        return b"".join(column.parts)
    return bytes(column)


def _split(lengths: bytes, content: bytes, count: int) -> list[bytes]:
    if len(lengths) != count * 4:
        raise ProtocolError("a reply's lengths do not add up to its messages")
    sizes = unpack_lengths(lengths)
    if sum(sizes) != len(content):
        raise ProtocolError("a reply's lengths do not add up to its bytes")
    return [content[begin:end] for begin, end in pairwise(accumulate(sizes, initial=0))]
