"""`rocksmq status`: what it shows, what it says is wrong, and its exit code."""

import json
import os
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from rocksmq.clients import Client
from rocksmq.clients.cli import advice, main
from rocksmq.clients.cli import status as command
from rocksmq.clients.testing import Broker
from rocksmq.metrics import catalogue
from rocksmq.metrics.exposition import expose
from rocksmq.metrics.instruments import MetricFamily, gauge, gauges
from rocksmq.protocol.administration import Status, StatusReported
from rocksmq.protocol.operations import (
    Empty,
)
from tests.clients.cli_support import rocksmq
from tests.clients.status_support import GIB, WELL, Samples
from tests.clients.support import answering, wait_until
from tests.helpers.etcd import Etcd
from tests.helpers.fake_server import FakeServer, Peer
from tests.helpers.small_disk import BrokerOnSmallDisk, needs_mount

STARTED = catalogue.Metric("process_start_time_seconds", catalogue.Kind.GAUGE, "")


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A broker that this module shares."""
    with Broker(tmp_path_factory.mktemp("status") / "data") as process:
        yield process


def told(*problems: str, **changed: Any) -> FakeServer:
    """A server that says so of itself; ``changed`` are values by the names of the catalogue."""
    values: dict[catalogue.Metric, Samples] = {**WELL, **{getattr(catalogue, name): value for name, value in changed.items()}}

    def families() -> Iterator[MetricFamily]:
        yield gauge(STARTED, 1_790_000_000)
        for metric, samples in values.items():
            yield gauges(metric, samples.items()) if isinstance(samples, Mapping) else gauge(metric, samples)

    def handle(peer: Peer, correlation: int, request: Any) -> None:
        if isinstance(request, Empty):
            peer.reply(correlation, Empty())
        else:
            assert request == Status("")
            peer.reply(correlation, StatusReported(not problems, list(problems), b"".join(expose(families()))))

    return FakeServer(answering(handle))


def lines_below(text: str) -> list[str]:
    """What is said below the properties."""
    return text.partition("\n\n")[2].splitlines()


def test_given_a_broker_when_asked_then_what_it_is_and_holds_is_told_and_that_all_is_well(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(command, "time", lambda: 1_790_011_100.0)

    def ping(mq: Client) -> float:
        return 0.000123456

    monkeypatch.setattr(Client, "ping", ping)
    with told() as server:
        result = rocksmq(server.url, "status")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == (
        f"url           {server.url}\n"
        "version       0\n"
        "protocol      1\n"
        "durability    fsync\n"
        "ping_seconds  0.000123\n"
        "up            3 h 5 min, since 2026-09-21 14:13:20 UTC\n"
        "positions     embedded\n"
        "holds         2 channels, 2 groups, 12,345 messages, 6.0 MiB\n"
        "disk          45.0 GiB free of 100 GiB\n"
        "connections   12 of 4,096\n"
        "\n"
        "all is well\n"
    )


def test_given_a_broker_that_is_not_ready_when_asked_then_it_says_why_and_the_exit_code_is_1() -> None:
    with told("disk: it is full, free some", "meta: \x1b[31metcd", COMMITS_REFUSED=2, WRITE_STALLED=1) as server:
        result = rocksmq(server.url, "status")
    assert result.exit_code == 1
    assert lines_below(result.stdout) == [
        "not ready:",
        "- disk: it is full, free some",
        "- meta: \\x1b[31metcd",
        "",
        "and:",
        "- RocksDB stops writes until it has caught up (0 B to compact): produce less, or use a faster disk",
        "",
        "good to know:",
        "- 2 times since its start the broker refused a group commit because the disk was full: nothing of it was stored, and"
        " whoever waited was told DiskFull",
    ]
    assert result.stderr == ""


def test_given_numbers_that_say_something_is_wrong_when_asked_then_it_is_told_and_the_exit_code_stays_0() -> None:
    with told(DISK_FREE=2 * GIB, POSITIONS_BROUGHT_BACK=1) as server:
        result = rocksmq(server.url, "status")
    assert result.exit_code == 0
    first, second, _, title, _ = lines_below(result.stdout)
    assert (first, title) == ("to look at:", "good to know:")
    assert second.startswith("- the disk is nearly full: 2.0 GiB of 100 GiB are free")


def test_given_what_only_happened_before_when_asked_then_all_is_well_and_it_is_told() -> None:
    with told(POSITIONS_BROUGHT_BACK=1) as server:
        result = rocksmq(server.url, "status")
    assert lines_below(result.stdout)[:3] == ["all is well", "", "good to know:"]


def test_given_json_when_asked_then_one_object_has_all_of_it() -> None:
    with told("disk: it is full", DISK_FREE=2 * GIB, ID_AHEAD=9, POSITIONS_BROUGHT_BACK=1) as server:
        result = rocksmq(server.url, "--json", "status")
    assert result.exit_code == 1
    (line,) = result.stdout.splitlines()
    found = json.loads(line)
    assert found.pop("ping_seconds") > 0
    assert [sentence.split(" run ")[0] for sentence in found.pop("findings")] == ["message ids"]
    assert [len(found.pop(name)) for name in ("notes", "limits")] == [1, 3]
    assert found == {
        "url": server.url,
        "version": "0",
        "protocol": 1,
        "durability": "fsync",
        "is_ready": False,
        "up_since": "2026-09-21T14:13:20.000+00:00",
        "positions": "embedded",
        "channels": 2,
        "groups": 2,
        "messages": 12_345,
        "bytes": 6 << 20,
        "disk_free_bytes": 2 * GIB,
        "disk_total_bytes": 100 * GIB,
        "problems": ["disk: it is full"],
    }


# -- a real broker -----------------------------------------------------------------


def test_given_a_real_broker_when_asked_then_its_limits_are_told_if_they_are_wanted(broker: Broker) -> None:
    found = json.loads(rocksmq(broker.url, "--json", "status").stdout)
    assert (found["url"], found["protocol"], found["durability"], found["is_ready"]) == (broker.url, 1, "fsync", True)
    assert found["limits"]["payload_bytes_max"] == 1_048_576
    assert "\npayload_bytes_max     1048576\n" in rocksmq(broker.url, "status", "--limits").stdout
    assert "payload_bytes_max" not in rocksmq(broker.url, "status").stdout


def test_given_a_token_in_the_url_when_the_status_is_shown_then_the_token_is_not(broker: Broker) -> None:
    result = CliRunner().invoke(main, ["status"], env={"ROCKSMQ_URL": broker.url.replace("://", "://secret@")})
    assert result.exit_code == 0
    assert "secret" not in result.output


def test_given_a_group_that_nobody_reads_when_asked_then_it_is_named_until_somebody_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(advice, "BEHIND_SECONDS", 0.001)
    with Broker(tmp_path / "data") as broker, broker.client() as mq:
        mq.create_channel("orders")
        mq.create_consumer_group("orders", "billing")
        mq.produce("orders", [b"one", b"two", b"three"])
        wait_until(lambda: bool(advice.groups_behind(mq.status())))
        begin = time.monotonic()
        first, second = lines_below(rocksmq(broker.url, "status").stdout)
        assert time.monotonic() - begin >= command.LOOK_SECONDS
        assert first == "to look at:"
        assert second.startswith("- nobody reads group billing of channel orders: 3 messages unread, the oldest since 20")

        def consume_meanwhile(seconds: float) -> None:
            mq.consume("orders", "billing", 1)

        monkeypatch.setattr(command, "sleep", consume_meanwhile)
        [_, second] = lines_below(rocksmq(broker.url, "status").stdout)
        assert second.startswith("- group billing of channel orders is read, but far behind: 2 messages unread")
        assert mq.consume("orders", "billing").payloads == [b"two", b"three"]
        assert lines_below(rocksmq(broker.url, "status").stdout) == ["all is well"]


def test_given_few_connections_when_most_are_taken_then_it_is_told(tmp_path: Path) -> None:
    (tmp_path / "config").write_text("[limits]\nconnections_max = 4\nmetrics_series_max = 1\n")
    with Broker(tmp_path / "data", "--config", str(tmp_path / "config")) as broker, broker.client() as mq:
        for name in ("a", "b"):
            mq.create_channel(name)
        with broker.client(), broker.client():
            result = rocksmq(broker.url, "status")
            assert lines_below(result.stdout)[1].startswith("- 4 of 4 connections are taken")
        assert lines_below(result.stdout)[4].startswith("- 2 channels and groups are too many to be shown one by one")


def test_given_options_that_are_wrong_when_reloaded_then_it_is_told_until_they_are_right(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text("")
    with Broker(tmp_path / "data", "--config", str(config)) as broker:
        for text, said in (("log_level = 7\n", "- the last SIGHUP failed, "), ("", "all is well")):
            config.write_text(text)
            os.kill(broker.pid, signal.SIGHUP)
            wait_until(lambda said=said: said in rocksmq(broker.url, "status").stdout)  # type: ignore[misc]


@needs_mount
def test_given_a_disk_that_fills_up_when_asked_then_it_says_so_until_there_is_space(tmp_path: Path) -> None:
    with BrokerOnSmallDisk(tmp_path / "data") as broker:
        broker.fill(but=100 << 20)
        result = rocksmq(broker.url, "status")
        assert result.exit_code == 0
        assert "\n- the disk is nearly full: " in result.stdout
        broker.fill(but=10 << 20)
        result = rocksmq(broker.url, "status")
        assert result.exit_code == 1
        assert lines_below(result.stdout)[0] == "not ready:"
        assert lines_below(result.stdout)[1].startswith("- disk: ")
        assert "nearly full" not in result.stdout
        broker.free()
        result = rocksmq(broker.url, "status")
        assert (result.exit_code, lines_below(result.stdout)[0]) == (0, "all is well")


def test_given_an_etcd_that_is_gone_when_asked_then_the_broker_is_not_ready(tmp_path: Path) -> None:
    with Etcd() as etcd, Broker(tmp_path / "data", "--meta", etcd.url("status")) as broker, broker.client() as mq:
        mq.create_channel("orders")
        assert rocksmq(broker.url, "status").exit_code == 0
        etcd.kill()
        wait_until(lambda: rocksmq(broker.url, "status").exit_code == 1)
        found = lines_below(rocksmq(broker.url, "status").stdout)
    assert found[0] == "not ready:"
    assert found[1].startswith("- meta: ")
    assert len(found) == 2


def test_given_a_broker_that_is_killed_when_asked_then_the_exit_code_is_1(tmp_path: Path) -> None:
    with Broker(tmp_path / "data") as broker:
        broker.kill()
        result = rocksmq(broker.url, "--timeout", "0.2", "status")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"error: no broker answers at {broker.url}: ")
