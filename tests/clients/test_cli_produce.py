"""`rocksmq produce`: what arrives is what was given, byte for byte, and what failed is told."""

import json
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from rocksmq.clients import Client
from rocksmq.clients.testing import Broker
from tests.clients.cli_support import on_terminal, rocksmq, started

LINES: list[tuple[bytes, list[bytes]]] = [
    (b"", []),
    (b"\n", [b""]),
    (b"one\ntwo\n", [b"one", b"two"]),
    (b"one\n\n\ntwo", [b"one", b"", b"", b"two"]),
    (b"dos\r\nmac\rend\r\n", [b"dos\r", b"mac\rend\r"]),
    (b"\xff\xfe\n\x00\n\xe2\x80\xa8\n", [b"\xff\xfe", b"\x00", b"\xe2\x80\xa8"]),
]


def stored(client: Client, channel: str) -> list[bytes]:
    """All payloads of a channel."""
    payloads: list[bytes] = []
    batch = client.fetch(channel, "earliest", 10_000)
    while batch:
        payloads += batch.payloads
        batch = client.fetch(channel, batch.next_position, 10_000)
    return payloads


@pytest.mark.parametrize("whole", ["file", "stdin", "dash"])
def test_given_lines_when_produced_then_each_is_a_message_byte_for_byte(
    broker: Broker, client: Client, tmp_path: Path, whole: str
) -> None:
    file = tmp_path / "lines"
    for number, (content, expected) in enumerate(LINES):
        channel = f"c{number}"
        client.create_channel(channel)
        file.write_bytes(content)
        source = {"file": [str(file)], "stdin": [], "dash": ["-"]}[whole]
        result = rocksmq(broker.url, "produce", channel, *source, stdin=content)
        assert (result.exit_code, result.stderr) == (0, "")
        assert stored(client, channel) == expected


def test_given_100000_lines_when_produced_then_all_are_stored_in_order(broker: Broker, client: Client, tmp_path: Path) -> None:
    payloads = [b"%d" % number for number in range(100_000)]
    file = tmp_path / "lines"
    file.write_bytes(b"\n".join(payloads))
    result = rocksmq(broker.url, "produce", "many", "--create", str(file))
    assert result.exit_code == 0
    assert result.stdout.startswith("100,000 messages, 488,890 bytes, the last with id ")
    assert stored(client, "many") == payloads


def test_given_several_files_when_produced_then_the_last_line_of_one_does_not_run_into_the_next(
    broker: Broker, client: Client, tmp_path: Path
) -> None:
    for name, content in (("a", b"1\n2"), ("b", b"3\n"), ("empty", b""), ("c", b"4")):
        (tmp_path / name).write_bytes(content)
    files = [str(tmp_path / name) for name in ("a", "b", "empty", "c")]
    assert rocksmq(broker.url, "produce", "c", "--create", *files).exit_code == 0
    assert stored(client, "c") == [b"1", b"2", b"3", b"4"]


def test_given_whole_files_when_produced_then_each_is_one_message(broker: Broker, client: Client, tmp_path: Path) -> None:
    contents = [b"a\n\xff\r\n", b"", b"x" * 1_048_576]
    files: list[str] = []
    for number, content in enumerate(contents):
        (tmp_path / str(number)).write_bytes(content)
        files.append(str(tmp_path / str(number)))
    assert rocksmq(broker.url, "produce", "c", "--create", "--whole-file", *files).exit_code == 0
    assert stored(client, "c") == contents


def test_given_headers_when_produced_then_each_message_carries_them(broker: Broker, client: Client) -> None:
    arguments = ["produce", "c", "--create", "--header", "kind=order", "--header", "empty="]
    assert rocksmq(broker.url, *arguments, stdin=b"a\nb\n").exit_code == 0
    assert [message.headers for message in client.fetch("c", "earliest")] == [{"kind": b"order", "empty": b""}] * 2


def test_given_json_when_produced_then_stdout_is_one_object_with_count_bytes_and_last_id(
    broker: Broker, client: Client
) -> None:
    result = rocksmq(broker.url, "--json", "produce", "c", "--create", stdin=b"abc\n\nde")
    ids = client.fetch("c", "earliest").ids
    expected = {"channel": "c", "messages": 3, "bytes": 5, "last_id": ids[-1]}
    assert [json.loads(line) for line in result.stdout.splitlines()] == [expected]


def test_given_nothing_when_produced_then_the_last_id_is_null(broker: Broker) -> None:
    result = rocksmq(broker.url, "--json", "produce", "c", "--create")
    assert json.loads(result.stdout) == {"channel": "c", "messages": 0, "bytes": 0, "last_id": None}


@pytest.mark.parametrize("content", [b"", b"a\n"])
def test_given_no_such_channel_when_produced_then_one_line_says_so(broker: Broker, content: bytes) -> None:
    result = rocksmq(broker.url, "produce", "nope", stdin=content)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "error: there is no channel 'nope': check the name, or create it\n"


def test_given_one_message_when_produced_then_it_is_told_in_the_singular(broker: Broker, client: Client) -> None:
    result = rocksmq(broker.url, "produce", "c", "--create", stdin=b"a")
    (message,) = client.fetch("c", "earliest")
    assert result.stdout == f"1 message, 1 byte, id {message.id}\n"


@pytest.mark.parametrize(
    ("content", "arguments", "said"),
    [
        (b"a\nb\n" + b"x" * 1_048_577, [], "stdin: a line is longer than the limit of 1048576 bytes (payload_bytes_max)"),
        (b"x" * 1_048_577, ["--whole-file"], "stdin: larger than the limit of 1048576 bytes (payload_bytes_max)"),
    ],
)
def test_given_a_message_over_the_limit_when_produced_then_it_is_refused_and_what_is_stored_is_told(
    broker: Broker, client: Client, content: bytes, arguments: Sequence[str], said: str
) -> None:
    result = rocksmq(broker.url, "produce", "c", "--create", *arguments, stdin=content)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"error: {said}; ")
    assert f"; {len(stored(client, 'c'))} messages are stored" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["/no/such/file"], "'/no/such/file' does not exist"),
        (["--header", "a"], "'a' is no header: give NAME=VALUE"),
        (["--header", "a=1", "--header", "a=2"], "a header was given twice"),
    ],
)
def test_given_wrong_usage_when_produced_then_the_exit_code_is_2(arguments: Sequence[str], said: str) -> None:
    result = rocksmq("rocksmq://127.0.0.1:1", "produce", "c", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert said in result.stderr


def test_given_a_slow_pipe_when_a_line_came_then_it_is_stored_before_more_comes(broker: Broker, client: Client) -> None:
    client.create_channel("c")
    with started(broker.url, "produce", "c") as process:
        assert process.stdin is not None
        position: int | str = "earliest"
        for line in (b"one", b"two"):
            process.stdin.write(line + b"\n")
            batch = client.fetch("c", position, timeout=60)
            assert batch.payloads == [line]
            position = batch.next_position
        out, err = process.communicate(b"three")
        assert (process.returncode, err) == (0, b"")
        assert out.startswith(b"3 messages, 11 bytes, the last with id ")
    assert stored(client, "c") == [b"one", b"two", b"three"]


def test_given_a_slow_pipe_when_a_line_is_refused_then_the_command_ends_before_more_comes(
    broker: Broker, client: Client
) -> None:
    client.create_channel("c")
    with started(broker.url, "produce", "c") as process:
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write(b"one\n")
        assert len(client.fetch("c", "earliest", timeout=60)) == 1
        client.destroy_channel("c")
        process.stdin.write(b"two\n")
        assert process.wait(60) == 1
        assert b"1 message is not stored: there is no channel 'c'" in process.stderr.read()


def test_given_a_broker_that_was_killed_when_patience_is_over_then_what_is_stored_is_told(
    broker: Broker, client: Client
) -> None:
    client.create_channel("c")
    with started(broker.url, "produce", "c", "--patience", "0.5") as process:
        assert process.stdin is not None
        process.stdin.write(b"one\n")
        (stored_id,) = client.fetch("c", "earliest", timeout=60).ids
        broker.kill()
        out, err = process.communicate(b"two\n", timeout=60)
    assert (process.returncode, out) == (1, b"")
    last = err.splitlines()[-1]
    assert last.startswith(b"error: 1 message is of unknown outcome: ")
    assert last.endswith(b"; 1 message is stored, the last with id %d" % stored_id)


def test_given_a_broker_that_is_not_there_when_producing_then_it_fails_after_the_timeout(broker: Broker) -> None:
    broker.kill()
    result = rocksmq(broker.url, "--timeout", "0.2", "produce", "c", stdin=b"one\n")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("error: no broker answers at ")


@pytest.mark.parametrize("arguments", [[], ["--header", "kind=order"]])
def test_given_a_broker_that_is_killed_again_and_again_when_a_pipe_goes_on_then_each_line_is_stored_once_and_in_order(
    broker: Broker, client: Client, arguments: list[str]
) -> None:
    client.create_channel("c")
    lines = [b"%d" % number for number in range(40_000)]  # more than the window holds
    with started(broker.url, "produce", "c", *arguments) as process:
        assert process.stdin is not None
        for begin in range(0, len(lines), 10_000):
            process.stdin.write(b"".join(line + b"\n" for line in lines[begin : begin + 10_000]))
            broker.kill()
            broker.start()
        out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert out.startswith(b"40,000 messages, ")
    assert stored(client, "c") == lines


def test_given_a_file_larger_than_the_window_when_the_broker_comes_back_late_then_each_line_is_stored_once_and_in_order(
    broker: Broker, client: Client, tmp_path: Path
) -> None:
    client.create_channel("c")
    lines = [b"%0500d" % number for number in range(40_000)]  # 20 MB
    (tmp_path / "lines").write_bytes(b"\n".join(lines))
    # Each send gives up after --timeout, and is tried again.
    with started(broker.url, "--timeout", "0.2", "produce", "c", str(tmp_path / "lines")) as process:
        assert client.fetch("c", "earliest", 1, timeout=60)
        broker.kill()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(2.0)
        broker.start()
        _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert stored(client, "c") == lines


def test_given_an_outage_when_a_second_signal_comes_then_it_ends_at_once_and_what_is_stored_is_told(
    broker: Broker, client: Client
) -> None:
    client.create_channel("c")
    with started(broker.url, "--timeout", "1000", "produce", "c") as process:
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write(b"one\n")
        assert len(client.fetch("c", "earliest", timeout=60)) == 1
        broker.kill()
        process.stdin.write(b"two\n")
        assert b"connecting again" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)  # after the first it tries to store what was read
        assert process.wait(60) == 130
        assert process.stderr.read().startswith(b"interrupted: 1 message is of unknown outcome: ")


def test_given_ctrl_c_when_producing_then_whole_lines_are_stored_and_summed_up(broker: Broker, client: Client) -> None:
    client.create_channel("c")
    with started(broker.url, "produce", "c") as process:
        assert process.stdin is not None
        process.stdin.write(b"one\ntwo\nhalf a line")
        assert len(client.fetch("c", "earliest", timeout=60)) == 2
        process.send_signal(signal.SIGINT)
        process.wait(60)
        out, err = process.communicate()
    assert (process.returncode, err) == (130, b"")
    assert out.startswith(b"2 messages, 6 bytes, the last with id ")
    assert stored(client, "c") == [b"one", b"two"]


def test_given_ctrl_c_that_ends_the_writer_of_the_pipe_too_when_producing_then_half_a_line_is_not_stored(
    broker: Broker, client: Client
) -> None:
    client.create_channel("c")
    with started(broker.url, "produce", "c") as process:
        assert process.stdin is not None
        process.stdin.write(b"one\nhalf a line")
        assert len(client.fetch("c", "earliest", timeout=60)) == 1
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)  # closes the pipe at once
    assert (process.returncode, err) == (130, b"")
    assert out.startswith(b"1 message, 3 bytes, ")
    assert stored(client, "c") == [b"one"]


def test_given_a_terminal_when_lines_are_typed_then_each_is_a_message_until_ctrl_d(broker: Broker, client: Client) -> None:
    client.create_channel("c")
    code, shown = on_terminal(["--url", broker.url, "produce", "c"], b"one\ntwo\n\x04")
    assert code == 0
    assert "reading from the terminal: each line is a message, Ctrl-D ends" in shown
    assert "2 messages, 6 bytes, the last with id " in shown
    assert stored(client, "c") == [b"one", b"two"]


def test_given_a_terminal_when_a_file_is_produced_then_a_bar_is_drawn(broker: Broker, client: Client, tmp_path: Path) -> None:
    client.create_channel("c")
    (tmp_path / "lines").write_bytes(b"1\n2\n")
    code, shown = on_terminal(["--url", broker.url, "produce", "c", str(tmp_path / "lines")])
    assert code == 0
    assert "to c" in shown
    assert "4/4 bytes" in shown


def test_given_ctrl_c_when_a_whole_file_is_read_then_no_part_of_it_is_stored(broker: Broker, client: Client) -> None:
    with started(broker.url, "produce", "c", "--create", "--whole-file") as process:
        assert process.stdin is not None
        process.stdin.write(b"half a file")
        while not client.list_channels():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        process.wait(60)
        out, err = process.communicate()
    assert (process.returncode, out, err) == (130, b"0 messages, 0 bytes\n", b"")
    assert stored(client, "c") == []
