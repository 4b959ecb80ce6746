"""The process at the far end of the loopback floor: sends back what it gets.

python -m rocksmq.clients.bench.echo PORT
"""

import socket
import sys


def echo(port: int) -> None:
    """Until the other side closes."""
    with socket.create_connection(("127.0.0.1", port)) as peer:
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while received := peer.recv(4_096):
            peer.sendall(received)


if __name__ == "__main__":
    echo(int(sys.argv[1]))
