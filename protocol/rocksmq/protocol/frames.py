"""Frames on a byte stream (SPEC §2): a u32 big-endian length, then that many bytes.

        0       4                    4 + length
        +-------+----------------------+
        | length| body: one CBOR array |
        +-------+----------------------+

The decoder owns the receive buffer. Invariant: ``begin <= end <= len(buffer)``, and
``buffer[begin:end]`` is what was received and not yet handed out. The buffer grows
with the bytes received, never with the length declared, nor beyond the frame that needs it.
"""

from struct import Struct

from .errors import ProtocolError

_U32 = Struct(">I")
LENGTH_BYTES = 4
BUFFER_BYTES_MIN = 4_096
READ_BYTES_MAX = 1 << 20  # one read takes at most this much of small frames, so that connections take turns


class FrameDecoder:
    """Cuts a byte stream into frame bodies.

    ``frame_bytes_max`` bounds a body and may be raised once the other side is known; ``limit_name`` is what errors call it.
    A body handed out is a view that stays valid until the next call of `space`.
    """

    def __init__(self, frame_bytes_max: int, limit_name: str = "frame_bytes_max") -> None:
        self.frame_bytes_max = frame_bytes_max
        self.limit_name = limit_name
        self._buffer = bytearray(BUFFER_BYTES_MIN)
        self._begin = 0
        self._end = 0

    @property
    def pending_bytes(self) -> int:
        """Bytes of a frame that has begun and is not complete."""
        return self._end - self._begin

    @property
    def buffer_bytes(self) -> int:
        """The size of the receive buffer."""
        return len(self._buffer)

    def space(self) -> "memoryview[int]":
        """Room to receive into, at least a quarter of the buffer or the rest of a frame. Ends the life of bodies handed out.

        To be called when `next_frame` had none: of a whole frame that was left, there may be no rest.
        """
        pending = self.pending_bytes
        if not pending:
            self._begin = self._end = 0
        elif self._end * 4 > len(self._buffer) * 3:
            size = self._size_wanted(pending)
            if self._begin or size > len(self._buffer):
                # A new buffer, not a resized one: somebody may still hold a view of the old one.
                buffer = bytearray(size)
                buffer[:pending] = memoryview(self._buffer)[self._begin : self._end]
                self._buffer, self._begin, self._end = buffer, 0, pending
        return memoryview(self._buffer)[self._end :]

    def _size_wanted(self, pending: int) -> int:
        """Of a buffer that is nearly full: twice as large when most of it is one frame, but not larger than that frame."""
        size = len(self._buffer)
        if pending * 2 <= size:
            return size
        length: int = _U32.unpack_from(self._buffer, self._begin)[0]
        return max(size, min(2 * size, LENGTH_BYTES + length))

    def received(self, count: int) -> None:
        """Take note of ``count`` bytes written to the front of `space`."""
        self._end += count
        # Filled to the brim: more is probably waiting, so the next read takes more at once.
        if self._end == len(self._buffer) and len(self._buffer) < min(READ_BYTES_MAX, self.frame_bytes_max):
            self._buffer = self._buffer + bytearray(len(self._buffer))

    @property
    def has_frame(self) -> bool:
        """Whether `next_frame` has something to say: a body, or an error."""
        length = self._next_length()
        return length is not None and (length > self.frame_bytes_max or self.pending_bytes >= LENGTH_BYTES + length)

    def next_frame(self) -> "memoryview[int] | None":
        """The next complete body, or None for "not yet". Raises ProtocolError for one that is too long."""
        length = self._next_length()
        if length is None:
            return None
        if length > self.frame_bytes_max:
            raise ProtocolError(f"a frame of {length} bytes exceeds the limit of {self.frame_bytes_max} ({self.limit_name})")
        begin = self._begin + LENGTH_BYTES
        if begin + length > self._end:
            return None
        self._begin = begin + length
        return memoryview(self._buffer)[begin : self._begin]

    def _next_length(self) -> int | None:
        """Of the frame that is next, if that much of it is there."""
        if self.pending_bytes < LENGTH_BYTES:
            return None
        length: int = _U32.unpack_from(self._buffer, self._begin)[0]
        return length

    def shrink(self) -> None:
        """Give memory back that is not needed for what is pending. Ends the life of what `space` gave."""
        pending = self.pending_bytes
        if len(self._buffer) > (size := max(BUFFER_BYTES_MIN, 2 * pending)):
            buffer = bytearray(size)
            buffer[:pending] = memoryview(self._buffer)[self._begin : self._end]
            self._buffer, self._begin, self._end = buffer, 0, pending
