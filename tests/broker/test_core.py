"""Requests as they come from the wire: what is refused, and that a repeat gets its first answer before any check."""

from pathlib import Path
from typing import Any

import pytest
import trio

from rocksmq.broker.disk import DiskGuard
from rocksmq.broker.durability import Durability
from rocksmq.broker.engine import RocksMQ
from rocksmq.broker.limits import Limits
from rocksmq.protocol.batch import RecordBatch
from rocksmq.protocol.errors import (
    ChannelNotFound,
    DiskFull,
    InvalidRequest,
    LimitExceeded,
    MessageTooLarge,
    OutOfSequence,
)
from rocksmq.protocol.messages import MessageBatch
from rocksmq.protocol.operations import (
    Consume,
    CreateChannel,
    CreateGroup,
    DescribeChannel,
    DescribeGroup,
    DestroyChannel,
    DestroyGroup,
    Fetch,
    OpenProducer,
    Position,
    Produce,
    ReleaseConsumer,
    Seek,
)

from .disk_support import Disk, hold
from .support import batch_of, identity, in_trio

ME, YOU = identity(1 << 62, 1), identity(1 << 62, 2)
BAD_BATCHES: list[tuple[RecordBatch, type[Exception], str]] = [
    (RecordBatch(0, b"", b"", None, None), InvalidRequest, "at least one"),
    (RecordBatch(1, b"", b"", None, None), InvalidRequest, "lengths"),
    (RecordBatch(1, b"\1\0\0\0", b"", None, None), InvalidRequest, "lengths"),
    (RecordBatch(1, b"\0\0\0\0", b"", b"\0\0\0\0", None), InvalidRequest, "both or neither"),
    (RecordBatch(1, b"\0\0\0\0", b"", b"\1\0\0\0", b""), InvalidRequest, "header_lengths"),
    (batch_of(*[b""] * 6), LimitExceeded, "batch_messages_max"),
    (batch_of(b"", bytes(11)), MessageTooLarge, "payload_bytes_max"),
]


def produce(number: int, *payloads: bytes, producer: bytes = ME) -> Produce:
    return Produce("orders", producer, number, *batch_of(*payloads))


def consume(number: int, n: int = 100, size: int = 1 << 20, consumer: bytes = ME) -> Consume:
    return Consume("orders", "billing", consumer, number, n, size, 0)


def no_room(guard: DiskGuard, size: int) -> bool:
    return False


async def ready(mq: RocksMQ) -> None:
    await mq.create_channel("orders")
    await mq.create_consumer_group("orders", "billing")


@pytest.mark.parametrize(("batch", "error", "match"), BAD_BATCHES)
def test_given_a_bad_batch_when_produced_then_it_is_refused_and_its_number_is_still_free(
    tmp_path: Path, batch: RecordBatch, error: type[Exception], match: str
) -> None:
    @in_trio
    async def scenario() -> None:
        async with RocksMQ(tmp_path, limits=Limits(batch_messages_max=5, payload_bytes_max=10)) as mq:
            await ready(mq)
            with pytest.raises(error, match=match):
                await mq.call(Produce("orders", ME, 0, *batch))
            assert (await mq.call(DescribeChannel("orders"))).message_count == 0
            await mq.call(produce(0, bytes(10), b"", b"", b"", b""))

    scenario()


@in_trio
async def test_given_a_repeat_when_it_is_bad_or_there_is_no_room_then_it_still_gets_its_first_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with RocksMQ(tmp_path, limits=Limits(batch_messages_max=5, payload_bytes_max=10)) as mq:
        await ready(mq)
        first = (await mq.call(produce(0, b"a"))).first_id
        for batch, _, _ in BAD_BATCHES:
            assert (await mq.call(Produce("orders", ME, 0, *batch))).first_id == first
        monkeypatch.setattr(DiskGuard, "admits", no_room)
        assert (await mq.call(produce(0, b"a"))).first_id == first
        with pytest.raises(OutOfSequence):
            await mq.call(produce(2, b"a"))
        with pytest.raises(DiskFull) as refused:
            await mq.call(produce(1, b"b"))
        assert refused.value.retry_after
        assert (await mq.call(consume(0, 1))).message_count == 1


@in_trio
async def test_given_repeats_sent_before_the_first_answer_when_answered_then_all_agree(tmp_path: Path) -> None:
    async with RocksMQ(tmp_path) as mq:
        await ready(mq)
        first_ids: list[int] = []
        counts: list[int] = []

        async def send(request: Any) -> None:
            first_ids.append((await mq.call(request)).first_id)

        async def take() -> None:
            counts.append((await mq.call(consume(0, 2))).message_count)

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(send, produce(0, b"a", b"b", b"c"))
        assert len(set(first_ids)) == 1
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(take)
        assert counts == [2] * 5
        assert (await mq.call(DescribeChannel("orders"))).message_count == 3
        assert (await mq.call(DescribeGroup("orders", "billing"))).lag_messages == 1


@in_trio
async def test_given_a_destroy_when_repeated_then_it_succeeds_and_a_successor_is_left_alone(tmp_path: Path) -> None:
    async with RocksMQ(tmp_path) as mq:
        await ready(mq)
        number = (await mq.call(DescribeChannel("orders"))).number
        creation_id = (await mq.call(DescribeGroup("orders", "billing"))).creation_id
        group, channel = DestroyGroup("orders", "billing", creation_id), DestroyChannel("orders", number)
        for request in (group, group, channel, channel, group):
            await mq.call(request)
        await ready(mq)
        await mq.call(channel)
        await mq.call(group)
        assert (await mq.call(DescribeGroup("orders", "billing"))).creation_id > creation_id


@pytest.mark.parametrize("bounds", [(0, 1), (1, 0)])
def test_given_bounds_below_one_when_read_then_they_are_refused(tmp_path: Path, bounds: tuple[int, int]) -> None:
    @in_trio
    async def scenario() -> None:
        async with RocksMQ(tmp_path) as mq:
            await ready(mq)
            with pytest.raises(InvalidRequest, match="max_messages and max_bytes"):
                await mq.call(consume(0, *bounds))
            with pytest.raises(InvalidRequest, match="max_messages and max_bytes"):
                await mq.call(Fetch("orders", Position.EARLIEST, 0, *bounds, 0))

    scenario()


@in_trio
async def test_given_bad_names_when_requested_then_each_is_refused(tmp_path: Path) -> None:
    async with RocksMQ(tmp_path) as mq:
        await ready(mq)
        requests = [
            CreateChannel("a/b", None, None, None, ME),
            DestroyChannel("a/b", 1),
            DescribeChannel("a/b"),
            CreateGroup("orders", "a/b", 1, 0, ME),
            DestroyGroup("orders", "a/b", 1),
            DescribeGroup("orders", "a/b"),
            Produce("a/b", ME, 0, *batch_of(b"a")),
            Consume("orders", "a/b", ME, 0, 1, 1, 0),
            Fetch("a/b", 1, 0, 1, 1, 0),
            Seek("orders", "a/b", 1, 0, ME),
            OpenProducer("orders", "a/b", ME),
            OpenProducer("a/b", "importer", ME),
            ReleaseConsumer("orders", "a/b", ME, 0, 0, 0),
            ReleaseConsumer("a/b", "billing", ME, 0, 0, 0),
        ]
        for request in requests:
            with pytest.raises(InvalidRequest, match="name"):
                await mq.call(request)


@in_trio
async def test_given_two_consumers_in_one_turn_when_they_consume_then_no_message_goes_to_both(tmp_path: Path) -> None:
    async with RocksMQ(tmp_path) as mq:
        await ready(mq)
        await mq.call(produce(0, b"a", b"b", b"c"))
        counts: list[int] = []

        async def take(consumer: bytes) -> None:
            counts.append((await mq.call(consume(0, 2, consumer=consumer))).message_count)

        async with trio.open_nursery() as nursery:
            for consumer in (ME, YOU, identity(1 << 62, 3)):
                nursery.start_soon(take, consumer)
        assert sorted(counts) == [0, 1, 2]


@in_trio
async def test_given_what_the_body_raises_when_the_engine_ends_then_it_comes_out_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(ChannelNotFound):
        async with RocksMQ(tmp_path) as mq:
            await mq.fetch("orders", "earliest")


@in_trio
async def test_given_a_large_claim_that_is_durable_when_repeated_then_nothing_waits_for_room(tmp_path: Path) -> None:
    async with RocksMQ(tmp_path) as mq:
        await ready(mq)
        await mq.call(produce(0, *[bytes(500_000)] * 10))
        first = await mq.call(consume(0, size=1 << 24))
        again = await mq.call(consume(0, size=1 << 24))
        assert again.message_count == first.message_count == 10
        assert mq.core.committer.open.is_empty
        assert mq.core.committer.open.size == 0


@in_trio
async def test_given_a_parked_fetch_whose_answer_cannot_leave_when_messages_come_then_it_is_kept_until_it_can(
    tmp_path: Path,
) -> None:
    async with RocksMQ(tmp_path) as mq:
        await ready(mq)
        answers: list[Any] = []
        waiter = mq.core.submit(Fetch("orders", Position.LATEST, 0, 1, 1, 30_000), answers.append)
        assert waiter is not None
        waiter.must_wait = lambda: True
        await mq.call(produce(0, b"a"))
        mq.core.attempt_held()
        assert answers == []
        waiter.must_wait = lambda: False
        mq.core.attempt_held()
        assert [answer.message_count for answer in answers] == [1]


@in_trio
async def test_given_a_fetch_of_a_message_to_come_when_others_come_first_then_it_waits_for_its_own(tmp_path: Path) -> None:
    async with RocksMQ(tmp_path) as mq:
        await ready(mq)
        answers: list[Any] = []
        first = (await mq.call(produce(0, b"a"))).first_id
        mq.core.submit(Fetch("orders", Position.ID, first + (1 << 40), 1, 1, 30_000), answers.append)
        await mq.call(produce(1, b"b"))
        assert answers == []


@in_trio
async def test_given_a_reader_that_was_passed_over_when_another_polls_without_waiting_then_it_is_answered_at_once(
    tmp_path: Path,
) -> None:
    async with RocksMQ(tmp_path) as mq:
        await ready(mq)
        waiter = mq.core.submit(Fetch("orders", Position.LATEST, 0, 1, 1, 30_000), lambda reply: None)
        assert waiter is not None
        waiter.must_wait = lambda: True
        await mq.call(produce(0, b"a"))
        assert (await mq.call(consume(0))).message_count == 1
        answers: list[Any] = []
        mq.core.submit(consume(1), answers.append)
        assert [answer.message_count for answer in answers] == [0]


# -- a consumer id that is over ------------------------------------------------------------


def release(number: int, position: int = 0, consumer: bytes = ME) -> ReleaseConsumer:
    return ReleaseConsumer("orders", "billing", consumer, number, position, 0)


def parked(mq: RocksMQ, request: Consume) -> list[Any]:
    """Where the answer to a long poll will be."""
    answers: list[Any] = []
    assert mq.core.submit(request._replace(wait_ms=30_000), answers.append) is not None
    return answers


@in_trio
async def test_given_a_waiting_consumer_when_another_gives_messages_back_then_it_is_served_them(tmp_path: Path) -> None:
    async with RocksMQ(tmp_path) as mq:
        await ready(mq)
        first = (await mq.call(produce(0, b"a", b"b", b"c"))).first_id
        assert (await mq.call(consume(0))).message_count == 3
        answers = parked(mq, consume(0, consumer=YOU))
        await mq.call(release(0, first + 1))
        assert [MessageBatch(answer).payloads for answer in answers] == [[b"b", b"c"]]
        assert (await mq.call(DescribeGroup("orders", "billing"))).lag_messages == 0


@in_trio
async def test_given_a_parked_consume_when_its_id_is_released_then_it_is_answered_empty_and_others_still_wait(
    tmp_path: Path,
) -> None:
    async with RocksMQ(tmp_path) as mq:
        await ready(mq)
        await mq.create_consumer_group("orders", "other")
        mine, yours = parked(mq, consume(0)), parked(mq, consume(0, consumer=YOU))
        elsewhere = parked(mq, consume(0)._replace(group="other"))
        await mq.call(release(0))
        assert [answer.message_count for answer in mine] == [0]
        assert (yours, elsewhere) == ([], [])
        await mq.call(produce(0, b"a"))
        assert [answer.message_count for answer in (*yours, *elsewhere)] == [1, 1]
        assert len(mine) == 1


@in_trio
async def test_given_a_parked_consume_when_it_and_its_release_come_in_one_turn_with_messages_then_none_is_lost(
    tmp_path: Path,
) -> None:
    async with RocksMQ(tmp_path) as mq:
        await ready(mq)
        mine, released = parked(mq, consume(0)), list[Any]()
        mq.core.submit(produce(0, b"a"), lambda reply: None)
        mq.core.submit(release(0), released.append)
        assert (await mq.call(consume(0, consumer=YOU)._replace(wait_ms=30_000))).message_count == 1
        assert [answer.message_count for answer in mine] == [0]
        assert len(released) == 1


@pytest.mark.parametrize("durability", ["fsync", "interval:1000", "os"])
def test_given_a_durability_when_an_id_is_released_or_a_name_opened_then_only_what_must_be_is_synced(
    tmp_path: Path, disk: Disk, durability: str
) -> None:
    @in_trio
    async def scenario() -> None:
        async with RocksMQ(tmp_path, durability=Durability.parse(durability)) as mq:
            await ready(mq)
            first = (await mq.call(produce(0, b"a", b"b"))).first_id
            await mq.call(consume(0))
            before = disk.syncs
            await mq.call(release(0, first + 1))
            assert disk.syncs - before == (durability == "fsync")
            assert (await mq.call(DescribeGroup("orders", "billing"))).lag_messages == 1
            before = disk.syncs
            assert (await mq.call(OpenProducer("orders", "importer", YOU))).last_sequence is None
            assert disk.syncs - before == 1, "whose a name is is synced in every mode"
            before = disk.syncs
            assert (await mq.call(produce(0, b"a", producer=YOU)._replace(sequences=[1, 1]))).first_id > first
            assert disk.syncs - before == (durability == "fsync")
            assert (await mq.call(produce(1, b"a", producer=YOU)._replace(sequences=[1, 1]))).first_id is None

    scenario()


@in_trio
async def test_given_a_refused_batch_when_its_producer_has_a_name_then_its_sequences_are_still_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with RocksMQ(tmp_path) as mq:
        await ready(mq)
        await mq.call(OpenProducer("orders", "importer", ME))
        with monkeypatch.context() as patched:
            patched.setattr(DiskGuard, "admits", no_room)
            with pytest.raises(DiskFull):
                await mq.call(produce(0, b"a")._replace(sequences=[1, 1]))
        assert (await mq.call(OpenProducer("orders", "importer", ME))).last_sequence is None
        assert (await mq.call(produce(0, b"a")._replace(sequences=[1, 1]))).first_id is not None
        monkeypatch.setattr(DiskGuard, "admits", no_room)
        assert (await mq.call(produce(1, b"a")._replace(sequences=[1, 1]))).first_id is None, "what is stored needs no room"


# -- a claim that is not durable yet ---------------------------------------------------------


@pytest.mark.parametrize("wait_ms", [0, 30_000])
@in_trio
async def test_given_a_claim_that_is_being_synced_when_repeated_then_the_repeat_is_answered_with_it_and_never_empty(
    tmp_path: Path, disk: Disk, wait_ms: int
) -> None:
    let_go, begun, held = hold()
    async with RocksMQ(tmp_path) as mq:
        await ready(mq)
        await mq.call(produce(0, b"a", b"b"))
        disk.on_sync = held
        mq.core.committer.sync_seconds = 1.0
        first, again = list[Any](), list[Any]()
        mq.core.submit(consume(0), first.append)
        await begun.wait()
        mq.core.submit(consume(0)._replace(wait_ms=wait_ms), again.append)
        assert (first, again) == ([], [])
        disk.on_sync = lambda: None
        let_go.set()
        await mq.core.committer.sync_beyond(mq.core.committer.synced_number)
        await mq.call(produce(1, b"c"))
        assert [answer.message_count for answer in (*first, *again)] == [2, 2]


@in_trio
async def test_given_two_polls_of_one_number_when_the_first_is_handed_messages_then_the_second_never_expires_empty(
    tmp_path: Path, disk: Disk
) -> None:
    let_go, begun, held = hold()
    async with RocksMQ(tmp_path) as mq:
        await ready(mq)
        mq.core.committer.sync_seconds = 1.0
        await mq.call(produce(0, b"a", b"b", b"c"))
        await mq.call(consume(0))
        timed_out, second = parked(mq, consume(0, consumer=YOU)), list[Any]()
        waiter = mq.core.submit(consume(0, consumer=YOU)._replace(wait_ms=30_000), second.append)
        assert waiter is not None
        waiter.must_wait = lambda: True
        disk.on_sync = held
        mq.core.submit(produce(1, b"d"), lambda reply: None)
        await begun.wait()
        assert mq.core.waiters.cancel(waiter)
        waiter.expire()
        assert second == []
        disk.on_sync = lambda: None
        let_go.set()
        await mq.core.committer.sync_beyond(mq.core.committer.synced_number)
        await mq.call(produce(2, b"e"))
        assert [answer.message_count for answer in (*timed_out, *second)] == [1, 1]
