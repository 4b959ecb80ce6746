"""Durability modes: when a produce is acknowledged (contract: fsync, interval:<ms>, os)."""

import re
from collections.abc import Iterable
from enum import StrEnum
from typing import NamedTuple

from rocksmq.protocol.errors import InvalidRequest

INTERVAL_MS_MAX = 60_000
_INTERVAL = re.compile(r"interval:([1-9][0-9]{0,4})")


class Mode(StrEnum):
    FSYNC = "fsync"  # after the sync: survives a power cut
    INTERVAL = "interval"  # after the write, synced at most so much later
    OS = "os"  # after the write: survives kill -9, not a power cut


_STRICTNESS = (Mode.FSYNC, Mode.INTERVAL, Mode.OS)


class Durability(NamedTuple):
    """A mode and, for `Mode.INTERVAL`, its milliseconds."""

    mode: Mode
    interval_ms: int = 0

    @classmethod
    def parse(cls, text: str) -> "Durability":
        """From ``fsync``, ``interval:<ms>`` or ``os``. Raises InvalidRequest."""
        if text in (Mode.FSYNC, Mode.OS):
            return cls(Mode(text))
        if (match := _INTERVAL.fullmatch(text)) and int(match[1]) <= INTERVAL_MS_MAX:
            return cls(Mode.INTERVAL, int(match[1]))
        shown = text if len(text) <= 40 else text[:37] + "..."
        raise InvalidRequest(
            f"durability {shown!r} is not one of fsync, os or interval:<ms> with 1 to {INTERVAL_MS_MAX} milliseconds"
        )

    @staticmethod
    def strictest(modes: Iterable["Durability"]) -> "Durability":
        """The one that fulfils all ``modes``, of which there is one at least."""
        return min(modes, key=lambda mode: (_STRICTNESS.index(mode.mode), mode.interval_ms))

    def __str__(self) -> str:
        return f"interval:{self.interval_ms}" if self.mode is Mode.INTERVAL else str(self.mode)
