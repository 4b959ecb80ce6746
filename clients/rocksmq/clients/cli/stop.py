"""Ctrl-C and SIGTERM as a wish that is looked at between batches, so that no message taken is lost on its way out."""

import signal
from collections.abc import Mapping
from types import FrameType, TracebackType
from typing import Self

import click

POLL_SECONDS = 0.5  # of one wait for messages: how long a wish may go unnoticed


class Stop:
    """A context manager. A first signal sets `is_wanted`, a second one ends at once (KeyboardInterrupt).

    Leaving the block after a signal ends the command with 128 + its number.
    """

    def __init__(self) -> None:
        self._number: int | None = None
        self._former: Mapping[signal.Signals, object] = {}

    @property
    def is_wanted(self) -> bool:
        """Whether a signal came."""
        return self._number is not None

    def __enter__(self) -> Self:
        self._former = {number: signal.signal(number, self._take) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        if error is None and self._number is not None:
            raise click.exceptions.Exit(128 + self._number)

    def _take(self, number: int, frame: FrameType | None) -> None:
        if self._number is not None:
            raise KeyboardInterrupt
        self._number = number
