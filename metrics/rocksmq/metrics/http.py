"""HTTP for metrics and health: GET and HEAD of a few paths, one request a connection, everything bounded.

h11 reads the request's head and frames the answer; this module owns the sockets, the limits and the turns. Whatever bytes
come lead to an answer or to the end of that connection. A long answer is made a slice at a time, so
that the loop, which others share, is never held. Knows nothing of what it serves.
"""

import logging
import re
import socket
import struct
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from ipaddress import ip_address
from typing import NamedTuple, TypeAlias
from urllib.parse import parse_qs

import h11
import trio

logger = logging.getLogger("rocksmq.metrics")

TEXT = "text/plain; charset=utf-8"
METHODS = (b"GET", b"HEAD")
VERSIONS = (b"1.0", b"1.1")
LINES_MAX = 100  # of a head: h11 takes 2 us a line, and 8 KiB of empty ones would hold the loop for 5 ms
FIELDS_MAX = 1_000  # of a query
SLICE_BYTES = 65_536
LINGER_SECONDS = 1.0
LINGER_READS = 16
ACCEPT_PAUSE_SECONDS = 0.1  # when file descriptors have run out
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: what is unsent is thrown away, and the client sees that it was cut off
_HEAD_END = re.compile(rb"\n\r?\n")
# No head has these. Where h11 meets one behind spaces, it tries every way to part the spaces: 8 KiB took 0.26 s.
_CONTROL = re.compile(rb"[^\t\n\r\x20-\x7e\x80-\xff]|\r[^\n]")


class Request(NamedTuple):
    """What a route sees of a request; ``accept`` is the header of that name, empty if there was none."""

    path: str
    query: Mapping[str, list[str]]
    accept: str


class Response(NamedTuple):
    """An answer. An iterator is asked for its chunks as they are sent: each should be quick to make; some may be empty."""

    status: int
    content_type: str
    body: bytes | Iterator[bytes]


Route: TypeAlias = Callable[[Request], Response]


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """Counts and bytes, seconds where the name says so."""

    connections_max: int = 32  # more are closed at once
    request_bytes_max: int = 8_192  # the head; there is no body
    request_seconds: float = 5.0  # from the connection to the end of its head
    stalled_seconds: float = 10.0  # for the client to take a slice of the answer
    response_seconds: float = 60.0  # for it to take all of it
    slice_seconds: float = 0.0002  # of the loop's time for long answers, then it is left to others
    rest_seconds: float = 0.001  # for so long, whoever of the clients is served next


class HttpServer:
    """Serves ``routes``, by their paths, on one listening socket.

    ``connections`` is how many there are; ``refused`` counts those that were closed because there were too many.
    """

    def __init__(self, routes: Mapping[str, Route], limits: HttpLimits | None = None) -> None:
        self.refused = 0
        self._routes = routes
        self._limits = limits or HttpLimits()
        self._turn = trio.Lock()
        self._asking: OrderedDict[Exchange, trio.CancelScope] = OrderedDict()  # those without a whole request
        self.connections = 0

    async def serve(self, listener: socket.socket) -> None:
        """Accept on ``listener``, a listening socket, until cancelled; then close it and every connection."""
        listener.setblocking(False)
        is_loopback = ip_address(listener.getsockname()[0]).is_loopback
        with trio.socket.from_stdlib_socket(listener) as accepting:
            async with trio.open_nursery() as nursery:
                while True:
                    try:
                        sock, _ = await accepting.accept()
                    except OSError as error:
                        logger.warning("an HTTP connection could not be accepted: %s", error)
                        await trio.sleep(ACCEPT_PAUSE_SECONDS)
                        continue
                    if self.connections >= self._limits.connections_max and not self._makes_room():
                        self.refused += 1
                        sock.close()
                        continue
                    self.connections += 1
                    nursery.start_soon(self._run, trio.SocketStream(sock), is_loopback)

    def _makes_room(self) -> bool:
        """End the connection that has been there for longest without a whole request; False: there is none."""
        if not self._asking:
            return False
        self._asking.popitem(last=False)[1].cancel()
        self.refused += 1
        logger.warning(
            "HTTP: more than %d connections (http_connections_max); silent ones are closed", self._limits.connections_max
        )
        return True

    async def _run(self, stream: trio.SocketStream, is_loopback: bool) -> None:
        is_whole = False
        exchange = Exchange(stream, self._routes, self._limits, self._turn, is_loopback=is_loopback)
        exchange.on_asked = lambda: self._asking.pop(exchange, None)
        try:
            with trio.CancelScope() as self._asking[exchange]:
                is_whole = await exchange.run()
        except Exception:
            logger.exception("a bug: an HTTP connection ended by it")
        finally:
            exchange.on_asked()
            self.connections -= 1
            if not is_whole:
                with suppress(OSError):
                    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            await trio.aclose_forcefully(stream)


class _Refused(Exception):
    """The request is answered with ``status``, and a text that says why."""

    def __init__(self, status: HTTPStatus, why: str) -> None:
        self.response = Response(status, TEXT, f"{status} {status.phrase}: {why}\n".encode())


class Exchange:
    """One request on one connection, and its answer; ``turn`` is held by whose long answer is being made.

    ``is_loopback``: only who is on this machine is to be answered. A page in its browser is not, by whatever name of its own it
    leads there (DNS rebinding).
    """

    def __init__(
        self,
        stream: trio.abc.HalfCloseableStream,
        routes: Mapping[str, Route],
        limits: HttpLimits,
        turn: trio.Lock,
        *,
        is_loopback: bool = False,
    ) -> None:
        self._stream = stream
        self._routes = routes
        self._limits = limits
        self._turn = turn
        self._is_loopback = is_loopback
        self.on_asked: Callable[[], object] = lambda: None  # when the request is there
        self._http = h11.Connection(h11.SERVER)
        self._sends_body = True

    async def run(self) -> bool:
        """Whether all was sent that there was to send; the caller closes the stream, and resets it if not."""
        try:
            try:
                head = await self._receive()
                self.on_asked()
                if head is None:
                    return True
                response = self._answer(head)
            except _Refused as refusal:
                response = refusal.response
            if not await self._send(response):
                return False
        except (trio.BrokenResourceError, trio.TooSlowError):
            return False
        await self._linger()
        return True

    # -- the request -------------------------------------------------------------

    async def _receive(self) -> bytes | None:
        """The request's head; None when the client has left, or says nothing."""
        limits, head = self._limits, bytearray()
        with trio.move_on_after(limits.request_seconds):
            while True:
                piece = await self._stream.receive_some(limits.request_bytes_max - len(head))
                if not piece:
                    return None
                if self._is_whole(head, piece):
                    return bytes(head)
        if not head:
            return None
        raise _Refused(HTTPStatus.REQUEST_TIMEOUT, f"it took longer than {limits.request_seconds:g} s (http_request_seconds)")

    def _is_whole(self, head: bytearray, piece: bytes | bytearray) -> bool:
        """Whether ``head`` is, with ``piece``; what is behind it is dropped."""
        seen = len(head)
        head += piece
        end = _HEAD_END.search(head, max(0, seen - 2))
        if end is not None:
            del head[end.end() :]
        if _CONTROL.search(head, max(0, seen - 1)):
            raise _Refused(HTTPStatus.BAD_REQUEST, "this is not HTTP/1.1")
        if head.count(b"\n") > LINES_MAX:
            raise _Refused(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"it has more than {LINES_MAX} lines")
        if end is None and len(head) == (most := self._limits.request_bytes_max):
            raise _Refused(
                HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"it has more than {most} bytes (http_request_bytes_max)"
            )
        return end is not None

    def _answer(self, head: bytes) -> Response:
        request = self._parsed(head)
        route = self._routes.get(request.path)
        if route is None:
            raise _Refused(HTTPStatus.NOT_FOUND, "there is no such path")
        try:
            return route(request)
        except Exception:
            logger.exception("a bug: no answer for %s", request.path)
            raise _Refused(HTTPStatus.INTERNAL_SERVER_ERROR, "a bug was met, and the log has it") from None

    def _parsed(self, head: bytes) -> Request:
        try:
            self._http.receive_data(head)
            event = self._http.next_event()
        except h11.RemoteProtocolError as error:
            raise _Refused(HTTPStatus(error.error_status_hint), "this is not a request of HTTP/1.1") from None
        assert isinstance(event, h11.Request), "a whole head is a request"
        self._sends_body = event.method != b"HEAD"
        if event.http_version not in VERSIONS:
            raise _Refused(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "only HTTP/1.1 and 1.0 are spoken here")
        if event.method not in METHODS:
            raise _Refused(HTTPStatus.METHOD_NOT_ALLOWED, "only GET and HEAD are answered here")
        headers = dict(event.headers)  # h11 has seen to it that those of a body come once, and are what they should be
        if b"transfer-encoding" in headers or int(headers.get(b"content-length", b"0")):
            raise _Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "a request has no body here")
        if self._is_loopback and not _is_local(headers.get(b"host", b"").decode("latin-1")):
            raise _Refused(HTTPStatus.MISDIRECTED_REQUEST, "this is only for localhost: ask by that name, or by the address")
        accept = b", ".join(value for name, value in event.headers if name == b"accept")
        try:
            return Request(*_path_and_query(event.target.decode("ascii")), accept.decode("latin-1"))
        except ValueError:
            raise _Refused(HTTPStatus.BAD_REQUEST, "the path or its query cannot be read") from None

    # -- the answer --------------------------------------------------------------

    async def _send(self, response: Response) -> bool:
        """Send all of it; False when its body could not be made."""
        headers, reason = _headers(response), HTTPStatus(response.status).phrase
        pending = self._http.send(h11.Response(status_code=response.status, headers=headers, reason=reason.encode())) or b""
        chunks = _parts(response.body) if isinstance(response.body, bytes) else response.body
        if not self._sends_body:
            chunks = iter(())
        with trio.fail_after(self._limits.response_seconds):
            is_over = False
            while not is_over:
                try:
                    piece, is_over = await self._slice(chunks)
                except Exception:
                    logger.exception("a bug: an answer was cut off")
                    return False
                pending += self._http.send(h11.Data(data=piece)) or b""
                if is_over:
                    pending += self._http.send(h11.EndOfMessage()) or b""
                with trio.fail_after(self._limits.stalled_seconds):
                    await self._stream.send_all(pending)
                pending = b""
        return True

    async def _slice(self, chunks: Iterator[bytes]) -> tuple[bytes, bool]:
        """As many of ``chunks`` as are made in `slice_seconds`, and whether those were the last."""
        made: list[bytes] = []
        size = 0
        async with self._turn:
            ends = time.perf_counter() + self._limits.slice_seconds
            for chunk in chunks:
                made.append(chunk)
                size += len(chunk)
                if size >= SLICE_BYTES or time.perf_counter() >= ends:
                    await trio.sleep(self._limits.rest_seconds)
                    return b"".join(made), False
        return b"".join(made), True

    async def _linger(self) -> None:
        """Let the answer arrive: closing with bytes unread, as of a second request, would reset the connection and lose it."""
        with trio.move_on_after(LINGER_SECONDS), suppress(trio.BrokenResourceError):
            await self._stream.send_eof()
            for _ in range(LINGER_READS):
                if not await self._stream.receive_some(SLICE_BYTES):
                    return


def _path_and_query(target: str) -> tuple[str, dict[str, list[str]]]:
    """Raises ValueError."""
    if not target.startswith("/"):  # as for a proxy: http://host/path
        scheme, _, rest = target.partition("://")
        if scheme.lower() != "http":
            raise ValueError("neither a path nor a URL")
        target = "/" + rest.partition("/")[2]
    path, _, query = target.partition("?")
    return path, parse_qs(query, keep_blank_values=True, errors="strict", max_num_fields=FIELDS_MAX)


def _is_local(host: str) -> bool:
    """Whether the header says localhost, an address, or nothing; a port may follow."""
    name = re.sub(r":\d+$", "", host).strip("[]").lower()
    try:
        return name in ("", "localhost") or bool(ip_address(name))
    except ValueError:
        return False


def _headers(response: Response) -> list[tuple[str, str]]:
    headers = [
        ("Content-Type", response.content_type),
        ("Cache-Control", "no-store"),
        ("X-Content-Type-Options", "nosniff"),
        ("Date", formatdate(usegmt=True)),
        ("Connection", "close"),
    ]
    if isinstance(response.body, bytes):
        headers.append(("Content-Length", str(len(response.body))))
    if response.status == HTTPStatus.METHOD_NOT_ALLOWED:
        headers.append(("Allow", b", ".join(METHODS).decode()))
    return headers


def _parts(body: bytes) -> Iterator[bytes]:
    return (body[begin : begin + SLICE_BYTES] for begin in range(0, len(body), SLICE_BYTES))
