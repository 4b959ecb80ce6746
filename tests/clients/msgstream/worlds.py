"""Where tests of streams take place: on a real broker, in memory, on pulsar-lite, and on Pulsar itself. What all must do is
tested on each."""

import secrets
from collections.abc import Sequence
from typing import Any, Protocol

import pytest

from rocksmq.clients import Client, OwnerDescription
from rocksmq.clients.msgstream import (
    InsertMsg,
    MemBroker,
    MemMsgStreamFactory,
    MsgPack,
    MsgPosition,
    MsgStream,
    PulsarMsgStreamFactory,
    RmqMsgStreamFactory,
    SearchMsg,
    TimeTickMsg,
    TtMsgStream,
)
from rocksmq.clients.msgstream.factory import MsgStreamFactory
from rocksmq.clients.testing import Broker
from tests.helpers.pulsar import Pulsar, PulsarLite

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


def own_template() -> str:
    """Of topics of positions that no other test uses."""
    return f"persistent://public/default/{secrets.token_hex(8)}.{{channel}}"


class LiteWorld:
    """On pulsar-lite, whose topics are there as soon as somebody names them, and stay."""

    def __init__(self, server: PulsarLite) -> None:
        self.server = server
        self.positions_template = own_template()

    def channels(self, count: int) -> list[str]:
        prefix = secrets.token_hex(8)
        return [f"{prefix}-{index}" for index in range(count)]

    def destroy(self, channels: Sequence[str]) -> None:
        pytest.skip("pulsar-lite cannot delete a topic")

    def factory(self, **options: Any) -> MsgStreamFactory:
        return PulsarMsgStreamFactory(self.server.url, positions_template=self.positions_template, **options)


STRICT = "public/strict"  # a namespace of Pulsar where nobody makes a topic by naming it


class PulsarWorld:
    """On Pulsar. Channels are made and deleted as an operator does, positions make their topics themselves."""

    def __init__(self, server: Pulsar) -> None:
        self.server = server
        self.positions_template = own_template()
        if STRICT not in server.ask("GET", "namespaces/public"):
            server.ask("PUT", f"namespaces/{STRICT}")
            server.ask("POST", f"namespaces/{STRICT}/autoTopicCreation", {"allowAutoTopicCreation": False})

    def channels(self, count: int) -> list[str]:
        prefix = secrets.token_hex(8)
        names = [f"{prefix}-{index}" for index in range(count)]
        for name in names:
            self.server.ask("PUT", f"persistent/{STRICT}/{name}")
        return names

    def destroy(self, channels: Sequence[str]) -> None:
        for name in channels:
            self.server.ask("DELETE", f"persistent/{STRICT}/{name}?force=true")

    def factory(self, **options: Any) -> MsgStreamFactory:
        template = f"persistent://{STRICT}/{{channel}}"
        options = {"topic_template": template, "positions_template": self.positions_template} | options
        return PulsarMsgStreamFactory(self.server.url, **options)


def require_refusals(world: World) -> None:
    """Skip the test where a channel that does not exist is made by naming it."""
    if isinstance(world, LiteWorld):
        pytest.skip("pulsar-lite makes a topic when somebody names it")


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
