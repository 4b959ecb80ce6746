"""`Producer`: many small sends, few large batches, stored once and in order through any failure (contract §4).

The caller's thread only appends to the open batch, which is one step that no signal can tear. `sending`, in a thread
of its own, does the rest.
"""

import logging
import threading
import time
import warnings
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from itertools import accumulate
from types import TracebackType
from typing import Any, Self

from rocksmq.protocol.batch import encode_headers
from rocksmq.protocol.errors import (
    OUTCOME_UNKNOWN,
    ConnectionFailed,
    InvalidRequest,
    MessageTooLarge,
    RocksMQError,
    Timeout,
)
from rocksmq.protocol.messages import payload_of
from rocksmq.protocol.names import checked_name
from rocksmq.protocol.wire import SEQUENCE_BYTES_MAX

from .deadline import SLICE_SECONDS, Deadline, checked_timeout
from .exits import close_at_exit, closed
from .forks import call_in_child
from .link import Link
from .outbox import WINDOW
from .sending import Sending
from .window import Sequence, Sequenced, Window, not_stored

logger = logging.getLogger("rocksmq.client")

BATCH_BYTES = 256 * 1024
BATCH_MESSAGES = 1_000
LINGER_SECONDS = 0.005
FRAME_BYTES_BESIDE = 512 * 1024  # of a batch: lengths, the largest message beyond it, heads


class Producer:
    """Sends messages of one channel in batches; made by `Client.producer`; may be shared by threads.

        with mq.producer("orders") as producer:
            for line in lines:
                producer.send(line)

    `send` queues and returns; `flush` returns when all is durable. Each message is stored once, in the order
    sent, however often the link or the broker fails: sending is retried until `close`. What is refused is raised by the
    next `send` or `flush`; ``not_stored`` of that error holds the messages.
    """

    def __init__(
        self,
        link: Link,
        channel: str,
        limits: Mapping[str, int],
        *,
        timeout: float | None,
        linger: float,
        batch_bytes: int | None,
        batch_messages: int | None,
        max_in_flight: int,
        name: str | None,
    ) -> None:
        """Use `Client.producer`."""
        self.channel = checked_name("channel", channel)
        self.name = None if name is None else checked_name("producer", name)
        self._link = link
        self._timeout = timeout
        if not linger >= 0:
            raise InvalidRequest(f"linger {linger!r} is not allowed: seconds from 0 on")
        self._linger = linger
        self._batch_bytes = _checked("batch_bytes", batch_bytes, limits["frame_bytes_max"] - FRAME_BYTES_BESIDE, BATCH_BYTES)
        self._batch_messages = _checked("batch_messages", batch_messages, limits["batch_messages_max"], BATCH_MESSAGES)
        self._max_in_flight = _checked("max_in_flight", max_in_flight, WINDOW, WINDOW)
        self._payload_bytes_max = limits["payload_bytes_max"]
        self._begin_anew()
        if self.name is not None:
            self._sending.open_name(Deadline(timeout))
        self._opened_at = self._window.last_sequence
        call_in_child(self._close_in_child)
        close_at_exit(self)

    def _begin_anew(self) -> None:
        self._window = Window()
        self._sending = Sending(self._link, self.channel, self.name, self._window, max_in_flight=self._max_in_flight)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            self.close()
        except RocksMQError as failure:
            if error is None:
                raise
            logger.warning("%r was left by an error, and not all that was sent is stored: %s", self, failure)

    def __repr__(self) -> str:
        name = "" if self.name is None else f" {self.name!r}"
        return f"<Producer{name} of {self.channel!r}, {self.acked} acknowledged{', closed' if self._window.is_closed else ''}>"

    @property
    def acked(self) -> int:
        """Messages that are durable."""
        return self._window.acked

    @property
    def last_id(self) -> int | None:
        """Id of the last message that is durable; None before the first."""
        return self._window.last_id

    @property
    def last_sequence(self) -> Sequence | None:
        """Of a producer with a name: the last sequence that is durable under it; None: none yet."""
        return self._window.last_sequence

    @property
    def unflushed(self) -> int:
        """Messages that were sent and are not durable yet."""
        with self._window.lock:
            return self._window.unflushed

    def send(self, payload: Any, headers: Mapping[str, bytes] | None = None, *, sequence: Sequence | None = None) -> None:
        """Queue a message; it leaves within ``linger`` seconds, or later when 64 others of the client are sending.

        Durable when a later `flush` returns.
        ``sequence``: of a producer with a name, and only there: the caller's own number of the message, strictly rising.
        Blocks while the window is full, up to the client's timeout, then raises Timeout. Whatever it raises, this
        message is **not** queued: TypeError, MessageTooLarge, InvalidRequest, ConnectionFailed when it is closed, or
        what became of messages sent before.
        """
        item: Any = payload if type(payload) is bytes else payload_of(payload)
        size = payload_bytes = len(item)
        if headers or sequence is not None:
            encoded = encode_headers(headers or {})
            size += len(encoded)
            item = (item, encoded) if sequence is None else Sequenced(item, encoded, sequence)
        window = self._window
        with window.lock:
            batch = window.batches[-1]
            if (
                window.must_attend
                or batch.size + size > self._batch_bytes
                or size > self._payload_bytes_max
                or sequence is not None
                or self.name is not None
            ):
                if self._is_stored(sequence):
                    window.acked += 1
                    return
                self._attend(payload_bytes, size)
                batch = window.batches[-1]
            items = batch.items
            if not items:
                self._begin_batch()
            items.append(item)
            batch.size += size
            if len(items) >= self._batch_messages:
                self._seal_if_room()

    def flush(self, timeout: float | None = None) -> None:
        """Return when everything sent so far is durable.

        Raises Timeout after ``timeout`` seconds (None: never): what is not durable by then is still being sent. Raises what
        became of a batch that was refused, or whose outcome stays unknown.
        """
        deadline = Deadline(checked_timeout(timeout))
        window = self._window
        with window.lock:
            awaited = [batch for batch in window.batches if batch.items]
            while True:
                self._raise_failure()
                if all(batch.is_settled for batch in awaited):
                    return
                if window.is_closed:
                    raise _closed()
                if window.open in awaited and window.open.items:
                    self._seal_if_room()
                if deadline.is_over:
                    raise Timeout(f"{window.unflushed} messages are not durable yet and go on being sent{window.trouble}")
                self._sending.start(self)
                window.settled.wait(deadline.at_most(SLICE_SECONDS).remaining)
                self._link.receive_if_reader()

    def send_many(self, payloads: Iterable[Any], headers: Mapping[str, bytes] | None = None) -> None:
        """`send` each, with the same headers; a list of bytes goes faster so.

        When it raises, some of them are queued, in order; `send` tells which.
        """
        if headers or not isinstance(payloads, list):
            for payload in payloads:
                self.send(payload, headers)
            return
        begin = 0
        while begin < len(payloads):
            queued = self._extend(payloads, begin)
            if not queued:
                self.send(payloads[begin])
                queued = 1
            begin += queued

    def close(self) -> None:
        """Flush for up to the client's timeout, then end. A send that waits in another thread raises.

        Raises what `flush` raises, Timeout when not all is known to be durable by then; ``not_stored`` of the error holds all
        that is given up. May be repeated.
        """
        self.close_within(Deadline(self._timeout))

    def close_within(self, deadline: Deadline) -> None:
        """As `close`, by that deadline."""
        window = self._window
        with window.lock:
            window.is_closing = window.must_attend = True
            window.settled.notify_all()
        failures: list[RocksMQError] = []
        try:
            while not window.is_closed:
                try:
                    self.flush(None if deadline.is_never else deadline.remaining)
                    break
                except Timeout:
                    with window.lock:
                        given_up = Timeout(f"no answer came in time, and they were given up{window.trouble}")
                        failures.append(not_stored(given_up, [batch for batch in window.batches if batch.items]))
                    break
                except RocksMQError as error:
                    failures.append(error)
        finally:
            with window.lock:
                window.close()
            self._sending.close()
            closed(self)
        if failures:
            worst = next((error for error in failures if isinstance(error, OUTCOME_UNKNOWN)), failures[0])
            worst.not_stored = tuple(message for error in failures for message in error.not_stored)
            raise worst

    def close_at_exit(self, deadline: Deadline) -> None:
        """As `close_within`; what is not stored is counted in a ResourceWarning."""
        try:
            self.close_within(deadline)
        except RocksMQError as error:
            count = "1 message" if len(error.not_stored) == 1 else f"{len(error.not_stored)} messages"
            text = f"{count} of {self!r} could not be flushed: {error}"
            warnings.warn(text, ResourceWarning, stacklevel=2, source=self)

    def _close_in_child(self) -> None:
        """In a forked child: what is queued is the parent's to send."""
        self._begin_anew()
        self._window.close()

    def _extend(self, payloads: list[Any], begin: int) -> int:
        """Queue as many from ``begin`` on as one step can; 0 when the next needs attention."""
        window = self._window
        with window.lock:
            batch = window.open
            chunk = payloads[begin : begin + self._batch_messages - len(batch.items)]
            if window.must_attend or not batch.items or self.name is not None or set(map(type, chunk)) != {bytes}:
                return 0
            sizes = list(map(len, chunk))
            fits = bisect_right(list(accumulate(sizes)), self._batch_bytes - batch.size)
            if not fits or max(sizes[:fits]) > self._payload_bytes_max:
                return 0
            batch.items += chunk[:fits]
            batch.size += sum(sizes[:fits])
            if len(batch.items) >= self._batch_messages:
                self._seal_if_room()
            return fits

    # -- under the lock --------------------------------------------------------------

    def _begin_batch(self) -> None:
        """Before its first message is in."""
        self._window.open.due = time.monotonic() + self._linger
        self._sending.start(self)

    def _seal_if_room(self) -> bool:
        if len(self._window.batches) > self._max_in_flight:
            self._window.must_attend = True
            return False
        self._window.seal()
        self._sending.start(self)
        return True

    def _attend(self, payload_bytes: int, size: int) -> None:
        """What a send has to do beside appending: raise what is to be told, and make room."""
        window = self._window
        deadline = Deadline(self._timeout)
        if payload_bytes > self._payload_bytes_max:
            raise MessageTooLarge(
                f"a payload of {payload_bytes} bytes exceeds the limit of {self._payload_bytes_max} (payload_bytes_max)"
            )
        while True:
            if window.is_closing:
                raise _closed()
            self._raise_failure()
            batch = window.open
            is_full = batch.size + size > self._batch_bytes or len(batch.items) >= self._batch_messages
            if not batch.items or not is_full or self._seal_if_room():
                window.must_attend = False
                return
            if deadline.is_over:
                raise Timeout(
                    f"{window.unflushed} messages wait to be stored, and the window stayed full: this one was not queued"
                    f"{window.trouble}"
                )
            window.settled.wait(min(deadline.remaining, threading.TIMEOUT_MAX))

    def _raise_failure(self) -> None:
        if self._window.failures:
            # All that was queued went with it: the caller may begin again behind what is stored.
            self._opened_at = self._window.last_sequence
        self._window.raise_failure()

    def _is_stored(self, sequence: Sequence | None) -> bool:
        """Whether a message with that sequence was stored before this producer sent any. Raises InvalidRequest."""
        if self.name is None:
            if sequence is not None:
                raise InvalidRequest("a sequence needs a producer with a name: producer(channel, name=...)")
            return False
        if sequence is None:
            raise InvalidRequest(f"producer {self.name!r} has a name: give each message its sequence")
        self._raise_failure()
        queued = self._window.queued_sequence
        sent = self._window.last_sequence if queued is None else queued
        _check_sequence(sequence, sent)
        if self._opened_at is not None and sequence <= self._opened_at:  # type: ignore[operator]  # pyright: ignore[reportOperatorIssue]
            return True
        if sent is not None and sequence <= sent:  # type: ignore[operator]  # pyright: ignore[reportOperatorIssue]
            raise InvalidRequest(f"sequence {sequence!r} does not rise: {sent!r} was sent before it")
        return False


def _check_sequence(sequence: object, former: Sequence | None) -> None:
    is_allowed = (type(sequence) is int and sequence >> 64 == 0) or (
        type(sequence) is bytes and len(sequence) <= SEQUENCE_BYTES_MAX
    )
    if not is_allowed or (former is not None and type(sequence) is not type(former)):
        raise InvalidRequest(
            f"sequence {sequence!r} is not allowed: all of a name are unsigned 64-bit integers, or all are bytes, at most"
            f" {SEQUENCE_BYTES_MAX}"
        )


def _closed() -> ConnectionFailed:
    return ConnectionFailed("the producer is closed")


def _checked(name: str, value: int | None, most: int, default: int) -> int:
    if value is None:
        return min(default, most)
    if type(value) is not int or not 1 <= value <= most:
        raise InvalidRequest(f"{name} {value!r} is not allowed: 1 to {most}")
    return value
