"""Many batches in flight on one channel, with the account of what is certainly stored."""

from collections import deque
from collections.abc import Mapping, Sequence

from rocksmq.clients.client import Client
from rocksmq.clients.deadline import Deadline
from rocksmq.clients.pipeline import WINDOW, Pending
from rocksmq.protocol.batch import encode_headers
from rocksmq.protocol.errors import OUTCOME_UNKNOWN, RocksMQError
from rocksmq.protocol.messages import pack_messages

from .lines import batches


class Sender:
    """Sends payloads to one channel; counts messages and bytes once they are durable."""

    def __init__(self, mq: Client, channel: str, headers: Mapping[str, bytes], timeout: float) -> None:
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
        self._unanswered = 0  # messages

    def send(self, payloads: Sequence[bytes]) -> None:
        """Send them all, in batches; waits only while WINDOW batches are unanswered. Raises what `Client.produce` raises."""
        for payloads_of_batch in batches(payloads, self._header_bytes):
            batch = pack_messages(payloads_of_batch, self._headers)
            batch.check(messages_max=self._limits["batch_messages_max"], payload_bytes_max=self._limits["payload_bytes_max"])
            if len(self._in_flight) >= WINDOW:
                self._settle_oldest()
            self._unanswered += len(payloads_of_batch)
            pending = self._pipeline.submit(batch, Deadline(self._timeout))
            self._in_flight.append((pending, len(batch.payloads)))

    def flush(self) -> None:
        """Return when everything sent is durable. Raises what `Client.produce` raises."""
        while self._in_flight:
            self._settle_oldest()

    def account(self, error: Exception) -> str:
        """What is stored and what may be, now that ``error`` has ended the sending; waits for answers that still come."""
        if not isinstance(error, OUTCOME_UNKNOWN):
            try:
                self.flush()
            except RocksMQError as later:
                error = later
        stored = f"{self.messages:,} messages are stored" + (f", the last with id {self.last_id}" if self.messages else "")
        if self._unanswered and isinstance(error, OUTCOME_UNKNOWN):
            return f"{stored}; whether the next {self._unanswered:,} are is unknown"
        return stored

    def _settle_oldest(self) -> None:
        pending, payload_bytes = self._in_flight[0]
        ids = pending.ids(Deadline(self._timeout))
        self._in_flight.popleft()
        self._unanswered -= len(ids)
        if self.first_id is None:
            self.first_id = ids[0]
        self.last_id = ids[-1]
        self.messages += len(ids)
        self.payload_bytes += payload_bytes
