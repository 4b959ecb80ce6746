"""`Consumer` against kills, cuts, interrupts, and gaps that retention made."""

import logging
import os
import random
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import FrameType
from typing import Any

import pytest

from rocksmq.clients import Client, Consumer, Gap, GapFound, OutOfSequence, RocksMQError
from rocksmq.clients.testing import Broker
from rocksmq.protocol.operations import Consume, DescribeGroup, Empty, Fetch, GroupDescribed, ReleaseConsumer, Seek, Sought
from tests.clients.support import NOTHING, PATIENCE, answering, messages
from tests.helpers.fake_server import PRESENT_ID, FakeServer, Peer

Ack = Any


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A broker that this module shares."""
    with Broker(tmp_path_factory.mktemp("faults") / "data") as process:
        yield process


@pytest.fixture
def mq(broker: Broker) -> Iterator[Client]:
    """A client, with the empty channel `orders` and its group `billing`."""
    with broker.client() as client:
        client.destroy_channel("orders", missing_ok=True)
        client.create_channel("orders")
        client.create_consumer_group("orders", "billing")
        yield client


# -- kills and cuts ----------------------------------------------------------------------


@pytest.mark.parametrize("ack", ["auto", "manual"])
def test_given_a_consumer_when_the_broker_is_killed_again_and_again_then_each_message_comes_once(
    mq: Client, broker: Broker, ack: Ack
) -> None:
    mq.produce("orders", [b"%d" % number for number in range(20)])
    found: list[int] = []
    with mq.consumer("orders", "billing", ack=ack, batch_messages=4, idle_timeout=0) as consumer:
        for taken in (2, 5, 1, 12):
            found += [int(next(consumer).payload) for _ in range(taken)]
            broker.kill()
            broker.start()
        assert not list(consumer)
    assert found == list(range(20))


def test_given_a_consumer_that_waits_when_the_broker_is_killed_then_it_waits_on_at_the_next_one(
    mq: Client, broker: Broker
) -> None:
    with ThreadPoolExecutor(1) as pool, mq.consumer("orders", "billing") as consumer:
        waiting = pool.submit(consumer.receive)
        broker.kill()
        broker.start()
        with broker.client() as other:
            other.produce("orders", [b"a"])
        assert waiting.result(PATIENCE).payload == b"a"


class Group:
    """A fake broker's group: hands out ``batches``, one a consume number, and writes down what it was asked."""

    def __init__(self, *batches: list[bytes]) -> None:
        self.batches = batches
        self.gap: Any = None
        self.removed = 0  # messages before all of them
        self.requests: list[Any] = []
        self.cuts: set[int] = set()  # which of the consumes and fetches are cut before the reply

    def __call__(self, peer: Peer, correlation: int, request: Any) -> None:
        reads = sum(isinstance(known, (Consume, Fetch)) for known in self.requests)
        self.requests.append(request)
        if isinstance(request, (Consume, Fetch)):
            if reads in self.cuts:
                peer.cut()
            else:
                peer.reply(correlation, self._batch(request))
        elif isinstance(request, DescribeGroup):
            peer.reply(correlation, GroupDescribed(1, 0, 0, 0, 0, b""))
        elif isinstance(request, Seek):
            peer.reply(correlation, Sought(PRESENT_ID if self.gap is None else self.gap[0], 0, 0, 1))
        else:
            peer.reply(correlation, Empty())

    def _batch(self, request: Consume | Fetch) -> Any:
        index = request.number if isinstance(request, Consume) else max(0, request.start - PRESENT_ID)
        if index >= len(self.batches):
            return NOTHING
        gap, self.gap = self.gap, None
        if isinstance(request, Fetch) and gap is not None:
            gap = [*gap[:2], None]  # the broker does not know who reads
        return messages(self.batches[index], PRESENT_ID + index, gap, index + self.removed)

    def of(self, kind: type[Any]) -> list[Any]:
        return [request for request in self.requests if isinstance(request, kind)]


def test_given_replies_that_are_lost_when_reading_then_the_same_claim_is_repeated_until_it_comes() -> None:
    group = Group([b"a"], [b"b"])
    group.cuts = {0, 1, 3}
    with FakeServer(answering(group)) as server, Client(server.url) as mq:
        with mq.consumer("orders", "billing", idle_timeout=0) as consumer:
            assert [message.payload for message in consumer] == [b"a", b"b"]
        asked = group.of(Consume)
        assert [request.number for request in asked] == [0, 0, 0, 1, 1, 2]
        assert len({request.consumer for request in asked}) == 1


def test_given_a_consumer_that_is_closed_when_messages_are_in_hand_then_the_first_of_them_is_told() -> None:
    group = Group([b"a", b"b", b"c"])
    with FakeServer(answering(group)) as server, Client(server.url) as mq:
        consumer = mq.consumer("orders", "billing")
        consumer.receive()
        consumer.close()
        (released,) = group.of(ReleaseConsumer)
        assert (released.consumer, released.number, released.position) == (group.of(Consume)[0].consumer, 0, PRESENT_ID + 1)


def test_given_a_claim_whose_answer_was_lost_when_it_is_forgotten_then_it_is_raised_once_and_reading_goes_on() -> None:
    group = Group([b"a"])
    refused = 0

    def handle(peer: Peer, correlation: int, request: Any) -> None:
        nonlocal refused
        if not isinstance(request, Consume) or refused == 2:
            group(peer, correlation, request)
            return
        refused += 1
        group.requests.append(request)
        if refused == 1:
            peer.cut()
        else:
            peer.refuse(correlation, OutOfSequence("forgotten", present_id=PRESENT_ID))

    with FakeServer(answering(handle)) as server, Client(server.url) as mq:
        with mq.consumer("orders", "billing") as consumer:
            with pytest.raises(OutOfSequence):
                consumer.receive(PATIENCE)
            assert consumer.receive(PATIENCE).payload == b"a"
        first, again, anew = group.of(Consume)
        assert first.consumer == again.consumer != anew.consumer
        assert (first.number, again.number, anew.number) == (0, 0, 0)


# -- interrupts --------------------------------------------------------------------------


@pytest.mark.parametrize("ack", ["auto", "manual"])
def test_given_a_consumer_that_waits_when_interrupted_then_the_next_message_still_comes_once(mq: Client, ack: Ack) -> None:
    reads: list[Callable[[Consumer], bytes]] = [
        lambda consumer: next(consumer).payload,
        lambda consumer: consumer.receive().payload,
        lambda consumer: consumer.receive_batch(timeout=None).payloads[0],
    ]
    with mq.consumer("orders", "billing", ack=ack) as consumer:
        for number, read in enumerate(reads):
            waits = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT))
            waits.start()
            with pytest.raises(KeyboardInterrupt):
                read(consumer)
            waits.join()
            mq.produce("orders", [b"%d" % number])
            assert read(consumer) == b"%d" % number
        assert not consumer.receive_batch()


@pytest.mark.parametrize("ack", ["auto", "manual"])
@pytest.mark.parametrize("in_parts", [False, True], ids=["iterated", "in parts"])
def test_given_interrupts_at_any_moment_of_reading_when_it_goes_on_then_nothing_is_lost_or_doubled(
    mq: Client, ack: Ack, in_parts: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = 3_000 if in_parts else 20_000
    for begin in range(0, count, 1_000):
        mq.produce("orders", [b"%d" % number for number in range(begin, begin + 1_000)])
    dice = random.Random(1)
    found: list[int] = []
    unraised: list[object] = []
    interrupts = 0
    inside = {Consumer.__next__.__code__, Consumer.receive_batch.__code__}

    def interrupt(signum: int, frame: FrameType | None) -> None:
        nonlocal interrupts
        signal.setitimer(signal.ITIMER_REAL, dice.uniform(0.0002, 0.003))
        is_ours = frame is not None and frame.f_code.co_filename.endswith(("consumer.py", "messages.py", "sources.py"))
        while frame is not None and frame.f_code not in inside:
            frame = frame.f_back
        if frame is not None and is_ours:
            interrupts += 1
            raise KeyboardInterrupt

    def unraisable(told: "sys.UnraisableHookArgs") -> None:
        if told.exc_type is not KeyboardInterrupt:  # one of ours may strike where Python cannot raise
            unraised.append(told.exc_value)

    def read(consumer: Consumer) -> None:
        while len(found) < count:
            if in_parts:
                found.extend(map(int, consumer.receive_batch(2).payloads))
            else:
                found.append(int(next(consumer).payload))

    monkeypatch.setattr("rocksmq.clients.link.logger.disabled", True)
    monkeypatch.setattr("sys.unraisablehook", unraisable)
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with mq.consumer("orders", "billing", ack=ack, batch_messages=50) as consumer:
            signal.setitimer(signal.ITIMER_REAL, 0.001)
            while len(found) < count:
                try:
                    read(consumer)
                except KeyboardInterrupt:
                    continue
            signal.setitimer(signal.ITIMER_REAL, 0)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert found == list(range(count))
    assert interrupts
    assert not unraised


# -- gaps --------------------------------------------------------------------------------


GAP = Gap(7, PRESENT_ID, 3)
BOTH = pytest.mark.parametrize("ack", ["auto", "manual"])


@BOTH
def test_given_a_gap_when_it_is_to_be_logged_then_a_warning_names_it_and_reading_goes_on(
    ack: Ack, caplog: pytest.LogCaptureFixture
) -> None:
    group = Group([b"a"])
    group.gap, group.removed = list(GAP), 3
    with (
        FakeServer(answering(group)) as server,
        Client(server.url) as mq,
        mq.consumer("orders", "billing", ack=ack, idle_timeout=0) as consumer,
    ):
        assert [message.payload for message in consumer] == [b"a"]
        assert consumer.gaps == [GAP]
    (record,) = [record for record in caplog.records if record.name == "rocksmq.client"]
    assert record.levelno == logging.WARNING
    assert "removed 3 messages from 7 to before" in record.getMessage()


@BOTH
def test_given_a_gap_when_it_is_to_be_raised_then_it_is_once_and_the_messages_behind_it_come(ack: Ack) -> None:
    group = Group([b"a", b"b"])
    group.gap, group.removed = list(GAP), 3
    with (
        FakeServer(answering(group)) as server,
        Client(server.url) as mq,
        mq.consumer("orders", "billing", ack=ack, idle_timeout=0, on_gap="raise") as consumer,
    ):
        with pytest.raises(GapFound, match="3 messages") as raised:
            next(consumer)
        assert isinstance(raised.value, RocksMQError)
        assert (raised.value.gap, consumer.gaps) == (GAP, [GAP])
        assert [message.payload for message in consumer] == [b"a", b"b"]


@BOTH
def test_given_a_gap_when_a_callable_is_given_then_it_gets_the_gap(ack: Ack) -> None:
    group = Group([b"a"])
    group.gap, group.removed = list(GAP), 3
    told: list[Gap] = []
    with (
        FakeServer(answering(group)) as server,
        Client(server.url) as mq,
        mq.consumer("orders", "billing", ack=ack, on_gap=told.append) as consumer,
    ):
        assert consumer.receive().payload == b"a"
    assert told == [GAP]


@BOTH
def test_given_an_interrupt_before_a_gap_was_told_when_read_on_then_it_is_told_once(
    ack: Ack, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(consumer: Consumer, batch: object) -> None:
        if batch is not None:  # as soon as there is one
            monkeypatch.undo()
            raise KeyboardInterrupt

    group = Group([b"a", b"b"])
    group.gap, group.removed = list(GAP), 3
    told: list[Gap] = []
    with (
        FakeServer(answering(group)) as server,
        Client(server.url) as mq,
        mq.consumer("orders", "billing", ack=ack, idle_timeout=0, on_gap=told.append) as consumer,
    ):
        monkeypatch.setattr(Consumer, "_tell_gap", interrupted)
        with pytest.raises(KeyboardInterrupt):
            next(consumer)
        assert [message.payload for message in consumer] == [b"a", b"b"]
        assert told == consumer.gaps == [GAP]


def test_given_no_gap_when_read_then_none_is_told(caplog: pytest.LogCaptureFixture) -> None:
    with (
        FakeServer(answering(Group([b"a"]))) as server,
        Client(server.url) as mq,
        mq.consumer("orders", "billing", on_gap="raise") as consumer,
    ):
        consumer.receive()
        assert consumer.gaps == []
    assert not caplog.records
