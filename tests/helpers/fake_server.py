"""A server that is no broker: it says what a test wants, when the test wants it, in frames or in bytes."""

import contextlib
import queue
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from rocksmq.protocol.cbor import decode
from rocksmq.protocol.codec import NO_CORRELATION, decode_request, encode_error, encode_reply
from rocksmq.protocol.errors import RocksMQError
from rocksmq.protocol.frames import FrameDecoder
from rocksmq.protocol.operations import Empty, HelloReply
from tests.helpers.raw import FRAME_BYTES_MAX, PATIENCE_SECONDS, owned

LIMITS = {"frame_bytes_max": 9 << 20, "payload_bytes_max": 1 << 20, "batch_messages_max": 10_000}
PRESENT_ID = 5 << 18
PING_FRAME = b"".join(encode_reply(NO_CORRELATION, Empty()))  # of the broker's own


class Peer:
    """The server's end of one connection. Whatever waits here gives up after `PATIENCE_SECONDS`."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.socket.settimeout(PATIENCE_SECONDS)
        self._decoder = FrameDecoder(FRAME_BYTES_MAX)

    def receive(self) -> tuple[int, Any]:
        """Correlation id and typed form of the next request. Raises EOFError at the end of the connection."""
        while (body := self._decoder.next_frame()) is None:
            count = self.socket.recv_into(self._decoder.space())
            if not count:
                raise EOFError("the client closed the connection")
            self._decoder.received(count)
        _, correlation, request = decode_request(owned(decode(body)))
        return correlation, request

    def reply(self, correlation: int, reply: Sequence[Any]) -> None:
        self.socket.sendall(b"".join(encode_reply(correlation, reply)))

    def refuse(self, correlation: int, error: RocksMQError) -> None:
        self.socket.sendall(b"".join(encode_error(correlation, error)))

    def greet(self, limits: Mapping[str, int] = LIMITS) -> None:
        """Answer HELLO."""
        correlation, _ = self.receive()
        self.reply(correlation, HelloReply(1, "rocksmqd/0", "fsync", dict(limits), PRESENT_ID))

    def is_read(self) -> None:
        """Wait until somebody at the other end reads: a ping is answered by whoever does."""
        self.socket.sendall(PING_FRAME)
        correlation, request = self.receive()
        assert isinstance(request, Empty), f"{request} is no ping"
        self.reply(correlation, Empty())

    def cut(self) -> None:
        """End the connection."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)


class FakeServer:
    """Hands every connection to ``answer``, in a thread of its own; without one, greets it and leaves it to `peer`.

    A context manager that leaves nothing running: at its end all connections are cut.
    """

    def __init__(self, answer: Callable[[Peer], None] | None = None) -> None:
        self.connection_count = 0
        self._answer = answer or self._offer
        self._peers: queue.SimpleQueue[Peer] = queue.SimpleQueue()
        self._all: list[Peer] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.url = f"rocksmq://{self.address}"

    def __enter__(self) -> Self:
        self._accepting = threading.Thread(target=self._accept)
        self._accepting.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._accepting.join()
        self._listener.close()
        for peer in self._all:
            peer.cut()
        for thread in self._threads:
            thread.join()
        for peer in self._all:
            peer.socket.close()

    def peer(self) -> Peer:
        """The next connection that was greeted."""
        return self._peers.get(timeout=PATIENCE_SECONDS)

    def _offer(self, peer: Peer) -> None:
        peer.greet()
        self._peers.put(peer)

    def _accept(self) -> None:
        while True:
            try:
                accepted, _ = self._listener.accept()
            except OSError:
                return
            self.connection_count += 1
            peer = Peer(accepted)
            self._all.append(peer)
            thread = threading.Thread(target=self._serve, args=(peer,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, peer: Peer) -> None:
        with contextlib.suppress(OSError, EOFError):
            self._answer(peer)
