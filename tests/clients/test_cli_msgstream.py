"""`rocksmq msgstream`: create, describe and destroy."""

import json
from typing import Any

import pytest
from click.testing import Result

from rocksmq.clients import ChannelDescription, Client, OwnerDescription
from rocksmq.clients.testing import Broker
from tests.clients.cli_support import on_terminal, rocksmq

NOBODY = "rocksmq://127.0.0.1:1"
OWNER = ["--role", "proxy", "--address", "10.0.0.1", "--description", "größe"]


def objects(result: Result) -> list[dict[str, Any]]:
    """The JSON objects on stdout, a line each and nothing else."""
    assert (result.exit_code, result.stderr) == (0, "")
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_given_a_role_when_channels_are_created_then_their_names_are_printed_one_a_line(broker: Broker, client: Client) -> None:
    result = rocksmq(broker.url, "msgstream", "create", *OWNER, "--count", "3")
    assert (result.exit_code, result.stderr) == (0, "")
    names = result.stdout.splitlines()
    assert [(name.split("-")[0], name.split("-")[2]) for name in names] == [("proxy", "0"), ("proxy", "1"), ("proxy", "2")]
    owner = OwnerDescription("proxy", "10.0.0.1", "größe")
    assert client.describe_channels(names) == [ChannelDescription(name, owner) for name in names]
    (found,) = objects(rocksmq(broker.url, "--json", "msgstream", "create", "--role", "r"))
    assert client.describe_channels([found["name"]]) == [ChannelDescription(found["name"], OwnerDescription("r"))]
    assert len(client.list_channels()) == 4


@pytest.mark.parametrize("arguments", [[], ["--role", "r", "--count", "0"], ["--role", "r", "--count", "x"]])
def test_given_no_role_or_no_count_when_channels_are_created_then_it_is_wrong_usage(arguments: list[str]) -> None:
    result = rocksmq(NOBODY, "msgstream", "create", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "--role" in result.stderr or "--count" in result.stderr


def test_given_what_the_broker_refuses_when_channels_are_created_then_one_line_says_why(broker: Broker, client: Client) -> None:
    for arguments, said in [
        (["--role", "a b"], "channel name 'a b-"),
        (["--role", "r", "--count", "1001"], "1001 channels in a request exceed the limit of 1000 (request_channels_max)"),
    ]:
        result = rocksmq(broker.url, "msgstream", "create", *arguments)
        assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (1, "", 1)
        assert result.stderr.startswith(f"error: {said}")
    assert client.list_channels() == []


def test_given_channels_when_described_then_each_part_of_the_owner_is_a_column_or_json(broker: Broker, client: Client) -> None:
    client.create_channel("none")
    client.create_channel("some", owner=OwnerDescription("proxy", "", "\x1b[31mred"))
    shown = rocksmq(broker.url, "msgstream", "describe", "some", "none", "some").stdout
    row = "some\tproxy\t-\t\\x1b[31mred\n"
    assert shown == f"channel_name\trole\taddress\tdescription_text\n{row}none\t-\t-\t-\n{row}"
    owner = {"role": "proxy", "address": "", "description_text": "\x1b[31mred"}
    assert objects(rocksmq(broker.url, "--json", "msgstream", "describe", "none", "some")) == [
        {"channel_name": "none", "owner": None},
        {"channel_name": "some", "owner": owner},
    ]


def test_given_unknown_channels_when_described_or_destroyed_then_all_are_named_and_none_is_gone(
    broker: Broker, client: Client
) -> None:
    client.create_channel("c")
    for command in (["describe"], ["destroy", "--yes"]):
        result = rocksmq(broker.url, "msgstream", *command, "x", "c", "y")
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr == "error: there is no channel 'x', 'y': check the name, or create it\n"
    assert client.list_channels() == ["c"]


def test_given_yes_when_channels_are_destroyed_then_they_are_gone_and_named(broker: Broker, client: Client) -> None:
    names = client.create_channels(OwnerDescription("r"), 4)
    result = rocksmq(broker.url, "msgstream", "destroy", names[2], names[0], names[2], "--yes")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == f"channel {names[2]} destroyed\nchannel {names[0]} destroyed\n"
    assert client.list_channels() == [names[1], names[3]]
    assert objects(rocksmq(broker.url, "--json", "msgstream", "destroy", "--yes", names[1])) == [
        {"channel": names[1], "destroyed": True}
    ]
    assert client.list_channels() == [names[3]]


def test_given_no_terminal_when_channels_are_destroyed_without_yes_then_it_is_wrong_usage_and_nothing_happens(
    broker: Broker, client: Client
) -> None:
    client.create_channel("c")
    result = rocksmq(broker.url, "msgstream", "destroy", "c", stdin=b"y\n")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "give --yes, since there is no terminal to ask on" in result.stderr
    assert client.list_channels() == ["c"]


def test_given_a_terminal_when_channels_are_destroyed_without_yes_then_it_asks(broker: Broker, client: Client) -> None:
    for name in "abc":
        client.create_channel(name)
    code, shown = on_terminal(["--url", broker.url, "msgstream", "destroy", "a", "b"], b"n\n")
    assert code == 1
    assert "Destroy channels a, b with all their messages and groups for good? [y/N]" in shown
    assert client.list_channels() == ["a", "b", "c"]
    code, shown = on_terminal(["--url", broker.url, "msgstream", "destroy", "a", "b"], b"y\n")
    assert code == 0
    assert "channel b destroyed" in shown
    assert client.list_channels() == ["c"]


def test_given_many_channels_when_destroyed_then_the_question_only_counts_them(broker: Broker, client: Client) -> None:
    names = client.create_channels(OwnerDescription("r"), 11)
    code, shown = on_terminal(["--url", broker.url, "msgstream", "destroy", *names], b"n\n")
    assert code == 1
    assert "Destroy 11 channels with all their messages and groups for good? [y/N]" in shown
    assert len(client.list_channels()) == 11


@pytest.mark.parametrize("command", ["describe", "destroy"])
def test_given_no_channel_when_described_or_destroyed_then_it_is_wrong_usage(command: str) -> None:
    result = rocksmq(NOBODY, "msgstream", command)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "CHANNEL" in result.stderr
