"""`rocksmq consume`: every byte once, in order, and a quiet end."""

import io
import json
import re
import signal
import struct
import subprocess
from base64 import b64encode
from contextlib import closing
from pathlib import Path
from typing import cast

import pytest

from rocksmq.clients import Client, OutgoingMessage
from rocksmq.clients.address import Address
from rocksmq.clients.claims import Claims
from rocksmq.clients.cli.claimed import HURRY_SECONDS, Claimed
from rocksmq.clients.cli.messages import MessageWriter
from rocksmq.clients.cli.stop import Stop
from rocksmq.clients.credentials import Credentials
from rocksmq.clients.deadline import Deadline
from rocksmq.clients.link import Link
from rocksmq.clients.testing import Broker
from rocksmq.protocol.batch import pack_lengths
from rocksmq.protocol.errors import ConnectionFailed
from rocksmq.protocol.messages import MessageBatch
from rocksmq.protocol.operations import Messages
from tests.clients.cli_support import PROGRAM, check_outlives_outage, on_terminal, rocksmq, started

PAYLOADS = [b"a", b"", b"b\r", b"\xff\xfe", b"two\nlines", b"end"]


def test_given_messages_when_consumed_raw_then_each_is_its_bytes_and_a_newline(broker: Broker, client: Client) -> None:
    client.create_channel("c")
    client.produce("c", PAYLOADS)
    result = rocksmq(broker.url, "consume", "c", "--group", "g")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout_bytes == b"a\n\nb\r\n\xff\xfe\ntwo\nlines\nend\n"
    assert client.describe_consumer_group("c", "g").lag_messages == 0


def test_given_100000_messages_when_consumed_then_all_come_in_order(broker: Broker, client: Client) -> None:
    client.create_channel("c")
    lines = [b"%d" % number for number in range(100_000)]
    for begin in range(0, len(lines), 10_000):
        client.produce("c", lines[begin : begin + 10_000])
    result = rocksmq(broker.url, "consume", "c", "--group", "g", "--batch", "7777")
    assert result.stdout_bytes == b"".join(line + b"\n" for line in lines)


@pytest.mark.parametrize("arguments", [["--json", "consume", "c"], ["consume", "c", "--output", "json"]])
def test_given_messages_when_consumed_as_json_then_each_is_an_object_on_a_line(
    broker: Broker, client: Client, arguments: list[str]
) -> None:
    client.create_channel("c")
    headers = {"kind": b"order", "bin": b"\xff"}
    ids = client.produce("c", [OutgoingMessage("é\n\u2028".encode(), headers), b"", b"\xff"])
    first = next(iter(client.fetch("c", "earliest")))
    result = rocksmq(broker.url, *arguments, "--group", "g")
    timestamp = first.timestamp.isoformat(timespec="milliseconds")
    assert [json.loads(line) for line in result.stdout_bytes.removesuffix(b"\n").split(b"\n")] == [
        {
            "id": ids[0],
            "timestamp": timestamp,
            "payload": "é\n\u2028",
            "headers": {"kind": "order"},
            "headers_base64": {"bin": b64encode(b"\xff").decode()},
        },
        {"id": ids[1], "timestamp": timestamp, "payload": "", "headers": {}},
        {"id": ids[2], "timestamp": timestamp, "payload_base64": b64encode(b"\xff").decode(), "headers": {}},
    ]


def test_given_a_count_when_consumed_then_exactly_that_many_are_taken(broker: Broker, client: Client) -> None:
    client.create_channel("c")
    client.produce("c", [b"1", b"2", b"3", b"4", b"5"])
    taken = [rocksmq(broker.url, "consume", "c", "-g", "g", "-n", "2", "--batch", "1").stdout_bytes for _ in range(4)]
    assert taken == [b"1\n2\n", b"3\n4\n", b"5\n", b""]


def test_given_from_when_the_group_is_new_then_it_starts_there(broker: Broker, client: Client) -> None:
    client.create_channel("c")
    ids = client.produce("c", [b"1", b"2", b"3"])
    for number, (start, expected) in enumerate(
        [
            ("earliest", b"1\n2\n3\n"),
            ("latest", b""),
            (str(ids[1]), b"2\n3\n"),
            ("-1h", b"1\n2\n3\n"),
            ("2999-01-01T00:00Z", b""),
        ]
    ):
        assert rocksmq(broker.url, "consume", "c", "-g", f"g{number}", "--from", start).stdout_bytes == expected


def test_given_from_when_the_group_exists_then_it_is_moved_there_first(broker: Broker, client: Client) -> None:
    client.create_channel("c")
    ids = client.produce("c", [b"1", b"2", b"3"])
    assert rocksmq(broker.url, "consume", "c", "-g", "g").stdout_bytes == b"1\n2\n3\n"
    assert rocksmq(broker.url, "consume", "c", "-g", "g").stdout_bytes == b""
    assert rocksmq(broker.url, "consume", "c", "-g", "g", "--from", str(ids[2])).stdout_bytes == b"3\n"


def test_given_no_such_channel_when_consumed_then_one_line_says_so(broker: Broker) -> None:
    result = rocksmq(broker.url, "consume", "nope", "-g", "g")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "error: there is no channel 'nope': check the name, or create it\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["consume", "c"], "Missing option '-g' / '--group'"),
        (["consume", "c", "-g", "g", "-n", "0"], "0 is not in the range x>=1"),
        (["--json", "consume", "c", "-g", "g", "--output", "raw"], "--json and --output raw exclude each other"),
        (["consume", "c", "-g", "g", "--from", "2026-01-01T00:00"], "has no time zone: append Z for UTC"),
    ],
)
def test_given_wrong_usage_when_consumed_then_the_exit_code_is_2(arguments: list[str], said: str) -> None:
    result = rocksmq("rocksmq://127.0.0.1:1", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert said in result.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_given_follow_when_a_signal_comes_then_all_that_was_taken_was_written(
    broker: Broker, client: Client, number: signal.Signals, code: int
) -> None:
    client.create_channel("c")
    with started(broker.url, "consume", "c", "-g", "g", "--follow") as process:
        assert process.stdout is not None
        for line in (b"one\n", b"two\n"):
            client.produce("c", [line[:-1]])
            assert process.stdout.readline() == line
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (code, b"", b"")
    assert client.describe_consumer_group("c", "g").lag_messages == 0


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_given_a_batch_on_its_way_out_when_ctrl_c_comes_then_whole_messages_were_written_and_the_rest_is_given_back(
    broker: Broker, client: Client, monkeypatch: pytest.MonkeyPatch, unbuffered: str
) -> None:
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    client.create_channel("c")
    lines = [b"%01000d\n" % number for number in range(3_000)]
    client.produce("c", [line[:-1] for line in lines])
    with started(broker.url, "consume", "c", "-g", "g") as process:
        assert process.stdout is not None
        first = process.stdout.read(1)  # the rest of the batch is more than a pipe holds
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130  # though nobody reads
        out, err = process.communicate()
    assert err == b""
    written = (first + out).splitlines(keepends=True)
    assert 0 < len(written) < 1_000
    assert client.describe_consumer_group("c", "g").lag_messages == len(lines) - len(written)
    assert written + rocksmq(broker.url, "consume", "c", "-g", "g").stdout_bytes.splitlines(keepends=True) == lines


@pytest.mark.parametrize("size", [10, 1_000, 100_000])
def test_given_a_reader_that_leaves_when_consuming_then_it_ends_quietly_and_what_was_not_written_is_given_back(
    broker: Broker, client: Client, size: int
) -> None:
    client.create_channel("c")
    lines = [b"%0*d" % (size, number) for number in range(max(20, 2_000_000 // size))]
    with client.producer("c") as producer:
        producer.send_many(lines)
    with started(broker.url, "consume", "c", "-g", "g") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(1) == b"0"
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == 0
    rest = rocksmq(broker.url, "consume", "c", "-g", "g").stdout_bytes.splitlines()
    assert rest == lines[len(lines) - len(rest) :]
    assert len(lines) - len(rest) <= (1 << 20) // size  # no more than a pipe holds


@pytest.mark.parametrize("content", [[b"1", b"2", b"3"], [bytes(100_000)] * 3])
def test_given_a_full_disk_when_consuming_to_it_then_it_fails_and_all_is_given_back(
    broker: Broker, client: Client, content: list[bytes]
) -> None:
    client.create_channel("c")
    client.produce("c", content)
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [*PROGRAM, "--url", broker.url, "consume", "c", "-g", "g"], stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert (done.returncode, done.stderr) == (1, b"error: stdout: No space left on device\n")
    assert client.consume("c", "g").payloads == content


def test_given_follow_when_the_broker_is_killed_again_and_again_then_each_message_is_written_once_and_in_order(
    broker: Broker, client: Client
) -> None:
    client.create_channel("c")
    lines = [b"%d\n" % number for number in range(5_000)]
    read: list[bytes] = []
    with started(broker.url, "consume", "c", "-g", "g", "--follow", "--batch", "100") as process:
        assert process.stdout is not None
        out = io.BufferedReader(cast(io.RawIOBase, process.stdout))
        for begin in range(0, len(lines), 1_000):
            client.produce("c", [line[:-1] for line in lines[begin : begin + 1_000]])
            read += [out.readline() for _ in range(500)]
            broker.kill()
            broker.start()
        read += [out.readline() for _ in range(len(lines) - len(read))]
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        assert out.read() == b""
    assert read == lines
    assert client.describe_consumer_group("c", "g").lag_messages == 0


def test_given_follow_when_the_broker_stays_away_longer_than_the_timeout_then_it_goes_on_all_the_same(
    broker: Broker, client: Client
) -> None:
    client.create_channel("c")
    with started(broker.url, "--timeout", "0.2", "consume", "c", "-g", "g", "--follow") as process:
        check_outlives_outage(process, broker, client)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 143


def test_given_follow_when_patience_is_over_then_it_fails(broker: Broker, client: Client) -> None:
    client.create_channel("c")
    with started(broker.url, "--timeout", "0.2", "consume", "c", "-g", "g", "--follow", "--patience", "0.5") as process:
        assert process.stdout is not None
        client.produce("c", [b"one"])
        assert process.stdout.readline() == b"one\n"
        broker.kill()
        _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    # Whether it had asked for more when the broker died decides what it has to say.
    assert re.search(rb"^error: (what was claimed and not written was not given back|no broker answers at )", err, re.MULTILINE)


def test_given_an_outage_when_a_second_signal_comes_then_following_ends_at_once(broker: Broker, client: Client) -> None:
    client.create_channel("c")
    with started(broker.url, "--timeout", "1000", "consume", "c", "-g", "g", "--follow") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        client.produce("c", [b"one"])
        assert process.stdout.readline() == b"one\n"
        broker.kill()
        assert b"connecting again" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)  # after the first it tries to give back what it may have claimed
        assert process.wait(60) == 130
        err = process.stderr.read()
    # Whether it had asked for more when the broker died decides what it has to say.
    assert re.fullmatch(rb"(warning: what was claimed and not written was not given back, .*: no broker .*\n)?", err)


def test_given_giving_back_when_a_second_signal_interrupts_it_then_it_is_tried_in_a_hurry_and_what_failed_is_told(
    broker: Broker, client: Client, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    client.create_channel("c")
    client.create_consumer_group("c", "g", start="earliest")
    client.produce("c", [b"one"])
    limits = list[float]()

    def interrupted_once(self: Claims, unread: int | None, deadline: Deadline) -> None:
        limits.append(deadline.remaining)
        if len(limits) == 1:
            raise KeyboardInterrupt
        raise ConnectionFailed("no broker answers")

    monkeypatch.setattr(Claims, "release", interrupted_once)
    with (
        closing(Link(Address.parse(broker.url), Credentials(), "test")) as link,
        pytest.raises(KeyboardInterrupt),
        Claimed(link, "c", "g", Stop(), None, 1000) as reading,
    ):
        assert reading.next(1, 0)
    assert limits[0] > 900 > HURRY_SECONDS >= limits[1]
    assert capsys.readouterr().err == (
        "warning: what was claimed and not written was not given back, and the group may miss it: no broker answers\n"
    )


def test_given_a_gap_when_written_then_stderr_tells_it_and_stdout_does_not(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    runs = struct.pack("<QI", 9, 1)
    reply = Messages(10, 4, 1, [4, 9, 3], runs, 1, pack_lengths([1]), b"x", None, None)
    MessageWriter(as_json=False).write(MessageBatch(reply), Stop())
    out, err = capfdbinary.readouterr()
    assert out == b"x\n"
    assert err == b"warning: retention removed 3 messages from id 4 on before they were read\n"


def test_given_stderr_on_a_terminal_when_consumed_to_a_file_then_a_bar_is_drawn_and_the_file_has_only_messages(
    broker: Broker, client: Client, tmp_path: Path
) -> None:
    client.create_channel("c")
    client.produce("c", [b"1", b"2", b"3"])
    with (tmp_path / "out").open("wb") as out:
        code, shown = on_terminal(["--url", broker.url, "consume", "c", "-g", "g", "-n", "2"], stdout=out)
    assert code == 0
    assert "from c" in shown
    assert "2/2" in shown
    assert (tmp_path / "out").read_bytes() == b"1\n2\n"


def test_given_a_terminal_when_consumed_to_it_then_only_messages_are_shown(broker: Broker, client: Client) -> None:
    client.create_channel("c")
    client.produce("c", [b"1", b"2"])
    assert on_terminal(["--url", broker.url, "consume", "c", "-g", "g"]) == (0, "1\r\n2\r\n")
