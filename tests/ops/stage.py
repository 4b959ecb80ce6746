"""The stage on which alerts are provoked: brokers that faults can be done to, and a Prometheus that runs short of patience.

The rules are those that are shipped, with every duration divided by FACTOR: ranges, offsets, `for`, and limits that are hours.
Numbers that are no durations stay as they are.
"""

import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from rocksmq.clients.testing import Broker
from tests.helpers.prometheus import Prometheus

PROJECT = Path(__file__).parents[2]
RULES = PROJECT / "metrics" / "alerts" / "rocksmq.yaml"
MODULE = "rocksmq.broker"
FACTOR = 60
POLL_SECONDS = 0.1
PATIENCE_SECONDS = 150.0
MIB = 1 << 20
_DURATION = re.compile(r"(\[|offset |for: )(\d+)([smhd])\b")
_IN_HOURS = re.compile(
    r"(record: rocksmq:limit:(?:group_lag|disk_filling|crashed|credential_expiry)_seconds\n\s+expr: vector\()([^)]*)\)"
)
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class NotProvoked(Exception):
    """The alert did not fire, or did not end; or it cannot be provoked here, and why."""


def hurried(rules: str) -> str:
    """The rules with durations of a FACTOR-th."""

    def cut(match: re.Match[str]) -> str:
        return f"{match[1]}{int(match[2]) * _UNITS[match[3]] * 1000 // FACTOR}ms"

    return _IN_HOURS.sub(lambda match: f"{match[1]}({match[2]}) / {FACTOR})", _DURATION.sub(cut, rules))


class Patient(Broker):
    """A broker that faults can be done to. ``before`` stands before its command, ``module`` is run in the place of its own."""

    def __init__(
        self,
        directory: Path,
        *arguments: str,
        environment: Mapping[str, str] | None = None,
        before: Sequence[str] = (),
        module: Sequence[str] = (MODULE,),
    ) -> None:
        settings = {"PYTHONPATH": str(PROJECT), **(environment or {})}
        super().__init__(directory, *arguments, environment=settings, http="127.0.0.1:0")
        self.before = before
        self._module = module

    def command(self) -> list[str]:
        own = super().command()
        at = own.index(MODULE)
        return [*self.before, *own[:at], *self._module, *own[at + 1 :]]

    def stop(self) -> None:
        """SIGSTOP: it keeps its connections and says nothing."""
        os.kill(self.pid, signal.SIGSTOP)

    def cont(self) -> None:
        """SIGCONT, after `stop`."""
        os.kill(self.pid, signal.SIGCONT)

    @contextmanager
    def traced(self, *injections: str, path: Path | None = None, thread: str = "") -> Generator[None]:
        """Faults in its system calls, by strace: for the block, of one file (``path``), or in threads of that name only."""
        ids = [name for name in os.listdir(f"/proc/{self.pid}/task") if thread in self._thread_name(name)]
        command = ["strace", "-qq", "-o", "/dev/null", *(() if path is None else ("-P", str(path)))]
        for injection in injections:
            command += ["-e", f"inject={injection}"]
        command += ["-f", "-p", str(self.pid)] if not thread else [part for each in ids for part in ("-p", each)]
        strace = subprocess.Popen(command)
        try:
            yield
        finally:
            strace.send_signal(signal.SIGINT)  # it lets go of the process
            strace.wait()

    def _thread_name(self, task: str) -> str:
        return Path(f"/proc/{self.pid}/task/{task}/comm").read_text()


class PatientOnDisk(Patient):
    """Its data directory is a file system of its own, in memory, which only it sees."""

    def __init__(self, directory: Path, size: int, *arguments: str) -> None:
        directory.mkdir(parents=True)
        script = f'mount -t tmpfs -o size={size} tmpfs "$0" && exec "$@"'
        super().__init__(directory, *arguments, before=["unshare", "-rm", "sh", "-c", script, str(directory)])
        self.size = size

    @property
    def _filler(self) -> Path:
        return Path(f"/proc/{self.pid}/root{self.directory}/filler")

    def leave(self, share: float) -> None:
        """Take or give back as much of the disk as leaves ``share`` of it free."""
        found = os.statvfs(self._filler.parent)
        own = self._filler.stat().st_size if self._filler.exists() else 0
        wanted = int(own + found.f_bavail * found.f_frsize - share * self.size)
        with self._filler.open("ab") as filler:
            if wanted > own:
                os.posix_fallocate(filler.fileno(), own, wanted - own)
            filler.truncate(max(0, wanted))


class Watch:
    """One Prometheus at a broker, and how long its alerts took. A context manager."""

    def __init__(self, jobs: Mapping[str, Sequence[str]], *, scrape_seconds: float = 0.5) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="rules-"))
        rules = self._directory / "rocksmq.yaml"
        rules.write_text(hurried(RULES.read_text()))
        self.prometheus = Prometheus(jobs, [rules], scrape_seconds)
        self.fired: dict[str, float] = {}
        self.resolved: dict[str, float] = {}
        self._began = 0.0

    def __enter__(self) -> Self:
        self.prometheus.__enter__()
        self.begin()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.prometheus.close()
        shutil.rmtree(self._directory)

    def begin(self) -> None:
        """From now on seconds are counted."""
        self._began = time.monotonic()

    def fires(self, *names: str, seconds: float = PATIENCE_SECONDS) -> None:
        """Wait until each of them fires. Raises NotProvoked."""
        for name in names:
            self.fired[name] = self._wait(name, firing=True, seconds=seconds)

    def resolves(self, *names: str) -> None:
        """Wait until none of them fires any more. Raises NotProvoked."""
        for name in names:
            self.resolved[name] = self._wait(name, firing=False, seconds=PATIENCE_SECONDS)

    def _wait(self, name: str, *, firing: bool, seconds: float) -> float:
        while self.prometheus.firing(name) != firing:
            if time.monotonic() > self._began + seconds:
                raise NotProvoked(f"{name} {'does not fire' if firing else 'still fires'} after {seconds:.0f} s")
            time.sleep(POLL_SECONDS)
        return time.monotonic() - self._began
