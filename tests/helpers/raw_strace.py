"""strace around a process of a test: the system calls it made, in order, with the files they went to."""

import re
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest


@cache
def _refusal() -> str | None:
    """Why strace cannot be used here, or None."""
    path = shutil.which("strace")
    if path is None:
        return "strace is not installed: apt-get install strace"
    tried = subprocess.run([path, "-D", "-qq", "-f", "-o", "/dev/null", "true"], capture_output=True, text=True, check=False)  # noqa: S603
    if tried.returncode:
        return f"strace may not trace here (ptrace is forbidden): {tried.stderr.strip()}"
    return None


needs_strace = pytest.mark.skipif(_refusal() is not None, reason=_refusal() or "")


def strace(output: Path, calls: str) -> list[str]:
    """What to put before a command, so that it is traced and still is the process that was started."""
    return ["strace", "-D", "-f", "-y", "-qq", "-e", "signal=none", "-e", f"trace={calls}", "-o", str(output)]


class Call(NamedTuple):
    """One system call that has returned: its name, and the path behind its first argument, if it has one."""

    name: str
    path: str


_WHOLE = re.compile(r"\d+ +(\w+)\((?:\d+<([^>]*)>)?.* = ")
_BEGUN = re.compile(r"(\d+) +(\w+)\((?:\d+<([^>]*)>)?.*<unfinished \.\.\.>")
_ENDED = re.compile(r"(\d+) +<\.\.\. (\w+) resumed>")


def calls(output: Path) -> list[Call]:
    """The calls traced so far, in the order in which they returned."""
    found: list[Call] = []
    begun: dict[tuple[str, str], str] = {}
    for line in output.read_text(errors="replace").splitlines():
        if match := _BEGUN.match(line):
            begun[match[1], match[2]] = match[3] or ""
        elif match := _ENDED.match(line):
            found.append(Call(match[2], begun.pop((match[1], match[2]), "")))
        elif match := _WHOLE.match(line):
            found.append(Call(match[1], match[2] or ""))
    return found
