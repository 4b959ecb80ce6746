"""A broker in the test's own process, on a clock that jumps: time limits of minutes pass in no time."""

import socket
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

import trio
import trio.testing

from rocksmq.broker.auth import EVERYBODY, Authority
from rocksmq.broker.engine import RocksMQ
from rocksmq.broker.limits import Limits
from rocksmq.broker.server import Door, Server
from rocksmq.protocol.cbor import decode
from rocksmq.protocol.frames import FrameDecoder
from rocksmq.protocol.operations import Hello

from .raw import FRAME_BYTES_MAX, frame, hello, owned, request_items

PATIENCE_SECONDS = 60  # real ones: on the jumping clock, waiting for a thread of the broker would take for ever
AUTOJUMP_SECONDS = 0.002  # real ones, without anything to do, until the clock jumps; a busy machine must not look idle


def run(test: Callable[[], Awaitable[None]]) -> None:
    """Run ``test`` on a jumping clock. Raises trio.TooSlowError when it waits for what does not come."""

    async def bounded() -> None:
        token = trio.lowlevel.current_trio_token()
        with trio.CancelScope() as scope:
            watchdog = threading.Timer(PATIENCE_SECONDS, token.run_sync_soon, [scope.cancel])
            watchdog.start()
            try:
                await test()
            finally:
                watchdog.cancel()
                watchdog.join()
        if scope.cancelled_caught:
            raise trio.TooSlowError

    trio.run(bounded, clock=trio.testing.MockClock(autojump_threshold=AUTOJUMP_SECONDS))


@asynccontextmanager
async def served(
    directory: Path, limits: Limits, authority: Authority = EVERYBODY
) -> AsyncGenerator[tuple[RocksMQ, Server, int]]:
    """An engine, its server and the port that it serves on."""
    async with RocksMQ(directory, limits=limits) as engine:
        listener = socket.create_server(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        server = Server(engine.core, limits, clock=trio.current_time)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.serve, Door(listener, authority))
            yield engine, server, port
            nursery.cancel_scope.cancel()


class RawTrio:
    """A connection by hand."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self._correlation = 0
        self._decoder = FrameDecoder(FRAME_BYTES_MAX)

    @classmethod
    @asynccontextmanager
    async def connected(cls, port: int, greeting: Hello | None = None) -> AsyncGenerator[Self]:
        """One that said HELLO."""
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            raw = cls(stream)
            await raw.call(greeting or hello())
            yield raw

    @property
    def next_correlation(self) -> int:
        """The correlation id of the request that is sent next."""
        return self._correlation + 1

    async def send(self, request: Any) -> int:
        """Send a typed request; its correlation id."""
        self._correlation += 1
        await self.stream.send_all(frame(request_items(self._correlation, request)))
        return self._correlation

    async def call(self, request: Any) -> list[Any]:
        """The array that answers ``request``; pings of the broker are passed over."""
        correlation = await self.send(request)
        while True:
            items = await self.receive()
            if items[0] == correlation:
                return items

    async def receive(self) -> list[Any]:
        """The next frame's array. Raises EOFError at the end of the connection."""
        while (body := self._decoder.next_frame()) is None:
            space = self._decoder.space()
            try:
                data = await self.stream.receive_some(len(space))
            except trio.BrokenResourceError:
                data = b""
            if not data:
                raise EOFError("the broker closed the connection")
            space[: len(data)] = data
            self._decoder.received(len(data))
        return owned(decode(body))

    async def closed(self) -> float:
        """Wait for the end of the connection, whatever comes before; when it was."""
        while True:
            try:
                await self.receive()
            except EOFError:
                return trio.current_time()
