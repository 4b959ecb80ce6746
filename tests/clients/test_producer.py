"""`Producer` over a real broker: when batches leave, what is kept, waiting, sharing, ending."""

import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from rocksmq.clients import (
    ChannelNotFound,
    Client,
    ConnectionFailed,
    InvalidRequest,
    LimitExceeded,
    MessageTooLarge,
    OutgoingMessage,
    Producer,
    Timeout,
)
from rocksmq.clients.testing import Broker
from tests.clients.support import PATIENCE, Frozen, wait_until

MIB = 1 << 20
LONG = 3_600.0  # a linger that no test waits for


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A broker that this module shares."""
    with Broker(tmp_path_factory.mktemp("producer") / "data") as process:
        yield process


@pytest.fixture
def mq(broker: Broker) -> Iterator[Client]:
    """A client, with the empty channel `orders`."""
    with broker.client() as client:
        client.destroy_channel("orders", missing_ok=True)
        client.create_channel("orders", durability="os")
        yield client


def stored(mq: Client) -> list[bytes]:
    return mq.fetch("orders", "earliest", 10_000).payloads


def count(mq: Client) -> int:
    return mq.describe_channel("orders").message_count


# -- when a batch leaves -----------------------------------------------------------------


def test_given_a_message_when_nothing_more_is_called_then_it_leaves_by_itself_after_linger(mq: Client) -> None:
    with mq.producer("orders", linger=0.01) as producer:
        producer.send(b"a")
        assert mq.fetch("orders", "earliest", timeout=PATIENCE).payloads == [b"a"]
        wait_until(lambda: producer.acked == 1)


def test_given_sends_within_linger_when_stored_then_they_are_one_batch(mq: Client) -> None:
    with mq.producer("orders", linger=LONG) as producer:
        for number in range(5):
            producer.send(b"%d" % number)
        assert (producer.acked, producer.unflushed, producer.last_id, count(mq)) == (0, 5, None, 0)
        producer.flush()
        ids = mq.fetch("orders", "earliest").ids
        assert list(ids) == list(range(ids[0], ids[0] + 5))
        assert (producer.acked, producer.unflushed, producer.last_id) == (5, 0, ids[-1])
    assert stored(mq) == [b"0", b"1", b"2", b"3", b"4"]


@pytest.mark.parametrize("linger", [1e10, float("inf")])
def test_given_an_endless_linger_when_flushed_then_it_is_stored(mq: Client, linger: float) -> None:
    with mq.producer("orders", linger=linger) as producer:
        producer.send(b"a")
    assert stored(mq) == [b"a"]


def test_given_batch_messages_when_as_many_are_sent_then_the_batch_leaves_and_the_rest_waits(mq: Client) -> None:
    with mq.producer("orders", linger=LONG, batch_messages=3) as producer:
        for number in range(7):
            producer.send(b"%d" % number)
        wait_until(lambda: producer.acked == 6)
        assert (producer.unflushed, count(mq)) == (1, 6)
    assert stored(mq) == [b"%d" % number for number in range(7)]


def test_given_batch_bytes_when_the_next_message_does_not_fit_then_those_before_leave_without_it(mq: Client) -> None:
    with mq.producer("orders", linger=LONG, batch_bytes=10) as producer:
        producer.send(b"12345")
        producer.send(b"67890")  # exactly full
        producer.send(b"a")
        wait_until(lambda: producer.acked == 2)
        assert producer.unflushed == 1
        producer.send(b"far larger than batch_bytes")
        wait_until(lambda: producer.acked == 3)
        producer.send(b"b")
        wait_until(lambda: producer.acked == 4)
    assert stored(mq) == [b"12345", b"67890", b"a", b"far larger than batch_bytes", b"b"]


def test_given_headers_when_counted_for_batch_bytes_then_they_count_too(mq: Client) -> None:
    with mq.producer("orders", linger=LONG, batch_bytes=100) as producer:
        producer.send(b"a", {"k": bytes(95)})
        producer.send(b"b")
        wait_until(lambda: producer.acked == 1)


def test_given_many_messages_when_sent_then_all_are_stored_in_order(mq: Client) -> None:
    payloads = [b"%d" % number for number in range(5_000)]
    with mq.producer("orders", batch_messages=100) as producer:
        for payload in payloads[:2_500]:
            producer.send(payload)
        producer.send_many(payloads[2_500:])
        producer.send_many(iter(()))
    assert producer.acked == 5_000
    assert stored(mq) == payloads


# -- what is kept ------------------------------------------------------------------------


def test_given_headers_on_some_when_stored_then_each_has_its_own(mq: Client) -> None:
    with mq.producer("orders", linger=LONG) as producer:
        producer.send(b"1")
        producer.send(b"2", {"k": b"v"})
        producer.send(b"3", {})
        producer.send_many([b"4", b"5"], {"clé": b"\x00"})
    found = [(message.payload, message.headers) for message in mq.fetch("orders", "earliest")]
    assert found == [(b"1", {}), (b"2", {"k": b"v"}), (b"3", {}), (b"4", {"clé": b"\x00"}), (b"5", {"clé": b"\x00"})]


def test_given_bytes_like_payloads_when_changed_after_send_then_what_was_sent_is_stored(mq: Client) -> None:
    array, under = bytearray(b"before"), bytearray(b"before")
    with mq.producer("orders", linger=LONG) as producer:
        producer.send(array)
        producer.send(memoryview(under)[::2])
        producer.send_many([array, b"", memoryview(under)])
        array[:] = under[:] = b"after!"
    assert stored(mq) == [b"before", b"bfr", b"before", b"", b"before"]


@pytest.mark.parametrize("payload", ["text", 7, None, [b"x"]])
def test_given_what_is_not_bytes_when_sent_then_it_is_a_type_error_and_not_queued(mq: Client, payload: Any) -> None:
    with mq.producer("orders", linger=LONG) as producer:
        producer.send(b"a")
        with pytest.raises(TypeError, match="bytes-like"):
            producer.send(payload)
        with pytest.raises(TypeError, match="bytes-like"):
            producer.send_many([b"b", payload, b"never"])
        producer.send(b"c")
    assert stored(mq) == [b"a", b"b", b"c"]


def test_given_a_message_that_is_too_large_when_sent_then_it_is_refused_at_once_and_the_others_are_stored(mq: Client) -> None:
    many = {str(number): b"" for number in range(65)}
    with mq.producer("orders", linger=LONG) as producer:
        producer.send(b"a")
        with pytest.raises(MessageTooLarge, match=f"{MIB + 1}.*{MIB}"):
            producer.send(bytes(MIB + 1))
        with pytest.raises(MessageTooLarge, match="header"):
            producer.send(b"x", {"k": bytes(257 << 10)})
        with pytest.raises(LimitExceeded, match="64"):
            producer.send(b"x", many)
        with pytest.raises(MessageTooLarge):
            producer.send_many([b"b", bytes(MIB + 1)])
        producer.send(bytes(MIB), {"k": bytes(255 << 10)})
        producer.flush()
        assert producer.acked == 3
    assert [len(payload) for payload in stored(mq)] == [1, 1, MIB]


@pytest.mark.parametrize(
    "arguments",
    [
        {"linger": -1}, {"linger": float("nan")}, {"batch_bytes": 0}, {"batch_bytes": 1 << 30}, {"batch_messages": 0},
        {"batch_messages": 10_001}, {"max_in_flight": 0}, {"max_in_flight": 17}, {"max_in_flight": True},
        {"batch_messages": 1.5}, {"name": "a b"}, {"name": ""},
    ],
)  # fmt: skip
def test_given_a_wrong_argument_when_opened_then_it_is_named(mq: Client, arguments: dict[str, Any]) -> None:
    (name,) = arguments
    with pytest.raises(InvalidRequest, match=name):
        mq.producer("orders", **arguments)
    with pytest.raises(InvalidRequest, match="name"):
        mq.producer("a b")


# -- waiting -----------------------------------------------------------------------------


def test_given_a_full_window_when_sent_then_it_blocks_up_to_the_timeout_and_the_message_is_not_queued(broker: Broker) -> None:
    with broker.client(timeout=0.2) as mq:
        mq.destroy_channel("orders", missing_ok=True)
        mq.create_channel("orders")
        producer = mq.producer("orders", batch_messages=1, max_in_flight=2, linger=0)
        with Frozen(broker):
            for number in range(3):
                producer.send(b"%d" % number)
            begin = time.monotonic()
            with pytest.raises(Timeout, match="was not queued"):
                producer.send(b"refused")
            assert 0.19 <= time.monotonic() - begin < PATIENCE
            assert producer.unflushed == 3
        producer.flush(PATIENCE)
        producer.send(b"3")
        producer.close()
        with broker.client() as other:
            assert other.fetch("orders", "earliest").payloads == [b"0", b"1", b"2", b"3"]


def test_given_a_broker_that_does_not_answer_when_flushed_then_it_is_a_timeout_and_sending_goes_on(
    mq: Client, broker: Broker
) -> None:
    with mq.producer("orders", linger=0) as producer:
        with Frozen(broker):
            producer.send(b"a")
            for timeout in (0, 0.05):
                with pytest.raises(Timeout, match=r"1 messages? (is|are) not durable yet"):
                    producer.flush(timeout)
        wait_until(lambda: producer.acked == 1)
        producer.flush(0)
    with pytest.raises(InvalidRequest, match="timeout"):
        producer.flush(-1)
    assert stored(mq) == [b"a"]


def test_given_nothing_sent_when_flushed_then_it_returns_at_once(mq: Client, broker: Broker) -> None:
    with mq.producer("orders") as producer:
        with Frozen(broker):
            producer.flush(0)
            producer.send_many([])
            producer.flush()
        assert (producer.acked, producer.last_id) == (0, None)


# -- refusals ----------------------------------------------------------------------------


def test_given_a_channel_that_is_destroyed_when_sent_to_then_the_next_flush_names_what_was_not_stored(mq: Client) -> None:
    producer = mq.producer("orders", linger=LONG)
    producer.send(b"kept")
    producer.flush()
    mq.destroy_channel("orders")
    producer.send(b"a", {"k": b"v"})
    producer.send(b"b")
    with pytest.raises(ChannelNotFound, match=r"2 messages are not stored.*'orders'") as raised:
        producer.flush()
    assert raised.value.not_stored == (OutgoingMessage(b"a", {"k": b"v"}), OutgoingMessage(b"b"))
    producer.flush()  # it was told
    mq.create_channel("orders")
    producer.send(b"c")
    producer.close()
    assert (stored(mq), producer.acked) == ([b"c"], 2)


def test_given_a_refused_batch_when_sent_again_then_that_send_tells_and_its_message_is_not_queued(mq: Client) -> None:
    mq.destroy_channel("orders")
    producer = mq.producer("orders", linger=0)
    producer.send(b"a")
    wait_until(lambda: producer.unflushed == 0)
    with pytest.raises(ChannelNotFound) as raised:
        producer.send(b"b")
    assert raised.value.not_stored == (OutgoingMessage(b"a"),)
    mq.create_channel("orders")
    producer.send(b"c")
    producer.close()
    assert stored(mq) == [b"c"]


def test_given_a_refused_batch_when_closed_then_that_raises_it_once(mq: Client) -> None:
    producer = mq.producer("orders", linger=LONG)
    producer.send(b"a")
    mq.destroy_channel("orders")
    with pytest.raises(ChannelNotFound) as raised:
        producer.close()
    assert raised.value.not_stored == (OutgoingMessage(b"a"),)
    producer.close()


# -- sharing -----------------------------------------------------------------------------


def test_given_threads_that_share_a_producer_when_all_send_then_each_ones_order_is_kept(mq: Client) -> None:
    def send(which: int) -> None:
        for number in range(500):
            producer.send(b"%d/%d" % (which, number))
            if number % 100 == 0:
                producer.flush()

    with mq.producer("orders", batch_messages=20) as producer, ThreadPoolExecutor(6) as pool:
        list(pool.map(send, range(6)))
    found = stored(mq)
    assert Counter(found) == Counter(b"%d/%d" % (which, number) for which in range(6) for number in range(500))
    for which in range(6):
        mine = [payload for payload in found if payload.startswith(b"%d/" % which)]
        assert mine == [b"%d/%d" % (which, number) for number in range(500)]


# -- ending ------------------------------------------------------------------------------


def test_given_a_send_that_waits_when_another_thread_closes_then_it_raises_and_is_not_queued(broker: Broker) -> None:
    with broker.client(timeout=30) as mq, ThreadPoolExecutor(2) as pool:
        mq.destroy_channel("orders", missing_ok=True)
        mq.create_channel("orders")
        producer = mq.producer("orders", batch_messages=1, max_in_flight=1, linger=0)
        with Frozen(broker):
            producer.send(b"0")
            producer.send(b"1")
            sending = pool.submit(producer.send, b"refused")
            wait_until(lambda: is_waiting_in("_attend"))
            closing = pool.submit(producer.close)
            assert isinstance(sending.exception(PATIENCE), ConnectionFailed)
            assert not closing.done()
        closing.result(PATIENCE)
        assert mq.fetch("orders", "earliest").payloads == [b"0", b"1"]


def is_waiting_in(function: str) -> bool:
    """Whether a thread waits for a lock inside of that function."""
    for frame in sys._current_frames().values():  # pyright: ignore[reportPrivateUsage]
        here: Any = frame
        if here.f_code.co_name == "wait":
            while here is not None:
                if here.f_code.co_name == function:
                    return True
                here = here.f_back
    return False


def test_given_a_closed_producer_when_used_then_every_call_says_so_and_close_may_be_repeated(mq: Client) -> None:
    producer = mq.producer("orders")
    producer.send(b"a")
    producer.close()
    producer.close()
    with pytest.raises(ConnectionFailed, match="producer is closed"):
        producer.send(b"b")
    with pytest.raises(ConnectionFailed, match="producer is closed"):
        producer.send_many([b"b", b"c"])
    producer.flush()
    assert "closed" in repr(producer)
    assert (stored(mq), producer.acked) == ([b"a"], 1)


def test_given_a_block_that_is_left_by_an_error_when_left_then_what_was_sent_is_stored_and_the_error_goes_on(
    mq: Client,
) -> None:
    def fail() -> None:
        with mq.producer("orders", linger=LONG) as producer:
            producer.send(b"a")
            raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        fail()
    assert stored(mq) == [b"a"]


def test_given_a_block_left_by_an_error_when_something_is_refused_then_that_is_logged_and_the_error_goes_on(
    mq: Client, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        with mq.producer("orders", linger=LONG) as producer:
            producer.send(b"a")
            mq.destroy_channel("orders")
            raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        fail()
    assert "1 message is not stored" in caplog.text


def test_given_a_client_that_is_closed_when_a_producer_is_open_then_it_is_flushed(broker: Broker, mq: Client) -> None:
    other = broker.client()
    producer = other.producer("orders", linger=LONG)
    producer.send(b"a")
    other.close()
    assert (stored(mq), producer.unflushed) == ([b"a"], 0)
    with pytest.raises(ConnectionFailed):
        producer.send(b"b")


def test_given_a_producer_that_is_idle_when_used_again_then_its_thread_ended_and_comes_back(
    mq: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rocksmq.clients.sender.IDLE_SECONDS", 0.01)
    with mq.producer("orders", linger=0) as producer:
        for number in range(3):
            producer.send(b"%d" % number)
            producer.flush()
            wait_until(lambda: sender_threads() == 0)
    assert stored(mq) == [b"0", b"1", b"2"]


def sender_threads() -> int:
    return sum(thread.name == "rocksmq producers" for thread in threading.enumerate())


def test_given_many_producers_when_closed_then_no_thread_and_no_descriptor_is_left(broker: Broker) -> None:
    with broker.client() as mq:
        mq.create_channel("orders")
    before = set(os.listdir("/proc/self/fd"))
    producers: list[Producer] = []
    for _ in range(10):
        with broker.client() as mq, mq.producer("orders", linger=0) as producer:
            producer.send(b"a")
            producers.append(producer)
    wait_until(lambda: sender_threads() == 0)
    assert len(set(os.listdir("/proc/self/fd")) - before) <= 1
