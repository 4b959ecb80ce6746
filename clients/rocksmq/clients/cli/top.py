"""`rocksmq top`: a broker live, as a screen, as blocks of text, or as JSON lines."""

import logging
import os
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

import click

from .output import json_line, show_line
from .parameters import seconds
from .session import Session, pass_session
from .stop import Stop

if TYPE_CHECKING:
    from .top_view import Frame
    from .watch import Watch

CALL_SECONDS = 1.0  # of one look: for so long a broker that is away may hold up Ctrl-C
NAP_SECONDS = 0.1  # after which a wish to end, and a new size of the terminal, are noticed


class Show(Protocol):
    """Where frames go."""

    def show(self, frame: "Frame") -> None:
        """A new one."""
        ...

    def refresh(self) -> None:
        """Between two: the terminal may have another size."""
        ...


@click.command()
@click.option(
    "--interval", type=seconds, default=1.0, show_default=True, metavar="SECONDS", help="Time between two looks at the broker."
)
@click.option("--once", is_flag=True, help="Show one interval as text, and end; exit code 1 when no broker answers.")
@click.option("-n", "--count", type=click.IntRange(1), metavar="COUNT", help="End after so many intervals.")
@click.option("--channel", default="", metavar="NAME", help="Show this channel only, with its groups.")
@pass_session
def top(session: Session, interval: float | None, once: bool, count: int | None, channel: str) -> None:
    """Watch the broker: rates, latencies, sync time, lag by group, connections, disk, memory.

    On a terminal it is a screen, the groups that are farthest behind first; in a pipe a block of text an interval; after --json
    an object a line. It goes on while the broker is away. Ctrl-C ends it, with exit code 0.

    \b
    Example:
      rocksmq top
      rocksmq --json top --interval 10 -n 360 > hour.jsonl
    """
    from .watch import Watch

    if interval is None:
        raise click.BadParameter("inf is no interval", param_hint="--interval")
    if not once:
        session = replace(session, timeout=min(session.timeout or CALL_SECONDS, CALL_SECONDS))
    is_screen = not (session.as_json or once) and sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
    with Watch(session, channel, is_patient=not once) as watch, Stop(ctrl_c_code=0) as stop:
        if is_screen:
            with _screen() as on_screen:
                on_screen.show(watch.look())  # without rates, lest it stay empty at first
                _run(watch, on_screen, stop, interval, count)
        else:
            watch.look()
            _run(watch, _Lines(as_json=session.as_json), stop, interval, 1 if once else count)


def _run(watch: "Watch", to: Show, stop: Stop, interval: float, count: int | None) -> None:
    """Show what happened every ``interval`` seconds, until an end is wanted."""
    shown = 0
    due = time.monotonic()
    while not stop.is_wanted and (count is None or shown < count):
        due = max(due + interval, time.monotonic())
        while not stop.is_wanted and (left := due - time.monotonic()) > 0:
            time.sleep(min(left, NAP_SECONDS))
            to.refresh()
        if not stop.is_wanted:
            to.show(watch.look())
            shown += 1


class _Lines:
    """To a pipe or a file."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json

    def show(self, frame: "Frame") -> None:
        from .top_view import block

        if self._as_json:
            show_line(json_line(_record(frame)))
        else:
            for line in block(frame):
                show_line(line)

    def refresh(self) -> None:
        """Nothing to do."""


def _record(frame: "Frame") -> dict[str, object]:
    record: dict[str, object] = {
        "time": datetime.fromtimestamp(frame.at, UTC).isoformat(timespec="milliseconds"),
        "url": frame.url,
    }
    if frame.away or frame.overview is None:
        return {**record, "error": frame.away}
    broker = {"version": frame.version, "durability": frame.durability, "interval_seconds": round(frame.seconds, 3)}
    return {**record, **broker, **frame.overview.as_json()}


@contextmanager
def _screen() -> Generator[Show]:
    """A screen of its own on the terminal, which is as before afterwards."""
    from rich.console import Console
    from rich.live import Live

    from .top_view import screen

    console = Console(markup=False, highlight=False)
    logging.getLogger("rocksmq").addHandler(logging.NullHandler())  # else what is logged would be written across the screen

    class OnScreen:
        """The screen."""

        def __init__(self) -> None:
            self._frame: Frame | None = None
            self._size = console.size

        def show(self, frame: "Frame") -> None:
            self._frame, self._size = frame, console.size
            width, height = self._size
            live.update(screen(frame, width, height), refresh=True)

        def refresh(self) -> None:
            if self._frame is not None and console.size != self._size:
                self.show(self._frame)

    with Live(console=console, screen=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False) as live:
        yield OnScreen()
