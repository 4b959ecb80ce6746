"""Replies that carry messages: the slices of a reading as one merged batch, without a copy."""

from collections.abc import Iterable

from rocksmq.protocol.batch import LENGTH_BYTES
from rocksmq.protocol.cbor import Buffer, Gathered
from rocksmq.protocol.operations import Messages

from .log import Reading, Slice

PARTS_MAX = 64  # many small pieces are cheaper to copy than to gather


def merged(reading: Reading, generation: int) -> Messages:
    """The reply for ``reading``: its columns are views of the stored batches, one behind the other."""
    columns = [piece.columns for piece in reading.slices]
    header_lengths = headers = None
    if any(column.headers is not None for column in columns):
        header_lengths = _gathered(
            bytes(column.message_count * LENGTH_BYTES) if column.header_lengths is None else column.header_lengths
            for column in columns
        )
        headers = _gathered(column.headers for column in columns if column.headers is not None)
    return Messages(
        reading.next_position,
        generation,
        None,
        _runs(reading.slices),
        reading.message_count,
        _gathered(column.lengths for column in columns),
        _gathered(column.payloads for column in columns),
        header_lengths,
        headers,
    )


def nothing(position: int, generation: int) -> Messages:
    """The reply when nothing came in time."""
    return Messages(position, generation, None, b"", 0, b"", b"", None, None)


def _gathered(parts: Iterable[Buffer]) -> Gathered:
    buffers = tuple(parts)
    if len(buffers) > PARTS_MAX:
        buffers = (b"".join(buffers),)
    return Gathered(buffers, sum(map(len, buffers)))


def _runs(slices: list[Slice]) -> bytes:
    return b"".join(piece.first_id.to_bytes(8, "little") + (piece.stop - piece.start).to_bytes(4, "little") for piece in slices)
