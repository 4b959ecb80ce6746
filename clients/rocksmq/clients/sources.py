"""Where a `Consumer` gets its batches: by claims that move the group's position, or by fetches and commits (contract §4)."""

import secrets
from collections.abc import Callable
from typing import Protocol

from rocksmq.protocol.errors import Conflict, InvalidRequest, RocksMQError
from rocksmq.protocol.messages import MessageBatch, Start, start_of
from rocksmq.protocol.operations import Commit, Position, ReleaseConsumer, Seek

from .claims import Claims, Unread
from .deadline import Deadline
from .link import Link
from .reading import MAX_BYTES, fetch, gap_before, poll


class Source(Protocol):
    """What a consumer reads from. `read`, `returned` and `close` are called by one thread at a time."""

    def read(self, max_messages: int, until: Deadline, is_stopped: Callable[[], bool]) -> MessageBatch:
        """The next messages, or the last ones again when they were not returned; empty when none came until then."""
        ...

    def returned(self, batch: MessageBatch | None) -> None:
        """``batch`` is in the consumer's hands; when it is what `read` gave last, `read` goes on behind it."""
        ...

    def commit(self, position: int | None, metadata: bytes) -> None:
        """What lies before ``position`` is done; None: nothing new is."""
        ...

    def seek(self, to: Start) -> None:
        """Read from there; what is in the consumer's hands, or being read, it drops then."""
        ...

    def abandon(self, unread: Unread | None) -> None:
        """The end, noted for later; as `close` otherwise. Must not block."""
        ...

    def close(self, unread: Unread | None, deadline: Deadline) -> None:
        """The end; ``unread`` is what was not handed out of the last batch, None if all was."""
        ...


class AutoSource:
    """Claims under one consumer id of its own."""

    def __init__(
        self,
        link: Link,
        claims: Claims,
        seek: Callable[[Start], object],
        abandoned: list[ReleaseConsumer],
        timeout: float | None,
    ) -> None:
        """``abandoned`` takes what `abandon` leaves to be sent."""
        self._link = link
        self._claims = claims
        self._seek = seek
        self._abandoned = abandoned
        self._timeout = timeout
        self._last: MessageBatch | None = None  # claimed, and not known to be returned

    def read(self, max_messages: int, until: Deadline, is_stopped: Callable[[], bool]) -> MessageBatch:
        self._last = poll(
            lambda wait, deadline: self._claims.next(max_messages, MAX_BYTES, wait, deadline, is_stopped), until, self._timeout
        )
        return self._last

    def returned(self, batch: MessageBatch | None) -> None:
        if batch is not None and batch is self._last and len(batch):
            self._claims.returned()
            self._last = None

    def commit(self, position: int | None, metadata: bytes) -> None:
        raise InvalidRequest('the consumer acknowledges by itself: open it with ack="manual" to commit')

    def seek(self, to: Start) -> None:
        self._seek(to)

    def abandon(self, unread: Unread | None) -> None:
        if (request := self._claims.release_request(unread)) is not None:
            self._abandoned.append(request)

    def close(self, unread: Unread | None, deadline: Deadline) -> None:
        if unread is not None or self._claims.is_unresolved or self._link.is_up:
            try:
                self._claims.release(unread, deadline)
            except RocksMQError:
                self.abandon(unread)
                raise


class ManualSource:
    """Fetches from a position of its own; one at a time a group, by the generation that opening raised."""

    def __init__(self, link: Link, channel: str, group: str, timeout: float | None) -> None:
        """Take the group over from whoever had it. Raises ChannelNotFound, GroupNotFound."""
        self._link = link
        self._channel = channel
        self._group = group
        self._timeout = timeout
        self._last: MessageBatch | None = None
        self._conflict: Conflict | None = None
        self._go_to(Position.CURRENT, 0)

    def read(self, max_messages: int, until: Deadline, is_stopped: Callable[[], bool]) -> MessageBatch:
        self._check_held()
        position = start_of(self._position)
        self._last = poll(
            lambda wait, deadline: fetch(
                self._link, self._channel, position, max_messages, MAX_BYTES, wait, deadline, is_stopped
            ),
            until,
            self._timeout,
        )
        self._last.gap = gap_before(self._last, self._position, self._offset)
        return self._last

    def returned(self, batch: MessageBatch | None) -> None:
        if batch is not None and batch is self._last:
            if batch.next_offset is not None:
                self._offset = batch.next_offset
            self._position = batch.next_position
            self._last = None

    def commit(self, position: int | None, metadata: bytes) -> None:
        self._check_held()
        if position is None and not metadata:
            return
        try:
            behind = self._position if position is None else position
            request = Commit(self._channel, self._group, behind, self._generation, metadata)
            self._link.call(request, Deadline(self._timeout))
        except Conflict as error:
            self._conflict = error
            raise

    def seek(self, to: Start) -> None:
        self._check_held()
        self._go_to(*start_of(to))

    def abandon(self, unread: Unread | None) -> None:
        """Nothing to do: what was not committed is the next reader's."""

    def close(self, unread: Unread | None, deadline: Deadline) -> None:
        """Nothing to do: what was not committed is the next reader's."""

    def _go_to(self, kind: Position, value: int) -> None:
        request = Seek(self._channel, self._group, kind, value, secrets.token_bytes(16))
        sought = self._link.call(request, Deadline(self._timeout))
        self._position, self._offset = sought.position, sought.offset
        self._generation, self._last = sought.generation, None

    def _check_held(self) -> None:
        if self._conflict is not None:
            raise Conflict(self._conflict.message)
