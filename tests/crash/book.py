"""The ledger of one life of one worker: an append-only file, which a kill of the worker may cut off but not spoil.

record   kind u8 | length of the body in bytes u32 | body
"""

import json
import os
from array import array
from collections.abc import Iterable, Iterator, Sequence
from enum import IntEnum
from pathlib import Path
from struct import Struct
from typing import Any, NamedTuple

_HEAD = Struct("<BI")


class Kind(IntEnum):
    """What a record says. The body: numbers of 64 bits, or JSON."""

    SENT = 1  # [first label, count]: about to be handed to the client
    STORED = 2  # [first label, first id, count]: acknowledged, with these ids
    UNKNOWN = 3  # labels whose outcome the client could not tell
    REFUSED = 4  # labels that are certainly not stored
    HANDED = 5  # ids, then as many labels: handed out by a consumer
    COMMITTING = 6  # [position]: about to be committed
    COMMITTED = 7  # [position]
    ERROR = 8  # JSON: type and text of what the client raised
    OUTAGES = 9  # [how often the client lost its connection and came back]
    END = 10  # []: a clean end


class Record(NamedTuple):
    """One record: ``numbers``, or of an ERROR ``text``."""

    kind: Kind
    numbers: Sequence[int]
    text: str = ""


class Book:
    """Writes; may be shared by threads, as each record is one write."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)

    def note(self, kind: Kind, numbers: Iterable[int] = ()) -> None:
        """Append a record of numbers."""
        self._append(kind, array("Q", numbers).tobytes())

    def error(self, error: Exception) -> None:
        """Append what the client raised."""
        self._append(Kind.ERROR, json.dumps([type(error).__name__, str(error)]).encode())

    def close(self) -> None:
        """The end of this worker's life, as it should be."""
        self.note(Kind.END)
        os.close(self._fd)

    def _append(self, kind: Kind, body: bytes) -> None:
        record = _HEAD.pack(kind, len(body)) + body
        assert os.write(self._fd, record) == len(record), "the disk has room"


def read_book(path: Path) -> Iterator[Record]:
    """The records of a book, but for one that was cut off."""
    content = path.read_bytes()
    begin = 0
    while begin + _HEAD.size <= len(content):
        number, length = _HEAD.unpack_from(content, begin)
        body = content[begin + _HEAD.size : begin + _HEAD.size + length]
        if len(body) < length:
            return
        kind = Kind(number)
        if kind is Kind.ERROR:
            name, text = _pair(json.loads(body))
            yield Record(kind, (), f"{name}: {text}")
        else:
            numbers = array("Q")
            numbers.frombytes(body)
            yield Record(kind, numbers)
        begin += _HEAD.size + length


def _pair(value: Any) -> tuple[str, str]:
    name, text = value
    return str(name), str(text)
