"""What the tests of positions elsewhere share: a broker with its tasks, shorthand for requests, unheard transactions."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import trio
from trio.testing import wait_all_tasks_blocked

from rocksmq.broker.limits import Limits
from rocksmq.protocol.messages import MessageBatch
from rocksmq.protocol.operations import (
    Commit,
    Consume,
    CreateChannel,
    CreateGroup,
    DescribeChannel,
    Messages,
    Position,
    Produce,
    Seek,
)

from .simulated_remote import Fate, RemoteSimulation, SimulatedEtcd, Transaction
from .support import batch_of, identity

LIMITS = Limits()
BOUND = LIMITS.meta_wait_seconds + LIMITS.meta_call_seconds + 0.1  # seconds within which whatever waits is answered
A_WHILE = 10.0  # seconds after which all has healed
ME, YOU = identity(1 << 62, 1), identity(1 << 62, 2)


class Broker(RemoteSimulation):
    """With shorthand for requests."""

    _made = 0

    def unique(self) -> bytes:
        Broker._made += 1
        return identity(1 << 62, 1000 + Broker._made)

    async def channel(self, name: str = "orders") -> int:
        await self.call(CreateChannel(name, None, None, None, self.unique()))
        return int((await self.call(DescribeChannel(name))).number)

    async def group(self, name: str = "billing", channel: str = "orders") -> Any:
        return await self.call(CreateGroup(channel, name, Position.EARLIEST, 0, self.unique()))

    async def produce(self, *payloads: bytes, channel: str = "orders") -> int:
        return int((await self.call(Produce(channel, self.unique(), 0, *batch_of(*payloads)))).first_id)

    async def consume(
        self, number: int, n: int = 2, group: str = "billing", wait_ms: int = 0, consumer: bytes = ME, channel: str = "orders"
    ) -> Any:
        return payloads_of(await self.call(Consume(channel, group, consumer, number, n, 1 << 20, wait_ms)))

    async def commit_to(self, position: int, group: str = "billing") -> Any:
        return await self.call(Commit("orders", group, position, None, b""))

    async def seek(self, kind: Position = Position.EARLIEST) -> Any:
        return await self.call(Seek("orders", "billing", kind, 0, self.unique()))

    async def drain(self) -> None:
        """As the engine does, with the committer as one of its tasks."""
        self.core.close()
        await wait_all_tasks_blocked()
        await self.meta.close()

    def position(self, group: str = "billing", channel: str = "orders") -> int | None:
        state = self.etcd.group(channel, group)
        return None if state is None else state.position


def payloads_of(reply: Any) -> Any:
    return [message.payload for message in MessageBatch(reply)] if isinstance(reply, Messages) else reply


def broker_of(etcd: SimulatedEtcd | None = None, limits: Limits = LIMITS, instance: str = "1f") -> Broker:
    return Broker(limits, etcd or SimulatedEtcd(), instance=instance)


@asynccontextmanager
async def running(broker: Broker, *, is_committing: bool = True) -> AsyncGenerator[Broker, None]:
    """Its tasks, until they are killed."""

    def applied(transaction: Transaction) -> None:
        broker.check_is_behind_the_data()

    before, broker.etcd.on_applied = broker.etcd.on_applied, applied
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(broker.core.waiters.run)
            if is_committing:
                nursery.start_soon(broker.core.committer.run)
            await broker.meta.open()
            nursery.start_soon(broker.meta.run)
            try:
                yield broker
            finally:
                broker.remote.kill()
                nursery.cancel_scope.cancel()
    finally:
        broker.etcd.on_applied = before


@asynccontextmanager
async def with_messages(limits: Limits = LIMITS) -> AsyncGenerator[Broker, None]:
    """A channel with messages a to f, and two groups."""
    async with running(broker_of(limits=limits)) as broker:
        await broker.channel()
        await broker.produce(b"a", b"b", b"c", b"d", b"e", b"f")
        await broker.group()
        await broker.group("audit")
        yield broker


class Asked:
    """A request in the background."""

    def __init__(self, broker: Broker, request: Any) -> None:
        self.replies: list[Any] = []
        self.answered_at: float | None = None
        self.waiter = broker.core.submit(request, self._done)

    def _done(self, reply: Any) -> None:
        assert not self.replies, "answered once"
        self.replies.append(reply)
        self.answered_at = trio.current_time()

    @property
    def reply(self) -> Any:
        return payloads_of(self.replies[0]) if self.replies else None


def consuming(number: int, group: str = "billing", n: int = 2, wait_ms: int = 0, consumer: bytes = ME) -> Consume:
    return Consume("orders", group, consumer, number, n, 1 << 20, wait_ms)


FATES = [
    [Fate.UNHEARD],
    [Fate.LOST],
    [Fate.LATE],
    [Fate.LATE, Fate.LOST],
    [Fate.LATE, Fate.UNHEARD],
    [Fate.LATE, Fate.LATE, Fate.LATE],
    [Fate.UNHEARD, Fate.LOST, Fate.UNHEARD, Fate.LATE],
    [Fate.LOST, Fate.UNHEARD, Fate.UNHEARD],
]
