"""What the broker tells of itself: counts that agree with what was done, series that go with what they are of."""

import errno
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NoReturn

import pytest
import trio
import trio.testing
from prometheus_client.parser import text_string_to_metric_families as parse

from rocksmq.broker.engine import LOOP_WATCH_SECONDS, RocksMQ
from rocksmq.broker.groups import Group, Groups
from rocksmq.broker.limits import Limits
from rocksmq.broker.readings import A_TURN, of_store
from rocksmq.broker.records import Extent
from rocksmq.broker.store import Family, Put, Store
from rocksmq.metrics.catalogue import Kind, Metric
from rocksmq.metrics.exposition import LINES_A_CHUNK
from rocksmq.metrics.instruments import MetricFamily, gauge
from rocksmq.protocol.errors import ChannelNotFound, DiskFull, StorageFailed
from rocksmq.protocol.operations import DescribeGroup

from .disk_support import Disk, fail
from .support import in_trio

METRIC = Metric("extra", Kind.GAUGE, "One more.")
Found = dict[tuple[str, ...], float]
OF_CHANNELS = (
    *("rocksmq_channel_messages", "rocksmq_channel_bytes", "rocksmq_group_lag_messages", "rocksmq_group_offset_messages"),
    *("rocksmq_produced_messages_total", "rocksmq_produced_bytes_total"),
    *("rocksmq_delivered_messages_total", "rocksmq_delivered_bytes_total"),
)


def told(mq: RocksMQ, channels: Sequence[str] | None = None) -> Found:
    """Every sample by its name and its labels' values."""
    text = b"".join(mq.core.telemetry.exposition(channels)).decode()
    return {(sample.name, *sample.labels.values()): sample.value for family in parse(text) for sample in family.samples}


def of(found: Found, name: str) -> dict[tuple[str, ...], float]:
    return {labels: value for (found_name, *rest), value in found.items() if found_name == name for labels in [tuple(rest)]}


def told_of(families: Iterable[MetricFamily]) -> dict[str, list[float]]:
    """The values of each metric by its name."""
    return {metric.name: [sample.value for sample in samples if sample] for metric, samples in families}


def channels_in(found: Found) -> set[str]:
    return {labels[0] for labels in of(found, "rocksmq_channel_messages")}


@in_trio
async def test_given_messages_when_read_in_every_way_then_each_is_counted_where_it_went(tmp_path: Path) -> None:
    async with RocksMQ(tmp_path) as mq:
        # Given
        await mq.create_channel("orders")
        for group in ("billing", "idle"):
            await mq.create_consumer_group("orders", group)
        await mq.produce("orders", [b"12345"] * 10)
        # When
        await mq.consume("orders", "billing", 3)
        await mq.fetch("orders", "earliest", 4)
        found = told(mq)
        # Then
        assert found["rocksmq_produced_messages_total", "orders"] == found["rocksmq_channel_messages", "orders"] == 10
        assert found["rocksmq_produced_bytes_total", "orders"] == found["rocksmq_channel_bytes", "orders"] == 50
        delivered = {("orders", ""): 4, ("orders", "billing"): 3, ("orders", "idle"): 0}
        assert of(found, "rocksmq_delivered_messages_total") == delivered
        assert of(found, "rocksmq_delivered_bytes_total") == {labels: 5 * count for labels, count in delivered.items()}
        assert of(found, "rocksmq_group_lag_messages") == {("orders", "billing"): 7, ("orders", "idle"): 10}
        assert of(found, "rocksmq_group_offset_messages") == {("orders", "billing"): 3, ("orders", "idle"): 0}
        assert found["rocksmq_end_to_end_latency_seconds_count",] == 7
        assert (found["rocksmq_commit_messages_count",], found["rocksmq_commit_messages_sum",]) == (1, 10)
        assert found["rocksmq_wal_sync_duration_seconds_count",] >= 5
        assert found["rocksmq_channel_last_id", "orders"] - found["rocksmq_channel_first_id", "orders"] <= 256


@in_trio
async def test_given_groups_that_moved_when_asked_then_lag_is_what_describe_says(tmp_path: Path) -> None:
    async with RocksMQ(tmp_path) as mq:
        await mq.create_channel("orders")
        await mq.create_consumer_group("orders", "billing")
        for step in range(6):
            await mq.produce("orders", [b"x"] * step)
            if step % 2:
                await mq.consume("orders", "billing", step)
            if step == 4:
                await mq.seek("orders", "billing", "earliest")
            before = await mq.call(DescribeGroup("orders", "billing"))
            found = told(mq)
            after = await mq.call(DescribeGroup("orders", "billing"))
            assert found["rocksmq_group_lag_messages", "orders", "billing"] == before.lag_messages
            assert before.lag_ms <= found["rocksmq_group_lag_seconds", "orders", "billing"] * 1000 <= after.lag_ms


@in_trio
async def test_given_what_was_destroyed_when_asked_then_its_series_are_gone_at_once(tmp_path: Path) -> None:
    async with RocksMQ(tmp_path) as mq:
        for channel in ("orders", "rest"):
            await mq.create_channel(channel)
            await mq.create_consumer_group(channel, "billing")
            await mq.produce(channel, [b"x"])
        # When
        await mq.destroy_consumer_group("rest", "billing")
        await mq.destroy_channel("orders")
        # Then
        found = told(mq)
        assert not [labels for labels in found if "orders" in labels or "billing" in labels]
        assert (found["rocksmq_channels",], found["rocksmq_groups",], found["rocksmq_metrics_series",]) == (1, 0, 1)
        # And: one of the same name begins anew.
        await mq.create_channel("orders")
        assert told(mq)["rocksmq_produced_messages_total", "orders"] == 0


@in_trio
async def test_given_a_full_disk_when_a_produce_is_undone_then_nothing_counts_it(tmp_path: Path, disk: Disk) -> None:
    async with RocksMQ(tmp_path) as mq:
        await mq.create_channel("orders")
        disk.on_write = fail(DiskFull("full"))
        with pytest.raises(DiskFull):
            await mq.produce("orders", [b"x"])
        disk.on_write = lambda: None
        found = told(mq)
        assert found["rocksmq_produced_messages_total", "orders"] == found["rocksmq_commit_messages_count",] == 0
        assert found["rocksmq_commits_refused_total",] == 1


async def fill(mq: RocksMQ) -> None:
    """Three channels, with a group that read some, and one that read none."""
    for index, channel in enumerate(("a", "b", "c")):
        await mq.create_channel(channel)
        await mq.produce(channel, [b"x" * index] * 5)
        for group in ("billing", "idle"):
            await mq.create_consumer_group(channel, group)
        await mq.consume(channel, "billing", index + 1)
        await mq.fetch(channel, "earliest", 2)


@in_trio
async def test_given_too_many_series_when_asked_then_their_sums_are_told_and_all_of_them_elsewhere(tmp_path: Path) -> None:
    async with RocksMQ(tmp_path, limits=Limits(metrics_series_max=6)) as mq:
        await fill(mq)
        # When
        sums, each, some = told(mq), told(mq, ()), told(mq, ["b", "a"])
        # Then
        assert [found["rocksmq_metrics_aggregated",] for found in (sums, each, some)] == [1, 0, 0]
        assert sums["rocksmq_metrics_series",] == 9
        assert channels_in(each) == {"a", "b", "c"}
        assert channels_in(some) == {"a", "b"}
        for name in OF_CHANNELS:
            assert of(sums, name) == {(): sum(of(each, name).values())}, name
            assert of(some, name) == {labels: value for labels, value in of(each, name).items() if labels[0] != "c"}
        oldest = max(of(each, "rocksmq_group_lag_seconds").values())
        assert sums["rocksmq_group_lag_seconds",] <= oldest <= told(mq)["rocksmq_group_lag_seconds",]
        # And: what was counted stays counted, though its channel is gone; a rate over it would see a fall as a restart.
        await mq.destroy_channel("c")
        await mq.create_channel("d")
        now = told(mq)
        for name in OF_CHANNELS[4:]:
            assert of(now, name) == of(sums, name)
        assert now["rocksmq_channel_messages",] == 10


@in_trio
async def test_given_as_many_series_as_allowed_when_asked_then_each_is_told(tmp_path: Path) -> None:
    async with RocksMQ(tmp_path, limits=Limits(metrics_series_max=9)) as mq:
        await fill(mq)
        assert channels_in(told(mq)) == {"a", "b", "c"}


@in_trio
async def test_given_an_unknown_channel_when_asked_for_then_it_is_refused_before_anything_is_told(tmp_path: Path) -> None:
    async with RocksMQ(tmp_path) as mq:
        with pytest.raises(ChannelNotFound, match="'orders'"):
            mq.core.telemetry.exposition(["orders"])


@in_trio
async def test_given_a_scrape_that_is_half_done_when_channels_come_and_go_then_it_goes_on(tmp_path: Path) -> None:
    async with RocksMQ(tmp_path) as mq:
        # Given
        for number in range(3 * LINES_A_CHUNK):
            await mq.create_channel(f"orders-{number:03}")
        chunks = mq.core.telemetry.exposition(())
        text = b""
        while b"rocksmq_produced_messages_total{" not in text:
            text += next(chunks)
        # When
        await mq.destroy_channel("orders-149")
        await mq.create_channel("late")
        text += b"".join(chunks)
        # Then
        assert b"orders-149" not in text
        assert b"rocksmq_group_waiting_consumers{" not in text
        assert text.count(b"rocksmq_channel_bytes{") == 3 * LINES_A_CHUNK - 1


@in_trio
async def test_given_a_channel_that_is_named_twice_when_asked_then_it_is_told_once(tmp_path: Path) -> None:
    async with RocksMQ(tmp_path) as mq:
        await mq.create_channel("orders")
        text = b"".join(mq.core.telemetry.exposition(["orders", "orders"]))
        assert text.count(b"rocksmq_channel_bytes{") == 1


@in_trio
async def test_given_families_that_are_kept_when_read_later_then_each_has_its_own_values(tmp_path: Path) -> None:
    async with RocksMQ(tmp_path) as mq:
        await mq.create_channel("orders")
        await mq.produce("orders", [b"12345"] * 3)
        values = told_of(list(mq.core.telemetry.families()))
        assert (values["rocksmq_channel_messages"], values["rocksmq_channel_bytes"]) == ([3], [15])


@in_trio
async def test_given_claims_that_are_undone_when_read_again_then_only_what_was_answered_counts(
    tmp_path: Path, disk: Disk
) -> None:
    async with RocksMQ(tmp_path) as mq:
        await mq.create_channel("orders")
        await mq.create_consumer_group("orders", "billing")
        await mq.produce("orders", [b"x"] * 10)
        disk.on_write = fail(DiskFull("full"))
        for _ in range(3):
            with pytest.raises(DiskFull):
                await mq.consume("orders", "billing", 5)
        disk.on_write = lambda: None
        assert told(mq)["rocksmq_end_to_end_latency_seconds_count",] == 0
        await mq.consume("orders", "billing", 5)
        found = told(mq)
        assert found["rocksmq_delivered_messages_total", "orders", "billing"] == 5
        assert found["rocksmq_end_to_end_latency_seconds_count",] == 5


@in_trio
async def test_given_readers_at_the_beginning_when_it_is_in_memory_then_the_cache_was_hit(tmp_path: Path) -> None:
    async with RocksMQ(tmp_path) as mq:
        await mq.create_channel("orders")
        await mq.create_consumer_group("orders", "billing")
        await mq.produce("orders", [b"x"] * 10)
        await mq.consume("orders", "billing", 3)
        await mq.fetch("orders", 0, 3)
        await mq.fetch("orders", "earliest", 3)
        assert of(told(mq), "rocksmq_tail_cache_reads_total") == {("hit",): 3, ("miss",): 0}
    async with RocksMQ(tmp_path) as mq:
        await mq.fetch("orders", "earliest", 3)
        assert of(told(mq), "rocksmq_tail_cache_reads_total") == {("hit",): 0, ("miss",): 1}


@in_trio
async def test_given_a_large_answer_when_it_waits_for_a_commit_then_that_has_not_written_it(tmp_path: Path) -> None:
    async with RocksMQ(tmp_path) as mq:
        await mq.create_channel("orders")
        await mq.create_consumer_group("orders", "billing")
        await mq.produce("orders", [b"x" * 1_000_000])
        before = told(mq)["rocksmq_commit_bytes_sum",]
        assert before > 1_000_000
        await mq.consume("orders", "billing")
        assert told(mq)["rocksmq_commit_bytes_sum",] - before < 1_000


@in_trio
async def test_given_a_file_system_that_does_not_answer_when_asked_then_the_rest_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with RocksMQ(tmp_path) as mq:

        def refuse(path: Path) -> None:
            raise OSError(errno.EIO, "no answer")

        assert ("rocksmq_disk_free_bytes",) in told(mq)
        monkeypatch.setattr("os.statvfs", refuse)
        found = told(mq)
        assert ("rocksmq_disk_free_bytes",) not in found
        assert found["rocksmq_channels",] == 0


@in_trio
async def test_given_metrics_that_fail_when_asked_then_the_others_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with RocksMQ(tmp_path) as mq:

        def failing() -> Iterator[MetricFamily]:
            yield gauge(METRIC, 1)
            raise ZeroDivisionError

        mq.core.telemetry.add(failing)
        assert told(mq)["rocksmq_channels",] == told(mq)["extra",] - 1 == 0
        assert "some metrics are missing" in caplog.text


@in_trio
async def test_given_a_group_whose_place_cannot_be_read_when_asked_then_only_its_age_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with RocksMQ(tmp_path) as mq:
        await mq.create_channel("orders")
        await mq.produce("orders", [b"x"] * 3)
        await mq.create_consumer_group("orders", "billing")

        def damaged(channel_number: int, position: int, extent: Extent) -> NoReturn:
            raise StorageFailed("damaged")

        monkeypatch.setattr(mq.core.log, "place", damaged)
        found = told(mq)
        assert of(found, "rocksmq_group_lag_messages") == {("orders", "billing"): 3}
        assert of(found, "rocksmq_group_lag_seconds") == {}


def test_given_a_flush_that_fails_in_the_background_when_asked_then_it_was_counted(tmp_path: Path, store: Store) -> None:
    store.write([Put(Family.META, b"key", b"value")])
    assert told_of(of_store(store))["rocksmq_storage_background_errors_total"] == [0]
    last = max(int(path.stem) for path in (tmp_path / "db").iterdir() if path.stem.isdigit())
    for number in range(last + 1, last + 20):
        (tmp_path / "db" / f"{number:06}.sst").mkdir()  # in the way of the next table
    with pytest.raises(Exception, match="irectory"):
        store._families[Family.META].flush(True)  # pyright: ignore[reportPrivateUsage]
    assert told_of(of_store(store))["rocksmq_storage_background_errors_total"] == [1]


@pytest.mark.parametrize("series_max", [1, 1_000])
@in_trio
async def test_given_many_groups_that_have_not_moved_when_asked_then_a_few_are_read_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, series_max: int
) -> None:
    async with RocksMQ(tmp_path, limits=Limits(metrics_series_max=series_max)) as mq:
        # Given
        await mq.create_channel("orders")
        await mq.produce("orders", [b"x"])
        for number in range(4 * A_TURN):
            await mq.create_consumer_group("orders", f"group-{number}")
        told(mq)
        reads = 0
        lag = Groups.lag

        def counted(groups: Groups, group: Group, extent: Extent) -> int:
            nonlocal reads
            reads += 1
            return lag(groups, group, extent)

        monkeypatch.setattr(Groups, "lag", counted)
        # When
        at_chunks = [0]
        for _ in mq.core.telemetry.exposition():
            at_chunks.append(reads)
        # Then
        assert reads >= 8 * A_TURN
        assert max(later - earlier for earlier, later in pairwise(at_chunks)) <= 2 * A_TURN


@pytest.mark.parametrize("series_max", [1, 1_000])
@in_trio
async def test_given_groups_that_stand_in_the_store_when_asked_then_each_look_up_is_a_turn_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, series_max: int
) -> None:
    async with RocksMQ(tmp_path, limits=Limits(metrics_series_max=series_max, tail_cache_bytes=1)) as mq:
        # Given
        await mq.create_channel("orders")
        for number in range(20):
            ids = await mq.produce("orders", [b"x"])
            await mq.create_consumer_group("orders", f"group-{number}", start=ids[0])
        mq.core.log.roll_back()  # forgets what was looked up for that
        scans = 0
        scan = Store.scan

        def counted(store: Store, *arguments: bytes, **named: bool) -> Iterator[tuple[bytes, bytes]]:
            nonlocal scans
            scans += 1
            return scan(store, *arguments, **named)  # type: ignore[arg-type]

        monkeypatch.setattr(Store, "scan", counted)
        # When
        at_chunks = [0]
        for _ in mq.core.telemetry.exposition():
            at_chunks.append(scans)
        # Then
        assert scans == 19, "the channel's first message needs none"
        assert all(later - earlier <= 1 for earlier, later in pairwise(at_chunks))
        # And: what has not moved is not looked up again.
        told(mq)
        assert scans == 19, "the channel's first message needs none"


@in_trio
async def test_given_a_loop_that_was_held_when_it_wakes_then_its_lag_is_counted(tmp_path: Path) -> None:
    async with RocksMQ(tmp_path) as mq:
        lag = mq.core.telemetry.loop_lag
        await trio.testing.wait_all_tasks_blocked()
        before = lag.total
        time.sleep(LOOP_WATCH_SECONDS + 0.2)  # holds it
        with trio.fail_after(10):
            while lag.total - before < 0.1:
                await trio.sleep(0.01)
