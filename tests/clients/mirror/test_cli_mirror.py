"""`rocksmq mirror` as a command: usage, reports, signals, supervision, what is seen of it elsewhere."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from rocksmq.clients import Client
from rocksmq.clients.cli import main
from rocksmq.clients.cli.mirroring import run
from rocksmq.clients.mirror.notes import encode
from rocksmq.clients.mirror.report import ChannelReport, Report, State
from rocksmq.clients.testing import Broker
from rocksmq.protocol.errors import ConnectionFailed
from tests.clients.cli_support import PROGRAM, rocksmq, started
from tests.clients.support import PATIENCE, wait_until
from tests.helpers.pulsar import PulsarLite
from tests.helpers.terminal import Terminal

from .back_support import new_name, numbered, payloads, topic_of, wait_for

PULSAR = "pulsar://127.0.0.1:1"


# -- usage -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "Missing option '--channels'"),
        (["--channels", "orders"], "give --to pulsar://host:port, or --from pulsar://host:port"),
        (["--channels", "orders", "--to", "http://there"], "scheme is neither rocksmq nor rocksmqs"),
        (["--channels", "orders", "--from", PULSAR, "--to", PULSAR], "one side is rocksmq://host:port"),
        (["--channels", "orders.*", "--from", PULSAR], "orders.*"),
        (["--channels", "orders", "--from", PULSAR, "--key-header", "key"], "--key-header is for the way to Pulsar"),
        (["--channels", "orders", "--from", PULSAR, "--require-deduplication"], "--require-deduplication is for the way"),
        (["--channels", "orders", "--to", PULSAR, "--topic-template", "orders"], "topic_template 'orders' is not allowed"),
        (["--channels", "orders", "--to", PULSAR, "--too-large", "cut"], "--too-large"),
        (["--channels", "orders", "--to", PULSAR, "status"], "--to is for a mirror that runs"),
    ],
)
def test_given_wrong_usage_when_called_then_the_exit_code_is_2_and_the_reason_told(arguments: list[str], said: str) -> None:
    result = CliRunner().invoke(main, ["mirror", *arguments])
    assert result.exit_code == 2
    assert said in " ".join(result.stderr.split())


def test_given_a_token_in_the_url_when_the_usage_is_wrong_then_it_is_not_shown() -> None:
    result = CliRunner().invoke(
        main, ["mirror", "--channels", "a", "--from", "rocksmq://secret@h", "--to", "rocksmq://secret@h"]
    )
    assert result.exit_code == 2
    assert "secret" not in result.output


def test_given_a_token_file_that_is_missing_when_called_then_it_is_named() -> None:
    arguments = ["mirror", "--channels", "a", "--to", PULSAR, "--pulsar-token-file", "/nowhere/token"]
    result = CliRunner().invoke(main, arguments)
    assert (result.exit_code, result.stderr) == (1, "error: /nowhere/token: No such file or directory\n")


@pytest.mark.parametrize(
    ("content", "said"), [(b"\xff\xfe", "it is not UTF-8 text"), (b" \n", "it is empty"), (b"", "it is empty")]
)
def test_given_a_token_file_without_a_token_when_called_then_it_is_named(tmp_path: Path, content: bytes, said: str) -> None:
    file = tmp_path / "token"
    file.write_bytes(content)
    result = CliRunner().invoke(main, ["mirror", "--channels", "a", "--to", PULSAR, "--pulsar-token-file", str(file)])
    assert (result.exit_code, result.stderr) == (1, f"error: {file}: no token, as {said}\n")


@pytest.mark.parametrize("direction", ["--from", "--to"])
def test_given_a_secret_in_an_address_of_pulsar_when_called_then_it_is_not_shown(direction: str) -> None:
    result = CliRunner().invoke(main, ["mirror", "--channels", "a", direction, "pulsar://user:secret@host:1"])
    assert result.exit_code == 2
    assert "secret" not in result.output


def test_given_no_client_of_pulsar_when_called_then_it_says_what_to_install() -> None:
    program = "import sys; sys.modules['pulsar'] = None; from rocksmq.clients.cli import main; main(prog_name='rocksmq')"
    command = [sys.executable, "-c", program, "mirror", "--channels", "a", "--from", PULSAR]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert re.fullmatch(r"error: Pulsar needs its client .*: pip install 'rocksmq\[pulsar\]'\n", done.stderr)


def test_given_help_when_asked_for_then_pulsar_is_not_loaded() -> None:
    program = (
        "import sys; from rocksmq.clients.cli import main; main(['mirror', '--help'], standalone_mode=False);"
        "assert not {'rich', 'pulsar', 'rocksmq.clients.mirror.report'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.DEVNULL)


# -- at work ---------------------------------------------------------------------------


@contextmanager
def mirroring(pulsar: PulsarLite, broker: Broker, channel: str, *arguments: str) -> Generator[subprocess.Popen[bytes]]:
    """`rocksmq --json mirror` of the way back, that has carried three messages. It is killed if it has not ended."""
    with topic_of(pulsar.url, channel) as topic:
        topic.send(numbered(3))
    with started(broker.url, "--json", "mirror", "--from", pulsar.url, "--channels", channel, *arguments) as process:
        try:
            with broker.client() as mq:
                wait_for(mq, channel, 3)
            yield process
        finally:
            process.kill()


def ended(process: subprocess.Popen[bytes]) -> tuple[int, list[Report], str]:
    """Exit code, what it reported, what it said on stderr."""
    assert process.stdout is not None
    assert process.stderr is not None
    lines, said = process.stdout.read().decode().splitlines(), process.stderr.read().decode()
    return process.wait(PATIENCE), [Report.of_json(line) for line in lines], said


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_given_a_mirror_when_it_is_told_to_end_then_it_has_done_so_with_the_signal_s_code(
    pulsar_lite: PulsarLite, broker: Broker, client: Client, number: signal.Signals, code: int
) -> None:
    channel = new_name()
    with mirroring(pulsar_lite, broker, channel) as process:
        process.send_signal(number)
        exit_code, reports, said = ended(process)
    assert exit_code == code
    assert (reports[-1][channel].state, reports[-1].sums.messages) == (State.ENDED, 3)
    assert said.splitlines()[-1] == f"{channel}: ended, topic persistent://public/default/{channel}"
    assert payloads(client, channel) == numbered(3)


def test_given_a_supervised_mirror_when_its_stdin_ends_then_it_ends(pulsar_lite: PulsarLite, broker: Broker) -> None:
    with mirroring(pulsar_lite, broker, new_name(), "--supervised") as process:
        process.send_signal(signal.SIGINT)  # of a terminal's Ctrl-C, which is the broker's to hear
        assert process.stdin is not None
        process.stdin.close()
        exit_code, reports, _ = ended(process)
    assert (exit_code, reports[-1].sums.messages) == (0, 3)


def test_given_a_supervised_mirror_with_signals_blocked_when_it_is_told_to_end_then_it_does(
    pulsar_lite: PulsarLite, broker: Broker
) -> None:
    former = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        with mirroring(pulsar_lite, broker, new_name(), "--supervised") as process:
            process.terminate()
            assert ended(process)[0] == 143
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, former)


def test_given_a_reader_of_reports_that_has_enough_when_it_goes_then_the_mirror_ends_well(
    pulsar_lite: PulsarLite, broker: Broker
) -> None:
    with mirroring(pulsar_lite, broker, new_name()) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(PATIENCE) == 0


def test_given_verbose_when_it_runs_then_what_pulsar_s_client_logs_is_shown(pulsar_lite: PulsarLite, broker: Broker) -> None:
    with mirroring(pulsar_lite, broker, new_name(), "--verbose") as process:
        process.terminate()
        assert "rocksmq.pulsar: " in ended(process)[2]


def test_given_http_when_it_is_asked_for_then_the_metrics_are_there(pulsar_lite: PulsarLite, broker: Broker) -> None:
    channel = new_name()
    with mirroring(pulsar_lite, broker, channel, "--http", "127.0.0.1:0") as process:
        assert process.stderr is not None
        line = bytearray()
        while not line.endswith(b"\n"):
            line += process.stderr.read(1)
        found = re.fullmatch(r"metrics on (http://\S+)\n", line.decode())
        assert found is not None
        with urllib.request.urlopen(found[1], timeout=PATIENCE) as answer:
            assert f'channel="{channel}"' in answer.read().decode()


def test_given_a_broker_that_is_missing_when_it_runs_then_it_waits_and_says_so_once(
    pulsar_lite: PulsarLite, broker: Broker
) -> None:
    broker.kill()
    arguments = ("--json", "--timeout", "0.2", "mirror", "--from", pulsar_lite.url, "--channels", "orders")
    with started(broker.url, *arguments) as process:
        assert process.stdout is not None
        reports = [Report.of_json(process.stdout.readline().decode()) for _ in range(4)]
        process.terminate()
        exit_code, _, said = ended(process)
    assert exit_code == 143
    assert reports[-1]["orders"].state == State.WAITING
    assert said.count("orders: waiting: no broker answers") == 1


def test_given_a_broker_that_is_missing_and_comes_when_it_mirrors_to_pulsar_then_each_is_told_once(
    pulsar_lite: PulsarLite, broker: Broker
) -> None:
    channel = new_name()
    broker.kill()
    with started(broker.url, "--json", "--timeout", "0.2", "mirror", "--to", pulsar_lite.url, "--channels", channel) as process:
        assert process.stdout is not None

        def until(said: str) -> None:
            wait_until(lambda: said in Report.of_json(process.stdout.readline().decode()).last_error)  # type: ignore[union-attr]

        until("no broker answers")
        broker.start()
        until("no channel matches")
        with broker.client() as mq:
            mq.create_channel(channel)
        wait_until(lambda: Report.of_json(process.stdout.readline().decode()).state is State.RUNNING)  # type: ignore[union-attr]
        process.terminate()
        exit_code, _, said = ended(process)
    assert exit_code == 143
    lines = [line for line in said.splitlines() if line.startswith("mirror pulsar: ")]
    assert re.match("mirror pulsar: waiting: .*no broker answers", lines[0])
    assert lines[1:] == [f"mirror pulsar: waiting: no channel matches '{channel}' yet", "mirror pulsar: running"]


def test_given_a_terminal_when_it_catches_up_then_there_is_a_bar_and_lines_above_it(
    pulsar_lite: PulsarLite, broker: Broker, client: Client
) -> None:
    channel = new_name()
    with topic_of(pulsar_lite.url, channel) as topic:
        topic.send(numbered(3))
    command = [*PROGRAM, "--url", broker.url, "mirror", "--from", pulsar_lite.url, "--channels", channel]
    with Terminal(command, 100, 20) as terminal:
        terminal.wait_for(lambda lines: b"3/3" in terminal.shown)
        assert terminal.interrupt() == 130
    assert f"{channel}: running" in terminal.shown.decode()
    assert "mirroring" in terminal.shown.decode()


class Failing:
    """A mirror that ends by itself."""

    def run(self, is_stopped: threading.Event) -> None:
        raise ConnectionFailed("the mirror failed")

    def report(self) -> Report:
        return Report("pulsar", [])


class Stuck:
    """A mirror that never ends."""

    def run(self, is_stopped: threading.Event) -> None:
        threading.Event().wait()

    def report(self) -> Report:
        return Report("pulsar", [ChannelReport(channel="a", topic="a", state=State.RUNNING)])


def test_given_a_mirror_that_fails_when_it_runs_then_that_is_raised() -> None:
    with pytest.raises(ConnectionFailed, match="the mirror failed"):
        run(Failing(), as_json=False, is_verbose=False, is_supervised=False)


def test_given_a_mirror_that_does_not_end_when_told_to_then_it_is_cut_off_with_the_signal_s_code() -> None:
    program = (
        "from tests.clients.mirror.test_cli_mirror import Stuck; from rocksmq.clients.cli import mirroring;"
        "mirroring.STOP_SECONDS = 0.2;"
        "mirroring.run(Stuck(), as_json=True, is_verbose=False, is_supervised=False)"
    )
    command = [sys.executable, "-c", program]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        begin = time.monotonic()
        process.terminate()
        said = process.stderr.read().decode()
        assert process.wait(PATIENCE) == 143
    assert time.monotonic() - begin < PATIENCE / 2
    assert "error: not ended within 0.2 s, and cut off" in said


# -- status ----------------------------------------------------------------------------


def committed(client: Client, channel: str, group: str, report: ChannelReport | None) -> None:
    """As a mirror leaves it."""
    client.create_channel(channel)
    client.create_consumer_group(channel, group)
    ids = client.produce(channel, [b"one", b"two", b"three"])
    if report is not None:
        client.commit(channel, group, ids[1], metadata=encode(report))


def test_given_mirrors_when_asked_for_their_status_then_it_is_told_from_what_they_left(broker: Broker, client: Client) -> None:
    topic = "persistent://public/default/orders"
    stopped = ChannelReport(
        channel="orders",
        topic=topic,
        state=State.STOPPED,
        messages=1,
        bytes=3,
        skipped=2,
        gaps=4,
        last_error="TopicTerminated",
        last_error_at=1_700_000_000.0,
    )
    committed(client, "orders", "mirror.pulsar", stopped)
    committed(client, "orders", "mirror.other", None)
    client.create_consumer_group("orders", "billing")
    result = rocksmq(broker.url, "--json", "mirror", "status")
    records = [json.loads(line) for line in result.stdout.splitlines()]
    assert [record["mirror"] for record in records] == ["other", "pulsar"]
    lag_seconds = records[1].pop("lag_seconds")
    assert lag_seconds >= 0
    assert records[1] == {
        "mirror": "pulsar",
        "channel": "orders",
        "topic": topic,
        "state": "stopped",
        "lag": 5,
        "messages": 1,
        "bytes": 3,
        "skipped": 2,
        "gaps": 4,
        "last_error": "TopicTerminated",
        "last_error_at": "2023-11-14T22:13:20+00:00",
    }
    assert (records[0]["state"], records[0]["lag"]) == (None, 6)
    table = rocksmq(broker.url, "mirror", "status", "pulsar").stdout.splitlines()
    assert table == [
        "mirror\tchannel\ttopic\tstate\tlag\tmessages\tskipped\tgaps\tlast_error",
        f"pulsar\torders\t{topic}\tstopped\t5\t1\t2\t4\tTopicTerminated",
    ]


def test_given_no_mirror_when_asked_for_the_status_then_it_says_so(broker: Broker) -> None:
    assert rocksmq(broker.url, "mirror", "status").stderr == "no mirror\n"
    assert rocksmq(broker.url, "mirror", "status", "away").stderr == "no channel has a group mirror.away\n"
    result = rocksmq(broker.url, "--json", "mirror", "status")
    assert (result.exit_code, result.output) == (0, "")
