"""Positions in a store elsewhere: what stands there, beside what the data directory holds."""

from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from rocksmq.broker.limits import Limits
from rocksmq.broker.prefix import BEGIN_ID, CURRENT_ID, END_ID, group_entries
from rocksmq.broker.records import ConsumerEntry
from rocksmq.protocol.errors import DiskFull, GroupNotFound, RocksMQError
from rocksmq.protocol.operations import (
    CreateChannel,
    Created,
    CreateGroup,
    DescribeChannel,
    DescribeGroup,
    DestroyChannel,
    DestroyGroup,
    Empty,
    ListGroups,
    Position,
    Seek,
)

from .remote_support import A_WHILE, ME, Asked, Broker, broker_of, consuming, running, with_messages
from .simulated_remote import Fate
from .support import identity, in_mock_time

MANY = 150  # groups, more than fit into two transactions
CONSUMERS = Limits().consumers_max


def full() -> None:
    raise DiskFull("the disk is full")


def groups_in(broker: Broker) -> set[str]:
    return {key for key in broker.etcd.entries if key.endswith(CURRENT_ID)}


async def number_of(broker: Broker, channel: str = "orders") -> int:
    return int((await broker.call(DescribeChannel(channel))).number)


# -- channels that go ------------------------------------------------------------------------------


@in_mock_time
async def test_given_a_channel_destroyed_when_a_while_has_passed_then_nothing_of_it_stands_there() -> None:
    async with with_messages() as broker:
        await broker.consume(0)
        await trio.sleep(1)
        assert f"orders/{END_ID}" in broker.etcd.entries
        await broker.call(DestroyChannel("orders", await number_of(broker)))
        await trio.sleep(1)
        assert not [key for key in broker.etcd.entries if "orders" in key]


@in_mock_time
async def test_given_a_channel_made_anew_with_its_group_when_the_old_is_swept_then_the_new_stays() -> None:
    for is_in_doubt in (False, True):
        async with with_messages() as broker:
            await broker.consume(0)
            broker.remote.fates.append(Fate.HELD)
            blocker = Asked(broker, consuming(0, "audit"))
            await wait_all_tasks_blocked()
            await broker.call(DestroyChannel("orders", await number_of(broker)))
            await broker.channel()
            first_id = await broker.produce(b"x", b"y")
            made = Asked(broker, CreateGroup("orders", "billing", Position.EARLIEST, 0, broker.unique()))
            if is_in_doubt:
                broker.remote.fates.append(Fate.LATE)
            broker.remote.release(Fate.ANSWERED)
            await trio.sleep(A_WHILE)
            assert blocker.replies
            if is_in_doubt:
                assert isinstance(made.reply, RocksMQError)
                await broker.group()
            assert broker.position() == first_id
            assert groups_in(broker) == {f"billing/orders/{CURRENT_ID}"}
            assert await broker.consume(0) == [b"x", b"y"]
            await trio.sleep(A_WHILE)
            assert groups_in(broker) == {f"billing/orders/{CURRENT_ID}"}
            broker.start()
            async with running(broker):
                assert await broker.consume(0) == [b"x", b"y"]


@pytest.mark.parametrize("fate", [Fate.LOST, Fate.UNHEARD, Fate.ANSWERED])
def test_given_a_group_destroyed_in_flight_when_its_channel_is_destroyed_too_then_nothing_of_it_stays(fate: Fate) -> None:
    @in_mock_time
    async def scenario() -> None:
        async with with_messages() as broker:
            creation_id = (await broker.call(DescribeGroup("orders", "billing"))).creation_id
            broker.remote.fates.append(Fate.HELD)
            destroyed = Asked(broker, DestroyGroup("orders", "billing", creation_id))
            await wait_all_tasks_blocked()
            await broker.call(DestroyChannel("orders", await number_of(broker)))
            broker.remote.release(fate)
            await trio.sleep(A_WHILE)
            assert destroyed.replies
            assert not [key for key in broker.etcd.entries if "orders" in key]

    scenario()


@in_mock_time
async def test_given_a_destroy_that_a_full_disk_undoes_when_it_was_then_the_groups_are_still_there() -> None:
    async with with_messages() as broker:
        number = await number_of(broker)
        broker.store.on_write = full
        assert isinstance(await broker.call(DestroyChannel("orders", number)), DiskFull)
        broker.store.on_write = lambda: None
        await trio.sleep(A_WHILE)
        assert len(groups_in(broker)) == 2
        assert await broker.consume(0) == [b"a", b"b"]


@in_mock_time
async def test_given_the_store_away_when_channels_come_and_go_then_what_is_remembered_of_them_is_bounded() -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("rocksmq.broker.meta_mirror.STALE_MAX", 5)
        patched.setattr("rocksmq.broker.meta_remote.DESTROYED_MAX", 5)
        async with with_messages() as broker:
            await trio.sleep(1)
            broker.remote.is_away = True
            lasting = [f"lasting{i}" for i in range(20)]
            for name in lasting:
                await broker.channel(name)
                for i in range(5):
                    brief = f"brief-{name}-{i}"
                    await broker.call(DestroyChannel(brief, await broker.channel(brief)))
                    assert len(broker.meta._mirror._changed) <= 2 * len(broker.core.channels) + 5  # pyright: ignore[reportPrivateUsage]
                    assert len(broker.meta._destroyed) <= 5  # pyright: ignore[reportPrivateUsage]
            broker.remote.is_away = False
            await trio.sleep(A_WHILE)
            assert all(f"{name}/{END_ID}" in broker.etcd.entries for name in lasting)
            assert not [key for key in broker.etcd.entries if "brief" in key]


# -- what is not durable yet -------------------------------------------------------------------------


@pytest.mark.parametrize("is_full", [False, True])
def test_given_a_channel_that_is_not_durable_when_a_group_is_made_on_it_then_it_waits_for_the_channel(is_full: bool) -> None:
    @in_mock_time
    async def scenario() -> None:
        broker = broker_of()
        async with running(broker, is_committing=False):
            Asked(broker, CreateChannel("first", None, None, None, broker.unique()))
            broker.commit()
            assert broker.core.ids.unsaved_end is None
            asked = [
                Asked(broker, CreateChannel("orders", None, None, None, broker.unique())),
                Asked(broker, CreateGroup("orders", "billing", Position.EARLIEST, 0, broker.unique())),
            ]
            await trio.sleep(1)
            assert not any(one.replies for one in asked)
            assert groups_in(broker) == set()
            broker.store.on_write = full if is_full else broker.store.on_write
            broker.commit()
            await trio.sleep(0.1)
            assert all(isinstance(one.reply, DiskFull if is_full else Created) for one in asked)
            assert len(groups_in(broker)) == (not is_full)

    scenario()


@in_mock_time
async def test_given_a_channel_made_anew_when_it_is_killed_before_that_is_durable_then_its_group_is_as_before() -> None:
    async with with_messages() as broker:
        await broker.consume(0)
        number = await number_of(broker)
        await trio.sleep(1)
    broker.start()
    async with running(broker, is_committing=False):
        for request in (
            DestroyChannel("orders", number),
            CreateChannel("orders", None, None, None, broker.unique()),
            CreateGroup("orders", "billing", Position.LATEST, 0, broker.unique()),
        ):
            Asked(broker, request)
        await trio.sleep(1)
    broker.start()
    async with running(broker):
        assert await broker.consume(0) == [b"a", b"b"]
        assert await broker.consume(1) == [b"c", b"d"]


@in_mock_time
async def test_given_ids_beyond_the_saved_window_when_a_generation_is_given_out_then_the_window_is_saved_first() -> None:
    async with with_messages() as broker:
        await trio.sleep(1)
    broker.start()
    async with running(broker, is_committing=False):
        broker.now_ms += 3_600_000
        sought = Asked(broker, Seek("orders", "billing", Position.LATEST, 0, broker.unique()))
        await trio.sleep(1)
        assert not sought.replies
        broker.commit()
        await trio.sleep(0.1)
        assert sought.reply.generation == broker.core.channels.find("orders").groups["billing"].state.generation


@in_mock_time
async def test_given_a_full_disk_when_the_id_window_cannot_be_saved_then_the_operation_is_undone_and_told_so() -> None:
    async with with_messages() as broker:
        broker.now_ms += 3_600_000
        broker.store.on_write = full
        assert isinstance(await broker.group("third"), DiskFull)
        assert isinstance(await broker.seek(Position.LATEST), DiskFull)
        await trio.sleep(A_WHILE)
        assert (await broker.call(ListGroups("orders", ""))).names == ["audit", "billing"]
        begin, calls = trio.current_time(), len(broker.remote.calls)
        await trio.sleep(A_WHILE)
        assert len(broker.remote.calls) - calls < 20 * (trio.current_time() - begin)
        broker.store.on_write = lambda: None
        await trio.sleep(1)
        assert await broker.consume(0) == [b"a", b"b"]
        assert isinstance(await broker.group("third"), Created)


@in_mock_time
async def test_given_a_full_disk_and_groups_to_sweep_when_it_lasts_then_the_broker_does_not_spin() -> None:
    async with with_messages() as broker:
        await broker.call(DestroyChannel("orders", await number_of(broker)))
        broker.now_ms += 3_600_000
        broker.core.ids.reserve(1)
        writes = 0

        def count() -> None:
            nonlocal writes
            writes += 1
            full()

        broker.store.on_write = count
        with trio.move_on_after(A_WHILE):
            await trio.sleep(A_WHILE)
        assert writes < 10 * A_WHILE


# -- what is mirrored --------------------------------------------------------------------------------


@in_mock_time
async def test_given_messages_when_a_second_has_passed_then_the_first_and_last_id_stand_there() -> None:
    async with with_messages() as broker:
        for _ in range(5):
            first_id = await broker.produce(b"x", b"y")
            await trio.sleep(1)
            assert broker.etcd.entries[f"orders/{END_ID}"] == str(first_id + 1)
        assert int(broker.etcd.entries[f"orders/{BEGIN_ID}"]) == (await broker.call(DescribeChannel("orders"))).begin_id
        channels = [f"c{i}" for i in range(70)]
        for name in channels:
            await broker.channel(name)
            await broker.produce(b"x", channel=name)
        await trio.sleep(1)
        assert all(f"{name}/{END_ID}" in broker.etcd.entries for name in channels)


@in_mock_time
async def test_given_a_slow_disk_when_messages_become_visible_late_then_they_are_mirrored_within_a_second_of_that() -> None:
    async with with_messages() as broker:
        await trio.sleep(1)
    broker.start()
    async with running(broker, is_committing=False):
        await trio.sleep(1)
        first_id = broker.core.channels.find("orders").value.end_id
        from rocksmq.protocol.operations import Produce

        from .support import batch_of

        Asked(broker, Produce("orders", broker.unique(), 0, *batch_of(b"x")))
        Asked(broker, CreateChannel("new", None, None, None, broker.unique()))
        await trio.sleep(3)
        assert broker.etcd.entries[f"orders/{END_ID}"] == str(first_id)
        broker.commit()
        await trio.sleep(1)
        assert broker.etcd.entries[f"orders/{END_ID}"] == str(broker.core.channels.find("orders").visible.end_id)
        assert f"new/{END_ID}" in broker.etcd.entries


@in_mock_time
async def test_given_a_mirror_that_was_not_applied_when_a_while_has_passed_then_it_was_written_again() -> None:
    async with with_messages() as broker:
        await trio.sleep(2)
        for fates in ([Fate.LOST], [Fate.LATE], [Fate.UNHEARD], [Fate.LATE, Fate.LOST]):
            broker.remote.fates.extend(fates)
            first_id = await broker.produce(b"x")
            await trio.sleep(A_WHILE)
            assert broker.etcd.entries[f"orders/{END_ID}"] == str(first_id)


# -- the limits of a transaction -----------------------------------------------------------------------


@in_mock_time
async def test_given_more_groups_than_fit_when_all_are_asked_for_then_several_transactions_are_sent() -> None:
    async with with_messages() as broker:
        before = len(broker.etcd.applied)
        broker.remote.fates.append(Fate.HELD)
        Asked(broker, consuming(0))
        await wait_all_tasks_blocked()
        made = [Asked(broker, CreateGroup("orders", f"g{i}", Position.EARLIEST, 0, broker.unique())) for i in range(MANY)]
        broker.remote.release(Fate.ANSWERED)
        await trio.sleep(0.1)
        assert all(isinstance(one.reply, Created) for one in made)
        assert len(broker.etcd.applied) - before < 10
        claimed = [Asked(broker, consuming(0, f"g{i}")) for i in range(MANY)]
        await trio.sleep(0.1)
        assert all(one.reply == [b"a", b"b"] for one in claimed)
        ids = [(await broker.call(DescribeGroup("orders", f"g{i}"))).creation_id for i in range(MANY)]
        gone = [Asked(broker, DestroyGroup("orders", f"g{i}", ids[i])) for i in range(MANY)]
        await trio.sleep(0.1)
        assert all(isinstance(one.reply, Empty) for one in gone)
        assert len(groups_in(broker)) == 2


async def with_many_consumers(count: int) -> Broker:
    """``count`` groups with as many consumers as are remembered, with long names; they are at the end."""
    broker = broker_of()
    long = "n" * 190
    async with running(broker):
        await broker.channel()
        await broker.produce(*[b"x"] * 10)
        for i in range(count):
            await broker.group(f"{long}{i}")
        await trio.sleep(1)
    broker.start()
    for i in range(count):
        state = broker.etcd.group("orders", f"{long}{i}")
        assert state is not None
        entry = ConsumerEntry(1 << 63, state.position, state.position + 1, 1, state.generation, state.generation, False)
        state = state._replace(consumers={identity(1, which): entry for which in range(CONSUMERS)}, metadata=bytes(256))
        broker.etcd.entries.update({key: value or "" for key, value in group_entries((f"{long}{i}", "orders"), state).items()})
    return broker


@in_mock_time
async def test_given_groups_with_all_the_consumers_they_may_have_when_all_are_asked_for_then_each_transaction_fits() -> None:
    broker = await with_many_consumers(40)
    async with running(broker):
        claimed = [Asked(broker, consuming(0, f"{'n' * 190}{i}")) for i in range(40)]
        await trio.sleep(0.1)
        assert [one.reply for one in claimed] == [[b"x", b"x"]] * 40


@in_mock_time
async def test_given_many_large_groups_beyond_their_ends_when_started_then_each_transaction_fits() -> None:
    broker = await with_many_consumers(40)
    end = broker.durable_extents()["orders"][1].end_id
    broker.accept_loss = True
    broker.start()
    for i in range(40):
        name = f"{'n' * 190}{i}"
        state = broker.etcd.group("orders", name)
        assert state is not None
        state = state._replace(position=end + 100)
        broker.etcd.entries.update({key: value or "" for key, value in group_entries((name, "orders"), state).items()})
    before = len(broker.etcd.applied)
    broker.check_is_behind_the_data = lambda: None  # type: ignore[method-assign]
    async with running(broker):
        await trio.sleep(A_WHILE)
        assert {broker.position(f"{'n' * 190}{i}") for i in range(40)} == {end + 1}
        assert broker.core.positions_brought_back == 40
        assert len(broker.etcd.applied) - before < 20


@in_mock_time
async def test_given_groups_beyond_their_ends_when_their_channel_is_made_anew_then_they_are_not_brought_back() -> None:
    async with with_messages() as broker:
        number = await number_of(broker)
        await trio.sleep(1)
    for group in ("billing", "audit"):
        state = broker.etcd.group("orders", group)
        assert state is not None
        state = state._replace(position=state.position + 1_000_000)
        broker.etcd.entries.update({key: value or "" for key, value in group_entries((group, "orders"), state).items()})
    broker.accept_loss = True
    broker.start()
    broker.check_is_behind_the_data = lambda: None  # type: ignore[method-assign]
    async with running(broker):
        await broker.call(DestroyChannel("orders", number))
        await broker.channel()
        first_id = await broker.produce(b"new")
        made = await broker.group()
        assert isinstance(made, Created)
        await trio.sleep(A_WHILE)
        assert broker.position() == first_id
        assert groups_in(broker) == {f"billing/orders/{CURRENT_ID}"}
        assert await broker.consume(0) == [b"new"]
        assert isinstance(await broker.consume(0, group="audit"), GroupNotFound)


# -- what is asked and given up ------------------------------------------------------------------------


@in_mock_time
async def test_given_a_request_that_was_given_up_while_it_waited_when_its_turn_comes_then_it_is_not_done() -> None:
    async with with_messages() as broker:
        broker.remote.fates.append(Fate.HELD)
        Asked(broker, consuming(0, "audit"))
        await wait_all_tasks_blocked()
        given_up: list[Any] = [
            Asked(broker, consuming(0)),
            Asked(broker, Seek("orders", "billing", Position.LATEST, 0, broker.unique())),
        ]
        for one in given_up:
            assert one.waiter is not None
            broker.core.waiters.cancel(one.waiter)
        broker.remote.release(Fate.ANSWERED)
        await trio.sleep(0.1)
        assert await broker.consume(0, consumer=ME) == [b"a", b"b"]
