"""Readers, a broker that is killed and started again, and a store: for the model of exactly once with positions elsewhere.

`Ledger` holds who was handed what, as it was when each transaction was sent; `World.saved` is the ledger of the last one that
was applied and is not lost.
"""

from collections import defaultdict
from functools import partial
from typing import Any

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from rocksmq.broker.fence import CommitValue
from rocksmq.broker.limits import Limits
from rocksmq.broker.prefix import END_ID, STATE, decode_state
from rocksmq.broker.reconcile import PrefixInUse
from rocksmq.protocol.errors import DiskFull, RocksMQError
from rocksmq.protocol.messages import Message, MessageBatch
from rocksmq.protocol.operations import Commit as CommitRequest
from rocksmq.protocol.operations import (
    Consume,
    CreateChannel,
    CreateGroup,
    DescribeGroup,
    DestroyChannel,
    DestroyGroup,
    Fetch,
    Messages,
    Position,
    Produce,
    Seek,
    Sought,
)

from .reference_client import EVERYTHING, Client
from .shadow_support import shadow_of
from .simulated_remote import Fate, SimulatedEtcd, Transaction
from .support import batch_of, identity
from .watched_groups import COMMITTED, Broker, Handed, Ledger, PlacedReader, WatchedGroups

PLACES = [("orders", "billing"), ("orders", "audit"), ("scratch", "billing")]
CLIENTS = 2
ROUNDS_MAX = 80
LIMITS = Limits(consumers_max=3, consume_messages_max=6)
FATES = [Fate.ANSWERED] * 9 + list(Fate)
ENDS = [Fate.ANSWERED, Fate.UNHEARD, Fate.LOST, Fate.LATE]


class World:
    """Readers, a broker that is killed and started again, and the store. The witness of every client."""

    def __init__(self, nursery: trio.Nursery, clock: MockClock) -> None:
        self.nursery = nursery
        self.clock = clock
        self.etcd = SimulatedEtcd()
        self.saved = Ledger()
        self.logs: defaultdict[int, list[Message]] = defaultdict(list)  # by channel number
        self.payloads: dict[int, bytes] = {}
        self.seen: defaultdict[int, set[int]] = defaultdict(set)  # ids that reached callers, by generation
        self.excused = {COMMITTED}
        self.epoch = 0
        self._made = 0
        self.etcd.on_applied = self._applied
        self.broker = Broker(LIMITS, self.etcd)
        self.broker.on_reply = partial(self.acknowledged, self.broker)
        self.clients = [Client(index, self) for index in range(CLIENTS)]
        self.zombie: Broker | None = None
        self.ledgers: dict[CommitValue, Ledger] = {}  # by what the store was at
        self.past: list[dict[str, str]] = []  # what the store held in this epoch
        self._go_on()

    # -- as the witness ----------------------------------------------------------------

    def unique(self, present_id: int) -> bytes:
        self._made += 1
        return identity(present_id, self._made)

    def stored(self, payloads: list[bytes], first_id: int | None) -> None:
        raise AssertionError("no client produces")

    def is_unknown(self, payloads: list[bytes]) -> None:
        raise AssertionError("no client produces")

    def returned(self, consumer: bytes, generation: int, messages: list[Message]) -> None:
        ids = {message.id for message in messages}
        assert self.seen[generation].isdisjoint(ids), "a message was returned twice"
        self.seen[generation] |= ids
        assert all(self.payloads[message.id] == message.payload for message in messages)

    def may_be_lost(self, consumer: bytes) -> None:
        self.excused.add(consumer)

    # -- what is acknowledged, and what is applied ----------------------------------------

    def acknowledged(self, broker: Broker, request: Any, reply: Any) -> None:
        """What leaves stands in the store, or in the copy of what that has lost."""
        if broker is not self.broker or not isinstance(request, (Consume, Seek)):
            return
        shadow = shadow_of(broker)
        state = self.etcd.group(request.channel, request.group)
        if shadow.lacks(self.etcd.commit):
            state = shadow.groups().get((request.group, request.channel))
        if state is None:
            return  # destroyed, maybe in the same transaction
        if isinstance(reply, Sought):
            assert state.generation >= reply.generation, "a seek was acknowledged before it was durable"
        elif isinstance(reply, Messages) and reply.message_count and state.generation == reply.generation:
            assert state.position > max(message.id for message in MessageBatch(reply)), "a claim was answered too early"

    def _applied(self, transaction: Transaction) -> None:
        assert transaction.attempt.value.epoch >= self.epoch, "something of a fenced broker was applied"
        if self.epoch < transaction.attempt.value.epoch:
            self.past.clear()
        self.epoch = transaction.attempt.value.epoch
        self.past.append(self.etcd.read())
        self.ledgers[transaction.attempt.value] = self.saved.copy()
        self.broker.check_is_behind_the_data()

    def _sent(self, groups: WatchedGroups, transaction: Transaction) -> None:
        expected, value = transaction.attempt
        snapshot = groups.ledger.copy()

        def applied() -> None:
            if expected is None or expected.epoch != value.epoch:
                groups.ledger.restore(self.saved.copy())
            elif transaction.entries:
                self.saved = snapshot

        transaction.on_applied = applied

    # -- steps -----------------------------------------------------------------------------

    async def begin(self) -> None:
        """A channel with two groups and messages, and another channel."""
        await self.settle()
        for channel in ("orders", "scratch"):
            self._ask(CreateChannel(channel, None, None, None, self.unique(1)))
        self.commit_data()
        for place in range(len(PLACES)):
            self.group_anew(place, 1)
            self.produce(place, 4)
        for _ in range(3):
            await self.settle()
            self.commit_data()
        await self.settle()

    async def settle(self) -> None:
        """Everything runs until it waits, and clients hear of it."""
        await wait_all_tasks_blocked()
        for client in self.clients:
            client.receive()

    def consume(self, pick: int, count: int) -> None:
        reader = self._reader(pick)
        if reader.is_free and reader.buffer:
            reader.hand_out(count)
        elif reader.is_free:
            reader.consume(count, count % 3, 30_000 if count % 2 else 0)

    def stop(self, pick: int, count: int) -> None:
        reader = self._reader(pick)
        if reader.consuming is not None:
            reader.time_out()

    def close_reader(self, pick: int, count: int) -> None:
        reader = self._reader(pick)
        if reader.releasing is None:
            reader.close()

    def produce(self, pick: int, count: int) -> None:
        self._made += 1
        payloads = [b"%d:%d" % (self._made, i) for i in range(count)]
        self._ask(Produce(PLACES[pick % 3][0], self.unique(1 << 62), 0, *batch_of(*payloads)))

    def take(self, frames: int) -> None:
        """Frames arrive."""
        for client in self.clients:
            for _ in range(frames):
                self.broker.take(client.link)

    def commit_data(self, *, is_full: bool = False) -> None:
        def full() -> None:
            raise DiskFull("the disk is full")

        self.broker.store.on_write = full if is_full else lambda: None
        self.broker.commit()
        self.broker.store.on_write = lambda: None
        self._read_on()

    def seek(self, pick: int, count: int) -> None:
        channel, group = PLACES[pick % 3]
        kind = (Position.EARLIEST, Position.CURRENT, Position.LATEST, Position.ID)[count % 4]
        found = self.broker.core.channels.get(channel)
        log = self.logs[found.number] if found is not None else []
        to = log[pick % len(log)].id if log else 0
        self._ask(Seek(channel, group, kind, to, self.unique(1)))

    def commit_to(self, pick: int, count: int) -> None:
        channel, group = PLACES[pick % 3]
        found = self.broker.core.channels.get(channel)
        log = self.logs[found.number] if found is not None else []
        if log:
            self._ask(CommitRequest(channel, group, log[(pick + count) % len(log)].id, None, b""))

    def group_anew(self, pick: int, count: int) -> None:
        channel, name = PLACES[pick % 3]
        found = self.broker.core.channels.get(channel)
        group = found.groups.get(name) if found is not None else None
        if group is not None and count % 2:
            self._ask(DestroyGroup(channel, name, group.state.creation_id))
        if group is None or count % 3:
            kind = Position.LATEST if pick > 8 else Position.EARLIEST
            self._ask(CreateGroup(channel, name, kind, 0, self.unique(1)))

    def channel_anew(self, pick: int, count: int) -> None:
        found = self.broker.core.channels.get("scratch")
        if found is not None and count % 2:
            self._ask(DestroyChannel("scratch", found.number))
        if found is None or count % 3:
            self._ask(CreateChannel("scratch", None, None, None, self.unique(1)))
            self.group_anew(2, 3)

    def nothing(self, pick: int, count: int) -> None:
        pass

    def release(self, pick: int, count: int) -> None:
        self.broker.remote.release(ENDS[pick % 4])
        if self.zombie is not None:
            self.zombie.remote.release(ENDS[count % 4])

    def arrive(self, pick: int, count: int) -> None:
        if self.etcd.late:
            self.etcd.arrive(pick % len(self.etcd.late))

    def away(self, pick: int, count: int) -> None:
        self.broker.remote.is_away = pick % 2 == 0
        self.broker.remote.away_fate = Fate.LATE if count % 2 else Fate.LOST

    def pass_time(self, pick: int, count: int) -> None:
        self.clock.jump((0.25, 1.0, 2.0, 4.0)[pick % 4])

    def age(self, pick: int, count: int) -> None:
        self.broker.now_ms += (1, 30, 61, 1500)[pick % 4] * 60_000

    def lose_a_connection(self, pick: int, count: int) -> None:
        client = self.clients[pick % CLIENTS]
        if count % 2:
            self.broker.end(client.index)
        client.reconnect()

    def restart(self, pick: int, count: int) -> None:
        """Killed; or left behind with a copy of its directory, where it goes on beside its successor."""
        before = self.broker
        if pick % 3 == 0 and self.zombie is None and before.has_taken_over and not shadow_of(before).lacks(self.etcd.commit):
            self.zombie, self.broker = before, before.twin()
            self.broker.on_reply = partial(self.acknowledged, self.broker)
        else:
            self._kill(before)
            before.start()
        if count % 2:
            self.broker.remote.fates.append(FATES[pick % len(FATES)])
        for client in self.clients:
            client.reconnect()
        self._go_on()
        before_it = {number: tuple(log) for number, log in self.logs.items()}
        for channel in self.broker.core.channels:
            self.logs[channel.number].clear()
        self._read_on()
        for number, log in before_it.items():
            assert tuple(self.logs[number][: len(log)]) == log, "what was visible is still there"

    def go_back(self, pick: int, count: int) -> None:
        """The store loses its latest values of this epoch, and what is on its way to it; maybe the broker dies with it."""
        if len(self.past) < 2 or not (self.zombie is None or self.broker.has_taken_over):
            return  # what a copy of the directory has done is not in this one
        del self.past[-1 - pick % (len(self.past) - 1) :]
        self.etcd.late.clear()
        self.etcd.go_back(self.past[-1])
        if (known := shadow_of(self.broker).commit) is not None:
            self.saved = self.ledgers[known].copy()
        if count % 2:
            self.restart(1, count)

    # -- what holds --------------------------------------------------------------------------

    def check(self) -> None:
        """What a description shows is what the store holds."""
        if self.broker.meta.current is not None:
            return
        for (channel, group), generation in self.saved.generations.items():
            found, handed = self.broker.core.channels.get(channel), self.saved.handed[generation]
            if found is None or found.number != handed.number or group not in found.groups:
                continue
            described = self.broker.ask(DescribeGroup(channel, group))
            if described is not None and not isinstance(described, RocksMQError):
                assert described.generation == generation
                assert described.lag_messages == len(self._unclaimed(handed))

    async def finish(self) -> None:
        """Everything comes to rest, every reader closes, and what is left is read."""
        await self._rest()
        for client in self.clients:
            for reader in client.readers:
                if not reader.is_closed:
                    reader.close()
        await self._rest()
        for place in PLACES:
            last = PlacedReader(self.clients[0], place)
            self.clients[0].readers = [last]
            count = -1
            while count != sum(map(len, self.seen.values())):
                count = sum(map(len, self.seen.values()))
                last.consume(100, 0, 0)
                await self._rest()
        self._check_readers()
        self._check_store()

    def _check_readers(self) -> None:
        for (channel, _), generation in self.saved.generations.items():
            handed, found = self.saved.handed[generation], self.broker.core.channels.get(channel)
            if found is None or found.number != handed.number:
                continue
            assert self._unclaimed(handed) == set()
            lost = {id_ for (consumer, _), ids in handed.claims.items() if consumer in self.excused for id_ in ids}
            everything = {message.id for message in self.logs[handed.number] if message.id >= handed.start}
            assert everything - self.seen[generation] <= lost, "a message was skipped"

    def _check_store(self) -> None:
        """Memory and store are the same, but for groups of channels that are gone: these mean nothing."""
        numbers = {channel.number for channel in self.broker.core.channels}
        there = {
            key.removesuffix(f"/{STATE}"): decode_state(value)
            for key, value in self.etcd.entries.items()
            if key.endswith(f"/{STATE}")
        }
        states = {path: state for path, state in there.items() if state.channel_number in numbers}
        groups = {
            f"{group.name}/{channel.name}": group.state
            for channel in self.broker.core.channels
            for group in channel.groups.values()
        }
        assert states == groups
        mirrored = {key.removesuffix(f"/{END_ID}") for key in self.etcd.entries if key.endswith(f"/{END_ID}")}
        assert mirrored == {channel.name for channel in self.broker.core.channels}

    def _unclaimed(self, handed: Handed) -> set[int]:
        return {message.id for message in self.logs[handed.number] if message.id >= handed.start} - handed.claimed

    # -- driving -------------------------------------------------------------------------------

    def _go_on(self) -> None:
        broker = self.broker
        groups = broker.core.groups
        assert isinstance(groups, WatchedGroups)
        groups.ledger, groups.logs = Ledger(), self.logs
        broker.remote.on_send = partial(self._sent, groups)
        broker.scope = trio.CancelScope()
        self.nursery.start_soon(self._live, broker, broker.scope)

    async def _live(self, broker: Broker, scope: trio.CancelScope) -> None:
        try:
            with scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(broker.core.waiters.run)
                    await broker.meta.run()
        except* PrefixInUse:
            assert broker is not self.broker, "fenced by nobody"

    @staticmethod
    def _kill(broker: Broker) -> None:
        broker.remote.kill()
        broker.scope.cancel()

    def end(self) -> None:
        for broker in (self.broker, self.zombie):
            if broker is not None:
                self._kill(broker)

    def _ask(self, request: Any) -> None:
        self.broker.core.submit(request, partial(self.acknowledged, self.broker, request))

    def _reader(self, pick: int) -> PlacedReader:
        client, place = self.clients[pick % CLIENTS], PLACES[pick // CLIENTS % len(PLACES)]
        client.readers = [reader for reader in client.readers if not reader.is_closed]
        for reader in client.readers:
            assert isinstance(reader, PlacedReader)
            if reader.is_of(place, pick):
                return reader
        made = PlacedReader(client, place, pick)
        client.readers.append(made)
        return made

    def _read_on(self) -> None:
        for channel in self.broker.core.channels:
            log = self.logs[channel.number]
            while channel.is_public:
                position = log[-1].id + 1 if log else 0
                found = MessageBatch(self.broker.ask(Fetch(channel.name, Position.ID, position, 100, EVERYTHING, 0)))
                if not found:
                    break
                log += found
                self.payloads.update((message.id, message.payload) for message in found)

    async def _rest(self) -> None:
        self.broker.remote.fates.clear()
        self.broker.remote.is_away = False
        for _ in range(ROUNDS_MAX):
            self.broker.remote.release(Fate.ANSWERED)
            for client in self.clients:
                while client.link.requests:
                    self.broker.take(client.link)
            await wait_all_tasks_blocked()
            self.commit_data()
            self.clock.jump(4.0)
            await self.settle()
            if self._is_at_rest:
                return
        raise AssertionError("somebody waits for ever")

    @property
    def _is_at_rest(self) -> bool:
        return self.broker.meta.current is None and not any(
            client.link.requests
            or client.link.replies
            or any(reader.consuming or reader.releasing for reader in client.readers)
            for client in self.clients
        )
