"""What a FETCH_MANY brought: the columns of all channels, and where in them each one's begin and end."""

from struct import Struct
from typing import NamedTuple

from rocksmq.protocol.errors import ProtocolError
from rocksmq.protocol.messages import MessageBatch
from rocksmq.protocol.operations import ManyMessages, Messages

_PART = Struct("<IIIQQ")


class Cut(NamedTuple):
    """One channel's: ``channel`` is its place in the request, ``begin`` up to ``end`` are its messages in the columns.

    ``next_offset``: how many messages were ever appended before ``next_place``.
    """

    channel: int
    begin: int
    end: int
    next_place: int
    next_offset: int
    gap: tuple[int, int, int | None] | None  # removed unread: from this id, up to that, so many (None: not known)


def cut(reply: ManyMessages, asked: int) -> tuple[MessageBatch, list[Cut]]:
    """The columns, and a `Cut` for each channel that has anything, of the ``asked`` ones.

    Nothing is done for single messages. Raises ProtocolError when they do not add up.
    """
    columns = reply.lengths, reply.payloads, reply.header_lengths, reply.headers
    whole = MessageBatch(Messages(0, None, 0, None, reply.runs, reply.message_count, *columns))
    if len(reply.parts) % _PART.size:
        raise ProtocolError("the parts of a reply are cut off")
    parts: list[tuple[int, int, int, int, int]] = list(_PART.iter_unpack(reply.parts))
    if sum(count for _, _, count, *_ in parts) != len(whole) or any(index >= asked for index, *_ in parts):
        raise ProtocolError("the parts of a reply do not add up to its messages, or are of channels that were not asked for")
    gaps = {index: (begin, end, count) for index, begin, end, count in reply.gaps}
    cuts: list[Cut] = []
    begin = 0
    for index, _, count, next_place, next_offset in parts:
        cuts.append(Cut(index, begin, begin + count, next_place, next_offset, gaps.get(index)))
        begin += count
    return whole, cuts
