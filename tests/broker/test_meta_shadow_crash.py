"""A store elsewhere that loses what it has acknowledged, and a broker that dies, loses power or has a full disk meanwhile."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
import trio

from rocksmq.broker import meta_mirror, meta_remote
from rocksmq.protocol.errors import MetaUnavailable
from rocksmq.protocol.operations import DestroyChannel, Empty

from .remote_support import A_WHILE, Broker, broker_of, running
from .shadow_support import (
    Disk,
    Reader,
    begun,
    check_goes_on,
    destroyed,
    fill_disk,
    free_disk,
    known,
    shadow_of,
    told,
    until_ahead,
)
from .simulated_broker import Killed
from .simulated_remote import Fate
from .support import in_mock_time

# -- the disk ---------------------------------------------------------------------------------


@in_mock_time
async def test_given_a_full_disk_when_positions_move_then_it_goes_on_and_the_copy_is_whole_once_there_is_room() -> None:
    broker = broker_of()
    async with running(broker):
        readers = await begun(broker, "billing", "audit", "third")
        fill_disk(broker)
        await readers[0].read(broker)
        await destroyed(broker, "third")
        free_disk(broker)
        past = broker.etcd.read()
        await readers[1].read(broker)
    broker.etcd.go_back(past)
    broker.start()
    async with running(broker):
        assert set(known(broker)) == {("billing", "orders"), ("audit", "orders")}
        await check_goes_on(broker, readers[:2])


@in_mock_time
async def test_given_a_full_disk_when_killed_then_the_store_is_what_counts() -> None:
    broker = broker_of()
    async with running(broker):
        readers = await begun(broker, "billing", "audit")
        fill_disk(broker)
        for reader in readers:
            await reader.read(broker)
    free_disk(broker)
    broker.start()
    async with running(broker):
        await check_goes_on(broker, readers)


@pytest.mark.parametrize("is_cut", [False, True], ids=["killed", "power cut"])
@pytest.mark.parametrize("seconds", [0.0, 0.05, 0.5, A_WHILE])
def test_given_positions_that_a_full_disk_kept_from_the_copy_when_the_store_goes_back_and_it_is_killed_then_none_is_lost(
    seconds: float, is_cut: bool
) -> None:
    """With room again since then."""

    @in_mock_time
    async def scenario() -> None:
        broker = broker_of()
        async with running(broker):
            readers = await begun(broker, "billing", "audit")
            past = broker.etcd.read()
            disk = Disk(broker)
            fill_disk(broker)
            for reader in readers:
                await reader.read(broker)
            free_disk(broker)
            broker.etcd.go_back(past)
            with trio.move_on_after(meta_remote.KEEP_ALIVE_SECONDS + seconds):
                await until_ahead(broker)
            await trio.sleep(seconds)
        if is_cut:
            disk.cut()
        broker.start()
        async with running(broker):
            await check_goes_on(broker, readers)

    scenario()


@pytest.mark.parametrize("end", ["killed", "goes on"])
def test_given_a_full_disk_when_the_store_goes_back_then_nothing_is_done_there_until_there_is_room(end: str) -> None:
    @in_mock_time
    async def scenario() -> None:
        broker = broker_of()
        async with running(broker):
            readers = await begun(broker, "billing", "audit")
            past = broker.etcd.read()
            for reader in readers:
                await reader.read(broker)
            fill_disk(broker)
            broker.etcd.go_back(past)
            assert isinstance(await broker.consume(readers[0].number, n=1), MetaUnavailable)
            await trio.sleep(A_WHILE)
            assert told(broker.etcd) != known(broker)
            free_disk(broker)
            if end == "goes on":
                await check_goes_on(broker, readers)
        broker.start()
        async with running(broker):
            await check_goes_on(broker, readers)

    scenario()


@pytest.mark.parametrize("is_cut", [False, True], ids=["killed", "power cut"])
@pytest.mark.parametrize("is_full", [False, True])
def test_given_all_that_was_told_again_when_it_goes_on_and_dies_then_what_was_acknowledged_since_counts(
    is_full: bool, is_cut: bool
) -> None:
    @in_mock_time
    async def scenario() -> None:
        broker = broker_of()
        async with running(broker):
            readers = await begun(broker, "billing", "audit")
            disk = Disk(broker)
            past = broker.etcd.read()
            await readers[0].read(broker)
            broker.etcd.go_back(past)
            await trio.sleep(A_WHILE)
            if is_full:
                fill_disk(broker)
            for reader in readers:
                await reader.read(broker)
        if is_cut:
            disk.cut()
        free_disk(broker)
        broker.start()
        async with running(broker):
            await check_goes_on(broker, readers)

    scenario()


# -- a crash anywhere in between ----------------------------------------------------------------


class Death:
    """The end of a broker at the given one of its calls, writes and syncs, or of transactions that are applied."""

    def __init__(self, broker: Broker, at: int) -> None:
        self.has_come = False
        self._left = at
        self._broker = broker
        self._hooks = broker.store.on_sync, broker.etcd.on_applied

    def arm(self) -> None:
        """From now on events count."""
        on_sync = self._broker.store.on_sync

        def sync() -> None:
            self._step()
            on_sync()

        self._broker.store.on_write, self._broker.store.on_sync = self._step, sync
        self._broker.remote.on_call = self._step
        self._broker.etcd.on_applied = lambda transaction: self._step()

    def disarm(self) -> None:
        self._broker.store.on_write = lambda: None
        self._broker.store.on_sync, self._broker.etcd.on_applied = self._hooks

    def _step(self) -> None:
        self._left -= 1
        if self._left == 0:
            self.has_come = True
            raise Killed


@asynccontextmanager
async def dying(broker: Broker, at: int) -> AsyncGenerator[Death, None]:
    death = Death(broker, at)
    try:
        yield death
    except* Killed:
        pass
    death.disarm()


async def reverted(broker: Broker) -> list[Reader]:
    """Groups and a channel were made, read and destroyed, and are lost."""
    readers = await begun(broker, *(f"g{i}" for i in range(5)))
    gone = await broker.channel("gone")
    await broker.group("g0", "gone")
    for name in ("d0", "d1", "d2"):
        await broker.group(name)
    past = broker.etcd.read()
    for reader in readers[:4]:
        await reader.read(broker)
    for name in ("d0", "d1", "d2"):
        await destroyed(broker, name)
    await broker.group("new")
    assert isinstance(await broker.call(DestroyChannel("gone", gone)), Empty)
    await trio.sleep(1)
    broker.store.sync()
    broker.etcd.go_back(past)
    return [*readers, Reader("new")]


async def used(broker: Broker, readers: list[Reader]) -> None:
    await readers[1].read(broker)
    await readers[4].read(broker)
    await trio.sleep(4)
    for reader in readers:
        await reader.read(broker)


@pytest.mark.parametrize("is_cut", [False, True], ids=["killed", "power cut"])
@pytest.mark.parametrize("is_alive", [True, False], ids=["while it lives", "while it is away"])
def test_given_a_store_that_went_back_when_the_broker_dies_at_any_point_then_everything_is_read_once(
    is_alive: bool, is_cut: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(meta_remote, "KEYS_MAX", 12)
    monkeypatch.setattr(meta_mirror, "GARBAGE_MAX", 2)
    went_on = False

    @in_mock_time
    async def scenario(at: int) -> None:
        nonlocal went_on
        broker = broker_of()
        disk = Disk(broker)
        if is_alive:
            async with dying(broker, at) as death, running(broker):
                readers = await reverted(broker)
                death.arm()
                await used(broker, readers)
        else:
            async with running(broker):
                readers = await reverted(broker)
            broker.start()
            async with dying(broker, at) as death:
                death.arm()
                async with running(broker):
                    await used(broker, readers)
        went_on = not death.has_come
        if is_cut:
            disk.cut()
        broker.start()
        async with running(broker):
            await check_goes_on(broker, readers)
            assert len(known(broker)) == 6

    at = 0
    while not went_on:
        at += 1
        scenario(at)
    assert at > 20, "there were that many points"


def test_given_a_broker_that_dies_anywhere_when_the_store_goes_back_then_everything_is_read_once() -> None:
    """Both at once: whoever was answered is in the copy."""
    went_on = False

    @in_mock_time
    async def scenario(at: int) -> None:
        nonlocal went_on
        broker = broker_of()
        async with dying(broker, at) as death, running(broker):
            readers = await begun(broker, "billing", "audit")
            past = broker.etcd.read()
            death.arm()
            await used(broker, [*readers, *readers, readers[0]])
        went_on = not death.has_come
        broker.etcd.go_back(past)
        broker.start()
        async with running(broker):
            await check_goes_on(broker, readers)

    at = 0
    while not went_on:
        at += 1
        scenario(at)
    assert at > 20, "there were that many points"


@pytest.mark.parametrize("loss", ["reverted", "deleted", "deleted in a later epoch"])
def test_given_a_store_that_lost_something_when_two_starts_die_anywhere_then_the_third_has_all(
    loss: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first before or just after its takeover, the second anywhere."""
    monkeypatch.setattr(meta_remote, "KEYS_MAX", 12)
    went_on = False

    @in_mock_time
    async def scenario(first: int, second: int) -> None:
        nonlocal went_on
        broker = broker_of()
        broker.accept_loss = loss != "reverted"
        async with running(broker):
            readers = await begun(broker, *(f"g{i}" for i in range(3)))
            past = broker.etcd.read() if loss == "reverted" else {}
            for reader in readers:
                await reader.read(broker)
        for _ in range(3 if loss == "deleted in a later epoch" else 0):
            broker.start()
            async with running(broker):
                pass
        broker.etcd.go_back(past)
        for at in (first, second):
            broker.start()
            async with dying(broker, at) as death:
                death.arm()
                async with running(broker):
                    await readers[0].read(broker)
            went_on = not death.has_come
        broker.start()
        async with running(broker):
            await check_goes_on(broker, readers)

    for first in range(1, 12):
        second, went_on = 0, False
        while not went_on:
            second += 1
            scenario(first, second)
        assert second > 10, "there were that many points"


def test_given_a_loss_that_was_none_after_all_when_the_next_start_dies_anywhere_then_the_store_is_what_counts() -> None:
    """It is put back to its newest state, which the copy has lost to a power cut, after a start that could not write there."""
    went_on = False

    @in_mock_time
    async def scenario(at: int) -> None:
        nonlocal went_on
        broker = broker_of()
        async with running(broker):
            readers = await begun(broker, "billing", "audit")
            past = broker.etcd.read()
            disk = Disk(broker)
            await readers[0].read(broker)
            broker.store.sync()
            await readers[1].read(broker)
        disk.cut()
        newest = broker.etcd.read()
        broker.etcd.go_back(past)
        broker.start()
        broker.remote.fates += [Fate.LOST] * 100
        async with running(broker):
            assert shadow_of(broker).lost_epoch
        broker.etcd.go_back(newest)
        broker.start()
        async with dying(broker, at) as death:
            death.arm()
            async with running(broker):
                await readers[0].read(broker)
        went_on = not death.has_come
        broker.start()
        async with running(broker):
            await check_goes_on(broker, readers)

    at = 0
    while not went_on:
        at += 1
        scenario(at)
    assert at > 10, "there were that many points"
