"""`Consumer` with ``ack="auto"`` over a real broker: reading, sharing, seeking, giving back, ending."""

import gc
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from rocksmq.clients import (
    ChannelNotFound,
    Client,
    ConnectionFailed,
    GroupNotFound,
    InvalidRequest,
    Message,
    MessageBatch,
    Timeout,
)
from rocksmq.clients.connection import Call, Connection
from rocksmq.clients.deadline import Deadline
from rocksmq.clients.testing import Broker
from rocksmq.protocol.operations import Consume
from tests.clients.support import PATIENCE, wait_until


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A broker that this module shares."""
    with Broker(tmp_path_factory.mktemp("consumer") / "data") as process:
        yield process


@pytest.fixture
def mq(broker: Broker) -> Iterator[Client]:
    """A client, with the empty channel `orders` and its group `billing`."""
    with broker.client() as client:
        client.destroy_channel("orders", missing_ok=True)
        client.create_channel("orders", durability="os")
        client.create_consumer_group("orders", "billing")
        yield client


@pytest.fixture
def ten(mq: Client) -> Client:
    """`mq`, with the messages 0 to 9."""
    mq.produce("orders", [b"%d" % number for number in range(10)])
    return mq


def lag(mq: Client) -> int:
    return mq.describe_consumer_group("orders", "billing").lag_messages


def numbers(payloads: list[bytes]) -> list[int]:
    return [int(payload) for payload in payloads]


class Parked:
    """Counts the consumes that were sent, so that a test knows when one waits at the broker."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        begin = Connection.begin

        def noted(connection: Connection, request: Any, deadline: Deadline) -> Call:
            call = begin(connection, request, deadline)
            self.count += isinstance(request, Consume)
            return call

        monkeypatch.setattr(Connection, "begin", noted)

    def wait(self, mq: Client, count: int) -> None:
        """Until the broker has taken so many: it takes the frames of a connection in order."""
        wait_until(lambda: self.count >= count)
        mq.ping()


# -- reading -----------------------------------------------------------------------------


def test_given_messages_when_iterated_then_each_comes_once_in_order_and_idle_timeout_ends_it(ten: Client) -> None:
    with ten.consumer("orders", "billing", batch_messages=3, idle_timeout=0.05) as consumer:
        found = list(consumer)
        assert all(isinstance(message, Message) for message in found)
        assert numbers([message.payload for message in found]) == list(range(10))
        ten.produce("orders", [b"10"], headers={"k": b"v"})
        (last,) = consumer  # it may be iterated on
        assert (last.payload, last.headers) == (b"10", {"k": b"v"})
    assert lag(ten) == 0


def test_given_no_idle_timeout_when_iterated_then_it_waits_for_the_next_message(mq: Client, broker: Broker) -> None:
    with ThreadPoolExecutor(1) as pool, mq.consumer("orders", "billing") as consumer:
        waiting = pool.submit(lambda: next(consumer))
        with broker.client() as other:
            other.produce("orders", [b"a"])
        assert waiting.result(PATIENCE).payload == b"a"


def test_given_no_message_when_received_then_it_is_a_timeout_after_its_time_and_a_batch_is_empty(mq: Client) -> None:
    with mq.consumer("orders", "billing") as consumer:
        for timeout in (0, 0.1):
            begin = time.monotonic()
            with pytest.raises(Timeout, match="no message came"):
                consumer.receive(timeout)
            batch = consumer.receive_batch(timeout=timeout)
            assert (len(batch), batch.payloads, list(batch.ids)) == (0, [], [])
            assert 2 * timeout * 0.99 <= time.monotonic() - begin < PATIENCE
        mq.produce("orders", [b"a"])
        assert consumer.receive().payload == b"a"


def test_given_what_is_in_hand_when_read_in_all_ways_then_nothing_is_left_out_or_doubled(ten: Client) -> None:
    ids = list(ten.fetch("orders", "earliest").ids)
    with ten.consumer("orders", "billing", batch_messages=6) as consumer:
        assert next(consumer).payload == b"0"
        batch = consumer.receive_batch(2)
        assert isinstance(batch, MessageBatch)
        assert (batch.payloads, list(batch.ids), batch.next_position) == ([b"1", b"2"], ids[1:3], ids[3])
        assert consumer.receive(0).payload == b"3"
        assert consumer.receive_batch().payloads == [b"4", b"5"]  # what is at hand
        assert consumer.receive_batch(1).payloads == [b"6"]
        assert [message.payload for message in consumer.receive_batch(100)] == [b"7", b"8", b"9"]
        assert not consumer.receive_batch()


def test_given_headers_when_received_as_a_part_of_a_batch_then_they_are_their_messages_own(mq: Client) -> None:
    for number in range(4):
        mq.produce("orders", [b"%d" % number], headers={"n": b"%d" % number} if number % 2 else None)
    with mq.consumer("orders", "billing") as consumer:
        parts = [consumer.receive_batch(1), consumer.receive_batch(2), consumer.receive_batch()]
        found = [message.headers for part in parts for message in part]
    assert found == [{}, {"n": b"1"}, {}, {"n": b"3"}]


@pytest.mark.parametrize("bad", [0, -1, 1.5, True, "1"])
def test_given_a_wrong_number_when_used_then_it_is_refused_and_nothing_is_lost(ten: Client, bad: Any) -> None:
    with pytest.raises(InvalidRequest, match="batch_messages"):
        ten.consumer("orders", "billing", batch_messages=bad)
    with ten.consumer("orders", "billing") as consumer:
        with pytest.raises(InvalidRequest, match="max_messages"):
            consumer.receive_batch(bad)
        for timeout in (-1, float("nan")):
            with pytest.raises(InvalidRequest, match="timeout"):
                consumer.receive(timeout)
            with pytest.raises(InvalidRequest, match="timeout"):
                consumer.receive_batch(timeout=timeout)
        assert len(consumer.receive_batch()) == 10


@pytest.mark.parametrize(
    "arguments", [{"idle_timeout": -1}, {"on_gap": "shout"}, {"on_gap": None}, {"ack": "never"}, {"ack": None}]
)
def test_given_a_wrong_argument_when_opened_then_it_is_named_and_no_warning_comes(mq: Client, arguments: Any) -> None:
    (name,) = arguments
    with pytest.raises(InvalidRequest, match=name.removeprefix("idle_")):
        mq.consumer("orders", "billing", **arguments)
    gc.collect()


@pytest.mark.parametrize("ack", ["auto", "manual"])
def test_given_an_unknown_channel_or_group_when_opened_then_it_is_told_at_once(mq: Client, ack: Any) -> None:
    with pytest.raises(ChannelNotFound, match="'nowhere'"):
        mq.consumer("nowhere", "billing", ack=ack)
    with pytest.raises(GroupNotFound, match="'nobody'"):
        mq.consumer("orders", "nobody", ack=ack)
    with pytest.raises(InvalidRequest, match="name"):
        mq.consumer("orders", "a b", ack=ack)


def test_given_auto_when_committed_then_it_says_how_to_open_it_instead(ten: Client) -> None:
    with ten.consumer("orders", "billing") as consumer:
        consumer.receive()
        with pytest.raises(InvalidRequest, match="manual"):
            consumer.commit()
        assert consumer.receive().payload == b"1"


def test_given_a_channel_that_is_destroyed_when_a_consumer_waits_then_it_is_told(
    mq: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    parked = Parked(monkeypatch)
    with ThreadPoolExecutor(1) as pool, mq.consumer("orders", "billing") as consumer:
        waiting = pool.submit(consumer.receive)
        parked.wait(mq, 1)
        mq.destroy_channel("orders")
        assert isinstance(waiting.exception(PATIENCE), ChannelNotFound)


# -- giving back -------------------------------------------------------------------------


@pytest.mark.parametrize("taken", [0, 1, 4, 5, 10])
def test_given_a_batch_in_hand_when_closed_then_exactly_what_was_not_handed_out_is_served_first(
    ten: Client, taken: int
) -> None:
    consumer = ten.consumer("orders", "billing", batch_messages=5)
    for number in range(taken):
        assert consumer.receive().payload == b"%d" % number
    consumer.close()
    assert lag(ten) == 10 - taken
    ten.produce("orders", [b"10"])
    with ten.consumer("orders", "billing", idle_timeout=0) as other:
        assert numbers([message.payload for message in other]) == list(range(taken, 11))


def test_given_a_block_that_is_left_early_when_consumed_by_the_client_then_the_rest_comes_once(ten: Client) -> None:
    with ten.consumer("orders", "billing") as consumer:
        for message in consumer:
            if message.payload == b"3":
                break
    assert numbers(ten.consume("orders", "billing").payloads) == list(range(4, 10))
    assert not ten.consume("orders", "billing")


def test_given_a_block_that_is_left_by_an_error_when_left_then_it_gives_back_and_the_error_goes_on(ten: Client) -> None:
    def fail() -> None:
        with ten.consumer("orders", "billing") as consumer:
            consumer.receive_batch(3)
            raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        fail()
    assert lag(ten) == 7


def test_given_a_client_that_is_closed_when_a_consumer_holds_messages_then_they_are_given_back(
    ten: Client, broker: Broker
) -> None:
    other = broker.client()
    consumer = other.consumer("orders", "billing")
    consumer.receive_batch(4)
    other.close()
    assert lag(ten) == 6
    with pytest.raises(ConnectionFailed):
        consumer.receive(0)


def test_given_a_channel_that_is_gone_when_closed_then_nothing_is_raised(ten: Client) -> None:
    consumer = ten.consumer("orders", "billing")
    consumer.receive()
    ten.destroy_channel("orders")
    consumer.close()


# -- sharing -----------------------------------------------------------------------------


def test_given_several_consumers_of_a_group_when_all_read_then_each_message_comes_once(mq: Client, broker: Broker) -> None:
    mq.produce("orders", [b"%d" % number for number in range(2_000)])

    def read(_: int) -> list[int]:
        with broker.client() as client, client.consumer("orders", "billing", batch_messages=30, idle_timeout=0) as consumer:
            return [int(message.payload) for message in consumer]

    with ThreadPoolExecutor(4) as pool:
        shares = list(pool.map(read, range(4)))
    assert Counter(number for share in shares for number in share) == Counter(range(2_000))
    assert all(share == sorted(share) for share in shares)


def test_given_threads_that_share_one_consumer_when_all_read_then_each_message_comes_once(mq: Client) -> None:
    mq.produce("orders", [b"%d" % number for number in range(3_000)])

    def read(which: int) -> list[int]:
        found: list[int] = []
        while True:
            if which % 2:
                batch = consumer.receive_batch(7)
                if not batch:
                    return found
                found += numbers(batch.payloads)
            elif (message := next(consumer, None)) is None:
                return found
            else:
                found.append(int(message.payload))

    with ThreadPoolExecutor(4) as pool, mq.consumer("orders", "billing", batch_messages=100, idle_timeout=0) as consumer:
        shares = list(pool.map(read, range(4)))
    assert Counter(number for share in shares for number in share) == Counter(range(3_000))
    assert lag(mq) == 0


# -- seeking -----------------------------------------------------------------------------


def test_given_a_batch_in_hand_when_sought_then_nothing_read_before_appears_after_it(ten: Client) -> None:
    ids = ten.fetch("orders", "earliest").ids
    moment = datetime.now(UTC) + timedelta(days=1)
    with ten.consumer("orders", "billing", batch_messages=4, idle_timeout=0) as consumer:
        for to, rest in ((ids[7], 7), ("earliest", 0), (ids[2], 2), ("latest", 10), (ids[0], 0), (moment, 10), (0, 0)):
            consumer.seek(to)
            assert numbers([message.payload for message in consumer]) == list(range(rest, 10))
            consumer.seek("earliest")
            assert consumer.receive().payload == b"0"


def test_given_a_seek_that_is_refused_when_reading_on_then_nothing_is_lost_or_doubled(ten: Client) -> None:
    with ten.consumer("orders", "billing", batch_messages=5, idle_timeout=0) as consumer:
        consumer.receive_batch(2)
        for wrong in ("middle", -1, datetime(2027, 1, 1)):
            with pytest.raises(InvalidRequest):
                consumer.seek(wrong)
        assert numbers([message.payload for message in consumer]) == list(range(2, 10))


def test_given_a_thread_that_waits_when_another_seeks_then_it_reads_from_there_once(
    ten: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    parked = Parked(monkeypatch)
    ids = ten.fetch("orders", "earliest").ids
    with ThreadPoolExecutor(1) as pool, ten.consumer("orders", "billing") as consumer:
        assert len(consumer.receive_batch()) == 10
        for begin in (6, 2, 8):
            before = parked.count
            waiting = pool.submit(consumer.receive, PATIENCE)
            parked.wait(ten, before + 1)
            consumer.seek(ids[begin])
            assert waiting.result(PATIENCE).payload == b"%d" % begin
            assert numbers(consumer.receive_batch().payloads) == list(range(begin + 1, 10))


def test_given_a_group_that_is_sought_by_others_when_read_then_it_goes_on_from_there(ten: Client) -> None:
    with ten.consumer("orders", "billing", batch_messages=5, idle_timeout=0) as consumer:
        consumer.receive_batch()
        ten.seek("orders", "billing", "earliest")
        assert numbers([message.payload for message in consumer]) == list(range(10))


def test_given_a_batch_in_hand_when_sought_and_closed_then_nothing_is_given_back(ten: Client) -> None:
    ids = ten.fetch("orders", "earliest").ids
    consumer = ten.consumer("orders", "billing")
    consumer.receive_batch(3)
    consumer.seek(ids[9])
    consumer.close()
    assert lag(ten) == 1


# -- ending ------------------------------------------------------------------------------


def test_given_a_thread_that_waits_when_another_closes_then_it_raises_promptly(
    mq: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    parked = Parked(monkeypatch)
    reads: list[Callable[[Any], object]] = [next, lambda c: c.receive(), lambda c: c.receive_batch(timeout=None)]
    with ThreadPoolExecutor(3) as pool:
        for read in reads:
            before = parked.count
            consumer = mq.consumer("orders", "billing")
            waiting = [pool.submit(read, consumer) for _ in range(2)]
            parked.wait(mq, before + 1)
            begin = time.monotonic()
            consumer.close()
            assert all(isinstance(future.exception(PATIENCE), ConnectionFailed) for future in waiting)
            assert time.monotonic() - begin < 5
        mq.produce("orders", [b"a"])
        assert mq.consume("orders", "billing").payloads == [b"a"]  # nobody else waits for it


def test_given_a_closed_consumer_when_used_then_every_call_says_so_and_close_may_be_repeated(ten: Client) -> None:
    consumer = ten.consumer("orders", "billing")
    consumer.receive()
    consumer.close()
    consumer.close()
    assert "closed" in repr(consumer)
    calls: list[Callable[[], object]] = [
        lambda: next(consumer),
        consumer.receive,
        consumer.receive_batch,
        lambda: consumer.seek("earliest"),
        consumer.commit,
    ]
    for call in calls:
        with pytest.raises(ConnectionFailed, match="consumer is closed"):
            call()


def test_given_a_consumer_that_was_not_closed_when_it_is_dropped_then_a_warning_says_so(mq: Client) -> None:
    consumers = [mq.consumer("orders", "billing")]
    assert iter(consumers[0]) is consumers[0]
    with pytest.warns(ResourceWarning, match=r"Consumer of group 'billing' of 'orders'.* was not closed"):
        consumers.clear()
    assert not [thread for thread in threading.enumerate() if "consumer" in thread.name]
