"""The guide is true: its commands run as they stand there, and print what it says."""

import os
import re
import shlex
import subprocess
import tomllib
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rocksmq.clients import Client
from rocksmq.clients.mirror.report import State
from rocksmq.clients.testing import Broker
from tests.clients.cli_support import PROGRAM, rocksmq
from tests.clients.support import wait_until
from tests.helpers.pulsar import Pulsar

from .back_support import PATIENCE, content, wait_for

ROOT = Path(__file__).parents[3]
GUIDE = (ROOT / "clients" / "mirror.md").read_text()
OPTIONS = (ROOT / "deploy" / "rocksmqd.toml").read_text()
PULSAR, NEW_MACHINE = "pulsar://127.0.0.1:6650", "rocksmq://new-machine:7660"


def blocks(language: str) -> list[tuple[str, list[str]]]:
    """Each with what it prints."""
    found = re.findall(rf"^```{language}\n(.*?)^```\n(?:\n((?:    [^\n]+\n)+))?", GUIDE, re.DOTALL | re.MULTILINE)
    return [(code, [line.removeprefix("    ") for line in printed.splitlines()]) for code, printed in found]


@contextmanager
def mirroring(line: str, pulsar: Pulsar, broker: Broker) -> Generator[None]:
    """The command of the guide, while the block runs."""
    program, *arguments = shlex.split(line.replace(PULSAR, pulsar.url).replace(NEW_MACHINE, broker.url))
    assert program == "rocksmq"
    environment = os.environ | {"ROCKSMQ_URL": broker.url}
    with subprocess.Popen([*PROGRAM, *arguments], env=environment, stderr=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.terminate()
            assert process.wait(PATIENCE) == 143


def test_given_the_guide_when_its_examples_are_followed_then_they_do_what_it_says(
    real_pulsar: Pulsar, broker: Broker, client: Client, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, (first, _), (status, shown), (back, _) = blocks("sh")
    create, produce, mirror = first.splitlines()
    environment = os.environ | {"ROCKSMQ_URL": broker.url}
    for command in (create, produce):
        line = command.replace("rocksmq ", f"{shlex.join(PROGRAM)} ")
        subprocess.run(line, shell=True, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    assert status == "rocksmq mirror status\n"
    with mirroring(mirror, real_pulsar, broker):
        wait_until(lambda: rocksmq(broker.url, "mirror", "status").stdout.splitlines() == shown, PATIENCE)
    ((code, printed),) = blocks("python")
    exec(compile(code.replace(PULSAR, real_pulsar.url), "mirror.md", "exec"), {})
    assert capsys.readouterr().out.splitlines() == printed
    with Broker(tmp_path / "new") as new, mirroring(back, real_pulsar, new), new.client() as there:
        wait_for(there, "orders.eu", 3)
        came = content(there, "orders.eu")
    assert [message.payload for message in came] == [b"one", b"two", b"three"]
    assert [message.headers["rocksmq.id"] for message in came] == [b"%d" % one.id for one in content(client, "orders.eu")]


def test_given_the_section_for_the_broker_when_read_then_the_broker_knows_its_keys() -> None:
    ((code, _),) = blocks("toml")
    section = OPTIONS[OPTIONS.index("[mirror]") :]
    for key in tomllib.loads(code)["mirror"]:
        assert f"\n#{key} = " in section


def test_given_the_states_when_looked_up_then_each_is_told() -> None:
    for state in State:
        assert f"| `{state}` |" in GUIDE
