"""A `Producer`'s sending half: takes batches from the window, sends them, and settles them by the outbox's rules.

Owns the outbox and the connection in use. All is done by the thread of the link's `Sender`, for which this never waits longer
than to connect and to hand a batch to the socket.
"""

import logging
import secrets
import time
from collections.abc import Sequence

from rocksmq.protocol.errors import InternalError, LimitExceeded, RocksMQError, Timeout
from rocksmq.protocol.identity import Identity
from rocksmq.protocol.messages import columns_of
from rocksmq.protocol.operations import OpenProducer, Produce

from .connection import Connection
from .deadline import Deadline
from .link import RETRY_SECONDS, RETRY_SECONDS_MAX, Link
from .outbox import Outbox, Parcel
from .sender import Sent
from .window import Batch, Window

logger = logging.getLogger("rocksmq.client")

SEND_SECONDS = 30.0  # for the broker to take a batch: beyond, the connection is taken for dead
CONNECT_SECONDS = 5.0  # at a time; then it looks whether the producer was closed


class Sending:
    """As `sender.Sending`."""

    def __init__(self, link: Link, channel: str, name: str | None, window: Window, *, max_in_flight: int) -> None:
        self.timer: float | None = None
        self._link = link
        self._channel = channel
        self._name = name
        self._window = window
        self._max_in_flight = max_in_flight
        self._outbox = Outbox(lambda: Identity.new(link.present_id), has_name=name is not None)
        self._batches: dict[Parcel, Batch] = {}
        self._sent_count = 0  # on their way
        self._connection: Connection | None = None  # on which all of them were sent
        self._is_held = True  # nothing is sent before `_mend` was called
        self._resume_at = 0.0  # nor before that time, on time.monotonic
        self._delay = RETRY_SECONDS
        self._retry_after = 0.0
        self._owner: object = None

    def __repr__(self) -> str:
        return f"the producer of {self._channel}"

    def start(self, owner: object) -> None:
        """There is something to send; under the window's lock. Meanwhile ``owner`` is no garbage, for it is to be flushed."""
        self._owner = owner
        self._link.sender.attend(self)

    def close(self) -> None:
        """The window was closed."""
        if self.timer is not None:
            self._link.sender.attend(self)

    def open_name(self, deadline: Deadline) -> None:
        """Tie the name to a new id. Raises what the broker answers, ConnectionFailed, Timeout."""
        assert self._name is not None, "the producer has a name"
        identity = Identity.new(self._link.present_id)
        opened = self._link.call(OpenProducer(self._channel, self._name, identity.id), deadline)
        with self._window.lock:
            self._window.last_sequence = opened.last_sequence
            for parcel in self._outbox.reopened(identity, opened.last_sequence):
                self._stored(parcel, None)

    # -- the thread ----------------------------------------------------------------

    def advance(self) -> Sequence[Sent]:
        """See `sender.Sending`."""
        with self._window.lock:
            if self._window.is_closed or not self._window.batches[0].items:
                self._owner = None
                return ()
        self._take()
        if self._is_held and len(self._outbox) and not self._sent_count and time.monotonic() >= self._resume_at:
            self._mend()
        return self._send()

    @property
    def due(self) -> float | None:
        """See `sender.Sending`."""
        window = self._window
        with window.lock:
            if window.is_closed:
                return None
            if self._is_held and len(self._outbox):
                return None if self._sent_count else self._resume_at
            return window.open.due if window.open.items and len(window.batches) <= self._max_in_flight else None

    def _take(self) -> None:
        """Bring what is sealed, or due, into the outbox."""
        window = self._window
        with window.lock:
            if window.open.items and window.open.due <= time.monotonic() and len(window.batches) <= self._max_in_flight:
                window.seal()
            taken = [batch for batch in window.batches if not batch.is_taken and batch is not window.open]
        for batch in taken:
            batch.is_taken = True
            parcel = Parcel(columns_of(batch.messages), batch.sequences)
            self._batches[parcel] = batch
            self._outbox.add(parcel)

    def _send(self) -> Sequence[Sent]:
        connection, sent = self._connection, list[Sent]()
        while not self._is_held and connection is not None and (parcel := self._outbox.to_send()) is not None:
            request = Produce(self._channel, self._outbox.identity.id, parcel.number, *parcel.batch, parcel.sequences)
            try:
                call = connection.begin(request, Deadline(SEND_SECONDS))
            except RocksMQError:
                self._outbox.unsent(parcel)
                self._hold()
            else:
                sent.append(Sent(parcel, call, connection))
                self._sent_count += 1
        return sent

    def settle(self, answered: Sequence[Sent]) -> None:
        """See `sender.Sending`."""
        self._sent_count -= len(answered)
        with self._window.lock:
            for parcel, call, _ in answered:
                if call.error is None:
                    self._outbox.stored(parcel)
                    self._stored(parcel, call.reply.first_id)
                    self._delay, self._retry_after = RETRY_SECONDS, 0.0
                    self._window.trouble = ""
                else:
                    self._failed(parcel, call.error)
            self._tell_failures()

    def _stored(self, parcel: Parcel, first_id: int | None) -> None:
        window = self._window
        window.acked += parcel.batch.message_count
        if first_id is not None:
            window.last_id = first_id + parcel.batch.message_count - 1
        if parcel.sequences is not None:
            window.last_sequence = parcel.sequences[1]
        window.settle(self._batches.pop(parcel))

    def _note_trouble(self, error: RocksMQError) -> None:
        with self._window.lock:
            self._window.trouble = f": {error.message}"

    def _failed(self, parcel: Parcel, error: RocksMQError) -> None:
        self._note_trouble(error)
        self._link.told(error.present_id)
        self._outbox.failed(parcel, error)
        self._retry_after = max(self._retry_after, error.retry_after or 0.0)
        self._hold()

    def _tell_failures(self) -> None:
        if self._outbox.is_refusing:
            return
        failures, self._outbox.failures = self._outbox.failures, []
        with self._window.lock:
            for failure in failures:
                self._window.give_up(self._batches.pop(failure.parcel), failure.error)
            if failures and self._name is not None:
                # Sequences behind a hole would make the hole look stored.
                for batch in [batch for batch in self._window.batches if batch.items and not batch.is_taken]:
                    self._window.give_up(batch, failures[-1].error)

    def _hold(self) -> None:
        """Something failed: nothing more is sent before a pause, random, so that producers do not come back at once."""
        self._is_held = True
        self._resume_at = time.monotonic() + self._retry_after + self._delay * secrets.randbelow(1_000) / 1_000

    def _mend(self) -> None:
        """Nothing is on its way, and something is to be sent: connect, and go on."""
        if self._connection is not None:
            self._delay, self._retry_after = min(2 * self._delay, RETRY_SECONDS_MAX), 0.0
        try:
            self._connection = self._link.connected(Deadline(CONNECT_SECONDS))
            if self._outbox.must_reopen:
                self.open_name(Deadline(CONNECT_SECONDS))
            self._is_held = False
        except RocksMQError as error:
            self._note_trouble(error)
            self._hold()
            if self._link.is_closed or not (error.retryable or isinstance(error, (Timeout, LimitExceeded))):
                self._outbox.give_up_all(error)
                self._tell_failures()

    def end(self) -> None:
        """See `sender.Sending`. What is on its way may be stored."""
        window = self._window
        with window.lock:
            for batch in [batch for batch in window.batches if batch.items]:
                window.give_up(batch, InternalError("the producer met a bug; the log has the details"))
            window.close()
            self._owner = None
