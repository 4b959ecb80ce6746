"""The reserve of free disk space that produce must leave to positions and retention."""

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

logger = logging.getLogger("rocksmq.broker")

MIB = 1 << 20
CHECK_SECONDS = 1.0
CHECK_BYTES = 16 * MIB  # produced since the last look
RESUME_FACTOR = 1.2


def reserve_bytes(total: int) -> int:
    """5 % of the disk, but 64 MiB at least and 1 GiB at most."""
    return max(64 * MIB, min(total // 20, 1 << 30))


class DiskGuard:
    """Says whether there is room for a produce; asks the file system once a second or every 16 MiB."""

    def __init__(self, directory: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._directory = directory
        self._clock = clock
        self.is_full = False
        self.is_known = True  # whether the file system told
        self._due = 0.0
        self._bytes_left = 0
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
        self.reserve = reserve_bytes(self.total_bytes)
        was_full = self.is_full
        self.is_full = self.free_bytes < self.reserve * (RESUME_FACTOR if was_full else 1)
        if self.is_full and not was_full:
            logger.warning("the disk has %d MiB free, less than the reserve: produce is refused", self.free_bytes >> 20)
        elif was_full and not self.is_full:
            logger.info("the disk has %d MiB free again: produce goes on", self.free_bytes >> 20)
