"""The simple load of the machinery's own tests: by hand, without a client that would try again.

`run` does one of everything against a data directory that `prepare` has made, and so reaches every point of `points`.
"""

import secrets
from pathlib import Path

from rocksmq.broker.engine import RocksMQ
from rocksmq.protocol.identity import Identity
from rocksmq.protocol.messages import MessageBatch, pack_messages
from rocksmq.protocol.operations import (
    Consume,
    CreateChannel,
    CreateGroup,
    DescribeChannel,
    DestroyChannel,
    Fetch,
    Position,
    Produce,
)
from tests.helpers.raw import Raw

OLD, NEW, GROUP = "old", "new", "readers"
KEPT = [b"one", b"two", b"three"]  # of the old channel, on disk


async def prepare(directory: Path) -> None:
    """A data directory with something to recover: the old channel with its messages and its group."""
    async with RocksMQ(directory) as mq:
        await mq.create_channel(OLD)
        await mq.create_consumer_group(OLD, GROUP)
        await mq.produce(OLD, KEPT)


def run(address: str) -> None:
    """One of everything. Raises OSError, EOFError or RocksMQError where it comes to an end."""
    with Raw(address) as raw:
        fetched = MessageBatch(raw.call(Fetch(OLD, Position.EARLIEST, 0, 10, 1 << 20, 0)))
        assert fetched.payloads == KEPT
        raw.call(CreateChannel(NEW, None, None, None, secrets.token_bytes(16)))
        raw.call(CreateGroup(NEW, GROUP, Position.EARLIEST, 0, secrets.token_bytes(16)))
        ids = produce(raw, NEW, Identity.new(raw.server.present_id), [b"a", b"b"])
        consumed = consume(raw, NEW, Identity.new(raw.server.present_id))
        assert list(consumed.ids) == list(ids)
        raw.call(DestroyChannel(NEW, raw.call(DescribeChannel(NEW)).number))


def produce(raw: Raw, channel: str, producer: Identity, payloads: list[bytes]) -> range:
    """Send the batch that ``producer`` is at, once; its ids. The number is left as it is."""
    reply = raw.call(Produce(channel, producer.id, producer.number, *pack_messages(payloads)))
    return range(reply.first_id, reply.first_id + len(payloads))


def consume(raw: Raw, channel: str, consumer: Identity, max_messages: int = 10) -> MessageBatch:
    """Send the consume that ``consumer`` is at, once. The number is left as it is."""
    return MessageBatch(raw.call(Consume(channel, GROUP, consumer.id, consumer.number, max_messages, 1 << 20, 0)))
