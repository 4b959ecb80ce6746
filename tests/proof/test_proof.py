"""The table of the proof: what a run becomes in it, and that it tells of no command that is not there."""

import subprocess
import sys
from pathlib import Path

import pytest

from .__main__ import FAILED, PAGE, ROOT, line, read, rendered, run, told
from .rows import ROWS, Row, row_of

ECHO = row_of("crash", "it says something", "-c print('1_done')", r"^(\d_done)$", 0.5)


def test_given_a_command_that_ends_well_when_run_then_what_counts_of_its_output_is_told() -> None:
    said, _ = run(ECHO)
    assert said == "1_done"


@pytest.mark.parametrize(
    ("code", "output", "said"),
    [
        (0, "1_done\nother\n2_done\n", "1_done<br>2_done"),
        (1, "1_done\n", f"{FAILED}: exit code 1<br>1_done"),
        (0, "other\n", f"{FAILED}: exit code 0"),
        (None, "", f"{FAILED}: not within 30 s"),
    ],
)
def test_given_how_a_command_ended_when_told_then_only_one_that_says_what_it_should_has_succeeded(
    code: int | None, output: str, said: str
) -> None:
    assert told(ECHO, code, output) == said


def test_given_a_command_that_hangs_when_run_then_it_is_killed_and_has_failed() -> None:
    late = Row("crash", "", ("-c", "import time; time.sleep(60)"), ECHO.finding, 0.5)
    assert run(late)[0] == f"{FAILED}: not within 0.5 s"


def test_given_a_command_that_fails_when_run_then_all_that_it_printed_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    failing = Row("crash", "", ("-c", "print('FOUND: that'); raise SystemExit(1)"), ECHO.finding, 30.0)
    assert run(failing)[0] == f"{FAILED}: exit code 1"
    assert "FOUND: that" in capsys.readouterr().err


def test_given_a_page_when_a_row_is_run_anew_then_the_others_stay() -> None:
    first, second = ROWS[0], ROWS[1]
    lines = {second.name: line(second, "before", 1.0), first.name: line(first, "x", 2.0)}
    page = rendered(lines)
    assert read(page) == lines
    assert list(read(page)) == [first.name, second.name]


def test_given_the_page_that_is_committed_when_read_then_it_is_of_these_rows_and_none_has_failed() -> None:
    found = read(PAGE.read_text())
    assert rendered(found) == PAGE.read_text()
    assert FAILED not in PAGE.read_text()
    for row in ROWS:
        assert f"| `{row.command}` |" in found.get(row.name, f"| `{row.command}` |"), "its command has changed: run it anew"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_given_a_row_when_its_command_is_asked_for_help_then_it_is_there(row: Row) -> None:
    module = row.arguments[1]
    assert (
        module == "pytest"
        or (ROOT / Path(*module.split("."))).with_suffix(".py").exists()
        or (ROOT / Path(*module.split(".")) / "__main__.py").exists()
    )
    if module == "pytest":
        assert all((ROOT / name).exists() for name in row.arguments if name.startswith("tests/"))
    else:
        subprocess.run([sys.executable, "-m", module, "--help"], cwd=ROOT, check=True, capture_output=True)
