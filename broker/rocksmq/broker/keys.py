"""Keys in RocksDB. Numbers are big-endian, so that byte order is number order.

data   channel number u64 | first id u64                          -> records.StoredBatch
meta   "!commit"                                                  -> u64, number of the last group commit
       "!ids"                                                     -> u64, no id at or above it was given out
       "!forgotten"                                               -> u64, see producers.py
       "!clock"                                                   -> clock.ClockNote
       "!meta"                                                    -> records.MetaBinding
       "!metashadow"                                              -> records.Shadow
       "c" | channel number u64                                   -> records.ChannelSettings
       "x" | channel number u64                                   -> records.Extent
       "p" | channel number u64 | producer 16 B | number mod 16   -> records.ProducedEntry
       "n" | channel number u64 | name of a producer              -> records.ProducerName
       "g/" group "/" channel "/current_id"                       -> decimal id
       "g/" group "/" channel "/state"                            -> records.GroupState
"""

from struct import Struct

from rocksmq.protocol.errors import StorageFailed

_U64 = Struct(">Q")
_U64_PAIR = Struct(">QQ")

COMMIT_NUMBER = b"!commit"
IDS = b"!ids"
FORGOTTEN = b"!forgotten"
CLOCK = b"!clock"
META_BINDING = b"!meta"
META_SHADOW = b"!metashadow"
SETTINGS, EXTENT, PRODUCER, NAME, GROUP = b"c", b"x", b"p", b"n", b"g/"
CURRENT_ID, STATE = "current_id", "state"
ID_MAX = (1 << 64) - 1


def u64(number: int) -> bytes:
    return _U64.pack(number)


def from_u64(data: bytes) -> int:
    """Raises StorageFailed for what is no u64."""
    if len(data) != _U64.size:
        raise StorageFailed(f"a number in the database has {len(data)} bytes, not {_U64.size}: it is damaged")
    return int.from_bytes(data, "big")


def batch_key(channel_number: int, first_id: int) -> bytes:
    return _U64_PAIR.pack(channel_number, first_id)


def batch_place(key: bytes) -> tuple[int, int] | None:
    """Channel number and first id of a key of the family ``data``, 0 for an end of a channel's span; None: it is none.

    A key of another family may look like one; the channel that it names is not there then.
    """
    if len(key) not in (_U64.size, _U64_PAIR.size):
        return None
    number, first_id = _U64_PAIR.unpack(key.ljust(_U64_PAIR.size, b"\0"))
    return number, first_id


def first_id_of(key: bytes) -> int:
    return from_u64(key[8:])


def channel_span(channel_number: int) -> tuple[bytes, bytes]:
    """Begin and end of everything of a channel in the family ``data``."""
    return _U64.pack(channel_number), _U64.pack(channel_number + 1)


def settings_key(channel_number: int) -> bytes:
    return SETTINGS + _U64.pack(channel_number)


def extent_key(channel_number: int) -> bytes:
    return EXTENT + _U64.pack(channel_number)


def producer_key(channel_number: int, producer: bytes, slot: int) -> bytes:
    return PRODUCER + _U64.pack(channel_number) + producer + bytes((slot,))


def producer_of(key: bytes) -> tuple[int, bytes]:
    """Channel number and producer id."""
    return from_u64(key[1:9]), key[9:25]


def producer_span(channel_number: int) -> tuple[bytes, bytes]:
    return PRODUCER + _U64.pack(channel_number), PRODUCER + _U64.pack(channel_number + 1)


def name_key(channel_number: int, name: str) -> bytes:
    return NAME + _U64.pack(channel_number) + name.encode()


def name_of(key: bytes) -> tuple[int, str]:
    """Channel number and the producer's name."""
    return from_u64(key[1:9]), key[9:].decode()


def name_span(channel_number: int) -> tuple[bytes, bytes]:
    return NAME + _U64.pack(channel_number), NAME + _U64.pack(channel_number + 1)


def group_key(group: str, channel: str, leaf: str) -> bytes:
    return b"%s%s/%s/%s" % (GROUP, group.encode(), channel.encode(), leaf.encode())


def group_of(key: bytes) -> tuple[str, str, str]:
    """Group, channel and leaf."""
    group, channel, leaf = key[len(GROUP) :].decode().split("/")
    return group, channel, leaf


def prefix_end(prefix: bytes) -> bytes:
    """The first key behind all that start with ``prefix``."""
    return prefix[:-1] + bytes((prefix[-1] + 1,))
