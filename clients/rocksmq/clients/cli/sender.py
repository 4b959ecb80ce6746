"""Payloads to one channel, with the account of what is certainly stored."""

from collections.abc import Mapping, Sequence

from rocksmq.clients.client import Client
from rocksmq.protocol.errors import OUTCOME_UNKNOWN, RocksMQError


class Sender:
    """Sends payloads to one channel; counts messages once they are durable."""

    def __init__(self, mq: Client, channel: str, headers: Mapping[str, bytes], timeout: float) -> None:
        self.payload_bytes = 0
        self._producer = mq.producer(channel)
        self._headers = headers
        self._timeout = timeout

    @property
    def messages(self) -> int:
        """Those that are durable."""
        return self._producer.acked

    @property
    def last_id(self) -> int | None:
        """Of the last that is durable."""
        return self._producer.last_id

    def send(self, payloads: Sequence[bytes]) -> None:
        """Queue them all."""
        self._producer.send_many(payloads, self._headers)
        self.payload_bytes += sum(map(len, payloads))

    def flush(self) -> None:
        """Return when everything sent is durable."""
        self._producer.flush(self._timeout)

    def account(self, error: Exception) -> str:
        """What is stored and what may be, now that ``error`` has ended the sending; waits for answers that still come."""
        errors = [error] if isinstance(error, RocksMQError) else []
        try:
            self._producer.close()
        except RocksMQError as later:
            errors.append(later)
        unknown = sum(len(found.not_stored) for found in errors if isinstance(found, OUTCOME_UNKNOWN))
        stored = f"{self.messages:,} messages are stored" + (f", the last with id {self.last_id}" if self.messages else "")
        return f"{stored}; whether {unknown:,} more are is unknown" if unknown else stored
