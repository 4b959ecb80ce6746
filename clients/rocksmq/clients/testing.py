"""For tests of programs that use RocksMQ: a real broker as a child process, and pytest fixtures of one.

Owns the process and its files. Of the broker it knows the command, its options and its ready line; it imports nothing of it.
Nothing else of the clients imports pytest. It may be imported before pytest registers it: PYTEST_DONT_REWRITE
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from .client import Client
from .deadline import Deadline

__all__ = ["Broker", "rocksmq_broker", "rocksmq_client"]

START_SECONDS = 60.0  # much data may have to be recovered; beyond, the broker is killed and start raises
STOP_SECONDS = 20.0  # beyond the broker's own limit of draining; then it is killed and wait raises
LOG_CHARACTERS = 2_000  # of the log's end, in an error
_LISTENING = re.compile(r"listening on (\S+:\d+)")
_METRICS = re.compile(r"metrics and health on http://(\S+:\d+)")
_OPTIONS_PREFIX = "ROCKSMQ_"
_OFF = "off"


class Broker:
    """``rocksmqd`` on a free port of 127.0.0.1; a context manager that leaves no process behind.

        with Broker() as broker, broker.client() as mq:
            mq.create_channel("orders")

    ``directory`` is where its data are kept, made if missing; its log stands beside it, in ``<directory>.log``.
    Without one it is a temporary directory, which is removed with this object, at the latest when Python ends.
    ``arguments`` are further ones of `rocksmqd`. The process inherits the environment but for ROCKSMQ_* variables, which are
    options of the broker; ``environment`` is added to it. ``http`` is where it shows metrics and health, `off` so that brokers
    do not meet there: `127.0.0.1:0` for a free port, which `http_url` tells and which stays, as that of `url` does.

    What was acknowledged before `kill`, `terminate` or `restart` is there after the next start, on the same port.
    The block's end kills it (-9), whatever happened in the block. The broker needs ``pip install 'rocksmq[broker]'``.
    Not to be shared by threads, but for `url`, `address` and `client`.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str] | None = None,
        *arguments: str,
        environment: Mapping[str, str] | None = None,
        http: str = _OFF,
    ) -> None:
        self.arguments = arguments
        self.environment = dict(environment or {})
        self.address = "127.0.0.1:0"  # the real port from the first start on
        self.http = http  # likewise
        if directory is None:
            parent = tempfile.mkdtemp(prefix="rocksmq-")
            weakref.finalize(self, _remove, parent, os.getpid())
            directory = Path(parent) / "data"
        self.directory = Path(directory).absolute()
        self.log = self.directory.with_name(self.directory.name + ".log")
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.kill()

    def __repr__(self) -> str:
        return f"<Broker {self.url} {self.directory}>"

    @property
    def url(self) -> str:
        """What a Client takes."""
        return f"rocksmq://{self.address}"

    @property
    def http_url(self) -> str:
        """Where `/metrics` and health are: `http://HOST:PORT`. Raises RuntimeError if they are off."""
        if self.http == _OFF:
            raise RuntimeError("the broker was not asked for metrics: Broker(http='127.0.0.1:0')")
        return f"http://{self.http}"

    @property
    def pid(self) -> int:
        """The number of its process. Raises RuntimeError when it was not started, or was stopped."""
        return self._started().pid

    def command(self) -> list[str]:
        """The command line of the next start; for a subclass that runs the broker under another program."""
        own = ["--data-dir", str(self.directory), "--listen", self.address, "--http", self.http]
        return [sys.executable, "-P", "-m", "rocksmq.broker", *own, *self.arguments]

    def start(self) -> None:
        """Start it, and return once it serves.

        Raises RuntimeError when it runs already; and with the end of its log when it ends instead of serving, or does not serve
        within START_SECONDS. Whatever is raised, no process is left.
        """
        if self._process is not None and self._process.poll() is None:
            raise RuntimeError(f"the broker runs already, as process {self._process.pid}")
        self.kill()  # if it ended by itself, this lets go of it
        environment = {name: value for name, value in os.environ.items() if not name.startswith(_OPTIONS_PREFIX)}
        try:
            self.directory.parent.mkdir(parents=True, exist_ok=True)
            with self.log.open("ab") as log:
                log_begin = log.tell()
                process = self._process = subprocess.Popen(  # noqa: S603
                    self.command(), stdout=subprocess.PIPE, stderr=log, text=True, env=environment | self.environment
                )
        except OSError as error:
            raise RuntimeError(f"the broker cannot be started: {error}") from error
        deadline = Deadline(START_SECONDS)
        try:
            said = _ready(process, [_LISTENING] if self.http == _OFF else [_LISTENING, _METRICS])
        except BaseException:
            self.kill()
            raise
        if said is None:
            late = f"was not ready within {START_SECONDS:g} s" if deadline.is_over else "did not start"
            code = self.wait()
            log_end = self.log.read_bytes()[log_begin:].decode(errors="replace").strip()[-LOG_CHARACTERS:]
            raise RuntimeError(f"the broker {late}, exit code {code}: {log_end or 'its log is empty'}")
        self.address, self.http = said[0], said[1] if self.http != _OFF else _OFF

    def kill(self) -> None:
        """kill -9: the process ends at once, as in a crash. Nothing when it does not run."""
        if self._process is not None:
            self._process.kill()
            self.wait()

    def terminate(self) -> int:
        """SIGTERM: it answers what it accepted, and ends. Its exit code, 0 when all went well; errors as of `wait`."""
        self._started().send_signal(signal.SIGTERM)
        return self.wait()

    def restart(self) -> None:
        """`terminate`, and `start` on the same data and port.

        Raises RuntimeError when it does not end with exit code 0, and when another process has taken the port meanwhile.
        """
        if code := self.terminate():
            raise RuntimeError(f"the broker ended with exit code {code}: see {self.log}")
        self.start()

    def wait(self) -> int:
        """Its exit code once it has ended; negative is the number of the signal that ended it.

        Raises RuntimeError when it was not started; or has not ended after STOP_SECONDS: it is killed then.
        """
        process, self._process = self._started(), None
        try:
            return process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"the broker has not ended after {STOP_SECONDS:g} s: see {self.log}") from None
        finally:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()

    def client(self, timeout: float = 10.0) -> Client:
        """A new client of it; the caller closes it. ``timeout``: seconds, of each of its calls."""
        return Client(self.url, timeout=timeout)

    def _started(self) -> "subprocess.Popen[str]":
        if self._process is None:
            raise RuntimeError("the broker does not run: start it first")
        return self._process


def _ready(process: "subprocess.Popen[str]", wanted: Sequence[re.Pattern[str]]) -> list[str] | None:
    """The addresses in its ready lines, one for each of ``wanted``; None when it ends before, or START_SECONDS are over."""
    watchdog = threading.Timer(START_SECONDS, process.kill)
    watchdog.daemon = True
    watchdog.start()
    found: list[str] = []
    try:
        for line in process.stdout or ():
            if match := wanted[len(found)].search(line):
                found.append(match[1])
            if len(found) == len(wanted):
                return found
        return None
    finally:
        watchdog.cancel()


def _remove(directory: str, owner_pid: int) -> None:
    if os.getpid() == owner_pid:  # not a forked child, for whose parent the broker goes on
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def rocksmq_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A running broker of this test's own, empty; the test may kill and restart it.

    It takes some 0.3 s to start, which is the price of tests that cannot disturb each other; to share one,
    override this fixture with one of a wider scope. Its data and log stay where pytest keeps temporary directories.
    """
    with Broker(tmp_path_factory.mktemp("rocksmq") / "data") as broker:
        yield broker


@pytest.fixture
def rocksmq_client(rocksmq_broker: Broker) -> Iterator[Client]:
    """A client of `rocksmq_broker`, closed after the test."""
    with rocksmq_broker.client() as client:
        yield client
