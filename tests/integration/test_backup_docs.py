"""What broker/backup.md shows is what comes out: its commands are run, in their order, by a shell."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rocksmq.clients.testing import Broker

GUIDE = (Path(__file__).parents[2] / "broker" / "backup.md").read_text()
EXAMPLE = re.compile(r"```console\n(.*?)```", re.DOTALL)
SCRIPT = re.compile(r"```sh\n(.*?)```", re.DOTALL)


@pytest.fixture
def shell(tmp_path: Path) -> Iterator["Shell"]:
    with Broker(tmp_path / "data") as broker:
        with broker.client() as mq:
            mq.create_channel("orders")
            mq.create_consumer_group("orders", "billing")
            mq.produce("orders", [b"x" * 100] * 9_000)
            broker.restart()  # so that there are tables
            mq.produce("orders", [b"x" * 100] * 9_000)
            for _ in range(1_000):
                mq.produce("orders", [b"x" * 100] * 2)
            mq.consume("orders", "billing", 100)
        yield Shell(tmp_path, broker)


class Shell:
    """Has the command `rocksmq`; ``/backups`` and ``/var/lib`` are directories of the test."""

    def __init__(self, root: Path, broker: Broker) -> None:
        self._root = root
        self._environment = {**os.environ, "ROCKSMQ_URL": broker.url, "PATH": f"{root}/bin:{os.environ['PATH']}"}
        for name in ("bin", "backups", "var/lib"):
            (root / name).mkdir(parents=True)
        command = root / "bin" / "rocksmq"
        command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m rocksmq.clients.cli "$@"\n')
        command.chmod(0o755)

    def run(self, text: str) -> str:
        """What it prints; it succeeds."""
        here = re.sub(r"(?<![\w.])/(backups|var/lib)\b", rf"{self._root}/\1", text)
        done = subprocess.run(["sh", "-c", here], capture_output=True, text=True, env=self._environment, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.replace(str(self._root), "")


def form(output: str) -> list[str]:
    """Without numbers and ids, which are others each time."""
    return [re.sub(r"[0-9][0-9,.]*", "0", re.sub(r"\b[0-9a-f]{32}\b", "ID", line)) for line in output.splitlines()]


def test_given_the_guide_when_its_commands_are_run_then_they_print_what_it_shows(shell: Shell) -> None:
    commands = 0
    for example in EXAMPLE.findall(GUIDE):
        for part in example.split("$ ")[1:]:
            command, _, wanted = part.partition("\n")
            found = shell.run(command)
            assert form(found) == form(wanted), command
            counts = re.compile(r"[\d,]+ messages, [\d,]+ bytes(?=,|:)")
            assert counts.findall(found) == counts.findall(wanted)
            commands += 1
    assert commands == GUIDE.count("$ rocksmq") > 5


def test_given_the_script_of_the_guide_when_it_is_run_each_day_then_it_keeps_two_weeks(shell: Shell, tmp_path: Path) -> None:
    (script,) = SCRIPT.findall(GUIDE)
    for day in range(1, 17):
        assert "0 problems" in shell.run(script.replace("$(date +%F)", f"2026-07-{day:02}"))
    kept = sorted(path.name for path in (tmp_path / "backups").iterdir())
    assert kept == [f"2026-07-{day:02}" for day in range(3, 17)]
