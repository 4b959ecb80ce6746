"""Values in RocksDB: how each record's bytes are laid out, and the check of its CRC.

A stored batch, numbers little-endian (its key: keys.batch_key):

     0  u8   version, 1
     1  u8   flags: 1 = with headers
     2  u16  0
     4  u64  base_offset: messages ever appended to the channel before this batch
    12  u64  base_bytes: bytes of their payloads and headers
    20  u32  count
    24  u32  bytes of payloads
    28  u32  crc32c over the key, bytes 0..28 and bytes 32..end
    32  lengths, [header_lengths,] payloads, [headers]: the columns as they came (SPEC §4)

The small records are CBOR arrays that begin with their version, or fixed structs.
"""

from struct import Struct
from typing import Any, NamedTuple

from crc32c import crc32c

from rocksmq.protocol.batch import LENGTH_BYTES, RecordBatch, unpack_lengths
from rocksmq.protocol.cbor import Buffer, decode_value, encode_value
from rocksmq.protocol.errors import ProtocolError, StorageFailed

from .keys import batch_key

VERSION = 1
WITH_HEADERS = 1
HEAD_BYTES = 32
_HEAD = Struct("<BBHQQII")
_CRC = Struct("<I")
_EXTENT = Struct("<BQQQQQQQ")
_PRODUCED = Struct("<QQI")


class StoredBatch:
    """One produce as it lies in the store: its head, and views of its columns."""

    __slots__ = ("base_bytes", "base_offset", "count", "first_id", "value")

    def __init__(self, first_id: int, base_offset: int, base_bytes: int, count: int, value: bytes) -> None:
        self.first_id = first_id
        self.base_offset = base_offset
        self.base_bytes = base_bytes
        self.count = count
        self.value = value

    @property
    def end_id(self) -> int:
        """Id of the last message."""
        return self.first_id + self.count - 1

    @classmethod
    def encode(cls, channel_number: int, first_id: int, extent: "Extent", batch: RecordBatch) -> tuple[bytes, "StoredBatch"]:
        """Key and record of ``batch``, the next behind ``extent``; its columns are copied, once."""
        key = batch_key(channel_number, first_id)
        flags, columns = 0, [batch.lengths, batch.payloads]
        if batch.headers is not None and batch.header_lengths is not None:
            flags, columns = WITH_HEADERS, [batch.lengths, batch.header_lengths, batch.payloads, batch.headers]
        head = _HEAD.pack(VERSION, flags, 0, extent.end_offset, extent.end_bytes, batch.message_count, len(batch.payloads))
        crc = crc32c(head, crc32c(key))
        for column in columns:
            crc = crc32c(column, crc)
        value = b"".join((head, _CRC.pack(crc), *columns))
        return key, cls(first_id, extent.end_offset, extent.end_bytes, batch.message_count, value)

    @classmethod
    def decode(cls, key: bytes, value: bytes) -> "StoredBatch":
        """The record under ``key``. Raises StorageFailed when its bytes are not what was written."""
        batch = cls.unchecked(key, value)
        view = memoryview(value)
        crc = crc32c(view[HEAD_BYTES:], crc32c(view[: _HEAD.size], crc32c(key)))
        if crc != _CRC.unpack_from(value, _HEAD.size)[0]:
            raise StorageFailed(f"the record {key.hex()} is damaged on disk: run `rocksmq check` on the data directory")
        return batch

    @classmethod
    def unchecked(cls, key: bytes, value: bytes) -> "StoredBatch":
        """As `decode`, without the CRC over all of the value: for where the batch lies, not for its messages."""
        if len(value) < HEAD_BYTES or value[0] != VERSION:
            raise StorageFailed(f"the record {key.hex()} has an unknown version: run `rocksmq check` on the data directory")
        _, _, _, base_offset, base_bytes, count, _ = _HEAD.unpack_from(value)
        return cls(int.from_bytes(key[8:], "big"), base_offset, base_bytes, count, value)

    @property
    def columns(self) -> RecordBatch:
        """Views of the columns."""
        _, flags, _, _, _, count, payload_bytes = _HEAD.unpack_from(self.value)
        view = memoryview(self.value)
        lengths = HEAD_BYTES + count * LENGTH_BYTES
        if not flags & WITH_HEADERS:
            return RecordBatch(count, view[HEAD_BYTES:lengths], view[lengths:], None, None)
        payloads = lengths + count * LENGTH_BYTES
        headers = payloads + payload_bytes
        return RecordBatch(count, view[HEAD_BYTES:lengths], view[payloads:headers], view[lengths:payloads], view[headers:])

    @property
    def size(self) -> int:
        """Bytes of payloads and headers together."""
        columns = 2 if self.value[1] & WITH_HEADERS else 1
        return len(self.value) - HEAD_BYTES - self.count * LENGTH_BYTES * columns

    def slice(self, start: int, stop: int) -> RecordBatch:
        """Columns of messages ``start`` up to, not including, ``stop``: views of all, copies of a part.

        A view of a part would keep the whole alive for as long as the reply waits.
        """
        whole = self.columns
        if start == 0 and stop == self.count:
            return whole
        header_lengths = headers = None
        if whole.header_lengths is not None and whole.headers is not None:
            header_lengths, headers = _cut(whole.header_lengths, whole.headers, start, stop)
        return RecordBatch(stop - start, *_cut(whole.lengths, whole.payloads, start, stop), header_lengths, headers)

    def sizes(self, start: int, stop: int) -> list[int]:
        """Bytes of payload and headers of each message from ``start`` up to, not including, ``stop``."""
        columns = self.columns
        sizes = unpack_lengths(columns.lengths)[start:stop]
        if columns.header_lengths is None:
            return list(sizes)
        header_sizes = unpack_lengths(columns.header_lengths)[start:stop]
        return [a + b for a, b in zip(sizes, header_sizes, strict=True)]


def _cut(lengths: Buffer, content: Buffer, start: int, stop: int) -> tuple[bytes, bytes]:
    before = sum(unpack_lengths(lengths[: start * LENGTH_BYTES]))
    part = bytes(lengths[start * LENGTH_BYTES : stop * LENGTH_BYTES])
    return part, bytes(content[before : before + sum(unpack_lengths(part))])


class ChannelSettings(NamedTuple):
    """What a channel was created with."""

    name: str
    request_id: bytes
    created_ms: int
    durability: str | None
    retention: dict[str, int] | None
    owner: list[str] | None

    def encode(self) -> bytes:
        return encode_value([VERSION, *self])

    @classmethod
    def decode(cls, data: bytes) -> "ChannelSettings":
        return cls(*_fields(data, "channel", len(cls._fields)))


class Extent(NamedTuple):
    """What a channel holds. It outlives the messages: an empty channel keeps its end.

    Offsets count messages ever appended, and bytes theirs of payloads and headers; ``begin_id`` is ``end_id + 1`` when there
    are none. It may lie inside of a batch, whose messages before it are no longer there. ``removed_end``: retention has removed
    messages before this id, and none at or behind it.
    """

    begin_id: int
    end_id: int
    begin_offset: int
    end_offset: int
    begin_bytes: int
    end_bytes: int
    removed_end: int

    @property
    def begin(self) -> "Begin":
        return Begin(self.begin_id, self.begin_offset, self.begin_bytes, self.removed_end)

    @property
    def message_count(self) -> int:
        return self.end_offset - self.begin_offset

    @property
    def byte_count(self) -> int:
        return self.end_bytes - self.begin_bytes

    def appended(self, first_id: int, count: int, size: int) -> "Extent":
        """With ``count`` messages of ``size`` bytes more."""
        assert first_id > self.end_id, "ids rise"
        begin_id = first_id if self.begin_offset == self.end_offset else self.begin_id
        return self._replace(
            begin_id=begin_id, end_id=first_id + count - 1, end_offset=self.end_offset + count, end_bytes=self.end_bytes + size
        )

    def trimmed(self, begin: "Begin") -> "Extent":
        """Without what lies before ``begin``."""
        return self._replace(
            begin_id=begin.message_id, begin_offset=begin.offset, begin_bytes=begin.size, removed_end=begin.removed_end
        )

    def encode(self) -> bytes:
        return _EXTENT.pack(VERSION, *self)

    @classmethod
    def decode(cls, data: bytes) -> "Extent":
        version, *fields = _unpacked(_EXTENT, data, "extent")
        _check_version(version, "extent")
        return cls(*fields)


EMPTY_EXTENT = Extent(1, 0, 0, 0, 0, 0, 0)


class Begin(NamedTuple):
    """Where a channel may begin: at a message, with so many messages, and bytes of theirs, ever appended before it.

    ``removed_end``: above the last of those, and not above this one.
    """

    message_id: int
    offset: int
    size: int
    removed_end: int


class LastSeek(NamedTuple):
    """A group's last seek and its answer, for a repeat of it."""

    request_id: bytes
    position: int
    offset: int
    outcome: int
    generation: int


class ConsumerEntry(NamedTuple):
    """What a consumer id was last handed: its number, and the messages from ``begin`` up to, not including, ``end``.

    ``is_released``: the id is over, and these are what it gave back and nobody has read since. With them it was told that
    ``gap_count`` messages from ``gap_begin`` on were removed unread.
    """

    number: int
    begin: int
    end: int
    message_count: int
    generation: int
    last_use: int  # the present id at that time
    is_released: bool = False
    gap_begin: int = 0
    gap_count: int = 0


class GroupState(NamedTuple):
    """A consumer group. ``position`` is the id of the next message to read, ``offset`` how many lie before it."""

    channel_number: int
    creation_id: int
    request_id: bytes
    position: int
    offset: int
    generation: int
    metadata: bytes
    last_seek: LastSeek | None
    consumers: dict[bytes, ConsumerEntry]
    forgotten: int  # last use of the latest consumer entry that was forgotten

    def encode(self) -> bytes:
        return encode_value([VERSION, *self])

    @classmethod
    def decode(cls, data: bytes) -> "GroupState":
        *fields, last_seek, consumers, forgotten = _fields(data, "group", len(cls._fields))
        try:
            entries = {consumer: ConsumerEntry(*entry) for consumer, entry in consumers.items()}
            seek = None if last_seek is None else LastSeek(*last_seek)
        except (AttributeError, TypeError) as error:
            raise StorageFailed(f"a group record is damaged: {error}") from error
        return cls._make((*fields, seek, entries, forgotten))


class MetaBinding(NamedTuple):
    """Where the positions of this data directory are kept: "embedded", or the name of a store elsewhere.

    Epochs of the latest takeovers of ``epochs_of``: the one that was planned, and the one that is known to have succeeded.
    """

    store: str
    epochs_of: str
    planned_epoch: int
    applied_epoch: int

    def at(self, remote: str) -> "MetaBinding":
        """With what is known of the epochs of ``remote``."""
        return self if self.epochs_of == remote else MetaBinding(self.store, remote, 0, 0)

    def encode(self) -> bytes:
        return encode_value([VERSION, *self])

    @classmethod
    def decode(cls, data: bytes) -> "MetaBinding":
        return cls(*_fields(data, "meta binding", len(cls._fields)))


class Shadow(NamedTuple):
    """Of which commit value of a store elsewhere the groups in this data directory are a copy, see meta_shadow.py.

    ``lost_epoch``: from that takeover on the store was being told again what it had lost; 0: it has lost nothing.
    """

    epoch: int
    number: int
    lost_epoch: int

    def encode(self) -> bytes:
        return encode_value([VERSION, *self])

    @classmethod
    def decode(cls, data: bytes) -> "Shadow":
        return cls(*_fields(data, "shadow", len(cls._fields)))


class ProducerName(NamedTuple):
    """Whose a producer's name is, and the last sequence that is stored under it; None: nothing is."""

    producer: bytes
    last_sequence: int | bytes | None
    last_use: int  # the present id at that time

    def encode(self) -> bytes:
        return encode_value([VERSION, *self])

    @classmethod
    def decode(cls, data: bytes) -> "ProducerName":
        return cls(*_fields(data, "producer name", len(cls._fields)))


class ProducedEntry(NamedTuple):
    """One produce that a producer's repeat is answered from.

    No messages: its sequences were stored before, and ``first_id`` only tells when it came.
    """

    number: int
    first_id: int
    message_count: int

    def encode(self) -> bytes:
        return _PRODUCED.pack(*self)

    @classmethod
    def decode(cls, data: bytes) -> "ProducedEntry":
        return cls(*_unpacked(_PRODUCED, data, "producer"))


def _fields(data: bytes, kind: str, count: int) -> list[Any]:
    try:
        found: list[Any] = decode_value(data)
        version, *fields = found
    except (ProtocolError, TypeError, ValueError) as error:
        raise StorageFailed(f"a {kind} record is damaged: {error}") from error
    _check_version(version, kind)
    if len(fields) != count:
        raise StorageFailed(f"a {kind} record is damaged: it has {len(fields)} fields, not {count}")
    return fields


def _unpacked(layout: Struct, data: bytes, kind: str) -> tuple[Any, ...]:
    if len(data) != layout.size:
        raise StorageFailed(f"a {kind} record is damaged: it has {len(data)} bytes, not {layout.size}")
    return layout.unpack(data)


def _check_version(version: int, kind: str) -> None:
    if version != VERSION:
        raise StorageFailed(f"a {kind} record has version {version}; this broker reads {VERSION}")
