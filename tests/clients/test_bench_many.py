"""`rocksmq bench many`: what it says, and that nothing is left. Never how fast it is."""

import json
from pathlib import Path

import pytest

from rocksmq.clients import Client, RocksMQError
from rocksmq.clients.bench import crowd
from rocksmq.clients.bench.crowd import produce_one_by_one
from rocksmq.clients.bench.many import SCENARIOS
from rocksmq.clients.bench.processes import other
from rocksmq.clients.cli import bench as command
from rocksmq.clients.testing import Broker
from tests.clients.cli_support import rocksmq


def test_given_the_command_when_its_scenarios_are_listed_then_they_are_those_that_can_be_run() -> None:
    assert tuple(SCENARIOS) == command.SCENARIOS["many"]


def test_given_all_scenarios_when_run_as_json_then_each_has_its_rows_and_no_channel_is_left(
    broker: Broker, client: Client, tmp_path: Path
) -> None:
    client.create_channel("mine")
    options = ["--messages", "200", "--rounds", "1", "--channels", "7", "--connections", "3", "--floor-dir", str(tmp_path)]
    result = rocksmq(broker.url, "--json", "bench", "many", "--broker-pid", str(broker.pid), *options)
    assert (result.exit_code, result.stderr) == (0, "")
    rows = {row["name"]: row for row in map(json.loads, result.stdout.splitlines())}
    assert [name for name in rows if not name.startswith(("floor", "broker"))] == [
        "channels-100B",
        "connections-100B alone",
        "connections-100B",
        "groups-100B",
        "mixed-100B",
        "connections-100B / alone",
    ]
    assert all(row["median"] > 0 for row in rows.values())
    assert rows["mixed-100B"]["client_cpu_seconds_per_million"] > 0
    assert client.list_channels() == ["mine"]


def test_given_as_many_channels_as_messages_when_produced_in_turns_then_each_has_its_one(
    broker: Broker, client: Client, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stored: list[int] = []
    destroy = Client.destroy_channels

    def noted(self: Client, names: list[str]) -> object:
        stored.extend(client.describe_channel(name).message_count for name in names)
        return destroy(self, names)

    monkeypatch.setattr(Client, "destroy_channels", noted)
    options = ["--scenario", "channels-100B", "--messages", "12", "--channels", "4", "--rounds", "1"]
    assert rocksmq(broker.url, "bench", "many", *options, "--floor-dir", str(tmp_path)).exit_code == 0
    assert stored == [3, 3, 3, 3]


@pytest.mark.parametrize("connections", [1, 2, 5])
def test_given_a_crowd_when_it_produces_then_each_connection_stores_as_many(
    broker: Broker, client: Client, connections: int
) -> None:
    client.create_channel("mine")
    crowded = produce_one_by_one(broker.url, "mine", connections, 4)
    assert client.describe_channel("mine").message_count == connections * (1 + 4), "one each before all begin"
    assert crowded.wall > 0


def test_given_a_crowd_whose_channel_is_missing_when_it_begins_then_that_is_an_error(broker: Broker) -> None:
    with pytest.raises(RocksMQError, match="crowd failed"):
        produce_one_by_one(broker.url, "missing", 1, 1)


def test_given_a_process_when_the_block_ends_then_it_is_killed_and_the_url_was_no_argument_of_it(broker: Broker) -> None:
    with other(broker.url, crowd.CROWD, "missing", "0", "1") as process:
        process.line()
        arguments = Path(f"/proc/{process.pid}/cmdline").read_bytes()
        pid = process.pid
    assert broker.url.encode() not in arguments
    assert not Path(f"/proc/{pid}").exists()
