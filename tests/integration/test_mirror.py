"""A real broker and its mirror, for which a program stands in: their lives, and what is shown."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest

from rocksmq.clients.mirror.report import State
from rocksmq.clients.testing import Broker
from tests.clients.cli_support import rocksmq
from tests.helpers.broker_with_mirror import BrokerWithMirror
from tests.helpers.ledger import wait_until
from tests.helpers.stand_in_mirror import a_report, is_alive

BAD_CONFIGURATION = 2
PATIENCE_SECONDS = 30.0
UP = 'rocksmq_mirror_up{mirror="pulsar"}'
MESSAGES = 'rocksmq_mirror_messages_total{mirror="pulsar",channel="orders"}'
WITHOUT_PULSAR = """
import sys
sys.modules["pulsar"] = None
from rocksmq.broker.__main__ import main
main(prog_name="rocksmqd")
"""


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[BrokerWithMirror]:
    with BrokerWithMirror(tmp_path / "data") as found:
        found.stand_in.tell([a_report("orders")])
        wait_until(lambda: shown(found).get(UP) == 1, "the mirror reports")
        yield found


def shown(broker: Broker, path: str = "/metrics") -> dict[str, float]:
    """What the broker says of the mirror."""
    with urlopen(f"{broker.http_url}{path}", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return {name: float(value) for name, _, value in (x.rpartition(" ") for x in lines if x.startswith("rocksmq_mirror"))}


def gone(broker: BrokerWithMirror) -> Callable[[], bool]:
    return lambda: not any(is_alive(pid) for pid in broker.stand_in.pids)


def test_given_a_mirror_when_it_reports_then_metrics_status_and_top_have_it(broker: BrokerWithMirror) -> None:
    assert f"--from=rocksmq://{broker.address}" in broker.stand_in.arguments
    assert shown(broker)[MESSAGES] == 10
    with broker.client() as mq:
        mq.create_channel("orders")
        assert mq.status().metrics["rocksmq_mirror_messages_total"].values["pulsar", "orders"] == 10
        assert mq.status("orders").metrics["rocksmq_mirror_messages_total"].values["pulsar", "orders"] == 10
        mq.create_channel("others")
        assert mq.status("others").metrics["rocksmq_mirror_messages_total"].values == {}
    assert "mirror       up, 1 running, 0 stopped, lag 3, 0 msg/s" in rocksmq(broker.url, "top", "--once").stdout


def test_given_too_many_channels_when_scraped_then_the_mirrors_are_summed_too(tmp_path: Path) -> None:
    file = tmp_path / "rocksmqd.toml"
    file.write_text("[limits]\nmetrics_series_max = 2\n")
    with BrokerWithMirror(tmp_path / "data", "--config", str(file)) as broker:
        broker.stand_in.tell([a_report(f"orders-{number}") for number in range(3)])
        with broker.client() as mq:
            for number in range(3):
                mq.create_channel(f"orders-{number}")
        wait_until(lambda: shown(broker).get('rocksmq_mirror_messages_total{mirror="pulsar"}') == 30, "they are summed")
        detailed = shown(broker, "/metrics/detailed")
        assert detailed['rocksmq_mirror_messages_total{mirror="pulsar",channel="orders-1"}'] == 10


def test_given_a_mirror_that_dies_when_others_work_then_the_broker_goes_on_and_starts_it_again(
    broker: BrokerWithMirror,
) -> None:
    pid = broker.pid
    with broker.client() as mq:
        mq.create_channel("orders")
        for sign in (signal.SIGKILL, signal.SIGSEGV):
            before = len(broker.stand_in.pids)
            os.kill(broker.stand_in.pids[-1], sign)
            mq.produce("orders", [b"x"])
            wait_until(lambda before=before: len(broker.stand_in.pids) > before, "it was started again")  # type: ignore[misc]
        wait_until(lambda: shown(broker)[UP] == 1, "it is up again")
    assert broker.pid == pid
    assert shown(broker)['rocksmq_mirror_restarts_total{mirror="pulsar"}'] == 2
    assert "the mirror was ended by signal 11" in broker.log.read_text()


def test_given_a_broker_that_is_killed_when_its_mirror_sees_that_then_it_ends(broker: BrokerWithMirror) -> None:
    broker.kill()
    wait_until(gone(broker), "the mirror ended")


def test_given_sigterm_when_the_broker_ends_then_its_mirror_has_and_nothing_is_left(broker: BrokerWithMirror) -> None:
    assert broker.terminate() == 0
    assert gone(broker)()
    assert len(broker.stand_in.pids) == 1, "it was not started again"


def test_given_a_mirror_that_does_not_end_when_the_broker_is_stopped_then_it_is_killed_in_time(tmp_path: Path) -> None:
    with BrokerWithMirror(tmp_path / "data") as broker:
        broker.stand_in.write("do", "stay deaf")
        wait_until(lambda: shown(broker).get(UP) == 1, "the mirror reports")
        os.kill(broker.stand_in.pids[-1], signal.SIGKILL)  # the one before might not have read it
        wait_until(lambda: len(broker.stand_in.pids) == 2 and shown(broker)[UP] == 1, "another reports")
        begin = time.monotonic()
        assert broker.terminate() == 0
        assert time.monotonic() - begin < 10, "drain_seconds"
        assert gone(broker)()


def test_given_ctrl_c_at_a_terminal_when_it_comes_then_the_broker_alone_hears_it_and_ends_its_mirror(
    broker: BrokerWithMirror,
) -> None:
    (mirror,) = broker.stand_in.pids
    assert os.getpgid(mirror) != os.getpgid(broker.pid)
    os.kill(broker.pid, signal.SIGINT)
    assert broker.wait() == 0
    assert gone(broker)()


def test_given_what_the_mirror_says_when_the_log_is_read_then_it_is_there(tmp_path: Path) -> None:
    with BrokerWithMirror(tmp_path / "data") as broker:
        broker.stand_in.write("said", "orders: stopped: the topic is \x1b[31mgone\n")
        broker.stand_in.tell([a_report("orders", State.STOPPED)])
        wait_until(lambda: shown(broker).get(UP) == 1, "the mirror reports")
        os.kill(broker.stand_in.pids[-1], signal.SIGKILL)
        said = r"WARNING rocksmq.mirror: orders: stopped: the topic is \x1b[31mgone"
        wait_until(lambda: said in broker.log.read_text(), "it is logged")


def test_given_no_mirror_when_scraped_then_there_is_nothing_of_one(tmp_path: Path) -> None:
    with Broker(tmp_path / "data", http="127.0.0.1:0") as broker:
        assert shown(broker) == {}


@pytest.mark.parametrize("program", [("-c", WITHOUT_PULSAR), ("-m", "rocksmq.broker")], ids=["not installed", "bad option"])
def test_given_a_mirror_that_cannot_work_when_started_then_exit_2_says_what_to_do(
    tmp_path: Path, program: tuple[str, str]
) -> None:
    channels, wanted = ("orders", "pip install 'rocksmq[pulsar]'") if program[0] == "-c" else ("a b", "ROCKSMQ_MIRROR_CHANNELS")
    done = subprocess.run(
        [sys.executable, "-P", *program, "--data-dir", str(tmp_path / "data"), "--listen", "127.0.0.1:0", "--http", "off"],
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        env={**os.environ, "ROCKSMQ_MIRROR_TO": "pulsar://127.0.0.1:1", "ROCKSMQ_MIRROR_CHANNELS": channels},
        check=False,
    )
    assert done.returncode == BAD_CONFIGURATION
    (line,) = done.stderr.splitlines()
    assert line.startswith("rocksmqd: ")
    assert wanted in line
    assert not (tmp_path / "data").exists()


def test_given_an_option_of_the_mirror_when_changed_at_sighup_then_it_waits_for_the_next_start(tmp_path: Path) -> None:
    file = tmp_path / "rocksmqd.toml"
    file.write_text("")
    with BrokerWithMirror(tmp_path / "data", "--config", str(file)) as broker:
        file.write_text("[mirror]\nkey_header = 'key'\n")
        os.kill(broker.pid, signal.SIGHUP)
        wanted = "changed options take effect at the next start: mirror.key_header"
        wait_until(lambda: wanted in broker.log.read_text(), "that is logged")
