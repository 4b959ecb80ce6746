"""The supervisor of the broker's mirror, over a child that stands in for it: starts, ends, silence, words."""

import functools
import signal
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from itertools import pairwise
from os import kill
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import memory_stream_one_way_pair

from rocksmq.broker import mirror as module
from rocksmq.broker.mirror import MirrorProcess, lines
from rocksmq.clients.mirror.report import State
from tests.helpers.stand_in_mirror import NAME, StandIn, a_report, is_alive

from .support import Params, in_trio

PATIENCE_SECONDS = 30.0


def in_time(test: Callable[Params, Coroutine[Any, Any, None]]) -> Callable[Params, None]:
    """Run an async test, which fails if it has not ended long after it should have."""

    @functools.wraps(test)
    async def bounded(*args: Params.args, **kwargs: Params.kwargs) -> None:
        with trio.fail_after(2 * PATIENCE_SECONDS):
            await test(*args, **kwargs)

    return in_trio(bounded)


@pytest.fixture
def stand_in(tmp_path: Path) -> Iterator[StandIn]:
    found = StandIn(tmp_path / "stand-in")
    found.tell([a_report()])
    yield found
    for pid in found.pids:
        with suppress(ProcessLookupError):
            kill(pid, signal.SIGKILL)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beats and pauses are a twentieth; a busy machine may take long to start a process."""
    for name in ("BEAT_SECONDS", "PAUSE_SECONDS_MIN", "PAUSE_SECONDS_MAX"):
        monkeypatch.setattr(module, name, getattr(module, name) / 20)
    monkeypatch.setattr(module, "SILENT_BEATS", 20 * module.SILENT_BEATS)


def supervisor(stand_in: StandIn) -> MirrorProcess:
    return MirrorProcess(NAME, [*stand_in.program, "--channels=orders"], stand_in.environment)


def figures(mirror: MirrorProcess, *, is_aggregated: bool = False) -> dict[str, float]:
    """Every sample by its name and labels."""
    found = mirror.families(None, is_aggregated=is_aggregated)
    return {metric.name + sample.labels: sample.value for metric, samples in found for sample in samples if sample}


async def until(condition: Callable[[], object]) -> None:
    with trio.fail_after(PATIENCE_SECONDS):
        while not condition():
            await trio.sleep(0.01)


def is_up(mirror: MirrorProcess) -> bool:
    return figures(mirror)['rocksmq_mirror_up{mirror="pulsar"}'] == 1


@in_time
async def test_given_a_mirror_when_it_reports_then_that_is_shown_until_it_is_stopped(stand_in: StandIn) -> None:
    mirror = supervisor(stand_in)
    assert not is_up(mirror)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(mirror.run)
        await until(lambda: is_up(mirror))
        assert figures(mirror)['rocksmq_mirror_messages_total{mirror="pulsar",channel="orders"}'] == 10
        assert stand_in.arguments == ["--channels=orders"]
        await mirror.stop()
    assert not is_up(mirror)
    (pid,) = stand_in.pids
    assert not is_alive(pid)


@in_time
async def test_given_a_mirror_that_is_killed_when_started_again_then_counts_go_on_and_starts_are_counted(
    stand_in: StandIn,
) -> None:
    mirror = supervisor(stand_in)
    name = 'rocksmq_mirror_messages_total{mirror="pulsar",channel="orders"}'
    async with trio.open_nursery() as nursery:
        nursery.start_soon(mirror.run)
        await until(lambda: is_up(mirror))
        kill(stand_in.pids[0], signal.SIGKILL)
        await until(lambda: len(stand_in.pids) == 2 and is_up(mirror))
        shown = figures(mirror)
        assert shown[name] == 20, "each life has mirrored 10"
        assert shown['rocksmq_mirror_restarts_total{mirror="pulsar"}'] == 1
        await mirror.stop()
    assert figures(mirror)[name] == 20


@in_time
async def test_given_a_mirror_that_ends_at_once_when_started_again_then_the_pauses_grow_and_its_last_words_are_logged(
    stand_in: StandIn, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PAUSE_SECONDS_MIN", 0.001)
    monkeypatch.setattr(module, "PAUSE_SECONDS_MAX", 0.004)
    stand_in.write("do", "exit 7")
    stand_in.write("said", "orders: stopped: the topic is gone\n")
    mirror = supervisor(stand_in)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(mirror.run)
        await until(lambda: mirror.restarts == 4)
        nursery.cancel_scope.cancel()
    told = [record.getMessage() for record in caplog.records if "started again" in record.getMessage()]
    assert told[0] == (
        "the mirror ended with exit code 7 (it said last: orders: stopped: the topic is gone); it is started again in 0.001 s"
    )
    pauses = [float(line.split()[-2]) for line in told]
    assert pauses[:4] == [0.001, 0.002, 0.004, 0.004]
    assert all(later >= earlier for earlier, later in pairwise(pauses))
    assert not is_up(mirror)


@in_time
async def test_given_a_program_that_cannot_be_started_when_run_then_it_is_logged_and_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mirror = MirrorProcess(NAME, [str(tmp_path / "missing")], {})
    async with trio.open_nursery() as nursery:
        nursery.start_soon(mirror.run)
        await until(lambda: mirror.restarts == 2)
        await mirror.stop()
        nursery.cancel_scope.cancel()
    assert "the mirror could not be started: No such file or directory" in caplog.text


@in_time
async def test_given_a_mirror_that_falls_silent_when_it_was_long_then_it_is_not_up_and_then_killed_and_started_again(
    stand_in: StandIn, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror = supervisor(stand_in)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(mirror.run)
        await until(lambda: is_up(mirror))
        (first,) = stand_in.pids
        monkeypatch.setattr(module, "SILENT_BEATS", 100)
        stand_in.write("do", "hush")
        await until(lambda: not is_up(mirror))
        assert is_alive(first), "it may come back"
        stand_in.write("do", "")
        await until(lambda: is_up(mirror))
        assert stand_in.pids == [first]
        kill(first, signal.SIGSTOP)
        await until(lambda: len(stand_in.pids) == 2)
        assert not is_alive(first)
        await mirror.stop()
    assert "said nothing for" in caplog.text


@in_time
async def test_given_a_mirror_that_does_not_end_when_stopped_then_the_wait_is_bounded_and_it_is_killed_in_the_end(
    stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STOP_SECONDS", 0.2)
    stand_in.write("do", "stay deaf")
    mirror = supervisor(stand_in)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(mirror.run)
        await until(lambda: is_up(mirror))
        with trio.fail_after(PATIENCE_SECONDS):
            await mirror.stop()
        assert is_alive(stand_in.pids[0])
        nursery.cancel_scope.cancel()
    assert not is_alive(stand_in.pids[0])


@in_time
async def test_given_reports_that_are_none_when_shown_then_it_is_not_up_and_what_it_counted_stays(
    stand_in: StandIn, caplog: pytest.LogCaptureFixture
) -> None:
    mirror = supervisor(stand_in)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(mirror.run)
        await until(lambda: is_up(mirror))
        stand_in.write("report", "[]")
        await until(lambda: not is_up(mirror))
        assert figures(mirror)['rocksmq_mirror_messages_total{mirror="pulsar",channel="orders"}'] == 10
        stand_in.tell([a_report(messages=11)])
        await until(lambda: is_up(mirror))
        await mirror.stop()
    assert "the mirror says what is not understood" in caplog.text


@in_time
async def test_given_what_a_mirror_says_when_logged_then_what_is_calm_is_info_and_the_rest_a_warning(
    stand_in: StandIn, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "rocksmq.mirror")
    stand_in.write("said", f"orders: running, topic t\norders: waiting: Pulsar is away\n\n{'x' * 10_000}\nlast")
    mirror = supervisor(stand_in)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(mirror.run)
        await until(lambda: is_up(mirror))
        await mirror.stop()
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("INFO", "orders: running, topic t"),
        ("WARNING", "orders: waiting: Pulsar is away"),
        ("WARNING", "x" * module.LOG_BYTES_MAX),
        ("WARNING", "last"),
    ]


@in_time
async def test_given_a_state_when_the_mirror_is_down_then_no_channel_is_said_to_be_up_or_stopped(stand_in: StandIn) -> None:
    stand_in.tell([a_report("a"), a_report("b", State.STOPPED)])
    mirror = supervisor(stand_in)
    up, stopped = (
        f'rocksmq_mirror_channel_{what}{{mirror="pulsar",channel="{of}"}}' for what, of in (("up", "a"), ("stopped", "b"))
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(mirror.run)
        await until(lambda: is_up(mirror))
        shown = figures(mirror)
        assert (shown[up], shown[stopped]) == (1, 1)
        await mirror.stop()
    shown = figures(mirror)
    assert (shown[up], shown[stopped]) == (0, 0)


@pytest.mark.parametrize("size", [1, 2, 3, 1_000])
@in_time
async def test_given_lines_in_pieces_when_read_then_each_comes_whole_and_a_long_one_cut(size: int) -> None:
    send, receive = memory_stream_one_way_pair()
    content = b"one\n\ntwo\nmuch too long\nlast"

    async def feed() -> None:
        for begin in range(0, len(content), size):
            await send.send_all(content[begin : begin + size])
        await send.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(feed)
        found = [line async for line in lines(receive, 6)]
    assert found == [b"one", b"", b"two", b"much t", b"last"]
