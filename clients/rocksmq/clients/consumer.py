"""`Consumer`: a group's messages one after the other, each once (contract §4).

Two ways to read. ``ack="auto"`` claims: the group's position moves with each batch that is claimed, and what is not
handed out is given back at the end. ``ack="manual"`` fetches, and the position moves when the caller commits.
"""

import logging
import threading
import warnings
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

from rocksmq.protocol.errors import ConnectionFailed, GapFound, InvalidRequest, RocksMQError, Timeout
from rocksmq.protocol.messages import Gap, Message, MessageBatch, Start

from .claims import Unread
from .deadline import Deadline, checked_timeout
from .exits import close_at_exit, closed
from .forks import call_in_child
from .sources import Source
from .turn import Turn

logger = logging.getLogger("rocksmq.client")

BATCH_MESSAGES = 1_000
CLOSE_SECONDS_MAX = 10.0  # also of a client that waits for ever
GAPS_MAX = 1_000  # that a consumer remembers
OnGap = str | Callable[[Gap], object]


def check_options(batch_messages: int, idle_timeout: float | None, on_gap: OnGap) -> None:
    """Refuse what a `Consumer` cannot be made with. Raises InvalidRequest."""
    if type(batch_messages) is not int or batch_messages < 1:
        raise InvalidRequest(f"batch_messages {batch_messages!r} is not allowed: 1 at least")
    if not callable(on_gap) and on_gap not in ("log", "raise"):
        raise InvalidRequest(f"on_gap {on_gap!r} is not 'log', 'raise' or a callable")
    checked_timeout(idle_timeout)


class _Hand:
    """A batch, and how many of its messages were handed out."""

    __slots__ = ("batch", "count", "handed_out")

    def __init__(self, batch: MessageBatch) -> None:
        self.batch = batch
        self.count = len(batch)
        self.handed_out = 0


class Consumer:
    """An iterator over a group's messages; made by `Client.consumer`; a context manager; may be shared by threads.

        with mq.consumer("orders", "billing", idle_timeout=5.0) as consumer:
            for message in consumer:
                print(message.id, message.payload)

    It goes on after any failure that it raises, and behind the last message that it handed out.
    """

    def __init__(
        self,
        name: str,
        source: Source,
        *,
        timeout: float | None,
        batch_messages: int,
        idle_timeout: float | None,
        on_gap: OnGap,
    ) -> None:
        """Use `Client.consumer`."""
        self._is_closed = True  # until all of it is there
        self._name = name
        self._source = source
        self._close_timeout = CLOSE_SECONDS_MAX if timeout is None else timeout
        self._batch_messages = batch_messages
        self._idle_timeout = idle_timeout
        self._on_gap = on_gap
        self._gaps: deque[Gap] = deque(maxlen=GAPS_MAX)
        self._lock = threading.RLock()  # what follows
        self._turn = Turn()  # held by who reads
        self._reader: int | None = None  # the thread that does
        self._moving = threading.RLock()  # held by who seeks or commits: meanwhile nothing that was read is kept
        self._close_deadline: Deadline | None = None  # of a close that was not finished
        self._must_finish = False  # the reader does that
        self._hand = _Hand(MessageBatch.empty())
        self._told: MessageBatch | None = None  # the last one whose gap was told
        self._position: int | None = None  # behind what was handed out; see `_note_position`
        self._committed: tuple[int | None, bytes] | None = None  # the last position, and its metadata
        self._drops = 0  # how often what was read was dropped
        self._is_closed = False
        call_in_child(self._close_in_child)
        close_at_exit(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            self.close()
        except RocksMQError as failure:
            if error is None:
                raise
            logger.warning("%r was left by an error, and could not give back what it held: %s", self, failure)

    def __del__(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._source.abandon(self._unread(self._hand))
            self._warn()

    def __repr__(self) -> str:
        return f"<Consumer {self._name}{', closed' if self._is_closed else ''}>"

    @property
    def gaps(self) -> list[Gap]:
        """What retention removed before it could be read here, the last GAPS_MAX of them."""
        return list(self._gaps)

    # -- reading -----------------------------------------------------------------

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Message:
        """The next message; ends after ``idle_timeout`` seconds without one. Raises what `Client.consume` raises."""
        message = self._next_in_hand() or self._read_next(Deadline(self._idle_timeout))
        if message is None:
            raise StopIteration
        return message

    def receive(self, timeout: float | None = None) -> Message:
        """The next message. Raises Timeout when none came within ``timeout`` seconds (None: never)."""
        checked_timeout(timeout)
        message = self._next_in_hand() or self._read_next(Deadline(timeout))
        if message is None:
            raise Timeout(f"no message came within {timeout} s")
        return message

    def receive_batch(self, max_messages: int | None = None, timeout: float | None = 0.0) -> MessageBatch:
        """What is at hand, or the next batch of at most ``max_messages`` (None: batch_messages); empty after ``timeout``."""
        wanted = self._batch_messages if max_messages is None else max_messages
        if type(wanted) is not int or wanted < 1:
            raise InvalidRequest(f"max_messages {max_messages!r} is not allowed: 1 at least")
        until = Deadline(checked_timeout(timeout))
        while True:
            if (part := self._part_in_hand(wanted)) is not None:
                return part
            if not self._fill(wanted, until):
                return MessageBatch.empty()

    def commit(self, *, metadata: bytes = b"") -> None:
        """With ``ack="manual"``: all that was handed out is done; the group goes on behind it. Durable when it returns.

        ``metadata``, at most 256 bytes, is kept with the position. Raises Conflict when the group was sought by somebody
        else, or taken over by another consumer: then this one is over. Until it commits it does not know, and reads on.
        """
        self._check_open()
        with self._moving:
            with self._lock:
                self._note_position()
                position = self._position
            self._source.commit(None if (position, metadata) == self._committed else position, metadata)
            self._committed = position, metadata

    def seek(self, to: Start) -> None:
        """Go on from ``to``, as `Client.seek`; what is in hand is dropped, and nothing read before appears after it."""
        self._check_open()
        with self._moving:
            self._source.seek(to)
            self._drop()

    def close(self) -> None:
        """End it; calls that wait in other threads raise ConnectionFailed. May be repeated.

        With ``ack="auto"`` what was claimed and not handed out is given back, within the client's timeout: it is served
        first to the group's next reader. Raises what the broker answers when that fails.
        """
        self.close_within(Deadline(self._close_timeout))

    def close_within(self, deadline: Deadline) -> None:
        """As `close`, by that deadline."""
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            self._close_deadline = deadline
        closed(self)
        if self._reader == threading.get_ident():
            self._must_finish = True  # called by a signal handler in the midst of a read
            return
        try:
            if self._turn.take(deadline):  # whoever reads finds out soon
                self._finish()
            else:
                self._must_finish = True
        finally:
            self._turn.pass_on()

    def close_at_exit(self, deadline: Deadline) -> None:
        """As `close_within`, with the ResourceWarning of who was not closed."""
        with suppress(RocksMQError):
            self.close_within(deadline)
        self._warn()

    def _warn(self) -> None:
        text = f"<Consumer {self._name}> was not closed: use it in a `with`, or call close()"
        warnings.warn(text, ResourceWarning, stacklevel=3, source=self)

    def _unread(self, hand: _Hand) -> Unread | None:
        """What was in hand and was not handed out; all of it has arrived."""
        self._source.returned(hand.batch)
        left = hand.count - hand.handed_out
        return Unread(hand.batch.ids[hand.handed_out], left) if left else None

    def _finish(self) -> None:
        """Give back what is in hand; by the holder of the turn, once."""
        with self._lock:
            deadline, self._close_deadline = self._close_deadline, None
            unread = self._unread(self._drop())
        if deadline is not None:
            self._source.close(unread, deadline)

    def _close_in_child(self) -> None:
        """In a forked child: what was claimed is the parent's."""
        self._lock, self._moving, self._turn = threading.RLock(), threading.RLock(), Turn()
        self._is_closed = True
        self._drop()

    # -- batches -----------------------------------------------------------------

    def _check_open(self) -> None:
        if self._is_closed:
            raise ConnectionFailed("the consumer is closed")

    def _drop(self) -> _Hand:
        """What is in hand, or being read, is not to be handed out. Returns what was in hand."""
        nothing = _Hand(MessageBatch.empty())
        with self._lock:
            self._position = self._committed = None
            self._drops += 1
            dropped, self._hand = self._hand, nothing
            return dropped

    # CPython lets signals strike, and other threads run, at calls and at the ends of loops. So a message is handed out at once
    # with the note that it was: between the condition and `return` there is neither.

    def _next_in_hand(self) -> Message | None:
        while True:
            hand = self._hand
            begin = hand.handed_out
            if begin == hand.count:
                return None
            message = hand.batch[begin]
            if self._hand is hand and hand.handed_out == begin:
                hand.handed_out = begin + 1
                return message

    def _part_in_hand(self, wanted: int) -> MessageBatch | None:
        while True:
            hand = self._hand
            begin = hand.handed_out
            if begin == hand.count:
                return None
            end = min(hand.count, begin + wanted)
            part = hand.batch.part(begin, end)
            if self._hand is hand and hand.handed_out == begin:
                hand.handed_out = end
                return part

    def _read_next(self, until: Deadline) -> Message | None:
        while self._fill(self._batch_messages, until):
            if (message := self._next_in_hand()) is not None:
                return message
        return None

    def _fill(self, max_messages: int, until: Deadline) -> bool:
        """Read the next batch, unless somebody else did; False when none came until then."""
        self._check_open()
        self._tell_gap(self._hand.batch)  # which an interrupt may have kept from being told
        if not self._turn.take(until):
            return False
        try:
            self._reader = threading.get_ident()
            with self._moving, self._lock:
                self._check_open()
                if self._hand.handed_out < self._hand.count:
                    return True
                # Only now: an interrupt before the last batch was kept here would have lost it.
                self._source.returned(self._hand.batch)
                drops = self._drops
            batch = self._source.read(max_messages, until, lambda: self._is_closed)
            with self._moving, self._lock:
                if self._drops != drops:
                    return True
                self._note_position()
                self._hand = _Hand(batch)
        finally:
            self._reader = None
            try:
                if self._must_finish:
                    with suppress(RocksMQError):  # what could not be given back now is noted for later
                        self._finish()
            finally:
                self._turn.pass_on()
        self._tell_gap(batch)
        return len(batch) > 0 or batch.gap is not None

    def _note_position(self) -> None:
        """How far the batch in hand was handed out, before that is forgotten or committed."""
        if self._hand.handed_out:
            self._position = self._hand.batch.ids[self._hand.handed_out - 1] + 1

    def _tell_gap(self, batch: MessageBatch) -> None:
        """Once."""
        with self._lock:
            gap = None if batch is self._told else batch.gap
            if gap is None:
                return
            self._gaps.append(gap)
            self._told = batch
        if callable(self._on_gap):
            self._on_gap(gap)
            return
        text = f"{self._name}: retention removed {gap.message_count} messages from {gap.from_id} to before {gap.to_id} unread"
        if self._on_gap == "raise":
            found = GapFound(text)
            found.gap = gap
            raise found
        logger.warning("%s", text)
