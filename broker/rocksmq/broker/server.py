"""The TCP server: listens, admits connections, sweeps out the silent and the stuck.

One reading task a connection; one bad connection ends alone. All time limits are kept by one
sweeping task, so that a connection costs no timer of its own.
"""

import logging
import socket
import time
from collections.abc import Callable
from importlib.metadata import version

import trio

from rocksmq.protocol.cbor import Buffer
from rocksmq.protocol.codec import NO_CORRELATION, SUCCESS, encode_error, encode_reply
from rocksmq.protocol.errors import LimitExceeded

from .connection import Connection
from .core import Core
from .limits import Limits
from .session import Session

logger = logging.getLogger("rocksmq.broker")

BACKLOG = 1_024
ACCEPT_PAUSE_SECONDS = 0.1  # when file descriptors have run out
SWEEP_SECONDS = 0.5
TURNED_AWAY_MAX = 64  # refused connections that are still told why
FLUSH_POLL_SECONDS = 0.01
SHRINK_SECONDS = 5.0  # silent for so long: give the receive buffer back
PING: list[Buffer] = encode_reply(NO_CORRELATION, ())
assert SUCCESS == 0


class Server:
    """Serves one core on one listening socket."""

    def __init__(self, core: Core, limits: Limits, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._core = core
        self._limits = limits
        self._clock = clock
        self._version = f"rocksmqd/{version('rocksmq')}"
        self._sessions: set[Session] = set()
        self._clients: dict[bytes, Session] = {}
        self._pinged: set[Session] = set()
        self._turned_away = 0
        self._accepting = trio.CancelScope()

    def register(self, client_id: bytes, session: Session) -> None:
        """As the sessions' registry: the newest connection of a client wins."""
        older = self._clients.get(client_id)
        self._clients[client_id] = session
        if older is not None:
            older.end()

    @property
    def connection_count(self) -> int:
        return len(self._sessions)

    async def serve(self, listener: socket.socket) -> None:
        """Accept on ``listener``, a listening socket, until cancelled; then close every connection."""
        listener.setblocking(False)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._sweep)
                with self._accepting:
                    while True:
                        await self._accept(listener, nursery)
                listener.close()
        finally:
            listener.close()
            for session in tuple(self._sessions):
                session.end()

    def stop_accepting(self) -> None:
        """Take no more connections; those that are there go on."""
        self._accepting.cancel()

    async def flushed(self) -> None:
        """Wait until every reply was handed to its socket."""
        while any(session.connection.unsent_bytes for session in self._sessions):
            await trio.sleep(FLUSH_POLL_SECONDS)

    async def _accept(self, listener: socket.socket, nursery: trio.Nursery) -> None:
        await trio.lowlevel.checkpoint()  # while they come faster than they are accepted, the others have their turn
        try:
            sock, _ = listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            await trio.lowlevel.wait_readable(listener)
            return
        except OSError as error:
            logger.warning("a connection could not be accepted: %s", error)
            await trio.sleep(ACCEPT_PAUSE_SECONDS)
            return
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = Connection(sock, self._limits, nursery.start_soon, clock=self._clock)
        if (refusal := self._refusal()) is not None:
            connection.send(encode_error(NO_CORRELATION, refusal))
            nursery.start_soon(self._turn_away, connection)
            return
        session = Session(connection, self._core, self, self._version)
        self._sessions.add(session)
        nursery.start_soon(self._run, session)

    async def _turn_away(self, connection: Connection) -> None:
        if self._turned_away < TURNED_AWAY_MAX:
            self._turned_away += 1
            await connection.linger()
            self._turned_away -= 1
        connection.close()

    def _refusal(self) -> LimitExceeded | None:
        if len(self._sessions) >= self._limits.connections_max:
            return LimitExceeded(f"the broker has {self._limits.connections_max} connections (connections_max): close some")
        silent = (
            sum(session.client_id is None for session in self._sessions)
            if len(self._sessions) >= self._limits.handshakes_max
            else 0
        )
        if silent >= self._limits.handshakes_max:
            return LimitExceeded(f"{self._limits.handshakes_max} connections have not said HELLO yet (handshakes_max)")
        return None

    async def _run(self, session: Session) -> None:
        try:
            await session.connection.read(session)
        except Exception:
            logger.exception("a bug: a connection ended by it")
        finally:
            session.end()
            self._sessions.discard(session)
            self._pinged.discard(session)
            if session.client_id is not None and self._clients.get(session.client_id) is session:
                del self._clients[session.client_id]

    # -- time limits -----------------------------------------------------------

    async def _sweep(self) -> None:
        while True:
            await trio.sleep(SWEEP_SECONDS)
            now = self._clock()
            for session in tuple(self._sessions):
                if (reason := self._overdue(session, now)) is not None:
                    logger.info("a connection was closed: %s", reason)
                    session.end()

    def _overdue(self, session: Session, now: float) -> str | None:
        limits, connection = self._limits, session.connection
        silent = 0.0 if connection.is_paused else now - connection.last_received
        if session.client_id is None and now - connection.opened > limits.handshake_seconds:
            return f"no HELLO within {limits.handshake_seconds} s (handshake_seconds)"
        if (
            connection.frame_began is not None
            and not connection.is_paused
            and now - connection.frame_began > limits.frame_seconds
        ):
            return f"a frame took longer than {limits.frame_seconds} s (frame_seconds)"
        if connection.unsent_bytes and now - connection.last_sent > limits.write_seconds:
            return f"the client did not read for {limits.write_seconds} s (write_seconds)"
        if silent > limits.idle_close_seconds:
            return f"silent for {limits.idle_close_seconds} s (idle_close_seconds)"
        if silent > limits.idle_ping_seconds and session not in self._pinged:
            connection.send(PING)
            self._pinged.add(session)
        elif silent <= limits.idle_ping_seconds:
            self._pinged.discard(session)
        if silent > SHRINK_SECONDS:
            connection.decoder.shrink()
        return None
