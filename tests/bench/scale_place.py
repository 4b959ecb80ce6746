"""What `tests.bench.scale` measures with: a broker whose starts and memory are watched, and figures with a goal."""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles
from typing import TypeVar

from rocksmq.clients.bench.usage import peak_memory_bytes
from rocksmq.clients.testing import Broker

MIB = 1 << 20
RSS_BYTES_MAX = 512 * MIB
START_SECONDS_MAX = 1.0
SEEK_MS_MAX = 5.0
CONSUME_RATIO_MIN = 0.9
COLUMNS = ("name", "median", "lowest", "highest", "unit", "goal", "")
Result = TypeVar("Result")


class Tally(dict[str, "Figure"]):
    """The figures by their names, in the order of their first values."""

    def note(self, name: str, unit: str, value: float, *, at_most: float | None = None, at_least: float | None = None) -> None:
        """One value more of that figure."""
        self.setdefault(name, Figure(name, unit, at_most, at_least)).values.append(value)

    def note_calls(self, name: str, seconds: list[float], *, at_most: float | None = None) -> None:
        """The median and the 99th percentile of the ``seconds`` that calls took; the goal is of the latter."""
        cuts = quantiles(seconds, n=100, method="inclusive")
        self.note(f"{name}, p50", "ms", cuts[49] * 1e3)
        self.note(f"{name}, p99", "ms", cuts[98] * 1e3, at_most=at_most)


@dataclass(slots=True)
class Figure:
    """What was measured once or more, and what its median should be."""

    name: str
    unit: str
    at_most: float | None = None
    at_least: float | None = None
    values: list[float] = field(default_factory=list[float])

    @property
    def is_met(self) -> bool | None:
        """None: there is no goal."""
        if self.at_most is not None:
            return median(self.values) <= self.at_most
        return None if self.at_least is None else median(self.values) >= self.at_least

    def record(self) -> dict[str, object]:
        """For JSON: one flat object."""
        return {
            "name": self.name,
            "median": round(median(self.values), 3),
            "lowest": round(min(self.values), 3),
            "highest": round(max(self.values), 3),
            "unit": self.unit,
            "values": len(self.values),
            "at_most": self.at_most,
            "at_least": self.at_least,
            "is_met": self.is_met,
        }


def cells(record: Mapping[str, object]) -> dict[str, str]:
    """A figure's record as people see it, by COLUMNS."""
    goal = "" if record["at_most"] is None else f"≤ {record['at_most']:g}"
    goal = goal if record["at_least"] is None else f"≥ {record['at_least']:g}"
    verdict = {None: "", True: "met", False: "MISSED"}[record["is_met"]]  # type: ignore[index]  # pyright: ignore[reportArgumentType]
    shown = [f"{record[name]:,.3g}" if _is_small(record[name]) else f"{record[name]:,.0f}" for name in COLUMNS[1:4]]
    return dict(zip(COLUMNS, [str(record["name"]), *shown, str(record["unit"]), goal, verdict], strict=True))


def _is_small(value: object) -> bool:
    return isinstance(value, float) and abs(value) < 100


class Watched(Broker):
    """A broker whose starts are timed, and whose memory is watched stretch by stretch."""

    def start_seconds(self) -> float:
        """Start it; the seconds until it serves, the interpreter's own start among them."""
        begin = time.perf_counter()
        self.start()
        return time.perf_counter() - begin

    def begin_peak(self) -> None:
        """From now on the most memory counts anew."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    def note_peak(self, tally: Tally, when: str) -> None:
        """The most that it had resident since `begin_peak`, or its start."""
        tally.note(f"most memory while {when}", "MiB", peak_memory_bytes(self.pid) / MIB, at_most=RSS_BYTES_MAX / MIB)

    def forget_pages(self) -> None:
        """Have the system drop from its cache what it has of the data files, so that the next reads are the disk's."""
        for file in self.files():
            with suppress(FileNotFoundError):  # a compaction has just removed it
                fd = os.open(file, os.O_RDONLY)
                os.fsync(fd)
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
                os.close(fd)

    def load_pages(self) -> None:
        """Have the system read the data files into its cache, as far as they fit."""
        for file in self.files():
            with suppress(FileNotFoundError), file.open("rb", buffering=0) as read:
                while read.read(MIB):
                    pass

    def files(self) -> Iterator[Path]:
        """Of the database."""
        return (file for file in (self.directory / "db").iterdir() if file.suffix in (".sst", ".log"))

    def disk_bytes(self) -> int:
        """What the data take on the disk."""
        total = 0
        for file in self.files():
            with suppress(FileNotFoundError):
                total += file.stat().st_size
        return total


def timed(call: Callable[[], Result]) -> tuple[float, Result]:
    """Seconds that it takes, and what it returns."""
    begin = time.perf_counter()
    result = call()
    return time.perf_counter() - begin, result
