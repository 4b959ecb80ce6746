"""A client that follows contract §4 to the letter, and does nothing else: what the broker is model-checked with.

Pure: it puts frames on a link and is handed replies. Calls do not block; what a caller would be told goes to its
`Witness`. Every deadline and every loss is somebody else's decision, made by calling a method.
"""

from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from rocksmq.protocol.errors import Conflict, DiskFull, GroupNotFound, LimitExceeded, OutOfSequence
from rocksmq.protocol.messages import Message, MessageBatch
from rocksmq.protocol.operations import (
    Consume,
    Empty,
    HelloReply,
    Messages,
    OpenProducer,
    Produce,
    Produced,
    ProducerOpened,
    ReleaseConsumer,
)

from .support import batch_of

CHANNEL, GROUP = "orders", "billing"
EVERYTHING = 1 << 30  # bytes


class Witness(Protocol):
    """Hears what callers are told."""

    def unique(self, present_id: int) -> bytes:
        """A new producer or consumer id."""
        ...

    def stored(self, payloads: list[bytes], first_id: int | None) -> None:
        """The batch was acknowledged; no id: a named producer stored these sequences before."""
        ...

    def is_unknown(self, payloads: list[bytes]) -> None:
        """The caller was told that the batch is stored or not."""
        ...

    def returned(self, consumer: bytes, generation: int, messages: list[Message]) -> None:
        """These reached the caller."""
        ...

    def may_be_lost(self, consumer: bytes) -> None:
        """What this consumer id claimed and did not return will never be returned, and nobody is deceived about that."""
        ...


class Link:
    """One connection: requests on their way to the broker and replies on their way back, each in order."""

    def __init__(self, client: int) -> None:
        self.client = client
        self.requests: deque[tuple[int, Any]] = deque([(0, None)])  # HELLO comes first
        self.replies: deque[tuple[int, Any]] = deque()


class Part(Protocol):
    """What lives in a client and outlives its connections."""

    def lost(self) -> None:
        """What was sent and not answered will not be answered any more."""
        ...

    def connected(self) -> None:
        """Requests can be sent again."""
        ...


class Client:
    """One process: its present connection, and what it has under way."""

    def __init__(self, index: int, witness: Witness) -> None:
        self.index = index
        self.witness = witness
        self.present_id = 0  # as the broker told it last
        self.is_connected = False
        self.link = Link(index)
        self.producer = Producer(self)
        self.named: NamedProducer | None = None
        self.readers: list[Reader] = []
        self._calls: dict[int, Callable[[Any], None]] = {}
        self._correlation = 0

    @property
    def parts(self) -> list[Part]:
        return [self.producer, *self.readers, *([self.named] if self.named else [])]

    def reconnect(self) -> None:
        """Give the connection up, with all that is on its way, and open another."""
        self.is_connected = False
        self.link = Link(self.index)
        self._calls.clear()
        for part in self.parts:
            part.lost()

    def call(self, request: Any, answered: Callable[[Any], None]) -> None:
        self._correlation += 1
        self._calls[self._correlation] = answered
        self.link.requests.append((self._correlation, request))

    def receive(self) -> None:
        """Take the replies that have arrived."""
        while self.link.replies:
            correlation, reply = self.link.replies.popleft()
            if isinstance(reply, HelloReply):
                self.told(reply.present_id)
                self.is_connected = True
                for part in self.parts:
                    part.connected()
            else:
                self._calls.pop(correlation)(reply)

    def told(self, present_id: int | None) -> None:
        assert present_id is not None
        self.present_id = max(self.present_id, present_id)

    def die(self) -> None:
        """The process is killed: whoever waits for it learns nothing more."""
        for producer in (self.producer, self.named):
            if producer is not None:
                producer.give_up()
        for reader in self.readers:
            if not reader.is_closed:
                self.witness.may_be_lost(reader.id)


class Batch:
    """One produce under way."""

    def __init__(self, payloads: list[bytes], number: int, first_sequence: int | None = None) -> None:
        self.payloads = payloads
        self.number = number
        self.first_sequence = first_sequence
        self.is_in_flight = False
        self.is_doubtful = False  # a transmission of it was never answered
        self.is_refused = False  # its number is neither expected nor remembered

    @property
    def sequences(self) -> list[int | bytes] | None:
        return None if self.first_sequence is None else [self.first_sequence, self.first_sequence + len(self.payloads) - 1]


class Producer:
    """Batches in order, several under way; the recovery rule."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.id = b""  # made with the first batch
        self.window: list[Batch] = []
        self._next_number = 0

    @property
    def is_ready(self) -> bool:
        return self.client.is_connected

    def send(self, payloads: list[bytes], first_sequence: int | None = None) -> None:
        batch = Batch(payloads, self._next_number, first_sequence)
        self._next_number += 1
        self.window.append(batch)
        if self.is_ready:
            self._transmit(batch)

    def give_up(self) -> None:
        """The deadline is over: what is under way is stored or not, and the next batch goes under a new id."""
        for batch in self.window:
            self.client.witness.is_unknown(batch.payloads)
        self.window = []
        self._renew()

    def lost(self) -> None:
        for batch in self.window:
            batch.is_doubtful |= batch.is_in_flight
            batch.is_in_flight = batch.is_refused = False

    def connected(self) -> None:
        self._transmit_all()

    def _renew(self) -> None:
        self.id = b""
        for number, batch in enumerate(self.window):
            batch.number, batch.is_refused = number, False
        self._next_number = len(self.window)

    def _transmit_all(self) -> None:
        for batch in self.window:
            self._transmit(batch)

    def _transmit(self, batch: Batch) -> None:
        self.id = self.id or self.client.witness.unique(self.client.present_id)
        batch.is_in_flight = True
        columns = batch_of(*batch.payloads)
        request = Produce(CHANNEL, self.id, batch.number, *columns, sequences=batch.sequences)
        self.client.call(request, lambda reply: self._answered(batch, reply))

    def _answered(self, batch: Batch, reply: Any) -> None:
        if batch not in self.window:
            return  # given up
        batch.is_in_flight = False
        if isinstance(reply, Produced):
            self.window.remove(batch)
            self.client.witness.stored(batch.payloads, reply.first_id)
        elif isinstance(reply, OutOfSequence) and (reply.expected_number is None or batch.number < reply.expected_number):
            self.client.told(reply.present_id)
            batch.is_refused = True
        else:
            assert isinstance(reply, (OutOfSequence, DiskFull)), reply
            batch.is_doubtful = False  # it is certainly not stored
        if self.window and not any(waiting.is_in_flight for waiting in self.window):
            self._go_on()

    def _go_on(self) -> None:
        """All under way were answered, and these not with success."""
        if any(batch.is_refused for batch in self.window):
            for batch in [batch for batch in self.window if batch.is_refused and batch.is_doubtful]:
                self.window.remove(batch)
                self.client.witness.is_unknown(batch.payloads)
            self._renew()
        self._transmit_all()


class NamedProducer(Producer):
    """A producer with a name, whose last stored sequence decides what is unknown."""

    def __init__(self, client: Client, name: str) -> None:
        super().__init__(client)
        self.name = name
        self.is_open = False
        self.is_fenced = False
        self.next_sequence = 1
        if client.is_connected:
            self._open()

    @property
    def is_ready(self) -> bool:
        return self.client.is_connected and self.is_open

    def connected(self) -> None:
        if self.is_open:
            self._transmit_all()
        elif not self.is_fenced:
            self._open()

    def _open(self) -> None:
        self.is_open = False
        self.id = self.id or self.client.witness.unique(self.client.present_id)
        self.client.call(OpenProducer(CHANNEL, self.name, self.id), self._opened)

    def _opened(self, reply: Any) -> None:
        if isinstance(reply, DiskFull):
            self._open()
            return
        assert isinstance(reply, ProducerOpened), reply
        assert isinstance(reply.last_sequence, int | None)
        last = reply.last_sequence or 0
        for batch in tuple(self.window):
            assert batch.first_sequence is not None
            known = max(0, min(last + 1 - batch.first_sequence, len(batch.payloads)))
            self.client.witness.stored(batch.payloads[:known], None)
            batch.payloads, batch.first_sequence = batch.payloads[known:], batch.first_sequence + known
            batch.is_doubtful = False
            if not batch.payloads:
                self.window.remove(batch)
        opened_as = self.id
        self._renew()
        self.id = opened_as
        self.next_sequence = max(self.next_sequence, last + 1)
        self.is_open = True
        self._transmit_all()

    def _answered(self, batch: Batch, reply: Any) -> None:
        if isinstance(reply, Conflict):
            self.is_fenced = True
            self.give_up()
        else:
            super()._answered(batch, reply)

    def _go_on(self) -> None:
        if any(batch.is_refused for batch in self.window):
            self._renew()
            self._open()
        else:
            self._transmit_all()


class Consuming:
    """One consume call."""

    def __init__(self, count: int, kept: int, wait_ms: int) -> None:
        self.count = count
        self.kept = kept  # so many of what comes are handed out later
        self.wait_ms = wait_ms
        self.is_in_flight = False


class Reader:
    """One consumer id and what it claimed; ``buffer`` holds what its caller did not ask for yet."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.id = b""
        self.number = 0
        self.is_unresolved = False  # a consume of this number was sent and is not answered
        self.buffer: list[Message] = []
        self.consuming: Consuming | None = None
        self.releasing: ReleaseConsumer | None = None
        self.is_closed = False
        self._generation = 0

    @property
    def is_free(self) -> bool:
        return self.consuming is None and self.releasing is None and not self.is_closed

    def consume(self, count: int, kept: int, wait_ms: int) -> None:
        assert self.is_free
        assert not self.buffer
        self.consuming = Consuming(count, kept, wait_ms)
        self.connected()

    def hand_out(self, count: int) -> None:
        """So many of the buffer reach the caller."""
        handed, self.buffer = self.buffer[:count], self.buffer[count:]
        self.client.witness.returned(self.id, self._generation, handed)

    def time_out(self) -> None:
        """The deadline of the call is over: the next one repeats its number."""
        assert self.consuming is not None
        self.is_unresolved |= self.consuming.is_in_flight
        self.consuming = None

    def close(self) -> None:
        """Give back what was claimed and not handed out."""
        if self.consuming is not None:
            self.time_out()
        if self.number == 0 and not self.is_unresolved:
            self.is_closed = True
            return
        number, position = (self.number - 1, self.buffer[0].id) if self.buffer else (self.number, 0)
        self.releasing = ReleaseConsumer(CHANNEL, GROUP, self.id, number, position, 0)
        self.connected()

    def lost(self) -> None:
        if self.consuming is not None:
            self.is_unresolved |= self.consuming.is_in_flight
            self.consuming.is_in_flight = False

    def connected(self) -> None:
        if not self.client.is_connected:
            return
        if self.releasing is not None:
            self.client.call(self.releasing, self._released)
        elif (consuming := self.consuming) is not None:
            self.id = self.id or self.client.witness.unique(self.client.present_id)
            consuming.is_in_flight = True
            request = Consume(CHANNEL, GROUP, self.id, self.number, consuming.count, EVERYTHING, consuming.wait_ms)
            self.client.call(request, lambda reply: self._answered(consuming, reply))

    def _answered(self, consuming: Consuming, reply: Any) -> None:
        if consuming is not self.consuming:
            return  # it has timed out
        consuming.is_in_flight = False
        if isinstance(reply, Messages):
            self.consuming, self.is_unresolved = None, False
            if reply.message_count:
                self.number += 1
                self.buffer, self._generation = list(MessageBatch(reply)), reply.generation
                self.hand_out(max(1, reply.message_count - consuming.kept))
        elif isinstance(reply, OutOfSequence):
            assert reply.expected_number is None, "a consume is repeated or the next one"
            self.client.told(reply.present_id)
            if self.is_unresolved:
                self.client.witness.may_be_lost(self.id)
                self.consuming = None
            self.id, self.number, self.is_unresolved = b"", 0, False
            self.connected()
        elif isinstance(reply, DiskFull):
            self.connected()
        else:
            assert isinstance(reply, (LimitExceeded, GroupNotFound)), reply
            self.consuming = None

    def _released(self, reply: Any) -> None:
        if isinstance(reply, DiskFull):
            self.connected()
            return
        assert isinstance(reply, (Empty, OutOfSequence, GroupNotFound)), reply
        if isinstance(reply, OutOfSequence) and (self.is_unresolved or self.buffer):
            self.client.witness.may_be_lost(self.id)
        self.releasing, self.is_closed, self.buffer = None, True, []
