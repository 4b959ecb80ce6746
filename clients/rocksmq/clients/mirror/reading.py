"""Reading many channels in one long poll, without blocking for long: `Poll` is one request and, later, its parts."""

from collections.abc import Sequence
from struct import Struct
from typing import Generic, NamedTuple, TypeVar

from rocksmq.protocol.columns import pack_numbers
from rocksmq.protocol.errors import ProtocolError
from rocksmq.protocol.messages import MessageBatch
from rocksmq.protocol.operations import FetchMany, ManyMessages, Messages

from ..deadline import Deadline
from ..link import Link

Reader = TypeVar("Reader")
_PART = Struct("<IIIQ")
CHANNELS_MAX = 1_000


class Part(NamedTuple, Generic[Reader]):
    """What one channel gave. ``gap_messages``: what retention removed before it, None: not known how many."""

    reader: Reader
    place: int  # from which on
    ids: Sequence[int]
    payloads: Sequence[bytes]
    headers: Sequence[bytes] | None
    next_place: int
    has_gap: bool
    gap_messages: int | None


class Wanted(NamedTuple, Generic[Reader]):
    """Read this channel from this id on."""

    reader: Reader
    number: int
    place: int


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
    columns = reply.lengths, reply.payloads, reply.header_lengths, reply.headers
    whole = MessageBatch(Messages(0, 0, None, reply.runs, reply.message_count, *columns))
    headers = whole.encoded_headers
    if len(reply.parts) % _PART.size:
        raise ProtocolError("the parts of a reply are cut off")
    parts: list[tuple[int, int, int, int]] = list(_PART.iter_unpack(reply.parts))
    if sum(count for _, _, count, _ in parts) != len(whole) or any(index >= len(wanted) for index, *_ in parts):
        raise ProtocolError("the parts of a reply do not add up to its messages, or are of channels that were not asked for")
    gaps = {index: gap for index, *gap in reply.gaps}
    found: list[Part[Reader]] = []
    begin = 0
    for index, _, count, next_place in parts:
        end = begin + count
        cut = None if headers is None else headers[begin:end]
        if cut is not None and not any(cut):
            cut = None
        gap = gaps.get(index)
        ids, payloads = whole.ids[begin:end], whole.payloads[begin:end]
        asked = wanted[index]
        found.append(Part(asked.reader, asked.place, ids, payloads, cut, next_place, gap is not None, gap[2] if gap else 0))
        begin = end
    return found
