"""Feeding a frame decoder as a socket would: whole, byte by byte, with the next frame behind.

Bodies are copied when they come out, because the decoder may reuse its buffer at the next `space`.
"""

from rocksmq.protocol.cbor import decode
from rocksmq.protocol.codec import encode_request
from rocksmq.protocol.frames import FrameDecoder
from rocksmq.protocol.operations import PING, Empty

NEXT_FRAME = b"".join(encode_request(PING, 1, Empty()))


def fed(decoder: FrameDecoder, data: bytes, piece_bytes_max: int | None = None) -> list[bytes]:
    """All bodies that ``decoder`` cuts from ``data``, given in pieces of at most so many bytes (None: as it has room)."""
    bodies: list[bytes] = []
    while data:
        space = decoder.space()
        count = min(len(data), len(space), piece_bytes_max or len(data))
        space[:count] = data[:count]
        decoder.received(count)
        data = data[count:]
        while (body := decoder.next_frame()) is not None:
            bodies.append(bytes(body))
    return bodies


def fed_three_ways(frame: bytes) -> list[object]:
    """The one array in ``frame``, after it came out the same whole, byte by byte, and with another frame behind it."""
    limit = len(frame)
    whole = fed(FrameDecoder(limit), frame)
    assert fed(FrameDecoder(limit), frame, 1) == whole
    followed = fed(FrameDecoder(max(limit, len(NEXT_FRAME))), frame + NEXT_FRAME)
    assert followed[:-1] == whole
    assert followed[-1] == NEXT_FRAME[4:]
    [body] = whole
    return decode(memoryview(body))
