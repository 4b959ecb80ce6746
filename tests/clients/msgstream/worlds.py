"""Where tests of streams take place: on a real broker, and in memory. What both must do is tested on both."""

from collections.abc import Sequence
from typing import Any, Protocol

from rocksmq.clients import Client, OwnerDescription
from rocksmq.clients.msgstream import (
    InsertMsg,
    MemBroker,
    MemMsgStreamFactory,
    MsgPack,
    MsgPosition,
    MsgStream,
    RmqMsgStreamFactory,
    SearchMsg,
    TimeTickMsg,
    TtMsgStream,
)
from rocksmq.clients.msgstream.factory import MsgStreamFactory
from rocksmq.clients.testing import Broker

OWNER = OwnerDescription("tests")
PATIENCE = 20.0  # until a test gives up


class World(Protocol):
    """Makes channels and streams."""

    def channels(self, count: int) -> list[str]:
        """That many new ones."""
        ...

    def destroy(self, channels: Sequence[str]) -> None:
        """Remove them."""
        ...

    def factory(self, **options: Any) -> MsgStreamFactory:
        """Of streams with those options."""
        ...


class RmqWorld:
    """On a real broker."""

    def __init__(self, broker: Broker, client: Client) -> None:
        self.broker = broker
        self.client = client

    def channels(self, count: int) -> list[str]:
        return self.client.create_channels(OWNER, count)

    def destroy(self, channels: Sequence[str]) -> None:
        self.client.destroy_channels(channels)

    def factory(self, **options: Any) -> MsgStreamFactory:
        return RmqMsgStreamFactory(self.broker.url, **options)


class MemWorld:
    """In memory."""

    def __init__(self) -> None:
        self.broker = MemBroker()

    def channels(self, count: int) -> list[str]:
        return self.broker.create_channels(OWNER, count)

    def destroy(self, channels: Sequence[str]) -> None:
        self.broker.destroy_channels(channels)

    def factory(self, **options: Any) -> MsgStreamFactory:
        return MemMsgStreamFactory(self.broker, **options)


def search(number: int, timestamp: int, key: int = 0) -> SearchMsg:
    """A message for channel ``key``."""
    return SearchMsg(id=number, timestamp=timestamp, payload=b"%d" % number, hash_keys=[key])


def insert(number: int, timestamps: Sequence[int], key: int = 0) -> InsertMsg:
    """Rows for channel ``key``."""
    count = len(timestamps)
    return InsertMsg(
        id=number, timestamps=timestamps, row_ids=range(count), rows=[b"%d" % number] * count, hash_keys=[key] * count
    )


def produce(stream: MsgStream, *msgs: Any) -> None:
    """As one pack."""
    stream.produce(MsgPack(msgs=list(msgs)))


def tick(stream: MsgStream, timestamp: int, key: int | None = None) -> None:
    """On every channel, or on that of ``key``."""
    if key is None:
        stream.broadcast(MsgPack(msgs=[TimeTickMsg(timestamp)]))
    else:
        stream.produce(MsgPack(msgs=[TimeTickMsg(timestamp, hash_keys=[key])]))


def numbers(pack: MsgPack | None) -> list[int]:
    """The ids of its messages."""
    assert pack is not None, "there is a pack"
    return [msg.id for msg in pack.msgs]


def reader(
    world: World, channels: Sequence[str], *, name: str = "reading", positions: Sequence[MsgPosition] = (), **options: Any
) -> TtMsgStream:
    """A time-tick stream that was started, at ``positions`` if there are any."""
    stream = world.factory(**options).new_tt_msg_stream()
    stream.as_consumer(channels, name)
    stream.start()
    if positions:
        stream.seek(positions)
    return stream


def plain_reader(world: World, channels: Sequence[str], *, name: str = "reading", **options: Any) -> MsgStream:
    """A plain stream that was started."""
    stream = world.factory(**options).new_msg_stream()
    stream.as_consumer(channels, name)
    stream.start()
    return stream


def writer(world: World, channels: Sequence[str]) -> MsgStream:
    """A stream that produces to ``channels``."""
    stream = world.factory().new_msg_stream()
    stream.as_producer(channels)
    return stream


def drained(stream: MsgStream) -> list[MsgPack]:
    """All packs that are there."""
    packs: list[MsgPack] = []
    while (pack := stream.consume(timeout=0.0)) is not None:
        packs.append(pack)
    return packs


def all_numbers(stream: MsgStream) -> list[int]:
    """Of all that is there."""
    return sorted(number for pack in drained(stream) for number in numbers(pack))
