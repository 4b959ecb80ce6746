"""What the broker's tests share: running under Trio, and a small world of channels and groups over a real store."""

import functools
from collections.abc import Callable, Coroutine, Iterable, Mapping
from pathlib import Path
from typing import Any, ParamSpec

import trio
from trio.testing import MockClock

from rocksmq.broker.channels import Channel, Channels
from rocksmq.broker.commit import Commit
from rocksmq.broker.durability import Durability
from rocksmq.broker.groups import Group, Groups
from rocksmq.broker.ids import COUNTER_BITS, IDAllocator
from rocksmq.broker.limits import Limits
from rocksmq.broker.log import Log
from rocksmq.broker.names import ProducerNames
from rocksmq.broker.producers import Producers
from rocksmq.broker.store import Store
from rocksmq.protocol.batch import RecordBatch
from rocksmq.protocol.messages import Outgoing, pack_messages
from rocksmq.protocol.operations import (
    Consume,
    CreateChannel,
    CreateGroup,
    Position,
    Produce,
    Seek,
    Sought,
)

Params = ParamSpec("Params")
NOON_MS = 1_700_000_000_000  # when the tests' clocks begin
FSYNC = Durability.parse("fsync")


def in_trio(test: Callable[Params, Coroutine[Any, Any, None]]) -> Callable[Params, None]:
    """Run an async test."""

    @functools.wraps(test)
    def run(*args: Params.args, **kwargs: Params.kwargs) -> None:
        trio.run(functools.partial(test, *args, **kwargs))

    return run


def in_mock_time(test: Callable[Params, Coroutine[Any, Any, None]]) -> Callable[Params, None]:
    """Run an async test on a clock that jumps ahead whenever everybody waits."""

    @functools.wraps(test)
    def run(*args: Params.args, **kwargs: Params.kwargs) -> None:
        trio.run(functools.partial(test, *args, **kwargs), clock=MockClock(autojump_threshold=0))

    return run


def identity(birth: int, which: int = 0) -> bytes:
    """A producer or consumer id that was made when the broker's present id was ``birth``."""
    return birth.to_bytes(8, "big") + which.to_bytes(8, "big")


def batch_of(*payloads: bytes, headers: Mapping[str, bytes] | None = None) -> RecordBatch:
    """The columns of ``payloads``."""
    return pack_messages(payloads, headers)


class World:
    """Channels and groups over a store, with commits that the test makes itself."""

    def __init__(self, directory: Path, limits: Limits | None = None) -> None:
        self.now_ms = NOON_MS
        self.limits = limits or Limits()
        self.store = Store(directory)
        self.log = Log(self.store, self.limits.tail_cache_bytes)
        self.ids = IDAllocator(clock=lambda: self.now_ms)
        self.producers = Producers(0)
        self.names = ProducerNames(self.ids, self.limits)
        self.channels = Channels(self.log, self.ids, self.producers, self.names, self.limits, FSYNC)
        self.groups = Groups(self.log, self.ids, self.limits)
        self.open = Commit()
        self.committed = 0
        self._made = 0

    def close(self) -> None:
        self.store.close()

    def commit(self) -> None:
        """Write and publish what is open."""
        commit, self.open = self.open, Commit()
        self.committed += 1
        self.store.write(commit.seal(self.committed))
        self.log.cache.written()
        for cell, value in commit.sealed.items():
            if isinstance(cell, (Channel, Group)):
                cell.visible = value
            if isinstance(cell, Channel):
                self.channels.publish(cell)

    def roll_back(self) -> None:
        """As after a full disk."""
        commit, self.open = self.open, Commit()
        commit.seal(self.committed + 1)
        commit.roll_back()
        self.log.cache.roll_back()

    def unique(self) -> bytes:
        """An id, different each time, born now."""
        self._made += 1
        return identity(self.ids.present_id, self._made)

    # -- shorthand: each does its operation and commits ---------------------------

    def channel(self, name: str = "orders") -> Channel:
        """The channel, made if need be."""
        if self.channels.get(name) is None:
            self.channels.create(self.open, CreateChannel(name, None, None, None, self.unique()))
            self.commit()
        return self.channels.find(name)

    def produce(self, messages: Iterable[Outgoing], name: str = "orders") -> range:
        """Append and commit."""
        self.channel(name)
        batch = pack_messages(messages)
        request = Produce(name, self.unique(), 0, *batch)
        first_id = self.append(request)
        self.commit()
        return range(first_id, first_id + batch.message_count)

    def append(self, request: Produce) -> int:
        """The first id that ``request`` gets, or got before; not committed."""
        first_id = self.channels.produce(self.open, request, lambda size: None)[1]
        assert first_id is not None, "its sequences were stored before"
        return first_id

    def group(
        self, name: str = "billing", channel: str = "orders", kind: Position = Position.EARLIEST, start: int = 0
    ) -> Group:
        """The group, made if need be."""
        found = self.channel(channel)
        if name not in found.groups:
            request = CreateGroup(channel, name, kind, start, self.unique())
            self.groups.create(self.open, found.groups, found.number, found.visible, request)
            self.commit()
        return found.groups[name]

    def seek(self, kind: Position, value: int = 0, request_id: bytes | None = None) -> Sought:
        """Move the group `billing` of the channel `orders`."""
        request = Seek("orders", "billing", kind, value, request_id or self.unique())
        group = self.group()
        sought = self.groups.seek(self.open, group, self.channel().visible, request)
        self.commit()
        return sought

    def consume(self, consumer: bytes, number: int, n: int = 1_000, size: int = 1 << 22) -> list[bytes] | None:
        """What the group `billing` hands out; None when there is nothing."""
        group, channel = self.group(), self.channel()
        request = Consume("orders", "billing", consumer, number, n, size, 0)
        claim = self.groups.consume(self.open, group, channel.visible, request)
        self.commit()
        if claim is None:
            return None
        return payloads_of(claim.reading.slices)

    def time_of(self, milliseconds: int) -> int:
        """The first id of that many milliseconds after the world's beginning."""
        return NOON_MS + milliseconds << COUNTER_BITS


def payloads_of(slices: Iterable[Any]) -> list[bytes]:
    """The payloads that ``slices`` of stored batches hold."""
    found: list[bytes] = []
    for piece in slices:
        lengths = memoryview(bytes(piece.columns.lengths)).cast("I")
        payloads, position = bytes(piece.columns.payloads), 0
        for length in lengths:
            found.append(payloads[position : position + length])
            position += length
    return found
