"""What the machine gives without a broker: the least that one durable produce can take."""

import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rocksmq.protocol.errors import RocksMQError

PAYLOAD_BYTES = 100
WARM_UP = 50
CONNECT_SECONDS = 30.0  # for the other process to start
ECHO = "rocksmq.clients.bench.echo"


def round_trips(count: int) -> list[float]:
    """Seconds of each PAYLOAD_BYTES there and back between two processes over loopback TCP."""
    payload = secrets.token_bytes(PAYLOAD_BYTES)
    with socket.create_server(("127.0.0.1", 0)) as server:
        command = [sys.executable, "-m", ECHO, str(server.getsockname()[1])]
        with subprocess.Popen(command, start_new_session=True) as other:  # noqa: S603
            try:
                server.settimeout(CONNECT_SECONDS)
                with server.accept()[0] as peer:
                    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    taken = [_round_trip(peer, payload) for _ in range(WARM_UP + count)]
            finally:
                other.kill()
    return taken[WARM_UP:]


def _round_trip(peer: socket.socket, payload: bytes) -> float:
    begin = time.perf_counter()
    peer.sendall(payload)
    left = len(payload)
    while left:
        received = len(peer.recv(left))
        if not received:
            raise RocksMQError("the echoing process ended")
        left -= received
    return time.perf_counter() - begin


def synced_appends(directory: Path, count: int) -> list[float]:
    """Seconds of each append of PAYLOAD_BYTES and fdatasync to a new file in ``directory``."""
    payload = secrets.token_bytes(PAYLOAD_BYTES)
    taken: list[float] = []
    with tempfile.TemporaryFile(dir=directory, buffering=0) as file:
        for _ in range(WARM_UP + count):
            begin = time.perf_counter()
            file.write(payload)
            os.fdatasync(file.fileno())
            taken.append(time.perf_counter() - begin)
    return taken[WARM_UP:]
