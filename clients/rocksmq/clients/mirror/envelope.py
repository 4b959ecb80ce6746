"""What a message of RocksMQ is in Pulsar, and how large; and one of Pulsar in RocksMQ. Pure.

payload      data, both ways
id           property `rocksmq.id`, decimal, and the sequence id; its time is the event time
origin       property `rocksmq.mirror`: name of the mirror, `#`, number of the channel, `@`, when that was made in milliseconds
header       property of the same name; `rocksmq.header64.<name>` in base64 if it is no text, or its name begins as ours do
event time   header `pulsar.event-time`, milliseconds, decimal; way back only
key          header `pulsar.key`; on the way there, the header that the mirror was told to take
"""

import base64
import binascii
from collections.abc import Mapping
from typing import NamedTuple

from rocksmq.protocol.batch import decode_headers
from rocksmq.protocol.errors import ProtocolError

RESERVED = ("rocksmq.", "pulsar.")  # beginnings of names that are given here
ID = "rocksmq.id"
MIRROR = "rocksmq.mirror"
HEADER64 = "rocksmq.header64."
HEADERS64 = "rocksmq.headers64"  # all of a message's, as they are, if they are none that can be read
EVENT_TIME = "pulsar.event-time"
KEY = "pulsar.key"
ID_TIME_BITS = 18


class Outgoing(NamedTuple):
    """Beside the payload."""

    properties: dict[str, str]
    key: str | None
    size: int  # bytes in a batch, of properties and key

    @property
    def head_size(self) -> int:
        """Bytes that a batch which begins with it has in its own head: that of the key, once more."""
        return _field_size(len(self.key.encode())) if self.key else 0


def origin_of(mirror: str, number: int, created_ms: int) -> str:
    """The value of `rocksmq.mirror`, for the channel of that number that was made then."""
    return f"{mirror}#{number}@{created_ms}"


def plain_size(message_id: int, origin: str) -> int:
    """Of an `Outgoing` without headers."""
    return _property_bytes(ID, str(message_id)) + _property_bytes(MIRROR, origin)


def frame_size(message_id: int) -> int:
    """Bytes that a message has in a batch beside `Outgoing`, and payload: Pulsar's SingleMessageMetadata, and its length."""
    return 4 + 1 + 1 + varint_size(message_id >> ID_TIME_BITS) + 1 + varint_size(message_id)


def payload_size(length: int) -> int:
    """Bytes that a payload and its length have there."""
    return varint_size(length) + length


def message_size(message_id: int, origin: str, payload_bytes: int, headers: bytes, key_header: str | None) -> int:
    """Bytes of a batch of it alone, beside the head that all batches of a producer have alike."""
    envelope = outgoing(message_id, origin, headers, key_header)
    return frame_size(message_id) + envelope.size + payload_size(payload_bytes) + varint_size(1) + envelope.head_size


def varint_size(number: int) -> int:
    """Bytes of it in protobuf."""
    return (number.bit_length() + 6) // 7 or 1


def _field_size(length: int) -> int:
    return 1 + payload_size(length)


def _property_bytes(name: str, value: str) -> int:
    return _field_size(_field_size(len(name.encode())) + _field_size(len(value.encode())))


def outgoing(message_id: int, origin: str, headers: bytes, key_header: str | None = None) -> Outgoing:
    """Of a message; ``headers`` as `encode_headers` gives them, whatever else they hold is carried all the same."""
    properties: dict[str, str] = {}
    key: str | None = None
    if headers:
        try:
            found = decode_headers(headers)
        except ProtocolError:  # nobody has checked what the sender packed
            found, properties[HEADERS64] = {}, _in64(headers)
        for name, value in found.items():
            text = _text(value)
            if text is None or name.startswith(RESERVED):
                properties[HEADER64 + name] = _in64(value)
            else:
                properties[name] = text
            if name == key_header:
                key = text
    properties[ID], properties[MIRROR] = str(message_id), origin
    size = sum(_property_bytes(name, value) for name, value in properties.items())
    return Outgoing(properties, key or None, size + (_field_size(len(key.encode())) if key else 0))


def headers_of(properties: Mapping[str, str], event_time_ms: int, key: str) -> dict[str, bytes]:
    """Headers of a message that comes from Pulsar. What it had before it was mirrored there is undone; our own marks stay.

    Where both have a name, it is what the message had.
    """
    headers: dict[str, bytes] = {}
    before: dict[str, bytes] = {}
    for name, value in properties.items():
        if name.startswith(HEADER64) and (content := _of64(value)) is not None:
            before[name.removeprefix(HEADER64)] = content
        else:
            headers[name] = value.encode(errors="surrogatepass")
    if event_time_ms:
        headers[EVENT_TIME] = b"%d" % event_time_ms
    if key:
        headers[KEY] = key.encode(errors="surrogatepass")
    return headers | before


def _text(value: bytes) -> str | None:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return None


def _in64(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _of64(value: str) -> bytes | None:
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return None
