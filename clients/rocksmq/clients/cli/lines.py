"""Lines of a stream as payloads: cut at each newline, byte for byte, whatever the chunks are.

Pure: knows neither files nor the broker. Memory is bounded by a chunk and the longest line.
"""

from rocksmq.protocol.errors import MessageTooLarge


class LineCutter:
    """Takes chunks, gives the lines that ended in them, without their newlines; nothing else is changed."""

    def __init__(self, line_bytes_max: int) -> None:
        self._line_bytes_max = line_bytes_max
        self._begun: list[bytes] = []
        self._begun_bytes = 0

    def cut(self, chunk: bytes) -> list[bytes]:
        """The lines that end in ``chunk``. Raises MessageTooLarge when the line that goes on is longer than any may be."""
        *ended, begun = chunk.split(b"\n")
        if ended:
            ended[0] = b"".join([*self._begun, ended[0]])
            self._begun.clear()
            self._begun_bytes = 0
        if begun:
            self._begun.append(begun)
            self._begun_bytes += len(begun)
        if self._begun_bytes > self._line_bytes_max:
            raise MessageTooLarge(f"a line is longer than the limit of {self._line_bytes_max} bytes (payload_bytes_max)")
        return ended

    def rest(self) -> list[bytes]:
        """The last line, if it did not end in a newline."""
        return [b"".join(self._begun)] if self._begun else []
