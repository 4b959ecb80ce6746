"""A real broker under a supervisor that speaks sd_notify, as systemd does: what it is told, and when."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from urllib.request import urlopen
from uuid import uuid4

import pytest

from rocksmq.clients import RocksMQError
from rocksmq.clients.testing import Broker
from tests.helpers.ledger import wait_until

from .broker_with_faults import BrokerWithFaults

STORAGE_FAILED = 5
WATCHDOG_SECONDS = 0.9
BEAT_SECONDS = WATCHDOG_SECONDS / 3
PATIENCE_SECONDS = 20.0


class Supervisor:
    """A socket, and what came in."""

    def __init__(self, address: str) -> None:
        self.told: list[str] = []
        self.environment = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": str(round(WATCHDOG_SECONDS * 1_000_000))}
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._sock.bind(address.replace("@", "\0", 1))

    def hear(self, seconds: float) -> str | None:
        """The next datagram, if one comes within ``seconds``."""
        self._sock.settimeout(seconds)
        try:
            self.told.append(self._sock.recv(4_096).decode())
        except (TimeoutError, BlockingIOError):
            return None
        return self.told[-1]

    def wait_for(self, text: str) -> str:
        """The next datagram with ``text``; those before it are heard too."""
        while text not in (found := self.hear(PATIENCE_SECONDS) or ""):
            assert found, f"{text} did not come: {self.told}"
        return found

    def close(self) -> None:
        self._sock.close()


@pytest.fixture(params=["path", "abstract"])
def supervisor(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Supervisor]:
    heard = Supervisor(str(tmp_path / "notify") if request.param == "path" else f"@rocksmq-{uuid4()}")
    yield heard
    heard.close()


@pytest.fixture
def abstract() -> Iterator[Supervisor]:
    heard = Supervisor(f"@rocksmq-{uuid4()}")
    yield heard
    heard.close()


def test_given_a_supervisor_when_started_and_stopped_then_it_is_told_in_this_order(
    tmp_path: Path, supervisor: Supervisor
) -> None:
    with Broker(tmp_path / "data", environment=supervisor.environment) as broker:
        opening = supervisor.wait_for("STATUS=")
        assert opening == f"STATUS=opening the data in {broker.directory}"
        ready = supervisor.wait_for("READY=1")
        assert ready == f"READY=1\nSTATUS=serving on {broker.address}"
        supervisor.wait_for("WATCHDOG=1")
        supervisor.wait_for("WATCHDOG=1")
        os.kill(broker.pid, signal.SIGTERM)
        stopping = supervisor.wait_for("STOPPING=1")
        assert stopping == "STOPPING=1\nSTATUS=finishing what is in flight"
        assert broker.wait() == 0
    assert [told for told in supervisor.told if told != "WATCHDOG=1"] == [opening, ready, stopping]


def test_given_a_start_that_is_not_over_when_looked_at_then_it_is_not_ready(tmp_path: Path, abstract: Supervisor) -> None:
    with socket.create_server(("127.0.0.1", 0)) as frozen:
        frozen.settimeout(PATIENCE_SECONDS)
        options = ["--data-dir", str(tmp_path / "data"), "--listen", "127.0.0.1:0", "--http", "off"]
        options += ["--meta", f"etcd://127.0.0.1:{frozen.getsockname()[1]}/p"]
        patient = {"ROCKSMQ_LIMITS_META_START_SECONDS": "60", "ROCKSMQ_LIMITS_META_CALL_SECONDS": "50"}
        with subprocess.Popen(
            [sys.executable, "-P", "-m", "rocksmq.broker", *options],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **patient, **abstract.environment},
        ) as process:
            asked, _ = frozen.accept()
            with asked:
                abstract.wait_for("STATUS=opening")
                assert abstract.hear(2 * WATCHDOG_SECONDS) is None
                process.terminate()
                assert process.wait(PATIENCE_SECONDS) == 0
    assert not any("READY" in told for told in abstract.told)


@contextmanager
def load(broker: Broker) -> Generator[None]:
    """Much is produced, whatever becomes of it."""
    over = threading.Event()

    def work() -> None:
        with broker.client(timeout=1) as mq:
            while not over.is_set():
                try:
                    mq.produce("orders", [b"x" * 1_000] * 500)
                except RocksMQError:
                    return

    with broker.client() as mq:
        mq.create_channel("orders")
    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()


def test_given_load_when_supervised_then_no_beat_is_missed(tmp_path: Path, abstract: Supervisor) -> None:
    patient_seconds = 3.0
    environment = abstract.environment | {"WATCHDOG_USEC": str(round(patient_seconds * 1_000_000))}
    with Broker(tmp_path / "data", environment=environment) as broker:
        abstract.wait_for("READY=1")
        with load(broker):
            beats: list[float] = []
            while len(beats) < 5:
                abstract.wait_for("WATCHDOG=1")
                beats.append(time.monotonic())
        assert max(after - before for before, after in pairwise(beats)) < patient_seconds


def test_given_a_disk_that_hangs_while_the_loop_turns_when_supervised_then_the_beats_stop(
    tmp_path: Path, abstract: Supervisor
) -> None:
    # The first slow sync has the next go to a thread: the broker still answers whatever needs no commit.
    hanging = "during-sync=delay:60000@13"
    broker = BrokerWithFaults(
        tmp_path / "data",
        "during-sync=delay:200@12",
        hanging,
        environment={**abstract.environment, "ROCKSMQ_LOG_LEVEL": "error"},
    )
    with broker:
        abstract.wait_for("READY=1")
        abstract.wait_for("WATCHDOG=1")
        with load(broker):
            broker.wait_for(hanging)
            while abstract.hear(BEAT_SECONDS / 2) is not None:
                pass  # what was on its way
            assert abstract.hear(WATCHDOG_SECONDS + BEAT_SECONDS) is None
            with urlopen(f"{broker.http_url}/livez", timeout=5) as answer:
                assert answer.status == 200


def test_given_a_disk_that_fails_when_the_watchdog_meets_it_then_exit_5_as_ever(tmp_path: Path, abstract: Supervisor) -> None:
    fault = "during-sync=raise:storage-failed@3"
    with BrokerWithFaults(tmp_path / "data", fault, environment=abstract.environment) as broker:
        assert broker.wait() == STORAGE_FAILED
        assert broker.log.read_text().splitlines()[-1].startswith("rocksmqd: ")


def test_given_a_broker_that_is_stopped_by_sigstop_when_it_goes_on_then_the_beats_do_too(
    tmp_path: Path, abstract: Supervisor
) -> None:
    with Broker(tmp_path / "data", environment=abstract.environment) as broker:
        abstract.wait_for("WATCHDOG=1")
        os.kill(broker.pid, signal.SIGSTOP)
        try:
            wait_until(lambda: "\nState:\tT" in Path(f"/proc/{broker.pid}/status").read_text(), "it is stopped")
            while abstract.hear(0) is not None:
                pass
            assert abstract.hear(WATCHDOG_SECONDS + BEAT_SECONDS) is None
        finally:
            os.kill(broker.pid, signal.SIGCONT)
        abstract.wait_for("WATCHDOG=1")


def test_given_a_hangup_when_supervised_then_reloading_and_ready_are_told(tmp_path: Path, abstract: Supervisor) -> None:
    with Broker(tmp_path / "data", environment=abstract.environment) as broker:
        ready = abstract.wait_for("READY=1")
        before_us = time.monotonic_ns() // 1_000
        os.kill(broker.pid, signal.SIGHUP)
        first, second, third = abstract.wait_for("RELOADING=1").split("\n")
        assert (first, third) == ("RELOADING=1", "STATUS=reading the options again")
        assert before_us <= int(second.removeprefix("MONOTONIC_USEC=")) <= time.monotonic_ns() // 1_000
        assert abstract.wait_for("READY=1") == ready


def test_given_no_watchdog_when_supervised_then_there_are_no_beats(tmp_path: Path, abstract: Supervisor) -> None:
    del abstract.environment["WATCHDOG_USEC"]
    with Broker(tmp_path / "data", environment=abstract.environment):
        abstract.wait_for("READY=1")
        assert abstract.hear(1.0) is None


@pytest.mark.parametrize("address", ["/does/not/exist", "@nobody-listens", "nonsense", "/dev/null"])
def test_given_a_supervisor_that_is_not_there_when_started_then_it_serves_and_stops_as_ever(
    tmp_path: Path, address: str
) -> None:
    environment = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "30000"}
    with Broker(tmp_path / "data", environment=environment) as broker:
        with broker.client() as mq:
            mq.create_channel("orders")
            assert mq.produce("orders", [b"a"])
        assert broker.terminate() == 0
        assert "Traceback" not in broker.log.read_text()
