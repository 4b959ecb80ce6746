"""The durable mark: how many group commits were synced, kept outside of RocksDB.

RocksDB drops acknowledged data silently when a log is damaged in the middle or missing. Each commit
is numbered; this file says which number was synced, and a store that comes back with less is refused.

Two slots of 4 KiB, overwritten in turn, so that one is whole whatever happens to the other:

    slot   0  8 B   magic "RMQMARK1"
           8  u64   commit number, little-endian
          16  u32   crc32c of bytes 0..16
"""

import os
from pathlib import Path
from struct import Struct

from crc32c import crc32c

from .store import DataRefused

SLOT_BYTES = 4_096
SLOTS = 2
MAGIC = b"RMQMARK1"
_SLOT = Struct("<8sQI")


class MarkFile:
    """The open file. `write` syncs before it returns; it may run in a thread, one call at a time."""

    def __init__(self, path: Path, *, for_reading: bool = False) -> None:
        self._path = path
        self._fd = os.open(path, os.O_RDONLY if for_reading else os.O_RDWR)
        numbers = [self._read(slot) for slot in range(SLOTS)]
        known = [number for number in numbers if number is not None]
        if not known:
            os.close(self._fd)
            raise DataRefused(f"the durable mark {path} is damaged: restore a backup, or start once with --accept-loss")
        self.number = max(known)
        self._slot = (numbers.index(self.number) + 1) % SLOTS

    @classmethod
    def create(cls, path: Path, number: int = 0) -> "MarkFile":
        """Make the file anew, both slots whole and synced; it is there whole or not at all."""
        temporary = path.with_suffix(".new")
        temporary.write_bytes(_slot(number).ljust(SLOT_BYTES, b"\0") * SLOTS)
        temporary.chmod(0o600)
        fd = os.open(temporary, os.O_RDWR)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
        temporary.rename(path)
        return cls(path)

    def write(self, number: int) -> None:
        """Commits up to ``number`` were synced. Raises OSError."""
        os.pwrite(self._fd, _slot(number), self._slot * SLOT_BYTES)
        os.fdatasync(self._fd)
        self._slot = (self._slot + 1) % SLOTS
        self.number = number

    def reset(self, number: int) -> None:
        """Go back to ``number``: no slot may keep a higher one. Raises OSError."""
        for _ in range(SLOTS):
            self.write(number)

    def close(self) -> None:
        os.close(self._fd)

    def _read(self, slot: int) -> int | None:
        data = os.pread(self._fd, _SLOT.size, slot * SLOT_BYTES)
        if len(data) != _SLOT.size:
            return None
        magic, number, crc = _SLOT.unpack(data)
        return int(number) if magic == MAGIC and crc == crc32c(data[: _SLOT.size - 4]) else None


def _slot(number: int) -> bytes:
    head = MAGIC + number.to_bytes(8, "little")
    return head + crc32c(head).to_bytes(4, "little")
