"""A real broker process for tests: starts on a free loopback port, is killed and restarted at will."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from rocksmq.clients import Client

_LISTENING = re.compile(r"listening on (\S+:\d+)")
STOP_SECONDS = 20.0


class BrokerProcess:
    """``rocksmqd`` on ``directory``; a context manager that leaves nothing running.

    After `kill` or `terminate`, `start` starts it anew, on the same port unless told otherwise.
    """

    def __init__(self, directory: Path, *arguments: str, environment: dict[str, str] | None = None) -> None:
        self.directory = directory
        self.arguments = arguments
        self.environment = environment or {}
        self.address = "127.0.0.1:0"
        self.log = directory.with_name(directory.name + ".log")
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._process is not None:
            self.kill()

    @property
    def url(self) -> str:
        return f"rocksmq://{self.address}"

    @property
    def pid(self) -> int:
        assert self._process is not None, "the broker runs"
        return self._process.pid

    def command(self) -> list[str]:
        listen = [] if "--listen" in self.arguments else ["--listen", self.address]
        return [sys.executable, "-m", "rocksmq.broker", "--data-dir", str(self.directory), *listen, *self.arguments]

    def start(self) -> None:
        """Start it and wait for its ready line. Raises RuntimeError with its output when it ends instead."""
        with self.log.open("a") as log:
            self._process = subprocess.Popen(
                self.command(), stdout=subprocess.PIPE, stderr=log, text=True, env={**os.environ, **self.environment}
            )
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if match := _LISTENING.search(line):
                self.address = match[1]
                return
        code = self.wait()
        raise RuntimeError(f"the broker ended with exit code {code}: {self.log.read_text()[-2000:]}")

    def kill(self) -> None:
        """kill -9."""
        self._signal(signal.SIGKILL)
        self.wait()

    def terminate(self) -> int:
        """SIGTERM, then its exit code."""
        self._signal(signal.SIGTERM)
        return self.wait()

    def wait(self) -> int:
        """Its exit code once it has ended."""
        assert self._process is not None, "the broker was started"
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

    def client(self, timeout: float = 10.0) -> Client:
        """A new client of it."""
        return Client(self.url, timeout=timeout)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)
