"""`rocksmq bench`, its suite of messages and what all suites share: rows, and that nothing is left. Never how fast it is."""

import json
import os
import threading
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from rocksmq.clients import ChannelNotFound, Client
from rocksmq.clients.bench import latency
from rocksmq.clients.bench.messages import SCENARIOS
from rocksmq.clients.bench.rows import COLUMNS, Row, cells, percentiles
from rocksmq.clients.bench.usage import connection_count, cpu_seconds, measured, peak_memory_bytes
from rocksmq.clients.cli import bench as command
from rocksmq.clients.deadline import Deadline
from rocksmq.clients.testing import Broker
from tests.bench import __main__ as whole_run
from tests.bench import bare_rocksdb
from tests.clients.cli_support import rocksmq
from tests.clients.support import PATIENCE, Frozen, wait_until

NO_PROCESS = 1 << 30  # above Linux's largest process id


def test_given_the_command_when_its_scenarios_are_listed_then_they_are_those_that_can_be_run() -> None:
    assert tuple(SCENARIOS) == command.SCENARIOS["messages"]


def test_given_a_scenario_of_another_suite_when_run_then_it_is_refused_and_the_suites_own_are_named() -> None:
    result = rocksmq("rocksmq://127.0.0.1:1", "bench", "--scenario", "stream-plain")
    assert result.exit_code == 2
    assert "stream-plain is not of the suite messages: produce-100B, " in result.stderr


def test_given_all_scenarios_when_run_as_json_then_each_has_its_rows_and_no_channel_is_left(
    broker: Broker, client: Client, tmp_path: Path
) -> None:
    client.create_channel("mine")
    options = ["--messages", "20", "--rounds", "2", "--broker-pid", str(broker.pid), "--floor-dir", str(tmp_path)]
    result = rocksmq(broker.url, "--json", "bench", *options)
    assert (result.exit_code, result.stderr) == (0, "")
    rows = {row["name"]: row for row in map(json.loads, result.stdout.splitlines())}
    latencies = ("one-at-a-time", "open-loop", "end-to-end", "end-to-end its produce", "floor round trip", "floor fdatasync")
    assert list(rows) == [
        "produce-100B",
        "produce-1KiB",
        "send-100B",
        "calls-100B",
        "consume-100B",
        "consume-1KiB",
        "iterate-100B",
        *(f"{name} {cut}" for name in latencies for cut in ("p50", "p99")),
        "broker peak memory",
        "send-100B / calls-100B",
        "one-at-a-time p50 / (round trip + fdatasync)",
        "end-to-end p50 / its produce p50",
    ]
    assert {row["durability"] for row in rows.values()} == {"fsync"}
    assert rows["produce-1KiB"]["rounds"] == 2
    assert rows["produce-1KiB"]["payload_bytes"] == 1_024
    assert all(0 < row["lowest"] <= row["median"] <= row["highest"] for row in rows.values())
    assert rows["produce-100B"]["broker_cpu_seconds_per_million"] is not None
    assert client.list_channels() == ["mine"]


def test_given_one_scenario_when_run_for_people_then_the_durability_and_the_floor_are_told(
    broker: Broker, tmp_path: Path
) -> None:
    options = ["--scenario", "consume-100B", "--messages", "20", "--rounds", "1", "--floor-dir", str(tmp_path)]
    result = rocksmq(broker.url, "bench", *options)
    assert result.exit_code == 0
    first, header, *rows = result.stdout.splitlines()
    assert first == "durability: fsync, median of 1 rounds"
    assert header.split("\t") == list(COLUMNS)
    assert [row.split("\t")[0] for row in rows] == [
        "consume-100B",
        "floor round trip p50",
        "floor round trip p99",
        "floor fdatasync p50",
        "floor fdatasync p99",
    ]


def test_given_a_broker_that_stops_for_a_moment_when_messages_are_due_then_those_that_could_not_be_sent_are_late_too(
    broker: Broker, client: Client
) -> None:
    client.create_channel("mine")
    taken: list[float] = []
    messages = 3 * latency.SENDERS
    sending = threading.Thread(target=lambda: taken.extend(latency.open_loop(client, "mine", messages, 1e6)))
    with Frozen(broker):
        sending.start()
        connection = client._link.connected(Deadline(PATIENCE))  # pyright: ignore[reportPrivateUsage]
        wait_until(lambda: len(connection._calls) == latency.SENDERS)  # pyright: ignore[reportPrivateUsage]
        held = time.perf_counter()
        time.sleep(0.05)
        held = time.perf_counter() - held
    sending.join(PATIENCE)
    assert len(taken) == messages
    assert min(taken) > held
    assert len(client.fetch("mine", "earliest", 1_000).payloads) == latency.WARM_UP + messages


def test_given_a_produce_that_fails_when_messages_are_due_then_it_is_raised(client: Client) -> None:
    with pytest.raises(ChannelNotFound):
        latency.open_loop(client, "missing", 50, 1_000.0)


def result_file(path: Path, *rows: Row) -> str:
    path.write_text("".join(json.dumps(row.record()) + "\n" for row in rows))
    return str(path)


def test_given_two_result_files_when_compared_then_each_change_is_held_against_the_spread(tmp_path: Path) -> None:
    before = result_file(
        tmp_path / "before",
        Row("rate", "messages/s", [100.0, 110.0, 120.0]),
        Row("late p99", "µs", [100.0, 110.0, 120.0]),
        Row("same", "µs", [100.0, 110.0, 120.0]),
        Row("a / b", "ratio", [2.0]),
        Row("only before", "µs", [1.0]),
    )
    after = result_file(
        tmp_path / "after",
        Row("rate", "messages/s", [200.0, 220.0, 240.0]),
        Row("late p99", "µs", [200.0, 220.0, 240.0]),
        Row("same", "µs", [90.0, 99.0, 100.0]),
        Row("a / b", "ratio", [1.0]),
        Row("only after", "µs", [1.0]),
    )
    result = rocksmq("rocksmq://127.0.0.1:1", "bench", "--compare", before, after)
    assert (result.exit_code, result.stderr) == (0, "")
    assert [line.split("\t") for line in result.stdout.splitlines()[1:]] == [
        ["rate", "110", "220", "messages/s", "2.00", "better"],
        ["late p99", "110", "220", "µs", "2.00", "worse"],
        ["same", "110", "99.00", "µs", "0.90", "within the spread"],
        ["a / b", "2.00", "1.00", "ratio", "0.50", "different"],
    ]


@pytest.mark.parametrize("text", ["no JSON\n", '{"name": "rate"}\n', "[]\n"])
def test_given_a_file_of_something_else_when_compared_then_it_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "other"
    path.write_text(text)
    result = rocksmq("rocksmq://127.0.0.1:1", "bench", "--compare", str(path), str(path))
    assert (result.exit_code, result.stdout) == (1, "")
    assert f"error: {path} is no file of `rocksmq --json bench`" in result.stderr


def test_given_no_such_process_when_run_then_it_fails_and_no_channel_is_left(
    broker: Broker, client: Client, tmp_path: Path
) -> None:
    options = ["--messages", "20", "--broker-pid", str(NO_PROCESS), "--floor-dir", str(tmp_path)]
    result = rocksmq(broker.url, "bench", *options)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == f"error: /proc/{NO_PROCESS}/stat: No such file or directory\n"
    assert client.list_channels() == []


def test_given_seconds_when_cut_then_percentiles_are_microseconds() -> None:
    assert percentiles([number / 1e6 for number in range(101)]) == pytest.approx((50.0, 99.0))


def test_given_rounds_when_recorded_then_the_row_has_median_lowest_and_highest() -> None:
    row = Row("name", "messages/s", [3.0, 1_000.0, 5.0], client_cpu=[0.25, 0.5, 1.0], payload_bytes=7)
    record = row.record()
    assert record == {
        "name": "name",
        "unit": "messages/s",
        "median": 5.0,
        "lowest": 3.0,
        "highest": 1_000.0,
        "rounds": 3,
        "payload_bytes": 7,
        "client_cpu_seconds_per_million": 0.5,
        "broker_cpu_seconds_per_million": None,
    }
    assert list(cells(record).values()) == ["name", "5.00", "3.00", "1,000", "messages/s", "0.50", "-"]


def test_given_this_process_when_measured_then_cpu_and_memory_are_found() -> None:
    with measured(os.getpid()) as usage:
        pass
    assert usage.broker_cpu is not None
    assert cpu_seconds(os.getpid()) > 0
    assert peak_memory_bytes(os.getpid()) > 1 << 20


def test_given_a_process_when_its_connections_are_counted_then_only_established_ones_of_its_own_count(broker: Broker) -> None:
    before = connection_count(os.getpid()), connection_count(broker.pid)
    with broker.client(), broker.client():
        assert (connection_count(os.getpid()), connection_count(broker.pid)) == (before[0] + 2, before[1] + 2)


def test_given_no_such_process_when_measured_then_it_is_an_error() -> None:
    with pytest.raises(FileNotFoundError):
        cpu_seconds(NO_PROCESS)
    with pytest.raises(FileNotFoundError):
        peak_memory_bytes(NO_PROCESS)
    with pytest.raises(FileNotFoundError):
        connection_count(NO_PROCESS)


def test_given_a_bare_database_when_measured_then_its_row_is_json_and_nothing_is_left(tmp_path: Path) -> None:
    result = CliRunner().invoke(bare_rocksdb.main, ["--dir", str(tmp_path), "--batches", "2", "--rounds", "2"])
    assert result.exit_code == 0
    record = json.loads(result.stdout)
    assert (record["name"], record["unit"], record["rounds"]) == ("bare RocksDB", "MB/s", 2)
    assert list(tmp_path.iterdir()) == []


def test_given_the_whole_run_when_made_then_one_table_has_broker_floor_and_bare_database(tmp_path: Path) -> None:
    options = ["--dir", str(tmp_path), "--rounds", "1", "--json", "--scenario", "produce-1KiB", "--messages", "20"]
    result = CliRunner().invoke(whole_run.main, options)
    assert result.exit_code == 0
    rows = {row["name"]: row for row in map(json.loads, result.stdout.splitlines())}
    rate, bare = rows["produce-1KiB"]["median"], rows["bare RocksDB"]["median"]
    assert rows["produce-1KiB / bare RocksDB"]["median"] == pytest.approx(rate * 1_024 / 1e6 / bare, abs=0.001)
    assert "floor fdatasync p50" in rows
    assert list(tmp_path.iterdir()) == []


def test_given_the_whole_run_of_another_suite_when_made_then_no_bare_database_stands_beside_it(tmp_path: Path) -> None:
    options = ["--dir", str(tmp_path), "--rounds", "1", "--json", "--suite", "msgstream"]
    result = CliRunner().invoke(whole_run.main, [*options, "--scenario", "stream-produce", "--messages", "20"])
    assert result.exit_code == 0
    names = [json.loads(line)["name"] for line in result.stdout.splitlines()]
    assert "stream-produce" in names
    assert not [name for name in names if "RocksDB" in name]
    assert list(tmp_path.iterdir()) == []
