"""Each broker that is here is measured, with little; the README's table is that of the results that are kept."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.bench.peers import PEERS
from tests.bench.peers.__main__ import COUNTS, main
from tests.bench.peers.peer import PeerFailed, Timed, running
from tests.bench.peers.table import BEGIN, RESULTS, put, read, table

README = Path(__file__).parents[2] / "README.md"
SLOW_TOPICS = ("Kafka", "Pulsar", "pulsar-lite")  # a thousand of them take a minute


@pytest.mark.parametrize("name", PEERS)
def test_given_a_broker_that_is_here_when_measured_with_little_then_each_figure_is_found(name: str, tmp_path: Path) -> None:
    if not PEERS[name].is_here():
        pytest.skip(f"no {name} here: {PEERS[name].needs}")
    out = tmp_path / "results.jsonl"
    wanted = [workload for workload in COUNTS if workload != "channels-100B" or name not in SLOW_TOPICS]
    options = [word for workload in wanted for word in ("--workload", workload)]
    made = CliRunner().invoke(
        main, ["--rounds", "1", "--part", "0.05", "--peer", name, "--dir", str(tmp_path), "--out", str(out), *options]
    )
    assert made.exit_code == 0, made.output
    records = read(out)
    assert [record.get("error") for record in records] == [None] * len(records)
    sends = [workload for workload in wanted if workload != "send-100B" or PEERS[name].has_send]
    assert [(record["mode"], record["workload"]) for record in records] == [
        (mode, workload) for mode in PEERS[name].modes for workload in sends
    ]
    for record in records:
        assert record["count"] > 0
        assert record.get("rate", 1) > 0
        assert record.get("p99", 1) >= record.get("p50", 1) > 0
    assert table(records).count(f"| {name} |") == len(PEERS[name].modes)
    assert [path.name for path in tmp_path.iterdir()] == ["results.jsonl"]


def test_given_a_broker_that_is_not_here_when_asked_for_then_it_is_told_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PEERS["Kafka"], "is_here", lambda: False)
    made = CliRunner().invoke(main, ["--peer", "Kafka", "--out", str(tmp_path / "results.jsonl")])
    assert (made.exit_code, made.output) == (0, f"no Kafka here: {PEERS['Kafka'].needs}\n")


def test_given_a_server_that_ends_at_once_when_started_then_its_last_words_are_told(tmp_path: Path) -> None:
    server = running(["sh", "-c", "echo no such option; exit 1"], tmp_path, lambda: False)
    with pytest.raises(PeerFailed, match="does not serve: no such option"):
        server.__enter__()


def test_given_nothing_that_comes_when_waited_for_then_it_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.bench.peers.peer.FIRST_SECONDS", 0.0)
    with pytest.raises(PeerFailed, match="no message came"):
        _ = Timed(1, 10, 1.0).is_over


def test_given_rounds_when_they_differ_then_the_median_stands_with_the_lowest_and_the_highest() -> None:
    about = {"peer": "P", "mode": "m", "means": "fsync", "versions": "P 1", "machine": "2 cores", "date": "2026-01-01"}
    rates = [
        {**about, "round": number, "workload": "produce-100B", "rate": rate, "server_cpu": 0.5, "client_cpu": 0.25}
        for number, rate in enumerate((300_000, 100_000, 200_000), 1)
    ]
    latencies = [{**about, "round": 1, "workload": "one-at-a-time", "p50": 100.0, "p99": 1_000.0}]
    made = table([*rates, *latencies, {**about, "round": 1, "workload": "end-to-end", "error": "it failed"}])
    row = "| P | fsync | 200 (100 .. 300) | - | - | - | - | - | 100 / 1,000 | - | 0.50 + 0.25 |"
    assert row in made.splitlines()


def test_given_the_results_that_are_kept_when_their_table_is_made_then_it_is_the_readmes() -> None:
    text = README.read_text()
    assert BEGIN in text
    assert put(text, table(read(RESULTS))) == text
    assert {json.loads(line)["peer"] for line in RESULTS.read_text().splitlines()} <= set(PEERS)
