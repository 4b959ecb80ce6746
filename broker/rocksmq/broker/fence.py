"""Who may write to a store elsewhere, and what became of a transaction that nobody answered (design §6).

Pure: no clock, no I/O. All transactions compare and set one value, (epoch, number). A start takes over with a higher
epoch, which fences every writer before it. Within an epoch each number is used for one transaction only, so the
value that is found names the transaction that was applied.

A transaction without an answer may be applied still, at any later time. So before anything else a *barrier* is
sent, a transaction that compares the same value and only sets a fresh number. Whatever it meets decides: when it is
applied, the other never can be; when it is not, the value found names the one that was.
"""

from typing import NamedTuple, Self


class CommitValue(NamedTuple):
    """The value that all transactions compare."""

    epoch: int
    number: int

    def __str__(self) -> str:
        return f"{self.epoch} {self.number}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises ValueError."""
        epoch, number = text.split(" ")
        return cls(int(epoch), int(number))


class Attempt(NamedTuple):
    """One transaction as it is sent: applied only where ``expected`` is found (None: nothing), which becomes ``value``."""

    expected: CommitValue | None
    value: CommitValue


class Met(NamedTuple):
    """The answer to an attempt: whether it was applied, and if not, the value that it found (None: none that is one)."""

    is_applied: bool
    found: CommitValue | None


class Fenced(Exception):
    """Somebody else has set the value; nothing of this writer is applied any more."""

    def __init__(self, found: CommitValue | None) -> None:
        super().__init__(f"the commit value is {found}, which this writer never set")
        self.found = found


class Reverted(Exception):
    """The store went back to an earlier value of this writer: it has lost what it had acknowledged."""

    def __init__(self, found: CommitValue) -> None:
        super().__init__(f"the commit value is {found}, which was replaced long ago")
        self.found = found


class Fence:
    """The transactions of one writer, one at a time."""

    def __init__(self, known: CommitValue) -> None:
        """``known``: the value that its takeover has set."""
        self.known = known
        self._first = self._number = known.number
        self._transaction: CommitValue | None = None  # set by the one that was sent and not answered
        self._barriers: set[CommitValue] = set()

    @property
    def is_in_doubt(self) -> bool:
        """Whether a transaction was sent whose outcome is not known."""
        return self._transaction is not None

    def begin(self) -> Attempt:
        """The next transaction to send; while in doubt, a barrier."""
        self._number += 1
        value = CommitValue(self.known.epoch, self._number)
        if self._transaction is None:
            self._transaction = value
        else:
            self._barriers.add(value)
        return Attempt(self.known, value)

    def answered(self, attempt: Attempt, met: Met) -> bool:
        """Whether the transaction in doubt was applied, by the answer to it or to a barrier. Raises Fenced, Reverted."""
        value = attempt.value if met.is_applied else met.found
        if value is None or (value != self._transaction and value not in self._barriers):
            raise self._stranger(value)
        was_applied = value == self._transaction
        self.known = value
        self._transaction = None
        self._barriers.clear()
        return was_applied

    def check(self, found: CommitValue | None) -> None:
        """``found`` is the value now, and nothing is in doubt. Raises Fenced, Reverted."""
        if found != self.known:
            raise self._stranger(found)

    def resume(self, found: CommitValue) -> None:
        """Go on from an earlier value. What was in doubt was not applied, for its compare can never hold again."""
        self.known = found
        self._transaction = None
        self._barriers.clear()

    def _stranger(self, found: CommitValue | None) -> Fenced | Reverted:
        if found is not None and found.epoch == self.known.epoch and self._first <= found.number <= self._number:
            return Reverted(found)
        return Fenced(found)
