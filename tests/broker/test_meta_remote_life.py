"""Positions in a store elsewhere: how a broker comes to write there, loses it, and ends."""

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from rocksmq.broker.prefix import END_ID, OWNER
from rocksmq.broker.reconcile import PrefixInUse
from rocksmq.broker.store import DataRefused
from rocksmq.protocol.errors import (
    DiskFull,
    MetaUnavailable,
    RocksMQError,
    ShuttingDown,
)
from rocksmq.protocol.operations import (
    DescribeGroup,
    DestroyChannel,
    DestroyGroup,
    Empty,
    ListGroups,
    Position,
    Seek,
)

from .remote_support import A_WHILE, BOUND, FATES, LIMITS, ME, YOU, Asked, Broker, broker_of, consuming, running, with_messages
from .simulated_remote import Fate, SimulatedEtcd
from .support import in_mock_time


@in_mock_time
async def test_given_the_store_away_at_start_when_it_comes_back_then_all_heals() -> None:
    etcd = SimulatedEtcd()
    before = broker_of(etcd)
    async with running(before):
        await before.channel()
        gone = await before.channel("gone")
        await before.group()
        await before.group(channel="gone")
        await before.produce(b"a", b"b")
        await before.consume(0, n=1)
        await trio.sleep(2)
    before.start()
    before.remote.is_away = True
    begin = trio.current_time()
    async with running(before) as broker:
        assert trio.current_time() - begin <= LIMITS.meta_start_seconds + LIMITS.meta_call_seconds
        for request in (consuming(1), DescribeGroup("orders", "billing"), ListGroups("orders", "")):
            assert isinstance(await broker.call(request), MetaUnavailable)
        await broker.produce(b"c")
        await broker.channel("new")
        assert isinstance(await broker.call(DestroyChannel("gone", gone)), Empty)
        broker.remote.is_away = False
        await trio.sleep(A_WHILE)
        assert (await broker.call(ListGroups("orders", ""))).names == ["billing"]
        assert await broker.consume(1) == [b"b", b"c"]
        assert not [key for key in etcd.entries if "gone" in key]
        assert f"new/{END_ID}" in etcd.entries


@pytest.mark.parametrize("when", ["before", "between", "after"])
def test_given_a_broker_killed_in_doubt_when_it_starts_again_then_its_late_transaction_counts_or_never_comes(when: str) -> None:
    """It arrives before the store is read, between that and the takeover, or after that."""

    @in_mock_time
    async def scenario() -> None:
        async with with_messages() as broker:
            broker.remote.fates.append(Fate.LATE)
            assert isinstance(await broker.consume(0), MetaUnavailable)
        if when == "before":
            broker.etcd.arrive(0)
        broker.start()
        broker.remote.fates.append(Fate.HELD)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(release_the_takeover, broker, when == "between")
            async with running(broker):
                if when == "after":
                    broker.etcd.arrive(0)
                who = YOU if when == "after" else ME
                assert await broker.consume(0, consumer=who) == [b"a", b"b"]
                assert await broker.consume(1, consumer=who) == [b"c", b"d"]

    scenario()


@in_mock_time
async def test_given_a_group_destroyed_by_a_late_transaction_when_the_takeover_meets_it_then_the_group_is_gone() -> None:
    async with with_messages() as broker:
        creation_id = (await broker.call(DescribeGroup("orders", "billing"))).creation_id
        broker.remote.fates.append(Fate.LATE)
        assert isinstance(await broker.call(DestroyGroup("orders", "billing", creation_id)), MetaUnavailable)
    broker.start()
    broker.remote.fates.append(Fate.HELD)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(release_the_takeover, broker, True)
        async with running(broker):
            assert (await broker.call(ListGroups("orders", ""))).names == ["audit"]


async def release_the_takeover(broker: Broker, is_behind_the_late: bool) -> None:
    await wait_all_tasks_blocked()
    if is_behind_the_late:
        broker.etcd.arrive(0)
    broker.remote.release(Fate.ANSWERED)


@pytest.mark.parametrize("fates", FATES, ids=lambda fates: "-".join(fate.name for fate in fates))
def test_given_a_takeover_that_nobody_answered_when_tried_again_then_one_epoch_writes(fates: list[Fate]) -> None:
    @in_mock_time
    async def scenario() -> None:
        broker = broker_of()
        broker.remote.fates.extend(fates)
        async with running(broker):
            broker.remote.fates.clear()
            await broker.channel()
            await broker.group()
            await broker.produce(b"a")
            while broker.etcd.late:
                broker.etcd.arrive(0)
            assert await broker.consume(0) == [b"a"]
            await trio.sleep(A_WHILE)
        for life in range(2, 4):
            broker.start()
            async with running(broker):
                assert await broker.consume(0) == [b"a"]
                assert broker.etcd.commit is not None
                assert broker.etcd.commit.epoch >= life

    scenario()


@in_mock_time
async def test_given_a_twin_that_takes_over_when_the_former_writes_then_it_ends_and_nothing_of_it_is_applied() -> None:
    asked: list[Asked] = []
    with pytest.RaisesGroup(PrefixInUse, flatten_subgroups=True):
        async with with_messages() as former:
            former.remote.fates.append(Fate.HELD)
            asked.append(Asked(former, consuming(0)))
            await wait_all_tasks_blocked()
            async with running(former.twin()) as twin:
                former.remote.release(Fate.ANSWERED)
                asked.append(Asked(former, consuming(0, "audit")))
                await trio.sleep(0.1)
                assert isinstance(asked[0].reply, MetaUnavailable)
                assert await twin.consume(0) == [b"a", b"b"]
                assert twin.position("audit") != twin.position()
                former.core.close()
                assert isinstance(asked[1].reply, RocksMQError)
                await trio.sleep(A_WHILE)


@in_mock_time
async def test_given_a_twin_that_has_taken_over_when_the_former_drains_then_it_just_ends() -> None:
    async with with_messages() as former:
        await trio.sleep(1)
        async with running(former.twin()) as twin:
            await former.produce(b"g")  # there are ids to tell, so it meets the twin at its very end
            before = len(former.etcd.applied)
            await former.drain()
            assert former.remote.is_closed
            assert former.remote.calls[-3:] == ["transact", "revoke", "close"]
            assert {transaction.attempt.value.epoch for transaction in former.etcd.applied[before:]} <= {2}
            assert OWNER in former.etcd.read()
            assert await twin.consume(0) == [b"a", b"b"]


@in_mock_time
async def test_given_the_owner_lease_lost_when_a_while_has_passed_then_it_is_taken_again() -> None:
    async with with_messages() as broker:
        assert OWNER in broker.etcd.entries
        broker.etcd.revoke_all()
        assert OWNER not in broker.etcd.entries
        await trio.sleep(4)
        assert OWNER in broker.etcd.read()
        await trio.sleep(60)
        assert OWNER in broker.etcd.read()
        broker.remote.is_away = True
        await trio.sleep(30)
        assert OWNER not in broker.etcd.read()
        broker.remote.is_away = False
        await trio.sleep(A_WHILE)
        assert OWNER in broker.etcd.read()
        assert await broker.consume(0) == [b"a", b"b"]


@in_mock_time
async def test_given_another_instance_when_it_comes_to_the_prefix_then_it_is_refused_by_name() -> None:
    async with with_messages() as broker:
        other = broker_of(broker.etcd, instance="2f")
        with pytest.RaisesGroup(pytest.RaisesExc(PrefixInUse, match="in use by instance 1f")):
            async with running(other):
                pass
        broker.etcd.revoke_all()
        with pytest.RaisesGroup(pytest.RaisesExc(DataRefused, match="instance 1f, and this one is 2f")):
            async with running(other):
                pass
        await trio.sleep(A_WHILE)
        assert await broker.consume(0) == [b"a", b"b"]


@pytest.mark.parametrize("state", ["idle", "in flight", "in doubt", "away", "queued", "parked", "not loaded", "never heard"])
def test_given_a_broker_in_any_state_when_it_drains_then_all_is_answered_in_time(state: str) -> None:
    @in_mock_time
    async def scenario() -> None:
        broker = broker_of()
        async with running(broker):
            await broker.channel()
            await broker.group()
            await broker.produce(b"a", b"b")
            await trio.sleep(2)
        broker.start()
        broker.remote.is_away = state == "not loaded"
        async with running(broker):
            broker.remote.fates.extend(
                {
                    "in flight": [Fate.HELD],
                    "queued": [Fate.HELD],
                    "in doubt": [Fate.LATE, Fate.HELD],
                    "never heard": [Fate.UNHEARD, Fate.HELD],
                }.get(state, [])
            )
            broker.remote.is_away |= state == "away"
            asked = [] if state == "idle" else [Asked(broker, consuming(int(state == "parked"), wait_ms=30_000))]
            await trio.sleep(0.01)
            if state != "idle":
                asked.append(Asked(broker, Seek("orders", "billing", Position.EARLIEST, 0, broker.unique())))
            await wait_all_tasks_blocked()
            begin = trio.current_time()
            await broker.drain()
            assert trio.current_time() - begin <= 2 * LIMITS.meta_call_seconds + 0.5
            assert all(one.replies for one in asked)
            assert broker.remote.is_closed
            assert isinstance(await broker.call(consuming(0)), ShuttingDown)

    scenario()


@in_mock_time
async def test_given_a_full_disk_at_the_takeover_when_there_is_room_again_then_it_heals() -> None:
    broker = broker_of()

    def full() -> None:
        raise DiskFull("the disk is full")

    broker.store.on_write = full
    async with running(broker):
        with pytest.raises(MetaUnavailable, match="the disk is full"):
            broker.core.meta.check_loaded()
        broker.store.on_write = lambda: None
        await trio.sleep(A_WHILE)
        await broker.channel()
        await broker.group()
        assert (await broker.call(ListGroups("orders", ""))).names == ["billing"]


@pytest.mark.parametrize("is_draining", [True, False])
def test_given_a_long_poll_that_ends_while_its_group_is_in_doubt_when_nobody_can_tell_then_it_is_answered_all_the_same(
    is_draining: bool,
) -> None:
    @in_mock_time
    async def scenario() -> None:
        async with with_messages() as broker:
            assert len(await broker.consume(0, n=10)) == 6
            parked = Asked(broker, consuming(0, wait_ms=1_000, consumer=YOU))
            await trio.sleep(0.1)
            broker.remote.fates.append(Fate.LATE)
            sought = Asked(broker, Seek("orders", "billing", Position.LATEST, 0, broker.unique()))
            await wait_all_tasks_blocked()
            assert isinstance(sought.reply, MetaUnavailable)
            assert not parked.replies
            broker.remote.is_away = True
            if is_draining:
                await broker.drain()
            else:
                await trio.sleep(1 + BOUND)
            assert isinstance(parked.reply, ShuttingDown if is_draining else MetaUnavailable)

    scenario()
