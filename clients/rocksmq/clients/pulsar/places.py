"""Places in a topic of Pulsar: the message to read next, as a tuple in order, as text, and as a number."""

import base64
import re
from typing import Any, NamedTuple

from rocksmq.protocol.errors import InvalidRequest

from .client import pulsar

_NATIVE: Any = pulsar._pulsar
_ENTRY_BITS, _OFFSET_BITS = 40, 24
_NUMBER = re.compile("[0-9]{1,40}")
_TEXT = re.compile("[A-Za-z0-9_-]{4,100}={0,2}")
_BITS = 63


class Place(NamedTuple):
    """Message ``offset`` of the batch that is ``entry`` of ``ledger``; offset -1: whatever that entry begins with.

    As text: Pulsar's own serialized message id, in base64.
    """

    ledger: int
    entry: int
    offset: int = -1

    def __str__(self) -> str:
        serialized: bytes = self.message_id.serialize()
        return base64.urlsafe_b64encode(serialized).decode()

    @property
    def message_id(self) -> Any:
        """Pulsar's."""
        return _NATIVE.MessageId(-1, *self)

    @property
    def behind(self) -> "Place":
        """Where one reads on when this one was read."""
        return self._replace(entry=self.entry + 1) if self.offset < 0 else self._replace(offset=self.offset + 1)

    @property
    def before(self) -> "Place":
        """From where to read to see whether what comes before this one is still there; itself where that is not known."""
        return self if self.offset < 1 else self._replace(offset=self.offset - 1)

    @property
    def previous_entry(self) -> "Place":
        """Of an entry that is not the first of its ledger."""
        return Place(self.ledger, self.entry - 1)

    @property
    def number(self) -> int:
        """As one; those of a batch follow each other."""
        return (self.ledger << _ENTRY_BITS | self.entry) << _OFFSET_BITS | (self.offset + 1)


LATEST = Place((1 << _BITS) - 1, (1 << _BITS) - 1)  # as Pulsar's own: behind all that is stored when a reader is opened there


def place_of(message_id: Any) -> Place | None:
    """None: the beginning, or that there is no message."""
    ledger, entry = message_id.ledger_id(), message_id.entry_id()
    return Place(ledger, entry, message_id.batch_index()) if ledger >= 0 and entry >= 0 else None


def decoded(text: str) -> Place | None:
    """The place with this text, or with this number; None, the beginning, for an empty one. Raises InvalidRequest."""
    if text == "":
        return None
    refusal = InvalidRequest(f"{text!r:.50} is no message id of Pulsar: was the position stored by another transport?")
    if not isinstance(text, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise refusal
    if _NUMBER.fullmatch(text):
        number = int(text)
        entry = number >> _OFFSET_BITS
        place = Place(entry >> _ENTRY_BITS, entry & (1 << _ENTRY_BITS) - 1, (number & (1 << _OFFSET_BITS) - 1) - 1)
        if place.ledger >> _BITS:
            raise refusal
        return place
    if not _TEXT.fullmatch(text):
        raise refusal
    try:
        return place_of(_NATIVE.MessageId.deserialize(base64.urlsafe_b64decode(text)))
    except Exception:
        raise refusal from None
