"""The disk of `fuse_disk` for a test: a mounted directory whose power can be cut."""

import ctypes.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from .disk import Cut, Fault

ROOT = Path(__file__).parents[2]
START_SECONDS, STOP_SECONDS = 20.0, 10.0


class PowerDisk:
    """A context manager; ``directory`` is where it is mounted. Everything on it is in memory, and gone at the end."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self.directory.mkdir(parents=True)
        log = self.directory.with_suffix(".fuse.log")
        with log.open("w") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.power.fuse_disk", str(self.directory)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                cwd=ROOT,
            )
        deadline = time.monotonic() + START_SECONDS
        while not self.directory.is_mount():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.close()
                raise OSError(f"no disk was mounted: {log.read_text()[-1_000:]}")
            time.sleep(0.01)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Unmount it."""
        process, self._process = self._process, None
        assert process is not None, "it was mounted"
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()

    def cut(self, how: Cut, seed: str) -> int:
        """The power is gone, and back; how many changes were not synced. Whoever works on it was killed before."""
        answer = self._order(cut=how.value, seed=seed)
        return int(answer["unsynced"])

    def fault(self, fault: Fault | None) -> None:
        """What strikes from now on."""
        self._order(fault=None if fault is None else fault._asdict())

    def _order(self, **order: Any) -> dict[str, Any]:
        process = self._process
        assert process is not None, "it is mounted"
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(order) + "\n")
        process.stdin.flush()
        answer: dict[str, Any] = json.loads(process.stdout.readline())
        return answer


@cache
def _refusal() -> str | None:
    """Why no such disk can be mounted here, or None."""
    if ctypes.util.find_library("fuse3") is None:
        return "no libfuse3 here: apt-get install libfuse3-3, and pip install mfusepy"
    if not os.access("/dev/fuse", os.R_OK | os.W_OK) or (os.geteuid() and shutil.which("fusermount3") is None):
        return "no FUSE here: /dev/fuse, and root or fusermount3 of the package fuse3"
    with tempfile.TemporaryDirectory() as name:
        try:
            with PowerDisk(Path(name) / "disk") as disk:
                disk.cut(Cut.CLEAN, "")
        except OSError as error:
            return f"FUSE mounts nothing here: {error}"
    return None


def require_fuse() -> None:
    """Skip the test that calls this where there is no FUSE."""
    if reason := _refusal():
        pytest.skip(reason)
