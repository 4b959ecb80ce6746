"""Whether each log that RocksDB was to read was there, and read to its end; kept by `store` in the database itself. Pure.

Where a log is missing, is empty, or ends early between two records, recovery goes on with the next one: a hole in the middle,
which the number of the last commit does not show. So each write has a number, and notes it under a key of its log:

    "\\xff log" | log u64 | number mod 2   ->   first number in this log u64 | number u64

Two keys, in turns: should RocksDB begin a log by itself, then one write notes the former log in the new one before that is
known; the other key still tells where the former one ended.
"""

import struct
from collections.abc import Iterable
from struct import Struct
from typing import NamedTuple

from rocksmq.protocol.errors import StorageFailed

PREFIX = b"\xff log"
END = b"\xff loh"
LOG_BLOCK_BYTES, LOG_HEADER_BYTES = 32 * 1024, 7  # of RocksDB's log: a record is split where a block ends
KEPT = 16  # logs whose keys stay: more than are ever needed at once
_KEY = Struct(">QB")
_VALUE = Struct(">QQ")


class Note(NamedTuple):
    """What a write adds to itself. ``clears``: all keys go before."""

    key: bytes
    value: bytes
    outdated: tuple[bytes, ...]
    clears: bool


class LogChain:
    """``gap`` says what is missing, in words; None: nothing is. If the write after is done all the same, it begins anew."""

    def __init__(self, found: Iterable[tuple[bytes, bytes]]) -> None:
        """``found`` is what stands under `PREFIX`; it may raise StorageFailed."""
        logs: dict[int, list[tuple[int, int]]] = {}
        self.gap: str | None = None
        try:
            for key, value in found:
                log, _ = _KEY.unpack(key[len(PREFIX) :])
                first, number = _VALUE.unpack(value)
                logs.setdefault(log, []).append((first, number))
            self.gap = _gap(logs)
        except (ValueError, struct.error, StorageFailed) as error:
            self.gap = f"what it notes of its logs cannot be read: {error}"
        self._log = max(logs, default=0) if self.gap is None else 0
        self._number = max((number for _, number in logs.get(self._log, ())), default=0)
        self._first = self._number + 1
        self._is_new = True  # what is written next goes to a log that has no key yet
        self._clears = self.gap is not None

    def begin_log(self) -> None:
        """What is written next goes to a new log."""
        self._is_new = True

    def note(self) -> Note:
        """Of the next write; nothing is changed until it is `written`."""
        log, number = self._log + self._is_new, self._number + 1
        first = number if self._is_new else self._first
        outdated = tuple(_key(log - KEPT, slot) for slot in (0, 1)) if self._is_new and log > KEPT else ()
        return Note(_key(log, number % 2), _VALUE.pack(first, number), outdated, self._clears)

    def written(self) -> None:
        """The write of the last `note` is done."""
        self._number += 1
        if self._is_new:
            self._log, self._first = self._log + 1, self._number
        self._is_new = self._clears = False
        self.gap = None


def _key(log: int, slot: int) -> bytes:
    return PREFIX + _KEY.pack(log, slot)


def _gap(logs: dict[int, list[tuple[int, int]]]) -> str | None:
    """What is missing. Raises ValueError for what was never written so."""
    if not logs:
        return None
    newest = max(logs)
    oldest = max(1, newest - KEPT + 1)
    before = 0 if oldest == 1 else None  # the last number of the log before
    for log in range(oldest, newest + 1):
        if log not in logs:
            behind = "" if before is None else f", with what was written behind number {before}"
            return f"one of the database's logs is missing or empty{behind}"
        firsts = {first for first, _ in logs[log]}
        first, numbers = min(firsts), sorted(number for _, number in logs[log])
        if len(firsts) > 1 or first > numbers[0]:
            raise ValueError(f"log {log} has {logs[log]}")
        if before is not None and first != before + 1:
            return _missing(before, first)
        last = numbers[-1]
        if numbers != ([last] if last == first else [last - 1, last]):
            return _missing(numbers[0] if len(numbers) > 1 else first - 1, last)
        before = last
    return None


def _missing(behind: int, next_number: int) -> str:
    count = next_number - behind - 1
    writes = "1 write is" if count == 1 else f"{count:,} writes are"
    return f"one of the database's logs is missing, or its end: {writes} not there, and later ones are"


def end_of_record(begin: int, size: int) -> int:
    """Where in a log a record of ``size`` bytes ends, when the one before it ended at ``begin``."""
    left = -begin % LOG_BLOCK_BYTES or LOG_BLOCK_BYTES
    if left < LOG_HEADER_BYTES:
        begin, left = begin + left, LOG_BLOCK_BYTES
    more = size - (left - LOG_HEADER_BYTES)
    if more <= 0:
        return begin + LOG_HEADER_BYTES + size
    blocks, last = divmod(more - 1, LOG_BLOCK_BYTES - LOG_HEADER_BYTES)
    return begin + left + blocks * LOG_BLOCK_BYTES + LOG_HEADER_BYTES + last + 1
