"""What a backup says of itself: the file `backup.json`, written last, so that without it there is no backup.

    BACKUP/backup.json    the manifest: whose data, up to which group commit, size and SHA-256 of each file
    BACKUP/db/            the files of RocksDB

In a tar it is the last member. Its own last field is the SHA-256 of the others, so that a damaged number is noticed.
"""

import hashlib
import json
import re
from typing import Any, NamedTuple

from .directory import FORMAT
from .store import DataRefused

NAME = "backup.json"
KIND, VERSION = "rocksmq backup", 1
FILE_NAME = re.compile(r"db/[A-Za-z0-9][A-Za-z0-9._-]*")  # of all files but the manifest


class BackupFile(NamedTuple):
    """One file: its place in the backup, its size and its digest in hexadecimal."""

    name: str
    bytes: int
    sha256: str


class Manifest(NamedTuple):
    """``format`` and ``instance`` of the data directory. ``mark``: all acknowledged before the backup began is up to that group
    commit; ``commit_number``: so far the backup goes at least. ``positions``: the store that kept them; ``has_positions``:
    whether they, or the copy of them, are in the backup.
    """

    format: int
    instance: str
    created: str
    mark: int
    commit_number: int
    positions: str
    has_positions: bool
    files: tuple[BackupFile, ...]

    @property
    def byte_count(self) -> int:
        """Of all files."""
        return sum(file.bytes for file in self.files)

    def encode(self) -> bytes:
        """Its size does not depend on the digests."""
        content: dict[str, Any] = {"kind": KIND, "version": VERSION, **self._asdict()}
        content["files"] = [file._asdict() for file in self.files]
        return json.dumps({**content, "sha256": _digest(content)}, indent=1).encode() + b"\n"

    @classmethod
    def decode(cls, data: bytes) -> "Manifest":
        """Raises DataRefused for what this version cannot read, or `encode` did not make."""
        try:
            content = json.loads(data)
            digest, kind, version = content.pop("sha256"), content.pop("kind"), content.pop("version")
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise DataRefused(f"{NAME} is damaged, or no manifest of a backup") from error
        if kind != KIND:
            raise DataRefused(f"{NAME} is no manifest of a backup")
        if version != VERSION:
            raise DataRefused(f"the backup has version {version}, and this rocksmq reads {VERSION}: upgrade it")
        try:
            if digest != _digest({"kind": kind, "version": version, **content}):
                raise ValueError(digest)
            files = tuple(BackupFile(**file) for file in content.pop("files"))
            manifest = cls(**content, files=files)
            _check_types(manifest)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise DataRefused(f"{NAME} is damaged: it is not as it was written") from error
        if manifest.format > FORMAT:
            raise DataRefused(
                f"the backup is of data of format {manifest.format}, written by a newer rocksmqd; this one reads up to"
                f" {FORMAT}: upgrade it"
            )
        return manifest


def _check_types(manifest: Manifest) -> None:
    """Raises ValueError."""
    wanted = {"format": int, "instance": str, "created": str, "mark": int, "commit_number": int, "positions": str}
    fields = manifest._asdict()
    if not all(type(fields[name]) is kind for name, kind in wanted.items()):
        raise ValueError(manifest)
    for file in manifest.files:
        if not FILE_NAME.fullmatch(file.name) or type(file.bytes) is not int or file.bytes < 0 or len(file.sha256) != 64:
            raise ValueError(file)
    if len({file.name for file in manifest.files}) != len(manifest.files):
        raise ValueError(manifest.files)


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
