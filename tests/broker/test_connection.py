"""A connection's frames: nobody waits for another's many, and an ended connection is over."""

import socket
import ssl
import struct
import time
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import trio
from trio.testing import wait_all_tasks_blocked

from rocksmq.broker.commit import CELL_BYTES, OPEN_BYTES_SOFT, Commit
from rocksmq.broker.connection import FRAMES_A_TURN, TURN_SECONDS, Connection, Memory, Octets
from rocksmq.broker.fair_queue import Writer
from rocksmq.broker.gate import Gate
from rocksmq.broker.limits import Limits
from rocksmq.broker.session import Session
from rocksmq.protocol.codec import SUCCESS
from rocksmq.protocol.errors import RocksMQError
from rocksmq.protocol.operations import Fetch, ListChannels, Position, Produce
from rocksmq.protocol.tls import TlsStream
from tests.helpers.certificates import Certificates
from tests.helpers.raw import frame, hello, request_items
from tests.helpers.raw_trio import RawTrio, run, served

from .many_support import ManyBroker, fetching, subscribing
from .support import batch_of, in_trio

FRAMES = 10 * FRAMES_A_TURN
READS = 20


class Counter:
    """A receiver that counts frames."""

    def __init__(self) -> None:
        self.received = 0
        self.must_wait = False
        self.waits = 0

    def receive(self, body: "memoryview[int]") -> None:
        self.received += 1

    async def may_go_on(self) -> None:
        self.waits += 1
        await trio.lowlevel.checkpoint()

    def refuse(self, error: RocksMQError) -> None:
        raise AssertionError(error)


@in_trio
async def test_given_many_small_frames_in_one_read_when_handled_then_others_get_their_turn_in_between() -> None:
    ours, theirs = socket.socketpair()
    counter = Counter()
    seen: list[int] = []

    async def watch() -> None:
        while counter.received < FRAMES:
            seen.append(counter.received)
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        connection = Connection(ours, Limits(), nursery.start_soon, Octets(), PLENTY)
        theirs.sendall(b"\0\0\0\1\x80" * FRAMES)
        theirs.shutdown(socket.SHUT_WR)
        nursery.start_soon(watch)
        await connection.read(counter)
    connection.close()
    theirs.close()
    assert max(after - before for before, after in pairwise(seen)) <= 2 * FRAMES_A_TURN


@in_trio
async def test_given_a_connection_that_waits_for_room_when_it_is_closed_then_reading_ends() -> None:
    ours, theirs = socket.socketpair()
    counter = Counter()
    counter.must_wait = True
    async with trio.open_nursery() as nursery:
        connection = Connection(ours, Limits(), nursery.start_soon, Octets(), PLENTY)
        theirs.sendall(b"\0\0\0\1\x80")
        nursery.start_soon(connection.read, counter)
        while not counter.waits:
            await trio.lowlevel.checkpoint()
        connection.close()
        with trio.fail_after(10):
            while nursery.child_tasks:
                await trio.lowlevel.checkpoint()
    theirs.close()
    assert counter.received == 0


def test_given_a_client_with_all_its_requests_parked_when_it_connects_anew_then_the_old_connection_is_gone(
    tmp_path: Path,
) -> None:
    limits = Limits(in_flight_requests_max=4)

    async def scenario() -> None:
        async with served(tmp_path / "data", limits) as (engine, server, port):
            await engine.create_channel("orders")
            greeting = hello(b"c" * 16)
            async with RawTrio.connected(port, greeting) as older:
                for _ in range(2 * limits.in_flight_requests_max):
                    await older.send(Fetch("orders", Position.LATEST, 0, 1, 1, 30_000))
                while len(engine.core.waiters) < limits.in_flight_requests_max:
                    await trio.sleep(0.01)
                async with RawTrio.connected(port, greeting) as newer:
                    with trio.fail_after(60):
                        while server.connection_count > 1:
                            await trio.sleep(0.01)
                    assert len(engine.core.waiters) == 0
                    reply = await newer.call(Fetch("orders", Position.LATEST, 0, 1, 1, 0))
                    assert reply[1] == SUCCESS

    run(scenario)


@in_trio
async def test_given_one_large_frame_a_read_when_they_never_stop_then_others_get_their_turn() -> None:
    ours, theirs = socket.socketpair()
    reads = turns = 0
    counter = Counter()

    class Endless:
        """A socket that always has something."""

        def recv_into(self, space: "memoryview[int]") -> int:
            nonlocal reads
            reads += 1
            if reads == READS:
                return 0
            time.sleep(TURN_SECONDS)
            space[:5] = b"\0\0\0\1\x80"
            return 5

        def __getattr__(self, name: str) -> Any:
            return getattr(ours, name)

    async def watch() -> None:
        nonlocal turns
        while reads < READS:
            turns += 1
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        connection = Connection(cast("socket.socket", Endless()), Limits(), nursery.start_soon, Octets(), PLENTY)
        nursery.start_soon(watch)
        await connection.read(counter)
    ours.close()
    theirs.close()
    assert counter.received == READS - 1
    assert turns >= READS // 2


@in_trio
async def test_given_a_reply_that_is_made_when_others_have_left_when_sent_then_one_task_sends_and_all_arrive() -> None:
    """What waits leaves in one go, and `on_drained` sends more: two tasks may not wait for one socket."""
    ours, theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_096)
    theirs.setblocking(False)
    first, second = b"1" * 50_000, b"2" * 500_000
    received = bytearray()
    async with trio.open_nursery() as nursery:
        connection = Connection(ours, Limits(), nursery.start_soon, Octets(), PLENTY)
        connection.on_drained = lambda: connection.send([second]) if not connection.unsent_bytes else None
        connection.send([first])
        await wait_all_tasks_blocked()
        with trio.fail_after(10):
            while len(received) < len(first) + len(second):
                connection.on_drained = connection.on_drained if len(received) < len(first) else lambda: None
                try:
                    received += theirs.recv(1 << 20)
                except BlockingIOError:
                    await trio.lowlevel.checkpoint()
                assert len(nursery.child_tasks) <= 1, "two tasks send"
        connection.on_drained = lambda: None
        connection.close()
    theirs.close()
    assert received == first + second


@in_trio
async def test_given_a_tls_client_that_resets_in_its_handshake_when_read_then_the_connection_just_ends(tmp_path: Path) -> None:
    files = Certificates.make(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.server_certificate, files.server_key)
    asking = TlsStream(files.context(), "localhost")
    asking.advance()
    with socket.create_server(("127.0.0.1", 0)) as listener, trio.fail_after(10):
        client = socket.create_connection(listener.getsockname())
        ours, _ = listener.accept()
        client.sendall(b"".join(asking.taken()))
        while not ours.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT):
            pass
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        async with trio.open_nursery() as nursery:
            connection = Connection(ours, Limits(), nursery.start_soon, Octets(), PLENTY, tls=TlsStream(context))
            connection._sock = cast("socket.socket", ResetWhenSent(ours, client))  # pyright: ignore[reportPrivateUsage]
            await connection.read(Counter())
        connection.close()


class ResetWhenSent:
    """A socket whose peer has reset it by the time of the first answer."""

    def __init__(self, ours: socket.socket, client: socket.socket) -> None:
        self._ours, self._client = ours, client

    def sendmsg(self, buffers: Any) -> int:
        self._client.close()
        return self._ours.sendmsg(buffers)

    def fileno(self) -> int:
        return self._ours.fileno()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ours, name)


@in_trio
async def test_given_a_socket_that_takes_nothing_when_replies_are_sent_then_they_wait_and_come_in_order() -> None:
    ours, theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_096)
    async with trio.open_nursery() as nursery:
        connection = Connection(ours, Limits(), nursery.start_soon, Octets(), PLENTY)
        frames = [bytes([number]) * 50_000 for number in range(8)]
        for frame in frames:
            connection.send([frame[:100], memoryview(frame)[100:]])
        assert connection.unsent_bytes > 0
        theirs.setblocking(False)
        got = bytearray()
        with trio.fail_after(10):
            while len(got) < sum(map(len, frames)):
                await trio.lowlevel.wait_readable(theirs)
                got += theirs.recv(1 << 20)
        await wait_all_tasks_blocked()
        assert bytes(got) == b"".join(frames)
        assert connection.unsent_bytes == 0
        connection.close()
    theirs.close()


def test_given_a_full_commit_when_others_ask_then_only_who_added_to_it_waits(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path / "data", Limits()) as (engine, _, port):
            await engine.create_channel("orders")
            engine.core.committer.open.size = OPEN_BYTES_SOFT  # as if somebody's large batches waited for a slow disk
            async with RawTrio.connected(port) as reader:
                assert (await reader.call(Fetch("orders", Position.EARLIEST, 0, 1, 1, 0)))[1] == SUCCESS
            assert engine.core.committer.open.size >= OPEN_BYTES_SOFT

    run(scenario)


PLENTY = Memory(1 << 40, lambda: None)


class NobodyElse:
    """A registry of one connection."""

    def register(self, client_id: bytes, session: Session) -> None:
        pass


def body(correlation: int, request: Any) -> "memoryview[int]":
    """A frame without its length."""
    return memoryview(frame(request_items(correlation, request))[4:])


@in_trio
async def test_given_a_disk_that_is_slow_when_one_makes_groups_and_groups_then_it_waits_and_a_reader_does_not() -> None:
    broker = ManyBroker()
    numbers = broker.numbers(broker.channels(1_000))
    async with trio.open_nursery() as nursery:
        sockets = [socket.socketpair() for _ in range(2)]
        connections = [Connection(ours, Limits(), nursery.start_soon, Octets(), PLENTY) for ours, _ in sockets]
        gate = Gate(broker.core.channels, Limits())
        writer, reader = [
            Session(connection, broker.core, NobodyElse(), gate, "test", "127.0.0.1") for connection in connections
        ]
        for session in (writer, reader):
            session.receive(body(1, hello()))
        sent = 0
        while not writer.must_wait and sent < 100:
            sent += 1
            writer.receive(body(sent + 1, subscribing(numbers, f"group-{sent}")))
            reader.receive(body(sent + 1, fetching([(numbers[0], 0)])))
        assert sent == -(-OPEN_BYTES_SOFT // (1_000 * CELL_BYTES))
        assert not reader.must_wait
        broker.commit()
        assert not writer.must_wait
        for connection in connections:
            connection.close()
    for _, theirs in sockets:
        theirs.close()


@in_trio
async def test_given_as_much_in_flight_as_may_be_when_there_is_room_then_none_is_promised_to_who_cannot_use_it() -> None:
    broker = ManyBroker()
    name = broker.channels(1)[0]
    parked = 3
    ours, theirs = socket.socketpair()
    async with trio.open_nursery() as nursery:
        limits = Limits(in_flight_requests_max=parked + 1)
        connection = Connection(ours, limits, nursery.start_soon, Octets(), PLENTY)
        session = Session(connection, broker.core, NobodyElse(), Gate(broker.core.channels, limits), "test", "127.0.0.1")
        nursery.start_soon(connection.read, session)
        large = Produce(name, broker.unique(), 0, *batch_of(*[bytes(900_000)] * 3))
        requests = [hello(), *[Fetch(name, Position.LATEST, 0, 1, 1, 30_000)] * parked, large, ListChannels("", "")]
        async with trio.SocketStream(trio.socket.from_stdlib_socket(theirs)) as stream:
            for correlation, request in enumerate(requests, 1):
                await stream.send_all(frame(request_items(correlation, request)))
            await wait_all_tasks_blocked()
            assert session.in_flight_count == parked + 1
            committer, other = broker.core.committer, Writer()
            committer.writers.added(other, 1)
            assert committer.writers.must_wait(other), "the commit is full"
            committer.open = Commit()  # it is written, and its sync takes a while
            committer.writers.taken()
            await wait_all_tasks_blocked()
            assert not committer.writers.must_wait(other)
            session.end("test")
