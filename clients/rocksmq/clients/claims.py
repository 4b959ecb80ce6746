"""Consuming under one consumer id, exactly once (contract §4): the client's half of SPEC §7.4.

The number is raised only once the messages were returned to the caller. Until then every consume
repeats it, and the broker hands out the same messages again.
"""

from collections.abc import Callable
from typing import NamedTuple

from rocksmq.protocol.errors import ChannelNotFound, GroupNotFound, OutOfSequence, RocksMQError, Timeout
from rocksmq.protocol.identity import Identity
from rocksmq.protocol.messages import MessageBatch
from rocksmq.protocol.operations import Consume, ReleaseConsumer

from .deadline import Deadline
from .link import RETRY_SECONDS, Link
from .recovery import verdict


class Unread(NamedTuple):
    """Of the messages of a claim, those from ``message_id`` on."""

    message_id: int
    message_count: int


class Claims:
    """A consumer id and its group. Not thread-safe: one consume at a time."""

    def __init__(self, link: Link, channel: str, group: str, consumer: Identity) -> None:
        self._link = link
        self._channel = channel
        self._group = group
        self._consumer = consumer

    def next(
        self, count: int, size: int, poll: Deadline, deadline: Deadline, is_stopped: Callable[[], bool] | None = None
    ) -> MessageBatch:
        """The next messages, or again those that `returned` was not called for; empty when none came until ``poll``.

        Resent until the deadline. Raises OutOfSequence when a claim whose answer was lost is forgotten: its messages
        may be lost to this reader.
        """
        consumer = self._consumer
        delay = RETRY_SECONDS
        refusal: RocksMQError | None = None
        while True:
            try:
                self._link.connected(deadline, is_stopped)  # before the wait is told, for that may take some of it
                request = Consume(self._channel, self._group, consumer.id, consumer.number, count, size, poll.milliseconds)
                return self._claim(request, deadline, is_stopped)
            except OutOfSequence as error:
                is_lost = consumer.is_unresolved
                self._link.told(error.present_id)
                consumer.renew(self._link.present_id)
                refusal = error
                if is_lost:
                    raise
            except RocksMQError as error:
                if refusal is not None and isinstance(error, Timeout):
                    raise refusal from None
                if not error.retryable or self._link.is_closed or (is_stopped is not None and is_stopped()):
                    raise
                refusal = error
            delay = self._link.pause(delay, deadline, refusal.retry_after)
            if deadline.is_over:
                raise refusal

    def _claim(self, request: Consume, deadline: Deadline, is_stopped: Callable[[], bool] | None) -> MessageBatch:
        """One transmission. However it ends, the consumer id tells whether messages may have been claimed."""
        consumer = self._consumer
        was_unresolved = consumer.is_unresolved
        consumer.is_unresolved = consumer.is_used = True  # already now, for whatever interrupts the sending
        try:
            sent = self._link.begin(request, deadline, is_stopped)
        except RocksMQError:
            consumer.is_unresolved = was_unresolved
            raise
        try:
            batch = MessageBatch(sent.reply(deadline, is_stopped))
        except RocksMQError as error:
            found = verdict(error, request.number, was_unresolved)
            # A refusal does not settle what was sent before: a seek may hide an earlier claim, and be undone by a full disk.
            consumer.is_unresolved = found.is_unanswered or (was_unresolved and not isinstance(error, OutOfSequence))
            raise
        consumer.is_unresolved = len(batch) > 0
        return batch

    @property
    def is_unresolved(self) -> bool:
        """Whether messages may have been claimed that were not returned."""
        return self._consumer.is_unresolved

    def returned(self) -> None:
        """What `next` gave has reached the caller."""
        self._consumer.number += 1
        self._consumer.is_unresolved = False

    def release_request(self, unread: Unread | None) -> ReleaseConsumer | None:
        """What `release` sends; None: the broker never met the id."""
        if unread is None:
            return release_of(self._channel, self._group, self._consumer)
        return ReleaseConsumer(self._channel, self._group, self._consumer.id, self._consumer.number - 1, *unread)

    def release(self, unread: Unread | None, deadline: Deadline) -> None:
        """End the use of the id; what was claimed and not handed out is given back, and served first to who reads next.

        ``unread``: what was not handed out of what was returned; None: all of it was. What was never returned is given back
        whole. Resent until the deadline.
        """
        request = self.release_request(unread)
        if request is None:
            return
        try:
            self._link.call(request, deadline)
        except (ChannelNotFound, GroupNotFound):
            pass  # and its messages with it
        except OutOfSequence:
            if unread is not None or self.is_unresolved:
                raise  # forgotten, and what it held is lost to the group


def release_of(channel: str, group: str, consumer: Identity) -> ReleaseConsumer | None:
    """What ends the use of a consumer id of which all was handed out that was returned; None: the broker never met it."""
    if not consumer.is_used:
        return None
    return ReleaseConsumer(channel, group, consumer.id, consumer.number, 0, 0)
