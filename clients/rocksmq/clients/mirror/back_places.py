"""Where a message stands in a topic, as the sequence of a named producer; and what of a topic is stored. Pure.

A sequence is 20 bytes that rise with the topic's order: ledger u64, entry u64, index in the batch + 1 as u32, big-endian;
0 is the index of a message that came in no batch.
"""

import struct
from collections import deque
from typing import NamedTuple, Self

from rocksmq.protocol.errors import InvalidRequest

_SEQUENCE = struct.Struct(">QQI")
UNBATCHED = -1


class Place(NamedTuple):
    """Of a message, in the topic's order."""

    ledger: int
    entry: int
    batch_index: int  # UNBATCHED if it came in none

    @property
    def sequence(self) -> bytes:
        return _SEQUENCE.pack(self.ledger, self.entry, self.batch_index + 1)

    @classmethod
    def of_sequence(cls, sequence: int | bytes) -> Self:
        """Raises InvalidRequest for what `sequence` has not made."""
        if not isinstance(sequence, bytes) or len(sequence) != _SEQUENCE.size:
            raise InvalidRequest(f"sequence {sequence!r} is no place in a topic: something else has used the mirror's name")
        ledger, entry, following = _SEQUENCE.unpack(sequence)
        return cls(ledger, entry, following - 1)

    def __str__(self) -> str:
        """As Pulsar's tools write it."""
        entry = f"{self.ledger}:{self.entry}"
        return entry if self.batch_index == UNBATCHED else f"{entry}:{self.batch_index}"

    @property
    def after(self) -> "Place":
        """Where to read on: it need not exist."""
        if self.batch_index == UNBATCHED:
            return Place(self.ledger, self.entry + 1, UNBATCHED)
        return Place(self.ledger, self.entry, self.batch_index + 1)


class _Read(NamedTuple):
    place: Place
    sequence: bytes
    payload_bytes: int
    ends_entry: bool
    is_skipped: bool


class Unstored:
    """What was read and is not known to be stored, in order; counts what is.

    An entry is done, so that Pulsar may let go of it, once a later one is stored as a whole: the last one stays there, as
    what tells that nothing behind it was removed.
    """

    def __init__(self) -> None:
        self.messages = 0
        self.bytes = 0  # of their payloads
        self._read: deque[_Read] = deque()
        self._kept: Place | None = None
        self._done: Place | None = None

    def __len__(self) -> int:
        return len(self._read)

    def forget(self, last: Place | None = None) -> None:
        """It will be read again, from behind the last one that is stored."""
        self._read.clear()
        self._kept, self._done = last, None

    def add(self, place: Place, payload_bytes: int, *, ends_entry: bool, is_skipped: bool = False) -> None:
        """The next message; ``is_skipped``: it will never be stored."""
        self._read.append(_Read(place, place.sequence, payload_bytes, ends_entry, is_skipped))

    def stored(self, last_sequence: bytes | None) -> None:
        """All up to that sequence is."""
        while self._read:
            first = self._read[0]
            if not first.is_skipped and (last_sequence is None or first.sequence > last_sequence):
                return
            self._read.popleft()
            if not first.is_skipped:
                self.messages += 1
                self.bytes += first.payload_bytes
            if first.ends_entry:
                if self._kept is not None and self._kept[:2] < first.place[:2]:
                    self._done = self._kept
                self._kept = first.place

    def take_done(self) -> Place | None:
        """The last of the entries that are done, if that is further than when this was asked last."""
        done, self._done = self._done, None
        return done
