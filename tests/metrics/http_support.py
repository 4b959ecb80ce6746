"""What the tests of HTTP share: a clock that jumps, a connection made of pieces, and the answers as a client reads them."""

import functools
import itertools
from collections.abc import Callable, Coroutine, Iterable, Iterator
from typing import Any, NamedTuple, ParamSpec

import h11
import trio
from trio.testing import MockClock

from rocksmq.metrics.http import TEXT, Exchange, HttpLimits, Request, Response, Route

Params = ParamSpec("Params")
LIMITS = HttpLimits()
HELLO = Response(200, TEXT, b"hello\n")
LINES = [b"line %d\n" % number for number in range(1_000)]


def in_mock_time(test: Callable[Params, Coroutine[Any, Any, None]]) -> Callable[Params, None]:
    """Run an async test on a clock that jumps ahead whenever nothing has happened for 2 ms."""

    @functools.wraps(test)
    def run(*args: Params.args, **kwargs: Params.kwargs) -> None:
        trio.run(functools.partial(test, *args, **kwargs), clock=MockClock(autojump_threshold=0.002))

    return run


def lines(request: Request) -> Response:
    """A route whose answer is an iterator."""
    return Response(200, TEXT, iter(LINES))


def shown(request: Request) -> Response:
    """A route that tells what it was asked."""
    return Response(200, TEXT, repr(request).encode())


def without_end(request: Request) -> Response:
    """A route whose answer never ends."""
    return Response(200, TEXT, itertools.repeat(bytes(1_000)))


def broken(request: Request) -> Response:
    """A route whose answer breaks off."""

    def body() -> Iterator[bytes]:
        yield b"begun\n"
        raise RuntimeError("half-way")

    return Response(200, TEXT, body())


def raising(request: Request) -> Response:
    """A route with a bug."""
    raise RuntimeError("no answer")


ROUTES: dict[str, Route] = {
    "/": lambda request: HELLO,
    "/lines": lines,
    "/shown": shown,
    "/endless": without_end,
    "/broken": broken,
    "/raising": raising,
}


def get(path: str, *headers: str, method: str = "GET", version: str = "1.1") -> bytes:
    """The bytes of a request."""
    return "\r\n".join([f"{method} {path} HTTP/{version}", "Host: localhost", *headers, "", ""]).encode()


class Answer(NamedTuple):
    """What a client made of it."""

    status: int
    headers: dict[str, str]
    body: bytes


def answer_of(data: bytes, method: str = "GET") -> Answer:
    """Raises h11.RemoteProtocolError for what is not one whole answer and the end of the connection."""
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method=method, target="/", headers=[("Host", "localhost")]))
    client.send(h11.EndOfMessage())
    client.receive_data(data)
    client.receive_data(b"")
    response = client.next_event()
    assert isinstance(response, h11.Response), response
    body = b""
    while isinstance(event := client.next_event(), h11.Data):
        body += event.data
    assert isinstance(event, h11.EndOfMessage)
    assert isinstance(client.next_event(), h11.ConnectionClosed)
    return Answer(response.status_code, {name.decode(): value.decode() for name, value in response.headers}, body)


class Pieces(trio.abc.HalfCloseableStream):
    """A client that sends these pieces, then its end, and takes whatever it gets."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self.left = [piece for piece in pieces if piece]
        self.received = b""
        self.has_eof = False

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        assert max_bytes
        await trio.lowlevel.checkpoint()
        if not self.left:
            return b""
        piece = self.left.pop(0)
        if len(piece) > max_bytes:
            self.left.insert(0, piece[max_bytes:])
        return piece[:max_bytes]

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint()
        assert not self.has_eof
        self.received += data

    async def wait_send_all_might_not_block(self) -> None:
        raise NotImplementedError

    async def send_eof(self) -> None:
        await trio.lowlevel.checkpoint()
        self.has_eof = True

    async def aclose(self) -> None:
        raise NotImplementedError


async def exchanged(*pieces: bytes, limits: HttpLimits = LIMITS) -> Pieces:
    """A client that has sent ``pieces``, and was served."""
    client = Pieces(pieces)
    assert await Exchange(client, ROUTES, limits, trio.Lock()).run()
    return client


async def answered(*pieces: bytes, method: str = "GET", limits: HttpLimits = LIMITS) -> Answer:
    """What it was answered."""
    return answer_of((await exchanged(*pieces, limits=limits)).received, method)


def cut(data: bytes, at: Iterable[int]) -> list[bytes]:
    """``data`` in pieces."""
    places = [0, *sorted(place % (len(data) + 1) for place in at), len(data)]
    return [data[begin:end] for begin, end in itertools.pairwise(places)]
