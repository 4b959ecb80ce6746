"""Replies that carry messages: the slices of readings as one merged batch, without a copy."""

from collections.abc import Iterable, Sequence
from struct import Struct
from typing import NamedTuple, TypeAlias

from rocksmq.protocol.batch import LENGTH_BYTES
from rocksmq.protocol.cbor import Buffer, Gathered
from rocksmq.protocol.operations import ManyMessages, Messages

from .log import Reading, Slice
from .records import Extent

BUFFERS_MAX = 64  # many small pieces are cheaper to copy than to gather
_PART = Struct("<IIIQQ")  # index, runs, messages, where to go on, how many were ever appended before that
_RUN = Struct("<QI")  # first id, count
PART_BYTES = _PART.size
MESSAGE_BYTES = _RUN.size + 2 * LENGTH_BYTES  # beside payload and headers, at most: a run of its own, and both lengths


class Part(NamedTuple):
    """What a reply has of one channel, by its index in the request: messages, or no more than where to go on behind a gap."""

    channel_index: int
    slices: list[Slice]
    message_count: int
    next_position: int
    next_offset: int


Gap: TypeAlias = list[int | None]  # from id, to id, how many messages between them were removed unread; None: not known
IndexedGap: TypeAlias = list[int | None]  # the same behind the channel's index in the request


def merged(reading: Reading, generation: int, gap: Gap | None = None) -> Messages:
    """The reply for ``reading``: its columns are views of the stored batches, one behind the other."""
    return Messages(reading.next_position, reading.next_offset, generation, gap, *_columns(reading.slices))


def merged_many(parts: Sequence[Part], gaps: list[IndexedGap]) -> ManyMessages:
    """The reply for the readings of several channels."""
    heads = b"".join(
        _PART.pack(part.channel_index, len(part.slices), part.message_count, part.next_position, part.next_offset)
        for part in parts
    )
    return ManyMessages(heads, gaps, *_columns([piece for part in parts for piece in part.slices]))


def nothing(position: int, generation: int, next_offset: int | None = None, gap: Gap | None = None) -> Messages:
    """The reply when nothing came in time, or there is nothing behind a gap."""
    return Messages(position, next_offset, generation, gap, b"", 0, b"", b"", None, None)


def gap_before(position: int, channel_number: int, extent: Extent) -> Gap | None:
    """What retention removed from ``position`` on, which is anywhere: so their count is known only if it is all of them.

    0 is no place that was left, but wherever the channel begins.
    """
    if position == 0 or position >= extent.removed_end:
        return None
    return [position, extent.begin_id, extent.begin_offset if position <= channel_number else None]


class _Columns(NamedTuple):
    """The last fields of a reply with messages, in the order that they travel in."""

    runs: bytes
    message_count: int
    lengths: Gathered
    payloads: Gathered
    header_lengths: Gathered | None
    headers: Gathered | None


def _columns(slices: Sequence[Slice]) -> _Columns:
    columns = [piece.columns for piece in slices]
    header_lengths = headers = None
    if any(column.headers is not None for column in columns):
        header_lengths = _gathered(
            bytes(column.message_count * LENGTH_BYTES) if column.header_lengths is None else column.header_lengths
            for column in columns
        )
        headers = _gathered(column.headers for column in columns if column.headers is not None)
    return _Columns(
        b"".join(_RUN.pack(piece.first_id, piece.stop - piece.start) for piece in slices),
        sum(piece.stop - piece.start for piece in slices),
        _gathered(column.lengths for column in columns),
        _gathered(column.payloads for column in columns),
        header_lengths,
        headers,
    )


def _gathered(parts: Iterable[Buffer]) -> Gathered:
    buffers = tuple(parts)
    if len(buffers) > BUFFERS_MAX:
        buffers = (b"".join(buffers),)
    return Gathered(buffers, sum(map(len, buffers)))
