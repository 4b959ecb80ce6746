"""`rocksmq tail`: the last messages, then the new ones; nothing is moved."""

import json
import signal

import pytest

from rocksmq.clients import Client
from rocksmq.clients.cli.tail import start_of_last
from rocksmq.clients.testing import Broker
from tests.clients.cli_support import check_outlives_outage, rocksmq, started


def test_given_batches_with_holes_between_their_ids_when_the_last_n_are_sought_then_exactly_they_are_found(
    client: Client,
) -> None:
    client.create_channel("c")
    ids: list[int] = []
    for size in (1, 5, 1, 1, 20, 3):
        ids += client.produce("c", [b"x"] * size)
    for count in range(1, len(ids) + 2):
        batch = client.fetch("c", start_of_last(client, "c", count))
        assert list(batch.ids) == ids[-count:], count


def test_given_messages_larger_than_a_reply_when_the_last_n_are_sought_then_exactly_they_are_found(client: Client) -> None:
    client.create_channel("c")
    ids = [client.produce("c", [bytes(1_000_000)])[0] for _ in range(12)]
    assert start_of_last(client, "c", 8) == ids[-8]


def test_given_no_messages_when_the_last_n_are_sought_then_what_comes_is_taken_from_the_first_on(client: Client) -> None:
    client.create_channel("c")
    start = start_of_last(client, "c", 10)
    client.produce("c", [b"first"])
    assert client.fetch("c", start).payloads == [b"first"]


def test_given_zero_when_the_last_n_are_sought_then_only_what_comes_is_taken(client: Client) -> None:
    client.create_channel("c")
    client.produce("c", [b"old"])
    start = start_of_last(client, "c", 0)
    client.produce("c", [b"new"])
    assert client.fetch("c", start).payloads == [b"new"]


@pytest.mark.parametrize("output", ["raw", "json"])
def test_given_tail_when_messages_come_then_it_writes_them_until_ctrl_c(broker: Broker, client: Client, output: str) -> None:
    client.create_channel("c")
    client.produce("c", [b"1", b"2", b"3"])
    with started(broker.url, "tail", "c", "-n", "2", "--output", output) as process:
        assert process.stdout is not None
        shown = [process.stdout.readline(), process.stdout.readline()]
        client.produce("c", [b"4"])
        shown.append(process.stdout.readline())
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, b"", b"")
    payloads = shown if output == "raw" else [json.loads(line)["payload"].encode() + b"\n" for line in shown]
    assert payloads == [b"2\n", b"3\n", b"4\n"]
    assert client.list_consumer_groups("c") == []


def test_given_no_such_channel_when_tailed_then_one_line_says_so(broker: Broker) -> None:
    result = rocksmq(broker.url, "tail", "nope")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "error: there is no channel 'nope': check the name, or create it\n"


def test_given_tail_when_the_broker_is_killed_and_stays_away_longer_than_the_timeout_then_it_goes_on(
    broker: Broker, client: Client
) -> None:
    client.create_channel("c")
    with started(broker.url, "--timeout", "0.2", "tail", "c") as process:
        check_outlives_outage(process, broker, client)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
