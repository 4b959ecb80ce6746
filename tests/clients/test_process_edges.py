"""What a fork and the interpreter's end mean to clients, producers and consumers."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from rocksmq.clients import Client, ConnectionFailed
from rocksmq.clients.testing import Broker
from tests.clients.support import PATIENCE, forked, wait_until

# -- forks -----------------------------------------------------------------------------


def refused(*calls: Callable[[], object]) -> bytes:
    """How many of the calls raised ConnectionFailed."""
    count = 0
    for call in calls:
        try:
            call()
        except ConnectionFailed:
            count += 1
    return b"%d" % count


@pytest.fixture
def mq(client: Client) -> Client:
    """A client, with the channel `orders` and its group `billing`."""
    client.create_channel("orders")
    client.create_consumer_group("orders", "billing")
    return client


@pytest.mark.parametrize("name", [None, "import"])
def test_given_a_producer_when_forked_then_the_child_can_send_nothing_by_it_and_the_parent_goes_on(
    mq: Client, name: str | None
) -> None:
    producer = mq.producer("orders", linger=3_600, name=name)
    first, second = (None, None) if name is None else (1, 2)
    producer.send(b"a", sequence=first)

    def child() -> bytes:
        told = refused(lambda: producer.send(b"child", sequence=second), lambda: producer.send(b"child", sequence=second))
        producer.close()
        mq.close()
        return told

    assert forked(child) == b"2"
    producer.send(b"b", sequence=second)
    producer.close()
    assert mq.fetch("orders", "earliest").payloads == [b"a", b"b"]


@pytest.mark.parametrize("ack", ["auto", "manual"])
def test_given_a_consumer_when_forked_then_the_child_can_read_nothing_by_it_and_the_parent_goes_on(
    mq: Client, ack: "str"
) -> None:
    mq.produce("orders", [b"a", b"b", b"c"])
    consumer = mq.consumer("orders", "billing", ack=ack, batch_messages=2)  # type: ignore[arg-type]  # pyright: ignore
    assert consumer.receive().payload == b"a"

    def child() -> bytes:
        told = refused(
            lambda: next(consumer), consumer.receive, consumer.receive_batch, consumer.commit, lambda: consumer.seek(0)
        )
        consumer.close()
        mq.close()
        return told

    assert forked(child) == b"5"
    assert [consumer.receive().payload, consumer.receive().payload] == [b"b", b"c"]
    consumer.close()


def test_given_a_client_when_forked_then_the_child_uses_it_under_ids_of_its_own(mq: Client) -> None:
    mq.produce("orders", [b"a", b"b", b"c"])
    assert mq.consume("orders", "billing", 1).payloads == [b"a"]

    def child() -> bytes:
        with mq.producer("orders") as producer:
            producer.send(b"child")
        with mq.consumer("orders", "billing", batch_messages=1) as consumer:
            found = consumer.receive(PATIENCE).payload
        mq.close()
        return found

    assert forked(child) == b"b"
    mq.produce("orders", [b"parent"])
    assert mq.consume("orders", "billing").payloads == [b"c", b"child", b"parent"]


# -- the end of the interpreter ----------------------------------------------------------


def run(program: str, url: str) -> tuple[subprocess.CompletedProcess[str], float]:
    """A Python program to its end, with the seconds that it took."""
    begin = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-W", "always", "-c", program, url], capture_output=True, text=True, timeout=60, check=False
    )
    return done, time.monotonic() - begin


HEAD = """
import os, signal, sys, threading
from rocksmq.clients import Client
mq = Client(sys.argv[1])
"""


def test_given_messages_that_are_unflushed_when_python_ends_then_they_are_flushed(mq: Client, broker: Broker) -> None:
    program = HEAD + "producer = mq.producer('orders', linger=3600)\nfor n in range(5): producer.send(b'%d' % n)\n"
    done, _ = run(program, broker.url)
    assert (done.returncode, done.stdout) == (0, "")
    assert "flushed" not in done.stderr  # it tells of the client's socket alone, which was left open too
    assert mq.fetch("orders", "earliest").payloads == [b"%d" % number for number in range(5)]


def test_given_a_broker_that_is_away_when_python_ends_then_it_does_soon_and_the_count_is_told(
    mq: Client, broker: Broker
) -> None:
    program = HEAD + (
        "producers = [mq.producer('orders', linger=3600) for _ in range(3)]\n"
        f"os.kill({broker.pid}, signal.SIGSTOP)\n"
        "for number in range(5): producers[0].send(b'x')\n"
        "producers[1].send(b'y')\n"
    )
    try:
        done, seconds = run(program, broker.url)
    finally:
        os.kill(broker.pid, signal.SIGCONT)
    assert done.returncode == 0
    assert seconds < 10
    assert "ResourceWarning: 5 messages of <Producer of 'orders'" in done.stderr
    assert "ResourceWarning: 1 message" in done.stderr
    assert done.stderr.count(" could not be flushed: ") == 2


@pytest.mark.parametrize(
    "call", ["mq.consume('orders', 'billing', timeout=None)", "mq.consumer('orders', 'billing').receive()"]
)
def test_given_threads_that_wait_for_messages_when_python_ends_then_it_ends(mq: Client, broker: Broker, call: str) -> None:
    program = HEAD + (
        f"threads = [threading.Thread(target=lambda: {call}, daemon=True) for _ in range(3)]\n"
        "for thread in threads: thread.start()\n"
        "mq.ping()\n"
    )
    done, seconds = run(program, broker.url)
    assert (done.returncode, done.stdout) == (0, "")
    assert seconds < 10
    mq.produce("orders", [b"a"])
    wait_until(lambda: mq.consume("orders", "billing").payloads == [b"a"])


def test_given_an_open_client_and_consumer_when_python_ends_then_both_are_told_of(mq: Client, broker: Broker) -> None:
    mq.produce("orders", [b"a"])
    done, seconds = run(HEAD + "consumer = mq.consumer('orders', 'billing')\nprint(consumer.receive().payload)\n", broker.url)
    assert (done.returncode, done.stdout) == (0, "b'a'\n")
    assert seconds < 10
    assert "<Consumer of group 'billing' of 'orders'> was not closed" in done.stderr
    assert "unclosed <socket.socket" in done.stderr
    assert done.stderr.count(" was not closed: ") == 1


def test_given_a_program_that_fails_when_it_has_unflushed_messages_then_they_are_stored_and_its_error_is_shown(
    mq: Client, broker: Broker
) -> None:
    program = HEAD + "producer = mq.producer('orders', linger=3600)\nproducer.send(b'a')\nraise RuntimeError('mine')\n"
    done, _ = run(program, broker.url)
    assert done.returncode == 1
    assert "RuntimeError: mine" in done.stderr
    assert mq.fetch("orders", "earliest").payloads == [b"a"]
