"""The bad link: it does what its plan says, it replays a seed, and it passes bytes unchanged."""

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from random import Random

import pytest

from tests.helpers.raw import PATIENCE_SECONDS

from .course import CALM, Course, Ending, Intensity, Plan, Way, course_of
from .proxy import Proxy

SEED = 7660
BUSY = Intensity(delay_bytes_max=500, split_bytes_max=500, split_length_max=50)
CONTENT = Random(SEED).randbytes(100_000)


class Echo:
    """Sends back what it gets, on each connection; a context manager."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> "Echo":
        self._accepting = threading.Thread(target=self._accept)
        self._accepting.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._accepting.join()
        self._listener.close()
        for thread in self._threads:
            thread.join(PATIENCE_SECONDS)
            assert not thread.is_alive(), "a connection was left open"

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(sock,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, sock: socket.socket) -> None:
        with sock:
            try:
                while data := sock.recv(65_536):
                    sock.sendall(data)
            except ConnectionError:
                pass


@pytest.fixture
def echo() -> Iterator[Echo]:
    with Echo() as server:
        yield server


def connected(address: str) -> socket.socket:
    host, port = address.rsplit(":", 1)
    return socket.create_connection((host, int(port)), PATIENCE_SECONDS)


def echoed(sock: socket.socket, content: bytes, chunk_bytes: int = 1_000) -> tuple[bytes, bool]:
    """What comes back of ``content``, chunk by chunk, until the connection ends; and whether it was reset."""
    got = bytearray()
    try:
        for begin in range(0, len(content), chunk_bytes):
            sent = content[begin : begin + chunk_bytes]
            sock.sendall(sent)
            while len(got) < begin + len(sent):
                if not (data := sock.recv(65_536)):
                    return bytes(got), False
                got += data
    except ConnectionError:
        return bytes(got), True
    return bytes(got), False


def events(course: Course, chunks: list[bytes]) -> tuple[bytes, list[tuple[int, float]], list[int]]:
    """What comes out of a course; its pauses, and the bytes that went in small pieces, by offset."""
    out = bytearray()
    pauses: list[tuple[int, float]] = []
    split: list[int] = []
    for chunk in chunks:
        for step in course.steps(memoryview(chunk)):
            assert len(step.data) > 0
            if step.pause_seconds:
                pauses.append((len(out), step.pause_seconds))
            if step.is_split:
                assert len(step.data) <= 7
                split += range(len(out), len(out) + len(step.data))
            out += step.data
    return bytes(out), pauses, split


def test_given_a_seed_when_the_bytes_arrive_in_other_chunks_then_the_same_offsets_are_hit() -> None:
    random = Random(SEED)
    cuts = sorted(random.sample(range(1, len(CONTENT)), 300))
    odd = [CONTENT[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(CONTENT)], strict=True)]
    whole = events(course_of(SEED, 3, Way.UP, BUSY), [CONTENT])
    assert events(course_of(SEED, 3, Way.UP, BUSY), odd) == whole
    content, pauses, split = whole
    assert content == CONTENT
    assert len(pauses) > 100
    assert all(0 <= pause <= BUSY.delay_seconds_max for _, pause in pauses)
    assert len(split) > 1_000
    assert events(course_of(SEED, 4, Way.UP, BUSY), [CONTENT])[1] != pauses
    assert events(course_of(SEED, 3, Way.DOWN, BUSY), [CONTENT])[1] != pauses


def test_given_many_connections_when_planned_then_every_ending_comes_at_every_order_of_magnitude() -> None:
    plans = [Plan.of(SEED, index, Intensity()) for index in range(1_000)]
    assert plans == [Plan.of(SEED, index, Intensity()) for index in range(1_000)]
    assert {(plan.ending, plan.way) for plan in plans} >= {(ending, way) for ending in Ending for way in Way}
    assert 50 < sum(plan.ending is None for plan in plans) < 200
    assert {len(str(plan.at)) for plan in plans} == set(range(1, 8))
    assert all(Plan.of(SEED, index, CALM).ending is None for index in range(100))


def test_given_no_faults_when_many_connections_send_megabytes_then_all_comes_back(echo: Echo) -> None:
    content = Random(SEED).randbytes(1 << 20)
    results: list[tuple[bytes, bool]] = []

    def run(address: str) -> None:
        with connected(address) as sock:
            results.append(echoed(sock, content, 1 << 16))

    with Proxy(echo.address, SEED, CALM) as proxy:
        threads = [threading.Thread(target=run, args=(proxy.address,)) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert results == [(content, False)] * 20
    assert proxy.stats == {"connections": 20, "up": 20 << 20, "down": 20 << 20, "pieces": 0}


def test_given_delays_and_pieces_when_sending_then_all_comes_back(echo: Echo) -> None:
    busy = Intensity(ending_share=0, delay_bytes_max=50_000, delay_seconds_max=0.002, split_bytes_max=5_000)
    with Proxy(echo.address, SEED, busy) as proxy, connected(proxy.address) as sock:
        assert echoed(sock, CONTENT) == (CONTENT, False)
    assert proxy.stats["delays"] > 5
    assert proxy.stats["pieces"] > 100


@pytest.mark.parametrize("ending", Ending)
def test_given_an_ending_when_its_byte_has_passed_then_the_connection_ends_so(echo: Echo, ending: Ending) -> None:
    intensity = Intensity((ending,), 1.0, 50_000, 0, split_bytes_max=0)
    with Proxy(echo.address, SEED, intensity) as proxy:
        for index in range(20):
            plan = Plan.of(SEED, index, intensity)
            with connected(proxy.address) as sock:
                got, was_reset = echoed(sock, CONTENT)
            assert CONTENT.startswith(got), "what came is damaged"
            assert len(got) <= (plan.at + 999) // 1_000 * 1_000, "it went on behind its end"
            if ending is Ending.SWALLOW:
                # Nothing of the last chunk is answered behind the byte before `at`; FIN may overtake the echo of the rest.
                assert len(got) <= plan.at - 1
                assert plan.way is Way.UP or len(got) == plan.at - 1
            if ending is not Ending.RST:
                assert not was_reset
            assert proxy.stats[ending] == index + 1


def test_given_the_way_down_is_closed_then_the_way_up_goes_on() -> None:
    intensity = Intensity((Ending.HALF_CLOSE,), 1.0, 1, 0, split_bytes_max=0)
    index = next(index for index in range(100) if Plan.of(SEED, index, intensity).way is Way.DOWN)
    with ExitStack() as stack, socket.create_server(("127.0.0.1", 0)) as listener:
        proxy = stack.enter_context(Proxy(f"127.0.0.1:{listener.getsockname()[1]}", SEED, intensity))
        for _ in range(index):
            stack.enter_context(connected(proxy.address))
            stack.enter_context(listener.accept()[0])
        client = stack.enter_context(connected(proxy.address))
        broker = stack.enter_context(listener.accept()[0])
        broker.settimeout(PATIENCE_SECONDS)
        broker.sendall(b"x")
        assert client.recv(10) == b"x"
        assert client.recv(10) == b"", "this direction is closed"
        client.sendall(b"still here")
        assert broker.recv(20) == b"still here"


def test_given_another_upstream_when_connecting_then_it_is_used_and_its_absence_closes_the_connection(echo: Echo) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        nobody = f"127.0.0.1:{gone.getsockname()[1]}"
    with Proxy(nobody, SEED, CALM) as proxy:
        with connected(proxy.address) as sock:
            assert echoed(sock, b"hello")[0] == b""
        assert proxy.stats["refused"] == 1
        proxy.upstream = echo.address
        with connected(proxy.address) as sock:
            assert echoed(sock, b"hello") == (b"hello", False)
