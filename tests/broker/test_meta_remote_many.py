"""Many groups in one transaction of a store elsewhere: what fits, in which order, and what nobody was told of."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from rocksmq.broker.meta_transaction import CONSUMER_BYTES, STATE_BYTES
from rocksmq.broker.prefix import CURRENT_ID, END_ID, encode_state
from rocksmq.broker.records import ConsumerEntry, GroupState, LastSeek
from rocksmq.protocol.columns import unpack_numbers
from rocksmq.protocol.errors import (
    ChannelNotFound,
    Conflict,
    DiskFull,
    GroupNotFound,
    LimitExceeded,
    MetaUnavailable,
    RocksMQError,
)
from rocksmq.protocol.operations import CreateGroup, DestroyChannel, Empty, Produce, SoughtMany

from .disk_support import fail
from .many_support import GROUP, committing, creating, describing, fetching, read, seeking, sought, subscribing, unsubscribing
from .remote_support import A_WHILE, FATES, Asked, Broker, broker_of, running
from .simulated_remote import Fate
from .support import batch_of, identity, in_mock_time

MOST = 60
SEEK = b"k" * 16


class Stream:
    """A subscription to channels of three messages each."""

    def __init__(self, broker: Broker, names: Sequence[str], numbers: Sequence[int], ends: Sequence[int]) -> None:
        self.broker, self.names, self.numbers, self.ends = broker, names, list(numbers), list(ends)

    @property
    def generations(self) -> list[int]:
        return [self.broker.core.channels.find(name).groups[GROUP].state.generation for name in self.names]

    def committing(self, step: int, which: slice = slice(None)) -> Any:
        positions = [end - 3 + step for end in self.ends]
        return committing(self.numbers[which], self.generations[which], positions[which])

    def steps(self) -> list[int]:
        """How far each position in the store is."""
        found: list[int] = []
        for name, end in zip(self.names, self.ends, strict=True):
            state = self.broker.etcd.group(name, GROUP)
            assert state is not None
            found.append(state.position - end + 3)
        return found


@asynccontextmanager
async def streaming(count: int = MOST) -> AsyncGenerator[Stream, None]:
    async with running(broker_of()) as broker:
        names = (await broker.call(creating(count))).names
        numbers = unpack_numbers((await broker.call(describing(names))).numbers)
        replies = [Asked(broker, Produce(name, broker.unique(), 0, *batch_of(b"a", b"b", b"c"))) for name in names]
        await wait_all_tasks_blocked()
        for begin in range(0, count, MOST):
            assert await broker.call(subscribing(numbers[begin : begin + MOST])) == Empty()
        yield Stream(broker, names, numbers, [one.reply.first_id + 3 for one in replies])


# -- how many ------------------------------------------------------------------------------------


@in_mock_time
async def test_given_as_many_channels_as_fit_when_they_are_more_by_one_then_refused_and_nothing_is_asked_of_the_store() -> None:
    async with streaming(MOST + 1) as stream:
        broker = stream.broker
        before, applied = stream.steps(), len(broker.etcd.applied)
        generations = stream.generations
        for request in (
            subscribing(stream.numbers, "other"),
            seeking(stream.numbers, SEEK),
            stream.committing(1),
            unsubscribing(stream.numbers, generations),
        ):
            refused = Asked(broker, request).reply
            assert isinstance(refused, LimitExceeded)
            assert "61" in refused.message
            assert "60" in refused.message
        assert stream.steps() == before
        assert len(broker.etcd.applied) == applied
        assert await broker.call(stream.committing(1, slice(0, MOST))) == Empty()
        assert stream.steps() == [1] * MOST + [0]


@in_mock_time
async def test_given_operations_on_sixty_groups_when_done_then_each_is_one_transaction() -> None:
    async with streaming() as stream:
        broker = stream.broker
        await trio.sleep(A_WHILE)  # ids of channels are told
        for request in (stream.committing(1), seeking(stream.numbers, SEEK), subscribing(stream.numbers, "other")):
            applied = len(broker.etcd.applied)
            assert not isinstance(await broker.call(request), RocksMQError)
            assert len(broker.etcd.applied) == applied + 1
            assert len([key for key in broker.etcd.applied[-1].entries if key.endswith(CURRENT_ID)]) == MOST
        assert await broker.call(unsubscribing(stream.numbers, stream.generations)) == Empty()
        assert not [key for key in broker.etcd.entries if key.startswith(f"{GROUP}/")]


@in_mock_time
async def test_given_two_operations_when_the_second_does_not_fit_beside_the_first_then_it_waits_and_what_is_behind_it_too() -> (
    None
):
    async with streaming(70) as stream:
        broker = stream.broker
        await trio.sleep(A_WHILE)
        first = stream.committing(1, slice(0, 40))
        second = seeking(stream.numbers[40:], SEEK, to=stream.ends[40:])
        third = stream.committing(2, slice(40, 41))  # of the generation before
        broker.remote.fates.extend([Fate.HELD] * 3)
        blocker = Asked(broker, CreateGroup(stream.names[0], "blocker", 1, 0, broker.unique()))
        await wait_all_tasks_blocked()
        asked = [Asked(broker, request) for request in (first, second, third)]
        broker.remote.release(Fate.ANSWERED)
        await wait_all_tasks_blocked()
        assert blocker.replies
        assert not any(one.replies for one in asked)
        broker.remote.release(Fate.ANSWERED)
        await wait_all_tasks_blocked()
        assert asked[0].reply == Empty()
        assert isinstance(asked[2].reply, Conflict), "in their order"
        assert not asked[1].replies
        assert stream.steps() == [1] * 40 + [0] * 30
        broker.remote.release(Fate.ANSWERED)
        await wait_all_tasks_blocked()
        assert isinstance(asked[1].reply, SoughtMany)
        assert stream.steps() == [1] * 40 + [3] * 30


@in_mock_time
async def test_given_much_to_tell_when_one_on_sixty_groups_is_behind_one_that_is_refused_then_it_waits_for_its_room() -> None:
    async with streaming() as stream:
        broker = stream.broker
        brief = (await broker.call(creating(50, b"b" * 16))).names
        for name in brief:
            await broker.call(CreateGroup(name, "brief", 1, 0, broker.unique()))
        for name in brief:
            await broker.call(DestroyChannel(name, broker.core.channels.find(name).number))
        for name in stream.names:
            broker.core.submit(Produce(name, broker.unique(), 0, *batch_of(b"x")), lambda reply: None)
        broker.remote.fates.append(Fate.HELD)
        await trio.sleep(0.7)
        refused = Asked(broker, committing(stream.numbers[:1], [7], stream.ends[:1]))
        asked = Asked(broker, stream.committing(1))
        broker.remote.release(Fate.ANSWERED)
        await wait_all_tasks_blocked()
        assert isinstance(refused.reply, Conflict)
        assert asked.reply == Empty()
        assert stream.steps() == [1] * MOST
        assert broker.meta.problem is None


@in_mock_time
async def test_given_operations_on_the_same_groups_when_they_wait_then_they_share_one_transaction() -> None:
    async with streaming() as stream:
        broker = stream.broker
        await trio.sleep(A_WHILE)
        broker.remote.fates.append(Fate.HELD)
        Asked(broker, CreateGroup(stream.names[0], "blocker", 1, 0, broker.unique()))
        await wait_all_tasks_blocked()
        applied = len(broker.etcd.applied)
        asked = [Asked(broker, stream.committing(step)) for step in (1, 2, 3)]
        broker.remote.release(Fate.ANSWERED)
        await wait_all_tasks_blocked()
        assert [one.reply for one in asked] == [Empty()] * 3
        assert len(broker.etcd.applied) == applied + 2
        assert stream.steps() == [3] * MOST


@in_mock_time
async def test_given_ids_to_tell_and_groups_to_delete_all_the_time_when_sixty_are_moved_then_neither_waits_for_ever() -> None:
    async with streaming() as stream:
        broker = stream.broker
        brief = (await broker.call(creating(50, b"b" * 16))).names
        for name in brief:
            await broker.call(CreateGroup(name, "brief", 1, 0, broker.unique()))
        lost = [(name, broker.core.channels.find(name).number) for name in brief]
        for name, number in lost:
            await broker.call(DestroyChannel(name, number))
        for step in (1, 2, 3):
            broker.remote.fates.append(Fate.HELD)
            for name in stream.names:
                broker.core.submit(Produce(name, broker.unique(), 0, *batch_of(b"x")), lambda reply: None)
            await trio.sleep(0.7)
            asked, first = Asked(broker, stream.committing(step)), len(broker.etcd.applied)
            broker.remote.release(Fate.ANSWERED)
            await wait_all_tasks_blocked()
            assert asked.reply == Empty()
            entries = broker.etcd.applied[first + 1].entries
            assert len([key for key in entries if key.startswith(GROUP)]) == 2 * MOST, "behind what is in flight, at once"
        assert stream.steps() == [3] * MOST
        for _ in range(200):
            await broker.call(stream.committing(3))
        assert not [key for key in broker.etcd.entries if "brief" in key]
        ends = [broker.core.channels.find(name).visible.end_id for name in stream.names]
        assert [broker.etcd.entries[f"{name}/{END_ID}"] for name in stream.names] == list(map(str, ends))


@in_mock_time
async def test_given_groups_with_more_consumers_than_a_transaction_takes_when_moved_together_then_refused_with_the_reason() -> (
    None
):
    async with streaming() as stream:
        broker = stream.broker
        entry = ConsumerEntry(1 << 63, 1 << 63, 1 << 63, 1, 1 << 63, 1 << 63)
        for name in stream.names:
            group = broker.core.channels.find(name).groups[GROUP]
            group.value = group.state._replace(consumers={identity(1, which): entry for which in range(100)})
        begin = trio.current_time()
        refused = await broker.call(stream.committing(1))
        assert isinstance(refused, LimitExceeded)
        assert trio.current_time() == begin
        assert await broker.call(stream.committing(1, slice(0, 30))) == Empty()
        assert stream.steps() == [1] * 30 + [0] * 30
        assert await broker.call(unsubscribing(stream.numbers, stream.generations)) == Empty(), "deleting needs no room"


def test_given_a_state_with_all_that_it_may_hold_when_encoded_then_it_is_no_larger_than_what_is_counted_for_it() -> None:
    most = (1 << 64) - 1
    seek = LastSeek(bytes(16), most, most, 3, most)
    state = GroupState(most, most, bytes(16), most, most, most, bytes(256), seek, {}, most)
    assert len(encode_state(state)) <= STATE_BYTES
    entry = ConsumerEntry(most, most, most, 10_000, most, most, False, most, most)
    grown = encode_state(state._replace(consumers={bytes(16): entry, bytes(15) + b"1": entry}))
    assert len(grown) - len(encode_state(state)) <= 2 * CONSUMER_BYTES


# -- what nobody was told of -----------------------------------------------------------------------


@pytest.mark.parametrize("fates", FATES, ids=lambda fates: "-".join(fate.name for fate in fates))
@pytest.mark.parametrize("kind", ["subscribe", "seek", "commit", "unsubscribe"])
def test_given_an_operation_that_nobody_answered_when_it_is_repeated_then_it_was_done_once_and_whole(
    fates: list[Fate], kind: str
) -> None:
    @in_mock_time
    async def scenario() -> None:
        async with streaming() as stream:
            broker = stream.broker
            request = {
                "subscribe": subscribing(stream.numbers, "other"),
                "seek": seeking(stream.numbers, SEEK, generations=stream.generations, to=stream.ends),
                "commit": stream.committing(2),
                "unsubscribe": unsubscribing(stream.numbers, stream.generations),
            }[kind]
            broker.remote.fates.extend(fates)
            assert isinstance(await broker.call(request), MetaUnavailable)
            await trio.sleep(A_WHILE)
            replies = [await broker.call(request) for _ in range(2)]
            assert not isinstance(replies[0], RocksMQError)
            assert replies[0] == replies[1]
            before = dict(broker.etcd.entries)
            while broker.etcd.late:
                broker.etcd.arrive(0)
            assert broker.etcd.entries == before, "what comes later changes nothing"
            found = {key: value for key, value in broker.etcd.entries.items() if key.endswith(CURRENT_ID)}
            if kind == "subscribe":
                assert len(found) == 2 * MOST
            elif kind == "unsubscribe":
                assert found == {}
            elif kind == "seek":
                assert isinstance(replies[0], SoughtMany)
                assert stream.steps() == [3] * MOST
                assert [generation for _, generation, _ in sought(replies[0])] == stream.generations
            else:
                assert stream.steps() == [2] * MOST

    scenario()


@in_mock_time
async def test_given_a_transaction_that_was_not_applied_when_one_on_sixty_groups_waits_then_it_goes_alone_and_is_done() -> None:
    async with streaming() as stream:
        broker = stream.broker
        await trio.sleep(A_WHILE)
        broker.remote.fates.extend([Fate.LOST])
        first = Asked(broker, CreateGroup(stream.names[0], "other", 1, 0, broker.unique()))
        await wait_all_tasks_blocked()
        await trio.sleep(0.05)
        assert isinstance(first.reply, MetaUnavailable)
        applied = len(broker.etcd.applied)
        asked = [
            Asked(broker, stream.committing(1)),
            Asked(broker, CreateGroup(stream.names[0], "other", 1, 0, broker.unique())),
        ]
        await trio.sleep(A_WHILE)
        assert all(not isinstance(one.reply, RocksMQError) for one in asked)
        entries = [transaction.entries for transaction in broker.etcd.applied[applied:]]
        counts = [len([key for key, value in one.items() if key.endswith(CURRENT_ID) and value]) for one in entries]
        assert [count for count in counts if count] == [MOST, 1], "one operation at a time"
        assert stream.steps() == [1] * MOST


@in_mock_time
async def test_given_a_full_disk_when_ids_of_new_generations_cannot_be_saved_then_the_seek_is_undone_and_repeated() -> None:
    async with streaming() as stream:
        broker = stream.broker
        before = stream.generations
        broker.now_ms += 3_600_000
        broker.store.on_write = fail(DiskFull("full"))
        request = seeking(stream.numbers, SEEK, generations=before)
        assert isinstance(await broker.call(request), DiskFull)
        assert stream.generations == before
        broker.store.on_write = lambda: None
        await trio.sleep(A_WHILE)
        reply = await broker.call(request)
        assert [generation for _, generation, _ in sought(reply)] == stream.generations != before


@in_mock_time
async def test_given_the_store_away_when_many_channels_are_fetched_then_that_goes_on() -> None:
    async with streaming() as stream:
        broker = stream.broker
        broker.remote.is_away = True
        starts = [(number, 0) for number in stream.numbers]
        assert len(read(await broker.call(fetching(starts)))) == MOST
        assert isinstance(await broker.call(stream.committing(1)), MetaUnavailable)
        waiting = Asked(broker, fetching(zip(stream.numbers, stream.ends, strict=True), wait_ms=30_000))
        await broker.produce(b"d", channel=stream.names[5])
        assert {index: part.payloads for index, part in read(waiting.replies[0]).items()} == {5: [b"d"]}
        broker.remote.is_away = False
        await trio.sleep(A_WHILE)
        assert await broker.call(stream.committing(1)) == Empty()


@in_mock_time
async def test_given_what_the_store_has_lost_when_it_is_told_again_then_all_groups_of_the_subscription_are_there() -> None:
    async with streaming(100) as stream:
        broker = stream.broker
        past = broker.etcd.read()
        assert await broker.call(stream.committing(1, slice(0, 60))) == Empty()
        assert await broker.call(stream.committing(2, slice(60, 100))) == Empty()
        broker.etcd.go_back(past)
        await trio.sleep(A_WHILE)
        assert stream.steps() == [1] * 60 + [2] * 40
        assert await broker.call(stream.committing(3, slice(20, 80))) == Empty()
        assert stream.steps() == [1] * 20 + [3] * 60 + [2] * 20


@in_mock_time
async def test_given_an_unsubscription_that_is_undone_when_a_commit_follows_it_then_that_is_not_told_of_it() -> None:
    async with streaming(3) as stream:
        broker = stream.broker
        gone = unsubscribing(stream.numbers, stream.generations)
        commit = stream.committing(1)
        broker.remote.fates.extend([Fate.HELD, Fate.LOST])
        Asked(broker, CreateGroup(stream.names[0], "blocker", 1, 0, broker.unique()))
        await wait_all_tasks_blocked()
        asked = [Asked(broker, gone), Asked(broker, commit)]
        broker.remote.release(Fate.ANSWERED)
        await trio.sleep(A_WHILE)
        assert all(isinstance(one.reply, MetaUnavailable) for one in asked)
        assert stream.steps() == [0] * 3
        assert await broker.call(gone) == Empty()
        assert isinstance(await broker.call(commit), GroupNotFound)


@in_mock_time
async def test_given_an_unsubscription_with_the_store_when_a_channel_is_not_found_then_that_is_told_at_once() -> None:
    async with streaming(3) as stream:
        broker = stream.broker
        await trio.sleep(A_WHILE)
        broker.remote.fates.append(Fate.HELD)
        gone = Asked(broker, unsubscribing(stream.numbers, stream.generations))
        await wait_all_tasks_blocked()
        requests = fetching([(12_345, 0)]), Produce("nowhere", broker.unique(), 0, *batch_of(b"x"))
        strangers = [Asked(broker, request) for request in requests]
        assert [type(one.reply) for one in strangers] == [ChannelNotFound] * 2
        assert not gone.replies
        broker.remote.release(Fate.LOST)
        await trio.sleep(A_WHILE)
        assert isinstance(gone.reply, MetaUnavailable)


@pytest.mark.parametrize("is_full", [False, True])
@in_mock_time
async def test_given_a_channel_whose_destruction_is_not_durable_when_unsubscribed_then_the_answer_waits_for_that_too(
    is_full: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with streaming(3) as stream:
        broker = stream.broker
        await trio.sleep(A_WHILE)
        committer, may_sync = broker.core.committer, trio.Event()
        at_once = committer._sync_written  # pyright: ignore[reportPrivateUsage]

        async def later() -> None:
            await may_sync.wait()
            if is_full:
                raise DiskFull("full")
            await at_once()

        monkeypatch.setattr(committer, "_sync_written", later)
        generations = stream.generations
        destroyed = Asked(broker, DestroyChannel(stream.names[0], stream.numbers[0]))
        await wait_all_tasks_blocked()
        asked = [
            Asked(broker, unsubscribing(stream.numbers, generations)),
            Asked(broker, unsubscribing(stream.numbers[:1], generations[:1])),
        ]
        await trio.sleep(A_WHILE)
        assert not any(one.replies for one in (destroyed, *asked))
        assert broker.etcd.group(stream.names[1], GROUP) is None, "the store has answered"
        may_sync.set()
        await wait_all_tasks_blocked()
        assert [type(one.reply) for one in (destroyed, *asked)] == [DiskFull if is_full else Empty] * 3


@in_mock_time
async def test_given_groups_of_many_consumers_when_subscribed_again_then_they_need_no_room_and_a_new_one_is_made() -> None:
    async with streaming(20) as stream:
        broker = stream.broker
        await trio.sleep(A_WHILE)
        new = (await broker.call(creating(1, b"n" * 16))).names
        numbers = [*stream.numbers, broker.core.channels.find(new[0]).number]
        for name in stream.names:
            group = broker.core.channels.find(name).groups[GROUP]
            generation = group.state.generation
            entry = ConsumerEntry(0, 1, 2, 1, generation, generation)
            group.value = group.state._replace(consumers={identity(1 << 62, number): entry for number in range(250)})
        assert isinstance(await broker.call(seeking(stream.numbers, SEEK)), LimitExceeded), "this writes them all"
        assert await broker.call(subscribing(numbers)) == Empty()
        assert broker.etcd.group(new[0], GROUP) is not None
