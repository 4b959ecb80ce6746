"""Each figure of disk and database, driven to a value that is known beforehand."""

import os
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace

import pytest
from prometheus_client.parser import text_string_to_metric_families as parse

from rocksmq.broker.engine import RocksMQ
from rocksmq.broker.health import Health
from rocksmq.broker.readings import of_store
from rocksmq.broker.store import Family, Put, Store
from rocksmq.metrics.exposition import expose
from rocksmq.metrics.instruments import MetricFamily
from rocksmq.protocol.errors import StorageFailed

from .disk_support import Disk, fail, file_system
from .support import in_trio
from .test_telemetry import Found, of, told

MIB = 1 << 20
WRITE, SYNC = "rocksmq_wal_write_duration_seconds", "rocksmq_wal_sync_duration_seconds"


def shown(families: Iterable[MetricFamily]) -> Found:
    text = b"".join(expose(families)).decode()
    return {(sample.name, *sample.labels.values()): sample.value for family in parse(text) for sample in family.samples}


@in_trio
async def test_given_a_disk_that_takes_its_time_when_a_produce_is_durable_then_each_step_is_timed_in_seconds(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr("rocksmq.broker.telemetry.time", SimpleNamespace(perf_counter=lambda: now))

    def lasting(seconds: float) -> None:
        nonlocal now
        now += seconds

    async with RocksMQ(tmp_path) as mq:
        await mq.create_channel("orders")
        before = told(mq)
        disk.on_write, disk.on_sync = lambda: lasting(0.25), lambda: lasting(2.0)
        # When
        for _ in range(2):
            await mq.produce("orders", [b"x"])
        found = told(mq)
        disk.on_write = disk.on_sync = lambda: None
    # Then
    for name, seconds in ((WRITE, 0.25), (SYNC, 2.0)):
        assert before[f"{name}_sum",] == 0
        assert found[f"{name}_sum",] == 2 * seconds
        assert found[f"{name}_count",] - before[f"{name}_count",] == 2


@pytest.mark.parametrize("where", ["on_write", "on_sync"])
@in_trio
async def test_given_a_disk_that_fails_when_a_produce_is_refused_then_it_counts_and_the_broker_is_read_only(
    tmp_path: Path, disk: Disk, where: str
) -> None:
    seen: list[Found] = []
    with pytest.raises(StorageFailed):  # noqa: PT012
        async with RocksMQ(tmp_path) as mq:
            await mq.create_channel("orders")
            mq.core.telemetry.add(Health(mq.core).families)
            seen.append(told(mq))
            setattr(disk, where, fail(StorageFailed("broken")))
            with pytest.raises(StorageFailed):
                await mq.produce("orders", [b"x"])
            seen.append(told(mq))
    for name in ("rocksmq_wal_sync_failures_total", "rocksmq_read_only"):
        assert [found[name,] for found in seen] == [0, 1]
    for name in (WRITE, SYNC):
        counts = [found[f"{name}_count",] for found in seen]
        assert counts[1] - counts[0] == (1 if (name, where) == (WRITE, "on_sync") else 0), "what failed has no time"
    assert seen[1]["rocksmq_produced_messages_total", "orders"] == 0


@in_trio
async def test_given_a_disk_that_fills_up_when_asked_then_each_of_its_sizes_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = 600 * MIB

    def statvfs(path: Path) -> os.statvfs_result:
        return file_system(free, 10_000 * MIB)

    async with RocksMQ(tmp_path) as mq:
        monkeypatch.setattr(os, "statvfs", statvfs)
        # 500 MiB are 5 %; once it was full, a fifth more must be free before it is not.
        for free, is_full in ((600 * MIB, 0), (500 * MIB, 0), (499 * MIB, 1), (599 * MIB, 1), (600 * MIB, 0)):
            found = told(mq)
            assert found["rocksmq_disk_free_bytes",] == free
            assert found["rocksmq_disk_total_bytes",] == 10_000 * MIB
            assert found["rocksmq_disk_reserve_bytes",] == 500 * MIB
            assert found["rocksmq_disk_full",] == is_full


def test_given_a_memtable_when_it_is_written_to_a_table_then_its_bytes_are_there(tmp_path: Path, store: Store) -> None:
    def of_files(ending: str) -> int:
        return sum(file.stat().st_size for file in (tmp_path / "db").glob(f"*.{ending}"))

    # Given
    empty = shown(of_store(store))
    value = os.urandom(300_000)
    store.write([Put(Family.DATA, b"key", value)])
    store.sync()
    # When
    before = shown(of_store(store))
    for family in store._families:  # pyright: ignore[reportPrivateUsage]
        family.flush(True)
    after = shown(of_store(store))
    # Then
    disk, memory = (f"rocksmq_storage_{what}_bytes" for what in ("disk", "memory"))
    assert before[disk, "sst"] == 0
    assert before[disk, "wal"] - empty[disk, "wal"] > len(value)
    assert after[disk, "sst"] == of_files("sst") > len(value)
    assert after[disk, "wal"] == of_files("log") < len(value)
    assert before[memory, "memtables"] - empty[memory, "memtables"] >= len(value)
    assert after[memory, "memtables"] - empty[memory, "memtables"] < len(value)
    # And: what is read of the table is in the block cache.
    assert store.get(Family.DATA, b"key") == value
    found = of(shown(of_store(store)), memory)
    assert found["block_cache",] - after[memory, "block_cache"] >= len(value)
    assert 0 <= found["table_readers",] < len(value)
