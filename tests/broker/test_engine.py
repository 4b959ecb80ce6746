"""The seeds' operations in process: what each returns, and how they act on one another."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from rocksmq.broker.engine import RocksMQ
from rocksmq.broker.ids import IDAllocator, clock_ms, time_ms_of
from rocksmq.broker.limits import Limits
from rocksmq.protocol.errors import (
    ChannelNotFound,
    GroupNotFound,
    InvalidRequest,
    LimitExceeded,
    MessageTooLarge,
    ShuttingDown,
)
from rocksmq.protocol.messages import OutgoingMessage
from rocksmq.protocol.operations import CreateChannel, CreateGroup, DescribeChannel, DescribeGroup, Outcome, Seek

from .support import in_trio


async def ready(mq: RocksMQ, *groups: str, channel: str = "orders") -> None:
    """A channel with groups."""
    await mq.create_channel(channel)
    for group in groups:
        await mq.create_consumer_group(channel, group)


# -- channels and groups ---------------------------------------------------------------


@in_trio
async def test_given_no_channel_when_created_twice_then_the_second_changes_nothing(tmp_path: Path) -> None:
    async with RocksMQ(tmp_path) as mq:
        assert await mq.create_channel("orders") is True
        await mq.produce("orders", [b"a"])
        assert await mq.create_channel("orders") is False
        assert (await mq.fetch("orders", "earliest")).payloads == [b"a"]


@in_trio
async def test_given_an_unknown_channel_when_used_then_it_is_not_found_everywhere(tmp_path: Path) -> None:
    async with RocksMQ(tmp_path) as mq:
        for call in (
            lambda: mq.destroy_channel("orders"),
            lambda: mq.create_consumer_group("orders", "billing"),
            lambda: mq.destroy_consumer_group("orders", "billing"),
            lambda: mq.produce("orders", [b"a"]),
            lambda: mq.consume("orders", "billing"),
            lambda: mq.fetch("orders", "earliest"),
            lambda: mq.seek("orders", "billing", "latest"),
        ):
            with pytest.raises(ChannelNotFound, match="'orders'"):
                await call()


@in_trio
async def test_given_an_unknown_group_when_used_then_it_is_not_found(tmp_path: Path) -> None:
    async with RocksMQ(tmp_path) as mq:
        await ready(mq)
        for call in (
            lambda: mq.destroy_consumer_group("orders", "billing"),
            lambda: mq.consume("orders", "billing"),
            lambda: mq.seek("orders", "billing", "latest"),
        ):
            with pytest.raises(GroupNotFound, match="'billing'"):
                await call()


@in_trio
async def test_given_a_request_when_it_is_repeated_then_the_creating_one_is_told_so_again(tmp_path: Path) -> None:
    async with RocksMQ(tmp_path) as mq:
        channel = CreateChannel("orders", None, None, None, b"1" * 16)
        group = CreateGroup("orders", "billing", 1, 0, b"2" * 16)
        for request in (channel, group):
            assert (await mq.call(request)).created is True
            assert (await mq.call(request)).created is True
            assert (await mq.call(request._replace(request_id=b"3" * 16))).created is False


@in_trio
async def test_given_a_channel_destroyed_and_recreated_then_it_is_empty_and_everything_works_anew(tmp_path: Path) -> None:
    async with RocksMQ(tmp_path) as mq:
        last = 0
        for _ in range(3):
            await ready(mq, "billing")
            assert (await mq.fetch("orders", "earliest")).payloads == []
            for _ in range(3):
                ids = await mq.produce("orders", [b"a"])
                assert ids[0] > last
                last = ids[0]
                assert (await mq.consume("orders", "billing")).payloads == [b"a"]
            await mq.destroy_channel("orders")
            with pytest.raises(ChannelNotFound):
                await mq.produce("orders", [b"a"])


@in_trio
async def test_given_a_group_destroyed_and_recreated_then_it_begins_anew(tmp_path: Path) -> None:
    async with RocksMQ(tmp_path) as mq:
        await ready(mq, "billing")
        await mq.produce("orders", [b"a"])
        for _ in range(3):
            assert (await mq.consume("orders", "billing")).payloads == [b"a"]
            assert (await mq.consume("orders", "billing")).payloads == []
            await mq.destroy_consumer_group("orders", "billing")
            assert await mq.create_consumer_group("orders", "billing") is True


# -- producing and consuming -----------------------------------------------------------


@in_trio
async def test_given_single_produces_and_a_batch_when_consumed_in_any_number_then_order_is_kept(tmp_path: Path) -> None:
    async with RocksMQ(tmp_path) as mq:
        await ready(mq, "billing")
        sent = [b"%d" % number for number in range(200)]
        ids: list[int] = []
        for payload in sent[:100]:
            ids += await mq.produce("orders", [payload])
        batch = await mq.produce("orders", sent[100:])
        assert len(batch) == 100
        ids += batch
        assert all(a < b for a, b in pairwise(ids))
        found = await mq.consume("orders", "billing", 100)
        assert (found.payloads, list(found.ids)) == (sent[:100], ids[:100])
        for index in range(100, 200):
            (message,) = await mq.consume("orders", "billing", 1)
            assert (message.id, message.payload) == (ids[index], sent[index])
        assert len(await mq.consume("orders", "billing", 1)) == 0


@in_trio
async def test_given_eleven_groups_and_two_channels_when_consumed_then_each_group_gets_all_of_its_channel(
    tmp_path: Path,
) -> None:
    async with RocksMQ(tmp_path) as mq:
        groups = [f"group-{number}" for number in range(11)]
        await ready(mq, *groups)
        await ready(mq, *groups, channel="orders2")
        for number in range(10):
            await mq.produce("orders", [b"%d" % number])
            await mq.produce("orders2", [b"other"])
        for group in groups:
            assert (await mq.consume("orders", group)).payloads == [b"%d" % number for number in range(10)]
            assert (await mq.consume("orders2", group)).payloads == [b"other"] * 10


@in_trio
async def test_given_many_producers_and_consumers_at_once_then_each_message_goes_to_exactly_one(tmp_path: Path) -> None:
    got: list[bytes] = []
    async with RocksMQ(tmp_path) as mq:
        await ready(mq, "billing")

        async def produce(number: int) -> None:
            await mq.produce("orders", [b"%d" % number, b"%d" % (number + 50)])

        async def consume() -> None:
            batch = await mq.consume("orders", "billing", 1, timeout=30)
            got.extend(batch.payloads)

        async with trio.open_nursery() as nursery:
            for number in range(50):
                nursery.start_soon(consume)
                nursery.start_soon(produce, number)
                nursery.start_soon(consume)
        assert len(await mq.consume("orders", "billing")) == 0
    assert sorted(got) == sorted(b"%d" % number for number in range(100))


@in_trio
async def test_given_empty_payloads_and_headers_when_read_then_all_is_kept_exactly(tmp_path: Path) -> None:
    async with RocksMQ(tmp_path) as mq:
        await ready(mq, "billing")
        await mq.produce("orders", [b"", bytearray(b"x"), memoryview(b"yz")], headers={"k": b"v"})
        await mq.produce("orders", [OutgoingMessage(b"own", {"o": b"\x00\xff"}), OutgoingMessage(b"none", {}), b"plain"])
        found = list(await mq.consume("orders", "billing"))
        assert [message.payload for message in found] == [b"", b"x", b"yz", b"own", b"none", b"plain"]
        assert [message.headers for message in found] == [{"k": b"v"}] * 3 + [{"o": b"\x00\xff"}, {}, {}]
        assert [message.headers for message in await mq.fetch("orders", found[3].id)] == [{"o": b"\x00\xff"}, {}, {}]


@in_trio
async def test_given_nothing_when_produced_then_nothing_is_stored_even_without_a_channel(tmp_path: Path) -> None:
    async with RocksMQ(tmp_path) as mq:
        assert await mq.produce("orders", []) == range(0)


@in_trio
async def test_given_a_batch_over_a_limit_when_produced_then_none_of_it_is_stored_and_the_next_goes_through(
    tmp_path: Path,
) -> None:
    async with RocksMQ(tmp_path, limits=Limits(payload_bytes_max=10, batch_messages_max=3)) as mq:
        await ready(mq)
        await mq.produce("orders", [b"before"])
        with pytest.raises(MessageTooLarge, match="payload_bytes_max"):
            await mq.produce("orders", [b"good", bytes(11)])
        with pytest.raises(LimitExceeded, match="batch_messages_max"):
            await mq.produce("orders", [b"1", b"2", b"3", b"4"])
        await mq.produce("orders", [b"after"])
        assert (await mq.fetch("orders", "earliest")).payloads == [b"before", b"after"]


@in_trio
async def test_given_the_clock_when_produced_then_a_message_tells_when_to_the_millisecond(tmp_path: Path) -> None:
    async with RocksMQ(tmp_path) as mq:
        await ready(mq)
        before = clock_ms()
        (first,) = await mq.produce("orders", [b"a"])
        assert before <= time_ms_of(first) <= clock_ms()
        (message,) = await mq.fetch("orders", first)
        assert message.timestamp == datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=time_ms_of(first))


# -- seeking and fetching --------------------------------------------------------------


@in_trio
async def test_given_a_hundred_messages_when_sought_then_the_next_consume_returns_that_one_and_goes_on(tmp_path: Path) -> None:
    async with RocksMQ(tmp_path) as mq:
        await ready(mq, "billing")
        ids = await mq.produce("orders", [b"%d" % number for number in range(100)])
        assert (await mq.seek("orders", "billing", ids[50])).outcome == Outcome.EXACT
        for number in (50, 51):
            assert (await mq.consume("orders", "billing", 1)).payloads == [b"%d" % number]
        assert (await mq.seek("orders", "billing", ids[0])).position == ids[0]
        assert len(await mq.consume("orders", "billing")) == 100
        assert (await mq.seek("orders", "billing", "latest")).position == ids[-1] + 1
        assert len(await mq.consume("orders", "billing")) == 0
        more = await mq.produce("orders", [b"more"] * 100)
        assert list((await mq.consume("orders", "billing")).ids) == list(more)


@in_trio
async def test_given_times_when_sought_then_naive_ones_are_refused_and_aware_ones_are_exact(tmp_path: Path) -> None:
    now = [1_700_000_000_000]
    async with RocksMQ(tmp_path, IDAllocator(clock=lambda: now[0])) as mq:
        await ready(mq, "billing")
        ids: list[int] = []
        for _ in range(3):
            now[0] += 100
            ids += await mq.produce("orders", [b"a"])
        moments = [message.timestamp for message in await mq.fetch("orders", "earliest")]
        for index, moment in enumerate(moments):
            for earlier in (timedelta(0), timedelta(microseconds=1), timedelta(milliseconds=99)):
                sought = await mq.seek("orders", "billing", moment - earlier)
                assert (sought.position, sought.outcome) == (ids[index], Outcome.NEXT)
        late = await mq.seek("orders", "billing", moments[-1] + timedelta(microseconds=1))
        assert (late.position, late.outcome) == (ids[-1] + 1, Outcome.LATEST)
        with pytest.raises(InvalidRequest, match="time zone"):
            await mq.seek("orders", "billing", moments[0].replace(tzinfo=None))
        assert (await mq.seek("orders", "billing", moments[1].astimezone(None))).position == ids[1]


@in_trio
async def test_given_fetches_when_made_then_no_group_moves_and_an_empty_one_tells_where_to_go_on(tmp_path: Path) -> None:
    async with RocksMQ(tmp_path) as mq:
        await ready(mq, "billing")
        latest = (await mq.fetch("orders", "latest")).next_position
        ids = await mq.produce("orders", [b"a", b"b", b"c"])
        found = await mq.fetch("orders", latest, 2)
        assert (found.payloads, found.next_position, found.generation) == ([b"a", b"b"], ids[2], 0)
        found = await mq.fetch("orders", found.next_position)
        assert (found.payloads, found.next_position) == ([b"c"], ids[2] + 1)
        found = await mq.fetch("orders", found.next_position)
        assert (found.payloads, found.next_position) == ([], ids[2] + 1)
        assert (await mq.call(DescribeGroup("orders", "billing"))).lag_messages == 3


@in_trio
async def test_given_a_reader_that_waits_when_something_is_produced_then_it_wakes(tmp_path: Path) -> None:
    async with RocksMQ(tmp_path) as mq:
        await ready(mq, "one", "two")
        got: dict[str, list[bytes]] = {}

        async def consume(group: str) -> None:
            got[group] = (await mq.consume("orders", group, timeout=30)).payloads

        async def fetch() -> None:
            got["fetch"] = (await mq.fetch("orders", "latest", timeout=30)).payloads

        async with trio.open_nursery() as nursery:
            nursery.start_soon(consume, "one")
            nursery.start_soon(consume, "two")
            nursery.start_soon(fetch)
            await wait_all_tasks_blocked()
            assert got == {}
            await mq.produce("orders", [b"a"])
        assert got == {"one": [b"a"], "two": [b"a"], "fetch": [b"a"]}


@in_trio
async def test_given_a_consumer_that_waits_when_its_group_is_sought_back_then_it_wakes(tmp_path: Path) -> None:
    async with RocksMQ(tmp_path) as mq:
        await ready(mq, "billing")
        await mq.produce("orders", [b"a"])
        await mq.consume("orders", "billing")
        got: list[bytes] = []

        async def consume() -> None:
            got.extend((await mq.consume("orders", "billing", timeout=30)).payloads)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(consume)
            await wait_all_tasks_blocked()
            await mq.seek("orders", "billing", "earliest")
        assert got == [b"a"]


@pytest.mark.parametrize("what", ["channel", "group"])
def test_given_readers_that_wait_when_channel_or_group_is_destroyed_then_they_are_told(tmp_path: Path, what: str) -> None:
    errors: list[type[Exception]] = []

    @in_trio
    async def scenario() -> None:
        async with RocksMQ(tmp_path) as mq:
            await ready(mq, "billing", "other")

            async def consume(group: str) -> None:
                try:
                    await mq.consume("orders", group, timeout=30)
                except (ChannelNotFound, GroupNotFound) as error:
                    errors.append(type(error))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(consume, "billing")
                nursery.start_soon(consume, "other")
                await wait_all_tasks_blocked()
                if what == "channel":
                    await mq.destroy_channel("orders")
                else:
                    await mq.destroy_consumer_group("orders", "billing")
                    await wait_all_tasks_blocked()
                    assert errors == [GroupNotFound]
                    await mq.destroy_consumer_group("orders", "other")

    scenario()
    assert errors == [ChannelNotFound if what == "channel" else GroupNotFound] * 2


@in_trio
async def test_given_a_consume_that_is_cancelled_while_it_waits_then_no_message_is_lost(tmp_path: Path) -> None:
    async with RocksMQ(tmp_path) as mq:
        await ready(mq, "billing")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: mq.consume("orders", "billing", timeout=30))
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        await mq.produce("orders", [b"a"])
        assert (await mq.consume("orders", "billing")).payloads == [b"a"]


# -- lag and the end -------------------------------------------------------------------


@in_trio
async def test_given_messages_when_described_then_counts_and_lag_are_exact(tmp_path: Path) -> None:
    async with RocksMQ(tmp_path) as mq:
        await ready(mq, "billing")
        empty = await mq.call(DescribeChannel("orders"))
        assert (empty.message_count, empty.byte_count, empty.begin_id, empty.end_id) == (0, 0, 1, 0)
        ids = [*await mq.produce("orders", [b"aa", b"b"]), *await mq.produce("orders", [b"ccc"], headers={"k": b"v"})]
        full = await mq.call(DescribeChannel("orders"))
        assert (full.message_count, full.begin_id, full.end_id) == (3, ids[0], ids[-1])
        assert full.byte_count == 6 + 5
        for expected, read_up_to in zip((3, 2, 1, 0), (0, *ids), strict=True):
            found = await mq.call(DescribeGroup("orders", "billing"))
            assert (found.lag_messages, found.position) == (expected, read_up_to + 1)
            await mq.consume("orders", "billing", 1)
        assert (await mq.call(DescribeGroup("orders", "billing"))).lag_ms == 0


@in_trio
async def test_given_an_engine_that_stops_when_used_then_it_says_so_and_waiting_readers_get_nothing(tmp_path: Path) -> None:
    got: list[int] = []
    async with RocksMQ(tmp_path) as mq:
        await ready(mq, "billing")

        async def consume() -> None:
            got.append(len(await mq.consume("orders", "billing", timeout=30)))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(consume)
            await wait_all_tasks_blocked()
            await mq.drain()
        assert got == [0]
        with pytest.raises(ShuttingDown):
            await mq.produce("orders", [b"a"])
        with pytest.raises(ShuttingDown):
            await mq.call(Seek("orders", "billing", 1, 0, b"1" * 16))


@in_trio
async def test_given_two_engines_in_one_process_when_used_by_turns_then_they_share_nothing(tmp_path: Path) -> None:
    async with RocksMQ(tmp_path / "one") as one, RocksMQ(tmp_path / "two") as two:
        await ready(one, "billing")
        with pytest.raises(ChannelNotFound):
            await two.produce("orders", [b"b"])
        await ready(two, "billing")
        await one.produce("orders", [b"a"])
        await two.produce("orders", [b"b"])
        assert (await one.consume("orders", "billing")).payloads == [b"a"]
        assert (await two.consume("orders", "billing")).payloads == [b"b"]
        await one.destroy_channel("orders")
        assert (await two.fetch("orders", "earliest")).payloads == [b"b"]
