"""The process's log: one record a line, in words or as JSON, and never many alike.

Owns standard error and the levels of loggers. What a client chose, such as a name, comes out escaped, so that it can
neither begin a line nor steer a terminal. Of libraries only warnings come out: what one tells while it is debugged may
hold a password. Records may come from any thread.
"""

import json
import logging
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, NamedTuple, TextIO

from rocksmq.metrics import catalogue
from rocksmq.metrics.instruments import MetricFamily, gauge, gauges

CONSOLE, JSON = "console", "json"
FORMATS = (CONSOLE, JSON)
LEVELS = ("debug", "info", "warning", "error")  # those to choose from
OURS = "rocksmq"
ALIKE_MAX = 20
ALIKE_SECONDS = 10.0
KINDS_MAX = 1_000  # told apart; beyond, the others share one allowance
MESSAGE_CHARACTERS = 4_000
TRACEBACK_CHARACTERS = 16_000  # of its end, which says most
INDENT = "    "  # of what belongs to the record above


class Kind(NamedTuple):
    """What makes records alike."""

    logger: str
    level: int
    template: str


OTHERS = Kind(OURS, logging.WARNING, "records of further kinds")


class Allowance:
    """How many alike may still come out, and how many did not."""

    __slots__ = ("left", "until", "withheld")

    def __init__(self, until: float) -> None:
        self.left = ALIKE_MAX
        self.until = until
        self.withheld = 0


class Logs(logging.Handler):
    """Writes records to ``stream``, and counts them."""

    def __init__(self, stream: TextIO, *, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self.counts: dict[str, int] = dict.fromkeys((*LEVELS, "critical"), 0)  # lines that came out, by level
        self.suppressed = 0
        self.format_name = CONSOLE
        self._stream = stream
        self._clock = clock
        self._allowances: dict[Kind, Allowance] = {}

    def install(self) -> None:
        """Take everything that is logged in this process, and Python's warnings."""
        logging.getLogger().handlers = [self]
        logging.captureWarnings(capture=True)

    def configure(self, level: str, format_name: str) -> None:
        """From now on records from ``level`` on, as ``format_name``."""
        chosen: int = getattr(logging, level.upper())
        logging.getLogger().setLevel(max(chosen, logging.WARNING))
        logging.getLogger(OURS).setLevel(chosen)
        self.format_name = format_name

    def emit(self, record: logging.LogRecord) -> None:
        template = record.msg if isinstance(record.msg, str) else type(record.msg).__name__
        allowance = self._allowance(Kind(record.name, record.levelno, template))
        if allowance.left:
            allowance.left -= 1
            self._write(record)
        else:
            allowance.withheld += 1
            self.suppressed += 1

    def tell_withheld(self, *, is_over: bool = False) -> None:
        """Say how many were left out, where the time for that has come or the log ``is_over``; to be called now and then."""
        self.acquire()
        try:
            now = float("inf") if is_over else self._clock()
            for kind in [kind for kind, allowance in self._allowances.items() if allowance.until <= now]:
                self._end(kind)
        finally:
            self.release()

    def families(self) -> Iterator[MetricFamily]:
        """As metrics."""
        yield gauges(catalogue.LOG_RECORDS, [((level,), count) for level, count in self.counts.items()])
        yield gauge(catalogue.LOG_SUPPRESSED, self.suppressed)

    def _allowance(self, kind: Kind) -> Allowance:
        now = self._clock()
        if kind not in self._allowances and len(self._allowances) >= KINDS_MAX:
            self.tell_withheld()
            if len(self._allowances) >= KINDS_MAX:
                kind = OTHERS
        allowance = self._allowances.get(kind)
        if allowance is None or allowance.until <= now:
            self._end(kind)
            allowance = self._allowances[kind] = Allowance(now + ALIKE_SECONDS)
        return allowance

    def _end(self, kind: Kind) -> None:
        ended = self._allowances.pop(kind, None)
        if ended is not None and ended.withheld:
            text = f"{ended.withheld} more like this were left out within {ALIKE_SECONDS:g} s: %s"
            self._write(logging.LogRecord(kind.logger, kind.level, "", 0, text, (kind.template,), None))

    def _write(self, record: logging.LogRecord) -> None:
        line = _as_json(record) if self.format_name == JSON else _in_words(record)
        level = record.levelname.lower()
        self.counts[level] = self.counts.get(level, 0) + 1
        with suppress(OSError, ValueError):  # a log that is full, gone or closed is no reason to stop
            self._stream.write(f"{line}\n")
            self._stream.flush()


def printable(text: str) -> str:
    """``text`` with everything escaped that moves a cursor, ends a line or is not seen."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _in_words(record: logging.LogRecord) -> str:
    lines = [f"{_timestamp(record)} {record.levelname} {record.name}: {printable(_message(record))}"]
    if (error := _error(record)) is not None:
        lines += [INDENT + printable(line) for line in _traceback(error).splitlines()]
    return "\n".join(lines)


def _as_json(record: logging.LogRecord) -> str:
    tree: dict[str, Any] = {
        "ts": _timestamp(record),
        "level": record.levelname.lower(),
        "logger": record.name,
        "message": _message(record),
    }
    if (error := _error(record)) is not None:
        said = "".join(traceback.format_exception_only(error)).strip().removeprefix(f"{type(error).__qualname__}: ")
        tree["error"] = {
            "type": type(error).__name__,
            "message": said[:MESSAGE_CHARACTERS],
            "traceback": _traceback(error),
        }
    return json.dumps(tree)  # in ASCII, so that any log takes it


def _timestamp(record: logging.LogRecord) -> str:
    at = datetime.fromtimestamp(record.created, UTC)
    return f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03d}Z"


def _message(record: logging.LogRecord) -> str:
    try:
        text = record.getMessage()
    except Exception:  # a library's arguments that do not fit
        text = str(record.msg)
    return text if len(text) <= MESSAGE_CHARACTERS else f"{text[:MESSAGE_CHARACTERS]} ... ({len(text)} characters)"


def _error(record: logging.LogRecord) -> BaseException | None:
    return record.exc_info[1] if record.exc_info else None


def _traceback(error: BaseException) -> str:
    return "".join(traceback.format_exception(error)).rstrip()[-TRACEBACK_CHARACTERS:]
