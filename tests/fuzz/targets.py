"""What reads bytes of strangers, each as a function of bytes. Pure, but for `http`, which runs a loop of its own.

The invariant of all of them: any bytes lead to a valid value or to the error that the function documents, in bounded memory and
time; nothing else. A valid value, sent again, is read as the same. Whatever a target raises is a finding.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import cycle
from typing import Any, cast

import cbor2
import trio
from trio.testing import MockClock, memory_stream_pair

from rocksmq.broker.auth import EVERYBODY
from rocksmq.broker.connection import Connection
from rocksmq.broker.core import Core
from rocksmq.broker.fair_queue import FairQueue
from rocksmq.broker.gate import Gate
from rocksmq.broker.limits import Limits
from rocksmq.broker.session import Session
from rocksmq.clients.many import cut
from rocksmq.metrics.http import TEXT, Exchange, HttpLimits, Request, Response, Route
from rocksmq.protocol.batch import RecordBatch, decode_headers, encode_headers
from rocksmq.protocol.cbor import decode, encode_frame
from rocksmq.protocol.codec import SUCCESS, decode_error, decode_reply, decode_request, encode_request
from rocksmq.protocol.errors import (
    InvalidRequest,
    LimitExceeded,
    MessageTooLarge,
    ProtocolError,
    Unauthenticated,
    UnsupportedVersion,
)
from rocksmq.protocol.frames import BUFFER_BYTES_MIN, FrameDecoder
from rocksmq.protocol.messages import MessageBatch
from rocksmq.protocol.operations import OPS, ManyMessages, Messages, Produce

Target = Callable[[bytes], None]

FRAME_BYTES_MAX = 1 << 16
GROWTH_FACTOR = 4  # of the receive buffer, over what was received
LIMITS = Limits()
HTTP_LIMITS = HttpLimits()
CHANNELS_ASKED = 16


def frames(data: bytes) -> None:
    """`FrameDecoder`: in pieces as the first bytes say, the same bodies as in one, and a buffer by what was received."""
    sizes, data = data[:4] or b"\1", data[4:]
    whole, pieces = _bodies(data, b"\xff"), _bodies(data, sizes)
    assert whole == pieces, "how the bytes arrive makes a difference"


def _bodies(data: bytes, sizes: bytes) -> tuple[list[bytes], bool]:
    """The bodies in ``data``, that come in pieces of these sizes again and again; whether it ended in a ProtocolError."""
    decoder, bodies, received = FrameDecoder(FRAME_BYTES_MAX), list[bytes](), 0
    for size in cycle(sizes):
        if not data:
            return bodies, False
        space = decoder.space()
        count = min(len(data), len(space), size + 1)
        space[:count] = data[:count]
        decoder.received(count)
        data = data[count:]
        received += count
        assert decoder.buffer_bytes <= max(BUFFER_BYTES_MIN, GROWTH_FACTOR * received), "it hoards"
        try:
            while (body := decoder.next_frame()) is not None:
                bodies.append(bytes(body))
        except ProtocolError:
            return bodies, True
    raise AssertionError("a cycle has no end")


def cbor(data: bytes) -> None:
    """`decode`: what it takes, cbor2 reads as the same, and it comes back from `encode_frame` unchanged."""
    try:
        items = decode(memoryview(data))
    except ProtocolError:
        return
    assert _plain(items) == cbor2.loads(data), "cbor2 reads something else"
    assert _plain(_sent(items)) == _plain(items), "it changes when it is sent on"


def request(data: bytes) -> None:
    """`decode_request`, and of a PRODUCE the columns and headers."""
    try:
        op, correlation, asked = decode_request(decode(memoryview(data)))
    except ProtocolError:
        return
    again = decode_request(_body(encode_request(op, correlation, asked)))
    assert again == (op, correlation, asked), "it changes when it is sent on"
    if isinstance(asked, Produce):
        _batch(RecordBatch(asked.message_count, asked.lengths, asked.payloads, asked.header_lengths, asked.headers))


def reply(data: bytes) -> None:
    """`decode_reply` as a client does it, for the operation that the first byte names; of messages, all of them."""
    numbers = sorted(OPS)
    op = OPS[numbers[data[0] % len(numbers)]] if data else OPS[numbers[0]]
    try:
        items = decode(memoryview(data[1:]))
        if len(items) > 1 and items[1] != SUCCESS:
            decode_error(items)
            return
        found = decode_reply(op, items)
        if isinstance(found, Messages):
            _read(MessageBatch(found))
        elif isinstance(found, ManyMessages):
            batch, cuts = cut(found, CHANNELS_ASKED)
            _read(batch)
            assert all(0 <= one.begin <= one.end <= len(batch) for one in cuts), "a cut is outside of its batch"
    except ProtocolError:
        return


def batch(data: bytes) -> None:
    """`RecordBatch.check` of any columns: the first five bytes say where each ends."""
    head, rest = data[:5].ljust(5, b"\0"), data[5:]
    columns: list[bytes | None] = []
    for size in head[1:]:
        columns.append(rest[:size] if size < 255 else None)
        rest = rest[size:]
    lengths, payloads, header_lengths, headers = columns
    _batch(RecordBatch(head[0], lengths or b"", payloads or b"", header_lengths, headers))


def headers(data: bytes) -> None:
    """`decode_headers` of a message."""
    try:
        found = decode_headers(data)
    except ProtocolError:
        return
    try:
        encoded = encode_headers(found)
    except (InvalidRequest, LimitExceeded, MessageTooLarge):
        return
    assert decode_headers(encoded) == found, "they change when they are sent on"


def hello(data: bytes) -> None:
    """The first frame of a `Session`: refused as a whole, or somebody who is let in. It reaches nothing behind HELLO."""
    stand_in = _BeforeHello()
    session = Session(cast("Connection", stand_in), cast("Core", stand_in), stand_in, _GATE, "0", "fuzz")
    try:
        session.receive(memoryview(data))
    except (ProtocolError, UnsupportedVersion, Unauthenticated) as error:
        session.refuse(error)
    assert (session.client_id is None) == (stand_in.registered == 0), "nobody is let in by halves"
    [answer] = stand_in.answers
    assert sum(map(len, answer)) < 4_096, "an answer to a stranger is short"


class _BeforeHello:
    """What a `Session` needs of its connection, its core and its registry before anything but HELLO came."""

    def __init__(self) -> None:
        self.limits = LIMITS
        self.decoder = FrameDecoder(FRAME_BYTES_MAX)
        self.durability = "fsync"
        self.ids = self
        self.present_id = 1
        self.telemetry = self
        self.registered = 0
        self.answers: list[Sequence[Any]] = []
        self.attempt_held = None
        self.committer = self
        self.writers = FairQueue(lambda: 1, 0)

    def answered(self, *of: object) -> None:
        """As the telemetry."""

    def register(self, client_id: bytes, session: Session) -> None:
        """As the registry."""
        assert len(client_id) == 16, "an id has 16 bytes"
        self.registered += 1

    def send(self, buffers: Sequence[Any]) -> None:
        """As the connection."""
        self.answers.append(buffers)


def http(data: bytes) -> None:
    """A whole `Exchange`: an answer of HTTP/1.1 or nothing, and its end."""
    answer = trio.run(_exchange, data, clock=MockClock(autojump_threshold=0))
    assert not answer or answer.startswith(b"HTTP/1.1 "), "something else than an answer"
    assert b"HTTP/1.1 500" not in answer[:12], "a bug was met"


async def _exchange(data: bytes) -> bytes:
    ours, theirs = memory_stream_pair()
    answer = bytearray()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_serve, theirs)
        await ours.send_all(data)
        await ours.send_eof()
        while piece := await ours.receive_some():
            answer += piece
    return bytes(answer)


def _here(_: Request) -> Response:
    return Response(200, TEXT, b"here\n")


def _long(_: Request) -> Response:
    return Response(200, TEXT, iter((b"a 1\n", b"b 2\n")))


async def _serve(stream: trio.StapledStream[Any, Any]) -> None:
    async with stream:
        await Exchange(stream, _ROUTES, HTTP_LIMITS, trio.Lock()).run()


def _batch(columns: RecordBatch) -> None:
    try:
        columns.check(messages_max=LIMITS.batch_messages_max, payload_bytes_max=LIMITS.payload_bytes_max)
    except (InvalidRequest, LimitExceeded, MessageTooLarge):
        return
    count = columns.message_count
    runs = (1 << 18).to_bytes(8, "little") + count.to_bytes(4, "little")
    found = MessageBatch(Messages(0, None, 0, None, runs, *columns))
    assert len(found) == count, "as many as were sent"
    assert b"".join(found.payloads) == bytes(columns.payloads), "their payloads"
    _read(found, is_checked=True)


def _read(found: MessageBatch, *, is_checked: bool = False) -> None:
    """Every message of it; columns that the broker has checked add up."""
    assert len(found.ids) == len(found.payloads), "an id for each"
    try:
        encoded = found.encoded_headers
    except ProtocolError:
        assert not is_checked, "columns that add up are cut"
        raise
    assert encoded is None or len(encoded) == len(found), "headers for each"
    for index in range(len(found)):
        with suppress(ProtocolError):  # nobody but the reader looks into them
            found.headers_of(index)


def _body(buffers: Sequence[Any]) -> list[Any]:
    return decode(memoryview(b"".join(buffers)[4:]))


def _sent(items: Sequence[Any]) -> list[Any]:
    return _body(encode_frame(items))


def _plain(items: Sequence[Any]) -> list[Any]:
    return [item.tobytes() if type(item) is memoryview else item for item in items]


_ROUTES: dict[str, Route] = {"/": _here, "/metrics": _long}
_GATE = Gate(cast("Any", None), LIMITS, EVERYBODY)
TARGETS: dict[str, Target] = {target.__name__: target for target in (frames, cbor, request, reply, batch, headers, hello, http)}
