"""The TCP server: listens, admits connections, sweeps out the silent and the stuck.

One reading task a connection; one bad connection ends alone. All time limits are kept by one
sweeping task, so that a connection costs no timer of its own.
"""

import logging
import socket
import ssl
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from importlib.metadata import version
from typing import NamedTuple

import trio

from rocksmq.metrics import catalogue, instruments
from rocksmq.metrics.instruments import Counters, MetricFamily, gauge, gauges
from rocksmq.protocol.cbor import Buffer
from rocksmq.protocol.codec import NO_CORRELATION, SUCCESS, encode_error, encode_reply
from rocksmq.protocol.errors import LimitExceeded, Unauthenticated
from rocksmq.protocol.tls import TlsStream

from .auth import EVERYBODY, Authority
from .connection import Connection, Memory, Octets
from .core import Core
from .gate import Gate
from .limits import Limits
from .session import Session

logger = logging.getLogger("rocksmq.broker")

BACKLOG = 1_024
ACCEPT_PAUSE_SECONDS = 0.1  # when file descriptors have run out
SWEEP_SECONDS = 0.5
SWEEP_AT_ONCE = 50  # connections, some 0.2 ms, until the others have their turn
SWEEP_SHARE = 0.5  # of the time between sweeps, over which one is spread: thousands of pings would be answered all at once
TURNED_AWAY_MAX = 64  # refused connections that are still told why
FLUSH_POLL_SECONDS = 0.01
SHRINK_SECONDS = 5.0  # silent for so long: give the receive buffer back
CONNECTION_LIMITS = CONNECTIONS_MAX, HANDSHAKES_MAX, PER_ADDRESS_MAX = (
    *("connections_max", "handshakes_max"),
    "handshakes_per_address_max",
)
MEMORY_MAX = "connections_bytes_max"
RATE_GRACE_SECONDS = 5.0  # of a frame that has begun, until its rate counts
TIME_LIMITS = {
    "tls_handshake_seconds": "no handshake of TLS within %g s",
    "handshake_seconds": "no HELLO within %g s",
    "frame_seconds": "a frame took longer than %g s",
    "frame_rate_min": "a frame came by fewer than %d bytes a second",
    "write_seconds": "the client did not read for %g s",
    "idle_close_seconds": "silent for %g s",
}
CLOSED_REASONS = "client", "replaced", "protocol", "version", "token", MEMORY_MAX, *TIME_LIMITS, "stop", "bug"
BUG = "a bug: a connection ended by it"
PING: list[Buffer] = encode_reply(NO_CORRELATION, ())
assert SUCCESS == 0


class Door(NamedTuple):
    """A listening socket, who is admitted, and what connections speak TLS by: asked for each; None: they do not."""

    listener: socket.socket
    authority: Authority = EVERYBODY
    tls: Callable[[], ssl.SSLContext | None] = lambda: None


class Server:
    """Serves one core."""

    def __init__(self, core: Core, limits: Limits, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._core = core
        self._limits = limits
        self._clock = clock
        self._version = f"rocksmqd/{version('rocksmq')}"
        self._sessions: set[Session] = set()
        self._clients: dict[bytes, Session] = {}
        self._pinged: set[Session] = set()
        self._handshakes: Counter[str] = Counter()  # connections before HELLO, by address
        self._memory = Memory(limits.connections_bytes_max, self._relieve)
        self._turned_away = 0
        self._accepting: list[trio.CancelScope] = []
        self._octets = Octets()
        self._opened = instruments.Counter(catalogue.CONNECTIONS_OPENED)
        self._rejected = Counters(catalogue.CONNECTIONS_REJECTED, ((limit,) for limit in CONNECTION_LIMITS))
        self._closed = Counters(catalogue.CONNECTIONS_CLOSED, ((reason,) for reason in CLOSED_REASONS))
        core.telemetry.add(self._families)

    def register(self, client_id: bytes, session: Session) -> None:
        """As the sessions' registry: the newest connection of a client wins."""
        self._handshakes[session.peer] -= 1
        older = self._clients.get(client_id)
        self._clients[client_id] = session
        if older is not None:
            older.end("replaced")

    @property
    def connection_count(self) -> int:
        return len(self._sessions)

    def _families(self) -> Iterator[MetricFamily]:
        sessions, handshakes = tuple(self._sessions), self._handshakes.total()
        yield gauges(catalogue.CONNECTIONS, ((("handshake",), handshakes), (("open",), len(sessions) - handshakes)))
        yield gauge(catalogue.CONNECTIONS_LIMIT, self._limits.connections_max)
        yield gauge(catalogue.CONNECTIONS_PAUSED, sum(session.connection.is_paused for session in sessions))
        yield gauge(catalogue.IN_FLIGHT_REQUESTS, sum(session.in_flight_count for session in sessions))
        yield gauge(catalogue.IN_FLIGHT_BYTES, sum(session.in_flight_bytes for session in sessions))
        yield gauge(catalogue.UNSENT_BYTES, sum(session.connection.unsent_bytes for session in sessions))
        yield from (counter.family() for counter in (self._opened, self._rejected, self._closed))
        kinds = ("protocol",), ("version",)
        yield gauges(catalogue.PROTOCOL_ERRORS, ((kind, self._closed.values[kind]) for kind in kinds))
        yield gauge(catalogue.RECEIVED_BYTES, self._octets.received)
        yield gauge(catalogue.SENT_BYTES, self._octets.sent)

    async def serve(self, *doors: Door) -> None:
        """Accept on listening sockets until cancelled; then close every connection."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._sweep)
                for door in doors:
                    nursery.start_soon(self._attend, door, nursery)
        finally:
            for session in tuple(self._sessions):
                session.end("stop")

    async def _attend(self, door: Door, nursery: trio.Nursery) -> None:
        door.listener.setblocking(False)
        gate = Gate(self._core.channels, self._limits, door.authority)
        with door.listener, trio.CancelScope() as accepting:
            self._accepting.append(accepting)
            while True:
                await self._accept(door, gate, nursery)

    def stop_accepting(self) -> None:
        """Take no more connections; those that are there go on."""
        for accepting in self._accepting:
            accepting.cancel()

    async def flushed(self) -> None:
        """Wait until every reply was handed to its socket."""
        while any(session.connection.unsent_bytes for session in self._sessions):
            await trio.sleep(FLUSH_POLL_SECONDS)

    async def _accept(self, door: Door, gate: Gate, nursery: trio.Nursery) -> None:
        await trio.lowlevel.checkpoint()  # while they come faster than they are accepted, the others have their turn
        try:
            sock, address = door.listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            await trio.lowlevel.wait_readable(door.listener)
            return
        except OSError as error:
            logger.warning("a connection could not be accepted: %s", error)
            await trio.sleep(ACCEPT_PAUSE_SECONDS)
            return
        try:
            self._take(sock, address[0], door, gate, nursery)
        except Exception:
            logger.exception(BUG)
            sock.close()

    def _take(self, sock: socket.socket, address: str, door: Door, gate: Gate, nursery: trio.Nursery) -> None:
        """Start what serves it, or tells it that it is not served."""

        def start(task: Callable[..., Awaitable[None]], *arguments: object) -> None:
            nursery.start_soon(self._contained, task, *arguments)

        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        tls = None if (context := door.tls()) is None else TlsStream(context)
        connection = Connection(sock, self._limits, start, self._octets, self._memory, tls=tls, clock=self._clock)
        if (refusal := self._refusal(address)) is not None:
            self._rejected.add(refusal[0])
            logger.warning("a connection from %s was refused: %s", address, refusal[1])
            connection.send(encode_error(NO_CORRELATION, LimitExceeded(refusal[1])))
            start(self._turn_away, connection)
            return
        self._opened.value += 1
        session = Session(connection, self._core, self, gate, self._version, address)
        self._sessions.add(session)
        self._handshakes[session.peer] += 1
        nursery.start_soon(self._run, session)

    async def _contained(self, task: Callable[..., Awaitable[None]], *arguments: object) -> None:
        """A task of one connection: a bug in it is not that of the others, who share the nursery."""
        try:
            await task(*arguments)
        except Exception:
            logger.exception(BUG)

    async def _turn_away(self, connection: Connection) -> None:
        is_told = self._turned_away < TURNED_AWAY_MAX
        self._turned_away += is_told
        try:
            if is_told:
                await connection.linger()
        finally:
            self._turned_away -= is_told
            connection.close()

    def _refusal(self, address: str) -> tuple[str, str] | None:
        """Which limit leaves no room for one more, and what its client is told."""
        limits = self._limits
        if len(self._sessions) >= limits.connections_max:
            return CONNECTIONS_MAX, f"the broker has {limits.connections_max} connections (connections_max): close some"
        if self._handshakes.total() >= limits.handshakes_max:
            return HANDSHAKES_MAX, f"{limits.handshakes_max} connections have not said HELLO yet (handshakes_max)"
        if (most := limits.handshakes_per_address_max) <= self._handshakes[address]:
            return PER_ADDRESS_MAX, f"{most} connections of your address have not said HELLO yet ({PER_ADDRESS_MAX})"
        return None

    def _relieve(self) -> None:
        """Connections hold more than they may: take back what none needs, or close the one that has held much for longest."""
        for session in self._sessions:
            session.connection.shrink()
        if self._memory.held <= self._limits.connections_bytes_max:
            return
        hoards = [(since, session) for session in self._sessions if (since := session.connection.hoards_since) is not None]
        if hoards:
            session = min(hoards, key=lambda hoard: hoard[0])[1]
            logger.warning(
                "a connection from %s was closed: all of them hold more than %d bytes (%s), and it has held its %d for longest",
                *(session.peer, self._limits.connections_bytes_max, MEMORY_MAX, session.connection.held_bytes),
            )
            session.ended_by = session.ended_by or MEMORY_MAX
            session.connection.close()

    async def _run(self, session: Session) -> None:
        why = "client"
        try:
            await session.connection.read(session)
        except Exception:
            logger.exception(BUG)
            why = "bug"
        except BaseException:
            why = "stop"
            raise
        finally:
            session.end(why)
            if session.client_id is None:
                self._handshakes[session.peer] -= 1
            if not self._handshakes[session.peer]:
                del self._handshakes[session.peer]
            self._closed.add(session.ended_by or why)
            self._sessions.discard(session)
            self._pinged.discard(session)
            if session.client_id is not None and self._clients.get(session.client_id) is session:
                del self._clients[session.client_id]

    # -- time limits -----------------------------------------------------------

    async def _sweep(self) -> None:
        while True:
            await trio.sleep(SWEEP_SECONDS)
            now, wall = self._clock(), time.time()
            sessions = tuple(self._sessions)
            for number, session in enumerate(sessions, 1):
                if number % SWEEP_AT_ONCE == 0:
                    await trio.sleep(SWEEP_SECONDS * SWEEP_SHARE * SWEEP_AT_ONCE / len(sessions))
                    now, wall = self._clock(), time.time()
                if session not in self._sessions:
                    continue  # it ended meanwhile
                try:
                    self._look_at(session, now, wall)
                except Exception:
                    logger.exception(BUG)
                    session.connection.close()

    def _look_at(self, session: Session, now: float, wall: float) -> None:
        """End it if its token or its time is over."""
        if session.token is not None and not session.gate.authority.is_current(session.token, wall):
            self._end_unauthenticated(session)
        elif (limit := self._overdue(session, now)) is not None:
            why = TIME_LIMITS[limit] % getattr(self._limits, limit)
            logger.info("a connection from %s was closed: %s (%s)", session.peer, why, limit)
            session.end(limit)

    def _end_unauthenticated(self, session: Session) -> None:
        """Its token has expired, is revoked, or has other rights now: whoever has a good one connects anew."""
        logger.info("a connection from %s is ended: its token is no longer what it was", session.peer)
        error = Unauthenticated("the token has expired, or is no longer what it was: connect anew")
        session.connection.send(encode_error(NO_CORRELATION, error))
        session.end("token")

    def _overdue(self, session: Session, now: float) -> str | None:
        """Which limit was passed."""
        limits, connection = self._limits, session.connection
        if session.client_id is None:
            age = now - connection.opened
            if age > limits.tls_handshake_seconds and not connection.is_established:
                return "tls_handshake_seconds"
            if age > limits.handshake_seconds:
                return "handshake_seconds"
        if (limit := self._late_frame(connection, now)) is not None:
            return limit
        if connection.unsent_bytes and now - connection.last_sent > limits.write_seconds:
            return "write_seconds"
        silent = 0.0 if connection.is_paused else now - connection.last_received
        if silent > limits.idle_ping_seconds and session not in self._pinged:
            connection.send(PING)
            self._pinged.add(session)
        elif silent <= limits.idle_ping_seconds:
            self._pinged.discard(session)
        if silent > SHRINK_SECONDS:
            connection.shrink()
        return "idle_close_seconds" if silent > limits.idle_close_seconds else None

    def _late_frame(self, connection: Connection, now: float) -> str | None:
        if connection.frame_began is None or connection.is_paused:
            return None
        seconds = now - connection.frame_began
        if seconds > self._limits.frame_seconds:
            return "frame_seconds"
        wanted = (seconds - RATE_GRACE_SECONDS) * self._limits.frame_rate_min
        return "frame_rate_min" if connection.decoder.pending_bytes < wanted else None
