"""The data directory: its layout, its lock, its format, and opening it safely.

    DIR/lock      flock held while a broker runs; says which, and after a crash still does
    DIR/format    {"format": 1, "instance": ...}: what wrote this directory
    DIR/mark      the durable mark (mark.py)
    DIR/db/       RocksDB
    DIR/checkpoint-*/   what a backup is copied from, while it is (checkpoints.py)
    DIR/db.new/   a rewritten database, until it takes the place of DIR/db (rewrite.py)

Opening refuses what it cannot keep the promise for: a newer format, a missing or damaged
part, a store that holds less than was acknowledged.
"""

import errno
import fcntl
import json
import os
import secrets
import shutil
import socket
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from rocksmq.protocol.errors import DiskFull

from . import keys
from .mark import MarkFile
from .store import DataRefused, DirectoryInUse, Family, Store, peek

FORMAT = 1
HOLDER = "rocksmqd"
CHECKPOINT = "checkpoint-"  # begins the names of what a backup is copied from
REWRITTEN = "db.new"


class DataDirectory:
    """An opened data directory; owns its lock, store and mark.

    ``follows_crash``: the broker before left its name in the lock, which one that ends in order takes out.
    """

    def __init__(self, path: Path, *, accept_loss: bool = False) -> None:
        """Open or create ``path``. Raises DirectoryInUse, DataRefused, DiskFull, OSError."""
        try:
            self._open(path, accept_loss)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise DiskFull(f"the disk is full, so nothing can be written to {path}: free space on it") from error
            raise

    def _open(self, path: Path, accept_loss: bool) -> None:
        self.path = path
        _make_directory(path)
        lock_file = path / "lock"
        self.follows_crash = lock_file.exists() and lock_file.read_bytes().startswith(HOLDER.encode())
        self._lock_fd = lock(lock_file, HOLDER)
        try:
            self.instance = _instance_of(path)
            check_not_rewriting(path)
            try:
                self._open_database(path, accept_loss)
            except DiskFull:
                if not _remove_checkpoints(path):
                    raise
                self._open_database(path, accept_loss)
        except BaseException:
            self._unlock(in_order=not self.follows_crash)
            raise

    def _open_database(self, path: Path, accept_loss: bool) -> None:
        self.mark = _open_mark(path, accept_loss)
        try:
            self.store = Store(path / "db")
            if self.store.log_gap is not None:  # and that was accepted, once
                self.store.write(())
                self.store.sync()
        except BaseException:
            self.mark.close()
            raise

    @property
    def commit_number(self) -> int:
        """Number of the last commit in the store."""
        stored = self.store.get(Family.META, keys.COMMIT_NUMBER)
        return 0 if stored is None else keys.from_u64(stored)

    def close(self, *, in_order: bool = True) -> None:
        """Give the directory up; ``in_order``: the next to open it need not think of a crash."""
        self.mark.close()
        self.store.close()
        self._unlock(in_order=in_order)

    def _unlock(self, *, in_order: bool) -> None:
        if in_order:
            os.ftruncate(self._lock_fd, 0)
        unlock(self._lock_fd)


def _open_mark(directory: Path, accept_loss: bool) -> MarkFile:
    """The mark, when the database holds all that it says was synced; asked before the database is opened for writing."""
    path = directory / "mark"
    stored, log_gap = peek(directory / "db", Family.META, keys.COMMIT_NUMBER)
    recovered = 0 if stored is None else keys.from_u64(stored)
    if accept_loss or (recovered == 0 and not path.exists()):
        mark = MarkFile.create(path, recovered)
        sync_directory(directory)
        return mark
    if not path.exists():
        raise DataRefused(
            f"{path} is missing, so it cannot be told whether acknowledged messages are: restore it with the"
            " directory it belongs to, or start once with --accept-loss"
        )
    mark = MarkFile(path)
    if recovered < mark.number:
        mark.close()
        raise DataRefused(
            f"{directory} holds less than was acknowledged: group commit {mark.number} was synced, the database"
            f" ends at {recovered}, so {mark.number - recovered} commits are missing. Restore a backup, or start"
            " once with --accept-loss to go on without them"
        )
    if log_gap is not None:
        mark.close()
        raise DataRefused(
            f"{directory} lacks what was written: {log_gap}. Restore a backup, or start once with --accept-loss to go on with"
            " what is there"
        )
    return mark


def check_not_rewriting(path: Path) -> None:
    """Raises DataRefused for a directory whose database is on its way from one name to another."""
    if not (path / "db").exists() and (path / REWRITTEN).exists():
        raise DataRefused(
            f"a rewrite of the database in {path} was cut short between two renames: rename `{REWRITTEN}` to `db` in it"
        )


def _remove_checkpoints(path: Path) -> bool:
    """What a backup was copied from when the broker before ended keeps deleted files; whether there was any."""
    found = list(path.glob(f"{CHECKPOINT}*"))
    for checkpoint in found:
        shutil.rmtree(checkpoint, ignore_errors=True)
    return bool(found)


def _make_directory(path: Path) -> None:
    """Make ``path``; without the syncs a power cut can take the whole directory, synced files and all."""
    missing = [level for level in (path, *path.parents) if not level.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        why = "it is a file" if path.is_file() else error.strerror
        raise OSError(f"the data directory {path} cannot be made: {why}; --data-dir names another") from error
    for level in missing:
        sync_directory(level.parent)


def sync_directory(path: Path) -> None:
    """Make what was created and renamed in ``path`` durable."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def lock(path: Path, holder: str) -> int:
    """Take the directory's lock and write down who has it; `unlock` gives it back. Raises DirectoryInUse."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    _flock(fd, path)
    os.ftruncate(fd, 0)
    os.write(fd, _named(holder))
    return fd


def unlock(fd: int) -> None:
    """Give the lock back at once: a child of this process that is just being started has the descriptor, too."""
    fcntl.flock(fd, fcntl.LOCK_UN)
    os.close(fd)


@contextmanager
def locked(path: Path, holder: str) -> Generator[None]:
    """Hold the file `lock` of a data directory for a while; then it says again what it said, so that a crash is not forgotten.

    It may be on a file system that is only read. Raises DirectoryInUse, OSError.
    """
    try:
        fd = os.open(path, os.O_RDWR)
    except OSError as error:
        if error.errno not in (errno.EROFS, errno.EACCES):
            raise
        fd = os.open(path, os.O_RDONLY)
    _flock(fd, path)
    try:
        size = os.fstat(fd).st_size
        with suppress(OSError):
            os.pwrite(fd, b"\n" + _named(holder), size)
        try:
            yield
        finally:
            with suppress(OSError):
                os.ftruncate(fd, size)
    finally:
        unlock(fd)


def _named(holder: str) -> bytes:
    return f"{holder} with pid {os.getpid()} on {socket.gethostname()}".encode()


def _flock(fd: int, path: Path) -> None:
    """Raises DirectoryInUse, and closes ``fd``."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lines = os.read(fd, 1_000).decode(errors="replace").split("\n")
        os.close(fd)
        raise DirectoryInUse(
            f"the data directory {path.parent} is in use by {lines[-1].strip() or 'another process'}"
        ) from error


def _instance_of(path: Path) -> str:
    """The instance id; written first of all when the directory is new."""
    file = path / "format"
    if not file.exists():
        if (path / "db").exists():
            raise DataRefused(f"{path} holds a database but no file `format`: it is not a whole RocksMQ data directory")
        instance = secrets.token_hex(16)
        write_format(path, instance)
        (path / "db").mkdir(mode=0o700)
        sync_directory(path)
        return instance
    version, instance = read_format(path)
    check_format(path, version)
    return instance


def write_format(path: Path, instance: str) -> None:
    """Make the file `format`, synced: there whole or not at all, once the directory is synced too. Raises OSError."""
    temporary = path / "format.new"
    with temporary.open("w") as out:
        json.dump({"format": FORMAT, "instance": instance}, out)
        out.flush()
        os.fsync(out.fileno())
    temporary.rename(path / "format")


def read_format(path: Path) -> tuple[int, str]:
    """Format and instance id of the directory. Raises DataRefused, OSError."""
    file = path / "format"
    try:
        found = json.loads(file.read_text())
        return int(found["format"]), str(found["instance"])
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise DataRefused(f"{file} is damaged: {error}") from error


def check_format(path: Path, version: int) -> None:
    """Raises DataRefused for a format that this version does not read."""
    if version > FORMAT:
        raise DataRefused(
            f"{path} has format {version}, written by a newer rocksmqd; this one reads up to {FORMAT}: upgrade it"
        )
    if version < FORMAT:
        raise DataRefused(f"{path} has format {version}, which was never released")
