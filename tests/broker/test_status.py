"""STATUS: metrics are written out in turns with everything else, bounded, and never at the cost of the others."""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from rocksmq.broker import status
from rocksmq.broker.engine import RocksMQ
from rocksmq.broker.limits import Limits
from rocksmq.broker.status import REPORTS_MAX, SLICE_SECONDS, Check, StatusReports
from rocksmq.clients.status import parsed
from rocksmq.metrics import catalogue
from rocksmq.metrics.exposition import expose
from rocksmq.metrics.instruments import gauge, gauges
from rocksmq.protocol.administration import Status, StatusReported
from rocksmq.protocol.cbor import Gathered
from rocksmq.protocol.errors import (
    ChannelNotFound,
    InternalError,
    InvalidRequest,
    Overloaded,
    RocksMQError,
    ShuttingDown,
    StorageFailed,
)
from rocksmq.protocol.operations import (
    STATUS_LINES_MAX,
    STATUS_ROOM_BYTES,
)

from .support import in_trio

FRAME_BYTES = 8 << 20
LAG = catalogue.GROUP_LAG.name


class World:
    """Reports on metrics of the test's making: ``line_count`` lines of lag, and a family behind them."""

    def __init__(self, nursery: trio.Nursery, frame_bytes_max: int = FRAME_BYTES, line_count: int = 3) -> None:
        self.reports = StatusReports(self.exposition, frame_bytes_max)
        self.reports.spawn = nursery.start_soon
        self.line_count = line_count
        self.asked: list[Sequence[str] | None] = []
        self.answers: list[StatusReported | RocksMQError] = []

    def exposition(self, channels: Sequence[str] | None) -> Iterator[bytes]:
        self.asked.append(channels)
        lags = (((f"channel-{index}", "billing"), index) for index in range(self.line_count))
        return expose([gauge(catalogue.CHANNELS, 7), gauges(catalogue.GROUP_LAG, lags), gauge(catalogue.GROUPS, 8)])

    async def asked_for(self, channel: str = "") -> StatusReported:
        self.reports.submit(Status(channel), self.answers.append)
        await wait_all_tasks_blocked()
        found = self.answers.pop()
        assert isinstance(found, StatusReported), found
        return found


def text_of(report: StatusReported) -> bytes:
    assert isinstance(report.metrics, Gathered)
    text = b"".join(report.metrics.parts)
    assert len(text) == report.metrics.size
    return text


# -- a real broker -----------------------------------------------------------------


async def a_status(mq: RocksMQ, channel: str = "") -> StatusReported:
    found: StatusReported = await mq.call(Status(channel))
    return found


@in_trio
async def test_given_an_engine_when_its_status_is_asked_for_then_its_metrics_are_told(tmp_path: Path) -> None:
    async with RocksMQ(tmp_path) as mq:
        await mq.create_channel("orders")
        await mq.create_consumer_group("orders", "billing")
        await mq.produce("orders", [b"one", b"two"])
        found = await a_status(mq)
        metrics = parsed(text_of(found))
        assert (found.is_ready, found.problems) == (True, [])
        assert metrics[LAG].values == {("orders", "billing"): 2}
        assert metrics["rocksmq_channels"].values == {(): 1}
        of_channels = {
            metric.name for metric in catalogue.CATALOGUE if "channel" in metric.labels and "mirror" not in metric.labels
        }
        assert set(metrics) >= of_channels


@in_trio
async def test_given_more_series_than_are_shown_when_a_channel_is_named_then_its_series_are_there(tmp_path: Path) -> None:
    async with RocksMQ(tmp_path, limits=Limits(metrics_series_max=2)) as mq:
        for name in ("a", "b", "c"):
            await mq.create_channel(name)
        sums = parsed(text_of(await a_status(mq)))
        assert (sums["rocksmq_metrics_aggregated"].values[()], sums["rocksmq_channel_messages"].labels) == (1, ())
        named = parsed(text_of(await a_status(mq, "b")))
        assert named["rocksmq_channel_messages"].values == {("b",): 0}


@pytest.mark.parametrize(("name", "error"), [("nobody", ChannelNotFound), ("no name", InvalidRequest)])
@in_trio
async def test_given_a_channel_that_is_not_there_when_named_then_the_error_says_so(
    tmp_path: Path, name: str, error: type[RocksMQError]
) -> None:
    async with RocksMQ(tmp_path) as mq:
        with pytest.raises(error, match=name):
            await a_status(mq, name)


@in_trio
async def test_given_a_broker_that_stops_when_its_status_is_asked_for_then_it_says_so(tmp_path: Path) -> None:
    async with RocksMQ(tmp_path) as mq:
        await mq.drain()
        with pytest.raises(ShuttingDown):
            await a_status(mq)


# -- what is told ------------------------------------------------------------------


@in_trio
async def test_given_a_check_that_fails_when_asked_then_the_broker_is_not_ready_and_the_reason_is_told() -> None:
    async with trio.open_nursery() as nursery:
        world = World(nursery)
        world.reports.checks = lambda: [
            Check("store", True, ""),
            Check("disk", False, "it is full"),
            Check("meta", False, "x" * 9_000),
        ]
        found = await world.asked_for()
        assert not found.is_ready
        assert found.problems[0] == "disk: it is full"
        assert [problem[:7] for problem in found.problems[1:]] == ["meta: x"]
        assert len(found.problems[1]) == 1_000
        world.reports.checks = lambda: [Check("store", True, ""), Check("clock", False, "it was set", is_vital=False)]
        found = await world.asked_for()
        assert (found.is_ready, found.problems) == (True, ["clock: it was set"])


@in_trio
async def test_given_a_request_when_passed_on_then_it_asks_for_that_channel_or_for_what_metrics_has() -> None:
    async with trio.open_nursery() as nursery:
        world = World(nursery)
        await world.asked_for("")
        await world.asked_for("orders")
        assert world.asked == [None, ["orders"]]


@pytest.mark.parametrize(("line_count", "frame_bytes_max"), [(STATUS_LINES_MAX, FRAME_BYTES), (200, STATUS_ROOM_BYTES + 3_000)])
@in_trio
async def test_given_more_than_fits_when_asked_then_series_of_channels_are_left_out_and_the_rest_is_whole(
    line_count: int, frame_bytes_max: int
) -> None:
    async with trio.open_nursery() as nursery:
        text = text_of(await World(nursery, frame_bytes_max, line_count).asked_for())
        assert list(parsed(text)) == ["rocksmq_channels", "rocksmq_groups"]
        text = text_of(await World(nursery, frame_bytes_max, 40).asked_for())
        assert len(parsed(text)[LAG].values) == 40


# -- its turns ---------------------------------------------------------------------


@in_trio
async def test_given_much_to_write_out_when_asked_then_others_have_their_turn_all_the_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0

    def perf_counter() -> float:
        nonlocal now
        now += SLICE_SECONDS / 4  # each chunk takes so long
        return now

    monkeypatch.setattr(status, "perf_counter", perf_counter)
    turns = 0

    async def another() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with trio.open_nursery() as nursery:
        world = World(nursery, line_count=5_000)  # some hundred chunks
        answered = trio.Event()
        nursery.start_soon(another)
        world.reports.submit(Status(""), lambda reply: answered.set())
        await answered.wait()
        assert 20 <= turns <= 60
        nursery.cancel_scope.cancel()


@in_trio
async def test_given_as_many_as_are_answered_at_a_time_when_one_more_comes_then_it_is_told_to_come_again() -> None:
    async with trio.open_nursery() as nursery:
        world = World(nursery)
        for _ in range(REPORTS_MAX):
            world.reports.submit(Status(""), world.answers.append)
        with pytest.raises(Overloaded) as refused:
            world.reports.submit(Status(""), world.answers.append)
        assert refused.value.retry_after == 0.25
        await wait_all_tasks_blocked()
        assert len(world.answers) == REPORTS_MAX
        await world.asked_for()


@in_trio
async def test_given_a_report_at_work_when_the_broker_stops_then_it_is_answered_that() -> None:
    async with trio.open_nursery() as nursery:
        world = World(nursery)
        world.reports.submit(Status(""), world.answers.append)
        nursery.cancel_scope.cancel()
    [found] = world.answers
    assert isinstance(found, ShuttingDown)


@pytest.mark.parametrize(
    ("failure", "error"), [(KeyError("a bug of ours"), InternalError), (StorageFailed("the disk is gone"), StorageFailed)]
)
@in_trio
async def test_given_metrics_that_fail_when_asked_then_that_one_is_told_and_the_next_is_answered(
    caplog: pytest.LogCaptureFixture, failure: Exception, error: type[RocksMQError]
) -> None:
    def failing(channels: Sequence[str] | None) -> Iterator[bytes]:
        yield b"# HELP x\n"
        raise failure

    async with trio.open_nursery() as nursery:
        world = World(nursery)
        world.reports = StatusReports(failing, FRAME_BYTES)
        world.reports.spawn = nursery.start_soon
        with caplog.at_level(logging.ERROR):
            for _ in range(REPORTS_MAX + 1):
                world.reports.submit(Status(""), world.answers.append)
                await wait_all_tasks_blocked()
        assert [type(answer) for answer in world.answers] == [error] * (REPORTS_MAX + 1)
        assert bool(caplog.records) == (error is InternalError)
        assert not any("bug of ours" in str(answer) for answer in world.answers)
