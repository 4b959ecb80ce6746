"""Progress bars on stderr, for people only: in a pipe there is none."""

import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager


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


def _nothing(done: int) -> None:
    """Nobody watches."""
