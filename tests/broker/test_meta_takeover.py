"""Taking over a prefix of a real etcd: calls that fail around it, two that race for it, and groups ahead of their channels."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import TypeVar

import pytest
import trio

from rocksmq.broker.durability import Durability
from rocksmq.broker.engine import RocksMQ
from rocksmq.broker.fence import Attempt, Met
from rocksmq.broker.limits import Limits
from rocksmq.broker.meta_etcd import EtcdRemote, Login
from rocksmq.broker.meta_url import MetaUrl
from rocksmq.broker.prefix import Found, group_entries
from rocksmq.broker.reconcile import PrefixInUse
from rocksmq.broker.remote import Remote, RemoteFailed
from rocksmq.protocol.errors import MetaUnavailable
from rocksmq.protocol.operations import DescribeGroup, ListGroups
from tests.helpers.etcd import Etcd

from .support import in_trio

PATIENCE_SECONDS = 20
OS = Durability.parse("os")
IMPATIENT = Limits(meta_start_seconds=0.1)

Result = TypeVar("Result")
_prefixes = count()


class FaultyRemote(EtcdRemote):
    """A prefix of its own; calls named in ``failing`` fail before etcd hears of them, those in ``unheard`` after."""

    def __init__(self, etcd: Etcd, prefix: str | None = None) -> None:
        self.prefix = prefix or f"takeover/{next(_prefixes)}"
        super().__init__(MetaUrl.parse(etcd.url(self.prefix)), Login(), call_seconds=10)
        self.failing: set[str] = set()
        self.unheard: set[str] = set()
        self.sent: list[tuple[Attempt, Mapping[str, str | None], int | None]] = []

    def read(self) -> dict[str, str]:
        return self._or_fail("read", super().read)

    def transact(self, attempt: Attempt, entries: Mapping[str, str | None], lease: int | None) -> Met:
        self.sent.append((attempt, entries, lease))
        return self._or_fail("transact", lambda: EtcdRemote.transact(self, attempt, entries, lease))

    def keep_alive(self, lease: int) -> bool:
        return self._or_fail("keep_alive", lambda: EtcdRemote.keep_alive(self, lease))

    def _or_fail(self, name: str, call: Callable[[], Result]) -> Result:
        if name in self.failing:
            raise RemoteFailed("it fails")
        result = call()
        if name in self.unheard:
            raise RemoteFailed("nobody hears of it")
        return result


@pytest.fixture(scope="module")
def etcd() -> Iterator[Etcd]:
    with Etcd() as process:
        yield process


def found_in(remote: FaultyRemote) -> Found:
    return Found.decode(remote.read(), remote.name)


def engine(directory: Path, remote: Remote | None, durability: Durability = OS) -> RocksMQ:
    return RocksMQ(directory, durability=durability, limits=IMPATIENT, remote=remote)


async def ready(mq: RocksMQ) -> range:
    """A group in the midst of four messages."""
    await mq.create_channel("orders")
    await mq.create_consumer_group("orders", "billing")
    ids = await mq.produce("orders", [b"a", b"b", b"c", b"d"])
    await mq.consume("orders", "billing", 2)
    return ids


async def taken_over(mq: RocksMQ) -> None:
    """Wait until groups are known."""
    with trio.fail_after(PATIENCE_SECONDS):
        while True:
            try:
                await mq.call(ListGroups("orders", ""))
                return
            except MetaUnavailable:
                await trio.sleep(0.01)


# -- calls that fail ---------------------------------------------------------------------


@pytest.mark.parametrize("target", ["embedded", "another prefix"])
@in_trio
async def test_given_a_takeover_that_etcd_never_heard_of_when_started_elsewhere_then_it_is_free_to_go(
    tmp_path: Path, etcd: Etcd, target: str
) -> None:
    remote = FaultyRemote(etcd)
    remote.failing.add("transact")
    async with engine(tmp_path, remote) as mq:
        await mq.create_channel("orders")
    assert remote.sent
    async with engine(tmp_path, None if target == "embedded" else FaultyRemote(etcd)) as mq:
        await ready(mq)


@in_trio
async def test_given_a_directory_that_left_a_prefix_when_started_at_a_new_one_then_it_is_no_loss(
    tmp_path: Path, etcd: Etcd
) -> None:
    async with engine(tmp_path, FaultyRemote(etcd)) as mq:
        await mq.create_channel("orders")
    async with RocksMQ(tmp_path, accept_loss=True) as mq:
        await mq.produce("orders", [b"a"])
    async with engine(tmp_path, FaultyRemote(etcd)) as mq:
        await ready(mq)


@in_trio
async def test_given_a_takeover_that_nobody_heard_of_when_etcd_answers_again_then_it_is_found_to_be_done(
    tmp_path: Path, etcd: Etcd
) -> None:
    remote = FaultyRemote(etcd)
    remote.unheard.add("transact")
    async with engine(tmp_path, remote) as mq:
        await mq.create_channel("orders")
        remote.unheard.clear()
        await taken_over(mq)
        await ready(mq)
    found = found_in(FaultyRemote(etcd, remote.prefix))
    assert found.commit is not None
    assert found.commit.epoch == 1, "the first one was adopted"


@in_trio
async def test_given_a_takeover_that_nobody_heard_of_when_started_again_then_it_takes_over_and_the_late_one_misses(
    tmp_path: Path, etcd: Etcd
) -> None:
    first = FaultyRemote(etcd)
    async with engine(tmp_path, first) as mq:
        await ready(mq)
    second = FaultyRemote(etcd, first.prefix)
    second.failing.add("transact")  # and arrives late
    async with engine(tmp_path, second) as mq:
        await mq.produce("orders", [b"e"])
    third = FaultyRemote(etcd, first.prefix)
    third.unheard.add("transact")
    async with engine(tmp_path, third) as mq:
        await mq.produce("orders", [b"f"])
    fourth = FaultyRemote(etcd, first.prefix)
    async with engine(tmp_path, fourth) as mq:
        for attempt, entries, _ in second.sent:
            assert not EtcdRemote.transact(second, attempt, entries, None).is_applied
        assert (await mq.consume("orders", "billing")).payloads == [b"c", b"d", b"e", b"f"]


@in_trio
async def test_given_two_that_race_for_a_new_prefix_then_one_has_it_and_the_other_is_free_to_go(
    tmp_path: Path, etcd: Etcd
) -> None:
    for turn in range(5):
        prefix = f"takeover/race/{turn}"
        won: list[Path] = []
        lost: list[Path] = []
        both = trio.Event()

        async def race(directory: Path) -> None:
            try:
                async with engine(directory, FaultyRemote(etcd, prefix)) as mq:  # noqa: B023
                    await both.wait()  # noqa: B023
                    await ready(mq)
                    won.append(directory)  # noqa: B023
            except* PrefixInUse:  # while it starts, or later if etcd was too slow for that
                lost.append(directory)  # noqa: B023
                both.set()  # noqa: B023

        with trio.fail_after(PATIENCE_SECONDS):
            async with trio.open_nursery() as nursery:
                for name in ("one", "two"):
                    nursery.start_soon(race, tmp_path / f"{name}{turn}")
        assert (len(won), len(lost)) == (1, 1)
        async with engine(lost[0], FaultyRemote(etcd)) as mq:
            await ready(mq)


# -- groups ahead of their channels ------------------------------------------------------


def move_ahead(remote: FaultyRemote, position: int, names: list[str]) -> None:
    """As if messages that the groups have read were taken by a power cut; no broker runs."""
    for some in (names[begin : begin + 50] for begin in range(0, len(names), 50)):  # a transaction has 128 changes
        found = found_in(remote)
        assert found.commit is not None
        entries: dict[str, str | None] = {}
        for name in some:
            state = found.groups[name, "orders"]
            entries |= group_entries((name, "orders"), state._replace(position=position, offset=state.offset + 10))
        value = found.commit._replace(number=found.commit.number + 1)
        assert remote.transact(Attempt(found.commit, value), entries, None).is_applied


async def groups_ahead(directory: Path, etcd: Etcd, names: list[str]) -> FaultyRemote:
    """The remote for the next start on a directory whose channel ends before the positions of ``names``."""
    remote = FaultyRemote(etcd)
    patient = replace(IMPATIENT, meta_wait_seconds=60)  # the last of so many waits for several transactions
    async with RocksMQ(directory, durability=OS, limits=patient, remote=remote) as mq:
        ids = await ready(mq)
        async with trio.open_nursery() as nursery:
            for name in names:
                nursery.start_soon(mq.create_consumer_group, "orders", name)
    move_ahead(remote, ids[-1] + 5, names)
    return FaultyRemote(etcd, remote.prefix)


async def lag(mq: RocksMQ, name: str = "billing") -> int:
    lag_messages: int = (await mq.call(DescribeGroup("orders", name))).lag_messages
    return lag_messages


@pytest.mark.parametrize("away", ["read", "keep_alive"])
@in_trio
async def test_given_a_group_ahead_when_messages_come_before_it_is_brought_back_then_it_reads_them_all(
    tmp_path: Path, etcd: Etcd, away: str
) -> None:
    remote = FaultyRemote(etcd)
    async with engine(tmp_path, remote) as mq:
        ids = await ready(mq)
    move_ahead(remote, ids[-1] + 5, ["billing"])
    remote = FaultyRemote(etcd, remote.prefix)
    remote.failing.add(away)  # before the takeover, or just after it
    async with engine(tmp_path, remote) as mq:
        await mq.produce("orders", [b"new", b"newer"])
        remote.failing.clear()
        await taken_over(mq)
        assert (await mq.consume("orders", "billing", timeout=PATIENCE_SECONDS)).payloads == [b"new", b"newer"]
        assert await lag(mq) == 0
        await mq.produce("orders", [b"newest"])
        assert await lag(mq) == 1
        assert mq.core.positions_brought_back == 1


@in_trio
async def test_given_groups_ahead_when_one_is_destroyed_before_it_is_brought_back_then_it_stays_gone(
    tmp_path: Path, etcd: Etcd
) -> None:
    names = [f"g{index:03}" for index in range(100)]  # too many for one transaction
    remote = await groups_ahead(tmp_path, etcd, names)
    remote.failing.add("keep_alive")
    async with engine(tmp_path, remote) as mq, trio.open_nursery() as nursery:
        nursery.start_soon(mq.destroy_consumer_group, "orders", names[-1])
        remote.failing.clear()
    assert {name for name, _ in found_in(FaultyRemote(etcd, remote.prefix)).groups} == {*names[:-1], "billing"}


@in_trio
async def test_given_groups_ahead_when_their_channel_is_made_anew_before_they_are_brought_back_then_they_are_gone(
    tmp_path: Path, etcd: Etcd
) -> None:
    remote = await groups_ahead(tmp_path, etcd, ["first", "second"])
    remote.failing.add("keep_alive")
    async with engine(tmp_path, remote) as mq, trio.open_nursery() as nursery:
        await mq.destroy_channel("orders")
        await mq.create_channel("orders")
        nursery.start_soon(mq.create_consumer_group, "orders", "first")
        remote.failing.clear()
    async with engine(tmp_path, FaultyRemote(etcd, remote.prefix)) as mq:
        await taken_over(mq)
        assert (await mq.call(ListGroups("orders", ""))).names == ["first"]
        await mq.produce("orders", [b"new"])
        assert (await mq.consume("orders", "first")).payloads == [b"new"]


@in_trio
async def test_given_hundreds_of_groups_ahead_when_started_then_all_are_brought_back_and_counted_once(
    tmp_path: Path, etcd: Etcd
) -> None:
    names = [f"g{index:03}" for index in range(200)]
    async with engine(tmp_path, await groups_ahead(tmp_path, etcd, names)) as mq:
        await mq.produce("orders", [b"new"])
        for name in names:
            assert (await mq.consume("orders", name)).payloads == [b"new"]
        assert mq.core.positions_brought_back == len(names)
