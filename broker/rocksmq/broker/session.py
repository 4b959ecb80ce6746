"""One client's conversation: HELLO first, then requests to the core and replies back, in any order.

Owns what is in flight on a connection, and bounds it. Turns frames into typed requests, and
replies and errors into frames; a bug becomes InternalError with its text in the log only.
"""

import logging
import time
from functools import partial
from typing import Any, NamedTuple, Protocol

import trio

from rocksmq.protocol.cbor import REQUEST_TEXTS_BYTES_MAX, decode
from rocksmq.protocol.codec import NO_CORRELATION, decode_request, encode_error, encode_reply
from rocksmq.protocol.errors import (
    InternalError,
    ProtocolError,
    RocksMQError,
    StorageFailed,
    Unauthenticated,
    UnsupportedVersion,
)
from rocksmq.protocol.operations import (
    HELLO,
    MAGIC,
    PING,
    VERSION_MAX,
    VERSION_MIN,
    Empty,
    FetchMany,
    Hello,
    HelloReply,
    Operation,
)

from .auth import Token
from .connection import Connection
from .core import Core
from .fair_queue import Writer
from .gate import Gate
from .waiters import Waiter

logger = logging.getLogger("rocksmq.broker")


STORAGE_FAILED = "the broker's storage failed, and its log says why; whether anything was stored is unknown"
_ENDED_BY: dict[type[RocksMQError], str] = {ProtocolError: "protocol", UnsupportedVersion: "version", Unauthenticated: "token"}
PARKED_FACTOR = 16  # what a FETCH_MANY that waits takes in memory, by its size: a place in the table of each channel


class Registry(Protocol):
    """Who is connected; the newest connection of a client wins."""

    def register(self, client_id: bytes, session: "Session") -> None:
        """End the older connection of ``client_id``, if any."""
        ...


class Asked(NamedTuple):
    """A request in flight: its operation, what it takes in memory, when it came."""

    op: str
    size: int
    began: float


class Session:
    """The state of one connection above its frames.

    ``peer`` is its client's address, ``ended_by`` why it ended, a word for the metrics.
    """

    def __init__(
        self,
        connection: Connection,
        core: Core,
        registry: Registry,
        gate: Gate,
        version: str,
        peer: str,
    ) -> None:
        self.connection = connection
        self.peer = peer
        self.token: Token | None = None  # None before HELLO
        self.client_id: bytes | None = None  # None before HELLO
        self._core = core
        self._registry = registry
        self.gate = gate
        self._version = version
        self.ended_by: str | None = None
        self._in_flight: dict[int, Asked] = {}  # by correlation id
        self.in_flight_bytes = 0
        self._waiters: dict[int, Waiter] = {}
        self._finished = trio.Event()
        self._hello_correlation = NO_CORRELATION
        self._writers = core.committer.writers
        self._writer = Writer()
        connection.on_drained = core.attempt_held

    # -- as the connection's receiver --------------------------------------------

    @property
    def must_wait(self) -> bool:
        return self._has_too_much_in_flight or self._writers.must_wait(self._writer)

    @property
    def _has_too_much_in_flight(self) -> bool:
        limits = self.connection.limits
        return len(self._in_flight) >= limits.in_flight_requests_max or self.in_flight_bytes >= limits.in_flight_bytes_max

    async def may_go_on(self) -> None:
        if self._has_too_much_in_flight:  # first: whoever has been promised room uses it at once
            await self._finished.wait()
            return
        await self._writers.wait(self._writer)
        if self._has_too_much_unsent():
            self._writers.pass_on(self._writer)

    def receive(self, body: "memoryview[int]") -> None:
        op, correlation, request = decode_request(decode(body, REQUEST_TEXTS_BYTES_MAX))
        if correlation in self._in_flight:
            raise ProtocolError(f"correlation id {correlation} is in use by an unanswered request")
        if self.client_id is None:
            if op is not HELLO:
                raise ProtocolError(f"the first frame is HELLO, not {op.name}")
            self._hello(correlation, request)
        elif op is PING:
            self._reply_now(PING, correlation, Empty())
        elif op is HELLO:
            raise ProtocolError("HELLO is sent once, first")
        else:
            self._submit(op, correlation, request, len(body))
        self._writers.pass_on(self._writer)

    def refuse(self, error: RocksMQError) -> None:
        answers_hello = isinstance(error, (UnsupportedVersion, Unauthenticated))
        self._writers.pass_on(self._writer)
        self.ended_by = self.ended_by or _ENDED_BY[type(error)]
        logger.info("a connection from %s is ended: %s", self.peer, error.message)
        self.connection.send(encode_error(self._hello_correlation if answers_hello else NO_CORRELATION, error))

    # -- requests ----------------------------------------------------------------

    def _hello(self, correlation: int, hello: Hello) -> None:
        self._hello_correlation = correlation
        if hello.magic != MAGIC:
            raise ProtocolError("this is not a RocksMQ client: HELLO begins with the text 'RocksMQ'")
        version = min(VERSION_MAX, hello.version_max)
        if version < max(VERSION_MIN, hello.version_min):
            raise UnsupportedVersion(
                f"this broker speaks protocol versions {VERSION_MIN} to {VERSION_MAX}, the client"
                f" {hello.version_min} to {hello.version_max}: upgrade the older of the two"
            )
        self.token = self.gate.authority.admit(hello.token, time.time())
        self.client_id = hello.client_id
        self._registry.register(hello.client_id, self)
        self.connection.decoder.frame_bytes_max = self.connection.limits.frame_bytes_max
        self.connection.decoder.limit_name = "frame_bytes_max"
        reply = HelloReply(
            version, self._version, str(self._core.durability), self._core.limits.of_clients(), self._core.ids.present_id
        )
        self._reply_now(HELLO, correlation, reply)

    def _reply_now(self, op: Operation, correlation: int, reply: Any) -> None:
        """Answer what needs no core."""
        self._core.telemetry.answered(op.name, reply, None)
        self.connection.send(encode_reply(correlation, reply))

    @property
    def in_flight_count(self) -> int:
        """Requests taken and not answered."""
        return len(self._in_flight)

    def _submit(self, op: Operation, correlation: int, request: Any, size: int) -> None:
        assert self.token is not None, "HELLO came first"
        size *= PARKED_FACTOR if op.request is FetchMany else 1
        self._in_flight[correlation] = Asked(op.name, size, time.perf_counter())
        self.in_flight_bytes += size
        size_before = self._core.committer.open.size
        try:
            waiter = self._core.submit(self.gate.passed(self.token, op, request), partial(self._answer, correlation))
        except RocksMQError as error:
            logger.info("a request from %s is refused: %s", self.peer, error.message)
            self._answer(correlation, error)
            return
        except Exception:
            logger.exception("a bug: %s could not be handled", type(request).__name__)
            self._answer(correlation, InternalError("the broker met a bug; its log has the details"))
            return
        if waiter is not None:
            waiter.must_wait = self._has_too_much_unsent
            self._waiters[correlation] = waiter
        self._writers.added(self._writer, self._core.committer.open.size - size_before)

    def _has_too_much_unsent(self) -> bool:
        return self.connection.unsent_bytes > self.connection.limits.output_bytes_max

    def _answer(self, correlation: int, reply: Any) -> None:
        """As ``done`` of the core, which serves others too: a bug in it ends this connection alone."""
        try:
            self._send_answer(correlation, reply)
        except Exception:
            logger.exception("a bug: a reply could not be sent")
            self.connection.close()

    def _send_answer(self, correlation: int, reply: Any) -> None:
        asked, waiter = self._in_flight.pop(correlation, None), self._waiters.pop(correlation, None)
        if asked is not None:
            self.in_flight_bytes -= asked.size
            seconds = None if waiter is not None and waiter.has_waited else time.perf_counter() - asked.began
            self._core.telemetry.answered(asked.op, reply, seconds)
        if isinstance(reply, StorageFailed):
            logger.error("%s of a client failed: %s", asked.op if asked else "a request", reply.message)
            reply = StorageFailed(STORAGE_FAILED)
        if isinstance(reply, RocksMQError):
            self.connection.send(encode_error(correlation, reply))
        else:
            self.connection.send(encode_reply(correlation, reply))
        self._finished.set()
        self._finished = trio.Event()

    def end(self, why: str) -> None:
        """The connection is over: nobody waits for its long polls any more. What was accepted is still done."""
        self.ended_by = self.ended_by or why
        for waiter in self._waiters.values():
            if waiter.reads:
                self._core.waiters.cancel(waiter)
        self._writers.leave(self._writer)
        self._waiters.clear()
        self._in_flight.clear()
        self.in_flight_bytes = 0
        self.connection.close()
        self._finished.set()
