"""What nobody closed, or what could not be closed: nothing is lost that can be saved, and what is lost is told."""

import gc
import logging
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest

from rocksmq.clients import Client, ConnectionFailed, Overloaded, PermissionDenied, RocksMQError, StorageFailed
from rocksmq.clients.testing import Broker
from rocksmq.protocol.operations import Consume, DescribeGroup, Empty, GroupDescribed, ReleaseConsumer
from tests.clients.support import NOTHING, PATIENCE, Clock, answering, messages
from tests.helpers.fake_server import FakeServer, Peer


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A broker that this module shares."""
    with Broker(tmp_path_factory.mktemp("left") / "data") as process:
        yield process


@pytest.fixture
def mq(broker: Broker) -> Iterator[Client]:
    """A client; channel `orders` has the messages 0 to 9, and groups `billing` and `shipping`; `invoices` is empty."""
    with broker.client() as client:
        for channel in ("orders", "invoices"):
            client.destroy_channel(channel, missing_ok=True)
            client.create_channel(channel)
        client.create_consumer_group("orders", "billing")
        client.create_consumer_group("orders", "shipping")
        client.produce("orders", [b"%d" % number for number in range(10)])
        yield client


def numbers(payloads: list[bytes]) -> list[int]:
    return [int(payload) for payload in payloads]


def ended(program: str, url: str, warnings: str = "always") -> subprocess.CompletedProcess[str]:
    """A Python program, run to its end."""
    head = "import sys\nfrom rocksmq.clients import Client\nmq = Client(sys.argv[1])\n"
    command = [sys.executable, "-W", warnings, "-c", head + program, url]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


# -- what nobody refers to ---------------------------------------------------------------


def test_given_producers_that_nobody_refers_to_when_the_client_is_closed_then_they_are_flushed(
    mq: Client, broker: Broker
) -> None:
    with broker.client() as other:
        for number in range(3):
            other.producer("invoices", linger=3_600).send(b"%d" % number)
        gc.collect()
    assert sorted(mq.fetch("invoices", "earliest").payloads) == [b"0", b"1", b"2"]


def test_given_producers_that_nobody_refers_to_when_python_ends_then_they_are_flushed(mq: Client, broker: Broker) -> None:
    program = "for number in range(3): mq.producer('invoices', linger=3600).send(b'%d' % number)\n"
    done = ended(program, broker.url)
    assert (done.returncode, done.stdout) == (0, "")
    assert "flushed" not in done.stderr  # it tells of the client's socket alone, which was left open too
    assert sorted(mq.fetch("invoices", "earliest").payloads) == [b"0", b"1", b"2"]


def first_of_a_batch(mq: Client) -> bytes:
    """The payload of the first of the messages that a consumer claims, which nobody closes."""
    for message in mq.consumer("orders", "billing", batch_messages=6):
        return message.payload
    raise AssertionError("there are messages")


@pytest.mark.parametrize("by", ["consume", "consumer"])
def test_given_a_consumer_that_is_dropped_in_a_batch_when_its_client_reads_on_then_the_rest_comes_first(
    mq: Client, by: str
) -> None:
    with pytest.warns(ResourceWarning, match="was not closed"):
        assert first_of_a_batch(mq) == b"0"
    if by == "consume":
        found = numbers(mq.consume("orders", "billing").payloads)
        found += numbers(mq.consume("orders", "billing").payloads)
    else:
        with mq.consumer("orders", "billing", idle_timeout=0) as consumer:
            found = numbers([message.payload for message in consumer])
    assert found == list(range(1, 10))


# -- the end of the interpreter ----------------------------------------------------------

TWO_OF_EACH = """
consumers = [mq.consumer('orders', group) for group in ('billing', 'shipping')]
for consumer in consumers: next(consumer)
producers = [mq.producer('invoices', linger=3600) for _ in range(2)]
for producer in producers: producer.send(b'x')
"""


@pytest.mark.parametrize("warnings", ["default", "error::ResourceWarning"])
def test_given_open_consumers_and_producers_when_python_ends_then_each_is_closed_even_if_warnings_are_errors(
    mq: Client, broker: Broker, warnings: str
) -> None:
    done = ended(TWO_OF_EACH, broker.url, warnings)
    assert (done.returncode, done.stdout) == (0, "")
    assert "was not closed" in done.stderr
    for group in ("billing", "shipping"):
        assert numbers(mq.consume("orders", group).payloads) == list(range(1, 10))
    assert mq.fetch("invoices", "earliest").payloads == [b"x", b"x"]


# -- a client that ends while the broker is away -------------------------------------------


@pytest.mark.parametrize("way", ["left", "left by an error", "closed"])
def test_given_messages_that_are_held_and_no_broker_when_the_client_ends_then_it_is_logged_and_raised_where_it_ends_well(
    mq: Client, broker: Broker, caplog: pytest.LogCaptureFixture, way: str
) -> None:
    assert mq.list_channels()
    raised: BaseException | None = None
    with caplog.at_level(logging.WARNING, "rocksmq.client"):
        try:
            with broker.client() as other:
                producer = other.producer("invoices", linger=3_600)
                for number in range(3):
                    producer.send(b"%d" % number)
                broker.kill()
                if way == "left by an error":
                    raise LookupError
                if way == "closed":
                    other.close()
        except (RocksMQError, LookupError) as error:
            raised = error
        finally:
            broker.start()
    assert "was not closed before its client: 3 messages " in caplog.text
    if way == "left":
        assert isinstance(raised, RocksMQError)
        assert [message.payload for message in raised.not_stored] == [b"0", b"1", b"2"]
    else:
        assert type(raised) is (LookupError if way == "left by an error" else type(None))


# -- a broker that hinders -----------------------------------------------------------------


def group_of_one(peer: Peer, correlation: int, request: Any) -> None:
    """A group with one batch."""
    if isinstance(request, DescribeGroup):
        peer.reply(correlation, GroupDescribed(1, 0, 0, 0, 0, b""))
    elif isinstance(request, Consume):
        peer.reply(correlation, NOTHING if request.number else messages([b"a", b"b"]))
    else:
        peer.reply(correlation, Empty())


def test_given_a_close_that_is_refused_when_the_client_goes_on_then_what_was_held_is_given_back_later() -> None:
    released: list[ReleaseConsumer] = []

    def handle(peer: Peer, correlation: int, request: Any) -> None:
        if isinstance(request, ReleaseConsumer):
            released.append(request)
            if len(released) == 1:
                peer.refuse(correlation, PermissionDenied("not you"))
                return
        group_of_one(peer, correlation, request)

    with FakeServer(answering(handle)) as server, Client(server.url) as mq:
        consumer = mq.consumer("orders", "billing")
        assert consumer.receive().payload == b"a"
        with pytest.raises(PermissionDenied):
            consumer.close()
        mq.consume("orders", "billing")
        assert released[1:] == released[:1]
        assert released[0].number == 0
    assert [request.consumer for request in released].count(released[0].consumer) == 2


@pytest.mark.parametrize(
    "error", [StorageFailed("the disk failed"), Overloaded("later")], ids=lambda error: type(error).__name__
)
def test_given_what_was_held_when_the_disk_fails_as_it_is_given_back_then_that_is_tried_until_it_is_done(
    error: RocksMQError,
) -> None:
    released: list[ReleaseConsumer] = []

    def handle(peer: Peer, correlation: int, request: Any) -> None:
        if isinstance(request, ReleaseConsumer):
            released.append(request)
            if len(released) < 4:
                peer.refuse(correlation, PermissionDenied("not you") if len(released) == 1 else error)
                return
        group_of_one(peer, correlation, request)

    with FakeServer(answering(handle)) as server, Client(server.url) as mq:
        consumer = mq.consumer("orders", "billing")
        assert consumer.receive().payload == b"a"
        with pytest.raises(PermissionDenied):
            consumer.close()
        for _ in range(5):
            mq.consume("orders", "billing")
        assert released == released[:1] * 4


def test_given_something_to_give_back_when_a_claim_has_failed_then_it_is_repeated_and_not_given_back_too() -> None:
    seen: list[Any] = []

    def handle(peer: Peer, correlation: int, request: Any) -> None:
        seen.append(request)
        of_kind = sum(isinstance(known, type(request)) for known in seen)
        if isinstance(request, ReleaseConsumer) and of_kind == 1:
            peer.refuse(correlation, PermissionDenied("not you"))
        elif isinstance(request, Consume) and of_kind == 2:
            peer.refuse(correlation, StorageFailed("the disk failed"))
        else:
            group_of_one(peer, correlation, request)

    with FakeServer(answering(handle)) as server, Client(server.url) as mq:
        consumer = mq.consumer("orders", "billing")
        assert consumer.receive().payload == b"a"
        with pytest.raises(StorageFailed):
            mq.consume("invoices", "billing")
        with pytest.raises(PermissionDenied):
            consumer.close()
        assert mq.consume("invoices", "billing").payloads == [b"a", b"b"]
        failed, again = (request for request in seen if isinstance(request, Consume) and request.channel == "invoices")
        assert failed == again._replace(wait_ms=failed.wait_ms)
        assert [request.channel for request in seen if isinstance(request, ReleaseConsumer)] == ["orders"] * 2


def test_given_a_reader_that_waits_for_a_hello_that_never_comes_when_the_consumer_is_closed_then_both_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("rocksmq.clients.connection.HELLO_SECONDS", 3 * PATIENCE)
    is_silent = threading.Event()

    def answer(peer: Peer) -> None:
        if server.connection_count == 1:
            peer.greet()
            correlation, request = peer.receive()
            while not isinstance(request, Consume):
                group_of_one(peer, correlation, request)
                correlation, request = peer.receive()
            peer.cut()
        else:
            peer.receive()
            is_silent.set()
            peer.receive()

    with FakeServer(answer) as server, ThreadPoolExecutor(2) as pool, Client(server.url, timeout=0.5) as mq:
        consumer = mq.consumer("orders", "billing")
        reading = pool.submit(consumer.receive)
        assert is_silent.wait(PATIENCE)

        def close() -> None:
            with suppress(RocksMQError):  # it could not give back
                consumer.close()

        closing = pool.submit(close)
        assert closing.result(PATIENCE) is None
        assert isinstance(reading.exception(PATIENCE), ConnectionFailed)


@pytest.mark.parametrize("read", ["consume", "fetch"])
def test_given_a_connection_that_takes_its_time_when_messages_are_waited_for_then_the_broker_is_told_what_is_left(
    monkeypatch: pytest.MonkeyPatch, read: str
) -> None:
    clock = Clock()
    monkeypatch.setattr("rocksmq.clients.deadline.time", clock)
    waits: list[int] = []

    def answer(peer: Peer) -> None:
        if server.connection_count == 2:
            clock.now += 2
        peer.greet()
        while True:
            correlation, request = peer.receive()
            if isinstance(request, ReleaseConsumer):
                peer.reply(correlation, Empty())
                continue
            waits.append(request.wait_ms)
            if server.connection_count == 1:
                peer.cut()
                return
            peer.reply(correlation, messages([b"a"]))

    calls: dict[str, Callable[[Client], Any]] = {
        "consume": lambda mq: mq.consume("orders", "billing", timeout=3),
        "fetch": lambda mq: mq.fetch("orders", "earliest", timeout=3),
    }
    with FakeServer(answer) as server, Client(server.url) as mq:
        assert calls[read](mq).payloads == [b"a"]
    assert waits == [3_000, 1_000]
