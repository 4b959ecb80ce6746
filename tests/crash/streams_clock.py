"""Where all producers of `streams` take their timestamps from, and the ticker learns which are settled; lives with the harness.

A timestamp is open from when it is given out until what carries it is durable. If its holder is killed it is open no more:
what the holder sent last may then come late, and nobody knows whether it comes at all.
"""

import socket
import socketserver
import threading
from types import TracebackType
from typing import NamedTuple, Self

AHEAD_MAX = 400  # of a timestamp of the future, beyond the last one


class Stamps(NamedTuple):
    """From ``first`` to ``last``, and one further ``ahead``: all open. What is up to ``settled`` may have been ticked."""

    first: int
    last: int
    ahead: int
    settled: int

    def is_open(self, timestamp: int) -> bool:
        """Whether no tick passes it before it is closed."""
        return self.first <= timestamp <= self.last or timestamp == self.ahead


class Clock:
    """Gives out timestamps, and serves them on the loopback, a connection a holder. A context manager."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = 0
        self._open: dict[object, Stamps] = {}
        clock = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                try:
                    for line in self.rfile:
                        self.wfile.write(clock._answer(self, line.split()))
                except ConnectionError:
                    pass
                finally:
                    clock._close(self)

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="clock")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.socket.close()

    def final(self) -> int:
        """A timestamp above all others, once nobody asks for one any more; it is never `settled`."""
        with self._lock:
            assert not self._open, "all that was sent is durable"
            return self._last + AHEAD_MAX + 1

    def _answer(self, holder: object, words: list[bytes]) -> bytes:
        with self._lock:
            if words[0] == b"settled":
                return b"%d\n" % self._settled()
            if words[0] == b"open":
                settled, first = self._settled(), self._last + 1
                self._last += int(words[1])
                stamps = self._open[holder] = Stamps(first, self._last, self._last + int(words[2]), settled)
                return b"%d %d %d %d\n" % stamps
            self._open.pop(holder, None)
            return b"closed\n"

    def _close(self, holder: object) -> None:
        with self._lock:
            self._open.pop(holder, None)

    def _settled(self) -> int:
        return min((stamps.first for stamps in self._open.values()), default=self._last + 1) - 1


class ClockClient:
    """One holder of timestamps."""

    def __init__(self, port: int) -> None:
        self._file = socket.create_connection(("127.0.0.1", port)).makefile("rwb")

    def open(self, count: int, ahead: int) -> Stamps:
        """So many new timestamps, and one further ``ahead``."""
        first, last, beyond, settled = map(int, self._ask(b"open %d %d" % (count, ahead)).split())
        return Stamps(first, last, beyond, settled)

    def close(self) -> None:
        """What has them is durable."""
        self._ask(b"close")

    def settled(self) -> int:
        """What has a timestamp up to this one is durable, and no such timestamp is given out any more."""
        return int(self._ask(b"settled"))

    def _ask(self, question: bytes) -> bytes:
        self._file.write(question + b"\n")
        self._file.flush()
        return self._file.readline()
