"""`rocksmq channel` and `group`, and how failures are told."""

import json
import subprocess
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from rocksmq.clients import Client, OwnerDescription
from rocksmq.clients.testing import Broker
from tests.clients.cli_support import PROGRAM, on_terminal, rocksmq

NOBODY = "rocksmq://127.0.0.1:1"


def objects(result: Result) -> list[dict[str, Any]]:
    """The JSON objects on stdout, a line each and nothing else."""
    assert (result.exit_code, result.stderr) == (0, "")
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_given_options_when_a_channel_is_created_then_it_has_them(broker: Broker, client: Client) -> None:
    owner = ["--owner-role", "shop", "--owner-address", "host", "--owner-description", "all orders"]
    result = rocksmq(broker.url, "channel", "create", "orders", "--durability", "interval:50", *owner)
    assert (result.exit_code, result.stdout, result.stderr) == (0, "channel orders created\n", "")
    found = client.describe_channel("orders")
    assert (found.durability, found.owner) == ("interval:50", OwnerDescription("shop", "host", "all orders"))


def test_given_a_channel_when_it_is_created_again_then_it_stays_and_that_is_said(broker: Broker) -> None:
    assert objects(rocksmq(broker.url, "--json", "channel", "create", "c")) == [{"channel": "c", "created": True}]
    assert objects(rocksmq(broker.url, "--json", "channel", "create", "c")) == [{"channel": "c", "created": False}]
    assert rocksmq(broker.url, "channel", "create", "c").stdout == "channel c exists: its messages and settings stay\n"


def test_given_a_bad_name_when_a_channel_is_created_then_one_line_says_what_is_allowed(broker: Broker) -> None:
    result = rocksmq(broker.url, "channel", "create", "a b")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("error: channel name 'a b' is not allowed: 1 to 200 of ")
    assert result.stderr.count("\n") == 1


def test_given_an_owner_without_role_when_a_channel_is_created_then_it_is_wrong_usage() -> None:
    result = rocksmq(NOBODY, "channel", "create", "c", "--owner-address", "host")
    assert result.exit_code == 2
    assert "--owner-address and --owner-description go with --owner-role" in result.stderr


def test_given_channels_when_listed_then_names_with_the_prefix_come_sorted(broker: Broker, client: Client) -> None:
    for name in ("b", "a.2", "a.1"):
        client.create_channel(name)
    assert rocksmq(broker.url, "channel", "list").stdout == "a.1\na.2\nb\n"
    assert rocksmq(broker.url, "channel", "list", "a.").stdout == "a.1\na.2\n"
    assert objects(rocksmq(broker.url, "--json", "channel", "list", "b")) == [{"name": "b"}]


def test_given_a_pipe_when_channels_are_listed_long_then_the_table_is_tab_separated(broker: Broker, client: Client) -> None:
    client.create_channel("c")
    client.produce("c", [b"abc"])
    client.create_consumer_group("c", "g")
    result = rocksmq(broker.url, "channel", "list", "--long")
    assert result.stdout == "name\tmessage_count\tbyte_count\tdurability\tgroups\towner\nc\t1\t3\tfsync\tg\t-\n"


def test_given_a_terminal_when_channels_are_listed_long_then_a_table_is_drawn(broker: Broker, client: Client) -> None:
    client.create_channel("orders")
    code, shown = on_terminal(["--url", broker.url, "channel", "list", "--long"])
    assert code == 0
    assert "orders" in shown
    assert "─" in shown
    assert "\t" not in shown


def test_given_a_channel_when_its_info_is_asked_for_then_json_has_all_of_it(broker: Broker, client: Client) -> None:
    client.create_channel("c")
    ids = client.produce("c", [b"abc", b"d"])
    client.create_consumer_group("c", "g")
    (found,) = objects(rocksmq(broker.url, "--json", "channel", "info", "c"))
    info = client.describe_channel("c")
    assert found == {
        "name": "c",
        "owner": None,
        "created_at": info.created_at.isoformat(timespec="milliseconds"),
        "begin_id": ids[0],
        "end_id": ids[1],
        "message_count": 2,
        "byte_count": 4,
        "durability": "fsync",
        "retention": {},
        "groups": ["g"],
        "retention_is_default": True,
        "held": None,
        "age_suspended": False,
    }


def test_given_an_owner_that_could_steer_a_terminal_when_shown_then_it_is_escaped(broker: Broker, client: Client) -> None:
    client.create_channel("c", owner=OwnerDescription("\x1b[31mred\nline"))
    shown = rocksmq(broker.url, "channel", "info", "c").stdout
    assert "owner          \\x1b[31mred\\nline\n" in shown


@pytest.mark.parametrize(
    ("owner", "text"),
    [
        (OwnerDescription("shop", "10.0.0.1", "all orders"), "shop at 10.0.0.1 (all orders)"),
        (OwnerDescription("shop", "10.0.0.1"), "shop at 10.0.0.1"),
        (OwnerDescription("shop", "", "all orders"), "shop (all orders)"),
        (OwnerDescription(""), "-"),
        (None, "-"),
    ],
)
def test_given_an_owner_when_a_channel_is_shown_then_text_has_what_is_there_and_json_each_part(
    broker: Broker, client: Client, owner: OwnerDescription | None, text: str
) -> None:
    client.create_channel("c", owner=owner)
    assert f"\nowner          {text}\n" in rocksmq(broker.url, "channel", "info", "c").stdout
    assert rocksmq(broker.url, "channel", "list", "-l").stdout.splitlines()[1].split("\t")[-1] == text
    for command in (["info", "c"], ["list", "--long"]):
        (found,) = objects(rocksmq(broker.url, "--json", "channel", *command))
        assert found["owner"] == (None if owner is None else asdict(owner))


@pytest.mark.parametrize("what", [["channel", "destroy", "c"], ["group", "destroy", "c", "g"]])
def test_given_no_terminal_when_destroyed_without_yes_then_it_is_wrong_usage_and_nothing_happens(
    broker: Broker, client: Client, what: list[str]
) -> None:
    client.create_channel("c")
    client.create_consumer_group("c", "g")
    result = rocksmq(broker.url, *what, stdin=b"y\n")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "give --yes, since there is no terminal to ask on" in result.stderr
    assert client.list_consumer_groups("c") == ["g"]


def test_given_a_terminal_when_destroyed_without_yes_then_it_asks(broker: Broker, client: Client) -> None:
    client.create_channel("c")
    code, shown = on_terminal(["--url", broker.url, "channel", "destroy", "c"], b"n\n")
    assert code == 1
    assert "Destroy channel c with all its messages and groups for good? [y/N]" in shown
    assert client.list_channels() == ["c"]
    code, shown = on_terminal(["--url", broker.url, "channel", "destroy", "c"], b"y\n")
    assert code == 0
    assert "channel c destroyed" in shown
    assert client.list_channels() == []


def test_given_yes_when_destroyed_then_it_is_gone_and_a_second_time_fails(broker: Broker, client: Client) -> None:
    client.create_channel("c")
    client.create_consumer_group("c", "g")
    assert objects(rocksmq(broker.url, "--json", "group", "destroy", "c", "g", "--yes")) == [
        {"channel": "c", "group": "g", "destroyed": True}
    ]
    assert rocksmq(broker.url, "group", "destroy", "c", "g", "--yes").exit_code == 1
    done = rocksmq(broker.url, "group", "destroy", "c", "g", "--yes", "--missing-ok")
    assert (done.exit_code, done.stdout) == (0, "there is no group g of c: nothing to destroy\n")
    assert objects(rocksmq(broker.url, "--json", "channel", "destroy", "c", "--yes")) == [{"channel": "c", "destroyed": True}]
    again = rocksmq(broker.url, "channel", "destroy", "c", "--yes")
    assert (again.exit_code, again.stderr) == (1, "error: there is no channel 'c': check the name, or create it\n")
    done = rocksmq(broker.url, "channel", "destroy", "c", "--yes", "--missing-ok")
    assert (done.exit_code, done.stdout) == (0, "there is no channel c: nothing to destroy\n")
    done = rocksmq(broker.url, "--json", "channel", "destroy", "c", "--yes", "--missing-ok")
    assert objects(done) == [{"channel": "c", "destroyed": False}]


def test_given_groups_when_created_listed_and_shown_then_positions_and_lag_are_told(broker: Broker, client: Client) -> None:
    client.create_channel("c")
    ids = client.produce("c", [b"1", b"2", b"3"])
    assert rocksmq(broker.url, "group", "create", "c", "a").stdout == "group a of c created\n"
    assert rocksmq(broker.url, "group", "create", "c", "a").stdout == "group a of c exists: its position stays\n"
    assert rocksmq(broker.url, "group", "create", "c", "b", "--from", str(ids[2])).exit_code == 0
    assert rocksmq(broker.url, "group", "list", "c").stdout == "a\nb\n"
    assert [group["lag_messages"] for group in objects(rocksmq(broker.url, "--json", "group", "list", "c", "--long"))] == [3, 1]
    client.commit("c", "b", ids[2] + 1, metadata=b"\xff")
    (found,) = objects(rocksmq(broker.url, "--json", "group", "info", "c", "b"))
    assert (found["position"], found["lag_messages"], found["metadata_base64"]) == (ids[2] + 1, 0, "/w==")


@pytest.mark.parametrize("to", ["earliest", "-10m"])
def test_given_a_group_when_sought_then_the_outcome_is_told(broker: Broker, client: Client, to: str) -> None:
    client.create_channel("c")
    ids = client.produce("c", [b"1", b"2"])
    client.create_consumer_group("c", "g", start="latest")
    (found,) = objects(rocksmq(broker.url, "--json", "group", "seek", "c", "g", to))
    assert (found["channel"], found["group"], found["position"]) == ("c", "g", ids[0])
    assert client.consume("c", "g").payloads == [b"1", b"2"]


def test_given_no_broker_when_anything_is_asked_then_one_line_says_so() -> None:
    result = rocksmq(NOBODY, "--timeout", "0.1", "status")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("error: no broker answers at rocksmq://127.0.0.1:1: ")
    assert result.stderr.count("\n") == 1


def test_given_a_bad_url_when_anything_is_asked_then_one_line_says_what_is_right() -> None:
    result = rocksmq("http://localhost", "status")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: the URL is not of the form rocksmq://[token@]host[:port]")


@pytest.mark.parametrize(("to", "code"), [("-1h", 0), ("-10", 2), ("--yes", 2)])
def test_given_what_looks_like_an_option_when_sought_then_it_is_a_time_ago_or_the_error_says_what_is_right(
    broker: Broker, client: Client, to: str, code: int
) -> None:
    client.create_channel("c")
    client.create_consumer_group("c", "g")
    result = rocksmq(broker.url, "group", "seek", "c", "g", to)
    assert result.exit_code == code
    assert not code or "or how long ago such as -10m" in result.stderr


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("127.0.0.1:7660", "put rocksmq:// before the host"),
        ("localhost", "put rocksmq:// before the host"),
        ("http://localhost", "its scheme is neither rocksmq nor rocksmqs"),
        ("rocksmq://", "it names no host"),
    ],
)
def test_given_no_broker_s_url_when_called_then_the_error_says_what_is_wrong(url: str, said: str) -> None:
    result = rocksmq(url, "status")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("error: the URL is not of the form rocksmq://[token@]host[:port], for example ")
    assert result.stderr.endswith(f": {said}\n")


def test_given_a_full_disk_when_a_result_is_written_to_it_then_one_line_says_so(broker: Broker) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run([*PROGRAM, "--url", broker.url, "status"], stdout=full, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (1, b"error: stdout: No space left on device\n")
