"""One write and one sync for what belongs together, nothing seen before it is durable, and a disk that fails."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from rocksmq.broker.durability import Durability
from rocksmq.broker.engine import RocksMQ
from rocksmq.broker.ids import IDAllocator
from rocksmq.protocol.errors import DiskFull, GroupNotFound, StorageFailed
from rocksmq.protocol.operations import Consume, CreateGroup, DescribeGroup, Position

from .disk_support import Disk, crashed, fail, hold, table_sizes
from .support import NOON_MS, in_trio

DAY_MS = 24 * 3600 * 1000


# -- one write, one sync ---------------------------------------------------------------


@in_trio
async def test_given_a_consumer_that_waits_when_one_produces_then_its_claim_rides_in_the_same_sync(
    tmp_path: Path, disk: Disk
) -> None:
    path = tmp_path / "data"
    got: list[bytes] = []
    async with RocksMQ(path) as mq:
        await mq.create_channel("orders")
        await mq.create_consumer_group("orders", "billing")
        await mq.produce("orders", [b"before"])
        await mq.consume("orders", "billing")

        async def consume() -> None:
            got.extend((await mq.consume("orders", "billing", timeout=30)).payloads)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(consume)
            await wait_all_tasks_blocked()
            before = disk.syncs
            await mq.produce("orders", [b"live"])
        assert got == [b"live"]
        assert disk.syncs == before + 1
        copy = crashed(path)
    async with RocksMQ(copy) as mq:
        assert (await mq.call(DescribeGroup("orders", "billing"))).lag_messages == 0


@in_trio
async def test_given_many_at_once_when_they_produce_then_they_share_a_sync(tmp_path: Path, disk: Disk) -> None:
    async with RocksMQ(tmp_path) as mq:
        await mq.create_channel("orders")
        await mq.produce("orders", [b"before"])
        before = disk.syncs
        async with trio.open_nursery() as nursery:
            for number in range(50):
                nursery.start_soon(mq.produce, "orders", [b"%d" % number])
        assert disk.syncs - before == 1
        assert len(await mq.fetch("orders", "earliest")) == 51


@in_trio
async def test_given_os_durability_when_produced_and_consumed_then_nothing_is_synced(tmp_path: Path, disk: Disk) -> None:
    async with RocksMQ(tmp_path, durability=Durability.parse("os")) as mq:
        await mq.create_channel("orders")
        await mq.create_consumer_group("orders", "billing")
        before = disk.syncs
        await mq.produce("orders", [b"a"])
        await mq.consume("orders", "billing")
        assert disk.syncs == before
        await mq.seek("orders", "billing", "earliest")
        assert disk.syncs == before + 1


@in_trio
async def test_given_os_durability_when_new_ids_are_needed_then_nothing_is_answered_or_seen_before_they_are_synced(
    tmp_path: Path, disk: Disk
) -> None:
    now = [NOON_MS]
    release, begun, held = hold()
    answered: list[range] = []
    async with RocksMQ(tmp_path, IDAllocator(clock=lambda: now[0]), durability=Durability.parse("os")) as mq:
        await mq.create_channel("orders")
        now[0] += DAY_MS
        disk.on_sync = held
        mq.core.committer.sync_seconds = 1.0

        async def produce() -> None:
            answered.append(await mq.produce("orders", [b"a"]))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(produce)
            await begun.wait()
            await wait_all_tasks_blocked()
            assert answered == []
            assert (await mq.fetch("orders", "earliest")).payloads == []
            release.set()
        assert (await mq.fetch("orders", "earliest")).payloads == [b"a"]


@in_trio
async def test_given_a_slow_sync_when_others_read_then_they_see_nothing_that_is_not_durable(tmp_path: Path, disk: Disk) -> None:
    release, begun, held = hold()
    async with RocksMQ(tmp_path) as mq:
        await mq.create_channel("orders")
        await mq.create_consumer_group("orders", "billing")
        await mq.produce("orders", [b"durable"])
        disk.on_sync = held
        mq.core.committer.sync_seconds = 1.0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(mq.produce, "orders", [b"not yet"])
            nursery.start_soon(mq.consume, "orders", "billing")
            await begun.wait()
            assert (await mq.fetch("orders", "earliest")).payloads == [b"durable"]
            described: list[int] = []

            async def describe() -> None:
                described.append((await mq.call(DescribeGroup("orders", "billing"))).lag_messages)

            nursery.start_soon(describe)
            await wait_all_tasks_blocked()
            assert described in ([], [1])
            release.set()
        assert (await mq.fetch("orders", "earliest")).payloads == [b"durable", b"not yet"]
        assert (await mq.call(DescribeGroup("orders", "billing"))).lag_messages == 1


@in_trio
async def test_given_a_consume_cancelled_after_its_claim_was_written_then_the_next_one_gets_the_same_messages(
    tmp_path: Path, disk: Disk
) -> None:
    release, begun, held = hold()
    async with RocksMQ(tmp_path) as mq:
        await mq.create_channel("orders")
        await mq.create_consumer_group("orders", "billing")
        await mq.produce("orders", [b"a", b"b"])
        disk.on_sync = held
        mq.core.committer.sync_seconds = 1.0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(mq.consume, "orders", "billing")
            await begun.wait()
            nursery.cancel_scope.cancel()
        release.set()
        assert (await mq.consume("orders", "billing", timeout=30)).payloads == [b"a", b"b"]
        assert (await mq.consume("orders", "billing")).payloads == []


# -- a failing disk --------------------------------------------------------------------


@in_trio
async def test_given_a_full_disk_when_produced_then_nothing_is_stored_reads_go_on_and_it_heals(
    tmp_path: Path, disk: Disk
) -> None:
    path = tmp_path / "data"
    async with RocksMQ(path) as mq:
        await mq.create_channel("orders")
        await mq.create_consumer_group("orders", "billing")
        await mq.produce("orders", [b"a"])
        disk.on_write = fail(DiskFull("no room"))
        for _ in range(3):
            with pytest.raises(DiskFull):
                await mq.produce("orders", [b"lost"])
            with pytest.raises(DiskFull):
                await mq.consume("orders", "billing")
            with pytest.raises(DiskFull):
                await mq.create_channel("new")
            assert (await mq.fetch("orders", "earliest")).payloads == [b"a"]
        disk.on_write = lambda: None
        await mq.produce("orders", [b"b"])
        assert (await mq.consume("orders", "billing")).payloads == [b"a", b"b"]
        assert mq.core.channels.get("new") is None
        copy = crashed(path)
    async with RocksMQ(copy) as mq:
        assert (await mq.fetch("orders", "earliest")).payloads == [b"a", b"b"]


@pytest.mark.parametrize("where", ["write", "sync"])
def test_given_a_store_that_fails_when_used_then_everybody_is_told_and_the_engine_ends(
    tmp_path: Path, disk: Disk, where: str
) -> None:
    errors: list[StorageFailed] = []

    @in_trio
    async def scenario() -> None:
        async def told(call: Callable[[], object]) -> None:
            with pytest.raises(StorageFailed) as raised:
                await call()  # type: ignore[misc]  # pyright: ignore[reportGeneralTypeIssues]
            errors.append(raised.value)

        async with trio.open_nursery() as users, RocksMQ(tmp_path) as mq:
            await mq.create_channel("orders")
            await mq.create_consumer_group("orders", "billing")
            users.start_soon(told, lambda: mq.consume("orders", "billing", timeout=30))
            await wait_all_tasks_blocked()
            setattr(disk, f"on_{where}", fail(StorageFailed("broken")))
            users.start_soon(told, lambda: mq.produce("orders", [b"a"]))
            await trio.sleep_forever()

    with pytest.RaisesGroup(StorageFailed, flatten_subgroups=True):
        scenario()
    assert len(errors) == 2
    assert errors[0] is not errors[1]
    disk.on_write = disk.on_sync = lambda: None

    @in_trio
    async def again() -> None:
        async with RocksMQ(tmp_path) as mq:
            assert len(await mq.fetch("orders", "earliest")) <= 1

    again()


@in_trio
async def test_given_an_engine_whose_store_failed_when_used_later_then_it_says_so(tmp_path: Path, disk: Disk) -> None:
    mq = RocksMQ(tmp_path)

    async def use() -> None:
        async with mq:
            await mq.create_channel("orders")
            disk.on_sync = fail(StorageFailed("broken"))
            await mq.produce("orders", [b"a"])

    with pytest.raises(StorageFailed):
        await use()
    with trio.fail_after(30), pytest.raises(StorageFailed, match="broken"):
        await mq.call(DescribeGroup("orders", "billing"))


@in_trio
async def test_given_a_channel_of_many_bytes_when_destroyed_then_the_disk_gets_them_back(tmp_path: Path) -> None:
    megabyte = os.urandom(1 << 20)

    def tables() -> int:
        return sum(table_sizes(tmp_path / "db"))

    async with RocksMQ(tmp_path, durability=Durability.parse("os")) as mq:
        await mq.create_channel("orders")
        for _ in range(12):
            await mq.produce("orders", [megabyte] * 6)
        with trio.fail_after(30):
            while tables() < 32 << 20:
                await trio.sleep(0.01)
            await mq.destroy_channel("orders")
            while tables() > 4 << 20:
                await trio.sleep(0.01)


@in_trio
async def test_given_a_consumer_parked_on_a_group_being_made_when_the_disk_is_full_then_it_is_told_and_the_broker_lives(
    tmp_path: Path, disk: Disk
) -> None:
    async with RocksMQ(tmp_path) as mq:
        await mq.create_channel("orders")
        answers: list[object] = []
        disk.on_write = fail(DiskFull("full"))
        mq.core.submit(CreateGroup("orders", "billing", Position.EARLIEST, 0, bytes(16)), answers.append)
        consume = Consume("orders", "billing", (mq.core.ids.present_id).to_bytes(8, "big") + bytes(8), 0, 1, 1, 30_000)
        mq.core.submit(consume, answers.append)
        await wait_all_tasks_blocked()
        assert {type(answer) for answer in answers} == {DiskFull, GroupNotFound}
        disk.on_write = lambda: None
        assert await mq.create_consumer_group("orders", "billing")
