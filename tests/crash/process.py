"""The faulty broker as a process of a test: it may end at any moment, even before it is ready."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

_LISTENING = re.compile(r"listening on (\S+:\d+)")
_ROOT = Path(__file__).parents[2]
STOP_SECONDS = 20.0


class FaultyBroker:
    """`faulty_broker` on ``directory``; a context manager that leaves nothing running, and starts nothing by itself.

    ``faults``, ``mutant`` and ``arguments`` (of rocksmqd) hold for the next `start`, and may be changed between lives. With
    ``power`` it notes what it syncs, in the file `notes`. The port is the same in every life.
    """

    def __init__(
        self,
        directory: Path,
        *arguments: str,
        faults: Sequence[str] = (),
        mutant: str | None = None,
        power: bool = False,
        memtable_bytes: int | None = None,
    ) -> None:
        self.directory = directory
        self.arguments: Sequence[str] = arguments
        self.faults = faults
        self.mutant = mutant
        self.address = "127.0.0.1:0"
        self.log = directory.with_name(directory.name + ".log")
        self.notes = directory.with_name(directory.name + ".synced")
        self._power = power
        self._memtable_bytes = memtable_bytes
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.kill()

    @property
    def url(self) -> str:
        return f"rocksmq://{self.address}"

    def command(self) -> list[str]:
        """What is run."""
        options = [option for fault in self.faults for option in ("--fault", fault)]
        if self.mutant is not None:
            options += ["--mutant", self.mutant]
        if self._power:
            options += ["--power", str(self.notes)]
        if self._memtable_bytes is not None:
            options += ["--memtable-bytes", str(self._memtable_bytes)]
        broker = ["--data-dir", str(self.directory), "--listen", self.address, "--http", "off", *self.arguments]
        return [sys.executable, "-m", "tests.crash.faulty_broker", *options, "--", *broker]

    def start(self) -> bool:
        """Start it; True once it is ready, False when it ended before: `wait` tells how."""
        assert self._process is None, "one life at a time"
        with self.log.open("a") as log:
            process = subprocess.Popen(self.command(), stdout=subprocess.PIPE, stderr=log, text=True, cwd=_ROOT)
        self._process = process
        assert process.stdout is not None
        for line in process.stdout:
            if match := _LISTENING.search(line):
                self.address = match[1]
                return True
        return False

    @property
    def is_running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        """kill -9, unless it has ended."""
        if self._process is not None:
            self._signal(signal.SIGKILL)
            self.wait()

    def terminate(self) -> int:
        """SIGTERM, unless it has ended; its exit code."""
        self._signal(signal.SIGTERM)
        return self.wait()

    def wait(self) -> int:
        """Its exit code once it has ended; minus the number of the signal that ended it."""
        assert self._process is not None, "it was started"
        process, self._process = self._process, None
        try:
            return process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
        finally:
            if process.stdout is not None:
                process.stdout.close()

    def struck(self) -> list[str]:
        """The faults that struck, in all its lives, in order."""
        lines = self.log.read_text().splitlines()
        return [line.removeprefix("fault: ") for line in lines if line.startswith("fault: ")]

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            os.kill(self._process.pid, number)
