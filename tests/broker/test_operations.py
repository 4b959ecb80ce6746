"""What operations.md says of exit codes, checks and the forms of the log, against the broker."""

import json
import re
from io import StringIO
from logging import WARNING, LogRecord
from pathlib import Path

import pytest
from click.testing import CliRunner

from rocksmq.broker.__main__ import main
from rocksmq.broker.config import Config
from rocksmq.broker.engine import RocksMQ
from rocksmq.broker.health import Health
from rocksmq.broker.logs import FORMATS, Logs

from .support import in_trio

GUIDE = (Path(__file__).parents[2] / "broker" / "operations.md").read_text()
OPTIONS = (Path(__file__).parents[2] / "deploy" / "rocksmqd.toml").read_text()


def section(title: str) -> str:
    return GUIDE.split(f"## {title}\n")[1].split("\n## ")[0]


def first_cells(text: str) -> list[str]:
    """Of the tables' rows."""
    rows = re.findall(r"^\| ([^|]+) \|", text, re.MULTILINE)
    return [row.strip("`") for row in rows if row not in ("code", "check", "path", "signal")]


def test_given_the_exit_codes_of_the_help_when_compared_then_the_guide_has_the_same() -> None:
    told = CliRunner().invoke(main, ["--help"]).output.split("Exit codes:")[1]
    assert first_cells(section("Exit codes")) == re.findall(r"^ +(\d+(?:, \d+)*)  ", told, re.MULTILINE)


@in_trio
async def test_given_the_checks_of_readyz_when_compared_then_the_guide_has_the_same(tmp_path: Path) -> None:
    async with RocksMQ(tmp_path) as mq:
        health = Health(mq.core)
    found = first_cells(section("Health"))
    assert [name for name in found if not name.startswith("/")] == list(health.names)
    example = json.loads(next(line for line in section("Health").splitlines() if line.startswith("{")))
    assert [check["check"] for check in example["checks"]] == list(health.names)


@pytest.mark.parametrize("format_name", FORMATS)
def test_given_the_line_of_log_in_the_guide_when_written_then_it_is_the_same_but_for_the_time(format_name: str) -> None:
    words, tree = (re.search(rf"```{kind}\n(.*)\n```", section("Logs")) for kind in ("text", "json"))
    assert words
    assert tree
    stream = StringIO()
    logs = Logs(stream)
    logs.format_name = format_name
    logs.handle(LogRecord("rocksmq.broker", WARNING, "", 0, json.loads(tree[1])["message"], (), None))
    shown = tree[1] if format_name == "json" else words[1]
    at = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
    assert at.sub("", stream.getvalue().strip()) == at.sub("", shown)


def test_given_what_the_guide_says_of_configurations_when_printed_then_it_looks_like_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    example = re.search(r"--print-config \| head -3\n((?:.+\n){3})", GUIDE)
    assert example
    file = tmp_path / "rocksmqd.toml"
    file.write_text('data_dir = "/var/lib/rocksmq"')
    monkeypatch.chdir(tmp_path)
    printed = CliRunner().invoke(main, ["--config", "rocksmqd.toml", "--print-config"], env={"ROCKSMQ_LOG_LEVEL": "debug"})
    lines = [line.split() for line in printed.output.splitlines()[:3]]
    assert lines == [line.split() for line in example[1].splitlines()]


def test_given_the_options_when_looked_up_then_the_file_of_deploy_explains_each() -> None:
    for name in Config().values():
        assert re.search(rf"^#?{name.rpartition('.')[2]} = ", OPTIONS, re.MULTILINE), name
