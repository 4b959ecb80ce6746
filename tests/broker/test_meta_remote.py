"""Positions in a store elsewhere: what is answered, and when, while nobody knows what became of a transaction."""

from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from rocksmq.broker.limits import Limits
from rocksmq.broker.waiters import PLACES_EACH
from rocksmq.protocol.errors import (
    ChannelNotFound,
    GroupNotFound,
    LimitExceeded,
    MetaUnavailable,
)
from rocksmq.protocol.operations import (
    CreateGroup,
    DescribeChannel,
    DescribeGroup,
    DestroyChannel,
    DestroyGroup,
    Fetch,
    ListGroups,
    Position,
    ReleaseConsumer,
    Seek,
    Sought,
)

from .remote_support import A_WHILE, BOUND, FATES, LIMITS, ME, YOU, Asked, consuming, payloads_of, with_messages
from .simulated_remote import Fate
from .support import identity, in_mock_time

# -- what nobody was told of ---------------------------------------------------------------------


@pytest.mark.parametrize("fates", FATES, ids=lambda fates: "-".join(fate.name for fate in fates))
def test_given_a_claim_that_nobody_answered_when_it_is_repeated_then_it_was_made_once(fates: list[Fate]) -> None:
    @in_mock_time
    async def scenario() -> None:
        async with with_messages() as broker:
            broker.remote.fates.extend(fates)
            assert isinstance(await broker.consume(0), MetaUnavailable)
            await trio.sleep(A_WHILE)
            assert await broker.consume(0) == [b"a", b"b"]
            assert await broker.consume(0) == [b"a", b"b"]
            assert await broker.consume(0, consumer=YOU) == [b"c", b"d"]
            before = dict(broker.etcd.entries)
            while broker.etcd.late:
                broker.etcd.arrive(0)
            assert broker.etcd.entries == before, "what comes later changes nothing"
            assert await broker.consume(1) == [b"e", b"f"]

    scenario()


@in_mock_time
async def test_given_a_claim_that_arrives_before_the_barrier_when_that_is_answered_then_the_claim_holds() -> None:
    async with with_messages() as broker:
        applied = len(broker.etcd.applied)
        broker.remote.fates.extend([Fate.LATE, Fate.HELD])
        assert isinstance(await broker.consume(0), MetaUnavailable)
        await trio.sleep(0.3)
        broker.etcd.arrive(0)
        assert (await broker.call(DescribeGroup("orders", "billing"))).lag_messages == 6, "not told of yet"
        broker.remote.release(Fate.ANSWERED)
        await trio.sleep(0.1)
        assert len(broker.etcd.applied) == applied + 1, "the barrier was not"
        assert (await broker.call(DescribeGroup("orders", "billing"))).lag_messages == 4
        assert await broker.consume(0) == [b"a", b"b"]
        assert await broker.consume(1) == [b"c", b"d"]


@in_mock_time
async def test_given_everything_that_changes_groups_when_it_was_not_applied_then_memory_is_as_before() -> None:
    async with with_messages() as broker:
        await broker.consume(0)
        state = broker.etcd.group("orders", "billing")
        assert state is not None
        requests: list[Any] = [
            CreateGroup("orders", "third", Position.EARLIEST, 0, broker.unique()),
            DestroyGroup("orders", "audit", (await broker.call(DescribeGroup("orders", "audit"))).creation_id),
            Seek("orders", "billing", Position.LATEST, 0, broker.unique()),
            consuming(0, "audit"),
            ReleaseConsumer("orders", "billing", ME, 1, 0, 0),
        ]
        broker.remote.fates.extend([Fate.LOST])
        asked = [Asked(broker, request) for request in requests]
        await trio.sleep(A_WHILE)
        assert all(isinstance(one.reply, (MetaUnavailable, GroupNotFound)) for one in asked)
        assert (await broker.call(ListGroups("orders", ""))).names == ["audit", "billing"]
        assert broker.etcd.group("orders", "billing") == state
        assert await broker.consume(0) == [b"a", b"b"]
        assert await broker.consume(1) == [b"c", b"d"]
        assert await broker.consume(0, group="audit") == [b"a", b"b"]
        assert isinstance(await broker.consume(0, group="third"), GroupNotFound)


@in_mock_time
async def test_given_an_unknown_outcome_when_others_ask_then_none_is_served_before_it_is_settled() -> None:
    async with with_messages() as broker:
        broker.remote.fates.append(Fate.LATE)
        assert isinstance(await broker.consume(0), MetaUnavailable)
        broker.remote.is_away = True
        asked = [Asked(broker, consuming(0, group, consumer=YOU)) for group in ("billing", "audit")]
        begin, entries = trio.current_time(), dict(broker.etcd.entries)
        await trio.sleep(A_WHILE)
        for one in asked:
            assert isinstance(one.reply, MetaUnavailable)
            assert one.answered_at is not None
            assert one.answered_at - begin == pytest.approx(LIMITS.meta_wait_seconds)
        broker.remote.is_away = False
        await trio.sleep(A_WHILE)
        assert broker.etcd.group("orders", "audit") is not None
        assert {key: broker.etcd.entries[key] for key in entries if key.startswith(("billing", "audit"))} == {
            key: value for key, value in entries.items() if key.startswith(("billing", "audit"))
        }, "what was refused while it waited is not done later"
        assert await broker.consume(0, consumer=YOU) == [b"a", b"b"]


@in_mock_time
async def test_given_a_repeat_in_the_transaction_of_the_original_when_it_is_applied_then_both_get_the_same() -> None:
    async with with_messages() as broker:
        broker.remote.fates.extend([Fate.HELD, Fate.HELD])
        blocker = Asked(broker, consuming(0, "audit"))
        await wait_all_tasks_blocked()
        first, second = Asked(broker, consuming(0)), Asked(broker, consuming(0))
        await wait_all_tasks_blocked()
        assert not first.replies
        broker.remote.release(Fate.ANSWERED)
        await trio.sleep(0.1)
        assert blocker.replies
        assert not first.replies
        assert not second.replies, "not before the claim that it repeats is durable"
        broker.remote.release(Fate.ANSWERED)
        await trio.sleep(0.1)
        assert blocker.reply == first.reply == second.reply == [b"a", b"b"]
        assert broker.position() == broker.position("audit")


# -- waiting -------------------------------------------------------------------------------------


@in_mock_time
async def test_given_long_polls_on_as_many_channels_as_may_wait_when_others_come_then_more_of_them_are_refused() -> None:
    async with with_messages(Limits(waiting_channels_max=PLACES_EACH + 1)) as broker:
        await broker.consume(0, n=10)
        parked = Asked(broker, consuming(1, wait_ms=20_000))
        await trio.sleep(1)
        assert parked.reply is None
        assert isinstance(await broker.consume(0, group="audit", n=10, wait_ms=20_000), list), "it need not wait"
        assert isinstance(await broker.consume(1, group="audit", wait_ms=20_000), LimitExceeded)
        assert await broker.consume(1, group="audit") == []
        assert isinstance(await broker.seek(), Sought)
        assert parked.reply == [b"a", b"b"]
        assert broker.core.waiters.place_count == 0


@in_mock_time
async def test_given_a_full_queue_when_one_more_comes_then_it_is_refused_at_once_and_cancelled_ones_make_room() -> None:
    async with with_messages(Limits(meta_queue_max=3)) as broker:
        broker.remote.fates.append(Fate.HELD)
        in_flight = Asked(broker, consuming(0))
        await wait_all_tasks_blocked()
        queued = [Asked(broker, consuming(0, consumer=identity(1 << 62, 50 + i))) for i in range(3)]
        refused = Asked(broker, consuming(0, consumer=YOU))
        assert isinstance(refused.reply, MetaUnavailable)
        assert queued[1].waiter is not None
        broker.core.waiters.cancel(queued[1].waiter)
        last = Asked(broker, consuming(0, consumer=YOU))
        broker.remote.release(Fate.ANSWERED)
        await trio.sleep(0.1)
        assert [one.reply for one in (in_flight, *queued, last)] == [[b"a", b"b"], [b"c", b"d"], None, [b"e", b"f"], []]


@in_mock_time
async def test_given_the_store_away_when_messages_are_produced_and_fetched_then_that_goes_on() -> None:
    async with with_messages() as broker:
        broker.remote.is_away = True
        begin = trio.current_time()
        assert isinstance(await broker.consume(0), MetaUnavailable)
        assert trio.current_time() - begin <= BOUND
        begin = trio.current_time()
        first_id = await broker.produce(b"g")
        fetched = await broker.call(Fetch("orders", Position.ID, first_id, 10, 1 << 20, 0))
        described = await broker.call(DescribeGroup("orders", "billing"))
        assert payloads_of(fetched) == [b"g"]
        assert described.lag_messages == 7
        assert (await broker.call(ListGroups("orders", ""))).names == ["audit", "billing"]
        assert trio.current_time() == begin
        broker.remote.is_away = False
        await trio.sleep(A_WHILE)
        assert broker.meta.problem is None
        assert await broker.consume(0, n=10) == [b"a", b"b", b"c", b"d", b"e", b"f", b"g"]


@in_mock_time
async def test_given_a_parked_consume_when_messages_come_or_do_not_then_it_is_served_then_or_ends_when_it_said() -> None:
    async with with_messages() as broker:
        assert len(await broker.consume(0, n=10)) == 6
        begin, applied = trio.current_time(), len(broker.etcd.applied)
        parked = Asked(broker, consuming(1, wait_ms=20_000))
        await trio.sleep(1)
        await broker.produce(b"g")
        await trio.sleep(0.1)
        assert parked.reply == [b"g"]
        assert parked.answered_at == pytest.approx(begin + 1)
        assert await broker.consume(2, wait_ms=5_000) == []
        assert trio.current_time() == pytest.approx(begin + 6.1)
        begin, applied = trio.current_time(), len(broker.etcd.applied)
        assert await broker.consume(2) == []
        assert trio.current_time() == begin
        assert len(broker.etcd.applied) == applied


@in_mock_time
async def test_given_a_parked_consume_when_messages_come_while_the_store_is_away_then_it_is_told_so_in_time() -> None:
    async with with_messages() as broker:
        await broker.consume(0, n=10)
        parked = Asked(broker, consuming(1, wait_ms=30_000))
        await trio.sleep(1)
        broker.remote.is_away = True
        begin = trio.current_time()
        await broker.produce(b"g")
        await trio.sleep(A_WHILE)
        assert isinstance(parked.reply, MetaUnavailable)
        assert parked.answered_at is not None
        assert parked.answered_at - begin <= BOUND
        broker.remote.is_away = False
        await trio.sleep(A_WHILE)
        assert await broker.consume(1) == [b"g"]


@in_mock_time
async def test_given_many_parked_when_one_message_comes_then_one_gets_it_and_the_others_wait_on() -> None:
    async with with_messages() as broker:
        await broker.consume(0, n=10)
        parked = [Asked(broker, consuming(0, wait_ms=20_000, consumer=identity(1 << 62, 50 + i))) for i in range(3)]
        await trio.sleep(1)
        await broker.produce(b"g")
        await trio.sleep(1)
        await broker.produce(b"h")
        await trio.sleep(1)
        assert [one.reply for one in parked] == [[b"g"], [b"h"], None]
        await trio.sleep(20)
        assert parked[2].reply == []


@in_mock_time
async def test_given_a_destroyed_channel_when_one_is_parked_on_it_then_it_is_told() -> None:
    async with with_messages() as broker:
        await broker.consume(0, n=10)
        parked = Asked(broker, consuming(1, wait_ms=20_000))
        await trio.sleep(0.1)
        await broker.call(DestroyChannel("orders", (await broker.call(DescribeChannel("orders"))).number))
        await trio.sleep(0.1)
        assert isinstance(parked.reply, ChannelNotFound)


@in_mock_time
async def test_given_one_whose_output_is_full_when_there_are_messages_then_it_is_served_once_there_is_room() -> None:
    async with with_messages() as broker:
        is_full = True
        asked = Asked(broker, consuming(0, wait_ms=20_000))
        assert asked.waiter is not None
        asked.waiter.must_wait = lambda: is_full
        await trio.sleep(0.5)
        assert not asked.replies
        is_full = False
        broker.core.attempt_held()
        await trio.sleep(0.1)
        assert asked.reply == [b"a", b"b"]


@in_mock_time
async def test_given_a_repeat_that_a_seek_hides_when_the_seek_is_undone_then_the_repeat_is_not_told_that_there_is_nothing() -> (
    None
):
    async with with_messages() as broker:
        broker.remote.fates.append(Fate.UNHEARD)
        assert isinstance(await broker.consume(0, n=6), MetaUnavailable)
        await trio.sleep(A_WHILE)
        broker.remote.fates.extend([Fate.HELD, Fate.LOST])
        Asked(broker, consuming(0, "audit"))
        await wait_all_tasks_blocked()
        sought = Asked(broker, Seek("orders", "billing", Position.LATEST, 0, broker.unique()))
        repeated = Asked(broker, consuming(0))
        broker.remote.release(Fate.ANSWERED)
        await trio.sleep(A_WHILE)
        assert isinstance(sought.reply, MetaUnavailable)
        assert isinstance(repeated.reply, MetaUnavailable)
        assert len(await broker.consume(0)) == 6


@in_mock_time
async def test_given_a_destroy_that_is_undone_when_a_consumer_gave_back_then_it_is_not_told_that_the_group_is_gone() -> None:
    async with with_messages() as broker:
        assert await broker.consume(0) == [b"a", b"b"]
        second_id = broker.core.channels.find("orders").visible.begin_id + 1
        creation_id = (await broker.call(DescribeGroup("orders", "billing"))).creation_id
        broker.remote.fates.extend([Fate.HELD, Fate.LOST])
        Asked(broker, consuming(0, "audit"))
        await wait_all_tasks_blocked()
        destroyed = Asked(broker, DestroyGroup("orders", "billing", creation_id))
        given_back = Asked(broker, ReleaseConsumer("orders", "billing", ME, 0, second_id, 0))
        broker.remote.release(Fate.ANSWERED)
        await trio.sleep(A_WHILE)
        assert isinstance(destroyed.reply, MetaUnavailable)
        assert isinstance(given_back.reply, MetaUnavailable), given_back.reply
