"""A mirror at work, seen from the command line: signals, what changes, reports, its end.

The mirror runs in a thread of its own; this one looks at its reports. Whatever hangs, the command ends within STOP_SECONDS of
a wish to end: what was not acknowledged by then is mirrored by the next one.
"""

import atexit
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, NoReturn, Protocol

import click

from ..mirror.report import State
from .output import printable, show_line
from .progress import Advance, catching_up
from .stop import Stop

if TYPE_CHECKING:
    from ..mirror.report import ChannelReport, Report

STOP_SECONDS = 5.0
NAP_SECONDS = 0.1  # after which a wish to end is noticed
REPORT_SECONDS = 1.0
STDIN_BYTES = 4_096


class Mirror(Protocol):
    """Either direction."""

    def run(self, is_stopped: threading.Event) -> None:
        """Until the event is set; raises what concerns the whole mirror for good."""
        ...

    def report(self) -> "Report":
        """How it is doing; from any thread."""
        ...


@contextmanager
def left_at_once() -> Generator[None]:
    """Have the process, once it ends with the code that the block asks for, skip what Python does at its end.

    A thread of Pulsar's client that calls Python then aborts the process, however well all was closed.
    """
    code = 1
    try:
        yield
        code = 0
    except click.exceptions.Exit as end:
        code = end.exit_code
        raise
    except BrokenPipeError:
        code = 0  # whoever reads has enough
        raise
    finally:
        atexit.register(_cut_off, code)


@contextmanager
def served(mirror: Mirror, http: str | None, *, is_insecure: bool) -> Generator[None]:
    """Its metrics at that address while the block runs, if there is one; says where. Raises InvalidRequest."""
    if http is None:
        yield
        return
    from ..mirror.http import serve_metrics

    with serve_metrics(http, mirror.report, insecure=is_insecure) as address:
        click.echo(f"metrics on http://{address}/metrics", err=True)
        yield


def run(mirror: Mirror, *, as_json: bool, is_verbose: bool, is_supervised: bool) -> None:
    """Run it until a signal comes, stdin of a supervised one ends, or it fails: then raise what it raised."""
    _keep_quiet(is_verbose)
    if is_supervised:
        _be_supervised()
    with Stop() as stop:
        try:
            with catching_up("mirroring", is_shown=not as_json) as advance:
                _watch(_Running(mirror), stop, _Shown(as_json=as_json, advance=advance), _Stdin(is_read=is_supervised))
        except KeyboardInterrupt:
            _cut_off(128 + signal.SIGINT)


def _watch(running: "_Running", stop: Stop, shown: "_Shown", stdin: "_Stdin") -> None:
    due = time.monotonic()
    while not running.is_over(NAP_SECONDS):
        if stop.is_wanted or stdin.has_ended:
            running.stop()
        if running.is_late:
            click.echo(f"error: not ended within {STOP_SECONDS:g} s, and cut off: a next one goes on from there", err=True)
            shown.show(running.mirror.report())
            _cut_off(128 + stop.number if stop.number else 0)
        if time.monotonic() >= due:
            due = time.monotonic() + REPORT_SECONDS
            shown.show(running.mirror.report())
    shown.show(running.mirror.report())
    running.raise_failure()


class _Running:
    """The mirror's thread."""

    def __init__(self, mirror: Mirror) -> None:
        self.mirror = mirror
        self._is_stopped = threading.Event()
        self._is_over = threading.Event()
        self._failure: BaseException | None = None
        self._late_at: float | None = None
        threading.Thread(target=self._run, name="mirror", daemon=True).start()

    def _run(self) -> None:
        try:
            self.mirror.run(self._is_stopped)
        except BaseException as error:  # for the thread that looks
            self._failure = error
        finally:
            self._is_over.set()

    def is_over(self, seconds: float) -> bool:
        """Whether it has ended, after waiting so long for that."""
        return self._is_over.wait(seconds)

    def stop(self) -> None:
        """Have it end. May be repeated."""
        self._is_stopped.set()
        self._late_at = self._late_at or time.monotonic() + STOP_SECONDS

    @property
    def is_late(self) -> bool:
        """It was told to end too long ago."""
        return self._late_at is not None and time.monotonic() > self._late_at

    def raise_failure(self) -> None:
        """What it ended with."""
        if self._failure is not None:
            raise self._failure


class _Shown:
    """Reports, as lines on stderr for what has changed, and as JSON or progress."""

    def __init__(self, *, as_json: bool, advance: Advance) -> None:
        self._as_json = as_json
        self._advance = advance
        self._told: dict[str, tuple[State, str]] = {}
        self._told_of_all = (State.STARTING, "")

    def show(self, report: "Report") -> None:
        """The newest."""
        self._tell_of_all(report)
        for one in report.values():
            self._tell(one)
        if self._as_json:
            show_line(report.to_json())
        else:
            sums = report.sums
            self._advance(sums.messages, None if any(one.lag is None for one in report.values()) else sums.messages + sums.lag)

    def _tell_of_all(self, report: "Report") -> None:
        """What concerns the mirror as a whole; not that it runs, as it should."""
        before, present = self._told_of_all, (report.state, report.last_error)
        if present == before or report.state in (State.STARTING, State.ENDED):
            return
        self._told_of_all = present
        is_new = present[1] != before[1]
        if report.state == State.RUNNING and not is_new and before[0] == State.STARTING:
            return
        reason = f": {report.last_error}" if report.last_error and (is_new or report.state != State.RUNNING) else ""
        click.echo(printable(f"mirror {report.mirror}: {report.state}{reason}"), err=True)

    def _tell(self, one: "ChannelReport") -> None:
        """A state that is new, or has a new reason. That it is tried again is not worth a line."""
        has_reason = one.state in (State.WAITING, State.STOPPED)
        present = (one.state, one.last_error if has_reason else "")
        if one.state == State.STARTING or self._told.get(one.channel) == present:
            return
        self._told[one.channel] = present
        reason = f": {one.last_error}" if has_reason and one.last_error else f", topic {one.topic}"
        click.echo(printable(f"{one.channel}: {one.state}{reason}"), err=True)


class _Stdin:
    """Whether it has ended; never so unless it is read."""

    def __init__(self, *, is_read: bool) -> None:
        self.has_ended = False
        if is_read:
            threading.Thread(target=self._read, name="stdin", daemon=True).start()

    def _read(self) -> None:
        try:
            while os.read(0, STDIN_BYTES):
                pass
        finally:
            self.has_ended = True


def _be_supervised() -> None:
    """The broker's blocked signals are inherited, and Ctrl-C on its terminal is for the broker, which tells us to end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGINT, signal.SIGHUP})


def _keep_quiet(is_verbose: bool) -> None:
    """Pulsar's client logs each attempt to connect, for people that debug it; what matters is in the reports."""
    pulsar = logging.getLogger("rocksmq.pulsar")
    if is_verbose:
        logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
        pulsar.setLevel(logging.DEBUG)  # by which the client is told to log at all
    else:
        pulsar.setLevel(logging.CRITICAL)


def _cut_off(code: int) -> NoReturn:
    """End at once: threads of Pulsar's client may not be waited for."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            stream.flush()
    os._exit(code)
