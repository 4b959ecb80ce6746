"""A real Prometheus for tests: one process on the loopback that scrapes what it is told to; and promtool.

Owns the process, its port and its files. Of the broker it knows the names of its metrics. Where the program is missing, the
test is skipped, and told what to install.
"""

import json
import re
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from rocksmq.metrics import process
from rocksmq.metrics.catalogue import CATALOGUE, Kind

from .etcd import free_port
from .server import Server

START_SECONDS = 30.0
CALL_SECONDS = 10.0
POLL_SECONDS = 0.1
LOG_CHARACTERS = 2_000  # of the log's end, in an error
ATTEMPTS = 8  # of a start that finds its port taken
METRIC = re.compile(r"(?<![\w:])(?:rocksmq|process|python)_[a-z0-9_]+(?![a-z0-9_]|\.\w)")  # and not a file
_TAKEN = "address already in use"


class PrometheusFailed(RuntimeError):
    """It did not start, or refused a query; the message is what it said."""


def require_prometheus() -> None:
    """Skip the test that calls this, where there is no Prometheus."""
    if shutil.which("prometheus") is None or shutil.which("promtool") is None:
        pytest.skip("no Prometheus here: apt-get install prometheus")


def promtool(*arguments: str, given: bytes = b"") -> str:
    """What promtool writes, with ``given`` on its standard input. Raises PrometheusFailed when it finds fault."""
    require_prometheus()
    done = subprocess.run(["promtool", *arguments], input=given, capture_output=True, check=False)
    said = (done.stdout + done.stderr).decode()
    if done.returncode:
        raise PrometheusFailed(said)
    return said


def known_metrics() -> dict[str, Kind]:
    """All that a broker exposes: its own, those of the process."""
    return {metric.name: metric.kind for metric in CATALOGUE} | {metric.name: metric.kind for metric, _ in process.read()}


def metrics_in(text: str) -> set[str]:
    """The metrics that a query or prose names; of histograms the name itself."""
    histograms = {name for name, kind in known_metrics().items() if kind is Kind.HISTOGRAM}
    found: set[str] = set()
    for name in METRIC.findall(text):
        base = re.sub(r"_(bucket|sum|count)$", "", name)
        found.add(base if base in histograms else name)
    return found


class Series(NamedTuple):
    """One series of an answer, with its value now."""

    labels: Mapping[str, str]
    value: float


class Line(NamedTuple):
    """One series over time: (Unix time, value)."""

    labels: Mapping[str, str]
    points: Sequence[tuple[float, float]]


@dataclass
class Prometheus(Server):
    """One Prometheus; a context manager that starts it and leaves nothing running.

        with Prometheus({"rocksmq": [broker.http]}) as prometheus:
            prometheus.query("up")

    ``jobs`` are the addresses to scrape, by job. ``rule_files`` are evaluated as often as it scrapes. Its data and log are in a
    temporary directory.
    """

    jobs: Mapping[str, Sequence[str]]
    rule_files: Sequence[Path] = ()
    scrape_seconds: float = 0.5

    def __post_init__(self) -> None:
        require_prometheus()
        self.directory = Path(tempfile.mkdtemp(prefix="prometheus-"))
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it is asked."""
        return f"http://127.0.0.1:{self._port}"

    def close(self) -> None:
        """Kill it, and remove its files."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)

    def query(self, expression: str) -> list[Series]:
        """What it answers now; a number alone is a series without labels. Raises PrometheusFailed, for bad syntax too."""
        return _series(self.call("query", query=expression))

    def query_range(self, expression: str, begin: float, end: float, step: float) -> list[Line]:
        """The same between two Unix times, every ``step`` seconds."""
        told = self.call("query_range", query=expression, start=f"{begin}", end=f"{end}", step=f"{step}")
        return [Line(found["metric"], [(float(at), float(value)) for at, value in found["values"]]) for found in told["result"]]

    def alerts(self) -> list[dict[str, Any]]:
        """Those pending or firing, with labels, state, activeAt and value."""
        found: list[dict[str, Any]] = self.call("alerts")["alerts"]
        return found

    def firing(self, name: str) -> bool:
        """Whether an alert fires."""
        return any(alert["labels"]["alertname"] == name and alert["state"] == "firing" for alert in self.alerts())

    def wait_for(self, expression: str, *, seconds: float = 60.0) -> list[Series]:
        """What it answers once that is not empty."""
        deadline = time.monotonic() + seconds
        while not (found := self.query(expression)):
            if time.monotonic() > deadline:
                raise PrometheusFailed(f"nothing within {seconds:g} s: {expression}")
            time.sleep(POLL_SECONDS)
        return found

    def call(self, path: str, **parameters: str) -> Any:
        """Its HTTP interface below /api/v1. Raises PrometheusFailed."""
        url = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=CALL_SECONDS) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise PrometheusFailed(f"{parameters}: {error.read().decode(errors='replace')}") from error

    def scrape(self, jobs: Mapping[str, Sequence[str]]) -> None:
        """From now on these, instead of those that it was made with."""
        assert self._process is not None, "it was started"
        self.jobs = jobs
        self._configure()
        self._process.send_signal(signal.SIGHUP)

    def _configure(self) -> Path:
        config = self.directory / "prometheus.yml"  # JSON is YAML
        every = f"{self.scrape_seconds * 1000:.0f}ms"
        jobs = [{"job_name": job, "static_configs": [{"targets": list(found)}]} for job, found in self.jobs.items()]
        settings = {
            "global": {"scrape_interval": every, "scrape_timeout": every, "evaluation_interval": every},
            "rule_files": [str(path.absolute()) for path in self.rule_files],
            "scrape_configs": jobs,
        }
        config.write_text(json.dumps(settings))
        return config

    def start(self) -> None:
        """Return when it answers. Raises PrometheusFailed."""
        config = self._configure()
        for _ in range(ATTEMPTS):
            self._port = free_port()
            log = self.directory / "prometheus.log"
            command = ["prometheus", f"--config.file={config}", f"--web.listen-address=127.0.0.1:{self._port}"]
            command += [f"--storage.tsdb.path={self.directory / 'data'}", "--log.level=warn"]
            with log.open("wb") as output:
                self._process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
            if self._is_ready(self._process):
                return
            self._process.kill()
            self._process.wait()
            said = log.read_text(errors="replace")[-LOG_CHARACTERS:]
            if _TAKEN not in said:
                raise PrometheusFailed(f"it does not serve: {said}")
        raise PrometheusFailed(f"no free port was found in {ATTEMPTS} attempts")

    def _is_ready(self, process: "subprocess.Popen[bytes]") -> bool:
        deadline = time.monotonic() + START_SECONDS
        while process.poll() is None and time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(f"{self.url}/-/ready", timeout=CALL_SECONDS):
                    return True
            except OSError:
                time.sleep(POLL_SECONDS)
        return False


def _series(told: Any) -> list[Series]:
    if told["resultType"] == "scalar":
        return [Series({}, float(told["result"][1]))]
    return [Series(found["metric"], float(found["value"][1])) for found in told["result"]]
