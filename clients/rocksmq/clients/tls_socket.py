"""A connected socket that speaks TLS, with the few methods of a plain one that a connection uses; it never blocks either.

One thread may receive while another sends: OpenSSL's state, which both change, is behind a lock.
"""

import re
import select
import socket
import ssl
import threading
from collections.abc import Sequence

from rocksmq.protocol.cbor import Buffer
from rocksmq.protocol.errors import ConnectionFailed, ProtocolError, RocksMQError, Timeout
from rocksmq.protocol.tls import CIPHERTEXT_BYTES, TlsStream

from .address import Address
from .deadline import Deadline

_ON_CERTIFICATES = re.compile(r".*ALERT.*(CERTIFICATE|UNKNOWN_CA).*")  # OpenSSL's words for what the other side says of ours


class CertificateRefused(ConnectionFailed):
    """One side does not accept the other's certificate; it would be the same again."""

    retryable = False


class TlsSocket:
    """Made of a non-blocking ``sock``; the handshake is done."""

    def __init__(self, sock: socket.socket, address: Address, context: ssl.SSLContext, deadline: Deadline) -> None:
        """Raises ConnectionFailed, ProtocolError, Timeout; ``sock`` is the caller's to close then."""
        self._sock = sock
        self._address = address
        self._tls = TlsStream(context, address.host)
        self._lock = threading.RLock()  # reentrant, for a signal handler
        self._unsent = b""
        self._sealed_bytes = 0  # of what the caller sent, in what is unsent
        self.fileno, self.shutdown, self.close, self.detach = sock.fileno, sock.shutdown, sock.close, sock.detach
        self._shake_hands(deadline)

    def _shake_hands(self, deadline: Deadline) -> None:
        ready = select.poll()
        ready.register(self._sock, select.POLLIN)
        try:
            while not self._tls.advance():
                self._send_handshake()
                if not ready.poll(1_000 * deadline.remaining) and deadline.is_over:
                    raise Timeout(f"the broker at {self._address} did not finish the handshake of TLS in time")
                if not (data := self._received()):
                    raise ConnectionFailed(f"the broker at {self._address} closed the connection in the handshake of TLS")
                self._tls.received(data)
            self._send_handshake()
        except ssl.SSLError as error:
            self._send_handshake()
            raise self._refusal(error) from error

    def _send_handshake(self) -> None:
        """A few kilobytes at most, which an empty socket buffer takes."""
        for data in self._tls.taken():
            self._sock.send(data)

    def _received(self) -> bytes:
        try:
            return self._sock.recv(CIPHERTEXT_BYTES)
        except ConnectionResetError:
            return b""

    def recv_into(self, space: "memoryview[int]") -> int:
        """As of a socket; when it fills ``space``, more may be there that poll does not show. Raises RocksMQError too."""
        with self._lock:
            try:
                count = self._tls.read_into(space)
                if count is None:
                    self._tls.received(self._sock.recv(CIPHERTEXT_BYTES))
                    count = self._tls.read_into(space)
            except ssl.SSLError as error:
                raise self._refusal(error) from error
        if count is None:
            raise BlockingIOError
        return count

    def sendmsg(self, buffers: Sequence[Buffer]) -> int:
        """As of a socket, but whole or not at all: after BlockingIOError the same ``buffers`` must be sent again."""
        with self._lock:
            if not self._unsent:
                try:
                    self._unsent = b"".join(self._tls.sealed(buffers))
                except ssl.SSLError as error:
                    raise self._refusal(error) from error
                self._sealed_bytes = sum(map(len, buffers))
            while self._unsent:
                self._unsent = self._unsent[self._sock.send(self._unsent) :]
            return self._sealed_bytes

    def _refusal(self, error: ssl.SSLError) -> RocksMQError:
        if isinstance(error, ssl.SSLCertVerificationError):
            return CertificateRefused(
                f"the certificate of the broker at {self._address} is not trusted ({error.verify_message}):"
                " ROCKSMQ_CA names the file of who signed it"
            )
        if _ON_CERTIFICATES.fullmatch(error.reason or ""):
            return CertificateRefused(
                f"the broker at {self._address} wants a certificate of its clients, signed by somebody whom it knows:"
                " ROCKSMQ_CERT and ROCKSMQ_KEY name its file and its key's"
            )
        why = error.reason or "no TLS"
        return ProtocolError(f"what answers at {self._address} speaks no TLS that this client knows ({why}): is it rocksmq://?")
