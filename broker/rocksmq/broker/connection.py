"""One client's socket: frames in, replies out, bounded both ways.

Owns the socket, the receive buffer and what could not be sent yet. Replies are sent at once,
from whoever has them, on the non-blocking socket; only what the socket does not take waits for
a task. A connection with too much in flight or unsent is not read until that has
drained. What frames mean is `Session`'s business; when to give up, `Sweeper`'s.
"""

import errno
import logging
import socket
import ssl
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from itertools import islice
from typing import Protocol

import trio

from rocksmq.protocol.cbor import Buffer
from rocksmq.protocol.errors import ProtocolError, RocksMQError, Unauthenticated, UnsupportedVersion
from rocksmq.protocol.frames import FrameDecoder
from rocksmq.protocol.tls import CIPHERTEXT_BYTES, TlsStream

from .limits import Limits

logger = logging.getLogger("rocksmq.broker")

VIEW_BYTES = 256  # what a buffer that waits costs beside its bytes
BUFFERS_MAX = 1_024  # of one sendmsg: IOV_MAX on Linux
LINGER_SECONDS = 1.0
HOARD_BYTES = 64 * 1024  # less, of as many connections as there may be, is little
UNAUTHENTICATED_SECONDS = 0.1  # until whoever has no good token is told so
# So long is the turn of one connection before others get theirs: thousands of small frames, or large ones that never stop.
TURN_SECONDS = 0.002
FRAMES_A_TURN = 64
_NOT_TLS = {"WRONG_VERSION_NUMBER", "HTTP_REQUEST"}  # OpenSSL's words
_GONE = {errno.EPIPE, errno.ECONNRESET, errno.EBADF, errno.ENOTCONN, errno.ECONNABORTED, errno.ETIMEDOUT}


class Receiver(Protocol):
    """What a connection hands its frames to."""

    def receive(self, body: "memoryview[int]") -> None:
        """Handle one frame; ``body`` is valid until this returns. Raises ProtocolError, UnsupportedVersion or Unauthenticated
        to end it all."""
        ...

    @property
    def must_wait(self) -> bool:
        """Whether the next frame should stay unread for now."""
        ...

    async def may_go_on(self) -> None:
        """Wait until something changed about `must_wait`. Then a frame is handed over at once, or too much is unsent."""
        ...

    def refuse(self, error: RocksMQError) -> None:
        """Tell the client why the connection ends."""
        ...


class Octets:
    """Bytes of all connections, as they went over the sockets."""

    __slots__ = ("received", "sent")

    def __init__(self) -> None:
        self.received = self.sent = 0


class Memory:
    """What all connections hold, in bytes; ``relieve`` closes one of them when that becomes more than ``most``."""

    __slots__ = ("_most", "_relieve", "held")

    def __init__(self, most: int, relieve: Callable[[], None]) -> None:
        self.held = 0
        self._most = most
        self._relieve = relieve

    def add(self, size: int) -> None:
        """Take note of ``size`` bytes more, or less if it is below 0."""
        self.held += size
        if self.held > self._most and size > 0:
            self._relieve()


class Connection:
    """The socket of one client. `close` may be called at any time, by anyone, more than once."""

    def __init__(
        self,
        sock: socket.socket,
        limits: Limits,
        spawn: Callable[[Callable[[], Awaitable[None]]], None],
        octets: Octets,
        memory: Memory,
        *,
        tls: TlsStream | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``spawn`` starts the task that sends what the socket does not take at once."""
        sock.setblocking(False)
        self.limits = limits
        self.decoder = FrameDecoder(limits.handshake_bytes_max, "handshake_bytes_max")
        self.unsent_bytes = 0
        self.opened = self.last_received = self.last_sent = self._unsent_since = clock()
        self.frame_began: float | None = None  # when the first byte of an incomplete frame came
        self.closed = False
        self.is_paused = False  # not read, for the broker's own reasons
        self._clock = clock
        self._octets = octets
        self._memory = memory
        self.held_bytes = 0  # of ``memory``
        self._sock = sock
        self._tls = tls
        self._spawn = spawn
        self._turn_ends = clock() + TURN_SECONDS
        self._turn_frames = 0
        self._is_draining = False
        self._is_receiving = False  # into the decoder's buffer, which must stay where it is
        self._unsent: deque[memoryview[int]] = deque()
        self._drained = trio.Event()
        self.on_drained: Callable[[], None] = lambda: None

    @property
    def is_established(self) -> bool:
        """Whether frames can pass: at once, or after the handshake of TLS."""
        return self._tls is None or self._tls.is_established

    async def read(self, receiver: Receiver) -> None:
        """Receive frames until the client or `close` ends the connection."""
        try:
            while not self.closed:
                self.decoder.space()
                self._note_held()  # which may take the room away again
                # Nothing here holds on to the room meanwhile, not even an exception: `shrink` is to give it back.
                received = self._receive(self.decoder.space())
                if received == 0 or self.closed:  # by what TLS had to say
                    return
                if received is None:
                    await trio.lowlevel.wait_readable(self._sock)
                    self._begin_turn()
                    continue
                self.last_received = self._clock()
                self.decoder.received(received)
                await self._hand_over(receiver)
        except (ProtocolError, Unauthenticated, UnsupportedVersion) as error:
            if isinstance(error, Unauthenticated):
                await trio.sleep(UNAUTHENTICATED_SECONDS)
            receiver.refuse(error)
            await self.linger()
        except trio.ClosedResourceError:
            pass
        except OSError as error:
            if error.errno not in _GONE:
                logger.warning("a connection was lost: %s", error)

    def _receive(self, space: "memoryview[int]") -> int | None:
        """Fill ``space`` with what has come; how much, 0 at the end, None: nothing yet. Raises OSError, ProtocolError."""
        self._is_receiving = True
        try:
            return self._received_plain(space) if self._tls is None else self._received_sealed(self._tls, space)
        except (BlockingIOError, InterruptedError):
            return None
        finally:
            self._is_receiving = False

    def _received_plain(self, space: "memoryview[int]") -> int:
        received = self._sock.recv_into(space)
        self._octets.received += received
        return received

    def _received_sealed(self, tls: TlsStream, space: "memoryview[int]") -> int | None:
        try:
            count = tls.read_into(space)
            if count is None:
                data = self._sock.recv(CIPHERTEXT_BYTES)
                self._octets.received += len(data)
                tls.received(data)
                count = tls.read_into(space)
        except ssl.SSLError as error:
            if error.reason in _NOT_TLS:
                self._tls = None  # so that whoever speaks without is told in its own words
                raise ProtocolError("this port speaks TLS: begin the URL with rocksmqs://") from error
            raise ProtocolError(f"the handshake of TLS failed, or what came after it is none ({error.reason})") from error
        finally:
            self.send([])  # what TLS itself has to say
        return count

    async def _hand_over(self, receiver: Receiver) -> None:
        while True:
            if self._turn_frames >= FRAMES_A_TURN or self._clock() > self._turn_ends:
                await trio.lowlevel.checkpoint()
                self._begin_turn()
            await self._pause(receiver)
            body = None if self.closed else self.decoder.next_frame()
            if body is None:
                break
            self._turn_frames += 1
            self.frame_began = None
            receiver.receive(body)
        if self.decoder.pending_bytes and self.frame_began is None:
            self.frame_began = self._clock()

    def _begin_turn(self) -> None:
        """The others have just had theirs."""
        self._turn_ends = self._clock() + TURN_SECONDS
        self._turn_frames = 0

    async def _pause(self, receiver: Receiver) -> None:
        """Leave what was received alone while there is too much of this connection; that time does not count against it."""
        while not self.closed:
            if self.unsent_bytes > self.limits.output_bytes_max:
                self.is_paused = True
                await self._drained.wait()
            elif receiver.must_wait and self.decoder.has_frame:
                self.is_paused = True
                await receiver.may_go_on()
            else:
                break
        if self.is_paused:
            self.is_paused = False
            self.last_received = self._clock()
            self.frame_began = None

    async def linger(self) -> None:
        """Let the last frame arrive: closing with bytes unread would reset the connection and lose it."""
        with trio.move_on_after(LINGER_SECONDS), suppress(OSError, ProtocolError, trio.ClosedResourceError):
            discarded = memoryview(bytearray(4_096))
            while not self.closed and not self.is_established:
                await trio.lowlevel.wait_readable(self._sock)
                self._receive(discarded)
            self._say_end()
            self._sock.shutdown(socket.SHUT_WR)
            while not self.closed:
                await trio.lowlevel.wait_readable(self._sock)
                if not self._sock.recv_into(discarded):
                    return

    def send(self, buffers: Sequence[Buffer]) -> None:
        """Send a frame: what the socket takes now, the rest later. Never blocks; a lost connection swallows it."""
        if self.closed:
            return
        if self._tls is not None:
            try:
                buffers = self._tls.sealed(buffers)
            except ssl.SSLError:  # whoever reads finds out too
                buffers = self._tls.taken()
            if not buffers:
                return
        was_idle = not self._unsent
        views = [memoryview(buffer) for buffer in buffers]
        self._unsent += views
        self.unsent_bytes += sum(map(len, views)) + len(views) * VIEW_BYTES
        if was_idle:
            self.last_sent = self._unsent_since = self._clock()  # from here on, progress is due
        if not self._is_draining:  # else that goes on with it: it may be what calls this
            self._send_now()
            if self._unsent:
                self._is_draining = True
                self._spawn(self._drain)
        self._note_held()

    async def _drain(self) -> None:
        """Send what waits; returns when nothing is left or the connection is closed."""
        try:
            while self._unsent:
                await trio.lowlevel.wait_writable(self._sock)
                self._send_now()
                self._note_held()
                if self.unsent_bytes <= self.limits.output_bytes_max:
                    self._drained.set()
                    self._drained = trio.Event()
                    self.on_drained()
        except (trio.ClosedResourceError, OSError):
            self.close()
        finally:
            self._is_draining = False

    def _send_now(self) -> None:
        """Send from the front what the socket takes."""
        try:
            while self._unsent:
                sent = self._sock.sendmsg(islice(self._unsent, BUFFERS_MAX))
                self.last_sent = self._clock()
                self.unsent_bytes -= sent
                self._octets.sent += sent
                while self._unsent and sent >= len(self._unsent[0]):
                    sent -= len(self._unsent.popleft())
                    self.unsent_bytes -= VIEW_BYTES
                if sent:
                    self._unsent[0] = self._unsent[0][sent:]
        except (BlockingIOError, InterruptedError):
            pass
        except OSError:
            self.close()

    @property
    def hoards_since(self) -> float | None:
        """Since when it has held more than HOARD_BYTES of a frame, or of what the client does not take; None: it does not."""
        received_since = self.last_received if self.frame_began is None else self.frame_began
        received = [received_since] if self.decoder.pending_bytes > HOARD_BYTES else []
        return min([*received, *([self._unsent_since] if self.unsent_bytes > HOARD_BYTES else [])], default=None)

    def shrink(self) -> None:
        """Give back what is not needed for what has come."""
        if not self._is_receiving:
            self.decoder.shrink()
            self._note_held()

    def _note_held(self) -> None:
        held = 0 if self.closed else self.unsent_bytes + self.decoder.buffer_bytes
        change, self.held_bytes = held - self.held_bytes, held
        if change:
            self._memory.add(change)

    def _say_end(self) -> None:
        """Tell the other side that no more comes, by TLS, which cannot know it from the socket."""
        if self._tls is not None and not self._unsent and (last := self._tls.ended()):
            with suppress(OSError):
                self._sock.sendmsg(last)

    def close(self) -> None:
        """End the connection; whoever reads or drains is woken."""
        if not self.closed:
            self._say_end()
            self.closed = True
            trio.lowlevel.notify_closing(self._sock)
            self._sock.close()
            self._unsent.clear()
            self.unsent_bytes = 0
            self._note_held()
            self._drained.set()
