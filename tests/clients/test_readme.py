"""README's examples run as printed, on a broker of the test's own."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from rocksmq.clients import Client
from rocksmq.clients.testing import Broker

README = (Path(__file__).parents[2] / "README.md").read_text()
URL = "rocksmq://127.0.0.1:7660"


def test_given_the_example_in_python_when_run_then_it_prints_both_messages_and_can_read_them_again(
    broker: Broker, client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    example, _, _ = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len([line for line in example.splitlines() if line]) <= 10
    assert URL in example
    exec(compile(example.replace(URL, broker.url), "README.md", "exec"), {})
    printed = capsys.readouterr().out.splitlines()
    assert [line.rsplit(" ", 1)[1] for line in printed] == ["b'one'", "b'two'"]
    assert client.consume("orders", "billing").payloads == [b"one", b"two"]


def test_given_the_example_of_streams_when_run_then_each_message_is_handled_once(broker: Broker, client: Client) -> None:
    _, example, _ = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    client.create_channel("orders")
    client.create_consumer_group("orders", "billing")
    handled: list[bytes] = []
    exec(compile(example, "README.md", "exec"), {"mq": client, "handle": handled.append})
    assert handled == [b"order %d" % n for n in range(100_000)]


def test_given_the_example_of_many_channels_when_run_then_one_pack_has_both_rows(
    broker: Broker, capsys: pytest.CaptureFixture[str]
) -> None:
    _, _, example = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert example.count(URL) == 2
    exec(compile(example.replace(URL, broker.url), "README.md", "exec"), {})
    assert capsys.readouterr().out.startswith("0 20 2 [MsgPosition(channel_name='sensors-")


def test_given_the_links_when_followed_then_the_files_are_there() -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in link]
    assert "clients/msgstream.md" in links
    assert [link for link in links if not (Path(__file__).parents[2] / link).exists()] == []


def test_given_the_example_in_a_shell_when_run_then_the_message_comes_out(broker: Broker) -> None:
    outputs = outputs_of(r"(?:echo .*\| )?rocksmq (?:produce|consume|channel) .*", broker)
    assert len(outputs) == 3
    assert outputs[0].startswith("1 message, 5 bytes")
    assert outputs[1] == "hello\n"
    assert "greetings" in outputs[2]
    assert "readers" in outputs[2]


def test_given_the_commands_of_whoever_runs_it_when_run_then_they_tell_of_the_broker(tmp_path: Path) -> None:
    with Broker(tmp_path / "data", http="127.0.0.1:0") as broker:
        status, top, metrics = outputs_of(r"(?:rocksmq (?:status|top)|curl) .*", broker)
        assert "all is well" in status
        assert "produce" in top
        assert "rocksmq_build_info{" in metrics


def outputs_of(pattern: str, broker: Broker) -> list[str]:
    """What the commands print that match, when run against that broker."""
    lines = re.findall(f"^    ({pattern})$", README, re.MULTILINE)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "ROCKSMQ_URL": broker.url}
    commands = [["sh", "-c", line.replace("127.0.0.1:7661", broker.http)] for line in lines]
    return [subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout for command in commands]


def test_given_the_commands_it_names_when_looked_for_then_make_has_them() -> None:
    makefile = (Path(__file__).parents[2] / "Makefile").read_text()
    for target in re.findall(r"^    make (\w+)", README, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
