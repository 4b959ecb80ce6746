"""Reading many channels in one long poll, without blocking for long: `Poll` is one request and, later, its parts."""

from collections.abc import Sequence
from typing import Generic, NamedTuple, TypeVar

from rocksmq.protocol.columns import pack_numbers
from rocksmq.protocol.operations import FetchMany, ManyMessages

from ..deadline import Deadline
from ..link import Link
from ..many import cut

Reader = TypeVar("Reader")
CHANNELS_MAX = 1_000


class Part(NamedTuple, Generic[Reader]):
    """What one channel gave. ``gap_messages``: what retention removed before it, None: not known how many.

    ``next_offset``: how many messages were ever appended before ``next_place``.
    """

    reader: Reader
    place: int  # from which on
    ids: Sequence[int]
    payloads: Sequence[bytes]
    headers: Sequence[bytes] | None
    next_place: int
    next_offset: int
    has_gap: bool
    gap_messages: int | None


class Wanted(NamedTuple, Generic[Reader]):
    """Read this channel from this id on; before it ``offset`` messages were ever appended, None: not known."""

    reader: Reader
    number: int
    place: int
    offset: int | None = None


class Poll(Generic[Reader]):
    """One FETCH_MANY on its way."""

    def __init__(
        self, link: Link, wanted: Sequence[Wanted[Reader]], max_messages: int, max_bytes: int, wait: float, timeout: float
    ) -> None:
        """Sends it. Raises ConnectionFailed, Timeout."""
        self._wanted = wanted
        starts = pack_numbers(number for one in wanted for number in (one.number, one.place))
        self._sent = link.begin(FetchMany(starts, max_messages, max_bytes, round(wait * 1000)), Deadline(timeout))

    def parts(self, patience: float) -> list[Part[Reader]] | None:
        """The parts, None if there is no answer within ``patience`` seconds. Raises what the broker answered."""
        if not self._sent.connection.is_answered(self._sent.call, Deadline(patience)):
            return None
        return _parts(self._sent.call.result(), self._wanted)


def _parts(reply: ManyMessages, wanted: Sequence[Wanted[Reader]]) -> list[Part[Reader]]:
    """Raises ProtocolError when they do not add up."""
    whole, cuts = cut(reply, len(wanted))
    headers = whole.encoded_headers
    found: list[Part[Reader]] = []
    for index, begin, end, next_place, next_offset, gap in cuts:
        own = None if headers is None else headers[begin:end]
        if own is not None and not any(own):
            own = None
        ids, payloads = whole.ids[begin:end], whole.payloads[begin:end]
        asked = wanted[index]
        removed = gap[2] if gap is not None else 0
        if asked.offset is not None:
            removed = next_offset - len(ids) - asked.offset
        has_gap = removed is None or removed > 0
        found.append(Part(asked.reader, asked.place, ids, payloads, own, next_place, next_offset, has_gap, removed))
    return found
