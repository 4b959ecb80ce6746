"""Batches of one producer id in flight, in order, whose answers are seen one by one.

Owns one identity on one channel and at most WINDOW unanswered batches. Runs in its caller's
thread; a batch's bytes are sent when `submit` returns. After a failure the pipeline is over: the
batches behind the failed one were refused by the broker, since their numbers no longer follow.
"""

from collections import deque

from rocksmq.clients.client import Client
from rocksmq.clients.connection import Call, Connection
from rocksmq.clients.deadline import Deadline
from rocksmq.protocol.batch import RecordBatch
from rocksmq.protocol.identity import Identity
from rocksmq.protocol.operations import Produce

WINDOW = 16  # what the broker remembers of a producer


class Pending:
    """A batch on its way."""

    __slots__ = ("_connection", "call", "count")

    def __init__(self, connection: Connection, call: Call, count: int) -> None:
        self._connection = connection
        self.call = call
        self.count = count

    def ids(self, deadline: Deadline) -> range:
        """The ids of its messages once they are durable. Raises what `Client.produce` raises."""
        first_id: int = self._connection.wait(self.call, deadline).first_id
        return range(first_id, first_id + self.count)


class Pipeline:
    """Up to WINDOW batches of one channel in flight from one thread."""

    def __init__(self, connection: Connection, channel: str, identity: Identity) -> None:
        self._connection = connection
        self._channel = channel
        self._identity = identity
        self._in_flight: deque[Pending] = deque()

    @classmethod
    def of(cls, mq: Client, channel: str) -> "Pipeline":
        """On the connection of a client, so that closing it ends this too."""
        link = mq._link  # pyright: ignore[reportPrivateUsage]
        return cls(link.connected(Deadline(None)), channel, Identity.new(link.present_id))

    def submit(self, batch: RecordBatch, deadline: Deadline) -> Pending:
        """Send ``batch``; waits for the oldest one's answer while the window is full. Raises what that was answered."""
        while len(self._in_flight) >= WINDOW:
            self._in_flight[0].ids(deadline)
            self._in_flight.popleft()
        call = self._connection.begin(Produce(self._channel, self._identity.id, self._identity.number, *batch), deadline)
        self._identity.number += 1
        pending = Pending(self._connection, call, batch.message_count)
        self._in_flight.append(pending)
        return pending

    def flush(self, deadline: Deadline) -> None:
        """Wait until everything submitted is durable. Raises what the first failed batch was answered."""
        while self._in_flight:
            self._in_flight[0].ids(deadline)
            self._in_flight.popleft()
