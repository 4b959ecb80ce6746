"""`rocksmq check`, which the broker's extra brings: what it prints, its exit codes, and what is said without the extra."""

import importlib.metadata
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio
from click.testing import CliRunner, Result

from rocksmq.broker import keys
from rocksmq.broker.engine import RocksMQ
from rocksmq.broker.store import Family, Put, Store
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


# -- repairs ---------------------------------------------------------------------------------


def damaged(directory: Path) -> str:
    """The one batch is damaged; what would repair it."""
    store = Store(directory / "db")
    ((key, value),) = store.scan(Family.DATA, b"", b"\xff" * 17)
    store.write([Put(Family.DATA, key, value[:-1] + b"x")])
    store.sync()
    store.close()
    return f"begin:orders:{keys.first_id_of(key) + 2}"


def test_given_a_problem_that_can_be_repaired_when_checked_then_by_what_stands_below_it(directory: Path) -> None:
    argument = damaged(directory)
    result = run("check", directory)
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    (at,) = [index for index, line in enumerate(lines) if line.strip().startswith("--repair ")]
    assert lines[at - 1].startswith("PROBLEM  channel orders: ")
    assert f"--repair {argument}  empties orders, " in lines[at]
    assert lines[at].endswith("none of which can be read")
    found = [json.loads(line) for line in run("--json", "check", directory).stdout.splitlines()]
    (repair,) = [record for record in found if record["kind"] == "repair"]
    assert (repair["argument"], repair["message_count"], repair["readable_count"]) == (argument, 2, 0)
    assert repair["begin_id"] == repair["end_id"] - 1


def test_given_a_repair_when_nobody_can_be_asked_then_yes_is_wanted_and_nothing_is_changed(directory: Path) -> None:
    argument = damaged(directory)
    result = run("check", directory, "--repair", argument)
    assert result.exit_code == 2
    assert "--yes says that it is to be done" in result.stderr
    assert run("check", directory).exit_code == 1


def test_given_a_repair_and_yes_when_called_then_it_tells_before_and_after_and_checks_again(directory: Path) -> None:
    argument = damaged(directory)
    result = run("check", directory, "--repair", argument, "--yes")
    assert result.exit_code == 0
    assert result.stderr.startswith(f"about to be done:\n  {argument}: empties orders")
    lines = result.stdout.splitlines()
    (at,) = [index for index, line in enumerate(lines) if line.startswith("repaired")]
    assert lines[at].startswith(f"repaired  {argument}: channel orders begins with id ")
    assert lines[-1] == "checked 1 channel, 1 group, 0 messages, 0 bytes: 0 problems, 0 notes"
    assert run("check", directory).exit_code == 0


def test_given_a_repair_and_json_when_called_then_each_line_is_an_object(directory: Path) -> None:
    argument = damaged(directory)
    result = run("--json", "check", directory, "--repair", argument, "--yes")
    found = [json.loads(line) for line in result.stdout.splitlines()]
    assert [record["argument"] for record in found if record["kind"] == "repaired"] == [argument]
    assert found[-1]["problems"] == 0


@pytest.mark.parametrize("argument", ["begin:orders:1", "everything", "mark"])
def test_given_what_the_check_does_not_offer_when_called_then_it_is_a_wrong_usage_that_names_what_it_offers(
    directory: Path, argument: str
) -> None:
    offered = damaged(directory)
    result = run("check", directory, "--repair", argument, "--yes")
    assert result.exit_code == 2
    assert f"--repair {argument} is nothing that this check offers; it offers: {offered}" in result.stderr
    assert run("check", directory).exit_code == 1


@pytest.mark.parametrize(("answer", "code"), [(b"y\n", 0), (b"n\n", 1)])
def test_given_a_terminal_when_repaired_then_it_asks(directory: Path, answer: bytes, code: int) -> None:
    argument = damaged(directory)
    found, shown = on_terminal(["check", str(directory), "--repair", argument], answer)
    assert "Do it? [y/N]" in shown
    assert found == code
    assert run("check", directory).exit_code == code


def test_given_a_broker_that_runs_when_its_directory_is_repaired_then_it_is_refused(directory: Path) -> None:
    async def repaired() -> Result:
        async with RocksMQ(directory):
            return run("check", directory, "--repair", "garbage", "--yes")

    result = trio.run(repaired)
    assert result.exit_code == 1
    assert result.stderr.endswith(": stop it first\n")


def test_given_commits_missing_when_the_mark_is_not_named_then_it_says_why_and_the_exit_code_is_1(directory: Path) -> None:
    argument = damaged(directory)
    (directory / "mark").unlink()
    result = run("check", directory, "--repair", argument, "--yes")
    assert result.exit_code == 1
    assert "error: not repaired: name --repair mark as well: " in result.stderr


# -- without the broker ------------------------------------------------------------------------


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
