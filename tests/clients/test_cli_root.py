"""`rocksmq` itself: help, version, and what loading it costs."""

import importlib.metadata
import subprocess
import sys
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from rocksmq.clients.cli import main


def commands(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The words of every command, the groups too."""
    yield path
    if isinstance(command, click.Group):
        for name, part in command.commands.items():
            yield from commands(part, (*path, name))


@pytest.mark.parametrize("path", list(commands(main)), ids=" ".join)
def test_given_any_command_when_help_is_asked_for_then_it_has_an_example(path: tuple[str, ...]) -> None:
    result = CliRunner().invoke(main, [*path, "--help"], prog_name="rocksmq")
    assert result.exit_code == 0
    example = result.stdout.partition("Example:\n")[2].split("\n\n")[0]
    assert f"rocksmq {' '.join(path)}".strip() in example.replace(" --json", "").replace(" --timeout 2", "")


def test_given_version_when_asked_for_then_it_is_the_package_s() -> None:
    result = CliRunner().invoke(main, ["--version"])
    assert result.stdout == f"rocksmq {importlib.metadata.version('rocksmq')}\n"


def test_given_an_unknown_command_when_called_then_the_exit_code_is_2() -> None:
    assert CliRunner().invoke(main, ["mirrors"]).exit_code == 2


def test_given_help_when_asked_for_then_neither_rich_nor_the_benchmarks_are_loaded() -> None:
    program = (
        "import sys; from rocksmq.clients.cli import main; main(['--help'], standalone_mode=False);"
        "assert not {'rich', 'rocksmq.clients.bench', 'importlib.metadata'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize("seconds", ["0", "-1", "nan"])
def test_given_a_timeout_that_is_none_when_called_then_the_exit_code_is_2_and_it_is_said(seconds: str) -> None:
    result = CliRunner().invoke(main, ["--timeout", seconds, "status"])
    assert result.exit_code == 2
    assert f"{seconds} is no duration: give seconds, more than 0, or inf for ever" in result.stderr


@pytest.mark.parametrize(
    "arguments", [["--url", "rocksmq://secret@127.0.0.1:1", "status"], ["--url", "rocksmqs://secret@h", "top"]]
)
def test_given_a_token_on_the_command_line_then_it_is_wrong_usage_and_is_not_shown(arguments: list[str]) -> None:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert "seen by everybody on this machine: put it in ROCKSMQ_TOKEN" in " ".join(result.stderr.split())
    assert "secret" not in result.output
