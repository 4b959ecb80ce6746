"""`rocksmq bench msgstream`: its rows, and that it leaves nothing behind. Never how fast anything is."""

import json
import signal
import sys
from pathlib import Path

import pytest

from rocksmq.clients import Client, OwnerDescription
from rocksmq.clients.bench.msgstream import SCENARIOS, ratios
from rocksmq.clients.bench.rows import Row
from rocksmq.clients.bench.stream_reader import Job, Pack, Report, opened, read
from rocksmq.clients.bench.streams import (
    check_count,
    delays,
    insert,
    light_load,
    produce,
    produce_with_ticks,
    reading,
    search,
    tick,
)
from rocksmq.clients.cli import bench as command
from rocksmq.clients.msgstream import RmqMsgStreamFactory, schema
from rocksmq.clients.testing import Broker
from rocksmq.protocol.errors import RocksMQError
from tests.clients.cli_support import rocksmq, started


def test_given_the_command_when_its_scenarios_are_listed_then_they_are_those_that_can_be_run() -> None:
    assert tuple(SCENARIOS) == command.SCENARIOS["msgstream"]


def test_given_all_scenarios_when_run_as_json_then_each_has_its_rows_and_no_channel_is_left(
    broker: Broker, client: Client, tmp_path: Path
) -> None:
    client.create_channel("mine")
    options = ["--messages", "20", "--rounds", "2", "--broker-pid", str(broker.pid), "--floor-dir", str(tmp_path)]
    result = rocksmq(broker.url, "--json", "bench", "msgstream", *options, "--channels", "3", "--seconds", "0.1")
    assert (result.exit_code, result.stderr) == (0, "")
    rows = {row["name"]: row for row in map(json.loads, result.stdout.splitlines())}
    latencies = ("stream-latency", "stream-latency its broadcast")
    floor = ("floor round trip", "floor fdatasync")
    rates = [*list(SCENARIOS)[:6], "stream-ticks"]
    assert list(rows) == [
        *rates,
        "stream-ticks packs",
        "stream-ticks late",
        *(f"{name} {cut}" for name in latencies for cut in ("p50", "p99")),
        "stream-idle open",
        *(f"stream-idle {when} {whose} CPU" for when in ("at rest", "ticked") for whose in ("reader", "broker")),
        "stream-idle connections",
        "stream-idle packs",
        "stream-idle pack",
        "stream-idle its broadcast",
        *(f"{name} {cut}" for name in floor for cut in ("p50", "p99")),
        "broker peak memory",
        "stream-plain / stream-produce",
        "stream-plain-search / stream-produce-search",
        "stream-latency p50 / its broadcast p50",
    ]
    for name in rates:
        assert (rows[name]["unit"], rows[name]["payload_bytes"], rows[name]["rounds"]) == ("messages/s", 16, 2)
        assert rows[name]["client_cpu_seconds_per_million"] > 0
        assert rows[name]["broker_cpu_seconds_per_million"] is not None
    assert all(0 <= row["lowest"] <= row["median"] <= row["highest"] for row in rows.values())
    assert rows["stream-ticks packs"]["lowest"] >= 1
    assert rows["stream-ticks late"]["highest"] == 0
    assert (rows["stream-idle connections"]["lowest"], rows["stream-idle connections"]["highest"]) == (1, 1)
    assert (rows["stream-idle packs"]["lowest"], rows["stream-idle packs"]["highest"]) == (2, 2)
    assert client.list_channels() == ["mine"]


def test_given_an_interrupt_in_the_midst_when_it_ends_then_no_channel_is_left(
    broker: Broker, client: Client, tmp_path: Path
) -> None:
    options = ["--scenario", "stream-idle", "--channels", "3", "--seconds", "1000", "--floor-dir", str(tmp_path)]
    with started(broker.url, "bench", "msgstream", *options) as process:
        while not (made := client.list_channels("bench.")) or not client.list_consumer_groups(made[-1]):
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 128 + signal.SIGINT
    assert client.list_channels() == []


def test_given_no_such_process_when_run_then_it_fails_and_no_channel_is_left(broker: Broker, client: Client) -> None:
    result = rocksmq(broker.url, "bench", "msgstream", "--messages", "20", "--broker-pid", str(1 << 30))
    assert (result.exit_code, result.stdout) == (1, "")
    assert client.list_channels() == []


def test_given_no_protobuf_when_run_then_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rocksmq.clients.msgstream.messages_pb2", None)
    monkeypatch.delattr("rocksmq.clients.msgstream.messages_pb2", raising=False)
    schema.body_class.cache_clear()
    try:
        result = rocksmq("rocksmq://127.0.0.1:1", "bench", "msgstream")
    finally:
        schema.body_class.cache_clear()
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("error: ")
    assert result.stderr.endswith("pip install 'rocksmq[msgstream]'\n")
    assert result.stderr.count("\n") == 1


def test_given_more_messages_than_there_are_when_read_then_it_loses_patience_and_the_count_is_told(
    broker: Broker, client: Client
) -> None:
    channels = client.create_channels(OwnerDescription("bench"), 2)
    with RmqMsgStreamFactory(broker.url).new_msg_stream() as stream:
        stream.as_producer(channels)
        produce(stream, search, 5, 2)
    with opened(RmqMsgStreamFactory(broker.url), Job(channels, messages=6, patience=0.0)) as stream:
        packs = read(stream, Job(channels, messages=6, patience=0.0))
    check_count(packs, 5)
    with pytest.raises(RocksMQError, match="5 of 6 messages came back"):
        check_count(packs, 6)


def test_given_ticks_beside_a_producer_when_read_by_a_process_then_all_messages_are_on_time(
    broker: Broker, client: Client
) -> None:
    channels = client.create_channels(OwnerDescription("bench"), 3)
    factory = RmqMsgStreamFactory(broker.url)
    with (
        reading(broker.url, Job(channels, last_ts=100)) as reader,
        factory.new_msg_stream() as stream,
        factory.new_msg_stream() as ticker,
    ):
        stream.as_producer(channels)
        ticker.as_producer(channels)
        produce_with_ticks(stream, ticker, insert, 100, 10)
        packs = reader.report().packs
    check_count(packs, 100)
    assert [pack.late_count for pack in packs] == [0] * len(packs)
    assert packs[-1].end_ts == 100


def test_given_a_tick_that_breaks_its_promise_when_read_by_a_process_then_late_messages_are_counted(
    broker: Broker, client: Client
) -> None:
    channels = client.create_channels(OwnerDescription("bench"), 2)
    with (
        reading(broker.url, Job(channels, last_ts=7)) as reader,
        RmqMsgStreamFactory(broker.url).new_msg_stream() as stream,
    ):
        stream.as_producer(channels)
        tick(stream, 5)
        produce(stream, insert, 6, 6)
        tick(stream, 7)
        packs = reader.report().packs
    assert [(pack.end_ts, pack.message_count, pack.late_count) for pack in packs] == [(5, 0, 0), (7, 6, 5)]


def test_given_a_light_load_when_read_by_a_process_then_every_tick_has_its_pack_behind_it(
    broker: Broker, client: Client
) -> None:
    channels = client.create_channels(OwnerDescription("bench"), 2)
    with (
        reading(broker.url, Job(channels, last_ts=3)) as reader,
        RmqMsgStreamFactory(broker.url).new_msg_stream() as stream,
    ):
        stream.as_producer(channels)
        told = light_load(stream, 3, 0.0, lambda ts: [insert(ts, key) for key in range(4)])
        report = reader.report()
    assert list(told) == [1, 2, 3]
    assert [pack.message_count for pack in report.packs] == [4, 4, 4]
    assert min(delays(told, report)) > 0
    with pytest.raises(RocksMQError, match="3 packs came back of 2 ticks"):
        delays({1: told[1], 2: told[2]}, report)


def test_given_ticks_and_packs_when_compared_then_each_delay_is_from_the_tick_to_its_pack() -> None:
    report = Report([Pack(1, 5_000_000_000, 0, 0), Pack(2, 9_000_000_000, 0, 0)], 0.0)
    assert delays({1: (4_000_000_000, 0.5), 2: (6_000_000_000, 0.5)}, report) == [1.0, 3.0]


def test_given_channels_that_do_not_exist_when_a_process_is_to_read_them_then_it_fails_and_says_why(
    broker: Broker, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(RocksMQError, match="stream_reader failed"), reading(broker.url, Job(["gone"], messages=1)):
        pass
    assert capfd.readouterr().err.startswith("the reading process: there is no channel 'gone'")


def test_given_rows_when_compared_then_only_those_that_are_there_give_ratios() -> None:
    rows = {name: Row(name, "messages/s", [value]) for name, value in (("stream-plain", 3.0), ("stream-produce", 6.0))}
    assert [(row.name, row.median) for row in ratios(rows)] == [("stream-plain / stream-produce", 0.5)]
    assert ratios({"stream-plain": rows["stream-plain"]}) == []
