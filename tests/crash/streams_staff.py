"""The processes of `streams` beside the broker, each over all its lives."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from .streams_book import read_book
from .streams_worker import CONFLICT, Part

BEGIN_SECONDS = 30.0
END_SECONDS = 60.0
_ROOT = Path(__file__).parents[2]
_Process = subprocess.Popen[str]


class Member:
    """One of them. After `twin` two are alive: the former is to be fenced off, and to say so."""

    def __init__(self, part: Part) -> None:
        self.part = part  # of the present life, or of the last one
        self.lives: list[Part] = []
        self.log = Path(part.directory) / f"{part.name}.log"
        self.fenced_count = 0
        self._process: _Process | None = None
        self._former: _Process | None = None
        self._is_told = False
        self._start_at = self._resume_at = 0.0

    def start(self) -> None:
        """Begin the next life."""
        assert self._process is None, "one life at a time"
        part = self.part = self.part._replace(life=len(self.lives))
        self.lives.append(part)
        self._is_told = False
        command = [sys.executable, "-m", "tests.crash.streams_worker", json.dumps(part._asdict())]
        with self.log.open("a") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=log, text=True, cwd=_ROOT)

    @property
    def has_started(self) -> bool:
        """Whether the present life reads."""
        return any(record.kind == "started" for record in read_book(self.part.book))

    def kill(self, away_s: float) -> bool:
        """kill -9, to start again after so many seconds; False if it was dead already."""
        process, self._process = self._process, None
        if process is not None:
            _end(process)
            self._start_at = time.monotonic() + away_s
        return process is not None

    def stop(self) -> bool:
        """Tell it to end, and to start again; False if it is dead, or was told."""
        return self._order("stop")

    def twin(self, hang_s: float) -> bool:
        """Begin the next life beside the present one; False if that does not read yet, or not any more.

        The former hangs (SIGSTOP) for so many seconds; then it goes on as if nothing had happened.
        """
        if self._process is None or self._former is not None or self._is_told or not self.has_started:
            return False
        self._former, self._process = self._process, None
        self._former.send_signal(signal.SIGSTOP)
        self._resume_at = time.monotonic() + hang_s
        self.start()
        return True

    def check(self) -> None:
        """Begin the next life where one is due. Raises AssertionError for a process that ended as it should not."""
        if self._former is not None and time.monotonic() >= self._resume_at:
            self._former.send_signal(signal.SIGCONT)
        if self._former is not None and (code := self._former.poll()) is not None:
            assert code == CONFLICT, f"{self.part.name}: the former ended with {code}, not in a Conflict: {self._said()}"
            _end(self._former)
            self._former = None
            self.fenced_count += 1
        if self._process is None:
            if self.lives and time.monotonic() >= self._start_at:
                self.start()
        elif (code := self._process.poll()) is not None:
            is_expected = self._is_told and code == 0
            assert is_expected, f"{self.part.name}, life {self.part.life}, ended with {code}: {self._said()}"
            _end(self._process)
            self._process = None
            self.start()

    @property
    def is_ready(self) -> bool:
        """It lives, was not told to end, and is alone."""
        is_reading = self.part.role in ("writer", "ticker") or self.has_started
        return self._process is not None and not self._is_told and self._former is None and is_reading

    def last(self, order: str) -> None:
        """Tell it to end for good; `wait` for that."""
        assert self._order(order), "it is ready"

    def wait(self) -> None:
        """Until it has ended as it was told to. Raises AssertionError when it does not end well."""
        process, self._process = self._process, None
        assert process is not None, "it was ready"
        code: int | str
        try:
            code = process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            code = f"nothing for {END_SECONDS:g} s"
        _end(process)
        assert code == 0, f"{self.part.name}, life {self.part.life}, ends with {code}: {self._said()}"

    def close(self) -> None:
        """Leave nothing running."""
        for process in (self._process, self._former):
            if process is not None:
                _end(process)
        self._process = self._former = None

    def _order(self, order: str) -> bool:
        if self._process is None or self._is_told or self._process.poll() is not None:
            return False
        assert self._process.stdin is not None
        self._is_told = True
        self._process.stdin.write(order + "\n")
        self._process.stdin.flush()
        return True

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
            member.close()

    def of(self, *roles: str) -> list[Member]:
        """Those of the roles."""
        return [member for member in self.members if member.part.role in roles]

    @staticmethod
    def end(members: Sequence[Member], order: str) -> None:
        """Tell them all, and wait."""
        for member in members:
            member.last(order)
        for member in members:
            member.wait()

    def check(self) -> None:
        """As `Member.check`, of all."""
        for member in self.members:
            member.check()

    def await_ready(self) -> None:
        """Until all are. Raises AssertionError when one does not become so."""
        deadline = time.monotonic() + BEGIN_SECONDS
        while waiting := [member.part.name for member in self.members if not member.is_ready]:
            self.check()
            assert time.monotonic() < deadline, f"{', '.join(waiting)}: not there after {BEGIN_SECONDS:g} s, or not fenced off"
            time.sleep(0.02)


def _end(process: _Process) -> None:
    process.kill()
    process.wait()
    if process.stdin is not None:
        process.stdin.close()
