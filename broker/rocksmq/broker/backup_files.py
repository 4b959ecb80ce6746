"""Files on their way into a backup or out of it: read piece by piece, digested, synced.

Whatever must go on meanwhile, such as a bar or the lease of a checkpoint, is told of each piece.
"""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, TypeAlias

from rocksmq.protocol.cbor import Buffer

PIECE_BYTES = 1 << 20
SYNC_BYTES = 64 << 20  # written and not synced at most, so that no sync takes long
RESERVE_BYTES = 64 << 20  # of a disk that are left free

Tick: TypeAlias = Callable[[int], None]  # gets how many bytes more are done


class Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


class BackupFailed(Exception):
    """It cannot be done, for a reason that the text tells."""


class BackupMisused(Exception):
    """The command's arguments do not fit what is there."""


class Shorter(Exception):
    """A file has fewer bytes than it should."""


class Digesting:
    """Reads, and knows the SHA-256 of what was read."""

    def __init__(self, source: Readable, tick: Tick) -> None:
        self._source = source
        self._tick = tick
        self._digest = hashlib.sha256()

    def read(self, size: int) -> bytes:
        piece = self._source.read(size)
        self._digest.update(piece)
        self._tick(len(piece))
        return piece

    def hexdigest(self) -> str:
        return self._digest.hexdigest()


def copy(source: Readable, size: int, write: Callable[[bytes], Any], tick: Tick) -> str:
    """Give the first ``size`` bytes of ``source`` to ``write``; their SHA-256. Raises OSError, Shorter."""
    digesting = Digesting(source, tick)
    while size:
        piece = digesting.read(min(size, PIECE_BYTES))
        if not piece:
            raise Shorter(f"its last {size} bytes are missing")
        write(piece)
        size -= len(piece)
    return digesting.hexdigest()


def digest_of(path: Path, size: int, tick: Tick) -> str:
    """SHA-256 of the first ``size`` bytes of a file. Raises OSError, Shorter."""
    with path.open("rb") as file:
        return copy(file, size, lambda piece: None, tick)


class SyncedFile:
    """A new file, readable by its owner only, that is synced on the way; a context manager that closes it.

    Raises OSError, of which FileExistsError is one.
    """

    def __init__(self, path: Path) -> None:
        self._file = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb", buffering=0)
        self._unsynced = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Whatever was not synced may be lost. May be repeated."""
        self._file.close()

    def write(self, data: Buffer) -> int:
        """All of ``data``."""
        view = memoryview(data)
        size = view.nbytes
        while view:
            view = view[self._file.write(view) :]
        self._unsynced += size
        if self._unsynced >= SYNC_BYTES:
            self.sync()
        return size

    def flush(self) -> None:
        """Nothing is held back."""

    def sync(self) -> None:
        os.fsync(self._file.fileno())
        self._unsynced = 0


def check_room(directory: Path, byte_count: int) -> None:
    """Raises BackupFailed when ``byte_count`` more do not fit onto the disk of ``directory``. Raises OSError."""
    found = os.statvfs(directory)
    free = found.f_bavail * found.f_frsize
    if byte_count + RESERVE_BYTES > free:
        raise BackupFailed(
            f"{byte_count >> 20} MiB do not fit onto the disk of {directory}: {free >> 20} MiB are free, and"
            f" {RESERVE_BYTES >> 20} MiB are left free"
        )
