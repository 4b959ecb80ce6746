"""The client against forks, interrupts, cuts, floods and servers that answer wrongly or refuse."""

import queue
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from rocksmq.clients import Client, ConnectionFailed, MessageBatch, OutOfSequence, ProtocolError, Timeout
from rocksmq.clients.testing import Broker
from rocksmq.protocol.codec import NO_CORRELATION, encode_reply
from rocksmq.protocol.errors import LimitExceeded, Overloaded, RocksMQError, ShuttingDown
from rocksmq.protocol.identity import birth_of
from rocksmq.protocol.operations import ChannelDescribed, Consume, Empty, Fetch, ListChannels, Names, Produce, Produced, Sought
from tests.clients.support import NOTHING, PATIENCE, Clock, forked, messages
from tests.helpers.certificates import Certificates
from tests.helpers.fake_server import LIMITS, PING_FRAME, PRESENT_ID, FakeServer, Peer


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """What deadlines take for the time."""
    clock = Clock()
    monkeypatch.setattr("rocksmq.clients.deadline.time", clock)
    return clock


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    """Threads for calls, all ended before the test is."""
    with ThreadPoolExecutor(4) as threads:
        yield threads


# -- forks -----------------------------------------------------------------------------


@pytest.mark.parametrize("closed_count", [0, 8])
def test_given_a_fork_when_child_and_parent_produce_then_both_batches_are_stored(
    client: Client, broker: Broker, closed_count: int
) -> None:
    others = [broker.client() for _ in range(closed_count)]
    for other in others:
        other.close()
    client.create_channel("orders")
    before = client.produce("orders", [b"before"])

    def produce() -> bytes:
        ids = client.produce("orders", [b"child"])
        client.close()
        return b"%d" % ids[0]

    in_child = int(forked(produce))
    in_parent = client.produce("orders", [b"parent"])
    found = client.fetch("orders", "earliest")
    assert found.payloads == [b"before", b"child", b"parent"]
    assert all("closed" in repr(other) for other in others)  # which have lived until now
    assert list(found.ids) == [before[0], in_child, in_parent[0]]


def test_given_a_fork_when_the_child_consumes_then_parent_and_child_share_the_messages(
    client: Client,
) -> None:
    client.create_channel("orders")
    client.create_consumer_group("orders", "billing")
    client.produce("orders", [b"a", b"b", b"c"])
    assert client.consume("orders", "billing", 1).payloads == [b"a"]
    assert forked(lambda: b"".join(client.consume("orders", "billing", 1).payloads)) == b"b"
    assert client.consume("orders", "billing", 1).payloads == [b"c"]


@pytest.mark.parametrize("closes", [True, False], ids=["closes", "exits"])
def test_given_a_fork_when_the_child_ends_then_the_parent_goes_on_over_its_connection(
    closes: bool, pool: ThreadPoolExecutor
) -> None:
    with FakeServer() as server, Client(server.url) as mq:
        peer = server.peer()

        def end() -> bytes:
            if closes:
                mq.close()
            return b"done"

        assert forked(end) == b"done"
        pinging = pool.submit(mq.ping)
        correlation, _ = peer.receive()
        peer.reply(correlation, Empty())
        pinging.result(PATIENCE)
        assert server.connection_count == 1


# -- numbers whose outcome is unknown ----------------------------------------------------


def test_given_consumes_that_ended_in_errors_when_one_thread_consumes_on_then_no_claimed_message_is_left_out(
    clock: Clock, pool: ThreadPoolExecutor
) -> None:
    with FakeServer() as server, Client(server.url, timeout=60) as mq:
        peer = server.peer()
        first = pool.submit(mq.consume, "orders", "billing", timeout=0)
        claim: Consume = peer.receive()[1]
        peer.is_read()
        second = pool.submit(mq.consume, "orders", "billing", timeout=20)
        other: Consume = peer.receive()[1]
        assert claim.consumer != other.consumer
        clock.now += 70  # the first one's time is over, the second one's is not
        peer.socket.sendall(PING_FRAME)
        assert isinstance(first.exception(PATIENCE), Timeout)
        peer.cut()
        peer = server.peer()
        assert peer.receive()[1][2:4] == (other.consumer, other.number)
        clock.now += 20
        peer.socket.sendall(PING_FRAME)
        assert isinstance(second.exception(PATIENCE), ConnectionFailed)
        peer.cut()

        repeated: list[tuple[bytes, int]] = []
        found: list[bytes] = []
        for _ in range(2):
            consuming = pool.submit(mq.consume, "orders", "billing")
            peer = server.peer() if not repeated else peer
            correlation, request = peer.receive()
            repeated.append((request.consumer, request.number))
            is_claim = request.consumer == claim.consumer
            peer.reply(correlation, messages([b"a", b"b", b"c"]) if is_claim else NOTHING)
            found += consuming.result(PATIENCE).payloads
        peer.cut()
    assert found == [b"a", b"b", b"c"]
    assert repeated == [(claim.consumer, claim.number), (other.consumer, other.number)]


# -- interrupts --------------------------------------------------------------------------


class Interrupted:
    """Raises KeyboardInterrupt in this thread where it waits for another one that reads."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, meanwhile: Callable[[threading.Event], None]) -> None:
        """``meanwhile`` is called first, with the event that is waited for."""
        self.waiting: queue.SimpleQueue[int] = queue.SimpleQueue()  # other threads that began to wait
        self.woken: list[bool] = []  # whether those that waited were woken; else their time was over
        self._patch = monkeypatch
        self._meanwhile = meanwhile
        self._wait = threading.Event.wait

    def call(self, follower: Callable[[], object]) -> None:
        here = threading.get_ident()
        is_busy = False

        def wait(event: threading.Event, timeout: float | None = None) -> bool:
            nonlocal is_busy
            if threading.get_ident() == here and not is_busy:
                is_busy = True
                self._meanwhile(event)
                raise KeyboardInterrupt
            if threading.get_ident() != here:
                self.waiting.put(threading.get_ident())
            woken = self._wait(event, timeout)
            if threading.get_ident() != here:
                self.woken.append(woken)
            return woken

        with self._patch.context() as patch:
            patch.setattr(threading.Event, "wait", wait)
            with pytest.raises(KeyboardInterrupt):
                follower()


def names_of(pool: ThreadPoolExecutor, mq: Client, prefix: str) -> "Future[list[str]]":
    return pool.submit(mq.list_channels, prefix)


@pytest.mark.parametrize("was_asked", [False, True], ids=["while it waits", "when asked to read"])
def test_given_a_caller_that_is_interrupted_when_the_reader_is_done_then_another_thread_reads(
    was_asked: bool, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FakeServer() as server, Client(server.url, timeout=PATIENCE / 2) as mq:
        peer = server.peer()
        leading = names_of(pool, mq, "leader")
        leader, _ = peer.receive()
        peer.is_read()
        started: list[tuple[int, Future[list[str]]]] = []

        def meanwhile(event: threading.Event) -> None:
            assert peer.receive()[1] == ListChannels("interrupted", "")
            third = names_of(pool, mq, "third")
            started.append((peer.receive()[0], third))
            interrupted.waiting.get(timeout=PATIENCE)
            if was_asked:
                peer.reply(leader, Names(["leader"], False))
                assert event.wait(PATIENCE)

        interrupted = Interrupted(monkeypatch, meanwhile)
        interrupted.call(lambda: mq.list_channels("interrupted"))
        if not was_asked:
            peer.reply(leader, Names(["leader"], False))
        assert leading.result(PATIENCE) == ["leader"]
        ((correlation, third),) = started
        peer.reply(correlation, Names(["third"], False))
        assert third.result(PATIENCE) == ["third"]
        assert interrupted.woken == [True]


# -- cuts ----------------------------------------------------------------------------------


def test_given_a_fetch_that_waits_when_its_connection_is_cut_late_then_it_waits_for_the_rest_and_is_empty(
    clock: Clock, pool: ThreadPoolExecutor
) -> None:
    with FakeServer() as server, Client(server.url, timeout=10) as mq:
        waits: list[int] = []
        fetching = pool.submit(mq.fetch, "orders", "earliest", timeout=20)
        for passed in (15, 5):
            peer = server.peer()
            correlation, request = peer.receive()
            assert isinstance(request, Fetch)
            waits.append(request.wait_ms)
            clock.now += passed
            if len(waits) == 1:
                peer.cut()
            else:
                peer.reply(correlation, NOTHING)
        batch: MessageBatch = fetching.result(PATIENCE)
        assert (len(batch), batch.next_position) == (0, PRESENT_ID)
    assert waits == [20_000, 5_000]


# -- floods ----------------------------------------------------------------------------------


def test_given_a_peer_that_floods_when_the_deadline_is_over_then_the_call_is_a_timeout(clock: Clock) -> None:
    def flood(peer: Peer) -> None:
        peer.greet()
        correlation, _ = peer.receive()
        clock.now += 60
        for _ in range(200):
            peer.socket.sendall(PING_FRAME * 1_000)
        peer.reply(correlation, Names([], False))  # far too late

    with FakeServer(flood) as server, Client(server.url, timeout=10) as mq, pytest.raises(Timeout):
        mq.list_channels()


def test_given_a_peer_that_never_stops_sending_when_a_call_is_given_up_then_it_and_the_next_one_and_close_return(
    clock: Clock, pool: ThreadPoolExecutor
) -> None:
    def flood(peer: Peer) -> None:
        peer.greet()
        peer.receive()
        while True:
            clock.now += 1
            peer.socket.sendall(PING_FRAME * 10_000)

    def use() -> None:
        with FakeServer(flood) as server, Client(server.url, timeout=10) as mq:
            for _ in range(2):
                with pytest.raises(Timeout):
                    mq.list_channels()

    pool.submit(use).result(PATIENCE)


@pytest.mark.parametrize("is_tls", [False, True], ids=["plain", "TLS"])
def test_given_a_reply_behind_more_than_is_delivered_at_once_when_nothing_else_comes_then_it_is_found(
    is_tls: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificates = Certificates.make(tmp_path)

    def answer(peer: Peer) -> None:
        if is_tls:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(certificates.server_certificate, certificates.server_key)
            peer.socket = context.wrap_socket(peer.socket, server_side=True)
        peer.greet()
        correlation, _ = peer.receive()
        reply = b"".join(encode_reply(correlation, Names(["orders"], False)))
        peer.socket.sendall(PING_FRAME * 50_000 + reply)
        with suppress(ConnectionError, EOFError):
            while peer.receive():
                pass

    monkeypatch.setattr("rocksmq.clients.connection.LOOK_SECONDS", -1.0)  # each frame is one too many
    with FakeServer(answer) as server:
        url = server.url.replace("rocksmq:", "rocksmqs:") if is_tls else server.url
        with Client(url, ssl_context=ssl.create_default_context(cafile=certificates.authority) if is_tls else None) as mq:
            assert mq.list_channels() == ["orders"]


def test_given_many_pings_of_the_broker_when_read_then_one_ping_at_a_time_answers_them(pool: ThreadPoolExecutor) -> None:
    with FakeServer() as server, Client(server.url) as mq:
        peer = server.peer()
        for _ in range(2):
            listing = pool.submit(mq.list_channels)
            correlation, _ = peer.receive()
            peer.socket.sendall(PING_FRAME * 1_000)
            peer.reply(correlation, Names(["orders"], False))
            assert listing.result(PATIENCE) == ["orders"]
            ping, request = peer.receive()
            assert isinstance(request, Empty)
            peer.reply(ping, Empty())
        mq.close()
        with pytest.raises(EOFError):
            peer.receive()


# -- refusals --------------------------------------------------------------------------------


@pytest.mark.parametrize("correlation", [NO_CORRELATION, 1])
@pytest.mark.parametrize("error", [Overloaded("busy", retry_after=0.01), ShuttingDown("stopping")], ids=["busy", "stopping"])
def test_given_a_broker_that_refuses_hello_for_now_when_connecting_then_it_is_tried_again(
    error: RocksMQError, correlation: int
) -> None:
    answers = iter([error, error])

    def answer(peer: Peer) -> None:
        refusal = next(answers, None)
        if refusal is None:
            peer.greet()
            peer.reply(peer.receive()[0], Empty())
        else:
            peer.receive()
            peer.refuse(correlation, refusal)
            peer.cut()

    with FakeServer(answer) as server, Client(server.url, timeout=PATIENCE) as mq:
        mq.ping()
        assert server.connection_count == 3


def test_given_a_broker_that_refuses_hello_for_now_when_the_deadline_is_over_then_its_refusal_is_raised(clock: Clock) -> None:
    def answer(peer: Peer) -> None:
        peer.receive()
        clock.now += 4
        peer.refuse(NO_CORRELATION, Overloaded("busy"))
        peer.cut()

    with FakeServer(answer) as server:
        with pytest.raises(Overloaded, match="busy"):
            Client(server.url, timeout=10)
        assert server.connection_count == 3


REFUSALS = pytest.mark.parametrize("error", [ShuttingDown("stopping"), LimitExceeded("too many")], ids=["stopping", "limit"])


@REFUSALS
def test_given_a_produce_in_flight_when_the_connection_is_refused_then_it_is_sent_again_under_its_number(
    error: RocksMQError, pool: ThreadPoolExecutor
) -> None:
    with FakeServer() as server, Client(server.url) as mq:
        producing = pool.submit(mq.produce, "orders", [b"first"])
        peer = server.peer()
        first = peer.receive()[1]
        peer.refuse(NO_CORRELATION, error)
        peer.cut()
        peer = server.peer()
        correlation, again = peer.receive()
        peer.reply(correlation, Produced(PRESENT_ID))
        assert producing.result(PATIENCE) == range(PRESENT_ID, PRESENT_ID + 1)
    assert again == first


@REFUSALS
def test_given_a_produce_in_flight_when_refused_until_the_deadline_then_its_outcome_is_unknown_and_its_number_spent(
    error: RocksMQError, clock: Clock, pool: ThreadPoolExecutor
) -> None:
    with FakeServer() as server, Client(server.url) as mq:
        requests: list[Produce] = []
        producing = pool.submit(mq.produce, "orders", [b"first"])
        peer = server.peer()
        requests.append(peer.receive()[1])
        clock.now += 60
        peer.refuse(NO_CORRELATION, error)
        peer.cut()
        failure = producing.exception(PATIENCE)
        assert isinstance(failure, ConnectionFailed)
        assert error.message in failure.message

        producing = pool.submit(mq.produce, "orders", [b"second"])
        peer = server.peer()
        correlation, request = peer.receive()
        requests.append(request)
        peer.reply(correlation, Produced(PRESENT_ID))
        assert producing.result(PATIENCE) == range(PRESENT_ID, PRESENT_ID + 1)
    first, second = requests
    assert (bytes(first.payloads), bytes(second.payloads)) == (b"first", b"second")
    assert first.producer != second.producer


@pytest.mark.parametrize("kind", [Produce, Consume])
def test_given_a_broker_that_takes_no_new_id_when_called_then_new_ones_are_tried_until_the_deadline(kind: type[Any]) -> None:
    ids: list[bytes] = []

    def answer(peer: Peer) -> None:
        peer.greet()
        while True:
            correlation, request = peer.receive()
            assert isinstance(request, kind)
            ids.append(request.producer if isinstance(request, Produce) else request.consumer)
            peer.refuse(correlation, OutOfSequence("unknown id", present_id=PRESENT_ID + len(ids)))

    with FakeServer(answer) as server, Client(server.url, timeout=0.3) as mq:
        with pytest.raises(OutOfSequence, match="unknown id"):
            mq.produce("orders", [b"a"]) if kind is Produce else mq.consume("orders", "billing")
        assert len(ids) > 1
    assert [birth_of(identity) for identity in ids] == list(range(PRESENT_ID, PRESENT_ID + len(ids)))


# -- wrong answers -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "limits", [{}, *({k: v for k, v in LIMITS.items() if k != left_out} for left_out in LIMITS)], ids=["all", *LIMITS]
)
def test_given_a_broker_that_leaves_out_limits_when_connecting_then_it_is_a_protocol_error(limits: dict[str, int]) -> None:
    with FakeServer(lambda peer: peer.greet(limits)) as server, pytest.raises(ProtocolError, match=server.address):
        Client(server.url)


def sought(mq: Client) -> object:
    return mq.seek("orders", "billing", 1)


def described(mq: Client) -> object:
    return mq.describe_channel("orders")


@pytest.mark.parametrize(
    ("call", "answer"),
    [
        (sought, Sought(1, 0, 9, 1)),
        (described, ChannelDescribed(1, None, (1 << 64) - 1, 0, 0, 0, 0, "fsync", {}, True, None, False)),
    ],
    ids=["outcome", "created_ms"],
)
def test_given_a_broker_that_answers_out_of_range_when_called_then_it_is_a_protocol_error(
    call: Callable[[Client], object], answer: Sought | ChannelDescribed, pool: ThreadPoolExecutor
) -> None:
    with FakeServer() as server, Client(server.url) as mq:
        calling = pool.submit(call, mq)
        peer = server.peer()
        peer.reply(peer.receive()[0], answer)
        assert isinstance(calling.exception(PATIENCE), ProtocolError)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"\x15\x03\x01\x00\x02\x02F",
        PING_FRAME,
    ],
    ids=["http", "ssh", "tls", "ping first"],
)
def test_given_another_kind_of_server_when_connecting_then_the_error_names_the_address(answer: bytes) -> None:
    def reply(peer: Peer) -> None:
        peer.receive()
        peer.socket.sendall(answer)
        peer.cut()

    with FakeServer(reply) as server, pytest.raises(ProtocolError, match=f"{server.address} is not a RocksMQ broker"):
        Client(server.url)
