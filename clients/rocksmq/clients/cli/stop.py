"""Ctrl-C and SIGTERM as a wish that is looked at between messages, so that none is lost on its way out."""

import signal
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self, TypeAlias

import click

Handler: TypeAlias = Callable[[int, FrameType | None], Any] | int | signal.Handlers | None  # as `signal.signal` has it
POLL_SECONDS = 0.5  # of one wait for messages: how long a wish may go unnoticed


class Interrupted(Exception):
    """An end is wanted: leave the work at hand."""


class Stop:
    """A context manager. A first signal sets `is_wanted`, a second one ends at once (KeyboardInterrupt).

    Leaving the block after a signal ends the command with 128 + its number; after Ctrl-C with ``ctrl_c_code``.
    """

    def __init__(self, ctrl_c_code: int = 128 + signal.SIGINT) -> None:
        self._ctrl_c_code = ctrl_c_code
        self._number: int | None = None
        self._former: dict[signal.Signals, Handler] = {}

    @property
    def is_wanted(self) -> bool:
        """Whether a signal came."""
        return self._number is not None

    @property
    def number(self) -> int | None:
        """Of that signal."""
        return self._number

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is not signal.SIG_IGN:  # a shell has its background jobs ignore Ctrl-C
                self._former[number] = signal.signal(number, self._take)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)
        if error is None and self._number is not None:
            raise click.exceptions.Exit(self._ctrl_c_code if self._number == signal.SIGINT else 128 + self._number)

    def _take(self, number: int, frame: FrameType | None) -> None:
        if self._number is not None:
            raise KeyboardInterrupt
        self._number = number
