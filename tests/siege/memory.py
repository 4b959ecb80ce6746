"""What a process holds in memory, as Linux counts it: now, at its most, and over time."""

import threading
import time
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

SAMPLE_SECONDS = 0.05
IDLE_BYTES = 32 << 20  # of a broker that does nothing
STORE_BYTES_MAX = (3 * 64 + 32) << 20  # that it may hold beside: three memtables, and the tail of its channels


class Memory(NamedTuple):
    """Of one moment. ``anon_bytes`` are what it allocated, without files; ``peak_bytes`` the most since `forget_peak`."""

    anon_bytes: int
    resident_bytes: int
    peak_bytes: int

    @classmethod
    def of(cls, pid: int) -> Self:
        """Of the process ``pid``."""
        rows = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        return cls(*(int(rows[name].split()[0]) * 1024 for name in ("RssAnon", "VmRSS", "VmHWM")))


def forget_peak(pid: int) -> Memory:
    """Begin a new peak of the process ``pid``, at what it holds now."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")
    return Memory.of(pid)


class Watch:
    """Samples a process until its block ends: (seconds since the begin, what it held)."""

    def __init__(self, pid: int) -> None:
        self.samples: list[tuple[float, Memory]] = []
        self._pid = pid
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        begin = time.monotonic()
        while not self._over.wait(SAMPLE_SECONDS):
            self.samples.append((time.monotonic() - begin, Memory.of(self._pid)))
