"""A terminal of a fixed size with a program on it: what its screen shows, as text and with its colours."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Self

PATIENCE_SECONDS = 30.0
_HOME = b"\x1b[H"
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")
_END = b"\x1b[?1049l"  # of a screen of its own


class Terminal:
    """A context manager that leaves no process behind. ``shown`` is all that the program wrote."""

    def __init__(self, command: Sequence[str], width: int, height: int, environment: Mapping[str, str] | None = None) -> None:
        self.shown = b""
        self._ours, theirs = pty.openpty()
        self.resize(width, height)
        inherited = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
        added = {"TERM": "xterm-256color", **(environment or {})}
        self.process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=inherited | added)
        os.close(theirs)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._ours)

    @property
    def frame(self) -> str:
        """The latest screen that was drawn whole, of the present size, with its colours; empty if there is none yet."""
        drawn = self.shown.partition(_END)[0].split(_HOME)
        return next((frame for part in reversed(drawn) if self._is_whole(frame := part.decode(errors="replace"))), "")

    @property
    def lines(self) -> list[str]:
        """The same without colours, a line each, without what pads them."""
        return [line.rstrip() for line in _CONTROL.sub("", self.frame).split("\r\n")]

    def _is_whole(self, frame: str) -> bool:
        lines = _CONTROL.sub("", frame).split("\r\n")
        return len(lines) == self._height and len(lines[-1]) == self._width

    def resize(self, width: int, height: int) -> None:
        """As if its window had another size now."""
        self._width, self._height = width, height
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    def wait_for(self, is_there: Callable[[list[str]], bool]) -> list[str]:
        """The lines, once they are as wanted. Fails when that does not come, or the program ends."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not is_there(self.lines):
            assert time.monotonic() < deadline, f"it did not come: {self.lines}"
            assert self._receive(), f"the program has ended: {self.shown!r}"
        return self.lines

    def interrupt(self) -> int:
        """Ctrl-C; its exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.end()

    def end(self) -> int:
        """Its exit code once it has ended, all that it wrote having been read."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self._receive():
            assert time.monotonic() < deadline, "it does not end"
        return self.process.wait(PATIENCE_SECONDS)

    def _receive(self) -> bool:
        """Take what there is, after some waiting; False once the program has let go of the terminal."""
        if select.select([self._ours], [], [], 0.1)[0]:
            try:
                received = os.read(self._ours, 65_536)
            except OSError:  # how Linux tells that
                return False
            self.shown += received
            return bool(received)
        return True
