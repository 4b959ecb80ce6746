"""Is the clock right? Messages that reached their age are removed by it, and what a wrong clock removes is gone.

Pure but for reading the clocks. A wall clock that was set, seen against the time since boot, or that is behind the ids, is
in doubt until somebody confirms it. Steps while no broker runs are seen if the machine was not started anew meanwhile.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from rocksmq.protocol.cbor import decode_value, encode_value

STEP_MS_MAX = 60_000
AHEAD_MS_MAX = 60_000
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class ClockNote(NamedTuple):
    """What is stored: of which boot of the machine, the wall clock minus the time since boot, and whether that is in doubt."""

    boot: str
    offset_ms: int
    doubt: str | None

    def encode(self) -> bytes:
        return encode_value([self.boot, self.offset_ms + (1 << 62), self.doubt])

    @classmethod
    def decode(cls, data: bytes) -> "ClockNote":
        boot, offset_ms, doubt = decode_value(data)
        return cls(boot, offset_ms - (1 << 62), doubt)


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


def _boot_ms() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


def _boot_id() -> str:
    return BOOT_ID.read_text().strip() if BOOT_ID.exists() else ""


class ClockGuard:
    """``doubt`` says in words what is wrong, None: nothing is. ``note`` is what to store."""

    def __init__(
        self,
        stored: ClockNote | None,
        *,
        wall_ms: Callable[[], int] = _wall_ms,
        boot_ms: Callable[[], int] = _boot_ms,
        boot_id: Callable[[], str] = _boot_id,
    ) -> None:
        self._wall_ms, self._boot_ms = wall_ms, boot_ms
        boot, offset_ms = boot_id(), wall_ms() - boot_ms()
        if stored is None:
            self.note = ClockNote(boot, offset_ms, None)
        elif stored.boot == boot:
            self.note = stored
        else:
            self.note = ClockNote(boot, offset_ms, stored.doubt)
        self._is_ahead_confirmed = False

    @property
    def doubt(self) -> str | None:
        return self.note.doubt

    def look(self, ids_ms: int) -> None:
        """Compare the clocks, and the wall clock with the time ``ids_ms`` that the ids have reached."""
        step_ms = self._wall_ms() - self._boot_ms() - self.note.offset_ms
        ahead_ms = ids_ms - self._wall_ms()
        if ahead_ms <= AHEAD_MS_MAX:
            self._is_ahead_confirmed = False
        if self.doubt is not None:
            return
        if abs(step_ms) > STEP_MS_MAX:
            way = "forward" if step_ms > 0 else "back"
            self.note = self.note._replace(doubt=f"the wall clock was set {way} by {abs(step_ms) // 1000} s")
        elif ahead_ms > AHEAD_MS_MAX and not self._is_ahead_confirmed:
            self.note = self.note._replace(doubt=f"the wall clock is {ahead_ms // 1000} s behind the last ids")

    def confirm(self) -> None:
        """The clock is right as it is now."""
        self.note = self.note._replace(offset_ms=self._wall_ms() - self._boot_ms(), doubt=None)
        self._is_ahead_confirmed = True
