"""Replies that carry messages: the slices of readings as one merged batch, without a copy."""

from collections.abc import Iterable, Sequence
from struct import Struct
from typing import NamedTuple

from rocksmq.protocol.batch import LENGTH_BYTES
from rocksmq.protocol.cbor import Buffer, Gathered
from rocksmq.protocol.operations import ManyMessages, Messages

from .log import Reading, Slice

BUFFERS_MAX = 64  # many small pieces are cheaper to copy than to gather
_PART = Struct("<IIIQ")  # index, runs, messages, where to go on
_RUN = Struct("<QI")  # first id, count
PART_BYTES = _PART.size
MESSAGE_BYTES = _RUN.size + 2 * LENGTH_BYTES  # beside payload and headers, at most: a run of its own, and both lengths


class Part(NamedTuple):
    """What a reply has of one channel, by its index in the request."""

    channel_index: int
    reading: Reading


def merged(reading: Reading, generation: int) -> Messages:
    """The reply for ``reading``: its columns are views of the stored batches, one behind the other."""
    return Messages(reading.next_position, generation, None, *_columns(reading.slices))


def merged_many(parts: Sequence[Part]) -> ManyMessages:
    """The reply for the readings of several channels."""
    heads = b"".join(
        _PART.pack(channel_index, len(reading.slices), reading.message_count, reading.next_position)
        for channel_index, reading in parts
    )
    return ManyMessages(heads, [], *_columns([piece for part in parts for piece in part.reading.slices]))


def nothing(position: int, generation: int) -> Messages:
    """The reply when nothing came in time."""
    return Messages(position, generation, None, b"", 0, b"", b"", None, None)


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
