"""A store elsewhere that loses what it has acknowledged: it is told again, from memory or from the copy in the data directory.

Whatever happens in between, each `Reader` reads every message once, and in the end the store has what the broker has.
"""

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import pytest
import trio

from rocksmq.broker import keys, meta_remote
from rocksmq.broker.directory import DataDirectory
from rocksmq.broker.engine import RocksMQ
from rocksmq.broker.fence import CommitValue
from rocksmq.broker.groups import Group
from rocksmq.broker.meta_move import Importer, read_positions, refusing
from rocksmq.broker.prefix import COMMIT, OWNER
from rocksmq.broker.store import DataRefused, Family
from rocksmq.protocol.errors import MetaUnavailable
from rocksmq.protocol.operations import DestroyChannel, Empty

from .check_support import change, findings
from .meta_support import MemoryRemote, embedded_groups, live
from .remote_support import A_WHILE, FATES, broker_of, running
from .shadow_support import Disk, Reader, begun, check_goes_on, check_is_told, copied, destroyed, known, until_ahead
from .simulated_remote import Fate, SimulatedEtcd, Transaction
from .support import FSYNC, in_mock_time

# -- while the broker lives -----------------------------------------------------------------


@in_mock_time
async def test_given_an_idle_broker_when_the_store_goes_back_then_it_is_told_all_again_within_seconds(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with running(broker_of()) as broker:
        readers = await begun(broker, "billing", "audit")
        past = broker.etcd.read()
        await readers[0].read(broker)
        await trio.sleep(1)
        lost = broker.etcd.commit
        broker.etcd.go_back(past)
        await trio.sleep(meta_remote.KEEP_ALIVE_SECONDS + 1)
        check_is_told(broker)
        assert f"it was at {lost}, and is at {CommitValue.parse(past[COMMIT])}" in caplog.text
        await check_goes_on(broker, readers)


@in_mock_time
async def test_given_readers_when_the_store_goes_back_again_and_again_then_everything_is_read_once() -> None:
    async with running(broker_of()) as broker:
        readers = await begun(broker, "billing", "audit", "third")
        past = broker.etcd.read()
        async with trio.open_nursery() as nursery:
            for reader in readers:
                nursery.start_soon(reader.read_all, broker)
            for _ in range(10):
                for _ in range(7):
                    await trio.lowlevel.checkpoint()
                broker.etcd.go_back(past)
                past = past if len(broker.etcd.applied) % 2 else broker.etcd.read()
        await check_goes_on(broker, readers)


@pytest.mark.parametrize("arrives", ["before", "after", "when all is told"])
@pytest.mark.parametrize("fates", FATES, ids=lambda fates: "-".join(fate.name for fate in fates))
def test_given_a_transaction_in_doubt_when_the_store_goes_back_then_everything_is_read_once(
    fates: list[Fate], arrives: str
) -> None:
    @in_mock_time
    async def scenario() -> None:
        async with running(broker_of()) as broker:
            readers = await begun(broker, "billing", "audit")
            past = broker.etcd.read()
            await readers[0].read(broker)
            broker.remote.fates += fates
            async with trio.open_nursery() as nursery:
                nursery.start_soon(readers[0].read, broker)
                nursery.start_soon(readers[1].read, broker)
                for _ in range(4):
                    await trio.lowlevel.checkpoint()
                if arrives == "before":
                    arrive_all(broker.etcd)
                broker.etcd.go_back(past)
                if arrives == "after":
                    arrive_all(broker.etcd)
            await trio.sleep(A_WHILE)
            arrive_all(broker.etcd)
            await check_goes_on(broker, readers)

    scenario()


def arrive_all(etcd: SimulatedEtcd) -> None:
    while etcd.late:
        etcd.arrive(0)


@pytest.mark.parametrize("fates", FATES, ids=lambda fates: "-".join(fate.name for fate in fates))
def test_given_a_store_that_is_told_again_when_it_does_not_answer_then_it_gets_all_in_the_end(fates: list[Fate]) -> None:
    @in_mock_time
    async def scenario() -> None:
        async with running(broker_of()) as broker:
            readers = await begun(broker, "billing", "audit", "destroyed")
            past = broker.etcd.read()
            await readers[0].read(broker)
            await destroyed(broker, "destroyed")
            await trio.sleep(1)  # the ids of channels are told
            broker.etcd.go_back(past)
            broker.remote.fates += fates
            await trio.sleep(A_WHILE)
            check_is_told(broker)
            await check_goes_on(broker, readers[:2])

    scenario()


@pytest.mark.parametrize("turn", range(3))
def test_given_a_store_that_is_told_again_when_it_goes_back_meanwhile_then_it_gets_all_in_the_end(
    turn: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the value of before, and by one of the telling."""
    monkeypatch.setattr(meta_remote, "KEYS_MAX", 8)

    @in_mock_time
    async def scenario() -> None:
        async with running(broker_of()) as broker:
            readers = await begun(broker, *(f"g{i}" for i in range(9)))
            past = broker.etcd.read()
            for reader in readers:
                await reader.read(broker)
            broker.etcd.go_back(past)
            pasts: list[Mapping[str, str]] = [past]

            def sent(transaction: Transaction) -> None:
                pasts.append(broker.etcd.read())
                if len(pasts) == turn + 3:
                    broker.etcd.go_back(pasts[turn])

            broker.remote.on_send = sent
            await trio.sleep(meta_remote.KEEP_ALIVE_SECONDS + 1)
            assert len(pasts) >= turn + 3
            await check_goes_on(broker, readers)

    scenario()


@in_mock_time
async def test_given_groups_and_channels_made_and_destroyed_since_when_the_store_goes_back_then_it_has_those_of_now() -> None:
    async with running(broker_of()) as broker:
        (reader,) = await begun(broker, "billing")
        gone = await broker.channel("gone")
        anew = await broker.channel("anew")
        for channel in ("gone", "anew"):
            await broker.group("billing", channel)
        names = [f"g{i}" for i in range(30)]  # more than one transaction deletes
        for name in names:
            await broker.group(name)
        past = broker.etcd.read()
        for name in names:
            await destroyed(broker, name)
        await broker.group(names[0])
        await broker.group("new")
        for channel, number in (("gone", gone), ("anew", anew)):
            assert isinstance(await broker.call(DestroyChannel(channel, number)), Empty)
        await broker.channel("anew")
        await trio.sleep(1)
        now = set(broker.etcd.entries)
        broker.etcd.go_back(past)
        await trio.sleep(A_WHILE)
        assert set(broker.etcd.entries) == now
        await check_goes_on(broker, [reader, Reader(names[0]), Reader("new")])


@in_mock_time
async def test_given_more_groups_than_a_transaction_takes_when_the_store_goes_back_then_all_are_told() -> None:
    async with running(broker_of()) as broker:
        readers = await begun(broker, *(f"g{i}" for i in range(150)))
        past = broker.etcd.read()
        for reader in readers:
            await reader.read(broker)
        broker.etcd.go_back(past)
        await trio.sleep(meta_remote.KEEP_ALIVE_SECONDS + 1)
        check_is_told(broker)


@pytest.mark.parametrize("has_lease", [True, False])
def test_given_an_owner_that_is_lost_with_the_rest_when_told_again_then_it_stands_there(has_lease: bool) -> None:
    """Alone, or its lease too."""

    @in_mock_time
    async def scenario() -> None:
        async with running(broker_of()) as broker:
            readers = await begun(broker, "billing")
            past = broker.etcd.read()
            await readers[0].read(broker)
            broker.etcd.go_back({key: value for key, value in past.items() if key != OWNER})
            if not has_lease:
                broker.etcd.revoke_all()
            await check_goes_on(broker, readers)
            assert OWNER in broker.etcd.entries

    scenario()


# -- while no broker runs ---------------------------------------------------------------------


@pytest.mark.parametrize("is_clean", [True, False], ids=["stopped", "killed"])
def test_given_no_broker_when_the_store_goes_back_then_the_next_one_loads_the_copy_and_tells_all(
    is_clean: bool, caplog: pytest.LogCaptureFixture
) -> None:
    @in_mock_time
    async def scenario() -> None:
        broker = broker_of()
        async with running(broker):
            readers = await begun(broker, *(f"g{i}" for i in range(70)))
            past = broker.etcd.read()
            for reader in readers[:-1]:
                await reader.read(broker)
            await destroyed(broker, readers.pop().group)
            await broker.group("new")
            if is_clean:
                await broker.drain()
        broker.etcd.go_back(past)
        broker.start()
        async with running(broker):
            await check_goes_on(broker, [*readers, Reader("new")])
            assert len(known(broker)) == 70

    scenario()
    assert "has lost what it had acknowledged" in caplog.text


@in_mock_time
async def test_given_a_store_that_lost_nothing_when_started_then_it_is_what_counts() -> None:
    """Also where the copy lost its end to a power cut."""
    broker = broker_of()
    async with running(broker):
        readers = await begun(broker, "billing", "audit")
        disk = Disk(broker)
        for reader in readers:
            await reader.read(broker)
        await destroyed(broker, "audit")
    disk.cut()
    assert len(copied(broker)) == 2, "it is older"
    broker.start()
    async with running(broker):
        assert set(known(broker)) == {("billing", "orders")}
        await check_goes_on(broker, readers[:1])


@in_mock_time
async def test_given_a_transaction_that_was_applied_and_not_answered_when_killed_then_the_store_is_what_counts() -> None:
    broker = broker_of()
    async with running(broker):
        (reader,) = await begun(broker, "billing")
        broker.remote.fates.append(Fate.UNHEARD)
        assert isinstance(await broker.consume(reader.number, n=1), MetaUnavailable)
        position = broker.position()
    broker.start()
    async with running(broker):
        assert broker.position() == position
        await check_goes_on(broker, [reader])


@in_mock_time
async def test_given_the_prefix_deleted_when_the_loss_is_accepted_then_all_positions_come_from_the_copy() -> None:
    broker = broker_of()
    async with running(broker):
        readers = await begun(broker, "billing", "audit")
        await readers[0].read(broker)
        await broker.drain()
    broker.etcd.go_back({})
    broker.start()
    with pytest.RaisesGroup(pytest.RaisesExc(DataRefused, match="it was deleted")):
        async with running(broker):
            pass
    broker.accept_loss = True
    broker.start()
    async with running(broker):
        await check_goes_on(broker, readers)
    broker.accept_loss = False
    broker.start()
    async with running(broker):
        await check_goes_on(broker, readers)


@in_mock_time
async def test_given_a_store_restored_to_an_earlier_epoch_when_the_loss_is_accepted_then_all_positions_come_from_the_copy() -> (
    None
):
    broker = broker_of()
    async with running(broker):
        readers = await begun(broker, "billing", "audit")
        past = broker.etcd.read()
        await broker.drain()
    broker.start()
    async with running(broker):
        await readers[0].read(broker)
        await broker.group("new")
    broker.etcd.go_back(past)
    broker.accept_loss = True
    broker.start()
    async with running(broker):
        await check_goes_on(broker, [*readers, Reader("new")])


@pytest.mark.parametrize("wrong", ["empty", "older"])
def test_given_a_start_that_was_refused_when_the_store_is_right_again_then_it_is_what_counts(wrong: str) -> None:
    """The copy has lost its end to a power cut; what was found in between must not make it count."""

    @in_mock_time
    async def scenario() -> None:
        broker = broker_of()
        async with running(broker):
            readers = await begun(broker, "billing")
            past = broker.etcd.read() if wrong == "older" else {}
            await broker.drain()
        broker.start()
        async with running(broker):
            disk = Disk(broker)
            await readers[0].read(broker)
        disk.cut()
        right = broker.etcd.read()
        broker.etcd.go_back(past)
        broker.start()
        with pytest.RaisesGroup(DataRefused):
            async with running(broker):
                pass
        broker.etcd.go_back(right)
        broker.start()
        async with running(broker):
            await check_goes_on(broker, readers)

    scenario()


@in_mock_time
async def test_given_a_copy_ahead_of_its_channel_when_the_store_went_back_then_the_group_is_brought_back_once_all_is_told() -> (
    None
):
    broker = broker_of()
    async with running(broker):
        readers = await begun(broker, "billing", "audit")
        past = broker.etcd.read()
        await readers[0].read_all(broker)
    state = copied(broker)["billing", "orders"]
    beyond = state._replace(position=state.position + 5, offset=state.offset + 5)
    broker.store.write(Group("billing", "orders", beyond).changes(None))  # as if a power cut took the channel's end
    broker.etcd.go_back(past)
    broker.accept_loss = True
    broker.start()
    async with running(broker):
        broker.etcd.on_applied = lambda transaction: None  # it is told the position ahead first
        await trio.sleep(A_WHILE)
        check_is_told(broker)
        assert known(broker)["billing", "orders"][3:5] == state[3:5]
        assert broker.core.positions_brought_back == 1


# -- other stores -----------------------------------------------------------------------------


@pytest.mark.parametrize("fates", [[], *FATES], ids=lambda fates: "-".join(fate.name for fate in fates) or "ANSWERED")
@pytest.mark.parametrize("has_lost", [False, True])
def test_given_a_copy_of_another_store_when_it_is_left_behind_then_nothing_of_the_copy_comes_along(
    fates: list[Fate], has_lost: bool
) -> None:
    @in_mock_time
    async def scenario() -> None:
        broker = broker_of()
        async with running(broker):
            await begun(broker, "billing", "audit")
            past = broker.etcd.read()
            await broker.group("third")
            if has_lost:
                broker.etcd.go_back(past)
                await until_ahead(broker)
        broker.etcd = SimulatedEtcd()
        broker.accept_loss = True
        broker.start()
        broker.remote.name = "etcd prefix another"
        broker.remote.fates += fates
        async with running(broker):
            await trio.sleep(A_WHILE)
            assert known(broker) == {}
            await broker.group("new")
        broker.accept_loss = False
        broker.start()
        broker.remote.name = "etcd prefix another"
        async with running(broker):
            await check_goes_on(broker, [Reader("new")])
            assert len(known(broker)) == 1

    scenario()


async def acknowledged(mq: RocksMQ) -> None:
    await mq.create_channel("orders")
    await mq.create_consumer_group("orders", "billing")
    await mq.produce("orders", [b"a", b"b", b"c"])
    assert (await mq.consume("orders", "billing", 1)).payloads == [b"a"]


async def more(mq: RocksMQ) -> None:
    assert (await mq.consume("orders", "billing", 1)).payloads == [b"b"]
    await mq.create_channel("gone")
    await mq.create_consumer_group("gone", "billing")
    await mq.destroy_channel("gone")


async def the_rest(mq: RocksMQ) -> None:
    assert (await mq.consume("orders", "billing", 10)).payloads == [b"c"]


def move(path: Path, source: MemoryRemote | None, target: MemoryRemote | None) -> None:
    positions = read_positions(path, source, refusing)
    with closing(DataDirectory(path)) as directory:
        Importer(directory, target, FSYNC, refusing).write(positions)
        assert directory.store.get(Family.META, keys.META_SHADOW) is None, "it has a copy of nothing"


def test_given_positions_that_moved_there_and_back_when_the_store_goes_back_then_each_time_it_is_its_own_copy(
    tmp_path: Path,
) -> None:
    """Through two stores and the directory itself: an old copy never counts."""
    first, second = MemoryRemote("etcd prefix first"), MemoryRemote("etcd prefix second")
    live(tmp_path, first, acknowledged)
    move(tmp_path, first, second)
    assert embedded_groups(tmp_path) == {}
    live(tmp_path, second)
    past = dict(second.entries)
    live(tmp_path, second, more)
    move(tmp_path, second, None)
    assert set(embedded_groups(tmp_path)) == {("billing", "orders")}
    live(tmp_path, None, the_rest)
    kept = embedded_groups(tmp_path)
    assert findings(tmp_path) == []
    first.entries.clear()
    move(tmp_path, None, first)
    live(tmp_path, first)
    assert first.groups == embedded_groups(tmp_path) == kept
    second.entries = past  # of what was left behind nothing is asked
    live(tmp_path, first)
    assert first.groups == kept


def test_given_a_copy_with_groups_of_a_destroyed_channel_when_checked_and_loaded_then_they_are_nothing(tmp_path: Path) -> None:
    remote = MemoryRemote()
    live(tmp_path, remote, acknowledged)
    epoch, number = remote.entries[COMMIT].split()
    past = remote.entries | {COMMIT: f"{epoch} {int(number) - 1}"}
    left = embedded_groups(tmp_path)["billing", "orders"]._replace(channel_number=7)
    change(tmp_path, *Group("billing", "gone", left).changes(None))
    assert findings(tmp_path, remote) == []
    remote.entries = past
    live(tmp_path, remote, more)
    live(tmp_path, remote, the_rest)
    assert set(remote.groups) == {("billing", "orders")}
    assert findings(tmp_path, remote) == []
