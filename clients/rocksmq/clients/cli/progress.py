"""Progress bars on stderr, for people only: in a pipe there is none."""

import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Protocol


class Advance(Protocol):
    """Takes how far it is, and of how much."""

    def __call__(self, done: int, total: int | None) -> None:
        """``total``: None while that is not known."""
        ...


@contextmanager
def progress(
    description: str, total: int | None, *, unit_is_bytes: bool = False
) -> Generator[Callable[[int], None], None, None]:
    """A bar while the block runs, if stderr is a terminal; what it gives adds to what is done of ``total`` (None: unknown)."""
    if not sys.stderr.isatty():
        yield _nothing
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    amount = DownloadColumn() if unit_is_bytes else MofNCompleteColumn()
    columns = (TextColumn("{task.description}"), BarColumn(), amount, TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(description, total=total)
        yield lambda done: bar.advance(task, done)


@contextmanager
def catching_up(description: str, *, is_shown: bool) -> Generator[Advance]:
    """As `progress`, of an end that moves; lines that go to stderr meanwhile stand above the bar."""
    if not (is_shown and sys.stderr.isatty()):
        yield _no_advance
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(description, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _nothing(done: int) -> None:
    """Nobody watches."""


def _no_advance(done: int, total: int | None) -> None:
    """Nobody watches."""
