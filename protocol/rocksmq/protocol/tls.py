"""TLS between a socket and frames, without I/O: received bytes in, bytes to send out.

OpenSSL works on memory here, so it never has to send something before it can receive, and nobody has to know in which
direction it is stuck. One `TlsStream` is used by one thread at a time.
"""

import ssl
from collections.abc import Iterable
from contextlib import suppress
from typing import cast

from .cbor import Buffer

CIPHERTEXT_BYTES = 64 * 1024  # received at once; four records
RECORD_BYTES = 16 * 1024  # a larger piece is divided by TLS


class TlsStream:
    """One side of one connection. ``server_hostname``: of a client, whose certificate is wanted; None is the server's side."""

    def __init__(self, context: ssl.SSLContext, server_hostname: str | None = None) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self._incoming, self._outgoing, server_side=server_hostname is None, server_hostname=server_hostname
        )
        self._waiting: list[Buffer] = []
        self.is_established = False

    def advance(self) -> bool:
        """Go on with the handshake by what was received; whether it is done. Then and when it has failed, which raises
        ssl.SSLError, there may be something to send: `taken`."""
        if not self.is_established:
            try:
                self._tls.do_handshake()
                self.is_established = True
            except ssl.SSLWantReadError:
                pass
        return self.is_established

    def received(self, data: Buffer) -> None:
        """Bytes came; none: no more will."""
        if len(data):
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    def read_into(self, space: "memoryview[int]") -> int | None:
        """Fill ``space`` with what was received; how much, 0 at the end, None when more must come first.

        An end without the other side's word that it is one is an end as well: frames tell whether one is missing.
        Raises ssl.SSLError for what is no TLS.
        """
        count = 0
        try:
            if not self.advance():
                return None
            while count < len(space):
                got = cast(int, self._tls.read(len(space) - count, cast(bytearray, space[count:])))
                if not got:
                    break
                count += got
        except ssl.SSLWantReadError:
            return count or None
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            pass
        return count

    def sealed(self, buffers: Iterable[Buffer]) -> list[bytes]:
        """The bytes that carry ``buffers``, behind what TLS itself has to say. What is written before the handshake is done
        waits for it. Raises ssl.SSLError."""
        self._waiting += buffers
        if not self.advance():
            return self.taken()
        out = self.taken()
        gathered = bytearray()
        for buffer in self._waiting:
            for begin in range(0, len(buffer), RECORD_BYTES):
                gathered += memoryview(buffer)[begin : begin + RECORD_BYTES]
                if len(gathered) >= RECORD_BYTES:
                    out += self._record(gathered)
                    gathered.clear()
        self._waiting.clear()
        return out + self._record(gathered) if gathered else out

    def _record(self, data: bytearray) -> list[bytes]:
        """Taken at once: OpenSSL's memory keeps the size that it has ever had."""
        self._tls.write(data)
        return self.taken()

    def taken(self) -> list[bytes]:
        """What TLS itself has to say: of the handshake, or why it ends."""
        return [self._outgoing.read()] if self._outgoing.pending else []

    def ended(self) -> list[bytes]:
        """The word that no more is sent."""
        if self.is_established:
            with suppress(ssl.SSLError):
                self._tls.unwrap()
        return self.taken()
