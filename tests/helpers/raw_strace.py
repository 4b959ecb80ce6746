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
    tried = subprocess.run([path, "-D", "-qq", "-f", "-o", "/dev/null", "true"], capture_output=True, text=True, check=False)
    if tried.returncode:
        return f"strace may not trace here (ptrace is forbidden): {tried.stderr.strip()}"
    return None


needs_strace = pytest.mark.skipif(_refusal() is not None, reason=_refusal() or "")


def strace(output: Path, calls: str) -> list[str]:
    """What to put before a command, so that it is traced and still is the process that was started."""
    return ["strace", "-D", "-f", "-y", "-qq", "-e", "signal=none", "-e", f"trace={calls}", "-o", str(output)]


class Call(NamedTuple):
    """One system call that has returned: its name, its arguments, and the path behind the first one, if it is a file."""

    name: str
    arguments: str
    path: str


_WHOLE = re.compile(r"\d+ +(\w+)\((.*)\) += ")
_BEGUN = re.compile(r"(\d+) +(\w+)\((.*) <unfinished \.\.\.>")
_ENDED = re.compile(r"(\d+) +<\.\.\. (\w+) resumed>")
_PATH = re.compile(r"\d+<([^>]*)>")


def calls(output: Path) -> list[Call]:
    """The calls traced so far, in the order in which they returned."""
    found: list[Call] = []
    begun: dict[tuple[str, str], str] = {}
    for line in output.read_text(errors="replace").splitlines():
        if match := _BEGUN.match(line):
            begun[match[1], match[2]] = match[3]
        elif match := _ENDED.match(line):
            found.append(_call(match[2], begun.pop((match[1], match[2]), "")))
        elif match := _WHOLE.match(line):
            found.append(_call(match[1], match[2]))
    return found


def _call(name: str, arguments: str) -> Call:
    path = _PATH.match(arguments)
    return Call(name, arguments, path[1] if path else "")
