"""Sockets of a load: Trio streams that come from any address of the loopback, and what is counted when they end."""

import socket

import trio

from tests.helpers.raw import frame, hello, request_items

ADDRESSES = 250  # in one 127.0.x.0/24


def source_of(number: int) -> str:
    """The loopback address ``number``, none of which is 127.0.0.1."""
    return f"127.0.{1 + number // ADDRESSES}.{1 + number % ADDRESSES}"


def split(address: str) -> tuple[str, int]:
    """Host and port."""
    host, _, port = address.rpartition(":")
    return host, int(port)


async def connected(address: str, source: str, receive_buffer_bytes: int | None = None) -> trio.SocketStream:
    """A connection from ``source``, whose port the kernel chooses at connect, so that 10,000 fit. Raises OSError."""
    sock = trio.socket.socket()
    try:
        if receive_buffer_bytes is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_BIND_ADDRESS_NO_PORT, 1)
        await sock.bind((source, 0))
        await sock.connect(split(address))
        return trio.SocketStream(sock)
    except BaseException:
        sock.close()
        raise


def hello_frame() -> bytes:
    """HELLO of a new client."""
    return frame(request_items(1, hello()))
