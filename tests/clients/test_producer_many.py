"""Many producers of one client: few of them have batches on their way at once, the others' grow meanwhile."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import pytest

from rocksmq.clients import Client, Producer, Timeout
from rocksmq.clients.testing import Broker
from tests.clients.support import PATIENCE, Frozen, wait_until


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with Broker(tmp_path_factory.mktemp("producers") / "data") as process:
        yield process


def opened(mq: Client, names: Sequence[str], **arguments: Any) -> list[Producer]:
    """Of as many new channels, each connected and with one message stored."""
    producers: list[Producer] = []
    for name in names:
        mq.destroy_channel(name, missing_ok=True)
        mq.create_channel(name)
        producers.append(mq.producer(name, linger=0, **arguments))
        producers[-1].send(b"first")
        producers[-1].flush(PATIENCE)
    return producers


def count_in(function: str) -> int:
    """How many threads are in a function of that name."""
    count = 0
    for frame in sys._current_frames().values():  # pyright: ignore[reportPrivateUsage]
        here: Any = frame
        while here is not None and here.f_code.co_name != function:
            here = here.f_back
        count += here is not None
    return count


def waits(producer: Producer) -> bool:
    """Whether it has something to send, and the sender has not come to it."""
    return producer._sending in producer._link.sender._ready  # pyright: ignore[reportPrivateUsage]


def stored(mq: Client, channel: str) -> list[bytes]:
    return mq.fetch(channel, "earliest", 10_000).payloads[1:]


@pytest.fixture
def mq(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    """A client of whose producers one at a time has something on its way."""
    monkeypatch.setattr("rocksmq.clients.sender.REQUESTS_MAX", 1)
    with broker.client(timeout=PATIENCE) as client:
        yield client


def test_given_another_on_its_way_when_more_is_sent_then_it_is_one_batch_once_that_is_answered(
    broker: Broker, mq: Client
) -> None:
    first, second = opened(mq, ["a", "b"])
    with Frozen(broker):
        first.send(b"1")
        wait_until(lambda: count_in("_await") == 1)
        second.send(b"2")
        wait_until(lambda: waits(second))
        second.send(b"3")
        second.send(b"4")
    for producer in (first, second):
        producer.close()
    ids = [message.id for message in mq.fetch("b", "earliest")]
    assert stored(mq, "b") == [b"2", b"3", b"4"]
    assert ids[3] - ids[1] == 2, "the ids of a batch follow each other"


def test_given_one_that_has_always_more_to_send_when_another_sends_then_it_gets_its_turn(broker: Broker, mq: Client) -> None:
    greedy, modest = opened(mq, ["a", "b"], batch_messages=1)
    with Frozen(broker):
        greedy.send(b"0")
        wait_until(lambda: count_in("_await") == 1)
        modest.send(b"x")
        wait_until(lambda: waits(modest))
        for number in range(1, 16):
            greedy.send(b"%d" % number)
    for producer in (greedy, modest):
        producer.flush(PATIENCE)
    assert stored(mq, "a") == [b"%d" % number for number in range(16)]
    assert modest.last_id is not None
    assert greedy.last_id is not None
    assert modest.last_id < greedy.last_id


def test_given_who_waits_for_its_turn_when_closed_then_it_sends_nothing_any_more(broker: Broker, mq: Client) -> None:
    first, impatient = opened(mq, ["a", "b"])
    with Frozen(broker):
        first.send(b"1")
        wait_until(lambda: count_in("_await") == 1)
        impatient.send(b"given up")
        wait_until(lambda: waits(impatient))
        impatient._timeout = 0.05  # pyright: ignore[reportPrivateUsage]
        with pytest.raises(Timeout) as raised:
            impatient.close()
        assert [message.payload for message in raised.value.not_stored] == [b"given up"]
    first.flush(PATIENCE)
    wait_until(lambda: not waits(impatient))
    assert stored(mq, "b") == []


def test_given_one_that_is_given_up_on_its_way_when_others_send_then_its_place_is_theirs(broker: Broker, mq: Client) -> None:
    given_up, other = opened(mq, ["a", "b"])
    given_up._timeout = 0.05  # pyright: ignore[reportPrivateUsage]
    with Frozen(broker):
        given_up.send(b"1")
        wait_until(lambda: count_in("_await") == 1)
        with pytest.raises(Timeout):
            given_up.close()
    other.send(b"2")
    other.flush(PATIENCE)
    assert stored(mq, "b") == [b"2"]


def test_given_hundreds_when_sent_to_in_turns_then_each_has_all_of_its_own_in_order(broker: Broker) -> None:
    names = [f"many.{number}" for number in range(300)]
    with broker.client(timeout=PATIENCE) as mq:
        for name in names:
            mq.create_channel(name, durability="os")
        with ExitStack() as stack:
            producers = [stack.enter_context(mq.producer(name)) for name in names]
            for message in range(20):
                for producer in producers:
                    producer.send(b"%d" % message)
        for name in names:
            assert mq.fetch(name, "earliest").payloads == [b"%d" % message for message in range(20)]


def test_given_batches_that_left_long_before_they_had_to_when_there_are_many_then_their_timers_are_swept_out(
    broker: Broker,
) -> None:
    def is_timed(producer: Producer) -> bool:
        return producer._sending.timer is not None  # pyright: ignore[reportPrivateUsage]

    with broker.client(timeout=PATIENCE) as mq, mq.producer("a", linger=1_800) as patient:
        mq.destroy_channel("a", missing_ok=True)
        mq.create_channel("a")
        patient.send(b"last")
        wait_until(lambda: is_timed(patient))
        with mq.producer("a", linger=3_600) as producer:
            for number in range(300):
                producer.send(b"%d" % number)
                wait_until(lambda: is_timed(producer))
                producer.flush()
                wait_until(lambda: not is_timed(producer))
        assert len(mq._link.sender._timers) <= 64  # pyright: ignore[reportPrivateUsage]
        patient.flush()
        assert stored(mq, "a") == [*(b"%d" % number for number in range(1, 300)), b"last"]
