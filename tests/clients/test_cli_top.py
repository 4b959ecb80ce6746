"""`rocksmq top` of real brokers: on a terminal, in a pipe, as JSON; while the broker goes and comes."""

import json
import signal
import subprocess
import threading
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from rocksmq.clients import Client
from rocksmq.clients.cli import main
from rocksmq.clients.testing import Broker
from tests.clients.cli_support import PROGRAM, rocksmq, started
from tests.helpers.terminal import Terminal

QUICK = ("--interval", "0.1")
SCREEN_ENDS = "\x1b[?25h\x1b[?1049l"  # the cursor is back, and the former screen


@contextmanager
def load(client: Client) -> Generator[None]:
    """Messages are produced and consumed all the while, and one group reads none."""
    client.create_channel("orders")
    for group in ("billing", "mail"):
        client.create_consumer_group("orders", group)
    is_over = threading.Event()

    def work() -> None:
        while not is_over.is_set():
            client.produce("orders", [b"message"] * 100)
            client.consume("orders", "billing", 1_000)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def on_terminal(url: str, *arguments: str, environment: Mapping[str, str] | None = None) -> Terminal:
    return Terminal([*PROGRAM, "--url", url, "top", *QUICK, *arguments], 100, 20, environment)


def line_of(lines: list[str], beginning: str) -> str:
    return next((line for line in lines if line.startswith(beginning)), "")


def is_loaded(lines: list[str]) -> bool:
    return "msg/s" in line_of(lines, "in ") and not line_of(lines, "in ").split()[1].startswith(("-", "0"))


def test_given_load_when_watched_on_a_terminal_then_rates_latencies_and_groups_are_there_until_ctrl_c(
    broker: Broker, client: Client
) -> None:
    with load(client), on_terminal(broker.url) as terminal:
        lines = terminal.wait_for(is_loaded)
        assert lines[0].startswith(f"{broker.url}  rocksmqd ")
        assert lines[1].startswith("ready  1 channel, 2 groups, ")
        assert "p99" in line_of(lines, "produce")
        begin = lines.index(line_of(lines, "channel"))
        assert [line.split()[:2] for line in lines[begin:] if line] == [
            ["channel", "group"],
            ["orders", "mail"],
            ["orders", "billing"],
        ]
        assert terminal.interrupt() == 0
    assert terminal.shown.decode().endswith(SCREEN_ENDS)


def test_given_a_terminal_when_its_size_changes_then_the_screen_does_before_the_next_interval(
    broker: Broker, client: Client
) -> None:
    with on_terminal(broker.url, "--interval", "600") as terminal:
        assert len(terminal.wait_for(lambda lines: len(lines) == 20)[0]) == 100
        terminal.resize(60, 12)
        assert len(terminal.wait_for(lambda lines: len(lines) == 12)[0]) == 60
        assert terminal.interrupt() == 0


def test_given_a_broker_that_is_killed_when_watched_then_it_says_so_and_goes_on_once_it_is_back(
    broker: Broker, client: Client
) -> None:
    client.create_channel("orders")
    with on_terminal(broker.url) as terminal:
        terminal.wait_for(lambda lines: lines[1:2] == ["ready  1 channel, 0 groups, 0 messages, 0 B"])
        broker.kill()
        lines = terminal.wait_for(lambda lines: lines[1].startswith("away: "))
        assert lines[2] == "what is below is from before"
        broker.start()
        terminal.wait_for(lambda lines: lines[1] == "ready  1 channel, 0 groups, 0 messages, 0 B")
        assert terminal.interrupt() == 0


def test_given_no_broker_when_watched_then_it_waits_for_one(broker: Broker) -> None:
    broker.kill()
    with on_terminal(broker.url) as terminal:
        terminal.wait_for(lambda lines: lines[1:2] != [] and lines[1].startswith("away: no broker answers"))
        broker.start()
        terminal.wait_for(lambda lines: lines[1].startswith("ready"))
        assert terminal.interrupt() == 0


@pytest.mark.parametrize("environment", [{}, {"NO_COLOR": "1"}])
def test_given_a_wish_for_no_colours_when_watched_then_there_are_none(broker: Broker, environment: dict[str, str]) -> None:
    with on_terminal(broker.url, "-n", "1", environment=environment) as terminal:
        assert terminal.end() == 0
    assert ("\x1b[36m" in terminal.frame) == (not environment)


def test_given_a_count_when_watched_on_a_terminal_then_it_ends_by_itself(broker: Broker) -> None:
    with on_terminal(broker.url, "-n", "3") as terminal:
        assert terminal.end() == 0
    assert terminal.shown.count(b"\x1b[H") == 5  # when the screen opens, the first look, three intervals


def test_given_a_terminal_that_can_do_nothing_when_watched_then_text_is_shown(broker: Broker) -> None:
    with on_terminal(broker.url, "-n", "1", environment={"TERM": "dumb"}) as terminal:
        assert terminal.end() == 0
    assert b"\x1b" not in terminal.shown
    assert b"positions    embedded" in terminal.shown


# -- in a pipe ---------------------------------------------------------------------


def test_given_a_pipe_when_watched_then_there_is_a_block_an_interval_until_ctrl_c(broker: Broker) -> None:
    with started(broker.url, "top", *QUICK) as process:
        assert process.stdout is not None
        for _ in range(2):
            block = [process.stdout.readline() for _ in range(16)]
            assert block[0].decode().split("  ")[1] == broker.url
            assert (block[1], block[-1]) == (b"ready\n", b"\n")
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, b"")


def test_given_json_when_watched_under_load_then_each_line_is_an_object_with_rates_of_that_interval(
    broker: Broker, client: Client
) -> None:
    with load(client), started(broker.url, "--json", "top", *QUICK, "-n", "3") as process:
        out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, b"")
    found = [json.loads(line) for line in out.splitlines()]
    assert len(found) == 3
    for record in found:
        assert (record["url"], record["is_ready"], record["channels"]) == (broker.url, True, 1)
        assert 0 < record["interval_seconds"] < 30
        assert record["produced"]["messages_per_second"] > 0
        assert record["produce"]["p99_seconds"] >= record["produce"]["p50_seconds"] > 0
        assert [reader["group"] for reader in record["readers"]] == ["mail", "billing"]
        assert record["readers"][1]["read_per_second"] > 0


def test_given_a_broker_that_is_away_when_watched_as_json_then_the_line_says_so(broker: Broker) -> None:
    broker.kill()
    result = rocksmq(broker.url, "--json", "--timeout", "0.1", "top", *QUICK, "-n", "2")
    assert (result.exit_code, result.stderr) == (0, "")
    for line in result.stdout.splitlines():
        found = json.loads(line)
        assert set(found) == {"time", "url", "error"}
        assert found["error"].startswith("no broker answers")


def test_given_a_broker_that_restarts_between_two_looks_when_watched_then_no_rate_is_negative(
    broker: Broker, client: Client
) -> None:
    client.create_channel("orders")
    client.produce("orders", [b"message"] * 1_000)
    with started(broker.url, "--json", "top", *QUICK) as process:
        assert process.stdout is not None
        first = json.loads(process.stdout.readline())
        broker.restart()
        while "error" in (later := json.loads(process.stdout.readline())) or later["up_since"] == first["up_since"]:
            pass
        later = json.loads(process.stdout.readline())
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 128 + signal.SIGTERM
    assert later["produced"]["messages_per_second"] == 0
    assert all(value >= 0 for name, value in later.items() if name.endswith("_per_second"))


def test_given_once_when_asked_then_one_block_is_shown(broker: Broker) -> None:
    result = rocksmq(broker.url, "top", "--once", *QUICK)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.count("\n") == 16


def test_given_no_broker_when_asked_once_then_one_line_says_so() -> None:
    result = rocksmq("rocksmq://127.0.0.1:1", "--timeout", "0.1", "top", "--once")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("error: no broker answers at rocksmq://127.0.0.1:1: ")


def test_given_a_channel_when_watched_then_only_its_groups_are_there(broker: Broker, client: Client) -> None:
    for channel in ("orders", "invoices"):
        client.create_channel(channel)
        client.create_consumer_group(channel, "billing")
    out = rocksmq(broker.url, "--json", "top", "--once", *QUICK, "--channel", "orders").stdout
    assert [reader["channel"] for reader in json.loads(out)["readers"]] == ["orders"]


def test_given_a_channel_that_is_not_there_when_watched_then_one_line_says_so(broker: Broker) -> None:
    result = rocksmq(broker.url, "top", *QUICK, "--channel", "nope")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "error: there is no channel 'nope': check the name, or create it\n"


def test_given_a_token_in_the_url_when_watched_then_it_is_not_shown(broker: Broker) -> None:
    url = broker.url.replace("://", "://secret@")
    result = CliRunner().invoke(main, ["top", "--once", *QUICK], env={"ROCKSMQ_URL": url})
    assert result.exit_code == 0
    assert "secret" not in result.output


def test_given_an_interval_for_ever_when_asked_for_then_it_is_wrong_usage(broker: Broker) -> None:
    result = rocksmq(broker.url, "top", "--interval", "inf")
    assert result.exit_code == 2
    assert "inf is no interval" in result.stderr


def test_given_a_reader_that_has_enough_when_watched_then_it_ends_quietly(broker: Broker) -> None:
    command = [*PROGRAM, "--url", broker.url, "top", *QUICK]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert (process.wait(60), process.stderr.read()) == (0, b"")


def test_given_help_or_the_status_when_asked_for_then_rich_is_not_loaded(broker: Broker, tmp_path: Path) -> None:
    program = (
        "import sys; from rocksmq.clients.cli import main;"
        f"main(['--url', {broker.url!r}, 'top', '--once', '--interval', '0.1'], standalone_mode=False);"
        "assert 'rich' not in sys.modules"
    )
    subprocess.run([PROGRAM[0], "-c", program], check=True, stdout=subprocess.DEVNULL)
