"""The thread of a `Producer`: takes batches from the window, sends them, and settles them by the outbox's rules.

Owns the outbox, the connection in use and what is on its way there. There is a thread while anything is unsettled,
and for a moment longer; then it ends, and the next batch starts another.
"""

import logging
import secrets
import threading
import time

from rocksmq.protocol.errors import InternalError, LimitExceeded, RocksMQError, Timeout
from rocksmq.protocol.identity import Identity
from rocksmq.protocol.messages import columns_of
from rocksmq.protocol.operations import OpenProducer, Produce

from .connection import Call, Connection
from .deadline import SLICE_SECONDS, Deadline
from .link import RETRY_SECONDS, RETRY_SECONDS_MAX, Link
from .outbox import Outbox, Parcel
from .turn import Lanes
from .window import Batch, Window

logger = logging.getLogger("rocksmq.client")

SLICE_SECONDS_MIN = 0.001
LATE_SECONDS = 0.02  # beyond its linger that a batch may leave while an earlier one is not answered for long
IDLE_SECONDS = 10.0  # without work, until the thread ends; to start one takes as long as a request
SEND_SECONDS = 30.0  # for the broker to take a batch: beyond, the connection is taken for dead
CONNECT_SECONDS = 5.0  # at a time; then it looks whether the producer was closed


class Sending:
    """One producer's sending half. ``linger``: how long a batch stays open, in seconds."""

    def __init__(
        self, link: Link, channel: str, name: str | None, window: Window, *, linger: float, max_in_flight: int
    ) -> None:
        self._link = link
        self._channel = channel
        self._name = name
        self._window = window
        self._max_in_flight = max_in_flight
        self._slice = min(max(linger, SLICE_SECONDS_MIN), SLICE_SECONDS)
        self._patience_s = self._slice
        self._outbox = Outbox(lambda: Identity.new(link.present_id), has_name=name is not None)
        self._batches: dict[Parcel, Batch] = {}
        self._on_their_way: list[tuple[Parcel, Call]] = []
        self._lane: Lanes | None = None  # this is in, as long as something is on its way
        self._connection: Connection | None = None  # on which all of them were sent
        self._is_held = True  # nothing is sent before `_mend` was called
        self._delay = RETRY_SECONDS
        self._retry_after = 0.0
        self._thread: threading.Thread | None = None
        self._owner: object = None

    def start(self, owner: object) -> None:
        """See that a thread runs; under the window's lock. Meanwhile ``owner`` is no garbage, for it is to be flushed."""
        self._owner = owner
        if self._thread is None or not self._thread.is_alive():
            thread = threading.Thread(target=self._run, name=f"rocksmq producer of {self._channel}", daemon=True)
            thread.start()
            self._thread = thread

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

    def _run(self) -> None:
        with self._window.lock:
            if self._thread is not None and self._thread is not threading.current_thread() and self._thread.is_alive():
                return  # an interrupt had kept `start` from noting it
            self._thread = threading.current_thread()
        try:
            while self._has_work():
                if self._may_send():
                    self._take()
                    self._send()
                is_sent = bool(self._on_their_way)
                if is_sent:
                    self._await()
                if not self._on_their_way:
                    self._leave_lane()
                if not is_sent and len(self._outbox):
                    self._mend()
        except BaseException:
            logger.exception("a bug: the producer of %s cannot go on", self._channel)
            self._end()
        finally:
            self._leave_lane()

    def _may_send(self) -> bool:
        """Wait for a lane, if this is in none. When others wait for one, all that is on its way is answered first."""
        if self._lane is not None:
            return not self._lane.is_wanted
        self._lane = self._link.senders
        self._lane.enter()
        return not self._window.is_closed  # it may have been meanwhile

    def _leave_lane(self) -> None:
        if self._lane is not None:
            self._lane.leave()
            self._lane = None

    def _has_work(self) -> bool:
        """Wait for something to do; whether there was. Otherwise the thread is over."""
        window = self._window
        with window.lock:
            if len(window.batches) == 1 and not window.is_closed:
                batch = window.open
                due_s = max(0.0, batch.due - time.monotonic()) if batch.items else IDLE_SECONDS
                window.work.wait(min(due_s, threading.TIMEOUT_MAX))
            if window.is_closed or not window.batches[0].items:
                self._thread = self._owner = None
                return False
        return True

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

    def _send(self) -> None:
        connection = self._connection
        if self._is_held or connection is None:
            return
        while (parcel := self._outbox.to_send()) is not None:
            request = Produce(self._channel, self._outbox.identity.id, parcel.number, *parcel.batch, parcel.sequences)
            try:
                call = connection.begin(request, Deadline(SEND_SECONDS))
            except RocksMQError:
                self._outbox.unsent(parcel)
                self._is_held = True
                return
            self._on_their_way.append((parcel, call))

    def _await(self) -> None:
        """Wait for the oldest answer, but not beyond what a batch may linger; then settle all that came."""
        assert self._connection is not None, "something is on its way"
        window = self._window
        with window.lock:
            due_s = window.open.due - time.monotonic() if window.open.items else self._patience_s
        # Looking often costs; so the longer nothing happens, the later a first message is seen, up to LATE_SECONDS.
        self._patience_s = min(2 * self._patience_s, max(self._slice, LATE_SECONDS))
        self._connection.is_answered(self._on_their_way[0][1], Deadline(max(min(due_s, self._patience_s), SLICE_SECONDS_MIN)))
        answered = [sent for sent in self._on_their_way if sent[1].done]  # asked once: other threads deliver replies too
        if not answered:
            return
        self._patience_s = self._slice
        self._on_their_way = [sent for sent in self._on_their_way if sent not in answered]
        with self._window.lock:
            for parcel, call in answered:
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
        self._is_held = True
        self._retry_after = max(self._retry_after, error.retry_after or 0.0)

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

    def _mend(self) -> None:
        """Nothing is on its way, and something is to be sent: pause if something failed, connect, and go on."""
        window = self._window
        try:
            if self._is_held and self._connection is not None:
                with window.lock:
                    pause_s = self._retry_after + self._delay * secrets.randbelow(1_000) / 1_000
                    window.work.wait_for(lambda: window.is_closed, pause_s)
                self._delay, self._retry_after = min(2 * self._delay, RETRY_SECONDS_MAX), 0.0
            self._connection = self._link.connected(Deadline(CONNECT_SECONDS))
            if self._outbox.must_reopen:
                self.open_name(Deadline(CONNECT_SECONDS))
            self._is_held = False
        except RocksMQError as error:
            self._note_trouble(error)
            if self._link.is_closed or not (error.retryable or isinstance(error, (Timeout, LimitExceeded))):
                self._outbox.give_up_all(error)
                self._tell_failures()

    def _end(self) -> None:
        """After a bug: give up everything. What is on its way may be stored."""
        window = self._window
        with window.lock:
            for batch in [batch for batch in window.batches if batch.items]:
                window.give_up(batch, InternalError("the producer met a bug; the log has the details"))
            window.close()
            self._owner = None
