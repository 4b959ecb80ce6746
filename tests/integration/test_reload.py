"""SIGHUP at a real broker."""

import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest

from rocksmq.clients.testing import Broker
from tests.helpers.ledger import wait_until


class Reloaded(Broker):
    """With a file of options that a test rewrites."""

    def __init__(self, directory: Path, *arguments: str) -> None:
        self.file = directory / "rocksmqd.toml"
        self.file.write_text("")
        super().__init__(directory / "data", "--config", str(self.file), *arguments, http="127.0.0.1:0")

    def hang_up(self, content: str | None = None) -> None:
        """Write ``content`` to the file, and have it read."""
        if content is not None:
            self.file.write_text(content)
        before = self.reloads
        os.kill(self.pid, signal.SIGHUP)
        wait_until(lambda: self.reloads > before, "the options were read again")

    @property
    def reloads(self) -> float:
        return self.figure('rocksmq_config_reloads_total{result="ok"}') + self.figure(
            'rocksmq_config_reloads_total{result="failed"}'
        )

    def figure(self, name: str) -> float:
        with urlopen(f"{self.http_url}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        return next(float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{name} "))

    @property
    def lines(self) -> list[str]:
        return self.log.read_text().splitlines()


@pytest.fixture
def reloaded(tmp_path: Path) -> Iterator[Reloaded]:
    with Reloaded(tmp_path) as broker:
        yield broker


def test_given_another_level_when_sighup_comes_then_it_is_in_effect_without_a_restart(reloaded: Reloaded) -> None:
    pid = reloaded.pid
    reloaded.hang_up('log_level = "error"')
    silent = reloaded.lines
    reloaded.hang_up()
    assert reloaded.lines == silent
    reloaded.hang_up('log_level = "info"')
    assert "the options were read again: log_level is info" in reloaded.lines[-1]
    assert reloaded.pid == pid
    assert reloaded.figure('rocksmq_config_reloads_total{result="ok"}') == 3


def test_given_another_format_when_sighup_comes_then_every_line_from_then_on_has_it(reloaded: Reloaded) -> None:
    begin = len(reloaded.lines)
    reloaded.hang_up('log_format = "json"')
    assert reloaded.terminate() == 0
    messages = [json.loads(line)["message"] for line in reloaded.lines[begin:]]
    assert messages[:2] == ["the options were read again: log_format is json", "stopping: finishing what is in flight"]
    assert messages[2:] == ["stopped: all that was accepted is stored and answered"]


def test_given_a_file_that_is_bad_or_gone_when_sighup_comes_then_all_goes_on_as_it_was(reloaded: Reloaded) -> None:
    with reloaded.client() as mq:
        mq.create_channel("orders")
        for spoil in (lambda: reloaded.file.write_text('log_level = "loud"'), reloaded.file.unlink):
            spoil_and_check(reloaded, spoil)
            assert mq.produce("orders", [b"a"])
    reloaded.hang_up("")
    assert reloaded.figure("rocksmq_config_last_reload_successful") == 1
    assert reloaded.terminate() == 0


def spoil_and_check(broker: Reloaded, spoil: Callable[[], object]) -> None:
    spoil()
    broker.hang_up()
    assert " ERROR rocksmq.broker: the options could not be read again" in broker.lines[-1]
    assert str(broker.file) in broker.lines[-1]
    assert broker.figure("rocksmq_config_last_reload_successful") == 0


def test_given_options_that_need_a_restart_when_sighup_comes_then_they_are_named_and_a_restart_takes_them(
    reloaded: Reloaded,
) -> None:
    reloaded.hang_up("[limits]\nchannels_max = 7")
    assert reloaded.lines[-1].endswith("changed options take effect at the next start: limits.channels_max")
    reloaded.restart()
    assert "limits: channels_max 7" in reloaded.log.read_text()


def test_given_many_hangups_under_load_when_served_then_nothing_is_lost_or_refused(reloaded: Reloaded) -> None:
    produced: list[range] = []
    over = threading.Event()
    with reloaded.client() as mq:
        mq.create_channel("orders")

        def work() -> None:
            while not over.is_set():
                produced.append(mq.produce("orders", [b"x"] * 10))

        thread = threading.Thread(target=work)
        thread.start()
        try:
            for number in range(200):
                reloaded.file.write_text(f'log_level = "{"info" if number % 2 else "error"}"')
                os.kill(reloaded.pid, signal.SIGHUP)
            wait_until(lambda: len(produced) > 100, "much was produced")
        finally:
            over.set()
            thread.join()
        reloaded.hang_up("")
        assert mq.describe_channel("orders").message_count == 10 * len(produced)
    assert reloaded.terminate() == 0
    assert "Traceback" not in reloaded.log.read_text()


def test_given_a_pipe_that_nobody_writes_as_the_file_when_sighup_comes_then_it_serves_and_stops_all_the_same(
    reloaded: Reloaded,
) -> None:
    reloaded.file.unlink()
    os.mkfifo(reloaded.file)
    os.kill(reloaded.pid, signal.SIGHUP)
    with reloaded.client() as mq:
        for number in range(20):
            mq.create_channel(f"orders-{number}")
    assert reloaded.terminate() == 0
