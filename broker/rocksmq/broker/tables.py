"""Are a RocksDB table's blocks as they were written, whoever wants what is in them?

Reading goes by the keys, and passes over what was removed; a compaction reads that too, and RocksDB writes no more once it met
a block that is damaged. So this reads the file itself: it ends with a footer, which names the index and the meta index; these
name all other blocks, and each is followed by its kind of compression and a checksum over both.
Source: https://github.com/facebook/rocksdb/wiki/Rocksdb-BlockBasedTable-Format, with the format version that `store` sets.
"""

import struct
from collections.abc import Callable, Iterator
from os import SEEK_END
from pathlib import Path
from typing import BinaryIO, NamedTuple

from crc32c import crc32c
from xxhash import xxh3_64_intdigest

FORMAT_VERSION = 5
_FOOTER = struct.Struct("<B40xIQ")  # kind of checksum, the handles of the meta index and the index, version, magic number
_TRAILER = struct.Struct("<BI")  # kind of compression, checksum
_PADDING = slice(38, 41)  # of the footer, at least: two handles need no more than 37 bytes before it
_U32 = struct.Struct("<I")
_MAGIC = 0x88E241B785F4CFF7
_LZ4 = 4
_MASK = 0xA282EAD8  # what RocksDB adds to a CRC that it stores
_LAST_BYTE_PRIME = 0x6B9083D9  # RocksDB hashes a block without the kind of compression, and mixes that in


class _Handle(NamedTuple):
    """Where a block is, and its size without the trailer."""

    offset: int
    size: int


class Damage(NamedTuple):
    """Where, and what in words."""

    offset: int
    what: str


class _Damaged(Exception):
    """Something cannot be read: a `Damage`."""


def damage(path: Path) -> Iterator[Damage]:
    """What is damaged of the table in the file ``path``. Raises OSError."""
    with path.open("rb") as file:
        try:
            yield from _damage(file)
        except _Damaged as error:
            yield Damage(*error.args)


def _damage(file: BinaryIO) -> Iterator[Damage]:
    end = file.seek(0, SEEK_END) - _FOOTER.size
    footer = _read(file, end, _FOOTER.size)
    kind, version, magic = _FOOTER.unpack(footer)
    if kind not in _CHECKSUMS or (version, magic) != (FORMAT_VERSION, _MAGIC) or any(data >= 0x80 for data in footer[_PADDING]):
        raise _Damaged(end, "its footer is damaged")
    meta_index, at = _handle(footer, 1)
    index, at = _handle(footer, at)
    if at != 1 + sum(map(_length, (*meta_index, *index))) or any(footer[at : _PADDING.stop]):
        raise _Damaged(end, "its footer is damaged")
    checksum = _CHECKSUMS[kind]
    handles = {meta_index, index, *_named(_content(file, meta_index, checksum), has_sizes=True)}
    handles |= set(_named(_content(file, index, checksum), has_sizes=False))
    behind = 0
    for handle in (*sorted(handles), _Handle(end, 0)):
        if handle.offset != behind:
            raise _Damaged(behind, f"no block has the bytes from {behind} on")
        if handle.offset < end:
            behind = handle.offset + handle.size + _TRAILER.size
            try:
                _block(file, handle, checksum)
            except _Damaged as error:
                yield Damage(*error.args)


def _read(file: BinaryIO, offset: int, size: int) -> bytes:
    file.seek(max(0, offset))
    data = file.read(size)
    if offset < 0 or len(data) < size:
        raise _Damaged(file.seek(0, SEEK_END), "it is cut off")
    return data


def _crc32c(content: "memoryview[int]", compression: int) -> int:
    crc = crc32c(bytes((compression,)), crc32c(content))
    return (crc >> 15 | crc << 17) + _MASK & 0xFFFFFFFF


def _xxh3(content: "memoryview[int]", compression: int) -> int:
    return (xxh3_64_intdigest(content) ^ compression * _LAST_BYTE_PRIME) & 0xFFFFFFFF


_Checksum = Callable[["memoryview[int]", int], int]
_CHECKSUMS: dict[int, _Checksum] = {1: _crc32c, 4: _xxh3}  # `store` sets the second; older tables have the first


def _block(file: BinaryIO, handle: _Handle, checksum: _Checksum) -> bytes:
    """With its trailer."""
    data = _read(file, handle.offset, handle.size + _TRAILER.size)
    compression, stored = _TRAILER.unpack_from(data, handle.size)
    if checksum(memoryview(data)[: handle.size], compression) != stored:
        raise _Damaged(handle.offset, f"the block at offset {handle.offset} is damaged")
    return data


def _content(file: BinaryIO, handle: _Handle, checksum: _Checksum) -> bytes:
    data = _block(file, handle, checksum)
    compression, _ = _TRAILER.unpack_from(data, handle.size)
    return _decompressed(data[: handle.size]) if compression == _LZ4 else data[: handle.size]


def _named(content: bytes, *, has_sizes: bool) -> Iterator[_Handle]:
    """The handles that an index has as values; ``has_sizes``: the sizes of these stand before them, as in the meta index."""
    (restarts,) = _U32.unpack_from(content, len(content) - _U32.size)
    at = 0
    while at < len(content) - (restarts + 1) * _U32.size:
        _, at = _number(content, at)  # of the key, as much as it shares with the one before
        own, at = _number(content, at)
        if has_sizes:
            _, at = _number(content, at)
        handle, at = _handle(content, at + own)
        yield handle


def _handle(data: bytes, at: int) -> tuple[_Handle, int]:
    """The one at ``at``, and what comes behind it."""
    offset, at = _number(data, at)
    size, at = _number(data, at)
    return _Handle(offset, size), at


def _number(data: bytes, at: int) -> tuple[int, int]:
    """The varint at ``at``, and what comes behind it."""
    number = shift = 0
    while True:
        number |= (data[at] & 0x7F) << shift
        if data[at] < 0x80:
            return number, at + 1
        at, shift = at + 1, shift + 7


def _length(number: int) -> int:
    """Of its varint."""
    return max(1, -(-number.bit_length() // 7))


def _decompressed(data: bytes) -> bytes:
    """From LZ4's block format, with the size before it."""
    size, at = _number(data, 0)
    out = bytearray()
    while True:
        token = data[at]
        count, at = _count(data, at + 1, token >> 4)
        out += data[at : at + count]
        at += count
        if len(out) >= size:
            return bytes(out)
        distance = data[at] | data[at + 1] << 8
        count, at = _count(data, at + 2, token & 15)
        for _ in range(count + 4):  # it may reach into what it makes
            out.append(out[-distance])


def _count(data: bytes, at: int, count: int) -> tuple[int, int]:
    """``count``, which goes on at ``at`` if it is 15, and what comes behind it."""
    if count == 15:
        while data[at] == 255:
            at, count = at + 1, count + 255
        at, count = at + 1, count + data[at]
    return count, at
