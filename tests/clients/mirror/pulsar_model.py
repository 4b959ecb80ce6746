"""A topic of Pulsar as the mirror's sender sees it, without I/O: batches, deduplication, fencing, what arrives late.

As observed with pulsar-client 3.13 and Pulsar 4.0.8: of a batch deduplication keeps the first sequence id only; what the broker
has taken is stored in order, also after its producer was fenced or died; a duplicate of what is stored is acknowledged as
such, one of what is being stored not at all; the library sends again, in the same batches, what was not acknowledged when a
connection was lost; a producer that was fenced has failed with all that it held.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from rocksmq.clients.mirror.course import Chunk
from rocksmq.clients.mirror.envelope import ID, MIRROR
from rocksmq.clients.mirror.resume import Last
from rocksmq.protocol.errors import ConnectionFailed

Done = Callable[[int, str | None, bool], None]


@dataclass(slots=True)
class Sent:
    """One message in the hands of the library."""

    message_id: int
    origin: str
    chunk: int | None  # whose acknowledgement this one's tells


@dataclass(slots=True)
class Batch:
    """One entry."""

    messages: list[Sent]
    producer: "Producer"

    @property
    def first(self) -> int:
        return self.messages[0].message_id


@dataclass(slots=True)
class Topic:
    """What the broker has. ``log``: (id, origin) in order."""

    deduplicates: bool
    log: list[tuple[int, str]] = field(default_factory=list[tuple[int, str]])
    trimmed: list[tuple[int, str]] = field(default_factory=list[tuple[int, str]])
    storing: deque[Batch] = field(default_factory=deque[Batch])  # taken, not stored yet
    pushed: int = -1
    stored: int = -1
    producer: "Producer | None" = None

    def take(self, batch: Batch) -> bool:
        """Whether the broker takes it, or has it; otherwise it must come again."""
        if self.deduplicates and batch.first <= self.pushed:
            if batch.first <= self.stored:
                batch.producer.acks.append((batch, False))
                return True
            return False
        self.pushed = max(self.pushed, batch.first)
        self.storing.append(batch)
        return True

    def store(self, count: int) -> None:
        """So many of what was taken."""
        for _ in range(min(count, len(self.storing))):
            batch = self.storing.popleft()
            self.log += [(one.message_id, one.origin) for one in batch.messages]
            self.stored = max(self.stored, batch.first)
            batch.producer.acks.append((batch, True))

    def crash(self, stored: int) -> None:
        """So many of what was taken were stored all the same; acknowledgements are lost, the library sends again."""
        self.store(stored)
        self.storing.clear()
        self.pushed = self.stored
        if self.producer is not None:
            self.producer.acks.clear()
            self.producer.sent = 0

    def trim(self) -> None:
        """Nothing that is stored is kept; what deduplication knows is."""
        self.trimmed += self.log
        self.log = []

    def last(self) -> Last | None:
        if not self.log:
            return None
        message_id, origin = self.log[-1]
        return Last.of({ID: str(message_id), MIRROR: origin})


class Producer:
    """Stands in for `rocksmq.clients.mirror.topics.Topic`."""

    def __init__(self, topic: Topic, origin: str, done: Done) -> None:
        if topic.producer is not None:
            topic.producer.fence()
        topic.producer = self
        self.places: dict[int, Any] = {}
        self.last_sequence = topic.stored if topic.deduplicates else -1
        self.is_over = False
        self.unbatched: deque[Sent] = deque()
        self.batches: deque[Batch] = deque()  # not acknowledged
        self.sent = 0  # of them
        self.acks: deque[tuple[Batch, bool]] = deque()
        self._topic = topic
        self._origin = origin
        self._done: Done = done

    def send(self, chunk: Chunk) -> None:
        assert list(chunk.ids) == sorted(set(chunk.ids)), "ids rise"
        sent = [Sent(message_id, self._origin, None) for message_id in chunk.ids]
        sent[-1].chunk = chunk.number
        if self.is_over:
            self._done(chunk.number, "ProducerFenced", False)
        else:
            self.unbatched += sent

    def cut(self, count: int) -> None:
        """The library makes a batch of so many messages."""
        messages = [self.unbatched.popleft() for _ in range(min(count, len(self.unbatched)))]
        if messages:
            self.batches.append(Batch(messages, self))

    def deliver(self) -> None:
        """The next batch comes to the broker."""
        if not self.is_over and self.sent < len(self.batches) and self._topic.take(self.batches[self.sent]):
            self.sent += 1

    def acknowledge(self) -> None:
        """The next acknowledgement comes to the library."""
        if self.is_over or not self.acks:
            return
        batch, is_fresh = self.acks.popleft()
        if not self.batches or batch is not self.batches[0]:
            return  # of what was sent twice
        self.batches.popleft()
        self.sent -= 1
        for one in batch.messages:
            if one.chunk is not None:
                self._done(one.chunk, None, is_fresh)

    def fence(self) -> None:
        """All that it holds has failed; what the broker has taken is stored all the same."""
        self.fail("ProducerFenced")

    def fail(self, why: str) -> None:
        if self.is_over:
            return
        self.is_over = True
        if self._topic.producer is self:
            self._topic.producer = None
        held = [one for batch in self.batches for one in batch.messages] + list(self.unbatched)
        self.batches.clear()
        self.unbatched.clear()
        for one in held:
            if one.chunk is not None:
                self._done(one.chunk, why, False)

    def vanish(self) -> None:
        """Its process was killed."""
        self._done = _nobody
        self.fail("")

    close = vanish


def _nobody(number: int, failed: str | None, is_fresh: bool) -> None:
    """There is no process any more to be told."""


@dataclass(slots=True)
class Broker:
    """A channel of RocksMQ and the mirror's group on it. Stands in for `Groups`, too."""

    number: int = 1
    ids: list[int] = field(default_factory=list[int])
    next_id: int = 1 << 40
    position: int = 0
    generation: int = 0
    is_away: bool = False

    def produce(self, count: int, hole: int) -> None:
        self.next_id += hole
        self.ids += range(self.next_id, self.next_id + count)
        self.next_id += count

    def recreate(self) -> None:
        self.number += 1
        self.ids, self.position = [], 0
        self.generation += 1

    def commit(self, generation: int, position: int) -> bool:
        """False: another has taken over."""
        if generation != self.generation:
            return False
        assert position <= self.end + 1, "behind what there is"
        self.position = max(self.position, position)
        return True

    @property
    def end(self) -> int:
        return self.ids[-1] if self.ids else 0

    def check_here(self) -> None:
        if self.is_away:
            raise ConnectionFailed("the broker is away")

    def read(self, place: int, count: int) -> list[int]:
        return [one for one in self.ids if one >= place][:count]


def described(broker: Broker) -> Any:
    """What `Groups.check` answers."""
    return type("Described", (), {"position": broker.position})()
