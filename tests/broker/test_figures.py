"""Each figure of the engine's metrics, driven to a value known beforehand: what was read, how old it was, what waits."""

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from rocksmq.broker import keys
from rocksmq.broker.directory import DataDirectory
from rocksmq.broker.durability import Durability
from rocksmq.broker.engine import LOOP_WATCH_SECONDS, RocksMQ
from rocksmq.broker.ids import IDAllocator
from rocksmq.broker.limits import Limits
from rocksmq.broker.log import ENTRY_BYTES
from rocksmq.broker.mark import MarkFile
from rocksmq.broker.store import Family, Put
from rocksmq.protocol.identity import Identity
from rocksmq.protocol.operations import Consume

from .disk_support import Disk, hold
from .many_support import fetching
from .support import NOON_MS, in_trio
from .test_telemetry import channels_in, of, told

OS = Durability.parse("os")
LATENCY = "rocksmq_end_to_end_latency_seconds"
PATIENCE_SECONDS = 20


class Clock:
    """The wall clock of the broker and of its ids, held still."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_ms = NOON_MS
        monkeypatch.setattr("rocksmq.broker.ids.time", SimpleNamespace(time_ns=lambda: self.now_ms * 1_000_000))

    def __call__(self) -> int:
        return self.now_ms


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def engine(path: Path, clock: Clock, durability: Durability = OS) -> RocksMQ:
    return RocksMQ(path, IDAllocator(clock=clock), durability=durability)


@contextmanager
def held(mq: RocksMQ, disk: Disk) -> Generator[tuple[threading.Event, trio.Event]]:
    """The next sync waits for the first event, in a thread, after it has set the second."""
    release, begun, on_sync = hold()
    mq.core.committer.sync_seconds = 1.0  # as if the disk had been slow: the loop goes on meanwhile
    disk.on_sync = on_sync
    try:
        yield release, begun
    finally:
        disk.on_sync = lambda: None
        release.set()


async def until(is_so: Callable[[], bool]) -> None:
    with trio.fail_after(PATIENCE_SECONDS):
        while not is_so():
            await trio.sleep(0.01)


# -- what is read ------------------------------------------------------------------


@in_trio
async def test_given_two_channels_when_fetched_together_then_each_is_told_what_left_it(tmp_path: Path, clock: Clock) -> None:
    async with engine(tmp_path, clock) as mq:
        # Given
        for channel, size, count in (("orders", 5, 3), ("refunds", 7, 2), ("rest", 1, 1)):
            await mq.create_channel(channel)
            await mq.produce(channel, [b"x" * size] * count)
        await mq.create_consumer_group("orders", "billing")
        clock.now_ms += 2_500
        # When
        numbers = [mq.core.channels.find(name).number for name in ("orders", "refunds")]
        reply = await mq.call(fetching([(number, 0) for number in numbers]))
        found = told(mq)
        # Then
        assert reply.message_count == 5
        expected = {("orders", ""): 3, ("orders", "billing"): 0, ("refunds", ""): 2, ("rest", ""): 0}
        assert of(found, "rocksmq_delivered_messages_total") == expected
        of_bytes = of(found, "rocksmq_delivered_bytes_total")
        assert of_bytes == {("orders", ""): 15, ("orders", "billing"): 0, ("refunds", ""): 14, ("rest", ""): 0}
        assert (found[f"{LATENCY}_count",], found[f"{LATENCY}_sum",]) == (5, 5 * 2.5)


@in_trio
async def test_given_messages_of_different_age_when_read_then_latency_is_in_seconds(tmp_path: Path, clock: Clock) -> None:
    async with engine(tmp_path, clock) as mq:
        # Given
        await mq.create_channel("orders")
        await mq.create_consumer_group("orders", "billing")
        await mq.produce("orders", [b"x"] * 2)
        clock.now_ms += 200
        await mq.produce("orders", [b"y"])
        clock.now_ms += 1_800
        # When: two are 2 s old, and one 1.8 s.
        await mq.consume("orders", "billing")
        found = told(mq)
        # Then
        assert found[f"{LATENCY}_sum",] == pytest.approx(2 * 2.0 + 1.8)
        buckets = of(found, f"{LATENCY}_bucket")
        assert (buckets["1.0",], buckets["2.5",], buckets["+Inf",]) == (0, 3, 3)
        # And: a clock that was set back makes no age below 0.
        clock.now_ms = NOON_MS - 5_000
        await mq.fetch("orders", "earliest")
        assert told(mq)[f"{LATENCY}_sum",] == found[f"{LATENCY}_sum",]


@in_trio
async def test_given_a_group_that_moves_on_when_asked_then_its_lag_is_that_of_what_it_reads_next(
    tmp_path: Path, clock: Clock
) -> None:
    async with engine(tmp_path, clock) as mq:
        await mq.create_channel("orders")
        await mq.create_consumer_group("orders", "billing")
        lags: list[float] = []
        for _ in range(2):
            await mq.produce("orders", [b"x"])
            clock.now_ms += 3_000
        for _ in range(3):
            lags.append(told(mq)["rocksmq_group_lag_seconds", "orders", "billing"])
            await mq.consume("orders", "billing", 1)
        assert lags == [6, 3, 0]


@in_trio
async def test_given_a_consume_that_is_asked_again_when_answered_then_its_messages_were_delivered_twice(tmp_path: Path) -> None:
    async with RocksMQ(tmp_path) as mq:
        # Given
        await mq.create_channel("orders")
        await mq.create_consumer_group("orders", "billing")
        await mq.produce("orders", [b"12345"] * 5)
        consumer = Identity.new(mq.core.ids.present_id).id
        first, second = (Consume("orders", "billing", consumer, number, 3, 1 << 20, 0) for number in range(2))
        await mq.call(first)
        assert told(mq)["rocksmq_redelivered_messages_total",] == 0
        # When
        await mq.call(first)
        await mq.call(second)
        # Then
        found = told(mq)
        assert found["rocksmq_redelivered_messages_total",] == 3
        assert found["rocksmq_delivered_messages_total", "orders", "billing"] == 3 + 3 + 2
        assert found["rocksmq_delivered_bytes_total", "orders", "billing"] == 5 * 8


@in_trio
async def test_given_batches_when_produced_then_the_tail_cache_grows_by_each(tmp_path: Path) -> None:
    async with RocksMQ(tmp_path) as mq:
        await mq.create_channel("orders")
        sizes = [told(mq)["rocksmq_tail_cache_bytes",]]
        for _ in range(2):
            await mq.produce("orders", [b"x" * 1_000] * 3)
            sizes.append(told(mq)["rocksmq_tail_cache_bytes",])
        assert sizes[0] == 0
        assert 3_000 + ENTRY_BYTES < sizes[1] < 3_200 + ENTRY_BYTES
        assert sizes[2] == 2 * sizes[1]
    async with RocksMQ(tmp_path, limits=Limits(tail_cache_bytes=1)) as mq:
        await mq.produce("orders", [b"x" * 1_000])
        assert told(mq)["rocksmq_tail_cache_bytes",] == 0


# -- what is not durable yet -------------------------------------------------------


@in_trio
async def test_given_a_channel_and_a_group_when_not_durable_then_they_have_no_series(tmp_path: Path, disk: Disk) -> None:
    async with RocksMQ(tmp_path) as mq:
        with held(mq, disk) as (release, begun):
            async with trio.open_nursery() as nursery:
                # When
                nursery.start_soon(mq.create_channel, "orders")
                await begun.wait()
                # Then
                assert mq.core.channels.get("orders") is not None
                found = told(mq)
                assert not [labels for labels in found if "orders" in labels]
                assert found["rocksmq_metrics_series",] == found["rocksmq_channels",] == 0
                release.set()
        found = told(mq)
        assert channels_in(found) == {"orders"}
        assert found["rocksmq_metrics_series",] == 1
        with held(mq, disk) as (release, begun):
            async with trio.open_nursery() as nursery:
                # When
                nursery.start_soon(mq.create_consumer_group, "orders", "billing")
                await begun.wait()
                # Then
                assert "billing" in mq.core.channels.find("orders").groups
                found = told(mq)
                assert not [labels for labels in found if "billing" in labels]
                assert of(found, "rocksmq_delivered_messages_total") == {("orders", ""): 0}
                assert (found["rocksmq_metrics_series",], found["rocksmq_groups",]) == (1, 0)
                release.set()
        found = told(mq)
        assert of(found, "rocksmq_group_lag_messages") == {("orders", "billing"): 0}
        assert found["rocksmq_metrics_series",] == 2


@in_trio
async def test_given_a_sync_that_lasts_when_more_comes_then_it_waits_in_the_queue(tmp_path: Path, disk: Disk) -> None:
    async with RocksMQ(tmp_path) as mq:
        await mq.create_channel("orders")
        assert told(mq)["rocksmq_commit_queue_bytes",] == 0
        with held(mq, disk) as (release, begun):
            async with trio.open_nursery() as nursery:
                # Given
                nursery.start_soon(mq.produce, "orders", [b"taken" * 10_000])
                await begun.wait()
                assert told(mq)["rocksmq_commit_queue_bytes",] == 0
                # When
                nursery.start_soon(mq.produce, "orders", [b"waits" * 2_000])
                await wait_all_tasks_blocked()
                # Then
                found = told(mq)
                assert 10_000 < found["rocksmq_commit_queue_bytes",] < 11_000
                assert found["rocksmq_channel_messages", "orders"] == 0
                release.set()
        found = told(mq)
        assert (found["rocksmq_commit_queue_bytes",], found["rocksmq_channel_messages", "orders"]) == (0, 2)


@in_trio
async def test_given_commits_that_nobody_had_synced_when_asked_then_they_are_counted_until_a_sync(
    tmp_path: Path, clock: Clock
) -> None:
    async with engine(tmp_path, clock) as mq:
        await mq.create_channel("orders")  # which is synced, with the window of ids that the others are from
        assert told(mq)["rocksmq_unsynced_commits",] == 0
        # When
        for _ in range(3):
            await mq.produce("orders", [b"x"])
        # Then
        assert told(mq)["rocksmq_unsynced_commits",] == 3
        await mq.create_channel("refunds")
        assert told(mq)["rocksmq_unsynced_commits",] == 0


@in_trio
async def test_given_a_clock_that_is_set_back_when_asked_then_ids_are_ahead_of_it(tmp_path: Path, clock: Clock) -> None:
    async with engine(tmp_path, clock) as mq:
        await mq.create_channel("orders")
        assert told(mq)["rocksmq_message_id_ahead_seconds",] == 0
        clock.now_ms -= 2_500
        assert told(mq)["rocksmq_message_id_ahead_seconds",] == 2.5
        clock.now_ms += 3_000
        assert told(mq)["rocksmq_message_id_ahead_seconds",] == 0


# -- the mark ----------------------------------------------------------------------


@in_trio
async def test_given_a_mark_that_cannot_be_written_when_commits_go_on_then_it_lags_by_each_and_failures_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with RocksMQ(tmp_path) as mq:
        # Given
        await mq.create_channel("orders")
        await until(lambda: told(mq)["rocksmq_durable_mark_lag_commits",] == 0)
        write = MarkFile.write
        failures_left, may_heal = 2, threading.Event()

        def failing(mark: MarkFile, number: int) -> None:
            nonlocal failures_left
            if failures_left:
                failures_left -= 1
                raise OSError("no answer")
            assert may_heal.wait(PATIENCE_SECONDS)
            write(mark, number)

        monkeypatch.setattr(MarkFile, "write", failing)
        # When
        for _ in range(4):
            await mq.produce("orders", [b"x"])
        # Then
        assert told(mq)["rocksmq_durable_mark_lag_commits",] == 4
        may_heal.set()
        await until(lambda: told(mq)["rocksmq_durable_mark_lag_commits",] == 0)
        assert told(mq)["rocksmq_durable_mark_failures_total",] == 2


# -- a start -----------------------------------------------------------------------


@in_trio
async def test_given_groups_beyond_the_end_of_a_channel_when_started_then_each_that_is_brought_back_is_counted(
    tmp_path: Path,
) -> None:
    async with RocksMQ(tmp_path, durability=OS) as mq:
        await mq.create_channel("orders")
        await mq.produce("orders", [b"kept"] * 3)
        number, extent = mq.core.channels.find("orders").number, mq.core.channels.find("orders").visible
        for group in ("billing", "audit", "idle"):
            await mq.create_consumer_group("orders", group)
        await mq.produce("orders", [b"lost"] * 3)
        for group in ("billing", "audit"):
            await mq.consume("orders", group)
        assert told(mq)["rocksmq_positions_brought_back_total",] == 0
    # Given: the disk forgot the end of the channel.
    directory = DataDirectory(tmp_path)
    directory.store.write([Put(Family.META, keys.extent_key(number), extent.encode())])
    directory.close(in_order=True)
    # When
    async with RocksMQ(tmp_path, durability=OS) as mq:
        # Then
        found = told(mq)
        assert found["rocksmq_positions_brought_back_total",] == 2
        assert found["rocksmq_group_lag_messages", "orders", "billing"] == 0
        assert found["rocksmq_group_lag_messages", "orders", "idle"] == 3


@in_trio
async def test_given_a_broker_when_asked_then_its_build_has_a_value_for_each_label(tmp_path: Path) -> None:
    async with RocksMQ(tmp_path, durability=OS) as mq:
        text = b"".join(mq.core.telemetry.exposition()).decode()
        (line,) = (line for line in text.splitlines() if line.startswith("rocksmq_build_info{"))
        assert 'durability="os",meta="embedded"' in line


def test_given_a_loop_that_was_late_when_it_wakes_then_its_lag_is_by_how_much(tmp_path: Path) -> None:
    clock = MockClock()

    async def test() -> None:
        async with RocksMQ(tmp_path) as mq:
            await wait_all_tasks_blocked()
            clock.jump(LOOP_WATCH_SECONDS + 0.5)
            await wait_all_tasks_blocked()
            found = told(mq)
            assert found["rocksmq_event_loop_lag_seconds_count",] == 1
            assert found["rocksmq_event_loop_lag_seconds_sum",] == pytest.approx(0.5)

    trio.run(test, clock=clock)
