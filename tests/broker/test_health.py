"""Each check of /readyz: it fails with what it is about, says what to do, and heals with it."""

import errno
import os
import re
from pathlib import Path
from typing import NoReturn

import pytest
import trio

from rocksmq.broker.disk import CHECK_SECONDS, DiskGuard
from rocksmq.broker.engine import RocksMQ
from rocksmq.broker.health import Health
from rocksmq.metrics.exposition import expose
from rocksmq.protocol.errors import DiskFull, MetaUnavailable, StorageFailed

from .disk_support import Disk, fail, file_system, hold
from .remote_support import A_WHILE, broker_of, consuming, running, with_messages
from .simulated_remote import SimulatedEtcd
from .support import in_mock_time, in_trio

MIB = 1 << 20
NAMES = ("store", "disk", "meta", "draining", "clock")
TECHNICAL = re.compile(r"Traceback|[A-Za-z]+(Error|Exception)\b|object at 0x|\.py\b|/")


def wrong(health: Health) -> dict[str, str]:
    """The reasons of the checks that fail; the metrics say the same."""
    checks = health.checks()
    assert tuple(check.name for check in checks) == health.names == NAMES
    assert all(check.ok == (check.reason == "") for check in checks)
    failing = {check.name: check.reason for check in checks if not check.ok}
    text = b"".join(expose(health.families())).decode()
    assert f"\nrocksmq_ready {int(not failing)}\n" in text
    for name in NAMES[:-1]:
        assert f'\nrocksmq_ready_check{{check="{name}"}} {int(name not in failing)}\n' in text
    assert f"\nrocksmq_read_only {int('store' in failing)}\n" in text
    for reason in failing.values():
        assert not TECHNICAL.search(reason), reason
        assert ":" in reason or ";" in reason, "what is wrong, and what to do"
    return failing


@in_trio
async def test_given_a_broker_when_it_works_then_every_check_passes(tmp_path: Path) -> None:
    async with RocksMQ(tmp_path) as mq:
        assert wrong(Health(mq.core)) == {}


@in_trio
async def test_given_less_than_the_reserve_when_checked_then_disk_fails_exactly_while_produce_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with RocksMQ(tmp_path) as mq:
        now, free = 100.0, 1 << 30

        def statvfs(path: Path) -> os.statvfs_result:
            return file_system(free, 1 << 30)

        monkeypatch.setattr(os, "statvfs", statvfs)
        mq.core.disk = DiskGuard(tmp_path, clock=lambda: now)
        health = Health(mq.core)
        await mq.create_channel("orders")
        for free, is_full in ((1 << 30, False), (10 * MIB, True), (65 * MIB, True), (80 * MIB, False)):
            now += CHECK_SECONDS
            # When
            failing = wrong(health)
            # Then
            assert list(failing) == (["disk"] if is_full else [])
            if is_full:
                assert f"{free // MIB} MiB free" in failing["disk"]
                assert "64 MiB are kept in reserve" in failing["disk"]
                assert "DiskFull" in failing["disk"]
                with pytest.raises(DiskFull):
                    await mq.produce("orders", [b"x"])
            else:
                await mq.produce("orders", [b"x"])


@in_trio
async def test_given_a_file_system_that_does_not_tell_when_checked_then_disk_fails_and_writes_are_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def statvfs(path: Path) -> NoReturn:
        raise OSError(errno.ESTALE, "Stale file handle")

    async with RocksMQ(tmp_path) as mq:
        health = Health(mq.core)
        await mq.create_channel("orders")
        with monkeypatch.context() as patched:
            patched.setattr(os, "statvfs", statvfs)
            mq.core.disk = DiskGuard(tmp_path)
            failing = wrong(health)
            assert list(failing) == ["disk"]
            assert "does not tell" in failing["disk"]
            await mq.produce("orders", [b"x"])
        mq.core.disk = DiskGuard(tmp_path)
        assert wrong(health) == {}


@in_trio
async def test_given_a_store_that_fails_when_checked_then_store_fails_without_the_text_of_the_database(
    tmp_path: Path, disk: Disk
) -> None:
    with pytest.raises(StorageFailed):  # noqa: PT012
        async with RocksMQ(tmp_path) as mq:
            health = Health(mq.core)
            await mq.create_channel("orders")
            disk.on_sync = fail(StorageFailed("IO error: /secret/path: EIO"))
            with pytest.raises(StorageFailed):
                await mq.produce("orders", [b"x"])
            failing = wrong(health)
            assert list(failing) == ["store", "draining"]
            assert "exit code 5" in failing["store"]
            assert "secret" not in str(failing)


@in_trio
async def test_given_a_broker_that_stops_when_checked_then_draining_fails(tmp_path: Path) -> None:
    async with RocksMQ(tmp_path) as mq:
        health = Health(mq.core)
        await mq.drain()
        failing = wrong(health)
        assert list(failing) == ["draining"]
        assert "is stopping" in failing["draining"]


@in_mock_time
async def test_given_the_store_of_positions_away_when_checked_then_meta_fails_and_heals_by_itself() -> None:
    async with with_messages() as broker:
        health = Health(broker.core)
        assert wrong(health) == {}
        for _ in range(2):
            # When nobody asks for anything meanwhile
            broker.remote.is_away = True
            await trio.sleep(A_WHILE)
            # Then
            failing = wrong(health)
            assert list(failing) == ["meta"]
            assert "MetaUnavailable" in failing["meta"]
            assert isinstance(await broker.call(consuming(0)), MetaUnavailable)
            await broker.produce(b"goes on")
            # And
            broker.remote.is_away = False
            await trio.sleep(A_WHILE)
            assert wrong(health) == {}


@in_mock_time
async def test_given_a_start_without_the_store_of_positions_when_checked_then_meta_fails_until_it_is_there() -> None:
    before = broker_of(SimulatedEtcd())
    before.remote.is_away = True
    async with running(before) as broker:
        health = Health(broker.core)
        assert list(wrong(health)) == ["meta"]
        broker.remote.is_away = False
        await trio.sleep(A_WHILE)
        assert wrong(health) == {}


def reason_of(health: Health, name: str) -> str:
    """Of that check, empty while it passes."""
    reason = next(check.reason for check in health.checks() if check.name == name)
    assert not TECHNICAL.search(reason), reason
    return reason


@in_trio
async def test_given_a_disk_that_is_truly_full_when_checked_then_what_is_refused_is_said_until_it_goes_on(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with RocksMQ(tmp_path) as mq:
        health = Health(mq.core)
        await mq.create_channel("orders")
        disk.on_write = fail(DiskFull("full"))
        with pytest.raises(DiskFull):
            await mq.produce("orders", [b"x"])
        assert "fetch goes on" in reason_of(health, "disk")
        disk.on_write = lambda: None
        await mq.fetch("orders", "earliest")
        assert reason_of(health, "disk")
        with monkeypatch.context() as patched:  # nobody writes, as when whoever asks here keeps writers away
            patched.setattr("rocksmq.broker.health.REFUSED_SECONDS", 0.0)
            assert wrong(health) == {}
            mq.core.disk.is_full = True
            assert "fetch goes on" in reason_of(health, "disk")
            mq.core.disk.is_full = False
        assert reason_of(health, "disk")
        await mq.produce("orders", [b"x"])
        assert wrong(health) == {}


@in_trio
async def test_given_a_sync_that_does_not_come_back_when_checked_then_store_fails_until_it_does(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rocksmq.broker.health.SYNC_SECONDS_MAX", 0.0)
    async with RocksMQ(tmp_path) as mq:
        health = Health(mq.core)
        await mq.create_channel("orders")
        assert wrong(health) == {}
        mq.core.committer.sync_seconds = 1.0  # slow, so that it goes to a thread
        release, begun, disk.on_sync = hold()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(mq.produce, "orders", [b"x"])
            await begun.wait()
            assert "has not come back" in reason_of(health, "store")
            release.set()
        assert wrong(health) == {}
        assert mq.core.committer.syncing_seconds == 0
