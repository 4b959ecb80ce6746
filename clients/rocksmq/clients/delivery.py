"""Batches on their way to be stored, each under a number that it keeps until its outcome is known (contract §4).

`Client.produce` sends one, a message stream one a channel, all at a time. What an answer means is in `recovery`.
"""

from collections.abc import Sequence

from rocksmq.protocol.batch import RecordBatch
from rocksmq.protocol.errors import OUTCOME_UNKNOWN, RocksMQError
from rocksmq.protocol.identity import Identity
from rocksmq.protocol.operations import Produce

from .deadline import Deadline
from .identities import IdentityPool
from .link import RETRY_SECONDS, Link, Sent
from .recovery import Next, in_doubt, verdict


class Delivery:
    """One batch for one channel. When `deliver` is done with it, it has ``ids`` or an ``error``, and may be delivered again."""

    def __init__(self, channel: str, batch: RecordBatch) -> None:
        self.channel = channel
        self.batch = batch
        self.ids: range | None = None
        self.error: RocksMQError | None = None
        self._producer: Identity | None = None
        self._sent: Sent | None = None
        self._is_unanswered = False  # a transmission of it was
        self._was_unanswered = False  # one before the latest was
        self._refusal: RocksMQError | None = None  # by the last answer

    def begin(self, link: Link, producers: IdentityPool, deadline: Deadline) -> None:
        """Send it, unless that fails: then nothing of it is done."""
        if self._producer is None:
            self._producer = producers.take(self.channel)
        self._sent = self.error = None
        self._was_unanswered = self._is_unanswered
        self._is_unanswered = True  # already now, for whatever interrupts the sending or the waiting
        try:
            self._sent = link.begin(Produce(self.channel, self._producer.id, self._producer.number, *self.batch), deadline)
        except RocksMQError as error:
            self.error = error
            self._is_unanswered = self._was_unanswered

    def settle(self, link: Link, producers: IdentityPool, deadline: Deadline) -> bool:
        """Wait for its answer; whether it has come to an end, or is to be sent again."""
        if self._sent is None:
            return self._was_not_sent()
        assert self._producer is not None, "it was sent"
        try:
            first_id: int = self._sent.reply(deadline).first_id
        except RocksMQError as error:
            return self._was_not_stored(error, link, producers)
        self._producer.number += 1
        self.ids = range(first_id, first_id + self.batch.message_count)
        self._give_back(producers)
        return True

    def _was_not_sent(self) -> bool:
        """The connection that was lost just now is made anew, by the deadline."""
        assert self.error is not None, "it was not sent"
        if self.error.retryable:
            return False
        self._conclude(self.error)
        return True

    def _was_not_stored(self, error: RocksMQError, link: Link, producers: IdentityPool) -> bool:
        assert self._producer is not None, "it was sent"
        found = verdict(error, self._producer.number, self._was_unanswered)
        self._is_unanswered = found.is_unanswered
        self.error = found.error
        self._refusal = None if isinstance(found.error, OUTCOME_UNKNOWN) else found.error
        link.told(found.error.present_id)
        if found.expected_number is not None:
            self._producer.number = found.expected_number
        if found.next is Next.NEW_ID:
            self._producer.renew(link.present_id)
        elif found.next is Next.REFUSED:
            self._give_back(producers)
        if found.next not in (Next.REFUSED, Next.UNKNOWN):
            return False
        self.give_up()
        return True

    def give_up(self) -> None:
        """The deadline has come: its ``error`` says whether it may have been stored."""
        assert self.error is not None, "it was not stored"
        self._conclude(self.error)

    def _conclude(self, error: RocksMQError) -> None:
        if self._is_unanswered:
            self.error = in_doubt(error)
        elif self._refusal is not None and isinstance(error, OUTCOME_UNKNOWN):
            self.error = self._refusal

    def _give_back(self, producers: IdentityPool) -> None:
        assert self._producer is not None, "it has one"
        producers.give_back(self.channel, self._producer)
        self._producer = None


def deliver(deliveries: Sequence[Delivery], link: Link, producers: IdentityPool, deadline: Deadline) -> None:
    """Send all until each is stored or refused, or the deadline has come: then each has its ``ids`` or its ``error``."""
    left = list(deliveries)
    delay = RETRY_SECONDS
    while left:
        for delivery in left:
            delivery.begin(link, producers, deadline)
        left = [delivery for delivery in left if not delivery.settle(link, producers, deadline)]
        retry_after = max((d.error.retry_after or 0.0 for d in left if d.error is not None), default=0.0)
        if left and not (deadline.is_over or link.is_closed):
            delay = link.pause(delay, deadline, retry_after)
        if deadline.is_over or link.is_closed:
            for delivery in left:
                delivery.give_up()
            return
