"""What the processes of `streams` write down: a line of JSON each, behind its checksum, so that a torn last line shows.

A file may be gone on with: what a kill has torn off at its end is removed first.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32


class Record(NamedTuple):
    """One line: ``kind`` says what ``body`` is about."""

    kind: str
    body: Any


class Book:
    """Appends; each record is one write, which a kill of the process may cut off but not spoil."""

    def __init__(self, path: Path, *, syncs: bool = False) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        os.ftruncate(self._fd, _whole(path.read_bytes()))
        self._syncs = syncs

    def note(self, kind: str, body: Any = None) -> None:
        """Append a record; durable when it returns, if this book syncs."""
        text = json.dumps([kind, body], separators=(",", ":")).encode()
        line = b"%08x %s\n" % (crc32(text), text)
        assert os.write(self._fd, line) == len(line), "the disk has room"
        if self._syncs:
            os.fsync(self._fd)


def read_book(path: Path) -> Iterator[Record]:
    """The records of a book, but for one that was cut off; none if there is no such book yet."""
    content = path.read_bytes() if path.exists() else b""
    for line in content[: _whole(content)].splitlines():
        kind, body = json.loads(line[9:])
        yield Record(kind, body)


def _whole(content: bytes) -> int:
    """The length of what was not torn. Raises AssertionError when something else than the end is damaged."""
    end = content.rfind(b"\n") + 1
    for line in content[:end].splitlines():
        assert line[:8] == b"%08x" % crc32(line[9:]), f"{line[:80]!r} is damaged"
    return end
