"""A backup that is read: its manifest, what is wrong with its files, and its files unpacked.

A tar is read from front to back; its manifest comes last, so its files are compared once all are unpacked.
"""

import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import zstandard

from .backup_files import PIECE_BYTES, BackupFailed, BackupMisused, Shorter, SyncedFile, Tick, check_room, copy, digest_of
from .backup_manifest import FILE_NAME, NAME, BackupFile, Manifest
from .directory import sync_directory
from .findings import Finding, problem

HEAD_BYTES = 18  # of a zstd frame at most
MANIFEST_BYTES_MAX = 256 << 20  # of a million files


def manifest_of(backup: Path) -> Manifest:
    """Of a backup in a directory. Raises BackupMisused, DataRefused, OSError."""
    if not (backup / NAME).is_file():
        raise BackupMisused(f"{backup} is no backup, or one that was not finished: it has no {NAME}")
    return Manifest.decode((backup / NAME).read_bytes())


def differences(manifest: Manifest, backup: Path, tick: Tick) -> Iterator[Finding]:
    """What is wrong with the files of a backup in a directory: each of them is read. Raises OSError."""
    for file in manifest.files:
        place = backup / file.name
        if not place.is_file():
            yield problem(file.name, "it is missing")
            tick(file.bytes)
        elif (size := place.stat().st_size) != file.bytes:
            yield problem(file.name, f"it has {size:,} bytes, not {file.bytes:,}")
            tick(file.bytes)
        elif digest_of(place, size, tick) != file.sha256:
            yield problem(file.name, "it is damaged: its SHA-256 is another one")
    names = {file.name for file in manifest.files}
    for entry in sorted(os.listdir(backup / "db")) if (backup / "db").is_dir() else ():
        if f"db/{entry}" not in names:
            yield problem(f"db/{entry}", "it does not belong to the backup")


def copy_out(backup: Path, into: Path, tick: Tick) -> Manifest:
    """Write the files of a backup to ``into``, an empty directory, synced. Raises BackupFailed, DataRefused, OSError.

    They are what the manifest says, or it fails.
    """
    manifest = manifest_of(backup)
    check_room(into, manifest.byte_count)
    (into / "db").mkdir(mode=0o700)
    for file in manifest.files:
        try:
            with (backup / file.name).open("rb") as reader, SyncedFile(into / file.name) as out:
                digest = copy(reader, file.bytes, out.write, tick)
                out.sync()
        except FileNotFoundError as error:
            raise BackupFailed(f"{backup / file.name} is missing") from error
        except Shorter as error:
            raise BackupFailed(f"{backup / file.name} is damaged: {error}") from error
        if digest != file.sha256:
            raise BackupFailed(f"{backup / file.name} is damaged: its SHA-256 is not the one in {NAME}")
    sync_directory(into / "db")
    return manifest


def unpacked_bytes(backup: Path) -> int:
    """How much room a tar takes that is unpacked. Raises BackupMisused, OSError."""
    with backup.open("rb") as file:
        head = file.read(HEAD_BYTES)
    try:
        size = zstandard.get_frame_parameters(head).content_size
    except zstandard.ZstdError as error:
        raise BackupMisused(f"{backup} is no backup: neither a directory nor compressed by zstd") from error
    if size == zstandard.CONTENTSIZE_UNKNOWN:
        raise BackupMisused(f"{backup} is no backup that `rocksmq backup create` made")
    return size


def unpack(backup: Path, into: Path, tick: Tick) -> Manifest:
    """As `copy_out`, of a tar. ``tick`` is told of the bytes of files."""
    check_room(into, unpacked_bytes(backup))
    (into / "db").mkdir(mode=0o700)
    found: dict[str, BackupFile] = {}
    try:
        with backup.open("rb") as packed:
            stream = zstandard.ZstdDecompressor().stream_reader(packed, read_size=PIECE_BYTES)
            with tarfile.open(fileobj=stream, mode="r|", bufsize=PIECE_BYTES) as tar:
                manifest = _unpack(tar, into, found, tick)
    except (tarfile.TarError, zstandard.ZstdError, EOFError, Shorter) as error:
        raise BackupFailed(f"{backup} is damaged, or was cut off: {error}") from error
    if manifest is None:
        raise BackupFailed(f"{backup} was cut off: it has no {NAME} at its end")
    for file in manifest.files:
        if found.pop(file.name, None) != file:
            raise BackupFailed(f"{backup}: {file.name} is missing or damaged: it is not what {NAME} says")
    if found:
        raise BackupFailed(f"{backup}: {min(found)} does not belong to the backup")
    sync_directory(into / "db")
    return manifest


def _unpack(tar: tarfile.TarFile, into: Path, found: dict[str, BackupFile], tick: Tick) -> Manifest | None:
    manifest: Manifest | None = None
    for member in tar:
        content = tar.extractfile(member) if member.isreg() and not member.issparse() else None
        if content is None or manifest is not None or member.name in found:
            raise BackupFailed(f"{member.name} does not belong to the backup")
        if member.name == NAME and member.size <= MANIFEST_BYTES_MAX:
            manifest = Manifest.decode(content.read())
        elif FILE_NAME.fullmatch(member.name):
            with SyncedFile(into / member.name) as out:
                digest = copy(content, member.size, out.write, tick)
                out.sync()
            found[member.name] = BackupFile(member.name, member.size, digest)
        else:
            raise BackupFailed(f"{member.name!r} does not belong to a backup")
    return manifest
