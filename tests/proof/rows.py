"""What `make proof` runs: each row is a command, the line of what it prints that counts, and how long it may take."""

import re
import sys
from typing import NamedTuple

PYTHON = sys.executable
PYTEST = ("-m", "pytest", "-q", "-p", "no:cacheprovider")


class Row(NamedTuple):
    """``finding``: what of the output is told, all matches of it; ``seconds``: then it is killed, and has failed."""

    name: str
    what: str
    arguments: tuple[str, ...]
    finding: re.Pattern[str]
    seconds: float

    @property
    def command(self) -> str:
        """To be typed."""
        return " ".join(("python", *self.arguments))


def row_of(name: str, what: str, arguments: str, finding: str, minutes: float) -> Row:
    return Row(name, what, tuple(arguments.split()), re.compile(finding, re.MULTILINE), 60 * minutes)


_PASSED = r"^(\d+ passed.*)$"
_TESTS = " ".join(PYTEST)
ROWS = (
    row_of(
        "crash",
        "kill -9 in every cycle, many workers behind a bad link",
        "-m tests.crash --cycles 100",
        r"^(\d+ cycles, .*|.* 0 lost.*)$",
        20,
    ),
    row_of(
        "power",
        "power cuts: what is not synced is lost, or torn, or any part of it is left",
        "-m tests.power --cuts 300",
        r"^(\w+: .* 0 lost.*)$",
        30,
    ),
    row_of(
        "power-os",
        "the same with durability os, in which it must lose",
        "-m tests.power --durability os",
        r"^(\w+, os: .* is \w+)$",
        10,
    ),
    row_of("calls", "calls of the disk that fail, are short or slow", f"{_TESTS} tests/power/test_power.py", _PASSED, 10),
    row_of(
        "points",
        "a kill, an error and a delay at every point of a commit",
        f"{_TESTS} tests/crash/test_every_point.py tests/crash/test_faults.py",
        _PASSED,
        15,
    ),
    row_of("tiny-disk", "a disk of 256 MiB that fills up", "-m tests.crash.tiny_disk --turns 20", r"^(\d+ turns in .*)$", 10),
    row_of(
        "damage",
        "bits, pages and files of a data directory damaged, and checked",
        "-m tests.crash.damage --workers 2",
        r"^([\d,]+ damages, every .*)$",
        30,
    ),
    row_of("fuzz", "any bytes for whatever reads bytes of strangers", "-m tests.fuzz", r"^([\d,]+ executions, seed.*)$", 120),
    row_of("siege", "many, slow, broken, hostile clients; three times too much", "-m tests.siege", r"^(\w+: .*)$", 60),
)
"""Their order is that of the table."""
