"""`rocksmq check`, which the broker's extra brings: what it prints, its exit codes, and what is said without the extra."""

import importlib.metadata
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio
from click.testing import CliRunner, Result

from rocksmq.broker.engine import RocksMQ
from rocksmq.clients.cli import main

from .cli_support import on_terminal


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Of a broker that has stopped."""

    async def fill() -> None:
        async with RocksMQ(tmp_path / "data") as mq:
            await mq.create_channel("orders")
            await mq.create_consumer_group("orders", "billing")
            await mq.produce("orders", [b"a", b"bc"])

    trio.run(fill)
    return tmp_path / "data"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], prog_name="rocksmq")


def test_given_a_healthy_directory_when_checked_then_each_thing_has_a_line_and_the_exit_code_is_0(directory: Path) -> None:
    result = run("check", directory)
    assert result.exit_code == 0
    first, channel, total = result.stdout.splitlines()
    assert first.startswith(f"{directory}: format 1, instance ")
    assert channel.startswith("channel orders: 2 messages, 3 bytes, ids ")
    assert channel.endswith(", 1 group")
    assert total == "checked 1 channel, 1 group, 2 messages, 3 bytes: 0 problems, 0 notes"
    assert result.stderr == ""


def test_given_json_when_checked_then_each_line_is_an_object_with_its_kind(directory: Path) -> None:
    result = run("--json", "check", directory)
    assert result.exit_code == 0
    found = [json.loads(line) for line in result.stdout.splitlines()]
    assert [record["kind"] for record in found] == ["directory", "channel", "total"]
    assert found[0]["path"] == str(directory)
    assert found[0]["commit_number"] == found[0]["mark"]
    assert (found[1]["name"], found[1]["message_count"], found[1]["byte_count"]) == ("orders", 2, 3)
    assert (found[2]["problems"], found[2]["notes"]) == (0, 0)


@pytest.mark.parametrize("as_json", [False, True])
def test_given_a_problem_when_checked_then_it_has_a_line_and_the_exit_code_is_1(directory: Path, as_json: bool) -> None:
    (directory / "mark").unlink()
    result = run(*(["--json"] if as_json else []), "check", directory)
    assert result.exit_code == 1
    assert result.stderr == ""
    (line,) = [line for line in result.stdout.splitlines() if "missing or damaged" in line]
    if as_json:
        record = json.loads(line)
        assert (record["kind"], record["subject"]) == ("problem", "mark")
    else:
        assert line.startswith("PROBLEM  mark: it is missing")


def test_given_a_broker_that_runs_when_its_directory_is_checked_then_one_line_says_so_and_the_exit_code_is_1(
    directory: Path,
) -> None:
    async def checked() -> Result:
        async with RocksMQ(directory):
            return run("check", directory)

    result = trio.run(checked)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"error: the data directory {directory} is in use by rocksmqd with pid ")
    assert result.stderr.endswith(": stop it first\n")
    assert result.stdout == ""


def test_given_a_directory_of_something_else_when_checked_then_it_is_a_wrong_usage(tmp_path: Path) -> None:
    result = run("check", tmp_path)
    assert result.exit_code == 2
    assert f"Error: {tmp_path} is no RocksMQ data directory" in result.stderr


@pytest.mark.parametrize("arguments", [["check"], ["check", "no such directory"]])
def test_given_no_directory_when_checked_then_it_is_a_wrong_usage(arguments: list[str]) -> None:
    assert run(*arguments).exit_code == 2


def test_given_a_terminal_when_checked_then_what_stays_on_it_are_the_lines(directory: Path) -> None:
    code, shown = on_terminal(["check", str(directory)])
    assert code == 0
    assert "checked 1 channel" in shown


class Missing:
    """An entry point whose module cannot be imported."""

    def __init__(self, name: str) -> None:
        self._name = name

    def load(self) -> Callable[..., Any]:
        raise ModuleNotFoundError(f"No module named {self._name!r}", name=self._name)


def bring(monkeypatch: pytest.MonkeyPatch, found: list[Missing]) -> None:
    """These are the entry points that are installed."""

    def entry_points(*, group: str, name: str) -> list[Missing]:
        assert (group, name) == ("rocksmq.commands", "check")
        return found

    monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)


@pytest.mark.parametrize("found", [[], [Missing("rocksdict")], [Missing("trio")], [Missing("crc32c")]])
@pytest.mark.parametrize("arguments", [["check", "."], ["check", "--help"]])
def test_given_a_client_without_the_broker_when_called_then_one_line_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, found: list[Missing], arguments: list[str]
) -> None:
    bring(monkeypatch, found)
    result = run(*arguments)
    assert result.exit_code == 1
    assert result.stderr == "error: rocksmq check needs the broker: pip install 'rocksmq[broker]'\n"
    assert result.stdout == ""


def test_given_a_client_without_the_broker_when_help_is_asked_for_then_the_command_is_in_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bring(monkeypatch, [])
    result = run("--help")
    assert result.exit_code == 0
    assert "check      Check everything in a stopped broker's data directory." in result.stdout


def test_given_a_module_of_our_own_that_is_missing_when_called_then_it_is_not_taken_for_an_extra(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bring(monkeypatch, [Missing("rocksmq.broker.nothing")])
    assert isinstance(run("check", ".").exception, ModuleNotFoundError)
