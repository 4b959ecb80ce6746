"""`Consumer` with ``ack="manual"`` over a real broker: committing, taking over, what comes again."""

from collections.abc import Iterator
from typing import Any

import pytest

from rocksmq.clients import Client, Conflict, InvalidRequest
from rocksmq.clients.testing import Broker


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A broker that this module shares."""
    with Broker(tmp_path_factory.mktemp("manual") / "data") as process:
        yield process


@pytest.fixture
def ten(broker: Broker) -> Iterator[Client]:
    """A client, with the messages 0 to 9 in the channel `orders`, and its group `billing`."""
    with broker.client() as mq:
        mq.destroy_channel("orders", missing_ok=True)
        mq.create_channel("orders")
        mq.create_consumer_group("orders", "billing")
        mq.produce("orders", [b"%d" % number for number in range(10)])
        yield mq


def manual(mq: Client, **arguments: Any) -> Any:
    return mq.consumer("orders", "billing", ack="manual", idle_timeout=0, **arguments)


def lag(mq: Client) -> int:
    return mq.describe_consumer_group("orders", "billing").lag_messages


def test_given_messages_in_hand_when_committed_then_the_group_is_behind_what_was_handed_out(ten: Client) -> None:
    ids = ten.fetch("orders", "earliest").ids
    with manual(ten, batch_messages=4) as consumer:
        consumer.commit()  # nothing was handed out
        assert lag(ten) == 10
        for taken in range(1, 11):
            consumer.receive(0)
            assert lag(ten) == 11 - taken
            consumer.commit()
            assert (lag(ten), ten.describe_consumer_group("orders", "billing").position) == (10 - taken, ids[taken - 1] + 1)
        consumer.commit()


def test_given_what_was_not_committed_when_another_opens_then_it_comes_again(ten: Client) -> None:
    with manual(ten) as consumer:
        assert len(consumer.receive_batch(3)) == 3
        consumer.commit()
        assert len(consumer.receive_batch(3)) == 3
    with manual(ten) as consumer:
        assert [message.payload for message in consumer] == [b"%d" % number for number in range(3, 10)]
    assert lag(ten) == 7


def test_given_parts_and_iteration_when_committed_then_all_that_was_handed_out_counts(ten: Client) -> None:
    with manual(ten, batch_messages=6) as consumer:
        next(consumer)
        consumer.receive_batch(2)
        consumer.commit()
        assert lag(ten) == 7
        consumer.receive_batch(100)  # what is in hand
        assert len(consumer.receive_batch(2)) == 2
        consumer.commit()
        assert lag(ten) == 2
        assert not (consumer.receive_batch(100) and consumer.receive_batch())
        consumer.commit()
        assert lag(ten) == 0


def test_given_metadata_when_committed_then_it_is_kept_with_the_position(ten: Client) -> None:
    with manual(ten) as consumer:
        consumer.receive()
        consumer.commit(metadata=b"\x00" * 256)
        assert ten.describe_consumer_group("orders", "billing").metadata == b"\x00" * 256
        consumer.receive()
        with pytest.raises(InvalidRequest, match="256"):
            consumer.commit(metadata=b"\x00" * 257)
        consumer.commit(metadata=b"b")
        assert (ten.describe_consumer_group("orders", "billing").metadata, lag(ten)) == (b"b", 8)


def test_given_metadata_that_changed_when_nothing_was_handed_out_since_then_it_is_kept_too(ten: Client) -> None:
    with manual(ten) as consumer:
        consumer.receive()
        consumer.commit(metadata=b"a")
        consumer.commit(metadata=b"b")
        assert ten.describe_consumer_group("orders", "billing").metadata == b"b"


def test_given_metadata_when_nothing_was_handed_out_yet_then_it_is_kept_and_the_position_stays(ten: Client) -> None:
    with manual(ten) as consumer:
        consumer.commit(metadata=b"begun")
        assert (ten.describe_consumer_group("orders", "billing").metadata, lag(ten)) == (b"begun", 10)
        consumer.seek("latest")
        consumer.commit(metadata=b"sought")
        assert (ten.describe_consumer_group("orders", "billing").metadata, lag(ten)) == (b"sought", 0)


def test_given_a_group_that_another_took_over_when_the_former_commits_then_it_gets_conflict_for_good(
    ten: Client, broker: Broker
) -> None:
    with manual(ten, batch_messages=2) as former:
        former.receive_batch(2)
        former.commit()
        with broker.client() as other, manual(other) as latter:
            assert latter.receive().payload == b"2"
            former.receive_batch(2)
            for _ in range(2):
                with pytest.raises(Conflict):
                    former.commit()
            with pytest.raises(Conflict):
                former.receive_batch()
            with pytest.raises(Conflict):
                former.seek("earliest")
            assert lag(ten) == 8
            latter.commit()
            assert lag(ten) == 7


def test_given_a_group_that_is_sought_by_others_when_committed_then_it_is_conflict_and_the_seek_stands(ten: Client) -> None:
    with manual(ten) as consumer:
        consumer.receive_batch(5)
        ten.seek("orders", "billing", "earliest")
        with pytest.raises(Conflict):
            consumer.commit()
    assert lag(ten) == 10


def test_given_a_seek_when_reading_on_and_committing_then_both_go_on_from_there(ten: Client) -> None:
    ids = ten.fetch("orders", "earliest").ids
    with manual(ten, batch_messages=4) as consumer:
        consumer.receive_batch(2)
        consumer.seek(ids[8])
        assert lag(ten) == 2
        consumer.commit()  # nothing was handed out since
        assert lag(ten) == 2
        assert consumer.receive().payload == b"8"
        consumer.commit()
        assert lag(ten) == 1
        consumer.seek("earliest")
        assert [message.payload for message in consumer] == [b"%d" % number for number in range(10)]
        consumer.commit()
    assert lag(ten) == 0


def test_given_a_seek_that_is_refused_when_reading_on_then_nothing_is_lost_or_doubled(ten: Client) -> None:
    with manual(ten, batch_messages=4) as consumer:
        consumer.receive_batch(2)
        with pytest.raises(InvalidRequest):
            consumer.seek(-1)
        assert [message.payload for message in consumer] == [b"%d" % number for number in range(2, 10)]
        consumer.commit()
    assert lag(ten) == 0


def test_given_a_consumer_that_claims_when_one_with_manual_opens_then_messages_given_back_are_read_first(ten: Client) -> None:
    with ten.consumer("orders", "billing") as claiming:
        claiming.receive_batch(4)
    with manual(ten) as consumer:
        assert consumer.receive().payload == b"4"


def test_given_the_broker_was_killed_when_committed_then_what_was_committed_stays_and_reading_goes_on(
    broker: Broker, ten: Client
) -> None:
    with manual(ten, batch_messages=3) as consumer:
        consumer.receive_batch(3)
        consumer.commit()
        consumer.receive_batch(1)
        broker.kill()
        broker.start()
        assert [message.payload for message in consumer] == [b"%d" % number for number in range(4, 10)]
        consumer.commit()
    assert lag(ten) == 0
