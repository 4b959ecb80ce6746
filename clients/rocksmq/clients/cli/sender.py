"""Many batches in flight on one channel, with the account of what is certainly stored."""

from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rocksmq.clients.deadline import Deadline
from rocksmq.clients.pipeline import WINDOW
from rocksmq.protocol.batch import encode_headers
from rocksmq.protocol.errors import (
    ConnectionFailed,
    InternalError,
    OutOfSequence,
    ProtocolError,
    StorageFailed,
    Timeout,
)
from rocksmq.protocol.messages import pack_messages

from .lines import batches

if TYPE_CHECKING:
    from rocksmq.clients.client import Client
    from rocksmq.clients.pipeline import Pending

OUTCOME_UNKNOWN = (ConnectionFailed, InternalError, OutOfSequence, ProtocolError, StorageFailed, Timeout)


class Sender:
    """Sends payloads to one channel; counts messages and bytes once they are durable."""

    def __init__(self, mq: "Client", channel: str, headers: Mapping[str, bytes], timeout: float) -> None:
        self.messages = 0
        self.payload_bytes = 0
        self.first_id: int | None = None
        self.last_id: int | None = None
        self._pipeline = mq.pipeline(channel)
        self._limits = mq.server.limits
        self._headers = headers
        self._header_bytes = len(encode_headers(headers))
        self._timeout = timeout
        self._in_flight: deque[tuple[Pending, int]] = deque()

    def send(self, payloads: Sequence[bytes]) -> None:
        """Send them all, in batches; waits only while WINDOW batches are unanswered. Raises what `Client.produce` raises."""
        for payloads_of_batch in batches(payloads, self._header_bytes):
            batch = pack_messages(payloads_of_batch, self._headers)
            batch.check(messages_max=self._limits["batch_messages_max"], payload_bytes_max=self._limits["payload_bytes_max"])
            if len(self._in_flight) >= WINDOW:
                self._settle_oldest()
            pending = self._pipeline.submit(batch, Deadline(self._timeout))
            self._in_flight.append((pending, len(batch.payloads)))

    def flush(self) -> None:
        """Return when everything sent is durable. Raises what `Client.produce` raises."""
        while self._in_flight:
            self._settle_oldest()

    def account(self, error: Exception) -> str:
        """What is stored and what may be, now that ``error`` has ended the sending."""
        stored = f"{self.messages:,} messages are stored" + (f", the last with id {self.last_id}" if self.messages else "")
        unanswered = sum(pending.count for pending, _ in self._in_flight)
        if not unanswered or not isinstance(error, OUTCOME_UNKNOWN):
            return stored
        return f"{stored}; whether the next {unanswered:,} are is unknown"

    def _settle_oldest(self) -> None:
        pending, payload_bytes = self._in_flight[0]
        ids = pending.ids(Deadline(self._timeout))
        self._in_flight.popleft()
        if self.first_id is None:
            self.first_id = ids[0]
        self.last_id = ids[-1]
        self.messages += len(ids)
        self.payload_bytes += payload_bytes
