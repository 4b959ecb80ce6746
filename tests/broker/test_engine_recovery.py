"""What survives restarts, crashes and a clock that jumps; and what is refused at the start."""

import json
import os
import shutil
from pathlib import Path

import pytest

from rocksmq.broker import keys
from rocksmq.broker.durability import Durability
from rocksmq.broker.engine import RocksMQ
from rocksmq.broker.ids import IDAllocator
from rocksmq.broker.store import DataRefused, DirectoryInUse, Family, Put, Store
from rocksmq.protocol.errors import Conflict, OutOfSequence
from rocksmq.protocol.operations import Consume, DescribeGroup, OpenProducer, Produce, ReleaseConsumer, Seek

from .disk_support import crashed
from .support import NOON_MS, batch_of, identity, in_trio

DAY_MS = 24 * 3600 * 1000


# -- restarts --------------------------------------------------------------------------


@pytest.mark.parametrize("durability", ["fsync", "interval:50", "os"])
@pytest.mark.parametrize("clean", [True, False], ids=["clean", "crash"])
def test_given_everything_when_restarted_then_everything_is_as_it_was(tmp_path: Path, durability: str, clean: bool) -> None:
    path = tmp_path / "data"
    mode = Durability.parse(durability)
    producer, consumer = identity(1 << 62, 1), identity(1 << 62, 2)
    produce = Produce("orders", producer, 0, *batch_of(b"numbered"))
    claim = Consume("orders", "billing", consumer, 0, 3, 1000, 0)

    @in_trio
    async def before() -> None:
        nonlocal path
        async with RocksMQ(path, durability=mode) as mq:
            await mq.create_channel("gone")
            await mq.create_channel("orders")
            await mq.create_consumer_group("orders", "billing")
            await mq.create_consumer_group("orders", "gone")
            await mq.produce("orders", [b"a", b"bb"], headers={"k": b"v"})
            await mq.produce("orders", [b"c", b"d"])
            assert (await mq.call(claim)).message_count == 3
            await mq.call(produce)
            await mq.destroy_channel("gone")
            await mq.destroy_consumer_group("orders", "gone")
            if not clean:
                path = crashed(path)

    @in_trio
    async def after() -> None:
        async with RocksMQ(path, durability=mode) as mq:
            assert mq.core.channels.get("gone") is None
            assert set(mq.core.channels.find("orders").groups) == {"billing"}
            found = list(await mq.fetch("orders", "earliest"))
            assert [message.payload for message in found] == [b"a", b"bb", b"c", b"d", b"numbered"]
            assert [message.headers for message in found] == [{"k": b"v"}] * 2 + [{}] * 3
            again = await mq.call(claim)
            assert (again.message_count, again.next_position) == (3, found[2].id + 1)
            assert (await mq.call(DescribeGroup("orders", "billing"))).lag_messages == 2
            assert (await mq.call(produce)).first_id == found[4].id
            with pytest.raises(OutOfSequence) as refused:
                await mq.call(produce._replace(number=2))
            assert refused.value.expected_number == 1
            assert (await mq.call(produce._replace(number=1))).first_id > found[4].id
            assert (await mq.consume("orders", "billing")).payloads == [b"d", b"numbered", b"numbered"]
            assert not await mq.create_channel("orders")

    before()
    after()


@pytest.mark.parametrize("durability", ["fsync", "os"])
@pytest.mark.parametrize("clean", [True, False], ids=["clean", "crash"])
def test_given_messages_given_back_when_restarted_then_they_are_still_counted_and_served_first(
    tmp_path: Path, durability: str, clean: bool
) -> None:
    path, mode = tmp_path / "data", Durability.parse(durability)
    claim = Consume("orders", "billing", identity(1 << 62, 1), 0, 3, 1000, 0)
    release = ReleaseConsumer("orders", "billing", claim.consumer, 0, 0, 0)

    @in_trio
    async def before() -> None:
        nonlocal path, release
        async with RocksMQ(path, durability=mode) as mq:
            await mq.create_channel("orders")
            await mq.create_consumer_group("orders", "billing")
            ids = await mq.produce("orders", [b"a", b"b", b"c", b"d"])
            await mq.call(claim)
            release = release._replace(position=ids[1])
            await mq.call(release)
            if not clean:
                path = crashed(path)

    @in_trio
    async def after() -> None:
        async with RocksMQ(path, durability=mode) as mq:
            await mq.call(release)
            with pytest.raises(OutOfSequence, match="released"):
                await mq.call(claim)
            assert (await mq.call(DescribeGroup("orders", "billing"))).lag_messages == 3
            assert (await mq.consume("orders", "billing", 1)).payloads == [b"b"]
            assert (await mq.consume("orders", "billing")).payloads == [b"c"]
            await mq.call(release)
            assert (await mq.consume("orders", "billing")).payloads == [b"d"]

    before()
    after()


@pytest.mark.parametrize("durability", ["fsync", "os"])
@pytest.mark.parametrize("clean", [True, False], ids=["clean", "crash"])
def test_given_named_producers_when_restarted_then_holders_and_last_sequences_are_as_before(
    tmp_path: Path, durability: str, clean: bool
) -> None:
    path, mode = tmp_path / "data", Durability.parse(durability)
    former, holder = identity(1 << 62, 1), identity(1 << 62, 2)
    produce = Produce("orders", former, 0, *batch_of(b"a", b"b"), sequences=[1, 5])
    first_ids: list[int | None] = []

    @in_trio
    async def before() -> None:
        nonlocal path
        async with RocksMQ(path, durability=mode) as mq:
            await mq.create_channel("orders")
            for name, producer in (("importer", former), ("other", identity(1 << 62, 3))):
                await mq.call(OpenProducer("orders", name, producer))
            first_ids.append((await mq.call(produce)).first_id)
            await mq.call(OpenProducer("orders", "importer", holder))
            stored_before = produce._replace(producer=holder)
            assert (await mq.call(stored_before)).first_id is None
            if not clean:
                path = crashed(path)

    @in_trio
    async def after() -> None:
        async with RocksMQ(path, durability=mode) as mq:
            assert (await mq.call(produce)).first_id == first_ids[0]
            with pytest.raises(Conflict):
                await mq.call(produce._replace(number=1, sequences=[6, 7]))
            assert (await mq.call(produce._replace(producer=holder))).first_id is None
            assert (await mq.call(produce._replace(producer=holder, number=1, sequences=[6, 7]))).first_id is not None
            assert (await mq.call(OpenProducer("orders", "importer", former))).last_sequence == 7
            assert (await mq.call(OpenProducer("orders", "other", holder))).last_sequence is None
            assert (await mq.fetch("orders", "earliest")).payloads == [b"a", b"b"] * 2

    before()
    after()


@pytest.mark.parametrize("clean", [True, False], ids=["clean", "crash"])
def test_given_a_seek_when_the_broker_restarts_then_its_repeat_is_answered_alike(tmp_path: Path, clean: bool) -> None:
    path = tmp_path / "data"
    request = Seek("orders", "billing", 1, 0, b"s" * 16)
    answers: list[object] = []

    @in_trio
    async def first() -> None:
        nonlocal path
        async with RocksMQ(path) as mq:
            await mq.create_channel("orders")
            await mq.create_consumer_group("orders", "billing")
            await mq.produce("orders", [b"a", b"b"])
            answers.append(tuple(await mq.call(request)))
            await mq.consume("orders", "billing", 1)
            if not clean:
                path = crashed(path)

    @in_trio
    async def second() -> None:
        async with RocksMQ(path) as mq:
            answers.append(tuple(await mq.call(request)))
            assert (await mq.consume("orders", "billing")).payloads == [b"b"]

    first()
    second()
    assert answers[0] == answers[1]


@pytest.mark.parametrize("jump_ms", [-400 * DAY_MS, -DAY_MS, 0, DAY_MS])
@pytest.mark.parametrize("clean", [True, False], ids=["clean", "crash"])
def test_given_the_clock_set_over_restarts_when_ids_are_given_out_then_they_rise(
    tmp_path: Path, jump_ms: int, clean: bool
) -> None:
    now, path, ids = NOON_MS, tmp_path / "data", list[int]()

    @in_trio
    async def some() -> None:
        nonlocal path
        async with RocksMQ(path, IDAllocator(clock=lambda: now)) as mq:
            await mq.create_channel("orders")
            ids.extend(await mq.produce("orders", [b"a"] * 3))
            ids.extend(await mq.produce("orders", [b"a"] * 3))
            if not clean:
                path = crashed(path)
        path = path if clean else path.rename(path.with_name(f"run-{len(ids)}"))

    for _ in range(4):
        some()
        now += jump_ms
    assert ids == sorted(set(ids))
    assert len(ids) == 24


def test_given_many_clean_restarts_when_ids_are_given_out_then_they_do_not_run_ahead_of_the_clock(tmp_path: Path) -> None:
    ids: list[int] = []

    @in_trio
    async def one() -> None:
        async with RocksMQ(tmp_path, IDAllocator(clock=lambda: NOON_MS)) as mq:
            await mq.create_channel("orders")
            ids.extend(await mq.produce("orders", [b"a"]))

    for _ in range(5):
        one()
    assert {message_id >> 18 for message_id in ids} == {NOON_MS}
    assert ids == sorted(set(ids))


# -- what is refused -------------------------------------------------------------------


async def opened(path: Path, *, accept_loss: bool = False) -> None:
    async with RocksMQ(path, accept_loss=accept_loss):
        pass


@in_trio
async def test_given_a_directory_in_use_when_opened_then_it_is_refused_and_the_first_goes_on(tmp_path: Path) -> None:
    async with RocksMQ(tmp_path) as mq:
        with pytest.raises(DirectoryInUse, match=str(os.getpid())):
            await opened(tmp_path)
        assert await mq.create_channel("orders")
    await opened(tmp_path)


@in_trio
async def test_given_a_newer_format_when_opened_then_it_is_refused(tmp_path: Path) -> None:
    await opened(tmp_path)
    file = tmp_path / "format"
    file.write_text(json.dumps({**json.loads(file.read_text()), "format": 2}))
    with pytest.raises(DataRefused, match="newer"):
        await opened(tmp_path)


async def some_data(path: Path) -> None:
    async with RocksMQ(path) as mq:
        await mq.create_channel("orders")
        for number in range(5):
            await mq.produce("orders", [b"%d" % number])


@in_trio
async def test_given_a_missing_mark_when_opened_then_it_is_refused_until_the_loss_is_accepted_once(tmp_path: Path) -> None:
    await some_data(tmp_path)
    (tmp_path / "mark").unlink()
    with pytest.raises(DataRefused, match="mark is missing"):
        await opened(tmp_path)
    await opened(tmp_path, accept_loss=True)
    await opened(tmp_path)


@in_trio
async def test_given_a_log_that_was_lost_when_opened_then_it_is_refused_until_the_loss_is_accepted_once(tmp_path: Path) -> None:
    path = tmp_path / "data"
    await some_data(path)
    before = crashed(path)
    async with RocksMQ(path) as mq:
        await mq.create_channel("lost")
        await mq.produce("lost", [b"acknowledged"])
    shutil.rmtree(path / "db")
    shutil.copytree(before / "db", path / "db")
    with pytest.raises(DataRefused, match=r"\d commits are missing"):
        await opened(path)
    await opened(path, accept_loss=True)
    async with RocksMQ(path) as mq:
        assert mq.core.channels.get("lost") is None
        assert len(await mq.fetch("orders", "earliest")) == 5


@in_trio
async def test_given_a_record_that_is_damaged_when_opened_then_it_is_refused_and_not_left_locked(tmp_path: Path) -> None:
    await some_data(tmp_path)
    store = Store(tmp_path / "db")
    settings, value = next(iter(store.scan(Family.META, keys.SETTINGS, keys.prefix_end(keys.SETTINGS))))
    for damaged in (b"", b"\xff", b"\x80", b"\x82\x02\x01", b"\x81\x01", value[:-1]):
        store.write([Put(Family.META, settings, damaged)])
        store.sync()
        store.close()
        with pytest.raises(DataRefused):
            await opened(tmp_path)
        store = Store(tmp_path / "db")
    store.close()
