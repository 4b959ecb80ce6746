"""The wire by hand: a blocking socket that speaks frames, whole, in part, or wrong on purpose."""

import secrets
import socket
import struct
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any, Self

from rocksmq.protocol.cbor import decode, encode_frame
from rocksmq.protocol.codec import NO_CORRELATION, SUCCESS, decode_error, decode_reply
from rocksmq.protocol.errors import RocksMQError
from rocksmq.protocol.frames import FrameDecoder
from rocksmq.protocol.operations import MAGIC, OP_OF_REQUEST, PING, VERSION_MAX, VERSION_MIN, Empty, Hello, HelloReply

FRAME_BYTES_MAX = 66 << 20
PATIENCE_SECONDS = 30.0  # a test that waits longer has failed


def frame(items: Sequence[Any]) -> bytes:
    """The bytes of one frame."""
    return b"".join(encode_frame(items))


def request_items(correlation: int, request: Any) -> tuple[Any, ...]:
    """The array of a typed request."""
    op = PING if isinstance(request, Empty) else OP_OF_REQUEST[type(request)]
    return (op.number, correlation, *request)


def hello(client_id: bytes | None = None, token: str | None = None) -> Hello:
    """A HELLO of this version."""
    return Hello(MAGIC, VERSION_MIN, VERSION_MAX, "raw", client_id or secrets.token_bytes(16), token)


class Raw:
    """A socket to a broker; a context manager. Says HELLO unless told not to."""

    def __init__(
        self,
        address: str,
        *,
        says_hello: bool = True,
        client_id: bytes | None = None,
        receive_buffer_bytes: int | None = None,
        source: str | None = None,
    ) -> None:
        """``source``: the address to come from."""
        host, port = address.rsplit(":", 1)
        self.socket = socket.socket()
        self.socket.settimeout(PATIENCE_SECONDS)
        if receive_buffer_bytes is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        if source is not None:
            self.socket.bind((source, 0))
        self._correlation = 0
        self._decoder = FrameDecoder(FRAME_BYTES_MAX)
        try:
            self.socket.connect((host, int(port)))
            if says_hello:
                self.server: HelloReply = self.call(hello(client_id))
        except BaseException:
            self.socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self.socket.close()

    def reset(self) -> None:
        """End the connection with RST, as a crashed machine would."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def send(self, request: Any) -> int:
        """Send a typed request; its correlation id."""
        self._correlation += 1
        self.socket.sendall(frame(request_items(self._correlation, request)))
        return self._correlation

    def call(self, request: Any) -> Any:
        """Send a typed request and wait for its typed reply. Raises what the broker answers."""
        correlation = self.send(request)
        items = self.receive()
        if items[0] == NO_CORRELATION and items[1] != SUCCESS:
            raise decode_error(items)
        assert items[0] == correlation, f"{items} does not answer request {correlation}"
        return decode_reply(PING if isinstance(request, Empty) else OP_OF_REQUEST[type(request)], items)

    def refused(self, request: Any) -> RocksMQError:
        """Send a typed request that the broker refuses; its error."""
        correlation = self.send(request)
        return self.error(correlation)

    def error(self, correlation: int) -> RocksMQError:
        """The next frame, which is an error with that correlation id."""
        items = self.receive()
        assert items[0] == correlation, f"{items} has not the correlation id {correlation}"
        assert items[1] != SUCCESS, f"{items} is no error"
        return decode_error(items)

    def receive(self) -> list[Any]:
        """The next frame's array, in copies. Raises EOFError at the end of the connection."""
        while (body := self._decoder.next_frame()) is None:
            count = self.socket.recv_into(self._decoder.space())
            if not count:
                raise EOFError("the broker closed the connection")
            self._decoder.received(count)
        return owned(decode(body))

    def is_closed(self) -> bool:
        """Wait for the end of the connection; False if a frame comes instead."""
        try:
            self.receive()
        except (EOFError, ConnectionError):
            return True
        return False


def owned(items: Iterable[Any]) -> list[Any]:
    """``items`` with copies of what lies in the receive buffer."""
    return [item.tobytes() if isinstance(item, memoryview) else item for item in items]


def response(request: type[Any], items: Sequence[Any]) -> Any:
    """The typed reply to a request of that type. Raises what the broker answered."""
    return decode_reply(OP_OF_REQUEST[request], items)
