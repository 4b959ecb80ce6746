"""What is done to the files of a data directory: bits flipped, ends cut off, files taken away."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from rocksmq.broker.log_chain import LOG_BLOCK_BYTES, LOG_HEADER_BYTES

FEWEST_FLIPS = 64  # of a file, or each of its bits: small ones are damaged more densely
FEWEST_UNREAD = 16  # of one that nothing ever reads
FLIP, CUT, MISSING = "bit", "cut", "missing"
RECORD_ENDS = 8  # of a log, about, at which it is cut too
WHOLE, LAST_PART = 1, 4  # of a record in a log
SHARED = (".sst", ".log")  # never changed in place: links will do


class Case(NamedTuple):
    """``at``: which bit, or to how many bytes it is cut."""

    base: str
    file: str
    damage: str
    at: int

    def __str__(self) -> str:
        return f"{self.base}/{self.file}: {self.damage}{'' if self.damage == MISSING else f' {self.at:,}'}"


def kind_of(file: str) -> str:
    """As the table names it."""
    name = file.rpartition("/")[2]
    for prefix in ("MANIFEST", "OPTIONS"):
        if name.startswith(prefix):
            return f"db/{prefix}-*"
    for suffix, kind in ((".sst", "db/*.sst"), (".log", "db/*.log (WAL)")):
        if name.endswith(suffix):
            return kind
    return "db/LOG* (of what RocksDB did)" if file.startswith("db/LOG") and name != "LOCK" else file


def cases(base: str, path: Path, files: list[Path], step_bits: int, fewest_flips: int = FEWEST_FLIPS) -> Iterator[Case]:
    """All damages to ``files``; every ``step_bits``-th bit is flipped, but no fewer than ``fewest_flips`` of a file."""
    for file in files:
        size = (path / file).stat().st_size
        bits = size * 8
        is_read = not file.name.startswith("LOG")
        step = min(step_bits, max(1, bits // fewest_flips)) if is_read else max(1, bits // FEWEST_UNREAD)
        for at in range(step // 2, bits, step):
            yield Case(base, str(file), FLIP, at)
        lengths = {0, size // 4, size // 2, size * 3 // 4, max(0, size - 4_096), max(0, size - 7), max(0, size - 1)}
        if file.suffix == ".log":
            ends = _record_ends((path / file).read_bytes())
            lengths |= set(ends[:: max(1, len(ends) // RECORD_ENDS)])
        for length in sorted(lengths - {size}):
            yield Case(base, str(file), CUT, length)
        yield Case(base, str(file), MISSING, 0)


def _record_ends(log: bytes) -> list[int]:
    """Where RocksDB's log may end as if nothing followed."""
    ends: list[int] = []
    at = 0
    while at + LOG_HEADER_BYTES <= len(log):
        if -at % LOG_BLOCK_BYTES < LOG_HEADER_BYTES and at % LOG_BLOCK_BYTES:
            at += -at % LOG_BLOCK_BYTES
            continue
        size, kind = int.from_bytes(log[at + 4 : at + 6], "little"), log[at + 6]
        at += LOG_HEADER_BYTES + size
        if kind in (WHOLE, LAST_PART):
            ends.append(at)
    return ends


def damaged_copy(source: Path, target: Path, case: Case) -> None:
    """Make ``target``, a copy of ``source`` with the damage of ``case``."""
    for folder, _, names in os.walk(source):
        to = target / Path(folder).relative_to(source)
        to.mkdir(parents=True)
        for name in names:
            file = Path(folder) / name
            if str(file.relative_to(source)) == case.file:
                _damage(file, to / name, case)
            elif name.endswith(SHARED):
                os.link(file, to / name)
            else:
                shutil.copyfile(file, to / name)


def _damage(source: Path, target: Path, case: Case) -> None:
    if case.damage == MISSING:
        return
    content = bytearray(source.read_bytes())
    if case.damage == CUT:
        del content[case.at :]
    else:
        content[case.at // 8] ^= 1 << case.at % 8
    target.write_bytes(content)
