"""The listener: many connections at once, none of which is another's trouble, and its end."""

import resource
import socket
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, suppress

import pytest
import trio

from rocksmq.metrics import http
from rocksmq.metrics.http import TEXT, HttpLimits, HttpServer, Request, Response, Route

from .http_support import LIMITS, LINES, ROUTES, Answer, answer_of, get, in_mock_time

MIB = 1 << 20


class Served:
    """A server in this test, and clients of it."""

    def __init__(self, server: HttpServer, listener: socket.socket, nursery: trio.Nursery) -> None:
        self.server = server
        self.listener = listener
        self.scope = nursery.cancel_scope
        self.port: int = listener.getsockname()[1]

    async def connect(self, data: bytes = b"") -> trio.SocketStream:
        """A connection that has sent ``data``."""
        stream = await trio.open_tcp_stream("127.0.0.1", self.port)
        await stream.send_all(data)
        return stream

    async def ask(self, data: bytes) -> Answer:
        return answer_of(await read(await self.connect(data)))


async def read(stream: trio.SocketStream) -> bytes:
    """Everything up to the end, and close it."""
    async with stream:
        return b"".join([piece async for piece in stream])


@asynccontextmanager
async def served(limits: HttpLimits = LIMITS, routes: Mapping[str, Route] = ROUTES) -> AsyncGenerator[Served]:
    server = HttpServer(routes, limits)
    listener = socket.create_server(("127.0.0.1", 0))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.serve, listener)
        yield Served(server, listener, nursery)
        nursery.cancel_scope.cancel()


async def until(is_so: Callable[[], bool]) -> None:
    while not is_so():
        await trio.sleep(0.001)


@in_mock_time
async def test_given_a_server_when_asked_again_and_again_then_it_answers() -> None:
    async with served() as place:
        for _ in range(100):
            assert (await place.ask(get("/"))).body == b"hello\n"
        assert place.server.refused == 0


@in_mock_time
async def test_given_a_client_that_sent_its_end_when_asked_then_it_is_answered() -> None:
    async with served() as place:
        stream = await place.connect(get("/lines"))
        await stream.send_eof()
        assert answer_of(await read(stream)).body == b"".join(LINES)


@in_mock_time
async def test_given_much_behind_a_request_when_asked_then_the_answer_is_not_lost() -> None:
    async with served() as place:
        for request in (get("/"), get("/", "Content-Length: 400000", method="POST")):
            answer = await place.ask(request + bytes(400_000))
            assert answer.status in {200, 405}


@in_mock_time
async def test_given_as_many_silent_connections_as_may_be_when_one_more_asks_then_the_oldest_makes_room() -> None:
    async with served() as place:
        streams = [await place.connect(b"GET") for _ in range(LIMITS.connections_max)]
        begin = trio.current_time()
        for count in (1, 2):
            assert (await place.ask(get("/"))).status == 200
            assert place.server.refused == count
            with suppress(trio.BrokenResourceError):
                assert await read(streams.pop(0)) == b""
            streams.append(await place.connect(b"GET"))
        assert trio.current_time() - begin < 1
        # And when the others' time is up
        assert {answer_of(await read(stream)).status for stream in streams} == {408}
        assert (await place.ask(get("/"))).status == 200
        assert place.server.refused == 2


@in_mock_time
async def test_given_as_many_long_answers_as_may_be_when_one_more_comes_then_it_is_closed_at_once_and_counted() -> None:
    async with served() as place:
        streams = [await place.connect(get("/endless")) for _ in range(LIMITS.connections_max)]
        for stream in streams:
            assert await stream.receive_some(1)
        for count in (1, 2):
            assert await read(await place.connect()) == b""
            assert place.server.refused == count
        await streams.pop().aclose()
        await until(lambda: place.server.connections < LIMITS.connections_max)
        assert (await place.ask(get("/"))).status == 200
        for stream in streams:
            await stream.aclose()


@in_mock_time
async def test_given_readers_that_do_not_read_when_others_ask_then_they_are_answered_and_memory_is_bounded() -> None:
    made = 0

    def endless(request: Request) -> Response:
        def chunks() -> Iterator[bytes]:
            nonlocal made
            while True:
                made += 1
                yield bytes(100_000)

        return Response(200, TEXT, chunks())

    async with served(routes={**ROUTES, "/endless": endless}) as place:
        slow = [await place.connect(get("/endless")) for _ in range(LIMITS.connections_max - 1)]
        for _ in range(50):
            assert (await place.ask(get("/lines"))).status == 200
        await trio.sleep(LIMITS.stalled_seconds / 2)
        before = made
        await trio.sleep(LIMITS.stalled_seconds / 4)
        assert made == before, "what nobody reads is not made"
        assert made * 100_000 < len(slow) * 8 * MIB
        await trio.sleep(LIMITS.stalled_seconds)
        for stream in slow:
            with pytest.raises(trio.BrokenResourceError):
                await read(stream)


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@in_mock_time
async def test_given_a_body_that_breaks_off_when_asked_then_the_connection_is_reset_and_others_go_on(
    version: str,
) -> None:
    async with served(HttpLimits(slice_seconds=0)) as place:
        with pytest.raises(trio.BrokenResourceError):
            await read(await place.connect(get("/broken", version=version)))
        assert (await place.ask(get("/"))).status == 200


@in_mock_time
async def test_given_a_bug_of_its_own_when_met_then_it_is_logged_and_the_server_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with served() as place:
        monkeypatch.setattr(http, "formatdate", None)
        with pytest.raises(trio.BrokenResourceError):
            await read(await place.connect(get("/")))
        monkeypatch.undo()
        assert "a bug: an HTTP connection ended by it" in caplog.text
        assert (await place.ask(get("/"))).status == 200


@in_mock_time
async def test_given_no_file_descriptors_when_clients_come_then_they_are_served_once_there_are_some(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with served() as place:
        client = socket.socket()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        with client:
            resource.setrlimit(resource.RLIMIT_NOFILE, (client.fileno() + 1, hard))
            try:
                client.connect(("127.0.0.1", place.port))
                await until(lambda: "Too many open files" in caplog.text)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            stream = trio.SocketStream(trio.socket.from_stdlib_socket(client))
            await stream.send_all(get("/"))
            assert answer_of(await read(stream)).status == 200


@in_mock_time
async def test_given_connections_in_every_state_when_cancelled_then_all_are_closed_and_the_port_is_free() -> None:
    async with served() as place:
        streams = [await place.connect(data) for data in (b"", b"GET / ", get("/endless"), get("/"), b"\x16\x03")]
        await until(lambda: place.server.connections == len(streams))
        place.scope.cancel()
    assert place.listener.fileno() == -1
    assert place.server.connections == 0
    for stream in streams:
        with suppress(trio.BrokenResourceError), trio.fail_after(1):
            await read(stream)
    socket.create_server(("127.0.0.1", place.port)).close()


@in_mock_time
@pytest.mark.parametrize("host", ["localhost", "localhost:7661", "LocalHost", "127.0.0.1:7661", "[::1]:7661", "192.0.2.7", ""])
async def test_given_a_listener_on_the_loopback_when_asked_by_a_name_that_is_this_machine_then_it_answers(host: str) -> None:
    async with served() as place:
        assert (await place.ask(f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())).status == 200


@in_mock_time
@pytest.mark.parametrize("host", ["evil.example", "evil.example:7661", "localhost.evil.example", "127.0.0.1.evil.example"])
async def test_given_a_listener_on_the_loopback_when_asked_by_another_name_then_it_is_refused(host: str) -> None:
    async with served() as place:
        answer = await place.ask(f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        assert answer.status == 421
        assert b"only for localhost" in answer.body


@in_mock_time
async def test_given_a_listener_for_others_when_asked_by_any_name_then_it_answers() -> None:
    listener = socket.create_server(("0.0.0.0", 0))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(HttpServer(ROUTES).serve, listener)
        place = Served(HttpServer(ROUTES), listener, nursery)
        assert (await place.ask(b"GET / HTTP/1.1\r\nHost: broker.example:7661\r\n\r\n")).status == 200
        nursery.cancel_scope.cancel()
