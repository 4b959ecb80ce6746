"""Gaps: what retention removed unread is told once, and counted where a reader knows its offset (SPEC §8.5)."""

from collections.abc import Iterator
from typing import Any

import pytest

from rocksmq.clients import Client, Gap
from rocksmq.clients.testing import Broker
from rocksmq.protocol.operations import (
    Commit,
    Consume,
    DescribeGroup,
    Empty,
    Fetch,
    GroupDescribed,
    Messages,
    Position,
    ReleaseConsumer,
    Seek,
    Sought,
)
from tests.clients.support import answering, keep_last, messages
from tests.helpers.fake_server import PRESENT_ID, FakeServer, Peer

FIRST = PRESENT_ID


def only_gap(begin: int, end: int, offset: int | None) -> Messages:
    """A reply with a gap of unknown size and nothing behind it."""
    return Messages(end, offset, 0, [begin, end, None], b"", 0, b"", b"", None, None)


def empty(position: int, offset: int | None) -> Messages:
    return Messages(position, offset, 0, None, b"", 0, b"", b"", None, None)


class Channel:
    """A fake broker's: answers fetches in this order, and groups stand at FIRST behind ``offset`` messages."""

    def __init__(self, *replies: Messages, offset: int = 0) -> None:
        self.replies = list(replies)
        self.offset = offset
        self.fetched: list[tuple[int, int]] = []
        self.committed: list[int] = []

    def __call__(self, peer: Peer, correlation: int, request: Any) -> None:
        if isinstance(request, Fetch):
            self.fetched.append((request.start_kind, request.start))
            peer.reply(correlation, self.replies.pop(0))
        elif isinstance(request, Seek):
            peer.reply(correlation, Sought(FIRST, self.offset, 0, 1))
        else:
            if isinstance(request, Commit):
                self.committed.append(request.position)
            peer.reply(correlation, Empty())


# -- fetch -----------------------------------------------------------------------------


def test_given_a_gap_with_nothing_behind_it_when_fetched_then_it_is_told_at_once_and_reading_goes_on_behind_it() -> None:
    channel = Channel(only_gap(FIRST, FIRST + 50, 60))
    with FakeServer(answering(channel)) as server, Client(server.url) as mq:
        batch = mq.fetch("orders", FIRST, timeout=5.0)
    assert (len(batch), batch.gap) == (0, Gap(FIRST, FIRST + 50, None))
    assert (batch.next_position, batch.next_offset) == (FIRST + 50, 60)


def test_given_messages_behind_a_gap_when_fetched_from_an_id_then_it_is_not_known_how_many_are_missing() -> None:
    channel = Channel(messages([b"a"], FIRST + 50, [FIRST, FIRST + 50, None], 50))
    with FakeServer(answering(channel)) as server, Client(server.url) as mq:
        batch = mq.fetch("orders", FIRST)
    assert (batch.payloads, batch.gap) == ([b"a"], Gap(FIRST, FIRST + 50, None))


def test_given_a_gap_that_comes_while_latest_waits_when_fetched_then_it_is_counted() -> None:
    channel = Channel(empty(FIRST, 10), messages([b"a"], FIRST + 7, [FIRST, FIRST + 7, None], 14))
    with FakeServer(answering(channel)) as server, Client(server.url) as mq:
        batch = mq.fetch("orders", "latest", timeout=5.0)
    assert channel.fetched == [(Position.LATEST, 0), (Position.ID, FIRST)]
    assert (batch.payloads, batch.gap) == ([b"a"], Gap(FIRST, FIRST + 7, 4))


# -- a consumer that fetches -------------------------------------------------------------


def test_given_removed_messages_when_read_by_hand_then_each_gap_is_counted_by_offsets_and_told_once() -> None:
    channel = Channel(
        messages([b"a", b"b"], FIRST + 5, [FIRST, FIRST + 5, None], 105),
        messages([b"c"], FIRST + 7, None, 107),
        messages([b"d"], FIRST + 90, [FIRST + 8, FIRST + 90, None], 111),
        empty(FIRST + 91, None),
        offset=100,
    )
    with (
        FakeServer(answering(channel)) as server,
        Client(server.url) as mq,
        mq.consumer("orders", "billing", ack="manual", idle_timeout=0) as consumer,
    ):
        assert [message.payload for message in consumer] == [b"a", b"b", b"c", b"d"]
        assert consumer.gaps == [Gap(FIRST, FIRST + 5, 5), Gap(FIRST + 8, FIRST + 90, 3)]
    assert [start for _, start in channel.fetched] == [FIRST, FIRST + 7, FIRST + 8, FIRST + 91]


def test_given_a_gap_with_nothing_behind_it_when_read_by_hand_then_it_is_told_and_the_next_message_comes() -> None:
    channel = Channel(
        only_gap(FIRST, FIRST + 9, 9), messages([b"a"], FIRST + 9, None, 9), messages([b"b"], FIRST + 10, None, 10)
    )
    told: list[Gap] = []
    with (
        FakeServer(answering(channel)) as server,
        Client(server.url) as mq,
        mq.consumer("orders", "billing", ack="manual", on_gap=told.append) as consumer,
    ):
        assert consumer.receive(5.0).payload == b"a"
        consumer.commit()
        assert consumer.receive_batch(timeout=5.0).payloads == [b"b"]
    assert told == consumer.gaps == [Gap(FIRST, FIRST + 9, 9)]
    assert channel.committed == [FIRST + 10]


def test_given_a_gap_where_nothing_was_unread_when_read_by_hand_then_none_is_told() -> None:
    channel = Channel(messages([b"a"], FIRST + 5, [FIRST, FIRST + 5, None], 4), empty(FIRST + 6, 5), offset=4)
    with (
        FakeServer(answering(channel)) as server,
        Client(server.url) as mq,
        mq.consumer("orders", "billing", ack="manual", idle_timeout=0, on_gap="raise") as consumer,
    ):
        assert [message.payload for message in consumer] == [b"a"]
        assert consumer.gaps == []


def test_given_a_seek_when_read_by_hand_then_it_is_counted_from_there() -> None:
    channel = Channel(messages([b"a"], FIRST, None, 0), messages([b"b"], FIRST + 5, [FIRST, FIRST + 5, None], 25))
    with (
        FakeServer(answering(channel)) as server,
        Client(server.url) as mq,
        mq.consumer("orders", "billing", ack="manual") as consumer,
    ):
        consumer.receive(5.0)
        channel.offset = 23
        consumer.seek(FIRST)
        assert consumer.receive(5.0).payload == b"b"
        assert consumer.gaps == [Gap(FIRST, FIRST + 5, 2)]


# -- giving back -------------------------------------------------------------------------


def test_given_messages_in_hand_when_closed_then_it_says_how_many_are_given_back() -> None:
    seen: list[Any] = []

    def handle(peer: Peer, correlation: int, request: Any) -> None:
        seen.append(request)
        if isinstance(request, Consume):
            peer.reply(correlation, messages([b"a", b"b", b"c"]))
        else:
            is_described = isinstance(request, DescribeGroup)
            peer.reply(correlation, GroupDescribed(1, 0, 0, 0, 0, b"") if is_described else Empty())

    with FakeServer(answering(handle)) as server, Client(server.url) as mq:
        consumer = mq.consumer("orders", "billing")
        consumer.receive()
        consumer.close()
    (released,) = [request for request in seen if isinstance(request, ReleaseConsumer)]
    assert (released.position, released.message_count) == (FIRST + 1, 2)


# -- with a broker -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A broker that this module shares."""
    with Broker(tmp_path_factory.mktemp("gaps") / "data") as process:
        yield process


@pytest.fixture
def mq(broker: Broker) -> Iterator[Client]:
    """A client, with the messages 0 to 19 in the channel `orders`, and its group `billing`."""
    with broker.client() as client:
        client.destroy_channel("orders", missing_ok=True)
        client.create_channel("orders")
        client.create_consumer_group("orders", "billing")
        client.produce("orders", [b"%d" % number for number in range(20)])
        yield client


def texts(begin: int, end: int) -> list[bytes]:
    return [b"%d" % number for number in range(begin, end)]


def test_given_a_group_that_was_passed_when_consumed_then_the_gap_is_exact_and_told_with_the_messages(mq: Client) -> None:
    ids = mq.fetch("orders", "earliest").ids
    assert mq.consume("orders", "billing", 4).payloads == texts(0, 4)
    keep_last(mq, "orders", 5)
    batch = mq.consume("orders", "billing", 2)
    assert (batch.payloads, batch.gap) == (texts(15, 17), Gap(ids[4], ids[15], 11))
    batch = mq.consume("orders", "billing")
    assert (batch.payloads, batch.gap) == (texts(17, 20), None)


def test_given_a_group_that_all_was_taken_from_when_consumed_then_the_gap_comes_with_the_next_message(mq: Client) -> None:
    keep_last(mq, "orders", 0)
    batch = mq.consume("orders", "billing")
    assert (len(batch), batch.gap) == (0, None)
    (new,) = mq.produce("orders", [b"new"])
    batch = mq.consume("orders", "billing")
    assert batch.payloads == [b"new"]
    assert batch.gap is not None
    assert (batch.gap.to_id, batch.gap.message_count) == (new, 20)


@pytest.mark.parametrize("ack", ["auto", "manual"])
def test_given_removed_messages_when_a_consumer_reads_then_what_it_got_and_what_it_was_told_are_all_there_were(
    mq: Client, ack: Any
) -> None:
    with mq.consumer("orders", "billing", ack=ack, batch_messages=3, idle_timeout=0) as consumer:
        got = [consumer.receive(0).payload for _ in range(4)]  # two more are in hand
        keep_last(mq, "orders", 8)
        got += [message.payload for message in consumer]
        mq.produce("orders", texts(20, 30))
        keep_last(mq, "orders", 1)
        got += [message.payload for message in consumer]
        gaps = consumer.gaps
    assert got == [*texts(0, 6), *texts(12, 20), b"29"]
    assert [gap.message_count for gap in gaps] == [6, 9]


def test_given_messages_given_back_when_some_of_them_were_removed_then_the_next_reader_is_told_of_those(mq: Client) -> None:
    with mq.consumer("orders", "billing") as consumer:
        assert consumer.receive(0).payload == b"0"
        keep_last(mq, "orders", 15)
    batch = mq.consume("orders", "billing")
    assert batch.payloads == texts(5, 20)
    assert batch.gap is not None
    assert batch.gap.message_count == 4  # 1 to 4


def test_given_an_id_that_was_removed_when_fetched_then_the_gap_is_told_without_a_count(mq: Client) -> None:
    ids = mq.fetch("orders", "earliest").ids
    keep_last(mq, "orders", 5)
    batch = mq.fetch("orders", ids[3], timeout=5.0)
    assert (batch.payloads, batch.gap) == (texts(15, 20), Gap(ids[3], ids[15], None))
    assert mq.fetch("orders", "earliest").gap is None
    keep_last(mq, "orders", 0)
    batch = mq.fetch("orders", ids[3], timeout=5.0)
    assert (len(batch), batch.gap) == (0, Gap(ids[3], ids[19] + 1, None))
    assert (batch.next_position, mq.fetch("orders", batch.next_position).gap) == (ids[19] + 1, None)


def test_given_a_position_that_retention_has_passed_when_committed_then_the_gap_counts_from_the_former_one(mq: Client) -> None:
    ids = mq.fetch("orders", "earliest").ids
    mq.commit("orders", "billing", ids[2])
    keep_last(mq, "orders", 5)
    mq.commit("orders", "billing", ids[9], metadata=b"done")
    found = mq.describe_consumer_group("orders", "billing")
    assert (found.position, found.lag_messages, found.metadata) == (ids[15], 5, b"done")
    batch = mq.consume("orders", "billing", 1)
    assert batch.payloads == [b"15"]
    assert batch.gap is not None
    assert (batch.gap.to_id, batch.gap.message_count) == (ids[15], 13)
