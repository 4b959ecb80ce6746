"""What is removed leaves the disk: at once, when a little has waited, while the disk is full, and after a restart."""

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from rocksmq.broker import space
from rocksmq.broker.engine import RocksMQ
from rocksmq.broker.retention import RetentionSection
from rocksmq.broker.store import Family, Store
from rocksmq.protocol.errors import StorageFailed

from .disk_support import crashed, table_sizes
from .support import in_trio

MIB = 1 << 20
MESSAGE = 64 * 1024


def on_disk(path: Path) -> int:
    """Of tables, in which removed messages may stay."""
    return sum(table_sizes(path / "db"))


async def fill(mq: RocksMQ, channel: str, size: int) -> None:
    """With what cannot be compressed, and is in tables, not only in memory."""
    for _ in range(size // (16 * MESSAGE)):
        await mq.produce(channel, [os.urandom(MESSAGE) for _ in range(16)])
    mq.core.log._store._families[0].flush()  # pyright: ignore[reportPrivateUsage]


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(60):
        while not condition():
            await trio.sleep(0.01)


@in_trio
async def test_given_a_channel_when_destroyed_then_its_space_is_given_back_without_more_writes(tmp_path: Path) -> None:
    async with RocksMQ(tmp_path) as mq:
        await mq.create_channel("orders")
        await fill(mq, "orders", 8 * MIB)
        assert on_disk(tmp_path) > 8 * MIB
        await mq.destroy_channel("orders")
        await until(lambda: on_disk(tmp_path) < 2 * MIB)


@in_trio
async def test_given_much_that_is_removed_when_trimmed_then_its_space_is_given_back_at_once(tmp_path: Path) -> None:
    async with RocksMQ(tmp_path) as mq:
        await mq.create_channel("orders", retention={})
        await fill(mq, "orders", 24 * MIB)
        await mq.set_retention("orders", {"max_bytes": 2 * MIB})
        await until(lambda: on_disk(tmp_path) < 3 * MIB)
        assert len((await mq.fetch("orders", "earliest", n=1_000)).payloads) == 2 * MIB // MESSAGE


@in_trio
async def test_given_little_that_is_removed_when_the_disk_is_full_then_its_space_is_given_back_at_once(tmp_path: Path) -> None:
    async with RocksMQ(tmp_path) as mq:
        await mq.create_channel("orders")
        await fill(mq, "orders", 8 * MIB)
        await mq.set_retention("orders", {"max_messages": 1})
        await until(lambda: mq.core.retention.removed_bytes > 7 * MIB)
        assert on_disk(tmp_path) > 8 * MIB, "it is not worth a compaction yet"
        mq.core.disk.look = lambda: None  # type: ignore[method-assign]
        mq.core.disk.is_full = True
        await until(lambda: on_disk(tmp_path) < 2 * MIB)


@in_trio
async def test_given_little_that_is_removed_when_it_has_waited_then_its_space_is_given_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(space, "WAIT_SECONDS", 0.5)
    async with RocksMQ(tmp_path) as mq:
        await mq.create_channel("orders", retention={"max_messages": 1})
        await fill(mq, "orders", 8 * MIB)
        await until(lambda: on_disk(tmp_path) < 2 * MIB)


@pytest.mark.parametrize("is_destroyed", [True, False])
@in_trio
async def test_given_a_crash_before_the_compaction_when_started_again_then_the_space_is_given_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_destroyed: bool
) -> None:
    compact = Store.compact

    def idle(store: Store, *span: object) -> None:
        """As if the crash came first."""

    async with RocksMQ(tmp_path / "data") as mq:
        await mq.create_channel("kept")
        await mq.produce("kept", [b"before"])
        await mq.create_channel("orders")
        await fill(mq, "orders", 24 * MIB)
        monkeypatch.setattr(Store, "compact", idle)
        if is_destroyed:
            await mq.destroy_channel("orders")
        else:
            await mq.set_retention("orders", {"max_messages": 1})
            await until(lambda: mq.core.retention.removed_bytes > 23 * MIB)
        copy = crashed(tmp_path / "data")
    assert on_disk(copy) > 24 * MIB
    monkeypatch.setattr(Store, "compact", compact)
    async with RocksMQ(copy) as mq:
        await until(lambda: on_disk(copy) < 2 * MIB)
        assert (await mq.fetch("kept", "earliest")).payloads == [b"before"]


@in_trio
async def test_given_a_compaction_that_fails_when_tried_again_then_the_space_is_given_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(space, "RETRY_SECONDS", 0.05)
    compact, failures = Store.compact, [StorageFailed("the database could not compact: no room")] * 3

    def compact_at_last(store: Store, *span: object) -> None:
        if failures:
            raise failures.pop()
        compact(store, *span)  # type: ignore[arg-type]

    monkeypatch.setattr(Store, "compact", compact_at_last)
    async with RocksMQ(tmp_path) as mq:
        await mq.create_channel("orders")
        await fill(mq, "orders", 8 * MIB)
        await mq.destroy_channel("orders")
        await until(lambda: on_disk(tmp_path) < 2 * MIB)
    told = [record.message for record in caplog.records if record.name == "rocksmq.broker"]
    assert told == ["the space of removed messages is given back later: the database could not compact: no room"] * 3


@in_trio
async def test_given_a_compaction_that_takes_long_when_stopped_then_it_ends_and_the_next_start_does_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    compact, stop = Store.compact, Store.stop_compacting
    begun, stopped = trio.Event(), threading.Event()

    def compact_late(store: Store, family: Family, begin: bytes, end: bytes) -> None:
        store._is_compacting = True  # pyright: ignore[reportPrivateUsage]
        trio.from_thread.run_sync(begun.set)
        assert stopped.wait(60)
        compact(store, family, begin, end)

    def stop_now(store: Store) -> None:
        stop(store)
        stopped.set()

    monkeypatch.setattr(Store, "compact", compact_late)
    monkeypatch.setattr(Store, "stop_compacting", stop_now)
    async with RocksMQ(tmp_path) as mq:
        await mq.create_channel("orders")
        await fill(mq, "orders", 8 * MIB)
        await mq.destroy_channel("orders")
        await begun.wait()
    assert not [record for record in caplog.records if record.levelname == "ERROR"], "nothing is lost by that"
    assert on_disk(tmp_path) > 8 * MIB
    monkeypatch.undo()
    async with RocksMQ(tmp_path):
        await until(lambda: on_disk(tmp_path) < 2 * MIB)


@in_trio
async def test_given_a_cap_of_the_broker_when_channels_grow_then_the_oldest_messages_go_and_the_disk_with_them(
    tmp_path: Path,
) -> None:
    async with RocksMQ(tmp_path, retention=RetentionSection(total_bytes_max=8 * MIB)) as mq:
        await mq.create_channel("old")
        await mq.create_channel("new")
        await fill(mq, "old", 16 * MIB)
        await fill(mq, "new", 24 * MIB)
        await until(lambda: mq.core.retention.removed_bytes >= 32 * MIB)
        held = {name: mq.core.channels.find(name).visible.byte_count for name in ("old", "new")}
        assert held["old"] == 0
        assert 8 * MIB - MESSAGE <= held["new"] <= 8 * MIB
        await until(lambda: on_disk(tmp_path) < 10 * MIB)
