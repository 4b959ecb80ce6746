"""A message of Pulsar on its way back: what of it is stored, and whether a broker takes that. Pure but for Pulsar's getters."""

from collections.abc import Mapping
from typing import Any

from rocksmq.protocol.batch import HEADERS_MAX, encode_headers
from rocksmq.protocol.errors import InvalidRequest, LimitExceeded, MessageTooLarge

from .envelope import headers_of

CHARACTERS_SAFE = 1_000  # of headers: so few are within all limits, and need not be encoded to know that
# A MessageId as Pulsar serializes it: numbers, each behind its tag. Of a message in a batch the last is the batch's size.
_BATCH_SIZE_TAG = 6 << 3
_FIRST_CHUNK_TAG = 7 << 3 | 2  # then a length, and the MessageId of a message's first chunk
_VARINT_MORE = 0x80


def contents(message: Any, payload_bytes_max: int) -> tuple[bytes, dict[str, bytes]]:
    """Payload and headers of a `pulsar.Message`. Raises MessageTooLarge for what no broker of that limit takes."""
    payload: bytes = message.data()
    try:
        headers = headers_of(message.properties(), message.event_timestamp(), message.partition_key())
    except UnicodeDecodeError as error:
        raise MessageTooLarge(f"a property or the key is no UTF-8 text: {error}") from error
    check(payload, headers, payload_bytes_max)
    return payload, headers


def check(payload: bytes, headers: Mapping[str, bytes], payload_bytes_max: int) -> None:
    """Raise MessageTooLarge for too large a payload; also for too many headers, or too long names."""
    if len(payload) > payload_bytes_max:
        raise MessageTooLarge(f"a payload of {len(payload)} bytes exceeds the limit of {payload_bytes_max} (payload_bytes_max)")
    characters = sum(map(len, headers)) + sum(map(len, headers.values()))
    if characters <= CHARACTERS_SAFE and len(headers) <= HEADERS_MAX:
        return
    try:
        encode_headers(headers)
    except (InvalidRequest, LimitExceeded) as error:
        raise MessageTooLarge(error.message) from error


def batch_size(serialized: bytes) -> int:
    """How many messages the batch has, of a MessageId as Pulsar serializes it; 0: not told."""
    return next((value for tag, value in _fields(serialized) if tag == _BATCH_SIZE_TAG), 0)


def first_chunk(serialized: bytes) -> tuple[int, int] | None:
    """Ledger and entry of the first chunk, of a MessageId as Pulsar serializes it; None: the message came as a whole."""
    fields = _fields(serialized)
    tags = [tag for tag, _ in fields]
    if _FIRST_CHUNK_TAG not in tags:
        return None
    inner = fields[tags.index(_FIRST_CHUNK_TAG) + 1 :][:2]
    return (inner[0][1], inner[1][1]) if len(inner) == 2 else None


def _fields(serialized: bytes) -> list[tuple[int, int]]:
    """Tags and numbers; those of an inner MessageId follow its tag and length."""
    numbers = _varints(serialized)
    return list(zip(numbers[::2], numbers[1::2], strict=False))


def _varints(data: bytes) -> list[int]:
    found: list[int] = []
    value = shift = 0
    for byte in data:
        value |= (byte & ~_VARINT_MORE) << shift
        shift += 7
        if not byte & _VARINT_MORE:
            found.append(value)
            value = shift = 0
    return found
