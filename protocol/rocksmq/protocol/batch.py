"""Record batches (SPEC §4): messages in columns, never one object each.

    message_count  number of messages
    lengths        count x u32 little-endian: bytes of each payload
    payloads       all payloads, one behind the other
    header_lengths null, or count x u32 little-endian: bytes of each message's headers
    headers        null, or the messages' headers, each one CBOR map text -> bytes, or 0 bytes for none

The broker calls `RecordBatch.check` and otherwise never looks inside, so its cost is per
batch. The sender packs, the receiver slices.
"""

import sys
from array import array
from collections.abc import Mapping, Sequence
from typing import NamedTuple, cast

from .cbor import TEXT_BYTES_MAX, Buffer, decode_value, encode_value, scan
from .errors import InvalidRequest, LimitExceeded, MessageTooLarge, ProtocolError

HEADERS_MAX = 64
HEADER_BYTES_MAX = 256 * 1024
LENGTH_BYTES = 4
FRAME_BYTES_BESIDE = 1_024  # of a PRODUCE, at most: the channel's name, ids and heads


def pack_lengths(lengths: Sequence[int]) -> bytes:
    """``lengths`` as count x u32 little-endian."""
    return _little_endian(array("I", lengths)).tobytes()


def unpack_lengths(column: Buffer) -> "array[int]":
    """The numbers of a column of u32 little-endian. Raises ProtocolError for a length that is no multiple of 4."""
    if len(column) % LENGTH_BYTES:
        raise ProtocolError(f"a column of {len(column)} bytes is cut off: a length takes {LENGTH_BYTES}")
    lengths = array("I")
    lengths.frombytes(column)
    return _little_endian(lengths)


def _little_endian(numbers: "array[int]") -> "array[int]":
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers


class RecordBatch(NamedTuple):
    """The five columns as they travel and are stored; all buffers are of bytes."""

    message_count: int
    lengths: Buffer
    payloads: Buffer
    header_lengths: Buffer | None
    headers: Buffer | None

    @property
    def size(self) -> int:
        """Bytes of payloads and headers together: what limits and counts go by."""
        return len(self.payloads) + len(self.headers or b"")

    def check_frame(self, frame_bytes_max: int) -> None:
        """Refuse a batch whose request would not fit into a frame. Raises LimitExceeded."""
        size = self.size + len(self.lengths) + len(self.header_lengths or b"") + FRAME_BYTES_BESIDE
        if size > frame_bytes_max:
            raise LimitExceeded(
                f"a batch of {size} bytes exceeds the limit of {frame_bytes_max} (frame_bytes_max): send it in several"
            )

    def check(self, *, messages_max: int, payload_bytes_max: int) -> None:
        """Refuse columns that do not add up or exceed a limit.

        Raises InvalidRequest, LimitExceeded or MessageTooLarge, naming the column or limit.
        """
        if self.message_count < 1:
            raise InvalidRequest("a batch holds at least one message")
        if self.message_count > messages_max:
            raise LimitExceeded(
                f"{self.message_count} messages in a batch exceed the limit of {messages_max} (batch_messages_max)"
            )
        _check_column(
            "lengths", "payloads", self.message_count, self.lengths, self.payloads, payload_bytes_max, "payload_bytes_max"
        )
        if self.header_lengths is not None and self.headers is not None:
            _check_column(
                "header_lengths",
                "headers",
                self.message_count,
                self.header_lengths,
                self.headers,
                HEADER_BYTES_MAX,
                "header_bytes_max",
            )
        elif self.header_lengths is not None or self.headers is not None:
            raise InvalidRequest("header_lengths and headers go together: both or neither")


def _check_column(
    name: str, content_name: str, count: int, lengths: Buffer, content: Buffer, limit: int, limit_name: str
) -> None:
    if len(lengths) != count * LENGTH_BYTES:
        raise InvalidRequest(f"{name} holds {len(lengths)} bytes, not {LENGTH_BYTES} for each of {count} messages")
    numbers = unpack_lengths(lengths)
    if (total := sum(numbers)) != len(content):
        raise InvalidRequest(f"{name} add up to {total} bytes, but {content_name} holds {len(content)}")
    if len(content) > limit and (longest := max(numbers)) > limit:
        raise MessageTooLarge(f"a message's {content_name} of {longest} bytes exceed the limit of {limit} ({limit_name})")


def encode_headers(headers: Mapping[str, bytes]) -> bytes:
    """One message's headers as a CBOR map; no headers are no bytes. Raises InvalidRequest, MessageTooLarge."""
    if not headers:
        return b""
    if not isinstance(headers, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InvalidRequest(f"headers are a mapping from str to bytes, not {type(headers).__name__}")
    if len(headers) > HEADERS_MAX:
        raise LimitExceeded(f"{len(headers)} headers on a message exceed the limit of {HEADERS_MAX} (headers_max)")
    for name, value in headers.items():
        if not isinstance(name, str) or not isinstance(value, bytes):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidRequest(f"header {name!r}: names are str and values bytes, not {type(value).__name__}")
        if len(name.encode(errors="replace")) > TEXT_BYTES_MAX or not _is_encodable(name):
            raise InvalidRequest(f"header name {name[:40]!r} is not text of at most {TEXT_BYTES_MAX} bytes in UTF-8")
    encoded = encode_value(dict(headers))
    if len(encoded) > HEADER_BYTES_MAX:
        raise MessageTooLarge(f"headers of {len(encoded)} bytes exceed the limit of {HEADER_BYTES_MAX} (header_bytes_max)")
    return encoded


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # a lone surrogate
        return False
    return True


def decode_headers(data: Buffer) -> dict[str, bytes]:
    """One message's headers. Raises ProtocolError when the sender wrote anything but a map text -> bytes."""
    if not len(data):
        return {}
    scan(memoryview(b"\x81" + bytes(data)))
    found = decode_value(data)
    if not isinstance(found, dict):
        raise ProtocolError("headers are not a map from text to bytes")
    headers: dict[str, bytes] = {}
    for name, value in cast(dict[object, object], found).items():
        if not isinstance(name, str) or not isinstance(value, bytes):
            raise ProtocolError("headers are not a map from text to bytes")
        headers[name] = value
    return headers
