"""Signal handlers that raise, or that close what the main thread is in the midst of; and what fails half-way."""

import gc
import random
import signal
import sys
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from types import CodeType, FrameType
from typing import Any

import pytest

from rocksmq.clients import Client, Conflict, ConnectionFailed, InvalidRequest, MessageBatch, Producer
from rocksmq.clients.connection import Call, Connection
from rocksmq.clients.deadline import Deadline
from rocksmq.clients.testing import Broker
from rocksmq.clients.window import Sequenced, Window
from rocksmq.protocol.operations import OP_OF_REQUEST, Consume

SOON_SECONDS = 5.0


class Interrupted(BaseException):
    """What the handlers here raise."""


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A broker that this module shares."""
    with Broker(tmp_path_factory.mktemp("interrupted") / "data") as process:
        yield process


@pytest.fixture
def mq(broker: Broker) -> Iterator[Client]:
    """A client, with the channel `orders`, of the messages 0 to 9, and its group `billing`; `invoices` is empty."""
    with broker.client() as client:
        for channel in ("orders", "invoices"):
            client.destroy_channel(channel, missing_ok=True)
            client.create_channel(channel, durability="os")
        client.create_consumer_group("orders", "billing")
        client.produce("orders", [b"%d" % number for number in range(10)])
        yield client


@pytest.fixture
def handle(request: pytest.FixtureRequest) -> Callable[[int, Callable[[], None]], None]:
    """Sets what a signal does until the end of the test."""

    def handle(number: int, work: Callable[[], None]) -> None:
        def handler(number: int, frame: FrameType | None) -> None:
            work()

        former = signal.signal(number, handler)
        request.addfinalizer(lambda: signal.signal(number, former))

    return handle


def numbers(payloads: list[bytes]) -> list[int]:
    return [int(payload) for payload in payloads]


@contextmanager
def interrupt_at(code: CodeType, line: int) -> Generator[None, None, None]:
    """Raise Interrupted before the line of ``code`` that is run as the ``line``-th, of this thread."""
    runs = 0

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal runs
        if frame.f_code is not code:
            return None
        if event == "line":
            runs += 1
            if runs == line:
                raise Interrupted
        return trace

    former = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(former)


def consume_interrupted(mq: Client, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """A consume that was sent, and that an interrupt ends before its answer is read."""
    with monkeypatch.context() as patch:

        def interrupted(connection: Connection, call: Call, *rest: Any) -> bool:
            raise Interrupted

        patch.setattr(Connection, "is_answered", interrupted)
        with pytest.raises(Interrupted):
            mq.consume("orders", "billing", count)


# -- reading -----------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")  # of a connection that was just being made
def test_given_interrupts_when_consuming_then_each_message_is_handed_out_once(
    mq: Client,
    handle: Callable[[int, Callable[[], None]], None],
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupt() -> None:
        raise Interrupted

    monkeypatch.setattr("rocksmq.clients.link.logger.disabled", True)  # an interrupt in a handler would keep its lock for ever
    gc.disable()  # hypothesis has a callback there, and what is raised in that is nobody's
    request.addfinalizer(gc.enable)
    handle(signal.SIGALRM, interrupt)
    for begin in range(10, 40_000, 5_000):
        mq.produce("orders", [b"%d" % number for number in range(begin, begin + 5_000)])
    chance = random.Random(1)
    found: list[MessageBatch] = []
    count = 0
    while count < 400 and (not found or found[-1]):
        try:
            signal.setitimer(signal.ITIMER_REAL, chance.uniform(0.0002, 0.003))
            while not found or found[-1]:
                found.append(mq.consume("orders", "billing", 5))  # between the two no signal is looked at
        except Interrupted:
            count += 1
    signal.setitimer(signal.ITIMER_REAL, 0)
    while not found or found[-1]:
        found.append(mq.consume("orders", "billing", 1_000))
    gc.collect()
    payloads = [payload for batch in found for payload in batch.payloads]
    assert numbers(payloads) == list(range(40_010))


@pytest.mark.parametrize("arguments", [{"batch_messages": 0}, {"idle_timeout": -1}, {"on_gap": "shout"}, {"ack": "never"}])
def test_given_a_consume_that_was_interrupted_when_a_consumer_is_refused_then_its_claim_is_still_there(
    mq: Client, monkeypatch: pytest.MonkeyPatch, arguments: Any
) -> None:
    consume_interrupted(mq, monkeypatch, 4)
    with pytest.raises(InvalidRequest):
        mq.consumer("orders", "billing", **arguments)
    assert numbers(mq.consume("orders", "billing", 4).payloads) == [0, 1, 2, 3]


@pytest.mark.parametrize("arguments", [{"batch_messages": 0}, {"idle_timeout": -1}, {"on_gap": "shout"}])
def test_given_a_manual_consumer_when_another_is_refused_then_the_first_is_not_fenced(mq: Client, arguments: Any) -> None:
    with mq.consumer("orders", "billing", ack="manual") as consumer:
        consumer.receive()
        with pytest.raises(InvalidRequest):
            mq.consumer("orders", "billing", ack="manual", **arguments)
        consumer.commit()
        with mq.consumer("orders", "billing", ack="manual"), pytest.raises(Conflict):
            consumer.commit(metadata=b"late")


def test_given_a_consume_that_was_interrupted_when_a_consumer_reads_then_what_was_claimed_comes_first(
    mq: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    consume_interrupted(mq, monkeypatch, 4)
    with mq.consumer("orders", "billing", idle_timeout=0) as consumer:
        assert numbers([message.payload for message in consumer]) == list(range(10))


# -- closing in a signal handler -------------------------------------------------------------


def signal_to_the_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    """Send SIGUSR1 to this thread once it is the connection's reader, for a consume of its own."""
    read_until = Connection._read_until  # pyright: ignore[reportPrivateUsage]
    main = threading.get_ident()
    left = [signal.SIGUSR1]

    def signalled(connection: Connection, call: Call, deadline: Deadline) -> None:
        if left and call.op is OP_OF_REQUEST[Consume] and threading.get_ident() == main:
            signal.raise_signal(left.pop())
        read_until(connection, call, deadline)

    monkeypatch.setattr(Connection, "_read_until", signalled)


@pytest.mark.parametrize("what", ["client", "producer"])
def test_given_a_consume_that_reads_for_all_when_a_handler_closes_then_everything_is_stored(
    mq: Client,
    broker: Broker,
    monkeypatch: pytest.MonkeyPatch,
    handle: Callable[[int, Callable[[], None]], None],
    what: str,
) -> None:
    mq.seek("orders", "billing", "latest")
    with broker.client(timeout=SOON_SECONDS) as other:
        producer = other.producer("invoices", linger=3_600, batch_messages=1, max_in_flight=1)
        payloads = [b"%d" % number for number in range(2)]
        stored: list[list[bytes]] = []

        def close() -> None:
            other.close() if what == "client" else producer.close()
            stored.append(mq.fetch("invoices", "earliest").payloads)
            mq.produce("orders", [b"wake"])

        handle(signal.SIGUSR1, close)
        for payload in payloads:
            producer.send(payload)
        signal_to_the_reader(monkeypatch)
        if what == "client":
            with pytest.raises(ConnectionFailed):
                other.consume("orders", "billing", timeout=None)
        else:
            assert other.consume("orders", "billing", timeout=None).payloads == [b"wake"]
        assert stored == [payloads]


# -- half-way ----------------------------------------------------------------------------


def test_given_an_interrupt_at_any_line_of_looking_at_the_connection_then_it_is_read_all_the_same(broker: Broker) -> None:
    with broker.client(timeout=SOON_SECONDS) as mq:
        line = 0
        is_interrupted = True
        while is_interrupted:
            line += 1
            try:
                with interrupt_at(Connection.is_alive.__code__, line):
                    mq.ping()
                is_interrupted = False
            except Interrupted:
                mq.ping()
        assert line > 5


def test_given_a_thread_that_cannot_be_started_when_sent_then_the_message_is_not_queued_and_the_next_is_stored(
    mq: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with mq.producer("invoices") as producer:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", failing)
            for _ in range(2):
                with pytest.raises(RuntimeError, match="start new thread"):
                    producer.send(b"a")
                assert producer.unflushed == 0
        producer.send(b"b")
        producer.flush(SOON_SECONDS)
    assert mq.fetch("invoices", "earliest").payloads == [b"b"]


def test_given_an_interrupt_at_any_line_of_a_send_when_sent_again_by_its_sequence_then_each_is_stored_once(mq: Client) -> None:
    line = 0
    is_interrupted = True
    with mq.producer("invoices", name="import", linger=3_600) as producer:
        while is_interrupted:
            line += 1
            payload = b"%d" % line
            try:
                with interrupt_at(Producer.send.__code__, line):
                    producer.send(payload, sequence=line)
                is_interrupted = False
            except Interrupted:
                if producer.unflushed < line:
                    producer.send(payload, sequence=line)
            assert producer.unflushed == line
    assert line > 10
    assert numbers(mq.fetch("invoices", "earliest").payloads) == list(range(1, line + 1))


def test_given_a_message_with_a_sequence_when_it_is_queued_then_nothing_else_is_to_be_noted() -> None:
    assert Window().queued_sequence is None
    window = Window()
    window.open.items.append(Sequenced(b"a", b"", 5))
    assert window.open.sequences == [5, 5]
    window.open.items.append(Sequenced(b"b", b"", 9))
    assert (window.queued_sequence, window.open.sequences) == (9, [5, 9])
    with window.lock:
        window.seal()
    assert window.queued_sequence == 9
