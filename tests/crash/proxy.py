"""A bad link: a TCP proxy on the loopback that ends, delays, splits and half-closes connections at random.

A seed replays the same decisions: `course` makes them by connection and byte offset. The proxy runs in a thread of its own.
"""

import socket
import struct
import threading
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from itertools import count
from types import TracebackType
from typing import NamedTuple, Self

import trio

from .course import Course, Ending, Intensity, Plan, Way, course_of

CHUNK_BYTES = 64 * 1024
LINGER_SECONDS = 1.0  # for the peers to close, before a connection that was ended by FIN is given up
_RESET = struct.pack("ii", 1, 0)


class _Link(NamedTuple):
    listener: socket.socket
    address: str
    seed: object

    @classmethod
    def open(cls, seed: object) -> "_Link":
        listener = socket.create_server(("127.0.0.1", 0), backlog=1_024)
        return cls(listener, f"127.0.0.1:{listener.getsockname()[1]}", seed)


class _Direction(NamedTuple):
    way: Way
    source: trio.SocketStream
    sink: trio.SocketStream
    course: Course


class Proxy:
    """A context manager. ``upstream`` (``HOST:PORT``) and ``intensity`` may be changed at any time, for connections to come.

    ``stats`` counts what was done: connections, refused (nobody upstream), each `Ending`, delays, pieces, and the bytes
    forwarded ``up`` and ``down``. Each of ``links`` has an address of its own and counts its connections by itself: with one
    for each client process, what a connection meets does not depend on who else connects when.
    """

    def __init__(self, upstream: str, seed: object, intensity: Intensity | None = None, links: Iterable[str] = ()) -> None:
        self.upstream = upstream
        self.intensity = intensity or Intensity()
        self.stats: Counter[str] = Counter()
        self._token: trio.lowlevel.TrioToken | None = None
        self._scope = trio.CancelScope()
        self._failure: BaseException | None = None
        link = _Link.open(seed)
        self._links = {name: _Link.open(f"{seed}/{name}") for name in links}
        self._all = (link, *self._links.values())
        self.address = link.address
        self.url = f"rocksmq://{self.address}"
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="proxy")

    def url_of(self, link: str) -> str:
        """The address of one of the links."""
        return f"rocksmq://{self._links[link].address}"

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._token is not None:
            with suppress(trio.RunFinishedError):
                self._token.run_sync_soon(self._scope.cancel)
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        try:
            trio.run(self._serve)
        except BaseException as error:
            self._failure = error
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._ready.set()
        with self._scope:
            async with trio.open_nursery() as nursery:
                for link in self._all:
                    nursery.start_soon(self._accept, link, nursery)

    async def _accept(self, link: "_Link", nursery: trio.Nursery) -> None:
        async with trio.SocketListener(trio.socket.from_stdlib_socket(link.listener)) as listener:
            for index in count():
                client = await listener.accept()
                nursery.start_soon(self._connection, client, link.seed, index)
                self.stats["connections"] += 1

    async def _connection(self, client: trio.SocketStream, seed: object, index: int) -> None:
        async with client:
            try:
                host, port = self.upstream.rsplit(":", 1)
                broker = await trio.open_tcp_stream(host, int(port))
            except OSError:
                self.stats["refused"] += 1
                return
            async with broker:
                intensity = self.intensity
                plan = Plan.of(seed, index, intensity)
                up = _Direction(Way.UP, client, broker, course_of(seed, index, Way.UP, intensity))
                down = _Direction(Way.DOWN, broker, client, course_of(seed, index, Way.DOWN, intensity))
                ending = await self._forward(up, down, plan)
                if ending is Ending.RST:
                    _reset(client, broker)
                elif ending is not None:
                    await _finish(client, broker)

    async def _forward(self, up: _Direction, down: _Direction, plan: Plan) -> Ending | None:
        """Forward until both directions have ended; None; or until the link ends both: how."""
        ending: Ending | None = None

        async def pump(direction: _Direction, nursery: trio.Nursery) -> None:
            nonlocal ending
            try:
                ending = await self._pump(direction, plan) or ending
            except trio.BrokenResourceError:
                ending = Ending.RST  # a peer reset its connection: so does the link with the other one
            if ending is not None:
                nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(pump, up, nursery)
            nursery.start_soon(pump, down, nursery)
        return ending

    async def _pump(self, direction: _Direction, plan: Plan) -> Ending | None:
        """Forward one direction until its end, which is passed on; or until the link ends the connection: how."""
        way, source, sink, course = direction
        ends_at = plan.at if plan.ending is not None and plan.way is way else None
        while data := memoryview(await source.receive_some(CHUNK_BYTES)):
            if ends_at is not None and course.offset + len(data) >= ends_at:
                assert plan.ending is not None, "it has a plan"
                self.stats[plan.ending] += 1
                # The last byte of a swallowed end is always one that was sent.
                kept = ends_at - course.offset - 1 if plan.ending is Ending.SWALLOW else len(data)
                await self._send(direction, data[:kept])
                if plan.ending is not Ending.HALF_CLOSE:
                    return plan.ending
                await _half_closed(source, sink)
                return None
            await self._send(direction, data)
        await sink.send_eof()
        return None

    async def _send(self, direction: _Direction, data: "memoryview[int]") -> None:
        for pause_s, piece, is_split in direction.course.steps(data):
            if pause_s:
                self.stats["delays"] += 1
                await trio.sleep(pause_s)
            self.stats["pieces"] += is_split
            await direction.sink.send_all(piece)
            self.stats[direction.way] += len(piece)


async def _half_closed(source: trio.SocketStream, sink: trio.SocketStream) -> None:
    """Close one direction; what still comes is thrown away."""
    await sink.send_eof()
    while await source.receive_some(CHUNK_BYTES):
        pass


def _reset(*ends: trio.SocketStream) -> None:
    """Let the closing of ``ends`` send RST."""
    for end in ends:
        with suppress(OSError):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)


async def _finish(*ends: trio.SocketStream) -> None:
    """Send FIN both ways, and take what still comes: closing with bytes unread would send RST."""

    async def drain(end: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError):
            await end.send_eof()
            while await end.receive_some(CHUNK_BYTES):
                pass

    with trio.move_on_after(LINGER_SECONDS):
        async with trio.open_nursery() as nursery:
            for end in ends:
                nursery.start_soon(drain, end)
