"""A topic of Pulsar as the mirror's sender sees it, without I/O: batches, deduplication, fencing, what arrives late.

As observed with pulsar-client 3.13 and Pulsar 4.0.8: of a batch deduplication keeps the first sequence id only; what the broker
has taken is stored in order, also after its producer was fenced or died; a duplicate of what is stored is acknowledged as
such, one of what is being stored not at all; the library sends again, in the same batches, what was not acknowledged when a
connection was lost; a producer that was fenced has failed with all that it held. What is larger than the topic's policy
allows is neither stored nor answered, while what follows is stored, without an answer either: the library waits for the first.
"""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from rocksmq.clients.mirror.course import Chunk
from rocksmq.clients.mirror.envelope import ID, MIRROR
from rocksmq.clients.mirror.groups import Progress
from rocksmq.clients.mirror.resume import Last
from rocksmq.clients.mirror.whole import Compared, compared
from rocksmq.clients.pulsar.places import Place
from rocksmq.protocol.errors import ConnectionFailed

Done = Callable[[int, str | None, Place | None], None]
UNLIMITED = 1 << 30


@dataclass(slots=True)
class Batch:
    """One entry."""

    chunk: Chunk
    producer: "Producer"
    origin: str
    place: Place | None = None  # once it is stored

    @property
    def first(self) -> int:
        return self.chunk.ids[0]


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
    size_max: int = UNLIMITED

    def take(self, batch: Batch) -> bool:
        """Whether the broker takes it, or has it; otherwise it must come again."""
        if batch.chunk.size > self.size_max:
            return True  # and that was it
        if self.deduplicates and batch.first <= self.pushed:
            if batch.first <= self.stored:
                batch.place = None
                batch.producer.acks.append(batch)
                return True
            return False
        self.pushed = max(self.pushed, batch.first)
        self.storing.append(batch)
        return True

    def store(self, count: int) -> None:
        """So many of what was taken."""
        for _ in range(min(count, len(self.storing))):
            batch = self.storing.popleft()
            self.log += [(one, batch.origin) for one in batch.chunk.ids]
            self.stored = max(self.stored, batch.first)
            batch.place = Place(len(self.trimmed), 0, len(self.log) - 1)
            batch.producer.acks.append(batch)

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

    def compared_behind(self, place: Place, position: int, sent: Iterable[tuple[int, int]]) -> Compared | None:
        """As `topics.compared_behind`."""
        if place.ledger != len(self.trimmed):  # it has been removed
            return None
        found = [one for one, _ in self.log[place.offset :]]
        assert found[0] < position, "it is before the group's position"
        return compared(sent, [one for one in found if one >= position])

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
        self.last_sequence = topic.stored if topic.deduplicates else -1
        self.is_over = False
        self.batches: deque[Batch] = deque()  # not acknowledged
        self.sent = 0  # of them
        self.acks: deque[Batch] = deque()
        self._topic = topic
        self._origin = origin
        self._done: Done = done

    def send(self, chunk: Chunk) -> None:
        assert list(chunk.ids) == sorted(set(chunk.ids)), "ids rise"
        if self.is_over:
            self._done(chunk.number, "ProducerFenced", None)
        else:
            self.batches.append(Batch(chunk, self, self._origin))

    def deliver(self) -> None:
        """The next batch comes to the broker."""
        if not self.is_over and self.sent < len(self.batches) and self._topic.take(self.batches[self.sent]):
            self.sent += 1

    def acknowledge(self) -> None:
        """The next acknowledgement comes to the library."""
        if self.is_over or not self.acks:
            return
        batch = self.acks.popleft()
        if not self.batches or batch is not self.batches[0]:
            return  # of what was sent twice, or is behind one that is not answered
        self.batches.popleft()
        self.sent -= 1
        self._done(batch.chunk.number, None, batch.place)

    def fence(self) -> None:
        """All that it holds has failed; what the broker has taken is stored all the same."""
        self.fail("ProducerFenced")

    def fail(self, why: str) -> None:
        if self.is_over:
            return
        self.is_over = True
        if self._topic.producer is self:
            self._topic.producer = None
        held = list(self.batches)
        self.batches.clear()
        for batch in held:
            self._done(batch.chunk.number, why, None)

    def vanish(self) -> None:
        """Its process was killed."""
        self._done = _nobody
        self.fail("")

    close = vanish


def _nobody(number: int, failed: str | None, place: Place | None) -> None:
    """There is no process any more to be told."""


@dataclass(slots=True)
class Broker:
    """A channel of RocksMQ and the mirror's group on it. Stands in for `Groups`, too."""

    number: int = 1
    ids: list[int] = field(default_factory=list[int])
    next_id: int = 1 << 40
    position: int = 0
    metadata: bytes = b""
    generation: int = 0
    is_away: bool = False

    def produce(self, count: int, hole: int) -> None:
        self.next_id += hole
        self.ids += range(self.next_id, self.next_id + count)
        self.next_id += count

    def recreate(self) -> None:
        self.number += 1
        self.ids, self.position, self.metadata = [], 0, b""
        self.generation += 1

    def commit(self, progress: Progress) -> bool:
        """False: another has taken over."""
        if progress.generation != self.generation:
            return False
        assert progress.position <= self.end + 1, "behind what there is"
        if progress.position >= self.position:
            self.position, self.metadata = progress.position, progress.metadata
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
