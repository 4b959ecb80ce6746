"""The one connection of a client, made anew whenever it is lost, and requests that outlive it.

Owns the client's id, the present connection and the waiting between attempts. Whatever is sent here
again must be harmless to repeat: the caller sees to that (SPEC §3, §7).
"""

import logging
import secrets
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from rocksmq.protocol.errors import ConnectionFailed, LimitExceeded, RocksMQError, Timeout

from .address import Address
from .connection import Call, Connection
from .credentials import Credentials
from .deadline import SLICE_SECONDS, Deadline, Stopped, check_not
from .sender import Sender
from .turn import Turn

logger = logging.getLogger("rocksmq.client")

RETRY_SECONDS = 0.05
RETRY_SECONDS_MAX = 1.0
Result = TypeVar("Result")


class Sent(NamedTuple):
    """A request on its way."""

    connection: Connection
    call: Call

    def reply(self, deadline: Deadline, is_stopped: Stopped = None) -> Any:
        """The reply. Raises what the broker answered, ConnectionFailed or Timeout."""
        return self.connection.wait(self.call, deadline, is_stopped)


class Link:
    """May be shared by threads. ``present_id``: the latest that the broker told, the birth of new ids."""

    def __init__(self, address: Address, credentials: Credentials, client_name: str) -> None:
        self.address = address
        self.present_id = 0
        self._credentials = credentials
        self._client_name = client_name
        self._closed = threading.Event()
        self._connection: Connection | None = None
        self._connecting: Connection | None = None
        self.begin_anew()

    def begin_anew(self) -> None:
        """A new client id, and a new connection when one is needed; in a forked child the old ones are the parent's."""
        inherited = self._connection, self._connecting
        self._connection = self._connecting = None
        was_closed, self._closed = self._closed.is_set(), threading.Event()
        if was_closed:
            self._closed.set()
        self._client_id = secrets.token_bytes(16)
        self._turn = Turn()  # to connect
        self.sender = Sender()
        self._lost_at: float | None = None
        self._failure: RocksMQError | None = None  # of the latest attempts to connect
        for connection in inherited:
            if connection is not None:
                connection.abandon()

    @property
    def is_closed(self) -> bool:
        return self._closed.is_set()

    @property
    def is_up(self) -> bool:
        """Whether there is a connection that is not known to be lost."""
        return self._connection is not None and self._connection.is_alive()

    @property
    def is_free(self) -> bool:
        """Whether there is a connection that works, and nobody is held up in sending on it."""
        return self.is_up and self._connection is not None and not self._connection.is_sending

    def receive_if_reader(self) -> None:
        """See `Connection.receive_if_reader`."""
        if (connection := self._connection) is not None:
            connection.receive_if_reader()

    def close(self) -> None:
        """End the connection for good; callers that wait get ConnectionFailed. Never blocks; may be repeated."""
        self._closed.set()
        for connection in (self._connection, self._connecting):
            if connection is not None:
                connection.close()

    def told(self, present_id: int | None) -> None:
        """The broker has told its present id."""
        self.present_id = max(self.present_id, present_id or 0)

    # -- connecting --------------------------------------------------------------

    def connected(self, deadline: Deadline, is_stopped: Stopped = None) -> Connection:
        """The connection, made anew if it was lost. Retries until the deadline, then raises the last failure."""
        connection = self._connection
        if connection is not None and connection.is_alive():
            return connection
        try:
            while not self._turn.take(deadline.at_most(SLICE_SECONDS)):
                check_not(is_stopped)
                if deadline.is_over:
                    failure = self._failure or Timeout(f"no connection to {self.address} in time")
                    raise type(failure)(failure.message)
            return self._reconnected(deadline, is_stopped)
        finally:
            self._turn.pass_on()

    def _reconnected(self, deadline: Deadline, is_stopped: Stopped) -> Connection:
        self._note_loss()
        delay = RETRY_SECONDS
        while not self._closed.is_set():
            check_not(is_stopped)
            if self._connection is not None and self._connection.is_alive():
                return self._connection
            try:
                self._connecting = connection = Connection(self.address, self._credentials)
                if self._closed.is_set():
                    connection.close()  # it was made too late for `close` to see it
                connection.open(self._client_name, self._client_id, deadline, is_stopped)
            except RocksMQError as error:
                # A broker that is full when all come back at once has room a little later.
                if not error.retryable and not isinstance(error, (Timeout, LimitExceeded)):
                    raise
                self._failure = error if self._failure is None or not isinstance(error, Timeout) else self._failure
                if deadline.is_over:
                    raise self._failure from None
                delay = self.pause(delay, deadline, error.retry_after)
            else:
                self._connection, self._connecting, self._failure = connection, None, None
                self.told(connection.server.present_id)
                self._note_return()
                if not self._closed.is_set():
                    return connection
        self.close()
        raise ConnectionFailed("the client was closed")

    def _note_loss(self) -> None:
        """One line of log an outage, however many calls find out about it."""
        lost = self._connection
        if lost is not None and lost.failure is not None:
            lost.close()
        if self._lost_at is None:
            self._failure = None
        if self._lost_at is None and lost is not None and lost.failure is not None and not self._closed.is_set():
            self._lost_at = time.monotonic()
            logger.warning("%s; connecting again", lost.failure.message)

    def _note_return(self) -> None:
        if self._lost_at is not None:
            logger.info("connected to %s again after %.1f s", self.address, time.monotonic() - self._lost_at)
            self._lost_at = None

    # -- calls -------------------------------------------------------------------

    def begin(self, request: Any, deadline: Deadline, is_stopped: Stopped = None) -> Sent:
        """Send a request. When it raises, nothing of it will be done."""
        connection = self.connected(deadline, is_stopped)
        return Sent(connection, connection.begin(request, deadline))

    def call_once(self, request: Any, deadline: Deadline) -> Any:
        """One request, sent once."""
        return self.begin(request, deadline).reply(deadline)

    def call(self, request: Any, deadline: Deadline) -> Any:
        """One request that may be repeated."""
        return self.retried(lambda: self.call_once(request, deadline), deadline)

    def retried(self, send: Callable[[], Result], deadline: Deadline, is_stopped: Stopped = None) -> Result:
        """``send`` until the deadline while the error is retryable; then the last refusal is raised."""
        delay = RETRY_SECONDS
        failure: RocksMQError | None = None
        while True:
            try:
                return send()
            except RocksMQError as error:
                if failure is not None and isinstance(error, Timeout):
                    raise failure from None
                if not error.retryable or self._closed.is_set() or deadline.is_over:
                    raise
                check_not(is_stopped)
                failure = error
            delay = self.pause(delay, deadline, failure.retry_after)

    def pause(self, delay: float, deadline: Deadline, retry_after: float | None = None) -> float:
        """Wait up to ``delay`` seconds, at random, beyond what the broker asked for; the next delay.

        Not past the deadline or `close`. Random, so that clients which lost the same broker do not come back at once.
        """
        jitter = delay * secrets.randbelow(1_000) / 1_000
        self._closed.wait(min(deadline.remaining, (retry_after or 0) + jitter))
        return min(delay * 2, RETRY_SECONDS_MAX)
