"""The batches of one producer id from queue to answer (contract §4, SPEC §7.3): numbering, window, recovery.

Pure: knows no socket, thread or clock. The driver sends what `to_send` gives, in that order on one
connection, and tells what became of each transmission.

When a transmission fails, nothing more is sent until all on their way are answered. Then the batches with
an unanswered transmission go first, under their old numbers, until the broker has told what
became of each. Only then the others are numbered on from what the broker expects, or under a new
id: so no batch is ever on its way under two numbers, and order holds through any retry. Since numbers have
no holes, nothing is stored under a number above one that was answered as not stored.
"""

import math
from collections import deque
from collections.abc import Callable, Iterator
from typing import NamedTuple

from rocksmq.protocol.batch import RecordBatch
from rocksmq.protocol.errors import RocksMQError
from rocksmq.protocol.identity import Identity

from .recovery import Next, in_doubt, verdict

WINDOW = 16  # batches from the oldest unanswered one on: what the broker remembers of a producer
Sequence = int | bytes


class Parcel:
    """A batch on its way to be stored. ``sequences``: of its first and last message, when the producer has a name."""

    __slots__ = ("batch", "is_sent", "is_unanswered", "number", "sequences")

    def __init__(self, batch: RecordBatch, sequences: list[Sequence] | None = None) -> None:
        self.batch = batch
        self.sequences = sequences
        self.number = -1  # of its latest transmission
        self.is_sent = False  # on its way now
        self.is_unanswered = False  # a transmission of it was never answered


class Failure(NamedTuple):
    """A batch that was given up, and why."""

    parcel: Parcel
    error: RocksMQError


class Outbox:
    """Unsettled batches in order.

    ``has_name``: an unknown outcome is settled by opening the name again; and once a batch is refused, those
    behind it are given up too, since sequences behind a hole would make the hole look stored.
    """

    def __init__(self, new_identity: Callable[[], Identity], *, has_name: bool = False) -> None:
        self.identity = new_identity()
        self.failures: list[Failure] = []
        self._new_identity = new_identity
        self._has_name = has_name
        self._parcels: deque[Parcel] = deque()
        self._sendable: deque[Parcel] = deque()
        self._sent_count = 0
        self._expected = 0  # the number that the broker takes next
        self._not_stored_from = math.inf  # the lowest number that was answered as not stored
        self._is_troubled = False  # something failed: wait for the others on their way
        self._is_settling = False  # only unanswered ones are sent
        self._needs_new_id = False
        self._refusal: RocksMQError | None = None  # of a producer with a name: those behind it go with it

    def __len__(self) -> int:
        return len(self._parcels)

    def __iter__(self) -> Iterator[Parcel]:
        return iter(self._parcels)

    @property
    def is_refusing(self) -> bool:
        """Whether more failures are about to follow the ones that are there."""
        return self._refusal is not None

    @property
    def must_reopen(self) -> bool:
        """Whether nothing goes on before the producer's name was opened again: then call `reopened`."""
        return self._has_name and self._needs_new_id and not self._sent_count

    def add(self, parcel: Parcel) -> None:
        """Queue it."""
        self._parcels.append(parcel)
        if not (self._is_troubled or self._is_settling):
            self._sendable.append(parcel)

    def to_send(self) -> Parcel | None:
        """The next one to send now, with its number; None: wait for answers first, or for more."""
        self._maybe_resume()
        if self.must_reopen or not self._sendable:
            return None
        parcel = self._sendable[0]
        number = parcel.number if parcel.is_unanswered else self._following()
        if number >= self._oldest_number(number) + WINDOW:
            return None
        self._sendable.popleft()
        parcel.number = number
        parcel.is_sent = True
        self._sent_count += 1
        return parcel

    def unsent(self, parcel: Parcel) -> None:
        """What `to_send` gave last could not be sent: the broker has seen nothing of it."""
        assert parcel.is_sent, "it was to be sent"
        parcel.is_sent = False
        self._sent_count -= 1
        self._stop()

    def stored(self, parcel: Parcel) -> None:
        """Its latest transmission was answered: it is durable."""
        self._answered(parcel)
        self._parcels.remove(parcel)
        self._expected = max(self._expected, parcel.number + 1)
        self._maybe_conclude()

    def failed(self, parcel: Parcel, error: RocksMQError) -> None:
        """Its latest transmission ended with ``error``, ConnectionFailed when no answer came."""
        self._answered(parcel)
        found = verdict(error, parcel.number, parcel.is_unanswered)
        parcel.is_unanswered = found.is_unanswered
        if found.expected_number is not None:
            self._expected = found.expected_number
        if found.next in (Next.AGAIN, Next.REFUSED) and not found.is_unanswered:
            self._not_stored_from = min(self._not_stored_from, parcel.number)
        if found.next is Next.NEW_ID:
            self._needs_new_id = True
        elif found.next is Next.UNKNOWN:
            self._needs_new_id = True
            if not self._has_name:
                self._give_up(parcel, found.error)
        elif found.next is Next.REFUSED:
            self._give_up(parcel, found.error)
            self._refusal = found.error if self._has_name else None
        self._stop()
        self._maybe_conclude()

    def give_up_all(self, error: RocksMQError) -> None:
        """Nothing will be sent any more; nothing is on its way."""
        assert not self._sent_count, "all transmissions have ended"
        for parcel in tuple(self._parcels):
            self._give_up(parcel, in_doubt(error) if parcel.is_unanswered else error)
        self._needs_new_id = True
        self._stop()

    def reopened(self, identity: Identity, last_sequence: Sequence | None) -> list[Parcel]:
        """The name is tied to ``identity`` now; the batches that ``last_sequence`` proves stored, which are done."""
        self.identity = identity
        stored = [parcel for parcel in self._parcels if _is_stored(parcel, last_sequence)]
        for parcel in stored:
            self._parcels.remove(parcel)
        self._begin_anew()
        return stored

    # -- recovery ----------------------------------------------------------------

    def _answered(self, parcel: Parcel) -> None:
        assert parcel.is_sent, "it was sent"
        parcel.is_sent = False
        self._sent_count -= 1

    def _stop(self) -> None:
        self._is_troubled = True
        self._sendable.clear()

    def _give_up(self, parcel: Parcel, error: RocksMQError) -> None:
        self._parcels.remove(parcel)
        self.failures.append(Failure(parcel, error))

    def _maybe_conclude(self) -> None:
        """Once all are answered: what that means for others. Of a producer with a name all goes with a refused batch."""
        if self._sent_count:
            return
        for parcel in self._parcels:
            parcel.is_unanswered = parcel.is_unanswered and parcel.number < self._not_stored_from
        self._not_stored_from = math.inf
        if self._refusal is not None:
            for parcel in tuple(self._parcels):
                error = type(self._refusal)(f"a batch before it was refused: {self._refusal.message}")
                self._give_up(parcel, in_doubt(error) if parcel.is_unanswered else error)
            self._refusal = None

    def _maybe_resume(self) -> None:
        if self._sent_count or self.must_reopen or not (self._is_troubled or (self._is_settling and not self._sendable)):
            return
        self._is_troubled = False
        unanswered = [parcel for parcel in self._parcels if parcel.is_unanswered]
        self._is_settling = bool(unanswered)
        if unanswered:
            self._sendable = deque(unanswered)
        elif self._needs_new_id:
            self.identity = self._new_identity()
            self._begin_anew()
        else:
            self._sendable = deque(self._parcels)

    def _begin_anew(self) -> None:
        """Under a new id, which no transmission has used."""
        self._is_troubled = self._is_settling = self._needs_new_id = False
        self._expected = 0
        for parcel in self._parcels:
            parcel.is_unanswered = False
        self._sendable = deque(self._parcels)

    def _following(self) -> int:
        return max([self._expected, *(parcel.number + 1 for parcel in self._parcels if parcel.is_sent)])

    def _oldest_number(self, otherwise: int) -> int:
        return min((parcel.number for parcel in self._parcels if parcel.is_sent), default=otherwise)


def _is_stored(parcel: Parcel, last_sequence: Sequence | None) -> bool:
    if parcel.sequences is None or last_sequence is None:
        return False
    last = parcel.sequences[1]
    assert type(last) is type(last_sequence), "the sequences of a name are of one kind"
    return last <= last_sequence  # type: ignore[operator]  # pyright: ignore[reportOperatorIssue]
