"""The worker processes of the harness."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from .worker import Part

BEGIN_SECONDS = 20.0
END_SECONDS = 120.0  # for all that is left to be read
_ROOT = Path(__file__).parents[2]
KILLABLE = ("named", "manual")  # roles that lose and double nothing when their process is killed


class Member:
    """One worker over all its lives; its books are ``<name>.<life>.book`` in ``directory``."""

    def __init__(self, part: Part, url: str, directory: Path) -> None:
        self.part = part
        self.books: list[Path] = []
        self.log = directory / f"{part.name}.log"
        self.killed: set[int] = set()  # lives
        self._url = url
        self._directory = directory
        self._process: subprocess.Popen[str] | None = None
        self._is_told = False  # to end

    def start(self) -> None:
        """Begin the next life."""
        assert self._process is None, "one life at a time"
        part = self.part._replace(life=len(self.books))
        book = self._directory / f"{part.name}.{part.life}.book"
        self.books.append(book)
        self._is_told = False
        command = [sys.executable, "-m", "tests.crash.worker", self._url, str(book), json_of(part)]
        with self.log.open("a") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=log, text=True, cwd=_ROOT)

    def order(self, word: str) -> None:
        """Tell it ``drain`` or ``stop``."""
        assert self._process is not None, "it was started"
        assert self._process.stdin is not None
        self.check()
        if not self._is_told:
            self._is_told = True
            self._process.stdin.write(word + "\n")
            self._process.stdin.flush()

    def check(self) -> None:
        """Raises AssertionError when it ended by itself. One that has ended as it was told to begins its next life."""
        assert self._process is not None, "it was started"
        if self._process.poll() is None:
            return
        assert self._is_told, f"{self.part.name} ended by itself, {self._process.returncode}: {self._said()}"
        self.wait()
        self.start()

    def renew(self) -> None:
        """Begin the next life now, if it was told to end."""
        if self._is_told:
            self.wait()
            self.start()

    def wait(self) -> None:
        """Until it has ended as it was told to. Raises AssertionError when it did otherwise."""
        process, self._process = self._process, None
        assert process is not None, "it was started"
        try:
            code = process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGABRT)
            raise AssertionError(f"{self.part.name} does not end: {self._said()}") from None
        finally:
            _close(process)
        assert code == 0, f"{self.part.name} ended with {code}: {self._said()}"

    def kill(self) -> None:
        """kill -9, unless it has ended."""
        process, self._process = self._process, None
        if process is not None:
            self.killed.add(len(self.books) - 1)
            process.kill()
            process.wait()
            _close(process)

    def _said(self) -> str:
        return self.log.read_text()[-4_000:]


class Staff:
    """All of them; a context manager that leaves none running."""

    def __init__(self, members: Sequence[Member]) -> None:
        self.members = members

    def __enter__(self) -> Self:
        for member in self.members:
            member.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for member in self.members:
            member.kill()

    def await_begun(self) -> None:
        """Until every worker has begun. Raises AssertionError when one does not."""
        deadline = time.monotonic() + BEGIN_SECONDS
        while not all(member.books[0].exists() for member in self.members):
            self.check()
            assert time.monotonic() < deadline, "a worker does not begin"
            time.sleep(0.02)

    def check(self) -> None:
        """Raises AssertionError when one ended by itself."""
        for member in self.members:
            member.check()

    def drain(self) -> None:
        """First the producers end, then the consumers, once there is nothing more."""
        for member in self.members:
            member.renew()
        for is_producer in (True, False):
            members = [member for member in self.members if member.part.is_producer is is_producer]
            for member in members:
                member.order("drain")
            for member in members:
                member.wait()


def json_of(part: Part) -> str:
    """The part as the worker takes it."""
    return json.dumps(part._asdict())


def _close(process: "subprocess.Popen[str]") -> None:
    if process.stdin is not None:
        process.stdin.close()
