"""The probe of the path on which messages become durable: it tells a broker that works from one whose disk hangs."""

from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from rocksmq.broker.engine import RocksMQ
from rocksmq.protocol.errors import DiskFull, RocksMQError, StorageFailed

from .disk_support import Disk, fail, hold
from .support import in_trio


@in_trio
async def test_given_nothing_to_write_when_probed_then_the_disk_is_asked_all_the_same(tmp_path: Path, disk: Disk) -> None:
    async with RocksMQ(tmp_path) as mq:
        await mq.create_channel("orders")
        for _ in range(3):
            syncs, written = disk.syncs, mq.core.committer.written_number
            await mq.probe()
            assert (disk.syncs, mq.core.committer.written_number) == (syncs + 1, written)
        await mq.produce("orders", [b"a"])
        assert (await mq.fetch("orders", "earliest")).payloads == [b"a"]


@in_trio
async def test_given_a_sync_that_hangs_when_probed_then_there_is_no_answer_until_it_goes_on(tmp_path: Path, disk: Disk) -> None:
    async with RocksMQ(tmp_path) as mq:
        await mq.create_channel("orders")
        mq.core.committer.sync_seconds = 1.0  # so that it syncs in a thread
        release, begun, disk.on_sync = hold()
        answers: list[str] = []

        async def probe() -> None:
            await mq.probe()
            answers.append("probe")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(mq.produce, "orders", [b"a"])
            await begun.wait()
            nursery.start_soon(probe)
            await wait_all_tasks_blocked()
            assert answers == []
            release.set()
        assert answers == ["probe"]


@in_trio
async def test_given_many_that_probe_and_produce_at_once_then_all_are_answered(tmp_path: Path) -> None:
    async with RocksMQ(tmp_path) as mq:
        await mq.create_channel("orders")
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(mq.probe)
                nursery.start_soon(mq.produce, "orders", [b"a"])
        assert len(await mq.fetch("orders", "earliest")) == 20


@in_trio
async def test_given_a_full_disk_when_probed_then_that_is_an_answer(tmp_path: Path, disk: Disk) -> None:
    async with RocksMQ(tmp_path) as mq:
        await mq.create_channel("orders")
        disk.on_write = fail(DiskFull("full"))
        refused: list[RocksMQError] = []

        async def produce() -> None:
            try:
                await mq.produce("orders", [b"a"])
            except RocksMQError as error:
                refused.append(error)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(produce)
            nursery.start_soon(mq.probe)
        assert [type(error) for error in refused] == [DiskFull]
        disk.on_write = lambda: None


@in_trio
async def test_given_a_sync_that_fails_when_probed_then_the_probe_finds_it(tmp_path: Path, disk: Disk) -> None:
    async def live() -> None:
        async with RocksMQ(tmp_path) as mq:
            disk.on_sync = fail(StorageFailed("broken"))
            for _ in range(2):
                with trio.CancelScope(shield=True), pytest.raises(StorageFailed, match="broken"):
                    await mq.probe()

    with pytest.raises(StorageFailed, match="broken"):
        await live()
