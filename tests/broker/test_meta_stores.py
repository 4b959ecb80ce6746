"""One suite for both stores of positions, embedded and a real etcd: what holds does not depend on where they are kept."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio

from rocksmq.broker.engine import RocksMQ
from rocksmq.broker.limits import Limits
from rocksmq.broker.meta_etcd import EtcdRemote, Login
from rocksmq.broker.meta_url import MetaUrl
from rocksmq.broker.records import ConsumerEntry
from rocksmq.protocol.errors import (
    ChannelNotFound,
    Conflict,
    GroupNotFound,
    InvalidRequest,
    LimitExceeded,
    OutOfSequence,
)
from rocksmq.protocol.operations import (
    Commit,
    Consume,
    CreateGroup,
    DescribeGroup,
    DestroyGroup,
    GroupDescribed,
    ListGroups,
    Outcome,
    ReleaseConsumer,
    Seek,
)
from tests.helpers.etcd import Etcd

from .many_support import subscribing
from .place_support import PATIENT, Place
from .support import identity, in_trio

MODES = ["fsync", "interval:50", "os"]
AWKWARD_NAMES = ["commit", "owner", "data", "begin_id", "end_id", "current_id", "state", "a", "b"]
PATIENCE_SECONDS = 30


async def described(mq: RocksMQ, group: str = "billing", channel: str = "orders") -> GroupDescribed:
    """The group, without what the clock changes."""
    found: GroupDescribed = await mq.call(DescribeGroup(channel, group))
    return found._replace(lag_ms=0)


async def ready(mq: RocksMQ, *groups: str) -> range:
    """A channel with those groups, and six messages."""
    await mq.create_channel("orders")
    for group in groups or ("billing",):
        await mq.create_consumer_group("orders", group)
    return await mq.produce("orders", [b"a", b"b", b"c", b"d", b"e", b"f"])


# -- groups ----------------------------------------------------------------------------


@in_trio
async def test_given_a_creation_when_it_is_repeated_then_the_creating_request_is_told_so_again(place: Place) -> None:
    request = CreateGroup("orders", "billing", 1, 0, b"2" * 16)
    async with place.engine() as mq:
        await mq.create_channel("orders")
        assert [(await mq.call(request)).created for _ in range(2)] == [True, True]
        assert not await mq.create_consumer_group("orders", "billing")
    async with place.engine() as mq:
        assert (await mq.call(request)).created
        assert not await mq.create_consumer_group("orders", "billing")


@in_trio
async def test_given_groups_when_listed_then_they_are_sorted_paged_and_of_that_channel(place: Place) -> None:
    async with place.engine(limits=Limits(page_names_max=2)) as mq:
        await ready(mq, "c", "a", "b")
        await mq.create_channel("others")
        await mq.create_consumer_group("others", "z")
        first = await mq.call(ListGroups("orders", ""))
        second = await mq.call(ListGroups("orders", first.names[-1]))
        assert (first.names, first.more) == (["a", "b"], True)
        assert (second.names, second.more) == (["c"], False)


@in_trio
async def test_given_a_start_when_a_group_is_created_there_then_it_reads_from_there(place: Place) -> None:
    async with place.engine() as mq:
        ids = await ready(mq)
        await mq.create_consumer_group("orders", "latest", start="latest")
        await mq.create_consumer_group("orders", "third", start=ids[2])
        assert (await described(mq, "latest")).position == ids[-1] + 1
        assert (await mq.consume("orders", "third", 1)).payloads == [b"c"]
        assert (await mq.consume("orders", "latest")).payloads == []


@in_trio
async def test_given_a_group_destroyed_and_made_anew_then_it_begins_anew_and_a_late_destruction_misses_it(
    place: Place,
) -> None:
    async with place.engine() as mq:
        await ready(mq)
        await mq.consume("orders", "billing", 2)
        former = await described(mq)
        await mq.destroy_consumer_group("orders", "billing")
        with pytest.raises(GroupNotFound):
            await mq.consume("orders", "billing")
        assert await mq.create_consumer_group("orders", "billing")
        await mq.call(DestroyGroup("orders", "billing", former.creation_id))
        assert (await described(mq)).generation > former.generation
    async with place.engine() as mq:
        assert (await mq.consume("orders", "billing", 1)).payloads == [b"a"]
        await mq.destroy_consumer_group("orders", "billing")
    assert place.current_ids() == {}
    async with place.engine() as mq:
        assert (await mq.call(ListGroups("orders", ""))).names == []


@in_trio
async def test_given_a_channel_destroyed_and_created_anew_then_its_groups_are_gone_for_good(place: Place) -> None:
    async with place.engine() as mq:
        await ready(mq, "billing", "audit")
        await mq.consume("orders", "billing")
        await mq.destroy_channel("orders")
        with pytest.raises(ChannelNotFound):
            await mq.consume("orders", "billing")
        ids = await ready(mq, "billing")
        assert (await mq.call(ListGroups("orders", ""))).names == ["billing"]
        assert (await mq.consume("orders", "billing", 1)).ids[0] == ids[0]
    async with place.engine() as mq:
        assert (await mq.call(ListGroups("orders", ""))).names == ["billing"]
        assert (await mq.consume("orders", "billing")).ids[0] == ids[1]


@in_trio
async def test_given_names_that_stand_in_keys_when_used_for_channels_and_groups_then_nothing_is_mixed_up(place: Place) -> None:
    async with place.engine() as mq:
        for channel in AWKWARD_NAMES:
            await mq.create_channel(channel)
            ids = await mq.produce(channel, [channel.encode()] * len(AWKWARD_NAMES))
            for index, group in enumerate(AWKWARD_NAMES):
                await mq.create_consumer_group(channel, group, start=ids[index])
    async with place.engine() as mq:
        for channel in AWKWARD_NAMES:
            assert (await mq.call(ListGroups(channel, ""))).names == sorted(AWKWARD_NAMES)
            for index, group in enumerate(AWKWARD_NAMES):
                assert (await mq.consume(channel, group)).payloads == [channel.encode()] * (len(AWKWARD_NAMES) - index)
    assert len(place.current_ids()) == len(AWKWARD_NAMES) ** 2


@in_trio
async def test_given_too_many_groups_or_a_bad_name_when_created_then_refused_and_nothing_changes(place: Place) -> None:
    async with place.engine(limits=Limits(groups_max=1)) as mq:
        await ready(mq)
        with pytest.raises(LimitExceeded, match="groups_max"):
            await mq.create_consumer_group("orders", "second")
        for name in ("", "a/b", ".hidden", "x" * 201):
            with pytest.raises(InvalidRequest):
                await mq.create_consumer_group("orders", name)
        with pytest.raises(ChannelNotFound):
            await mq.create_consumer_group("others", "billing")
        assert (await mq.call(ListGroups("orders", ""))).names == ["billing"]


# -- positions -------------------------------------------------------------------------


@pytest.mark.parametrize("is_clean", [True, False], ids=["clean", "crash"])
@pytest.mark.parametrize("mode", MODES)
def test_given_groups_in_any_state_when_started_again_then_they_are_as_before(place: Place, mode: str, is_clean: bool) -> None:
    claim = Consume("orders", "claimed", identity(1 << 62, 1), 0, 2, 1000, 0)
    release = ReleaseConsumer("orders", "returned", identity(1 << 62, 2), 0, 0, 0)
    seek = Seek("orders", "sought", 1, 0, b"5" * 16)
    names = ["claimed", "committed", "idle", "returned", "sought"]
    before: list[GroupDescribed] = []

    @in_trio
    async def first() -> None:
        async with place.engine(mode) as mq:
            ids = await ready(mq, *names)
            await mq.call(claim)
            await mq.call(Commit("orders", "committed", ids[3], None, b"\0\xff metadata"))
            await mq.call(claim._replace(group="returned", consumer=release.consumer, max_messages=3))
            await mq.call(release._replace(position=ids[1]))
            await mq.consume("orders", "sought")
            assert (await mq.call(seek)).outcome == Outcome.EARLIEST
            before.extend([await described(mq, name) for name in names])
            if not is_clean:
                place.crash()

    @in_trio
    async def second() -> None:
        async with place.engine(mode) as mq:
            assert [await described(mq, name) for name in names] == before
            assert [found.lag_messages for found in before] == [4, 3, 6, 5, 6]
            assert before[1].metadata == b"\0\xff metadata"
            assert (await mq.call(claim)).message_count == 2
            assert (await mq.call(seek)).generation == before[4].generation
            with pytest.raises(OutOfSequence, match="released"):
                await mq.call(claim._replace(group="returned", consumer=release.consumer))
            assert (await mq.consume("orders", "returned", 1)).payloads == [b"b"]
            assert (await mq.consume("orders", "returned")).payloads == [b"c"]
            assert (await mq.consume("orders", "claimed")).payloads == [b"c", b"d", b"e", b"f"]
            assert (await mq.consume("orders", "committed")).payloads == [b"d", b"e", b"f"]

    first()
    second()


@in_trio
async def test_given_positions_when_looked_up_in_the_store_then_each_is_the_decimal_id_of_what_comes_next(
    place: Place,
) -> None:
    async with place.engine() as mq:
        ids = await ready(mq, "billing", "audit")
        await mq.consume("orders", "audit", 1)
        await mq.consume("orders", "billing", 2)
    assert place.current_ids() == {"audit/orders/current_id": str(ids[1]), "billing/orders/current_id": str(ids[2])}


@in_trio
async def test_given_a_commit_when_it_is_wrong_then_it_is_refused_and_the_position_stays(place: Place) -> None:
    async with place.engine() as mq:
        ids = await ready(mq)
        generation = (await described(mq)).generation
        await mq.call(Commit("orders", "billing", ids[2], generation, b"kept"))
        with pytest.raises(Conflict):
            await mq.call(Commit("orders", "billing", ids[3], generation - 1, b""))
        with pytest.raises(InvalidRequest):
            await mq.call(Commit("orders", "billing", ids[-1] + 2, None, b""))
        with pytest.raises(InvalidRequest):
            await mq.call(Commit("orders", "billing", ids[3], None, b"x" * 257))
        await mq.call(Commit("orders", "billing", ids[1], generation, b"too late"))
        found = await described(mq)
        assert (found.position, found.metadata, found.lag_messages) == (ids[2], b"kept", 4)


@in_trio
async def test_given_a_seek_when_it_is_repeated_then_it_answers_the_same_and_moves_nothing(place: Place) -> None:
    request = Seek("orders", "billing", 1, 0, b"7" * 16)
    async with place.engine() as mq:
        await ready(mq)
        await mq.consume("orders", "billing")
        first = await mq.call(request)
        assert (await mq.consume("orders", "billing", 2)).payloads == [b"a", b"b"]
        assert await mq.call(request) == first
        assert (await mq.consume("orders", "billing", 1)).payloads == [b"c"]


# -- many at once ----------------------------------------------------------------------


@in_trio
async def test_given_a_long_poll_when_messages_come_then_it_has_them_and_the_position_has_moved(place: Place) -> None:
    async with place.engine() as mq:
        await mq.create_channel("orders")
        await mq.create_consumer_group("orders", "billing")
        batches: list[list[bytes]] = []

        async def poll() -> None:
            batches.append((await mq.consume("orders", "billing", timeout=PATIENCE_SECONDS)).payloads)

        with trio.fail_after(PATIENCE_SECONDS / 2):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(poll)
                while not len(mq.core.waiters):
                    await trio.sleep(0)
                ids = await mq.produce("orders", [b"a"])
        assert batches == [[b"a"]]
        assert (await described(mq)).position == ids[-1] + 1


@in_trio
async def test_given_a_long_poll_that_nothing_comes_for_when_its_time_is_over_then_it_is_empty(place: Place) -> None:
    async with place.engine() as mq:
        ids = await ready(mq)
        await mq.consume("orders", "billing")
        assert (await mq.consume("orders", "billing", timeout=0.02)).payloads == []
        assert (await described(mq)).position == ids[-1] + 1


@in_trio
async def test_given_a_long_poll_when_its_group_is_destroyed_then_it_is_told(place: Place) -> None:
    async with place.engine() as mq:
        await mq.create_channel("orders")
        await mq.create_consumer_group("orders", "billing")

        async def poll() -> None:
            with pytest.raises(GroupNotFound):
                await mq.consume("orders", "billing", timeout=PATIENCE_SECONDS)

        with trio.fail_after(PATIENCE_SECONDS / 2):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(poll)
                while not len(mq.core.waiters):
                    await trio.sleep(0)
                await mq.destroy_consumer_group("orders", "billing")


@in_trio
async def test_given_several_consumers_of_a_group_when_all_read_then_each_message_is_had_once(place: Place) -> None:
    async with place.engine() as mq:
        await mq.create_channel("orders")
        await mq.create_consumer_group("orders", "billing")
        produced: list[int] = []
        consumed: list[int] = []

        async def produce() -> None:
            for _ in range(40):
                produced.extend(await mq.produce("orders", [b"x"] * 5))

        async def consume() -> None:
            while len(consumed) < 200:
                consumed.extend((await mq.consume("orders", "billing", 7, timeout=0.1)).ids)

        with trio.fail_after(PATIENCE_SECONDS):
            async with trio.open_nursery() as nursery:
                for task in (produce, consume, consume, consume):
                    nursery.start_soon(task)
        assert sorted(consumed) == produced


@in_trio
async def test_given_hundreds_of_groups_when_all_are_created_moved_and_destroyed_at_once_then_none_is_forgotten(
    place: Place,
) -> None:
    names = [f"g{index:03}" for index in range(300)]

    async def each(mq: RocksMQ, do: Callable[[RocksMQ, str], Awaitable[None]]) -> None:
        async with trio.open_nursery() as nursery:
            for name in names:
                nursery.start_soon(do, mq, name)

    async def create(mq: RocksMQ, name: str) -> None:
        assert await mq.create_consumer_group("orders", name)

    async def consume(mq: RocksMQ, name: str) -> None:
        assert (await mq.consume("orders", name, int(name[1:]) % 6 + 1)).payloads[0] == b"a"

    async def destroy(mq: RocksMQ, name: str) -> None:
        await mq.destroy_consumer_group("orders", name)

    async with place.engine() as mq:
        ids = await ready(mq)
        await mq.destroy_consumer_group("orders", "billing")
        await each(mq, create)
        await each(mq, consume)
    assert place.current_ids() == {f"{name}/orders/current_id": str(ids[0] + int(name[1:]) % 6 + 1) for name in names}
    async with place.engine() as mq:
        assert (await mq.call(ListGroups("orders", ""))).names == names
        await each(mq, destroy)
    assert place.current_ids() == {}


@in_trio
async def test_given_groups_with_all_consumer_entries_there_may_be_when_moved_at_once_then_all_are_kept(place: Place) -> None:
    names = [f"g{index}" for index in range(30)]  # too much for one transaction of etcd
    entry = ConsumerEntry((1 << 64) - 1, (1 << 64) - 1, (1 << 64) - 1, 10_000, (1 << 64) - 1, (1 << 64) - 1)
    entries = {identity(1 << 62, index): entry for index in range(Limits().consumers_max)}

    async def commit(mq: RocksMQ, name: str) -> None:
        await mq.call(Commit("orders", name, ids[-1] + 1, None, b"\xff" * 256))

    async with place.engine() as mq:
        ids = await ready(mq, *names)
        for group in mq.core.channels.find("orders").groups.values():
            group.value = group.state._replace(consumers=entries)
        async with trio.open_nursery() as nursery:
            for name in names:
                nursery.start_soon(commit, mq, name)
    async with place.engine() as mq:
        groups = mq.core.channels.find("orders").groups
        assert {(name, group.state.position, group.state.consumers == entries) for name, group in groups.items()} == {
            (name, ids[-1] + 1, True) for name in names
        }


# -- prefixes --------------------------------------------------------------------------------


@in_trio
async def test_given_a_prefix_below_another_when_both_are_used_then_neither_sees_the_other(tmp_path: Path, etcd: Etcd) -> None:
    urls = {name: MetaUrl.parse(etcd.url(name)) for name in ("outer", "outer/a", "outer/a/b", "outer2")}
    for _ in range(2):  # the second finds what the first left
        async with trio.open_nursery() as nursery:
            for name, url in urls.items():
                nursery.start_soon(_use_all_names, tmp_path / name.replace("/", "."), url)


async def _use_all_names(directory: Path, url: MetaUrl) -> None:
    payloads = [url.prefix.encode(), b"second"]
    async with RocksMQ(directory, remote=EtcdRemote(url, Login(), call_seconds=10), limits=PATIENT) as mq:
        is_first = await mq.create_channel("commit")
        for channel in ("commit", "a", "b"):
            if await mq.create_channel(channel) or is_first:
                await mq.produce(channel, payloads)
            for group in ("a", "b", "commit"):
                assert await mq.create_consumer_group(channel, group) == is_first
                assert (await mq.consume(channel, group, 1)).payloads == payloads[:1] if is_first else payloads[1:]
        assert sorted((await mq.call(ListGroups("commit", ""))).names) == ["a", "b", "commit"]


@in_trio
async def test_given_as_many_groups_in_all_as_may_be_when_one_more_is_created_or_subscribed_then_refused(place: Place) -> None:
    async with place.engine(limits=Limits(groups_total_max=2)) as mq:
        await ready(mq)
        await mq.create_channel("others")
        numbers = [mq.core.channels.find(name).number for name in ("orders", "others")]
        with pytest.raises(LimitExceeded, match="groups_total_max"):
            await mq.call(subscribing(numbers, "stream"))
        await mq.call(subscribing(numbers, "billing"))  # which one of them has
        with pytest.raises(LimitExceeded, match="groups_total_max"):
            await mq.create_consumer_group("others", "second")
        await mq.destroy_consumer_group("orders", "billing")
        await mq.create_consumer_group("others", "second")
