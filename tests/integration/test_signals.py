"""SIGTERM, SIGINT and SIGHUP at a real broker: what it still does, what it says, and how long it takes at most."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from rocksmq.clients import Client, ConnectionFailed, RocksMQError, ShuttingDown
from rocksmq.clients.testing import Broker
from tests.helpers.etcd import free_port
from tests.helpers.ledger import wait_until

from .broker_with_faults import BrokerWithFaults

STORAGE_FAILED, UNFINISHED = 5, 6
DRAIN_SECONDS, CLOSE_SECONDS = 1.0, 5.0
SLACK_SECONDS = 2.5  # of a busy machine


def hasty(directory: Path, *faults: str) -> BrokerWithFaults:
    """It has DRAIN_SECONDS to stop."""
    return BrokerWithFaults(directory, *faults, environment={"ROCKSMQ_LIMITS_DRAIN_SECONDS": str(DRAIN_SECONDS)})


@contextmanager
def loaded(mq: Client, threads_max: int = 3) -> Generator[tuple[list[range], list[RocksMQError]]]:
    """What several producers were acknowledged, and what ended each of them; they run until something does."""
    acknowledged: list[range] = []
    errors: list[RocksMQError] = []

    def work() -> None:
        try:
            while True:
                acknowledged.append(mq.produce("orders", [b"x" * 100] * 10))
        except RocksMQError as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(threads_max)]
    for thread in threads:
        thread.start()
    try:
        yield acknowledged, errors
    finally:
        for thread in threads:
            thread.join()


def all_there(broker: Broker, acknowledged: list[range]) -> None:
    """After a start, whatever was acknowledged can be read."""
    broker.start()
    with broker.client() as mq:
        found: set[int] = set()
        position: int | str = "earliest"
        while batch := mq.fetch("orders", position, 10_000):
            found.update(batch.ids)
            position = batch.next_position
    assert all(message_id in found for ids in acknowledged for message_id in ids)


def timed(end: Callable[[], int]) -> tuple[int, float]:
    begin = time.monotonic()
    code = end()
    return code, time.monotonic() - begin


def at_once(end: Callable[[], int]) -> int:
    code, seconds = timed(end)
    assert seconds < SLACK_SECONDS
    return code


# -- a stop ----------------------------------------------------------------------------


def test_given_a_stop_that_takes_a_while_then_health_says_so_and_metrics_go_on(tmp_path: Path) -> None:
    with BrokerWithFaults(tmp_path / "data", "during-sync=delay:600@*") as broker:
        with broker.client(timeout=3) as mq:
            mq.create_channel("orders")
            with loaded(mq):
                os.kill(broker.pid, signal.SIGTERM)
                wait_until(lambda: "draining" in problems(broker), "it says that it stops")
                with urlopen(f"{broker.http_url}/metrics", timeout=5) as answer:
                    assert b"rocksmq_ready 0" in answer.read()
                code = broker.wait()
        assert code == 0


def problems(broker: Broker) -> str:
    try:
        with urlopen(f"{broker.http_url}/readyz", timeout=5):
            return ""
    except HTTPError as error:
        with error:
            return error.read().decode()


def test_given_a_disk_that_hangs_when_stopped_then_it_is_cut_off_in_time_and_nothing_acknowledged_is_lost(
    tmp_path: Path,
) -> None:
    # Given: a sync slow enough that the next goes to a thread, which hangs.
    hanging = "during-sync=delay:60000@6"
    with hasty(tmp_path / "data", "during-sync=delay:200@5", hanging) as broker:
        with broker.client(timeout=3) as mq:
            mq.create_channel("orders")
            with loaded(mq) as (acknowledged, errors):
                broker.wait_for(hanging)
                # When
                code, seconds = timed(broker.terminate)
        # Then
        assert code == UNFINISHED
        assert DRAIN_SECONDS <= seconds < DRAIN_SECONDS + SLACK_SECONDS
        assert all(isinstance(error, (ShuttingDown, ConnectionFailed)) for error in errors), errors
        assert "longer than 1 s (drain_seconds): cut off, as by kill -9" in broker.log.read_text()
        broker.faults = ()
        all_there(broker, acknowledged)


def test_given_a_disk_that_hangs_under_the_loop_when_stopped_then_it_is_cut_off_all_the_same(tmp_path: Path) -> None:
    hanging = "before-write=delay:60000@5"  # as a sync does that is the first to be slow
    with hasty(tmp_path / "data", hanging) as broker:
        with broker.client(timeout=3) as mq:
            mq.create_channel("orders")
            with loaded(mq) as (acknowledged, _):
                broker.wait_for(hanging)
                code, seconds = timed(broker.terminate)
        assert code == UNFINISHED
        assert seconds < DRAIN_SECONDS + CLOSE_SECONDS + SLACK_SECONDS
        assert "not stopped within 6 s: cut off" in broker.log.read_text()
        broker.faults = ()
        all_there(broker, acknowledged)


def test_given_a_store_that_does_not_close_when_stopped_then_it_is_cut_off_all_the_same(tmp_path: Path) -> None:
    with hasty(tmp_path / "data", "on-store-close=delay:60000") as broker:
        with broker.client() as mq:
            mq.create_channel("orders")
            acknowledged = [mq.produce("orders", [b"a"])]
        code, seconds = timed(broker.terminate)
        assert code == UNFINISHED
        assert seconds < DRAIN_SECONDS + CLOSE_SECONDS + SLACK_SECONDS
        broker.faults = ()
        all_there(broker, acknowledged)


@pytest.mark.parametrize(
    ("numbers", "code"),
    [((signal.SIGTERM, signal.SIGTERM), 143), ((signal.SIGINT, signal.SIGINT), 130), ((signal.SIGINT, signal.SIGTERM), 143)],
)
def test_given_a_stop_that_takes_long_when_a_second_signal_comes_then_it_ends_at_once(
    tmp_path: Path, numbers: tuple[signal.Signals, signal.Signals], code: int
) -> None:
    with hasty(tmp_path / "data", "on-store-close=delay:60000") as broker:
        with broker.client() as mq:
            mq.create_channel("orders")
            acknowledged = [mq.produce("orders", [b"a"])]
        os.kill(broker.pid, numbers[0])
        broker.wait_for("on-store-close")
        os.kill(broker.pid, numbers[1])
        assert at_once(broker.wait) == code
        broker.faults = ()
        all_there(broker, acknowledged)


def test_given_a_store_that_has_failed_when_a_signal_comes_then_the_exit_code_is_still_5(tmp_path: Path) -> None:
    faults = ("during-sync=raise:storage-failed@5", "on-store-close=delay:800")
    with hasty(tmp_path / "data", *faults) as broker:
        with broker.client(timeout=3) as mq:
            mq.create_channel("orders")
            with loaded(mq) as (acknowledged, _):
                broker.wait_for("on-store-close")
                os.kill(broker.pid, signal.SIGTERM)
                assert broker.wait() == STORAGE_FAILED
        assert broker.log.read_text().splitlines()[-1].startswith("rocksmqd: ")
        broker.faults = ()
        all_there(broker, acknowledged)


# -- a stop before it serves -----------------------------------------------------------------


@contextmanager
def starting(directory: Path, meta: str) -> Generator[tuple["subprocess.Popen[str]", Callable[[], str]]]:
    """A broker that waits for its positions' store, and what it has logged."""
    options = ("--listen", "127.0.0.1:0", "--http", "off", "--data-dir", str(directory / "data"), "--meta", meta)
    patient = {"ROCKSMQ_LIMITS_META_START_SECONDS": "60", "ROCKSMQ_LIMITS_META_CALL_SECONDS": "50"}
    log = directory / "log"
    with log.open("w") as stream:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "rocksmq.broker", *options],
            stdout=subprocess.PIPE,
            stderr=stream,
            text=True,
            env={**os.environ, **patient},
        )
    with process:
        try:
            yield process, log.read_text
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_given_a_start_that_waits_for_an_etcd_that_is_not_there_when_stopped_then_it_ends_at_once(
    tmp_path: Path, number: signal.Signals
) -> None:
    with starting(tmp_path, f"etcd://127.0.0.1:{free_port()}/p") as (process, log):
        wait_until(lambda: "cannot be reached" in log(), "it has looked for etcd")
        process.send_signal(number)
        assert at_once(lambda: process.wait(30)) == 0
        assert "listening" not in process.communicate()[0]
        assert "Traceback" not in log()


def test_given_a_start_that_waits_for_an_etcd_that_never_answers_when_stopped_then_it_ends_at_once(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as frozen:
        frozen.settimeout(30)
        with starting(tmp_path, f"etcd://127.0.0.1:{frozen.getsockname()[1]}/p") as (process, log):
            asked, _ = frozen.accept()
            with asked:
                process.send_signal(signal.SIGTERM)
                assert at_once(lambda: process.wait(30)) == 0
            assert "Traceback" not in log()
    with Broker(tmp_path / "data") as broker, broker.client() as mq:
        assert mq.create_channel("orders"), "the data are as they should be"


def test_given_a_stop_as_early_as_can_be_then_it_ends_with_0_or_by_the_signal_and_starts_again(tmp_path: Path) -> None:
    for delay_ms in range(0, 600, 60):
        broker = Broker(tmp_path / "data")
        with subprocess.Popen(broker.command(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            time.sleep(delay_ms / 1000)
            process.terminate()
            _, errors = process.communicate(timeout=30)
        assert process.returncode in (0, -signal.SIGTERM), errors
        assert "Traceback" not in errors
    with Broker(tmp_path / "data") as broker, broker.client() as mq:
        mq.ping()
