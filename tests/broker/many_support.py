"""What the tests of operations on many channels share: a broker driven by hand with channels and groups, and its replies."""

import struct
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from rocksmq.broker.limits import Limits
from rocksmq.broker.records import GroupState
from rocksmq.protocol.batch import RecordBatch, pack_lengths, unpack_lengths
from rocksmq.protocol.cbor import Gathered
from rocksmq.protocol.columns import pack_numbers, unpack_numbers
from rocksmq.protocol.errors import RocksMQError
from rocksmq.protocol.messages import Message, MessageBatch
from rocksmq.protocol.operations import (
    CommitMany,
    CreateChannels,
    DescribeChannels,
    DestroyChannels,
    FetchMany,
    ManyMessages,
    Messages,
    Produce,
    SeekMany,
    SoughtMany,
    Subscribe,
    Unsubscribe,
)

from .simulated_broker import Simulation
from .support import batch_of, identity

OWNER = ["proxy", "10.0.0.1:19530", "the first"]
GROUP = "stream"
EVERYTHING = 1 << 30


class Read(NamedTuple):
    """One part of a FETCH_MANY."""

    messages: list[Message]
    next_position: int
    next_offset: int

    @property
    def payloads(self) -> list[bytes]:
        return [message.payload for message in self.messages]


class Asked:
    """A request and what it was answered, once at most."""

    def __init__(self, simulation: Simulation, request: Any) -> None:
        self.replies: list[Any] = []
        self.waiter = simulation.core.submit(request, self._done)

    def _done(self, reply: Any) -> None:
        assert not self.replies, "answered once"
        self.replies.append(reply)

    @property
    def reply(self) -> Any:
        """None: not yet."""
        return self.replies[0] if self.replies else None


class ManyBroker(Simulation):
    """With shorthand for requests about all of its channels."""

    _made = 0

    def __init__(self, limits: Limits | None = None) -> None:
        super().__init__(limits or Limits())

    def unique(self) -> bytes:
        ManyBroker._made += 1
        return identity(1 << 62, ManyBroker._made)

    def do(self, request: Any) -> Any:
        """The reply, once committed; what is no error is had for sure."""
        asked = Asked(self, request)
        self.commit()
        return asked.reply

    def channels(self, count: int) -> list[str]:
        """The names of so many new channels."""
        return list(self.do(CreateChannels(OWNER, count, self.unique())).names)

    def numbers(self, names: Sequence[str]) -> list[int]:
        return [self.core.channels.find(name).number for name in names]

    def produce(self, name: str, *payloads: bytes, headers: dict[str, bytes] | None = None) -> int:
        """The id behind the last."""
        batch: RecordBatch = batch_of(*payloads, headers=headers)
        return int(self.do(Produce(name, self.unique(), 0, *batch)).first_id) + len(payloads)

    def subscribed(self, names: Sequence[str]) -> list[int]:
        """The generations of the stream's groups on these channels."""
        assert not isinstance(self.do(subscribing(self.numbers(names))), RocksMQError)
        return [group.state.generation for group in self.groups(names)]

    def groups(self, names: Sequence[str]) -> list[Any]:
        return [self.core.channels.find(name).groups[GROUP] for name in names]

    def states(self) -> dict[tuple[str, str], GroupState]:
        """Of all groups, as operations see them."""
        return {(channel.name, name): group.state for channel in self.core.channels for name, group in channel.groups.items()}

    def positions(self, names: Sequence[str]) -> list[int]:
        return [group.state.position for group in self.groups(names)]


def creating(count: int, request_id: bytes = b"r" * 16, owner: Sequence[str] = OWNER) -> CreateChannels:
    return CreateChannels(list(owner), count, request_id)


def destroying(names: Sequence[str], numbers: Sequence[int]) -> DestroyChannels:
    return DestroyChannels(list(names), pack_numbers(numbers))


def describing(names: Sequence[str]) -> DescribeChannels:
    return DescribeChannels(list(names))


def subscribing(
    numbers: Sequence[int], group: str = GROUP, kind: int = 1, start: int = 0, request_id: bytes = b"s" * 16
) -> Any:
    return Subscribe(group, pack_numbers(numbers), kind, start, request_id)


def seeking(
    numbers: Sequence[int],
    request_id: bytes,
    *,
    generations: Sequence[int] | None = None,
    to: Sequence[int] | None = None,
    metadata: Sequence[bytes] | None = None,
    group: str = GROUP,
) -> SeekMany:
    packed = None if generations is None else pack_numbers(generations)
    request = SeekMany(group, pack_numbers(numbers), packed, None, None, None, request_id)
    if to is None:
        return request
    kept = metadata or [b""] * len(to)
    lengths = pack_lengths([len(one) for one in kept])
    return request._replace(positions=pack_numbers(to), metadata_lengths=lengths, metadata=b"".join(kept))


def committing(
    numbers: Sequence[int], generations: Sequence[int], positions: Sequence[int], metadata: Sequence[bytes] | None = None
) -> CommitMany:
    kept = metadata or [b""] * len(numbers)
    lengths = pack_lengths([len(one) for one in kept])
    return CommitMany(GROUP, pack_numbers(numbers), pack_numbers(generations), pack_numbers(positions), lengths, b"".join(kept))


def unsubscribing(numbers: Sequence[int], generations: Sequence[int]) -> Unsubscribe:
    return Unsubscribe(GROUP, pack_numbers(numbers), pack_numbers(generations))


def fetching(starts: Iterable[tuple[int, int]], n: int = 10_000, size: int = EVERYTHING, wait_ms: int = 0) -> FetchMany:
    return FetchMany(pack_numbers(number for pair in starts for number in pair), n, size, wait_ms)


def sought(reply: SoughtMany) -> list[tuple[int, int, bytes]]:
    """Position, generation and metadata of each group."""
    kept: list[bytes] = []
    begin = 0
    for length in unpack_lengths(reply.metadata_lengths):
        kept.append(bytes(reply.metadata)[begin : begin + length])
        begin += length
    assert begin == len(reply.metadata)
    return list(zip(unpack_numbers(reply.positions), unpack_numbers(reply.generations), kept, strict=True))


def read(reply: ManyMessages) -> dict[int, Read]:
    """Its parts by the channels' indexes, with every column cut as a client must."""
    assert reply.gaps == []
    columns = [_bytes(column) for column in (reply.lengths, reply.payloads, reply.header_lengths, reply.headers)]
    whole = list(MessageBatch(Messages(0, None, 0, None, reply.runs, reply.message_count, *columns)))  # type: ignore[arg-type]
    parts = list(struct.iter_unpack("<IIIQQ", reply.parts))
    assert sum(part[1] for part in parts) * 12 == len(reply.runs)
    counts = [count for _, count in struct.iter_unpack("<QI", reply.runs)]
    found: dict[int, Read] = {}
    runs_before = messages_before = 0
    for index, runs, messages, next_position, next_offset in parts:
        assert index > max(found, default=-1), "parts rise"
        assert sum(counts[runs_before : runs_before + runs]) == messages
        found[index] = Read(whole[messages_before : messages_before + messages], next_position, next_offset)
        runs_before, messages_before = runs_before + runs, messages_before + messages
    assert messages_before == reply.message_count == len(whole)
    return found


def _bytes(column: Any) -> bytes | None:
    if isinstance(column, Gathered):
        assert column.size == sum(map(len, column.parts))
        return b"".join(bytes(part) for part in column.parts)
    return None if column is None else bytes(column)
