"""Calls that heal: sent again after whatever happens, until the deadline, and never stored twice."""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from rocksmq.clients import (
    Client,
    ConnectionFailed,
    DiskFull,
    LimitExceeded,
    Overloaded,
    RocksMQError,
    ShuttingDown,
    Timeout,
)
from rocksmq.clients.address import Address
from rocksmq.clients.credentials import Credentials
from rocksmq.clients.deadline import Deadline
from rocksmq.clients.link import RETRY_SECONDS, RETRY_SECONDS_MAX, Link
from rocksmq.clients.testing import Broker
from rocksmq.protocol.operations import Consume, DescribeGroup, Empty, GroupDescribed, Produce, Produced, ReleaseConsumer
from tests.clients.support import NOTHING, PATIENCE, Clock, answering, messages, wait_until
from tests.helpers.fake_server import PRESENT_ID, FakeServer, Peer

REFUSALS = pytest.mark.parametrize("error", [Overloaded, DiskFull, ShuttingDown])


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    """Threads for calls, all ended before the test is."""
    with ThreadPoolExecutor(4) as threads:
        yield threads


# -- a broker that is killed ---------------------------------------------------------------


def test_given_a_broker_that_is_killed_when_any_call_is_made_then_it_is_done_by_the_next_one(
    broker: Broker, client: Client, pool: ThreadPoolExecutor
) -> None:
    client.create_channel("orders")
    client.create_consumer_group("orders", "billing")
    client.produce("orders", [b"a", b"b"])
    calls: list[tuple[Callable[[], Any], Any]] = [
        (lambda: client.create_channel("new"), True),
        (lambda: client.create_consumer_group("new", "group"), True),
        (lambda: len(client.produce("orders", [b"c"])), 1),
        (lambda: client.consume("orders", "billing", 1).payloads, [b"a"]),
        (lambda: client.fetch("orders", "earliest").payloads, [b"a", b"b", b"c"]),
        (lambda: client.seek("orders", "billing", "earliest").outcome.value, "earliest"),
        (lambda: client.commit("orders", "billing", 1), None),
        (lambda: client.describe_consumer_group("orders", "billing").lag_messages, 3),
        (lambda: client.describe_channel("orders").message_count, 3),
        (client.list_channels, ["new", "orders"]),
        (lambda: client.destroy_consumer_group("new", "group"), None),
        (lambda: client.destroy_channel("new"), None),
        (lambda: client.ping() < PATIENCE, True),
    ]
    for number, (call, expected) in enumerate(calls):
        if number % 2:
            broker.kill()
            calling = pool.submit(call)
            broker.start()
        else:
            broker.kill()
            broker.start()
            calling = pool.submit(call)
        assert calling.result(PATIENCE) == expected
    assert client.consume("orders", "billing").payloads == [b"a", b"b", b"c"]


def test_given_a_producer_when_the_broker_is_killed_while_it_sends_then_everything_is_stored_once_in_order(
    broker: Broker, client: Client
) -> None:
    client.create_channel("orders")
    with client.producer("orders", batch_messages=5, linger=0.001) as producer:
        for number in range(300):
            producer.send(b"%d" % number)
            if number % 100 == 50:
                broker.kill()
                broker.start()
    assert client.fetch("orders", "earliest", 10_000).payloads == [b"%d" % number for number in range(300)]


# -- answers that are lost, and refusals -----------------------------------------------------


def test_given_a_reply_that_is_lost_when_produced_then_the_same_number_is_sent_again() -> None:
    sent: list[Produce] = []

    def handle(peer: Peer, correlation: int, request: Any) -> None:
        sent.append(request)
        peer.cut() if len(sent) < 3 else peer.reply(correlation, Produced(PRESENT_ID))

    with FakeServer(answering(handle)) as server, Client(server.url) as mq:
        assert mq.produce("orders", [b"a"]) == range(PRESENT_ID, PRESENT_ID + 1)
        assert mq.produce("orders", [b"b"]) == range(PRESENT_ID, PRESENT_ID + 1)
    assert sent[0] == sent[1] == sent[2]
    assert (sent[3].producer, sent[3].number) == (sent[0].producer, 1)


@REFUSALS
def test_given_a_refusal_that_passes_when_called_then_it_is_tried_again_no_sooner_than_asked(
    error: type[RocksMQError],
) -> None:
    begun: list[float] = []

    def handle(peer: Peer, correlation: int, request: Any) -> None:
        begun.append(time.monotonic())
        if len(begun) % 2:
            peer.refuse(correlation, error("later", retry_after=0.1))
        else:
            answers = {"Produce": Produced(PRESENT_ID), "Consume": messages([b"a"])}
            peer.reply(correlation, answers.get(type(request).__name__, Empty()))

    with FakeServer(answering(handle)) as server, Client(server.url) as mq:
        assert mq.produce("orders", [b"a"]) == range(PRESENT_ID, PRESENT_ID + 1)
        assert mq.consume("orders", "billing").payloads == [b"a"]
        mq.ping()
        assert len(begun) == 6
        for refused, again in ((0, 1), (2, 3), (4, 5)):
            assert begun[again] - begun[refused] >= 0.1


@REFUSALS
@pytest.mark.parametrize("retry_after", [None, 60.0])
def test_given_refusals_until_the_deadline_when_called_then_the_last_one_is_raised(
    error: type[RocksMQError], retry_after: float | None
) -> None:
    def handle(peer: Peer, correlation: int, request: Any) -> None:
        peer.refuse(correlation, error("not now", retry_after=retry_after))

    with FakeServer(answering(handle)) as server, Client(server.url, timeout=0.2) as mq:
        calls: list[Callable[[], object]] = [
            lambda: mq.produce("orders", [b"a"]),
            lambda: mq.consume("orders", "billing"),
            lambda: mq.fetch("orders", "earliest"),
            mq.list_channels,
        ]
        for call in calls:
            begin = time.monotonic()
            with pytest.raises(error, match="not now"):
                call()
            assert 0.19 <= time.monotonic() - begin < 5


@REFUSALS
def test_given_an_unanswered_transmission_when_refused_until_the_deadline_then_the_refusal_decides_if_it_can(
    error: type[RocksMQError],
) -> None:
    count = 0

    def handle(peer: Peer, correlation: int, request: Any) -> None:
        nonlocal count
        count += 1
        peer.cut() if count == 1 else peer.refuse(correlation, error("not now", retry_after=60.0))  # so the last is answered

    with FakeServer(answering(handle)) as server, Client(server.url, timeout=1.0) as mq:
        with pytest.raises(RocksMQError, match="not now") as raised:
            mq.produce("orders", [b"a"])
        # The others are answers to the number itself: they say that it is not stored.
        assert type(raised.value) is (ConnectionFailed if error is ShuttingDown else error)


@pytest.mark.parametrize("error", [LimitExceeded("too many"), Overloaded("busy"), ShuttingDown("stopping")])
def test_given_a_broker_that_is_full_when_reconnecting_then_it_is_tried_again(error: RocksMQError) -> None:
    refusals = iter([None, error, error])

    def answer(peer: Peer) -> None:
        refusal = next(refusals, None)
        if refusal is not None:
            correlation, _ = peer.receive()
            peer.refuse(correlation, refusal)
            return
        peer.greet()
        correlation, _ = peer.receive()
        if server.connection_count == 1:
            peer.cut()
        else:
            peer.reply(correlation, Empty())

    with FakeServer(answer) as server, Client(server.url) as mq:
        mq.ping()
        assert server.connection_count == 4


def test_given_a_broker_that_stays_full_when_the_deadline_comes_then_its_refusal_is_raised() -> None:
    def answer(peer: Peer) -> None:
        correlation, _ = peer.receive()
        peer.refuse(correlation, LimitExceeded("too many"))

    with FakeServer(answer) as server, pytest.raises(LimitExceeded, match="too many"):
        Client(server.url, timeout=0.2)


# -- pauses ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("roll", "share"), [(0, 0.0), (500, 0.5), (999, 0.999)])
def test_given_any_roll_of_the_dice_when_paused_then_it_is_that_share_of_a_delay_that_doubles_up_to_a_bound(
    monkeypatch: pytest.MonkeyPatch, roll: int, share: float
) -> None:
    link = Link(Address.parse("rocksmq://127.0.0.1:1"), Credentials(), "test")
    waited: list[float] = []

    def randbelow(bound: int) -> int:
        return roll * bound // 1_000

    monkeypatch.setattr("rocksmq.clients.link.secrets.randbelow", randbelow)
    monkeypatch.setattr(threading.Event, "wait", lambda self, timeout=None: waited.append(timeout or 0.0))  # pyright: ignore
    delay, delays = RETRY_SECONDS, [RETRY_SECONDS * 2**doubled for doubled in range(8)]
    for _ in delays:
        delay = link.pause(delay, Deadline(60))
    assert waited == pytest.approx([share * min(one, RETRY_SECONDS_MAX) for one in delays])
    waited.clear()
    link.pause(1.0, Deadline(60), 5.0)
    link.pause(1.0, Deadline(0), 5.0)
    assert waited == pytest.approx([5.0 + share, 0.0])


# -- what is told ----------------------------------------------------------------------------


def test_given_an_outage_when_many_calls_meet_it_then_it_is_logged_once_and_nothing_is_printed(
    broker: Broker, pool: ThreadPoolExecutor, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.INFO, "rocksmq.client")
    with broker.client() as mq, broker.client(timeout=0.05) as hasty:
        broker.kill()
        for _ in range(3):
            with pytest.raises(ConnectionFailed):
                hasty.ping()
        assert len(caplog.records) == 1
        caplog.clear()
        hasty.close()
        broker.start()
        mq.ping()
        for outage in (2, 3):
            broker.kill()
            calling = [pool.submit(mq.list_channels) for _ in range(4)]
            broker.start()
            assert [future.result(PATIENCE) for future in calling] == [[]] * 4
            told = [(record.name, record.levelno) for record in caplog.records]
            assert told == [("rocksmq.client", logging.WARNING), ("rocksmq.client", logging.INFO)] * outage
    assert capfd.readouterr() == ("", "")
    assert broker.address in caplog.text


# -- a peer that is silent ---------------------------------------------------------------------


def test_given_a_peer_that_falls_silent_when_a_call_waits_then_it_is_pinged_given_up_and_replaced(
    monkeypatch: pytest.MonkeyPatch, pool: ThreadPoolExecutor
) -> None:
    clock = Clock()
    monkeypatch.setattr("rocksmq.clients.connection.time", clock)
    monkeypatch.setattr("rocksmq.clients.connection.PING_SECONDS", 0.05)
    monkeypatch.setattr("rocksmq.clients.connection.DEAD_SECONDS", 20.0)
    with FakeServer() as server, Client(server.url, timeout=60) as mq:
        calling = pool.submit(mq.produce, "orders", [b"a"])
        dead = server.peer()
        _, first = dead.receive()
        clock.now += 1
        assert isinstance(dead.receive()[1], Empty)  # the ping, which stays unanswered
        clock.now += 20
        alive = server.peer()
        correlation, again = alive.receive()
        assert again == first
        alive.reply(correlation, Produced(PRESENT_ID))
        assert calling.result(PATIENCE) == range(PRESENT_ID, PRESENT_ID + 1)


# -- closing -----------------------------------------------------------------------------------


def test_given_a_broker_that_is_frozen_when_closed_with_much_open_then_it_ends_soon(
    broker: Broker,
    client: Client,
    pool: ThreadPoolExecutor,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    client.create_channel("orders")
    client.create_consumer_group("orders", "billing")
    client.produce("orders", [b"a"] * 10)
    monkeypatch.setattr("rocksmq.clients.client.EXIT_SECONDS", 0.3)
    mq = broker.client(timeout=60)
    mq.consume("orders", "billing", 1)
    producers = [mq.producer("orders", linger=0) for _ in range(3)]
    consumers = [mq.consumer("orders", "billing") for _ in range(3)]
    consumers[0].receive()
    os.kill(broker.pid, signal.SIGSTOP)
    try:
        for producer in producers:
            producer.send(b"b")
        waiting = pool.submit(mq.consume, "orders", "billing", timeout=None)
        reading = pool.submit(consumers[1].receive)
        begin = time.monotonic()
        mq.close()
        assert time.monotonic() - begin < 5
        assert "was not closed before its client" in caplog.text
        assert isinstance(waiting.exception(PATIENCE), ConnectionFailed)
        assert isinstance(reading.exception(PATIENCE), ConnectionFailed)
    finally:
        os.kill(broker.pid, signal.SIGCONT)


def test_given_a_broker_that_is_away_when_closed_then_it_waits_for_nothing(
    broker: Broker, client: Client, pool: ThreadPoolExecutor, caplog: pytest.LogCaptureFixture
) -> None:
    client.create_channel("orders")
    client.create_consumer_group("orders", "billing")
    client.produce("orders", [b"a"] * 10)
    mq = broker.client(timeout=60)
    producer, consumer = mq.producer("orders"), mq.consumer("orders", "billing")
    consumer.receive()
    waiting = pool.submit(mq.consumer("orders", "billing").receive)
    broker.kill()
    producer.send(b"b")
    begin = time.monotonic()
    mq.close()
    assert time.monotonic() - begin < 2
    assert "was not closed before its client" in caplog.text
    assert waiting.exception(PATIENCE) is not None


def test_given_consumer_ids_when_the_client_is_closed_then_each_that_the_broker_knows_is_released() -> None:
    seen: list[Any] = []

    def handle(peer: Peer, correlation: int, request: Any) -> None:
        seen.append(request)
        if isinstance(request, Consume):
            peer.reply(correlation, messages([b"a"]) if request.group == "full" else NOTHING)
        elif isinstance(request, DescribeGroup):
            peer.reply(correlation, GroupDescribed(1, 0, 0, 0, 0, b""))
        else:
            peer.reply(correlation, Empty())

    with FakeServer(answering(handle)) as server:
        with Client(server.url) as mq:
            mq.consume("orders", "full")
            mq.consume("orders", "empty")
            mq.consumer("orders", "full").close()
        released = [request for request in seen if isinstance(request, ReleaseConsumer)]
        consumed = [request for request in seen if isinstance(request, Consume)]
        assert [(request.group, request.number) for request in consumed] == [("full", 0), ("empty", 0)]
        expected = [ReleaseConsumer("orders", one.group, one.consumer, one.group == "full", 0, 0) for one in consumed]
        assert released == expected


def test_given_a_claim_that_was_never_returned_when_the_client_is_closed_then_another_gets_it(
    broker: Broker, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.create_channel("orders")
    client.create_consumer_group("orders", "billing")
    client.produce("orders", [b"a"])
    with broker.client() as mq:
        with monkeypatch.context() as patch:
            patch.setattr("rocksmq.clients.claims.MessageBatch", interrupted)
            with pytest.raises(KeyboardInterrupt):
                mq.consume("orders", "billing")
        assert client.describe_consumer_group("orders", "billing").lag_messages == 0
    assert client.consume("orders", "billing").payloads == [b"a"]


def interrupted(_: object) -> None:
    raise KeyboardInterrupt


def test_given_a_claim_that_was_interrupted_when_consumed_again_then_the_same_messages_come(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.create_channel("orders")
    client.create_consumer_group("orders", "billing")
    client.produce("orders", [b"a", b"b"])
    with monkeypatch.context() as patch:
        patch.setattr("rocksmq.clients.claims.MessageBatch", interrupted)
        with pytest.raises(KeyboardInterrupt):
            client.consume("orders", "billing", 1)
    assert client.consume("orders", "billing").payloads == [b"a"]
    assert client.consume("orders", "billing").payloads == [b"b"]


def test_given_a_frozen_broker_when_produced_then_it_is_a_timeout_and_the_next_call_goes_on(broker: Broker) -> None:
    with broker.client(timeout=0.3) as mq:
        mq.create_channel("orders")
        os.kill(broker.pid, signal.SIGSTOP)
        try:
            with pytest.raises(Timeout):
                mq.produce("orders", [b"maybe"])
        finally:
            os.kill(broker.pid, signal.SIGCONT)
        with broker.client() as patient:
            patient.produce("orders", [b"b"])
            wait_until(lambda: patient.fetch("orders", "earliest").payloads in ([b"maybe", b"b"], [b"b"]))
