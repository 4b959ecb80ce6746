"""What a `Producer` and the thread that sends for it share: the unsettled batches, under one lock."""

import threading
from collections import deque
from collections.abc import Sequence as Items
from typing import NamedTuple, TypeAlias, cast

from rocksmq.protocol.errors import OUTCOME_UNKNOWN, RocksMQError
from rocksmq.protocol.messages import Encoded, OutgoingMessage, outgoing_of

Sequence: TypeAlias = int | bytes


class Batch:
    """Messages that go together. Appended to while it is the last of the window, then never again."""

    __slots__ = ("due", "is_settled", "is_taken", "items", "size")

    def __init__(self) -> None:
        self.items: list[Encoded | Sequenced] = []
        self.size = 0
        self.due = 0.0  # when it leaves, on time.monotonic
        self.is_taken = False  # the thread has it
        self.is_settled = False

    @property
    def messages(self) -> list[Encoded]:
        """Without their sequences."""
        if self.items and isinstance(self.items[0], Sequenced):
            return [item[:2] for item in cast(list[Sequenced], self.items)]
        return cast(list[Encoded], self.items)

    @property
    def sequences(self) -> list[Sequence] | None:
        """The first and the last message's, of a producer with a name."""
        first, last = self.items[0], self.items[-1]
        return [first[2], last[2]] if isinstance(first, Sequenced) and isinstance(last, Sequenced) else None


class Sequenced(NamedTuple):
    """A message of a producer with a name, in one piece, so that no interrupt tears it."""

    payload: bytes
    headers: bytes
    sequence: Sequence


class Failure(NamedTuple):
    """A batch that was given up, and why."""

    batch: Batch
    error: RocksMQError


class Window:
    """Everything here is read and written under ``lock``."""

    def __init__(self) -> None:
        self.lock = threading.RLock()  # reentrant, for a signal handler that closes the producer
        self.settled = threading.Condition(self.lock)  # notified for callers
        self.batches: deque[Batch] = deque([Batch()])  # unsettled ones in order; the last is open
        self.failures: list[Failure] = []  # not told yet
        self.acked = 0
        self.last_id: int | None = None
        self.trouble = ""  # why nothing is stored at the moment, for errors to tell
        self.last_sequence: Sequence | None = None
        self.is_closing = False  # nothing more is taken
        self.is_closed = False  # nothing more is sent
        self.must_attend = False  # the next send has more to do than to append

    def close(self) -> None:
        """Wake whoever waits: it is over. Takes the lock itself."""
        with self.lock:
            self.is_closing = self.is_closed = self.must_attend = True
            self.settled.notify_all()

    @property
    def open(self) -> Batch:
        return self.batches[-1]

    def seal(self) -> None:
        """Begin a new open batch; the thread takes the former. One step, so that no interrupt tears it."""
        self.batches.append(Batch())

    def settle(self, batch: Batch) -> None:
        """The batch is stored or given up."""
        batch.is_settled = True
        if batch is self.open:
            self.seal()
        self.batches.remove(batch)
        self.settled.notify_all()

    def give_up(self, batch: Batch, error: RocksMQError) -> None:
        """Keep it for the caller to be told."""
        self.failures.append(Failure(batch, error))
        self.must_attend = True
        self.settle(batch)

    def raise_failure(self) -> None:
        """Tell the first failure, and all of its kind."""
        if not self.failures:
            return
        kind = type(self.failures[0].error)
        told = [failure for failure in self.failures if type(failure.error) is kind]
        self.failures = [failure for failure in self.failures if type(failure.error) is not kind]
        raise not_stored(told[0].error, [failure.batch for failure in told])

    @property
    def queued_sequence(self) -> Sequence | None:
        """Of the last message that is not settled yet."""
        last = next((batch.items[-1] for batch in reversed(self.batches) if batch.items), None)
        return last.sequence if isinstance(last, Sequenced) else None

    @property
    def unflushed(self) -> int:
        return sum(len(batch.items) for batch in self.batches)


def not_stored(error: RocksMQError, batches: Items[Batch]) -> RocksMQError:
    """``error`` anew, naming the messages of ``batches``."""
    messages: list[OutgoingMessage] = [outgoing_of(message) for batch in batches for message in batch.messages]
    count = "1 message is" if len(messages) == 1 else f"{len(messages)} messages are"
    what = "of unknown outcome" if isinstance(error, OUTCOME_UNKNOWN) else "not stored"
    named = type(error)(f"{count} {what}: {error.message}", retry_after=error.retry_after)
    named.not_stored = tuple(messages)
    return named
