"""A network between a client and one etcd that can fail: a TCP proxy on the loopback, in a thread of its own.

It keeps the connections of a network that drops packets, which no signal to a process imitates: neither end hears of it. Each
change holds from the moment the method returns. It knows nothing of what it forwards.
"""

import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from enum import Enum
from types import TracebackType
from typing import Self

import trio

CHUNK_BYTES = 64 * 1024
_RESET = struct.pack("ii", 1, 0)


class Way(Enum):
    """Which way bytes go: to etcd, or to its client."""

    UP = "up"
    DOWN = "down"


class _Gate:
    """Lets pass, or keeps waiting."""

    def __init__(self) -> None:
        self._opened = trio.Event()
        self._opened.set()

    def open(self) -> None:
        self._opened.set()

    def shut(self) -> None:
        if self._opened.is_set():
            self._opened = trio.Event()

    async def passed(self) -> None:
        while not self._opened.is_set():
            await self._opened.wait()


class _Link:
    """One connection: of the client, and the one to etcd that belongs to it."""

    def __init__(self, client: trio.SocketStream) -> None:
        self.ends = [client]
        self.scope = trio.CancelScope()
        self.closed = trio.Event()

    def reset(self) -> None:
        """Let its closing send RST, as of a machine that has forgotten it, and close it."""
        for end in self.ends:
            with suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.scope.cancel()


class EtcdProxy:
    """A context manager. Clients go to `endpoint` instead of ``upstream`` (``HOST:PORT``).

    ``forwarded`` counts the bytes of each way, and ``connections`` those that were taken. A connection is taken in a black hole
    too, by the kernel at least: that one cannot drop a client's first packet without root. `delay_s` is what each piece waits,
    each way, and may be changed at any time.
    """

    def __init__(self, upstream: str) -> None:
        self.upstream = upstream
        self.delay_s = 0.0
        self.connections = 0
        self.forwarded: Counter[Way] = Counter()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1_024)
        self.endpoint = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._gates = {way: _Gate() for way in Way}
        self._links: set[_Link] = set()
        self._scope = trio.CancelScope()
        self._token: trio.lowlevel.TrioToken | None = None
        self._failure: BaseException | None = None
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="etcd proxy")

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with suppress(trio.RunFinishedError):
            self._do(self._scope.cancel)
        self._thread.join()
        self._listener.close()
        if self._failure is not None:
            raise self._failure

    def url(self, prefix: str) -> str:
        """What the broker takes for its positions' place."""
        return f"etcd://{self.endpoint}/{prefix.lstrip('/')}"

    def mend(self) -> None:
        """Forward again; first what a black hole kept, as packets that are sent again."""
        self._do(*(gate.open for gate in self._gates.values()))

    def black_hole(self) -> None:
        """Forward nothing, and keep all connections, until `mend` or `cut`. An end that closes one is not heard of either."""
        self._do(*(gate.shut for gate in self._gates.values()))

    def lose_replies(self) -> None:
        """Forward to etcd only: what is asked of it happens, and nobody hears of it."""
        self._do(self._gates[Way.DOWN].shut)

    def cut(self) -> None:
        """Reset all connections, and drop what a black hole kept of them; those that come are treated as before."""
        assert self._token is not None, "it was entered"
        trio.from_thread.run(self._cut, trio_token=self._token)

    def _do(self, *changes: Callable[[], None]) -> None:
        def all_at_once() -> None:
            for change in changes:
                change()

        assert self._token is not None, "it was entered"
        trio.from_thread.run_sync(all_at_once, trio_token=self._token)

    async def _cut(self) -> None:
        links = list(self._links)
        for link in links:
            link.reset()
        for link in links:
            await link.closed.wait()

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
        listener = trio.SocketListener(trio.socket.from_stdlib_socket(self._listener))
        with self._scope:
            async with trio.open_nursery() as nursery:
                while True:
                    link = _Link(await listener.accept())
                    self.connections += 1
                    self._links.add(link)
                    nursery.start_soon(self._connection, link)

    async def _connection(self, link: _Link) -> None:
        try:
            with link.scope:
                await self._forward_both(link)
        finally:
            for end in link.ends:
                with trio.CancelScope(shield=True):
                    await trio.aclose_forcefully(end)
            self._links.discard(link)
            link.closed.set()

    async def _forward_both(self, link: _Link) -> None:
        """Forward until one end has ended the connection, or cannot be reached."""
        await self._gates[Way.UP].passed()
        host, port = self.upstream.rsplit(":", 1)
        try:
            server = await trio.open_tcp_stream(host, int(port))
        except OSError:
            link.reset()
            return
        (client,) = link.ends
        link.ends.append(server)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._forward, Way.UP, client, server, link)
            nursery.start_soon(self._forward, Way.DOWN, server, client, link)

    async def _forward(self, way: Way, source: trio.SocketStream, sink: trio.SocketStream, link: _Link) -> None:
        while True:
            try:
                data = await source.receive_some(CHUNK_BYTES)
            except trio.BrokenResourceError:
                data = b""
            if self.delay_s:
                await trio.sleep(self.delay_s)
            await self._gates[way].passed()
            self.forwarded[way] += len(data)  # at once: no change comes between
            try:
                if data:
                    await sink.send_all(data)
            except trio.BrokenResourceError:
                data = b""
            if not data:
                link.scope.cancel()
                return
