"""Where a backup is written to: a new directory, or one file, a tar compressed by zstd.

It is made beside its place, as `<TARGET>.partial`, and gets its name once all of it is synced, the manifest last. What exists
is never overwritten. Tables, which never change, are linked instead of copied where that can be.
"""

import errno
import os
import shutil
import tarfile
from abc import ABC, abstractmethod
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import IO, Self, cast

import zstandard

from .backup_files import PIECE_BYTES, BackupMisused, Digesting, SyncedFile, Tick, check_room, copy, digest_of
from .backup_manifest import NAME, BackupFile, Manifest
from .directory import sync_directory
from .live_links import TABLE

TAR_ENDING = ".tar.zst"
LEVEL = 3  # of compression; tables are compressed already, so a higher one gains little
TAR_BLOCK_BYTES = 512
NOT_LINKED = (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP)  # another file system, or one without links


class Base:
    """An earlier backup, a directory, whose tables may be linked to."""

    def __init__(self, path: Path) -> None:
        """Raises BackupMisused, DataRefused, OSError."""
        self.path = path
        manifest = path / NAME
        if not manifest.is_file():
            raise BackupMisused(f"{path} is no backup in a directory: it has no {NAME}")
        self._files = {file.name: file for file in Manifest.decode(manifest.read_bytes()).files}

    def may_have(self, name: str, size: int) -> bool:
        """Whether it has a file of that name and size."""
        found = self._files.get(name)
        return found is not None and found.bytes == size

    def link(self, file: BackupFile, target: Path) -> bool:
        """Link its file to ``target`` if it is the same as ``file``; whether it was. Raises OSError."""
        place = self.path / file.name
        if self._files.get(file.name) != file or not place.is_file() or place.stat().st_size != file.bytes:
            return False
        if digest_of(place, file.bytes, lambda more: None) != file.sha256:  # it may have rotted since
            return False
        return _linked(place, target)


class Target(ABC):
    """One backup in the making; a context manager that leaves nothing of one that was not finished.

    ``linked_bytes`` and ``copied_bytes`` are what became of its files so far.
    """

    def __init__(self, path: Path) -> None:
        """Begin it. Raises BackupMisused when there is something already, OSError."""
        if os.path.lexists(path):
            raise BackupMisused(f"{path} exists: a backup never overwrites anything")
        self.path = path
        self.partial = path.with_name(f"{path.name}.partial")
        self.linked_bytes = self.copied_bytes = 0
        self._is_finished = False
        if not path.parent.is_dir():
            raise BackupMisused(f"{path.parent} is no directory")
        if os.path.lexists(self.partial):
            raise BackupMisused(f"{self.partial} is left of a backup that was cut short, or is being made: remove it first")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if not self._is_finished:
            self._abandon()

    @abstractmethod
    def begin(self, manifest: Manifest, checkpoint: Path) -> None:
        """``manifest`` has all files, still without digests. Raises BackupFailed when they do not fit, OSError."""

    @abstractmethod
    def add(self, source: Path, file: BackupFile, tick: Tick) -> BackupFile:
        """Take the next file; it with its digest. Raises OSError, Shorter."""

    def finish(self, manifest: Manifest) -> None:
        """All is there: sync it, and give it its name. Raises OSError."""
        self._finish(manifest)
        sync_directory(self.path.parent)
        self._is_finished = True

    @abstractmethod
    def _finish(self, manifest: Manifest) -> None: ...

    @abstractmethod
    def _abandon(self) -> None:
        """Remove what there is of it. Raises OSError."""


def target_of(path: Path, base: Base | None) -> Target:
    """Raises BackupMisused, OSError."""
    if not path.name.endswith(TAR_ENDING):
        return DirectoryTarget(path, base)
    if base is not None:
        raise BackupMisused("--base needs a directory as TARGET: in a tar nothing can be linked")
    return TarTarget(path)


class DirectoryTarget(Target):
    """A directory. Tables are links to the broker's on the same file system, else to those of ``base`` that are equal."""

    def __init__(self, path: Path, base: Base | None) -> None:
        super().__init__(path)
        self._base = base
        self.partial.mkdir(mode=0o700)
        (self.partial / "db").mkdir(mode=0o700)

    def begin(self, manifest: Manifest, checkpoint: Path) -> None:
        is_near = checkpoint.stat().st_dev == self.partial.stat().st_dev
        base = self._base
        linked = (file for file in manifest.files if is_near or (base is not None and base.may_have(file.name, file.bytes)))
        check_room(self.partial, manifest.byte_count - sum(file.bytes for file in linked if file.name.endswith(TABLE)))

    def add(self, source: Path, file: BackupFile, tick: Tick) -> BackupFile:
        place = self.partial / file.name
        is_table = file.name.endswith(TABLE)
        if is_table and _linked(source, place):
            self.linked_bytes += file.bytes
            return file._replace(sha256=digest_of(place, file.bytes, tick))
        if is_table and self._base is not None and self._base.may_have(file.name, file.bytes):
            digested = file._replace(sha256=digest_of(source, file.bytes, tick))
            if self._base.link(digested, place):
                self.linked_bytes += file.bytes
                return digested
            tick(-file.bytes)
        with source.open("rb") as reader, SyncedFile(place) as out:
            digest = copy(reader, file.bytes, out.write, tick)
            out.sync()
        self.copied_bytes += file.bytes
        return file._replace(sha256=digest)

    def _finish(self, manifest: Manifest) -> None:
        sync_directory(self.partial / "db")
        with SyncedFile(self.partial / NAME) as out:
            out.write(manifest.encode())
            out.sync()
        sync_directory(self.partial)
        self.partial.rename(self.path)  # fails if there is anything but an empty directory meanwhile

    def _abandon(self) -> None:
        with suppress(FileNotFoundError):
            shutil.rmtree(self.partial)


class TarTarget(Target):
    """One file, from front to back, so that it may lie on anything that takes a file."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._out = SyncedFile(self.partial)

    def begin(self, manifest: Manifest, checkpoint: Path) -> None:
        # The size stands at the beginning, so that whoever unpacks it knows what room that takes.
        compressor = zstandard.ZstdCompressor(level=LEVEL, write_checksum=True)
        self._zstd = compressor.stream_writer(cast(IO[bytes], self._out), size=tar_bytes(manifest), closefd=False)
        self._tar = tarfile.TarFile(fileobj=self._zstd, mode="w", format=tarfile.GNU_FORMAT, copybufsize=PIECE_BYTES)

    def add(self, source: Path, file: BackupFile, tick: Tick) -> BackupFile:
        with source.open("rb") as reader:
            digesting = Digesting(reader, tick)
            self._tar.addfile(_member(file.name, file.bytes), cast(IO[bytes], digesting))
        self.copied_bytes += file.bytes
        return file._replace(sha256=digesting.hexdigest())

    def _finish(self, manifest: Manifest) -> None:
        data = manifest.encode()
        self._tar.addfile(_member(NAME, len(data)), BytesIO(data))
        self._tar.close()
        self._zstd.close()  # type: ignore[no-untyped-call]  # the stub forgets what it returns
        self._out.sync()
        self._out.close()
        if _linked(self.partial, self.path):  # fails if there is something meanwhile, which a rename does not
            self.partial.unlink()
        elif os.path.lexists(self.path):
            raise BackupMisused(f"{self.path} exists: a backup never overwrites anything")
        else:
            self.partial.rename(self.path)

    def _abandon(self) -> None:
        self._out.close()
        self.partial.unlink(missing_ok=True)


def _member(name: str, size: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, 0o600
    return member


def tar_bytes(manifest: Manifest) -> int:
    """How long the tar of a backup is; the digests in ``manifest`` do not matter."""
    sizes = [file.bytes for file in manifest.files] + [len(manifest.encode())]
    content = sum(TAR_BLOCK_BYTES + size + -size % TAR_BLOCK_BYTES for size in sizes) + 2 * TAR_BLOCK_BYTES
    return content + -content % tarfile.RECORDSIZE


def _linked(source: Path, target: Path) -> bool:
    """Link them, where that can be. Raises OSError."""
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno in NOT_LINKED:
            return False
        raise
    return True
