"""What the two sides of a mirror hold, read by means of their own: nothing here is shared with the mirror."""

import base64
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from rocksmq.clients import Client
from rocksmq.clients.pulsar.client import asked, connect, pulsar
from rocksmq.protocol.errors import Timeout

from .content import LABEL
from .mirror_audit import Copy, digest
from .mirror_load import EVENT_TIME, KEY, KEY_HEADER

FETCH_MESSAGES, FETCH_BYTES = 10_000, 4 << 20
READ_SECONDS = 30.0
READS = 3
ID, OWN, HEADER_64 = "rocksmq.id", "rocksmq.", "rocksmq.header64."
ID_MILLISECONDS_SHIFT = 18


def read_channel(mq: Client, channel: str) -> Copy:
    """All that a channel holds, by id."""
    copy = Copy()
    position: int | str = "earliest"
    while batch := mq.fetch(channel, position, FETCH_MESSAGES, max_bytes=FETCH_BYTES):
        payloads = batch.payloads
        for number, key in enumerate(batch.ids):
            copy.add(key, digest(payloads[number], batch.headers_of(number)))
        position = batch.next_position
    return copy


def read_channel_by_label(mq: Client, channel: str) -> Copy:
    """The same, by the labels in the payloads."""
    copy = Copy()
    position: int | str = "earliest"
    while batch := mq.fetch(channel, position, FETCH_MESSAGES, max_bytes=FETCH_BYTES):
        for number, payload in enumerate(batch.payloads):
            copy.add(LABEL.unpack_from(payload)[0], digest(payload, batch.headers_of(number)))
        position = batch.next_position
    return copy


def read_topics(url: str, topics: Mapping[str, str], *, by_label: bool, is_lite: bool) -> dict[str, Copy]:
    """All that each channel's topic holds: by label, or by the id that the mirror left in a property.

    pulsar-lite (``is_lite``) gives some entries to a reader twice: they are read once.
    The digest is that of the message in RocksMQ. Raises AssertionError for a message that no mirror made from one of there.
    """
    client = connect(url, operation_seconds=READ_SECONDS)
    try:
        return {channel: _read_whole(client, topic, by_label, is_lite) for channel, topic in topics.items()}
    finally:
        client.close()


def _read_whole(client: Any, topic: str, by_label: bool, is_lite: bool) -> Copy:
    """From its beginning, anew when a reader is left hanging, which pulsar-lite's are at times. Raises Timeout."""
    for _ in range(READS - 1):
        with suppress(Timeout):
            return _read_topic(client, topic, by_label, is_lite)
    return _read_topic(client, topic, by_label, is_lite)


def _read_topic(client: Any, topic: str, by_label: bool, is_lite: bool) -> Copy:
    copy = Copy()
    last: Any = pulsar.MessageId.earliest
    reader = asked("opening", lambda: client.create_reader(topic, pulsar.MessageId.earliest, receiver_queue_size=5_000))
    while asked("asking", reader.has_message_available):
        message = asked("reading", lambda: reader.read_next(int(READ_SECONDS * 1000)))
        if is_lite:
            if message.message_id() <= last:
                continue
            last = message.message_id()
        payload, properties = message.data(), message.properties()
        if by_label:
            copy.add(LABEL.unpack_from(payload)[0], digest(payload, _carried_back(message, properties)))
        else:
            copy.add(int(properties[ID]), digest(payload, _carried(message, properties)))
    reader.close()
    return copy


def _carried(message: Any, properties: Mapping[str, str]) -> dict[str, bytes]:
    """The headers that a message in Pulsar had in RocksMQ; time and key are as they should be."""
    headers: dict[str, bytes] = {}
    for name, value in properties.items():
        if name.startswith(HEADER_64):
            headers[name.removeprefix(HEADER_64)] = base64.b64decode(value, validate=True)
        elif not name.startswith(OWN):
            headers[name] = value.encode()
    key = properties[ID]
    assert message.event_timestamp() == int(key) >> ID_MILLISECONDS_SHIFT, f"message {key} has another time"
    assert message.partition_key() == headers.get(KEY, b"").decode(), f"message {key} has another partition key"
    return headers


def _carried_back(message: Any, properties: Mapping[str, str]) -> dict[str, bytes]:
    """The headers that a message of Pulsar is to have in RocksMQ."""
    headers = {name: value.encode() for name, value in properties.items()}
    if (event_time := message.event_timestamp()) > 0:
        headers[EVENT_TIME] = str(event_time).encode()
    if partition_key := message.partition_key():
        headers[KEY_HEADER] = partition_key.encode()
    return headers
