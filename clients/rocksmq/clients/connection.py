"""One connection to the broker, shared by threads, without a thread of its own.

Requests are pipelined; replies come in any order. A caller that waits for its reply while
nobody reads becomes the reader: it reads for all until its own reply is there, then
hands reading to another waiting caller. So one caller alone pays for no hand-off.

Locks, in this order: `_send_lock` (one frame at a time), `_lock` (calls and who reads).
"""

import os
import select
import socket
import threading
import time
from contextlib import suppress
from typing import Any

from rocksmq.protocol.cbor import Buffer, decode
from rocksmq.protocol.codec import NO_CORRELATION, SUCCESS, decode_error, decode_reply, encode_request
from rocksmq.protocol.errors import ConnectionFailed, InvalidRequest, ProtocolError, RocksMQError, Timeout
from rocksmq.protocol.frames import FrameDecoder
from rocksmq.protocol.operations import (
    HELLO,
    MAGIC,
    OP_OF_REQUEST,
    PING,
    VERSION_MAX,
    VERSION_MIN,
    Empty,
    Hello,
    HelloReply,
    Operation,
)

from .address import Address
from .credentials import Credentials
from .deadline import SLICE_SECONDS, Deadline, Stopped, check_not
from .tls_socket import TlsSocket

BUFFERS_MAX = 1_024  # of one sendmsg: IOV_MAX on Linux
HELLO_BYTES_MAX = 64 * 1024  # before the broker has told its limits
FRAME_BYTES_MAX = 66 << 20  # whatever the broker says: its own upper limit
CONNECT_SECONDS = 3.0  # of one attempt; whoever wants it retries
LIMITS_NEEDED = ("frame_bytes_max", "payload_bytes_max", "batch_messages_max")
HELLO_SECONDS = 5.0  # what a broker allows a client, too
LOOK_SECONDS = 0.1  # for what came while nobody waited: a peer that never stops sending must not keep the caller
PING_SECONDS = 10.0  # silence with a request outstanding until the broker is pinged
DEAD_SECONDS = 20.0  # silence after that until the connection is given up


class Call:
    """One request and, later, its reply or error."""

    __slots__ = ("done", "error", "op", "reply", "wakeup")

    def __init__(self, op: Operation) -> None:
        self.op = op
        self.done = False
        self.reply: Any = None
        self.error: RocksMQError | None = None
        self.wakeup: threading.Event | None = None  # of a caller that waits while another reads

    def result(self) -> Any:
        """The reply. Raises what the broker answered."""
        assert self.done, "the call was answered"
        if self.error is not None:
            raise self.error
        return self.reply


class Connection:
    """A connection on which HELLO was exchanged. Once `failure` is set it is over."""

    def __init__(self, address: Address, credentials: Credentials) -> None:
        """Not connected yet: `open` does that. `close` may be called at any time."""
        self.failure: ConnectionFailed | ProtocolError | None = None
        self._is_greeted = self._was_told = False  # by a broker: HELLO's answer, or why it ends the connection
        self._ping_call: Call | None = None
        self._address = address
        self._credentials = credentials
        self._calls: dict[int, Call] = {}
        self._correlation = 0
        self._reader: int | None = None  # the thread that reads for all
        self._is_receiving = False
        self._lock = threading.RLock()  # reentrant, for a signal handler that closes the client
        self._send_lock = threading.RLock()  # one frame at a time; reentrant, for a signal handler to find out
        self.is_sending = False
        self._decoder = FrameDecoder(HELLO_BYTES_MAX)
        self._sock: socket.socket | TlsSocket = socket.socket()
        self._readable = select.poll()
        self._writable = select.poll()
        self._last_received = 0.0

    def open(self, client_name: str, client_id: bytes, deadline: Deadline, is_stopped: Stopped = None) -> None:
        """Connect and say HELLO. Raises ConnectionFailed, Timeout, or what the broker answers."""
        self._sock.close()
        token = self._credentials.token()
        sock = _connect(self._address, self._credentials, deadline)
        with self._lock:
            self._sock = sock
            if self.failure is not None:
                sock.close()
                raise ConnectionFailed(self.failure.message)
        self._readable.register(sock, select.POLLIN)
        self._writable.register(sock, select.POLLOUT)
        hello = Hello(MAGIC, VERSION_MIN, VERSION_MAX, client_name, client_id, token)
        try:
            patience = deadline.at_most(HELLO_SECONDS)
            call = self._begin(HELLO, hello, patience)
            if not self.is_answered(call, patience, is_stopped) and not deadline.is_over:
                raise ConnectionFailed(f"the broker at {self._address} does not answer HELLO within {HELLO_SECONDS} s")
            self.server: HelloReply = self.wait(call, patience)
            if missing := [name for name in LIMITS_NEEDED if name not in self.server.limits]:
                raise ProtocolError(f"the broker at {self._address} does not tell its limits {', '.join(missing)}")
            self._decoder.frame_bytes_max = min(self.server.limits["frame_bytes_max"], FRAME_BYTES_MAX)
        except BaseException as error:
            self._fail(ConnectionFailed("HELLO failed"))
            if isinstance(error, ProtocolError) and not self._was_told:
                raise ProtocolError(f"what answers at {self._address} is not a RocksMQ broker: check host and port") from error
            raise

    def begin(self, request: Any, deadline: Deadline) -> Call:
        """Send a request; its reply is had by `wait`. Raises InvalidRequest, ConnectionFailed, Timeout."""
        return self._begin(PING if isinstance(request, Empty) else OP_OF_REQUEST[type(request)], request, deadline)

    def _begin(self, op: Operation, request: Any, deadline: Deadline) -> Call:
        with self._send_lock:  # each sender is bounded by a deadline of its own
            if self.is_sending:
                # A signal handler in the midst of a frame, or an interrupt at the end of one: the stream is of no more use.
                self._fail(ConnectionFailed(f"a request to {self._address} was interrupted"))
            self.is_sending = True
            try:
                return self._begin_locked(op, request, deadline)
            finally:
                self.is_sending = False
                self._let_go()

    def _begin_locked(self, op: Operation, request: Any, deadline: Deadline) -> Call:
        call = Call(op)
        self._correlation = correlation = self._correlation % 0xFFFF_FFFF + 1
        buffers = encode_request(op, correlation, request)
        with self._lock:
            if self.failure is not None:
                raise type(self.failure)(self.failure.message)
            if not self._calls:
                self._last_received = time.monotonic()  # silence counts from the first request on
            self._calls[correlation] = call
        self._send(buffers, deadline)
        return call

    def wait(self, call: Call, deadline: Deadline, is_stopped: Stopped = None) -> Any:
        """The reply to ``call``. Raises what the broker answered, ConnectionFailed, or Timeout."""
        if not self.is_answered(call, deadline, is_stopped):
            raise Timeout(f"the broker did not answer {call.op.name} in time")
        return call.result()

    def is_answered(self, call: Call, deadline: Deadline, is_stopped: Stopped = None) -> bool:
        """Whether ``call`` has its reply or error by the deadline; one thread at a time waits for a call."""
        if is_stopped is None:
            return self._is_answered(call, deadline)
        while not self._is_answered(call, deadline.at_most(SLICE_SECONDS)):
            if deadline.is_over:
                return False
            check_not(is_stopped)
        return True

    def _is_answered(self, call: Call, deadline: Deadline) -> bool:
        while not call.done:
            leads = is_suspended = False
            wakeup = threading.Event()
            try:
                with self._lock:
                    if call.done:
                        break
                    is_suspended = self._reader == threading.get_ident()  # it reads, and a signal handler in its midst waits
                    if is_suspended:
                        pass
                    elif self._reader is not None:
                        call.wakeup = wakeup
                    else:
                        self._reader, leads = threading.get_ident(), True
                if leads or is_suspended:
                    self._read_until(call, deadline)
                else:
                    wakeup.wait(min(deadline.remaining, threading.TIMEOUT_MAX))
                if deadline.is_over and not call.done:
                    self._wait_no_more(call, wakeup)
                    return False
            except BaseException:
                self._wait_no_more(call, wakeup)
                raise
            finally:
                if leads:
                    self._reader = None  # a plain store, in which no interrupt can strike
                    self._let_go()
                    self._hand_over()
        return True

    def _wait_no_more(self, call: Call, wakeup: threading.Event) -> None:
        """Nobody waits for ``call`` any longer; if it was asked to read, another is."""
        with self._lock:
            call.wakeup = None
            was_asked = wakeup.is_set() and not call.done and self._reader is None
        if was_asked:
            self._hand_over()

    def is_alive(self) -> bool:
        """Whether the connection can be used; finds out about an end that came while nobody read."""
        leads = False
        try:
            with self._lock:
                if self.failure is not None or self._reader is not None:
                    return self.failure is None
                self._reader, leads = threading.get_ident(), True
            self._receive_what_came()
        finally:
            if leads:
                self._reader = None
                self._let_go()
                self._hand_over()
        return self.failure is None

    def receive_if_reader(self) -> None:
        """Deliver what has come if this thread is the reader: then it is a signal handler in the midst of reading that asks."""
        if self._reader == threading.get_ident() and not self._is_receiving:
            self._receive_what_came()

    def _receive_what_came(self) -> None:
        """Read without waiting; whoever calls this is the only reader."""
        until = time.monotonic() + LOOK_SECONDS
        while self.failure is None and self._has_come(0.0):
            self._receive()
            if time.monotonic() > until:
                return

    def abandon(self) -> None:
        """In a forked child: let go of the socket, which is the parent's, without a word on it."""
        if (descriptor := self._sock.detach()) >= 0:
            os.close(descriptor)

    def close(self) -> None:
        """End the connection; callers that wait get ConnectionFailed. Never blocks."""
        self._fail(ConnectionFailed("the client was closed"))
        self._let_go()  # in case an interrupt kept one from it who failed before

    # -- reading -----------------------------------------------------------------

    def _read_until(self, call: Call, deadline: Deadline) -> None:
        """Read for all until ``call`` is answered or the deadline is over."""
        while not call.done:
            silent = time.monotonic() - self._last_received
            patience = PING_SECONDS - silent if silent < PING_SECONDS else 1.0
            if self._has_come(min(deadline.remaining, patience)):
                self._receive()
            else:
                self._check_silence()
            if deadline.is_over:
                return

    def _has_come(self, seconds: float) -> bool:
        """Whether there is something to `_receive`, or is within so many seconds."""
        return self._decoder.has_frame or bool(self._readable.poll(1_000 * seconds))

    def _check_silence(self) -> None:
        silent = time.monotonic() - self._last_received
        if silent >= PING_SECONDS + DEAD_SECONDS:
            self._fail(ConnectionFailed(f"the broker at {self._address} has been silent for {silent:.0f} s"))
        elif silent >= PING_SECONDS:
            self._ping()

    def _ping(self) -> None:
        """Let the broker hear something. Whoever reads must not wait for a sender, whose bytes serve as well."""
        if self._ping_call is not None and not self._ping_call.done:
            return
        if self._send_lock.acquire(blocking=False):
            try:
                if not self.is_sending and self._writable.poll(0):
                    self._ping_call = self._begin(PING, Empty(), Deadline(DEAD_SECONDS))
            finally:
                self._send_lock.release()

    def _receive(self) -> None:
        """Read what is there and deliver it, or as much as LOOK_SECONDS allow; whoever calls this is the only reader."""
        if self._is_receiving:
            self._fail(ConnectionFailed(f"reading from {self._address} was interrupted"))
            return
        self._is_receiving = True
        until = time.monotonic() + LOOK_SECONDS
        try:
            has_more = True
            while has_more:
                has_more = self._decoder.has_frame or self._fill()
                while (body := self._decoder.next_frame()) is not None:
                    self._deliver(decode(body))
                    if time.monotonic() > until and self._decoder.has_frame:
                        return
        except (BlockingIOError, InterruptedError):
            pass
        except OSError as error:
            self._fail(ConnectionFailed(f"the connection to {self._address} was lost: {error.strerror or error}"))
        except RocksMQError as error:
            self._fail(error)
        except BaseException:
            # Interrupted between the socket and the decoder: what was received is lost, and the stream with it.
            self._fail(ConnectionFailed(f"reading from {self._address} was interrupted"))
            raise
        finally:
            self._is_receiving = False

    def _fill(self) -> bool:
        """Read once; whether more may be there that poll does not show: what TLS holds."""
        space = self._decoder.space()
        count = self._sock.recv_into(space)
        if not count:
            raise ConnectionFailed(f"the broker at {self._address} closed the connection")
        self._last_received = time.monotonic()
        self._decoder.received(count)
        return self._address.is_tls and count == len(space)

    def _deliver(self, items: list[Any]) -> None:
        if not items or type(items[0]) is not int:
            raise ProtocolError(f"what answers at {self._address} is not a RocksMQ broker")
        if items[0] == NO_CORRELATION:
            if len(items) == 2 and items[1] == SUCCESS and self._is_greeted:
                self._ping()
                return
            told = decode_error(items)
            self._was_told = True
            raise told
        with self._lock:
            call = self._calls.pop(items[0], None)
        if call is None:
            raise ProtocolError(f"the broker at {self._address} answered a request that was not made")
        try:
            # Large columns are views of the receive buffer, which the next read overwrites.
            call.reply = decode_reply(call.op, [bytes(v) if type(v) is memoryview else v for v in items])
            self._is_greeted = True  # HELLO is answered first
        except RocksMQError as error:
            call.error = error
        self._finish(call)

    def _finish(self, call: Call) -> None:
        with self._lock:
            call.done = True
            if call.wakeup is not None:
                call.wakeup.set()

    def _hand_over(self) -> None:
        """If nobody reads, wake one of those who wait, to do it."""
        with self._lock:
            if self._reader is not None:
                return
            for call in self._calls.values():
                if call.wakeup is not None and not call.done:
                    call.wakeup.set()
                    return

    # -- sending and ending --------------------------------------------------------

    def _send(self, buffers: list[Buffer], deadline: Deadline) -> None:
        views = [memoryview(buffer) for buffer in buffers]
        begin = 0
        try:
            while begin < len(views):
                try:
                    sent = self._sock.sendmsg(views[begin : begin + BUFFERS_MAX])
                except (BlockingIOError, InterruptedError):
                    if not self._writable.poll(1_000 * min(deadline.remaining, 3_600.0)) and deadline.is_over:
                        raise Timeout("the broker does not take the request in time") from None
                    continue
                while begin < len(views) and sent >= len(views[begin]):
                    sent -= len(views[begin])
                    begin += 1
                if sent:
                    views[begin] = views[begin][sent:]
        except BaseException as error:
            if isinstance(error, OSError) and not isinstance(error, Timeout):
                self._fail(ConnectionFailed(f"the connection to {self._address} was lost: {error.strerror or error}"))
                return
            # A frame that was sent in part leaves the stream unusable.
            self._fail(ConnectionFailed(f"a request to {self._address} could not be sent whole"))
            raise

    def _fail(self, error: RocksMQError) -> None:
        """The connection is over; what is in flight has an unknown outcome, whatever the broker's last word was."""
        lost = error
        if not isinstance(lost, (ConnectionFailed, ProtocolError)):
            lost = ConnectionFailed(f"the broker at {self._address} ended the connection: {error.message}")
        with self._lock:
            if self.failure is not None:
                return
            self.failure = lost
            calls, self._calls = list(self._calls.values()), {}
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)  # wakes a reader in poll
        self._let_go()
        for call in calls:
            call.error = error if call.op is HELLO else type(lost)(lost.message)
            self._finish(call)

    def _let_go(self) -> None:
        """Close the socket of a connection that is over, unless another thread polls it, or is about to: by then its number
        may be another's."""
        if self.failure is None:
            return
        with self._lock:
            if self._reader in (None, threading.get_ident()) and not self.is_sending:
                self._sock.close()


def _connect(address: Address, credentials: Credentials, deadline: Deadline) -> socket.socket | TlsSocket:
    try:
        sock = socket.create_connection((address.host, address.port), min(deadline.remaining, CONNECT_SECONDS) or 0.001)
    except UnicodeError:
        raise InvalidRequest(f"{address.host!r} is no host name") from None
    except OSError as error:
        if isinstance(error, TimeoutError) and deadline.is_over:
            raise Timeout(f"no broker answered at {address} in time") from None
        raise ConnectionFailed(
            f"no broker answers at {address}: {error.strerror or error}. Is rocksmqd running there?"
        ) from None
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if credentials.context is None:
        return sock
    try:
        return TlsSocket(sock, address, credentials.context, deadline.at_most(HELLO_SECONDS))
    except BaseException:
        sock.close()
        raise
