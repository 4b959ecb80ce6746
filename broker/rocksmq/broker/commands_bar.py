"""How far a command is, on stderr, where a person watches; nothing in a pipe."""

import sys
from time import monotonic

import click

PROGRESS_SECONDS = 0.2
ERASE = "\r\x1b[K"
MB = 1_000_000


class Bar:
    """One line, drawn anew in its place."""

    def __init__(self) -> None:
        self._is_watched = sys.stderr.isatty()
        self._next = monotonic() + PROGRESS_SECONDS
        self._is_shown = False

    def show(self, done: int, total: int) -> None:
        if self._is_watched and monotonic() >= self._next:
            self._next = monotonic() + PROGRESS_SECONDS
            self._is_shown = True
            click.echo(f"{ERASE}{done / MB:,.0f} of {max(done, total) / MB:,.0f} MB", nl=False, err=True)

    def hide(self) -> None:
        if self._is_shown:
            self._is_shown = False
            click.echo(ERASE, nl=False, err=True)
