"""Payloads to one channel through any outage that is not too long, with the account of what is stored."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from rocksmq.clients.deadline import Deadline
from rocksmq.clients.producer import Producer
from rocksmq.protocol.errors import RocksMQError, Timeout

from .patience import Patience
from .stop import POLL_SECONDS, Stop


class Sender:
    """Sends payloads, each stored once and in order. Waits as long as ``patience`` has it without any message
    stored; when an end is wanted, only for ``timeout`` seconds.
    """

    def __init__(
        self, producer: Producer, headers: Mapping[str, bytes], stop: Stop, patience: float | None, timeout: float | None
    ) -> None:
        self.payload_bytes = 0  # of all that was sent
        self._producer = producer
        self._headers = headers
        self._stop = stop
        self._patience = Patience(patience)
        self._hurried_seconds = math.inf if timeout is None else timeout

    @property
    def messages(self) -> int:
        """Those that are durable."""
        return self._producer.acked

    @property
    def last_id(self) -> int | None:
        """Of the last that is durable."""
        return self._producer.last_id

    def send(self, payloads: Sequence[bytes]) -> None:
        """Queue them all. Raises what `Producer.send` raises, Timeout once patience is over."""
        send, headers = self._producer.send, self._headers
        for payload in payloads:
            try:
                send(payload, headers)
            except Timeout as error:
                self._go_on(error, partial(send, payload, headers))
            self.payload_bytes += len(payload)

    def flush(self) -> None:
        """Return when everything sent is durable. Raises what `Producer.flush` raises, Timeout once patience is over."""
        try:
            self._producer.flush(POLL_SECONDS)
        except Timeout as error:
            self._go_on(error, partial(self._producer.flush, POLL_SECONDS))

    def account(self, error: Exception) -> str:
        """What became of everything, now that ``error`` has ended the sending; waits for answers that still come."""
        told = [error.message if isinstance(error, RocksMQError) else f"{error}"]
        try:
            self._producer.close()
        except RocksMQError as later:
            told.append(later.message)
        return "; ".join([*told, self._stored()])

    def abandon(self) -> str:
        """End it at once; what became of everything."""
        try:
            self._producer.close_within(Deadline(0))
        except RocksMQError as error:
            return f"{error.message}; {self._stored()}"
        return self._stored()

    def _stored(self) -> str:
        stored = "1 message is stored" if self.messages == 1 else f"{self.messages:,} messages are stored"
        return stored + (f", the last with id {self.last_id}" if self.messages else "")

    def _go_on(self, error: Timeout, attempt: Callable[[], None]) -> None:
        """``attempt`` again and again, from its first failure on, while patience lasts."""
        self._patience.renew()
        stored = self.messages
        while True:
            if error.not_stored:
                raise error
            if self.messages != stored:
                stored = self.messages
                self._patience.renew()
            if self._patience.is_over(self._hurried_seconds if self._stop.is_wanted else math.inf):
                self._producer.close_within(Deadline(0))
                raise error
            try:
                attempt()
            except Timeout as later:
                error = later
            else:
                return
