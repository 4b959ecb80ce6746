"""`Producer` with a name: sequences, fencing, and going on from ``last_sequence`` exactly once."""

import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from rocksmq.clients import Client, Conflict, ConnectionFailed, InvalidRequest, MessageTooLarge, OutOfSequence, RocksMQError
from rocksmq.clients.testing import Broker
from rocksmq.protocol.operations import OpenProducer, Produce, Produced, ProducerOpened
from tests.clients.support import PATIENCE, answering, wait_until
from tests.helpers.fake_server import PRESENT_ID, FakeServer, Peer

LONG = 3_600.0  # a linger that no test waits for


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A broker that this module shares."""
    with Broker(tmp_path_factory.mktemp("named") / "data") as process:
        yield process


@pytest.fixture
def mq(broker: Broker) -> Iterator[Client]:
    """A client, with the empty channel `orders`."""
    with broker.client() as client:
        client.destroy_channel("orders", missing_ok=True)
        client.create_channel("orders")
        yield client


def stored(mq: Client) -> list[bytes]:
    return mq.fetch("orders", "earliest", 10_000).payloads


@pytest.mark.parametrize("sequences", [[0, 1, 7, 2**64 - 1], [b"", b"a", b"b" * 32]], ids=["numbers", "bytes"])
def test_given_sequences_with_holes_when_stored_then_the_last_is_told_by_every_opening(mq: Client, sequences: Any) -> None:
    with mq.producer("orders", name="import") as producer:
        assert (producer.name, producer.last_sequence) == ("import", None)
        for sequence in sequences:
            producer.send(b"x", sequence=sequence)
        producer.flush()
        assert producer.last_sequence == sequences[-1]
    with mq.producer("orders", name="import") as producer:
        assert producer.last_sequence == sequences[-1]
    with mq.producer("orders", name="other") as producer:
        assert producer.last_sequence is None
    assert len(stored(mq)) == len(sequences)


def test_given_a_job_that_is_run_again_when_it_sends_everything_then_only_what_was_missing_is_stored(mq: Client) -> None:
    for end in (3, 3, 8):
        with mq.producer("orders", name="import", batch_messages=2) as producer:
            for number in range(end):
                producer.send(b"%d" % number, sequence=number)
            producer.flush()
            assert (producer.acked, producer.last_sequence) == (end, end - 1)
    assert stored(mq) == [b"%d" % number for number in range(8)]


def test_given_a_producer_that_vanished_when_another_opens_its_name_then_it_goes_on_behind_what_was_stored(
    broker: Broker, mq: Client
) -> None:
    lost = broker.client()
    producer = lost.producer("orders", name="import", linger=0)
    producer.send(b"0", sequence=0)
    producer.flush()
    os.kill(broker.pid, signal.SIGSTOP)
    producer.send(b"1", sequence=1)  # on its way, without an answer
    wait_until(lambda: producer.unflushed == 1)
    lost._link.close()  # pyright: ignore[reportPrivateUsage]
    os.kill(broker.pid, signal.SIGCONT)
    with pytest.raises(ConnectionFailed):
        producer.close()
    lost.close()
    with mq.producer("orders", name="import") as again:
        assert again.last_sequence in {0, 1}
        for number in range(4):
            again.send(b"%d" % number, sequence=number)
    assert stored(mq) == [b"0", b"1", b"2", b"3"]


@pytest.mark.parametrize("wrong", [-1, 2**64, True, "1", 1.0, b"x" * 33, b"kind"])
def test_given_a_sequence_that_is_none_when_sent_then_it_is_refused_and_the_others_are_stored(mq: Client, wrong: Any) -> None:
    with mq.producer("orders", name="import") as producer:
        producer.send(b"0", sequence=0)
        with pytest.raises(InvalidRequest, match="sequence"):
            producer.send(b"x", sequence=wrong)
        producer.send(b"1", sequence=1)
    with mq.producer("orders", name="import") as producer, pytest.raises(InvalidRequest, match="sequence"):
        producer.send(b"x", sequence=wrong)
    assert stored(mq) == [b"0", b"1"]


@pytest.mark.parametrize("wrong", [-1, 2**64, True, "1", 1.0, b"x" * 33])
def test_given_a_wrong_first_sequence_when_sent_then_it_is_refused(mq: Client, wrong: Any) -> None:
    with mq.producer("orders", name="import") as producer, pytest.raises(InvalidRequest, match="sequence"):
        producer.send(b"x", sequence=wrong)
    assert stored(mq) == []


def test_given_a_sequence_that_does_not_rise_when_sent_then_it_is_refused(mq: Client) -> None:
    with mq.producer("orders", name="import", linger=LONG) as producer:
        producer.send(b"5", sequence=5)
        for wrong in (5, 4):
            with pytest.raises(InvalidRequest, match="does not rise"):
                producer.send(b"x", sequence=wrong)
        producer.send(b"6", sequence=6)
    assert stored(mq) == [b"5", b"6"]


def test_given_a_name_without_a_sequence_or_the_reverse_when_sent_then_it_is_refused(mq: Client) -> None:
    with mq.producer("orders", name="import") as producer:
        with pytest.raises(InvalidRequest, match="sequence"):
            producer.send(b"x")
        with pytest.raises(InvalidRequest, match="sequence"):
            producer.send_many([b"x"])
    with mq.producer("orders") as producer, pytest.raises(InvalidRequest, match="name"):
        producer.send(b"x", sequence=1)
    assert stored(mq) == []


def test_given_a_message_that_is_too_large_when_sent_then_its_sequence_is_free_again(mq: Client) -> None:
    with mq.producer("orders", name="import") as producer:
        with pytest.raises(MessageTooLarge):
            producer.send(bytes(2 << 20), sequence=1)
        producer.send(b"a", sequence=1)
    assert stored(mq) == [b"a"]


def test_given_a_name_that_another_opens_when_the_former_sends_then_it_gets_conflict_and_nothing_of_it_is_stored(
    mq: Client,
) -> None:
    former = mq.producer("orders", name="import")
    former.send(b"0", sequence=0)
    former.flush()
    with mq.producer("orders", name="import") as latter:
        assert latter.last_sequence == 0
        former.send(b"former", sequence=1)
        with pytest.raises(Conflict) as raised:
            former.flush()
        assert [message.payload for message in raised.value.not_stored] == [b"former"]
        latter.send(b"latter", sequence=1)
    former.close()
    assert stored(mq) == [b"0", b"latter"]


def test_given_an_unknown_channel_when_a_name_is_opened_then_it_is_told_at_once(mq: Client) -> None:
    with pytest.raises(RocksMQError, match="'nowhere'"):
        mq.producer("nowhere", name="import")


def test_given_a_batch_that_is_refused_when_more_are_behind_it_then_all_are_given_up_with_it() -> None:
    sequences: list[Any] = []

    def handle(peer: Peer, correlation: int, request: Any) -> None:
        if isinstance(request, OpenProducer):
            peer.reply(correlation, ProducerOpened(None))
        else:
            assert isinstance(request, Produce)
            sequences.append(request.sequences)
            if len(sequences) == 2:
                peer.refuse(correlation, MessageTooLarge("no"))
            else:
                peer.reply(correlation, Produced(PRESENT_ID))

    with FakeServer(answering(handle)) as server, Client(server.url) as mq:
        producer = mq.producer("orders", name="import", batch_messages=1, max_in_flight=1, linger=LONG)
        producer.send(b"0", sequence=0)
        producer.flush(PATIENCE)
        producer.send(b"1", sequence=1)
        producer.send(b"2", sequence=2)
        with pytest.raises(MessageTooLarge) as raised:
            producer.flush(PATIENCE)
        assert [message.payload for message in raised.value.not_stored] == [b"1", b"2"]
        assert sequences == [[0, 0], [1, 1]]
        producer.send(b"1", sequence=1)
        producer.close()
    assert sequences == [[0, 0], [1, 1], [1, 1]]
    assert producer.last_sequence == 1


def test_given_a_batch_whose_answer_was_lost_when_its_number_is_forgotten_then_last_sequence_decides() -> None:
    openings: list[bytes] = []
    produced: list[Any] = []

    def handle(peer: Peer, correlation: int, request: Any) -> None:
        if isinstance(request, OpenProducer):
            openings.append(request.producer)
            peer.reply(correlation, ProducerOpened(None if len(openings) == 1 else 0))
        else:
            assert isinstance(request, Produce)
            produced.append((request.producer, request.number, bytes(request.payloads)))
            if len(produced) == 1:
                peer.cut()  # stored, but its answer is lost
            elif len(produced) == 2:
                peer.refuse(correlation, OutOfSequence("forgotten", present_id=PRESENT_ID))
            else:
                peer.reply(correlation, Produced(PRESENT_ID + 9))

    with FakeServer(answering(handle)) as server, Client(server.url) as mq:
        with mq.producer("orders", name="import", linger=0) as producer:
            producer.send(b"0", sequence=0)
            producer.flush(PATIENCE)
            assert (producer.acked, producer.last_sequence) == (1, 0)
            producer.send(b"1", sequence=1)
        assert producer.last_id == PRESENT_ID + 9
    assert produced == [(openings[0], 0, b"0"), (openings[0], 0, b"0"), (openings[1], 0, b"1")]
