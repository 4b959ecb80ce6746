"""The log: what a record looks like, that nothing in it can make another, and that many alike are few."""

import io
import json
import logging
import re
import sys
import threading
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rocksmq.broker.logs import (
    ALIKE_MAX,
    ALIKE_SECONDS,
    CONSOLE,
    JSON,
    KINDS_MAX,
    MESSAGE_CHARACTERS,
    TRACEBACK_CHARACTERS,
    Logs,
    printable,
)

NAME = "rocksmq.broker"
LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (DEBUG|INFO|WARNING|ERROR|CRITICAL) [\w.]+: .*")


class Bench:
    """A log of its own, on a clock of its own."""

    def __init__(self, format_name: str = CONSOLE) -> None:
        self.now = 0.0
        self.stream = io.StringIO()
        self.logs = Logs(self.stream, clock=lambda: self.now)
        self.logs.format_name = format_name

    def log(self, message: object, *values: object, level: int = logging.INFO, name: str = NAME, error: bool = False) -> None:
        exc_info = sys.exc_info() if error else None
        self.logs.handle(logging.LogRecord(name, level, "", 0, message, values, exc_info))

    @property
    def lines(self) -> list[str]:
        return self.stream.getvalue().splitlines()

    @property
    def trees(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines]


@pytest.fixture
def installed() -> Iterator[Bench]:
    """A log that takes what this process logs, until the test is over."""
    root, ours = logging.getLogger(), logging.getLogger("rocksmq")
    before = root.handlers, root.level, ours.level
    bench = Bench()
    bench.logs.install()
    yield bench
    logging.captureWarnings(capture=False)
    root.handlers = before[0]
    root.setLevel(before[1])
    ours.setLevel(before[2])


# -- one record ------------------------------------------------------------------------


def test_given_a_record_when_written_for_people_then_it_is_one_line_with_time_level_and_name() -> None:
    bench = Bench()
    bench.log("%s of %d", "one", 2, level=logging.WARNING)
    (line,) = bench.lines
    assert LINE.fullmatch(line)
    assert line.endswith(" WARNING rocksmq.broker: one of 2")
    written = datetime.fromisoformat(line.split()[0])
    assert abs(written - datetime.now(UTC)) < timedelta(minutes=1)


def test_given_a_record_when_written_as_json_then_it_is_an_object_with_the_same() -> None:
    bench = Bench(JSON)
    bench.log("Grüße an %s", "\u65e5\u672c")
    (tree,) = bench.trees
    assert list(tree) == ["ts", "level", "logger", "message"]
    assert (tree["level"], tree["logger"], tree["message"]) == ("info", NAME, "Grüße an \u65e5\u672c")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", str(tree["ts"]))
    assert bench.stream.getvalue().isascii()


HOSTILE = "a\n2026-01-01T00:00:00.000Z INFO rocksmq.broker: made up\r\x1b[2J\x9b1m\x7f\x00\u2028\u202e\ud800\t\x85z"


@pytest.mark.parametrize("format_name", [CONSOLE, JSON])
def test_given_a_hostile_name_in_a_record_when_written_then_it_stays_within_its_line(format_name: str) -> None:
    bench = Bench(format_name)
    bench.log("channel %s", HOSTILE)
    text = bench.stream.getvalue()
    assert text.count("\n") == 1
    assert text.removesuffix("\n").isprintable()
    if format_name == JSON:
        assert bench.trees[0]["message"] == f"channel {HOSTILE}"
    else:
        assert r"a\n2026" in text
        assert r"\x1b[2J\x9b1m\x7f\x00\u2028\u202e\ud800\t\x85z" in text


@given(st.text(st.characters()))
def test_given_any_text_when_made_printable_then_it_is_and_what_was_so_stays_in_order(text: str) -> None:
    made = printable(text)
    assert made.isprintable()
    left = iter(made)
    assert all(character in left for character in text if character.isprintable())
    assert made == text or not text.isprintable()


def raised(message: str) -> None:
    raise ValueError(message)


def test_given_an_error_when_written_for_people_then_its_traceback_is_indented_and_escaped_below() -> None:
    bench = Bench()
    try:
        raised(HOSTILE)
    except ValueError:
        bench.log("a bug", level=logging.ERROR, error=True)
    first, *others = bench.lines
    assert first.endswith("ERROR rocksmq.broker: a bug")
    assert others[0] == "    Traceback (most recent call last):"
    assert any("raise ValueError(message)" in line for line in others)
    assert all(line.startswith("    ") and line.isprintable() for line in others)


def test_given_an_error_when_written_as_json_then_it_has_type_message_and_traceback() -> None:
    bench = Bench(JSON)
    try:
        raised(HOSTILE)
    except ValueError:
        bench.log("a bug", level=logging.ERROR, error=True)
    (tree,) = bench.trees
    assert tree["message"] == "a bug"
    error = tree["error"]
    assert error["type"] == "ValueError"
    assert "made up" in error["message"]
    assert error["traceback"].startswith("Traceback (most recent call last):")


@pytest.mark.parametrize("format_name", [CONSOLE, JSON])
def test_given_very_much_text_when_written_then_it_is_bounded(format_name: str) -> None:
    bench = Bench(format_name)
    try:
        raised("y" * 10_000_000)
    except ValueError:
        bench.log("x" * 10_000_000, error=True)
    text = bench.stream.getvalue()
    assert len(text) < 2 * (MESSAGE_CHARACTERS + TRACEBACK_CHARACTERS)
    assert "10000000 characters" in text


class Unprintable:
    def __str__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize("format_name", [CONSOLE, JSON])
def test_given_arguments_that_do_not_fit_when_written_then_the_rest_is(format_name: str) -> None:
    bench = Bench(format_name)
    bench.log("%d of it", "none")
    bench.log("%s of it", Unprintable())
    bench.log(ValueError("an object as message"))
    assert [text in line for text, line in zip(("of it", "of it", "an object"), bench.lines, strict=True)] == [True] * 3


class Full(io.StringIO):
    def write(self, _text: str) -> int:
        raise OSError(28, "No space left on device")


@pytest.mark.parametrize("is_closed", [False, True])
def test_given_a_stream_that_takes_nothing_when_written_then_nothing_is_raised(is_closed: bool) -> None:
    stream = io.StringIO() if is_closed else Full()
    if is_closed:
        stream.close()
    logs = Logs(stream)
    logs.handle(logging.LogRecord(NAME, logging.INFO, "", 0, "lost", (), None))
    logs.tell_withheld(is_over=True)


# -- many alike ------------------------------------------------------------------------


def test_given_many_alike_when_written_then_some_come_out_and_later_one_line_tells_of_the_others() -> None:
    bench = Bench()
    for number in range(100):
        bench.log("request %d", number)
    assert len(bench.lines) == ALIKE_MAX
    assert bench.logs.suppressed == 80
    bench.logs.tell_withheld()
    assert len(bench.lines) == ALIKE_MAX
    bench.now = ALIKE_SECONDS
    bench.logs.tell_withheld()
    assert bench.lines[-1].endswith("INFO rocksmq.broker: 80 more like this were left out within 10 s: request %d")
    bench.now = 5 * ALIKE_SECONDS
    bench.logs.tell_withheld()
    assert len(bench.lines) == ALIKE_MAX + 1


def test_given_more_of_them_when_the_time_is_over_then_the_count_comes_first_and_there_is_room_again() -> None:
    bench = Bench()
    for _ in range(2):
        for number in range(ALIKE_MAX + 3):
            bench.log("request %d", number)
        bench.now += ALIKE_SECONDS
    assert len(bench.lines) == 2 * ALIKE_MAX + 1
    assert "3 more like this" in bench.lines[ALIKE_MAX]
    assert bench.lines[ALIKE_MAX + 1].endswith("request 0")
    bench.logs.tell_withheld(is_over=True)
    assert "3 more like this" in bench.lines[-1]


def test_given_records_of_other_kinds_when_one_is_withheld_then_they_come_out() -> None:
    bench = Bench()
    for _ in range(100):
        bench.log("alike")
    bench.log("alike", level=logging.ERROR)
    bench.log("alike", name="rocksmq.metrics")
    bench.log("other")
    assert len(bench.lines) == ALIKE_MAX + 3


def test_given_very_many_kinds_when_written_then_memory_is_bounded_and_the_rest_share_one_allowance() -> None:
    bench = Bench()
    for number in range(3 * KINDS_MAX):
        bench.log(f"kind {number}")
    assert len(bench.lines) == KINDS_MAX + ALIKE_MAX
    bench.now = ALIKE_SECONDS
    bench.log("again")
    bench.logs.tell_withheld(is_over=True)
    assert any("further kinds" in line for line in bench.lines)
    assert bench.lines[-1].endswith("again") or bench.lines[-2].endswith("again")


def test_given_lines_when_counted_then_each_level_has_its_own_and_what_was_withheld_another() -> None:
    bench = Bench()
    for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL):
        bench.log("one", level=level)
    for _ in range(ALIKE_MAX + 5):
        bench.log("many", level=logging.WARNING)
    bench.logs.tell_withheld(is_over=True)
    assert bench.logs.counts == {"debug": 1, "info": 1, "warning": ALIKE_MAX + 2, "error": 1, "critical": 1}
    samples = {(metric.name, at.labels): at.value for metric, found in bench.logs.families() for at in found if at}
    assert samples["rocksmq_log_records_total", '{level="warning"}'] == ALIKE_MAX + 2
    assert samples["rocksmq_log_suppressed_total", ""] == 5


# -- the process's ---------------------------------------------------------------------


def test_given_a_level_when_set_then_ours_come_out_from_there_on_and_of_libraries_only_warnings(installed: Bench) -> None:
    ours, theirs = logging.getLogger("rocksmq.broker"), logging.getLogger("some.library")
    installed.logs.configure("debug", CONSOLE)
    ours.debug("ours")
    theirs.info("a password, perhaps")
    theirs.warning("theirs")
    installed.logs.configure("error", CONSOLE)
    ours.warning("not any more")
    theirs.warning("not any more")
    ours.error("an error")
    assert [line.rpartition(": ")[2] for line in installed.lines] == ["ours", "theirs", "an error"]


def test_given_a_format_when_changed_then_the_next_line_has_it(installed: Bench) -> None:
    logger = logging.getLogger("rocksmq.broker")
    installed.logs.configure("info", CONSOLE)
    logger.info("one")
    installed.logs.configure("info", JSON)
    logger.info("two")
    assert LINE.fullmatch(installed.lines[0])
    assert json.loads(installed.lines[1])["message"] == "two"


def test_given_a_warning_of_pythons_when_installed_then_it_is_a_record(installed: Bench) -> None:
    installed.logs.configure("info", JSON)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=True)
        warnings.warn("old\nhabits", DeprecationWarning, stacklevel=1)
    assert [tree["logger"] for tree in installed.trees] == ["py.warnings"]


def test_given_many_threads_that_log_when_written_then_no_line_is_torn() -> None:
    bench = Bench(JSON)

    def work(which: int) -> None:
        for number in range(200):
            bench.log(f"thread {which} %d", number)

    threads = [threading.Thread(target=work, args=(which,)) for which in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(bench.trees) == 4 * ALIKE_MAX
    assert bench.logs.suppressed == 4 * (200 - ALIKE_MAX)
