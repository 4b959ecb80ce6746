"""The client's connection: URLs, what answers at the other end, and how long it tries."""

import contextlib
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Generator, Iterator
from types import SimpleNamespace

import pytest

from rocksmq.clients import Client, ConnectionFailed, InvalidRequest, ProtocolError, RocksMQError, Timeout, connection
from rocksmq.clients.address import Address
from rocksmq.clients.connection import Connection
from rocksmq.clients.credentials import Credentials
from rocksmq.clients.deadline import Deadline
from rocksmq.clients.testing import Broker
from rocksmq.protocol.operations import Empty

PROMPT = 10.0  # seconds; far more than any of these calls may take


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A broker that this module shares."""
    with Broker(tmp_path_factory.mktemp("connection") / "data") as process:
        yield process


@contextlib.contextmanager
def answering(answer: Callable[[socket.socket], None]) -> Generator[str]:
    """The URL of a server that hands each connection to ``answer`` and then closes it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    accepted, _ = listener.accept()
                except OSError:
                    return
                with accepted, contextlib.suppress(OSError):
                    answer(accepted)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"rocksmq://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def until_closed(sock: socket.socket) -> None:
    while sock.recv(4_096):
        pass


def refused(url: str, timeout: float) -> RocksMQError:
    """What connecting raises, which must come in time."""
    begin = time.monotonic()
    with pytest.raises(RocksMQError) as raised:
        Client(url, timeout=timeout)
    assert time.monotonic() - begin < PROMPT
    return raised.value


def test_given_nothing_at_the_address_when_connecting_then_it_fails_after_the_timeout_and_says_where() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    for timeout in (0.0, 0.3):
        begin = time.monotonic()
        error = refused(f"rocksmq://127.0.0.1:{port}", timeout)
        assert isinstance(error, ConnectionFailed)
        assert str(port) in str(error)
        assert time.monotonic() - begin >= timeout / 2


def test_given_a_server_that_never_answers_when_connecting_then_it_is_a_timeout() -> None:
    with answering(until_closed) as url:
        error = refused(url, 0.3)
    assert isinstance(error, Timeout)
    assert isinstance(error, TimeoutError)


def test_given_a_server_that_does_not_accept_when_connecting_then_it_is_a_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            assert isinstance(refused(f"rocksmq://127.0.0.1:{port}", 0.3), (Timeout, ConnectionFailed))


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"\x00\x00\x00\x01\xa0",
        b"\x00\x00\x00\x02\x81\x01",
        b"\x00\x00\x00\x03\x82\x01\x00",
        b"\x00\x00\x00\x03\x82\x09\x00",
        b"\x00\x00\x00\x04\x82\x01\x00\x00",
        b"\x00\x00\x00\x00",
    ],
)
def test_given_another_kind_of_server_when_connecting_then_it_is_told_at_once(answer: bytes) -> None:
    def reply(sock: socket.socket) -> None:
        sock.recv(4_096)
        sock.sendall(answer)
        sock.shutdown(socket.SHUT_WR)
        until_closed(sock)

    with answering(reply) as url:
        assert isinstance(refused(url, 30.0), ProtocolError)


def test_given_a_server_that_hangs_up_when_connecting_then_the_connection_has_failed() -> None:
    with answering(lambda sock: None) as url:
        assert isinstance(refused(url, 0.3), ConnectionFailed)


@pytest.mark.parametrize(
    "url",
    ["127.0.0.1:7660", "http://127.0.0.1:7660", "rocksmq://", "rocksmq://host:port", "rocksmq://host:99999",
     "rocksmq://host/path", "rocksmq://host?x=1", "rocksmq://host#x", "rocksmq://user:secret@host"],
)  # fmt: skip
def test_given_a_bad_url_when_connecting_then_the_form_is_shown_and_no_secret(url: str) -> None:
    with pytest.raises(InvalidRequest, match=r"rocksmq://\[token@\]host\[:port\]") as raised:
        Client(url)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("timeout", [-1, float("nan")])
def test_given_a_bad_timeout_when_connecting_then_it_is_refused(timeout: float) -> None:
    with pytest.raises(InvalidRequest, match="timeout"):
        Client("rocksmq://127.0.0.1:1", timeout=timeout)


def test_given_the_environment_when_no_url_is_given_then_that_one_is_used(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROCKSMQ_URL", broker.url)
    with Client() as mq:
        assert mq.ping() > 0
    monkeypatch.setenv("ROCKSMQ_URL", "rocksmq://127.0.0.1:1")
    with Client(broker.url) as mq:
        assert mq.ping() > 0


def test_given_a_token_when_shown_then_it_is_not_there(broker: Broker) -> None:
    with Client(broker.url.replace("//", "//secret@"), client_name="test") as mq:
        assert "secret" not in repr(mq)
        assert broker.address in repr(mq)
        assert mq.ping() > 0
    assert "closed" in repr(mq)


def test_given_a_client_when_its_block_is_left_then_it_is_closed_and_its_socket_too(broker: Broker) -> None:
    before = set(os.listdir("/proc/self/fd"))
    mq = broker.client()
    for _ in range(10):
        with mq:
            mq.ping()
        mq = broker.client()
    mq.close()
    for _ in range(10):
        with pytest.raises(ConnectionFailed):
            Client("rocksmq://127.0.0.1:1", timeout=0)
    assert len(set(os.listdir("/proc/self/fd")) - before) <= 1
    with pytest.raises(ConnectionFailed, match="closed"):
        mq.list_channels()


def test_given_a_broker_that_stops_answering_when_called_then_it_is_a_timeout_and_later_calls_go_through(
    broker: Broker,
) -> None:
    with broker.client(timeout=0.5) as mq:
        os.kill(broker.pid, signal.SIGSTOP)
        try:
            for _ in range(2):
                with pytest.raises(Timeout):
                    mq.ping()
        finally:
            os.kill(broker.pid, signal.SIGCONT)
        with broker.client() as patient:
            patient.ping()
        assert mq.ping() < PROMPT


class LatePoll:
    """Waits to be told before it polls, once it `is_late`."""

    def __init__(self) -> None:
        self.is_late = False
        self.is_there = threading.Event()
        self.may_begin = threading.Event()
        self.sock = socket.socket()
        self._poll = select.poll()

    def register(self, sock: socket.socket, events: int) -> None:
        self.sock.close()
        self.sock = sock
        self._poll.register(sock, events)

    def poll(self, milliseconds: float) -> list[tuple[int, int]]:
        if self.is_late:
            self.is_there.set()
            assert self.may_begin.wait(PROMPT)
        return self._poll.poll(milliseconds)


def test_given_a_reader_about_to_poll_when_its_connection_ends_then_it_does_not_wait_on_one_that_has_the_number_next(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    poll, second_poll = LatePoll(), LatePoll()
    polls = iter([poll, LatePoll(), second_poll, LatePoll()])
    replaced = SimpleNamespace(poll=lambda: next(polls), POLLIN=select.POLLIN, POLLOUT=select.POLLOUT)
    monkeypatch.setattr(connection, "select", replaced)
    first = Connection(Address.parse(broker.url), Credentials())
    first.open("first", bytes(16), Deadline(PROMPT))
    poll.is_late = True
    call = first.begin(Empty(), Deadline(PROMPT))
    reader = threading.Thread(target=first.is_answered, args=(call, Deadline(PROMPT * 3)))
    reader.start()
    assert poll.is_there.wait(PROMPT)
    number = poll.sock.fileno()
    others = [socket.socket() for _ in range(32)]  # so that none below it is free
    first.close()
    second = Connection(Address.parse(broker.url), Credentials())
    second.open("second", bytes(16), Deadline(PROMPT))
    assert second_poll.sock.fileno() != number
    poll.may_begin.set()
    reader.join(PROMPT / 2)
    second.close()
    for sock in others:
        sock.close()
    assert not reader.is_alive()
    assert poll.sock.fileno() < 0
