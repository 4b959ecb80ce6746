"""What the tests of a store elsewhere that loses something share: readers that read everything once, and a disk that fails."""

from copy import deepcopy
from typing import Any, cast

import trio

from rocksmq.broker.fence import CommitValue
from rocksmq.broker.meta_shadow import MetaShadow
from rocksmq.broker.prefix import STATE, GroupKey, decode_state
from rocksmq.broker.records import GroupState
from rocksmq.broker.store import Store
from rocksmq.protocol.errors import DiskFull, MetaUnavailable, RocksMQError
from rocksmq.protocol.operations import Consume, DescribeGroup, DestroyGroup, Empty, Messages

from .remote_support import A_WHILE, ME, Broker, payloads_of
from .simulated_broker import MemoryStore
from .simulated_remote import RemoteSimulation, SimulatedEtcd

LATER = CommitValue(1, (1 << 63) - 1)  # than any of the first epoch
PAYLOADS = [b"%d" % i for i in range(8)]


class Reader:
    """The one consumer of a group: it asks for a message at a time, and again with the same number until it is answered."""

    def __init__(self, group: str, channel: str = "orders") -> None:
        self.group = group
        self.channel = channel
        self.payloads: list[bytes] = []
        self.number = 0

    async def read(self, broker: Broker) -> list[bytes]:
        """The next message, or none."""
        while True:
            answered = trio.Event()
            replies: list[Any] = []

            def done(reply: Any) -> None:
                replies.append(reply)  # noqa: B023
                if isinstance(reply, Messages):
                    self._heard(payloads_of(reply))
                answered.set()  # noqa: B023

            broker.core.submit(Consume(self.channel, self.group, ME, self.number, 1, 1 << 20, 0), done)
            await answered.wait()
            if not isinstance(replies[0], MetaUnavailable):
                assert not isinstance(replies[0], RocksMQError), (self.group, self.number, replies[0])
                return self.payloads[-replies[0].message_count :] if replies[0].message_count else []
            await trio.sleep(0.1)

    def _heard(self, payloads: list[bytes]) -> None:
        """What left the broker counts, though it dies at once."""
        self.payloads += payloads
        self.number += bool(payloads)

    async def read_all(self, broker: Broker) -> None:
        while await self.read(broker):
            pass
        assert self.payloads == PAYLOADS


async def begun(broker: Broker, *groups: str) -> list[Reader]:
    """Messages, and a reader of each group that has read one."""
    await broker.channel()
    await broker.produce(*PAYLOADS)
    readers = [Reader(group) for group in groups]
    for reader in readers:
        await broker.group(reader.group)
        await reader.read(broker)
    return readers


async def destroyed(broker: Broker, group: str, channel: str = "orders") -> None:
    described = await broker.call(DescribeGroup(channel, group))
    assert isinstance(await broker.call(DestroyGroup(channel, group, described.creation_id)), Empty)


def told(etcd: SimulatedEtcd) -> dict[GroupKey, GroupState]:
    """The groups in the store."""
    found: dict[GroupKey, GroupState] = {}
    for key, value in etcd.entries.items():
        if key.endswith(f"/{STATE}"):
            group, channel, _ = key.split("/")
            found[group, channel] = decode_state(value)
    return found


def known(broker: Broker) -> dict[GroupKey, GroupState]:
    """The groups in memory."""
    channels = broker.core.channels
    return {(group.name, channel.name): group.state for channel in channels for group in channel.groups.values()}


def shadow_of(broker: RemoteSimulation) -> MetaShadow:
    """What stands on its disk."""
    return MetaShadow(cast(Store, broker.store))


def copied(broker: Broker) -> dict[GroupKey, GroupState]:
    """The groups on its disk."""
    return shadow_of(broker).groups()


def check_is_told(broker: Broker) -> None:
    """Memory, store and copy are the same, but for groups of channels that are gone: these mean nothing."""
    numbers = {channel.number for channel in broker.core.channels}
    assert {key: state for key, state in told(broker.etcd).items() if state.channel_number in numbers} == known(broker)
    assert copied(broker) == known(broker)
    assert not shadow_of(broker).lacks(broker.etcd.commit)


async def check_goes_on(broker: Broker, readers: list[Reader]) -> None:
    """It heals: everybody reads the rest, and all is told."""
    for reader in readers:
        await reader.read_all(broker)
    await trio.sleep(A_WHILE)
    check_is_told(broker)


class Disk:
    """A broker's store with the moment that a power cut leaves of it."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._synced = self._copy()
        broker.store.on_sync = self._sync

    def _sync(self) -> None:
        self._synced = self._copy()

    def _copy(self) -> MemoryStore:
        store = self._broker.store
        hooks = store.on_write, store.on_sync
        store.on_write = store.on_sync = lambda: None
        copied = deepcopy(store)
        store.on_write, store.on_sync = hooks
        return copied

    def cut(self) -> None:
        """Everything since the last sync is gone."""
        self._broker.store = self._synced
        Disk(self._broker)


def fill_disk(broker: Broker) -> None:
    def full() -> None:
        raise DiskFull("the disk is full")

    broker.store.on_write = full


def free_disk(broker: Broker) -> None:
    broker.store.on_write = lambda: None


async def until_ahead(broker: Broker) -> None:
    """Until the disk says that the store has lost something."""
    with trio.fail_after(A_WHILE):
        while not shadow_of(broker).lacks(LATER):
            written = trio.Event()
            broker.store.on_write = written.set
            await written.wait()
            await trio.lowlevel.checkpoint()
    free_disk(broker)
