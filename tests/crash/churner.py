"""One process of `churn`: connections that are opened, used, and ended in every way, until standard input ends.

python -m tests.crash.churner ADDRESS CONNECTIONS SEED
"""

import secrets
import socket
import struct
import sys
import threading
from functools import partial
from random import Random

from rocksmq.clients import Client, LimitExceeded
from rocksmq.protocol.operations import Consume, Fetch, Position
from tests.helpers.raw import Raw, frame, hello, request_items

from .producing import together

CHANNEL, GROUP = "churned", "readers"
TIMEOUT_SECONDS = 60.0
_RESET = struct.pack("ii", 1, 0)


class Churner:
    """Opens, works, ends, again and again; in each thread one connection at a time."""

    def __init__(self, address: str, stay_s: float, seed: str) -> None:
        """``stay_s``: for which a connection is there, at most, beside its work."""
        self._address = address
        self._stay_s = stay_s
        self._seed = seed
        self._is_over = threading.Event()

    def run(self, connections: int) -> None:
        """Until standard input ends."""
        threading.Thread(target=self._watch, daemon=True).start()
        together([partial(self._churn, Random(f"{self._seed}/{i}")) for i in range(connections)])

    def _watch(self) -> None:
        sys.stdin.read()
        self._is_over.set()

    def _churn(self, random: Random) -> None:
        ways = (self._use, self._use, self._say_nothing, self._cut_off, self._park)
        while not self._is_over.is_set():
            way = random.choice(ways)
            try:
                way(random)
            except (LimitExceeded, OSError, EOFError):
                if way == self._use:
                    raise
                self._stay(random)  # by hand nothing heals: too many connections had said nothing yet

    def _stay(self, random: Random) -> None:
        self._is_over.wait(random.random() * self._stay_s)

    def _use(self, random: Random) -> None:
        """As any program would."""
        with Client(f"rocksmq://{self._address}", timeout=TIMEOUT_SECONDS) as mq:
            mq.produce(CHANNEL, [random.randbytes(100)] * random.randint(1, 10))
            self._stay(random)
            mq.consume(CHANNEL, GROUP, 100, timeout=0.05)
            with mq.producer(CHANNEL) as producer:
                producer.send(b"x")

    def _say_nothing(self, random: Random) -> None:
        """No HELLO, or half of one; then FIN."""
        with Raw(self._address, says_hello=False) as raw:
            half = frame(request_items(1, hello()))
            raw.socket.sendall(half[: random.randrange(len(half))])
            self._stay(random)

    def _cut_off(self, random: Random) -> None:
        """RST in the middle of a request, or with replies unread."""
        with Raw(self._address) as raw:
            for correlation in range(2, 5):
                raw.socket.sendall(frame(request_items(correlation, Fetch(CHANNEL, Position.EARLIEST, 0, 1_000, 1 << 20, 0))))
            raw.socket.sendall(b"\0\0\1\0half")
            self._stay(random)
            raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)

    def _park(self, random: Random) -> None:
        """Gone while long polls are parked."""
        with Raw(self._address) as raw:
            consumer = raw.server.present_id.to_bytes(8, "big") + secrets.token_bytes(8)
            raw.socket.sendall(frame(request_items(2, Consume(CHANNEL, GROUP, consumer, 0, 10, 1_000, 30_000))))
            raw.socket.sendall(frame(request_items(3, Fetch(CHANNEL, Position.LATEST, 0, 10, 1_000, 30_000))))
            self._stay(random)


if __name__ == "__main__":
    Churner(sys.argv[1], float(sys.argv[3]), sys.argv[4]).run(int(sys.argv[2]))
