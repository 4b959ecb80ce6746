"""The free disk space that produce must leave: to positions, to retention, and to the database for rewriting its files.

A database gives space back by writing: memtables become tables, tables are merged, and only then what they were made of is
deleted. Where that finds no room it ends, and RocksDB tries again only once as much is free as all of it might take: then
destroying channels frees nothing any more. So the database works in pieces that fit into the reserve, and what it may have to
write at once is left free as well.
"""

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

logger = logging.getLogger("rocksmq.broker")

MIB = 1 << 20
CHECK_SECONDS = 1.0
CHECK_BYTES = 16 * MIB  # produced since the last look, or a piece if that is less
RESUME_FACTOR = 1.2
PIECES = 16  # of the reserve: 3 memtables, 5 new tables, the 4 that they are merged with, and some to spare
PIECE_BYTES_MIN = 4 * MIB
INODES_MIN = 64  # fewer free ones count as a full disk: a database makes files before it deletes any
STUCK_SECONDS = 30.0  # RocksDB looks every 5 s whether it may go on; behind some errors it never does


def reserve_bytes(total: int) -> int:
    """5 % of the disk, but 64 MiB at least and 1 GiB at most."""
    return max(64 * MIB, min(total // 20, 1 << 30))


def piece_bytes(total: int) -> int:
    """How large a memtable of the database gets, and about a table, on a disk of ``total`` bytes: 4 MiB to 64 MiB."""
    return max(PIECE_BYTES_MIN, reserve_bytes(total) // PIECES)


def disk_piece_bytes(directory: Path) -> int:
    """`piece_bytes` of the disk that ``directory`` is on, or will be. Raises OSError."""
    found = os.statvfs(next(level for level in (directory, *directory.parents) if level.exists()))
    return piece_bytes(found.f_blocks * found.f_frsize)


class DiskGuard:
    """Says whether there is room for a produce; asks the file system once a second or every 16 MiB.

    ``owed``: bytes that the database may have to write before it can delete anything; ``reserve`` is what must be free now:
    that of the disk, or what is owed if that is more. ``waiting``: bytes that were admitted, and are not written yet.
    """

    def __init__(
        self,
        directory: Path,
        *,
        owed: Callable[[], int] = lambda: 0,
        waiting: Callable[[], int] = lambda: 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._directory = directory
        self._owed = owed
        self._waiting = waiting
        self._clock = clock
        self.is_full = False
        self.is_known = True  # whether the file system told
        self._due = 0.0
        self._bytes_left = 0
        self._refused_since: float | None = None
        self.free_bytes = self.total_bytes = 0
        self.reserve = 0

    def admits(self, size: int) -> bool:
        """Whether ``size`` bytes more may be stored."""
        self._bytes_left -= size
        if self._bytes_left < 0 or self._clock() >= self._due:
            self.look()
        return not self.is_full

    def look(self) -> None:
        """Ask the file system; what it does not tell stays as it was, and writes are tried."""
        self._bytes_left = CHECK_BYTES
        self._due = self._clock() + CHECK_SECONDS
        try:
            found = os.statvfs(self._directory)
        except OSError:
            self.is_known = False
            return
        self.is_known = True
        self.free_bytes = found.f_bavail * found.f_frsize
        self.total_bytes = found.f_blocks * found.f_frsize
        self._bytes_left = min(CHECK_BYTES, piece_bytes(self.total_bytes))
        self.reserve = max(reserve_bytes(self.total_bytes), self._owed())
        was_full = self.is_full
        self.is_full = self.free_bytes - self._waiting() < self.reserve * (RESUME_FACTOR if was_full else 1)
        if found.f_files and found.f_favail < INODES_MIN:
            self.is_full = True
        if self.is_full and not was_full:
            what = "the disk has %d MiB and %d inodes free, less than the reserve: produce is refused"
            logger.warning(what, self.free_bytes >> 20, found.f_favail)
        elif was_full and not self.is_full:
            logger.info("the disk has %d MiB free again: produce goes on", self.free_bytes >> 20)

    def accepted(self) -> None:
        """The database has written."""
        self._refused_since = None

    def refused(self) -> bool:
        """The database found no room. Whether that lasts though there is some: then it goes on only once it is opened anew."""
        self.look()
        if self.is_full:
            self._refused_since = None
            return False
        now = self._clock()
        self._refused_since = now if self._refused_since is None else self._refused_since
        return now - self._refused_since >= STUCK_SECONDS
