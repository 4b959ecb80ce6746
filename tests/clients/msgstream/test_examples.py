"""The examples of message streams run as a user runs them, also when they are killed and started over."""

import importlib.util
import json
import secrets
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rocksmq.clients import Client, OwnerDescription
from rocksmq.clients.msgstream import (
    InsertMsg,
    MemBroker,
    MemMsgStreamFactory,
    MsgPack,
    TimeTickMsg,
    msg_stream_factory,
)
from rocksmq.clients.testing import Broker
from tests.clients.test_examples import EXAMPLES, ran, started

ROWS, ROWS_A_PACK = 30_000, 150
RUNS_MAX = 5  # until one has all, on a busy machine


def module(name: str) -> Any:
    """An example, loaded and not run."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def test_given_two_writers_and_a_ticker_when_run_on_a_broker_then_each_window_is_whole(
    broker: Broker, client: Client, tmp_path: Path
) -> None:
    output = ran("windows.py", broker.url, cwd=tmp_path)
    assert output.splitlines() == [f"{begin + 1} to {begin + 100}: 100 rows" for begin in range(0, 1_400, 100)]
    assert client.list_channels() == []


@pytest.mark.parametrize("server", ["pulsar_lite", "real_pulsar"])
def test_given_the_same_program_when_run_on_pulsar_then_it_prints_the_same(
    request: pytest.FixtureRequest, server: str, tmp_path: Path
) -> None:
    output = ran("windows.py", request.getfixturevalue(server).url, cwd=tmp_path)
    assert output.splitlines() == [f"{begin + 1} to {begin + 100}: 100 rows" for begin in range(0, 1_400, 100)]


def test_given_the_same_program_when_run_in_memory_then_it_prints_the_same(tmp_path: Path) -> None:
    output = ran("windows.py", "memory", cwd=tmp_path)
    assert output.splitlines() == [f"{begin + 1} to {begin + 100}: 100 rows" for begin in range(0, 1_400, 100)]


@pytest.mark.parametrize("ticks", [[250], [99, 100, 101, 250], [50, 200, 250]])
def test_given_rows_out_of_order_over_channels_when_put_into_windows_then_each_is_in_order_whatever_the_ticks(
    ticks: list[int],
) -> None:
    memory = MemBroker()
    channels = memory.create_channels(OwnerDescription("tests"), 4)
    factory = MemMsgStreamFactory(memory)
    with factory.new_msg_stream() as out, factory.new_tt_msg_stream() as stream:
        out.as_producer(channels)
        stream.as_consumer(channels, "windows")
        stream.start()
        begin = 1
        for tick in ticks:
            for stamp in reversed(range(begin, tick + 1)):
                out.produce(MsgPack(msgs=[InsertMsg(stamp, [stamp], [stamp], [b"%d" % stamp], [stamp])]))
            out.broadcast(MsgPack(msgs=[TimeTickMsg(tick)]))
            begin = tick + 1
        found = module("windows").windows(stream)
        assert [next(found), next(found)] == [
            [(stamp, b"%d" % stamp) for stamp in range(first, first + 100)] for first in (1, 101)
        ]


def test_given_a_clock_when_timestamps_are_open_then_no_tick_passes_them() -> None:
    clock = module("windows").Clock()
    assert clock.settled() == 0
    with clock.timestamps(5) as first:
        with clock.timestamps(3) as second:
            assert (list(first), list(second), clock.settled()) == ([1, 2, 3, 4, 5], [6, 7, 8], 0)
        assert clock.settled() == 0
    assert clock.settled() == 8
    with pytest.raises(KeyError), clock.timestamps(2):
        raise KeyError
    with clock.timestamps(1):
        pass
    assert clock.settled() == 8


@pytest.mark.slow
def test_given_a_checkpoint_with_the_output_when_the_program_is_killed_and_started_over_then_each_row_is_there_once(
    broker: Broker, client: Client, tmp_path: Path
) -> None:
    channels = client.create_channels(OwnerDescription("tests"), 4)

    def restart() -> None:
        broker.kill()
        broker.start()

    check_checkpoint(broker.url, channels, tmp_path, restart)


@pytest.mark.slow
@pytest.mark.parametrize("server", ["pulsar_lite", "real_pulsar"])
def test_given_a_checkpoint_when_the_program_is_killed_on_pulsar_then_each_row_is_there_once(
    request: pytest.FixtureRequest, server: str, tmp_path: Path
) -> None:
    name = secrets.token_hex(8)
    check_checkpoint(request.getfixturevalue(server).url, [f"{name}-{number}" for number in range(4)], tmp_path)


def check_checkpoint(url: str, channels: list[str], tmp_path: Path, restart: Callable[[], None] = lambda: None) -> None:
    """Kills checkpoint.py five times, restarts what it reads, tears its output, and looks at that."""
    fill(url, channels)
    once, often = tmp_path / "once", tmp_path / "often"
    once.mkdir()
    often.mkdir()
    finish(url, channels, once)
    whole = (once / "rows.txt").read_bytes()
    assert sorted(whole.splitlines()) == sorted(b"row %d" % number for number in range(ROWS))

    output, checkpoint = often / "rows.txt", often / "checkpoint.json"
    for goal in range(0, len(whole), len(whole) // 5):
        killed = started("checkpoint.py", url, *channels, cwd=often)
        while not (output.exists() and output.stat().st_size > goal) and killed.poll() is None:
            pass
        killed.send_signal(signal.SIGKILL)
        killed.communicate()
        assert killed.returncode == -signal.SIGKILL
    restart()
    with output.open("ab") as torn:  # as if it had died between output and checkpoint
        torn.write(b"half a ro")
    assert json.loads(checkpoint.read_text())["size"] < output.stat().st_size
    finish(url, channels, often)
    assert output.read_bytes() == whole
    assert ran("checkpoint.py", url, *channels, cwd=often) == f"{len(whole)} bytes of rows\n"


def finish(url: str, channels: list[str], cwd: Path) -> None:
    """Runs checkpoint.py until it has all rows: it also ends where none came for a while, and goes on when run again."""
    size = sum(len(b"row %d\n" % number) for number in range(ROWS))
    for _ in range(RUNS_MAX):
        if ran("checkpoint.py", url, *channels, cwd=cwd) == f"{size} bytes of rows\n":
            return


def fill(url: str, channels: list[str]) -> None:
    """Rows over all channels, a tick behind each pack of them."""
    with msg_stream_factory(url).new_msg_stream() as out:
        out.as_producer(channels)
        for first in range(0, ROWS, ROWS_A_PACK):
            numbers = range(first, first + ROWS_A_PACK)
            rows = [b"row %d" % number for number in numbers]
            stamps = [number + 1 for number in numbers]
            out.produce(MsgPack(msgs=[InsertMsg(first, stamps, numbers, rows, numbers)]))
            out.broadcast(MsgPack(msgs=[TimeTickMsg(stamps[-1])]))
