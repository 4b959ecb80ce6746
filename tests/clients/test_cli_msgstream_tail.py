"""`rocksmq msgstream tail`: packs as they come; nothing is moved, nothing stays behind."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from rocksmq.clients import Client, OwnerDescription
from rocksmq.clients.cli.messages import tell_gap
from rocksmq.clients.cli.packs import pack_json, text_lines
from rocksmq.clients.msgstream import (
    DeleteMsg,
    InsertMsg,
    MsgPack,
    MsgPosition,
    MsgStream,
    RmqMsgStreamFactory,
    SearchMsg,
    StreamGap,
    TimeSyncMsg,
    TimeTickMsg,
    TsMsg,
    pack_header,
)
from rocksmq.clients.msgstream.looking import LookingTtStream, looking_stream
from rocksmq.clients.testing import Broker
from tests.clients.cli_support import PROGRAM, rocksmq, started

PATIENCE = 30.0  # until a test gives up


class Own(TsMsg):
    """A type that `rocksmq` does not know."""

    type = 7_000

    def marshal(self) -> bytes:
        return pack_header(self.type, self.id, self.begin_ts, self.end_ts)


@pytest.fixture
def channels(client: Client) -> list[str]:
    """Two channels."""
    return client.create_channels(OwnerDescription("tests"), 2)


@pytest.fixture
def out(broker: Broker, channels: list[str]) -> Iterator[MsgStream]:
    """Produces to them."""
    with RmqMsgStreamFactory(broker.url).new_msg_stream() as stream:
        stream.as_producer(channels)
        yield stream


def produce(out: MsgStream, *msgs: TsMsg) -> None:
    out.produce(MsgPack(msgs=list(msgs)))


def tick(out: MsgStream, timestamp: int) -> None:
    out.broadcast(MsgPack(msgs=[TimeTickMsg(timestamp)]))


@contextmanager
def watching(url: str, *arguments: str) -> Generator["subprocess.Popen[bytes]"]:
    """``rocksmq`` as a process, which is killed when a test fails, or waits for it in vain."""
    with started(url, *arguments) as process:
        watchdog = threading.Timer(PATIENCE, process.kill)
        watchdog.start()
        try:
            yield process
        finally:
            watchdog.cancel()
            process.kill()


def ended(process: "subprocess.Popen[bytes]") -> tuple[int, str, str]:
    """After Ctrl-C: exit code, the rest of stdout, and stderr."""
    process.send_signal(signal.SIGINT)
    rest, errors = process.communicate(timeout=PATIENCE)
    return process.returncode, rest.decode(), errors.decode()


def lines(process: "subprocess.Popen[bytes]", count: int) -> list[str]:
    assert process.stdout is not None
    return [process.stdout.readline().decode().rstrip("\n") for _ in range(count)]


def objects(process: "subprocess.Popen[bytes]", count: int) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines(process, count)]


def test_given_a_plain_stream_when_watched_then_each_pack_has_a_line_and_each_message_one(
    broker: Broker, out: MsgStream, channels: list[str]
) -> None:
    produce(out, InsertMsg(1, [10, 12, 13], range(3), [b"a", b"\x1b[31m", b"c"], [0, 0, 0]))
    produce(out, DeleteMsg(2, [14] * 10, range(10), [0] * 10))
    produce(out, SearchMsg(3, 11, b"x" * 100, [0]), TimeTickMsg(20), Own(4, 5, 6, [0]))
    with watching(broker.url, "msgstream", "tail", *channels, "--from", "earliest") as process:
        shown = lines(process, 6)
        assert ended(process) == (130, "", "")
    assert shown == [
        "pack 5..20: 5 messages",
        f"  {channels[0]}  INSERT  id 1  10..13  rows a, \\x1b[31m, c",
        f"  {channels[0]}  DELETE  id 2  14  keys 0, 1, 2, 3, 4, 5, 6, 7 and 2 more",
        f"  {channels[0]}  SEARCH  id 3  11  {'x' * 60}…",
        f"  {channels[0]}  TIME_TICK  id 0  20",
        f"  {channels[0]}  type 7000  id 4  5..6",
    ]


def test_given_a_pack_with_late_messages_when_shown_as_text_then_it_says_how_many_and_which() -> None:
    on_time, late, empty = SearchMsg(1, 15, b"", [0]), TimeSyncMsg(5), MsgPack(20, 30)
    late.late = True
    on_time.read_at("c", "7")
    late.read_at("d", "8")
    assert text_lines(MsgPack(10, 20, [on_time, late])) == [
        "pack 10..20: 2 messages, 1 late",
        "  c  SEARCH  id 1  15",
        "  d  TIME_SYNC  id 0  5  late",
    ]
    assert text_lines(empty) == ["pack 20..30: 0 messages"]


def test_given_gaps_when_shown_then_json_has_them_and_stderr_tells(capsys: pytest.CaptureFixture[str]) -> None:
    assert json.loads(pack_json(MsgPack(gaps=[StreamGap("c", 5, 9, None)])))["gaps"] == [
        {"channel_name": "c", "from_id": 5, "to_id": 9, "message_count": None}
    ]
    tell_gap("c", 5, 1_234)
    tell_gap("", 5, None)
    told = capsys.readouterr().err.splitlines()
    assert told == [
        "warning: retention removed 1,234 messages of c from id 5 on before they were read",
        "warning: retention removed messages from id 5 on before they were read",
    ]


def test_given_a_pack_that_is_half_out_when_ctrl_c_comes_then_its_line_is_ended_and_no_other_begun(
    broker: Broker, out: MsgStream, channels: list[str]
) -> None:
    for _ in range(2_000):
        produce(out, SearchMsg(1, 1, b"x" * 1_000, [0]))
    with watching(broker.url, "--json", "msgstream", "tail", "--from", "earliest", *channels) as process:
        assert process.stdout is not None
        begun = process.stdout.read(10)  # the rest of the line is larger than the pipe
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, errors) == (130, b"")
    (line,) = (begun + rest).splitlines()
    assert len(json.loads(line)["msgs"]) > 100


@pytest.mark.parametrize("arguments", [["--json", "msgstream", "tail"], ["msgstream", "tail", "--output", "json"]])
def test_given_a_time_tick_stream_when_watched_as_json_then_each_pack_is_a_line_with_all_there_is(
    broker: Broker, out: MsgStream, channels: list[str], arguments: list[str]
) -> None:
    produce(out, InsertMsg(1, [10, 21], [7, 8], [b"a", "ß".encode()], [0, 0]), InsertMsg(2, [11], [9], [b"\xff"], [1]))
    tick(out, 20)
    produce(out, SearchMsg(3, 15, b"\xff", [1]), Own(4, 22, 23, [1]))
    tick(out, 30)
    with watching(broker.url, *arguments, "--tt", "--from", "earliest", *channels) as process:
        first, second = objects(process, 2)
        assert ended(process) == (130, "", "")

    assert (first["begin_ts"], first["end_ts"], first["late_count"], first["gaps"]) == (0, 20, 0, [])
    assert first["start_positions"] == [{"channel_name": c, "msg_id": "", "timestamp_filter": 0} for c in channels]
    assert [position["timestamp_filter"] for position in first["end_positions"]] == [20, 20]
    (insert,) = first["msgs"]
    assert insert.pop("position")["channel_name"] == channels[1]
    assert insert == {
        **{"type": 400, "type_name": "INSERT", "id": 2, "begin_ts": 11, "end_ts": 11, "late": False},
        **{"hash_keys": [1], "timestamps": [11], "row_ids": [9], "rows_base64": ["/w=="]},
    }
    assert (second["begin_ts"], second["end_ts"], second["late_count"]) == (20, 30, 1)
    assert second["start_positions"] == first["end_positions"]
    messages = {msg["id"]: msg for msg in second["msgs"]}
    assert messages[1]["rows"] == ["a", "ß"]
    assert (messages[3]["late"], messages[3]["payload_base64"]) == (True, "/w==")
    own = messages[4]
    assert (own["type"], own["type_name"], own["begin_ts"], own["end_ts"], "hash_keys" in own) == (7000, None, 22, 23, False)


def test_given_no_position_when_watched_then_only_what_comes_is_shown_also_after_the_broker_was_killed(
    broker: Broker, out: MsgStream, channels: list[str]
) -> None:
    produce(out, SearchMsg(1, 1, b"old", [0]))
    came = threading.Event()

    def tick_until_it_came() -> None:
        timestamp = 1
        while not came.is_set():
            timestamp += 1
            tick(out, timestamp)

    ticking = threading.Thread(target=tick_until_it_came)
    with watching(broker.url, "--timeout", "0.2", "msgstream", "tail", "--tt", *channels) as process:
        ticking.start()
        shown = lines(process, 1)
        came.set()
        ticking.join()
        broker.kill()
        assert process.stderr is not None
        while not process.stderr.readline().startswith(b"waiting: "):
            assert process.poll() is None
        broker.start()
        produce(out, SearchMsg(2, 1 << 40, b"new", [0]))
        tick(out, 1 << 40)
        while "new" not in shown[-1]:
            shown += lines(process, 1)
        assert ended(process)[:2] == (130, "")
    assert not [line for line in shown if "old" in line]
    assert shown[0].startswith("pack 0..")
    assert shown[0].endswith(": 0 messages")


def test_given_a_subscription_when_watched_then_none_is_made_and_none_moves(
    broker: Broker, client: Client, out: MsgStream, channels: list[str]
) -> None:
    produce(out, SearchMsg(1, 1, b"one", [0]))
    with RmqMsgStreamFactory(broker.url).new_msg_stream() as stream:
        stream.as_consumer(channels, "looking")
        stream.start()
        assert stream.consume(timeout=PATIENCE) is not None
        stream.commit()
        before = [client.describe_consumer_group(channel, "looking") for channel in channels]
        produce(out, SearchMsg(2, 1, b"two", [0]))

        with watching(broker.url, "msgstream", "tail", "--from", "earliest", *channels) as process:
            assert [line[:4] for line in lines(process, 3)] == ["pack", "  te", "  te"]
            produce(out, SearchMsg(3, 1, b"three", [0]))
            assert lines(process, 2)[1].endswith("three")  # behind the first pack, which was let go
            assert ended(process)[0] == 130

        after = [client.describe_consumer_group(channel, "looking") for channel in channels]
        assert [(g.position, g.generation, g.metadata) for g in after] == [
            (g.position, g.generation, g.metadata) for g in before
        ]
        assert [client.list_consumer_groups(channel) for channel in channels] == [["looking"]] * 2
        stream.commit()  # it was not fenced


def test_given_messages_that_are_none_when_watched_then_stderr_counts_them_by_channel(
    broker: Broker, client: Client, out: MsgStream, channels: list[str]
) -> None:
    client.produce(channels[0], [b"garbage"] * 3)
    produce(out, SearchMsg(1, 1, b"one", [0]))
    with watching(broker.url, "msgstream", "tail", "--from", "earliest", *channels) as process:
        assert lines(process, 2)[0] == "pack 1: 1 message"
        client.produce(channels[1], [b"garbage"])
        assert process.stderr is not None
        told = [process.stderr.readline().decode() for _ in range(2)]
        assert ended(process) == (130, "", "")
    assert told == [
        f"warning: 3 messages of {channels[0]} cannot be decoded\n",
        f"warning: 1 message of {channels[1]} cannot be decoded\n",
    ]


def test_given_a_channel_without_ticks_when_watched_then_stderr_names_it_once(
    broker: Broker, out: MsgStream, channels: list[str]
) -> None:
    produce(out, TimeTickMsg(5, hash_keys=[0]))
    with watching(broker.url, "msgstream", "tail", "--tt", "--from", "earliest", *channels) as process:
        assert process.stderr is not None
        assert process.stderr.readline().decode() == f"waiting for ticks of {channels[1]}\n"
        tick(out, 6)
        assert lines(process, 1) == ["pack 0..5: 0 messages"]
        code, rest, errors = ended(process)
    assert (code, errors) == (130, "")
    assert rest in {"", "pack 5..6: 0 messages\n"}


def test_given_a_message_id_when_watched_from_there_then_what_follows_on_all_channels_is_shown(
    broker: Broker, client: Client, out: MsgStream, channels: list[str]
) -> None:
    ids = [out.produce(MsgPack(msgs=[SearchMsg(number, 1, b"", [number])])) for number in range(4)]
    start = str(ids[2][channels[0]][0])
    with watching(broker.url, "msgstream", "tail", "--from", start, *channels) as process:
        shown = lines(process, 3)
        assert ended(process) == (130, "", "")
    assert [line.split("  ")[3] for line in shown[1:]] == ["id 2", "id 3"]


def test_given_no_such_channels_when_watched_then_one_line_names_them(broker: Broker, channels: list[str]) -> None:
    result = rocksmq(broker.url, "msgstream", "tail", "nope", channels[0], "neither")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "error: there is no channel 'nope', 'neither': check the name, or create it\n"


def test_given_formats_that_exclude_each_other_when_watched_then_it_is_wrong_usage() -> None:
    result = rocksmq("rocksmq://127.0.0.1:1", "--json", "msgstream", "tail", "--output", "text", "c")
    assert result.exit_code == 2
    assert "--json and --output text exclude each other" in result.stderr


def test_given_options_of_pulsar_when_a_broker_is_watched_then_it_is_wrong_usage() -> None:
    result = rocksmq("rocksmq://127.0.0.1:1", "msgstream", "tail", "--pulsar-ca", "ca.pem", "c")
    assert result.exit_code == 2
    assert "go with --url pulsar://host:port" in result.stderr


def test_given_no_protobuf_when_watched_then_one_line_says_what_to_install() -> None:
    blocked = f"import sys; sys.modules['google.protobuf'] = None; {PROGRAM[-1]}"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-c", blocked, "msgstream", "tail", "c"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False, env=environment)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert done.stderr.startswith("error: ")
    assert "pip install 'rocksmq[msgstream]'" in done.stderr


def test_given_a_stream_that_only_looks_when_torn_sought_or_added_to_then_it_goes_on_where_it_stands(
    broker: Broker, client: Client, out: MsgStream, channels: list[str]
) -> None:
    produce(out, SearchMsg(1, 1, b"", [0]))
    tick(out, 5)
    produce(out, SearchMsg(2, 6, b"", [0]))
    tick(out, 10)
    with looking_stream(broker.url, channels[:1], "earliest", is_tt=True, timeout=10.0) as stream:
        assert isinstance(stream, LookingTtStream)
        first = stream.consume(timeout=PATIENCE)
        assert first is not None
        stream.commit()
        stream.as_consumer(channels, "looking")  # takes over anew
        second = stream.consume(timeout=PATIENCE)
        assert second is not None
        assert [msg.id for msg in second.msgs] == [2]
        stream.seek([*first.end_positions, MsgPosition(channels[1], "", first.end_ts)])
        again = stream.consume(timeout=PATIENCE)
        assert again is not None
        assert (again.begin_ts, again.end_ts, [msg.id for msg in again.msgs]) == (5, 10, [2])
        stream.as_producer(channels)
        with pytest.raises(NotImplementedError, match="only looks"):
            produce(stream, SearchMsg(3, 1, b"", [0]))
        stream.unsubscribe()
    assert client.list_consumer_groups(channels[0]) == []
