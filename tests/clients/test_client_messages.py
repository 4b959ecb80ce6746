"""The client's messages over a real broker: producing, consuming, fetching, and what may not be sent."""

import os
from array import array
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise
from typing import Any

import pytest

from rocksmq.clients import (
    Client,
    ErrorCode,
    InvalidRequest,
    LimitExceeded,
    Message,
    MessageBatch,
    MessageTooLarge,
    OutgoingMessage,
)
from rocksmq.clients.testing import Broker

MIB = 1 << 20


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A client of a broker that this module shares."""
    with Broker(tmp_path_factory.mktemp("messages") / "data") as broker, broker.client() as mq:
        yield mq


@pytest.fixture
def mq(client: Client) -> Client:
    """The client, with the empty channel `orders` and its group `billing`."""
    client.destroy_channel("orders", missing_ok=True)
    client.create_channel("orders")
    client.create_consumer_group("orders", "billing")
    return client


# -- producing -------------------------------------------------------------------------


def test_given_payloads_when_produced_then_their_ids_are_a_range_in_order(mq: Client) -> None:
    ids = mq.produce("orders", [b"a", b"b", b"c"])
    assert isinstance(ids, range)
    assert len(ids) == 3
    assert ids.step == 1
    assert list(mq.fetch("orders", "earliest").ids) == list(ids)
    assert mq.produce("orders", [b"d"])[0] > ids[-1]


def test_given_bytes_like_payloads_when_produced_then_they_are_kept_exactly(mq: Client) -> None:
    everything = bytes(range(256))
    part = memoryview(everything)[10:20]
    strided = memoryview(everything)[::2]
    mq.produce("orders", [everything, bytearray(everything), memoryview(everything), part, strided, b"", bytearray()])
    assert mq.consume("orders", "billing").payloads == [everything] * 3 + [everything[10:20], everything[::2], b"", b""]


def test_given_any_iterable_when_produced_then_it_is_one_batch(mq: Client) -> None:
    mq.produce("orders", (b"%d" % number for number in range(3)))
    mq.produce("orders", (b"3", b"4"))
    assert mq.consume("orders", "billing").payloads == [b"0", b"1", b"2", b"3", b"4"]


@pytest.mark.parametrize("nothing", [[], (), iter(())])
def test_given_nothing_when_produced_then_an_empty_range_comes_back_and_nothing_is_sent(
    mq: Client, nothing: Sequence[bytes]
) -> None:
    assert mq.produce("orders", nothing) == range(0)
    assert mq.produce("no-such-channel", []) == range(0)
    assert mq.describe_channel("orders").message_count == 0


@pytest.mark.parametrize("payload", ["text", 1, None, [b"a"], {"a": b"b"}])
def test_given_what_is_not_bytes_when_produced_then_it_is_a_type_error_and_nothing_is_stored(
    mq: Client, payload: object
) -> None:
    wrong: list[object] = [[b"good", payload], [OutgoingMessage(payload)]]  # type: ignore[arg-type]  # pyright: ignore
    for messages in wrong:
        with pytest.raises(TypeError, match=type(payload).__name__):
            mq.produce("orders", messages)  # type: ignore[arg-type]  # pyright: ignore
    assert mq.describe_channel("orders").message_count == 0


def test_given_an_array_when_produced_then_its_bytes_are_the_payload(mq: Client) -> None:
    numbers = array("H", [1, 2, 65_535])
    mq.produce("orders", [numbers])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
    with mq.producer("orders") as producer:
        producer.send(numbers)
    assert mq.fetch("orders", "earliest").payloads == [numbers.tobytes()] * 2


@pytest.mark.parametrize(("payload", "is_advised"), [("text", True), (1, False), (None, False)])
def test_given_what_is_not_bytes_when_sent_then_only_text_is_told_to_be_encoded(
    mq: Client, payload: Any, is_advised: bool
) -> None:
    with mq.producer("orders") as producer, pytest.raises(TypeError) as by_producer:
        producer.send(payload)
    with pytest.raises(TypeError) as by_client:
        mq.produce("orders", [payload])
    for raised in (by_producer, by_client):
        assert ("text.encode()" in str(raised.value)) == is_advised
    assert mq.describe_channel("orders").message_count == 0


@pytest.mark.parametrize("messages", [b"one payload", bytearray(b"x"), memoryview(b"x"), "text"])
def test_given_a_payload_instead_of_a_list_when_produced_then_it_is_a_type_error(mq: Client, messages: object) -> None:
    with pytest.raises(TypeError, match="list"):
        mq.produce("orders", messages)  # type: ignore[arg-type]  # pyright: ignore
    assert mq.describe_channel("orders").message_count == 0


def test_given_headers_when_produced_then_each_message_has_its_own_or_the_common_ones(mq: Client) -> None:
    own, common = {"clé": b"\x00\xff", "": b""}, {"k": b"v"}
    mq.produce("orders", [OutgoingMessage(b"1", own), OutgoingMessage(b"2", {}), b"3", OutgoingMessage(b"4")], headers=common)
    mq.produce("orders", [b"5"])
    found = mq.consume("orders", "billing")
    assert [message.headers for message in found] == [own, {}, common, common, {}]
    assert [message.headers for message in mq.fetch("orders", found[1].id, 2)] == [{}, common]


def test_given_headers_that_are_wrong_when_produced_then_nothing_is_stored(mq: Client) -> None:
    many = {f"{number}": b"" for number in range(65)}
    large = {"k": bytes(257 << 10)}
    with pytest.raises(LimitExceeded, match="64"):
        mq.produce("orders", [b"a"], headers=many)
    with pytest.raises(MessageTooLarge, match="header"):
        mq.produce("orders", [b"good", OutgoingMessage(b"a", large)])
    for headers in ({"k": "text"}, {1: b"v"}, {"k": None}):
        with pytest.raises((InvalidRequest, TypeError)):
            mq.produce("orders", [b"a"], headers=headers)  # type: ignore[arg-type]  # pyright: ignore
    assert mq.describe_channel("orders").message_count == 0
    del many["0"]
    mq.produce("orders", [b"a"], headers=many)
    assert mq.fetch("orders", "earliest")[0].headers == many


def test_given_payloads_at_and_over_the_limit_when_produced_then_only_the_first_is_stored(mq: Client) -> None:
    largest = os.urandom(MIB)
    with pytest.raises(MessageTooLarge, match=f"{MIB + 1}.*{MIB}") as raised:
        mq.produce("orders", [b"small", bytes(MIB + 1)])
    assert raised.value.code is ErrorCode.MESSAGE_TOO_LARGE
    mq.produce("orders", [largest])
    assert mq.consume("orders", "billing").payloads == [largest]


def test_given_more_messages_than_a_batch_may_hold_when_produced_then_none_is_stored(mq: Client) -> None:
    most = mq.server.limits["batch_messages_max"]
    with pytest.raises(LimitExceeded, match="batch_messages_max"):
        mq.produce("orders", [b""] * (most + 1))
    assert mq.describe_channel("orders").message_count == 0
    assert len(mq.produce("orders", [b""] * most)) == most
    assert mq.describe_channel("orders").message_count == most


def test_given_a_batch_larger_than_a_frame_when_produced_then_it_is_refused_and_the_client_goes_on(mq: Client) -> None:
    with pytest.raises((LimitExceeded, MessageTooLarge), match="frame_bytes_max"):
        mq.produce("orders", [bytes(MIB)] * 9)
    assert mq.describe_channel("orders").message_count == 0
    mq.produce("orders", [b"a"])
    assert mq.consume("orders", "billing").payloads == [b"a"]


# -- consuming -------------------------------------------------------------------------


def test_given_messages_when_consumed_then_a_batch_is_a_sequence_with_columns(mq: Client) -> None:
    before = datetime.now(UTC) - timedelta(milliseconds=2)
    ids = [*mq.produce("orders", [b"a", b"b"], headers={"k": b"v"}), *mq.produce("orders", [b"c"])]
    batch = mq.consume("orders", "billing")
    assert isinstance(batch, MessageBatch)
    assert isinstance(batch, Sequence)
    assert (len(batch), batch.payloads, list(batch.ids), batch.gap) == (3, [b"a", b"b", b"c"], ids, None)
    assert batch.next_position == ids[-1] + 1
    assert batch.generation == mq.describe_consumer_group("orders", "billing").generation
    assert batch[0] == Message(ids[0], b"a", {"k": b"v"})
    assert batch[-1] == list(batch)[2] == Message(ids[2], b"c", {})
    assert batch[1:] == [batch[1], batch[2]]
    assert batch[0].timestamp.tzinfo is not None
    assert before <= batch[0].timestamp <= batch[2].timestamp <= datetime.now(UTC) + timedelta(milliseconds=2)
    with pytest.raises(IndexError):
        batch[3]


def test_given_nothing_when_consumed_then_an_empty_batch_comes_at_once_and_is_false(mq: Client) -> None:
    batch = mq.consume("orders", "billing")
    assert (len(batch), bool(batch), batch.payloads, list(batch.ids), batch.gap) == (0, False, [], [], None)
    assert batch.next_position == mq.describe_consumer_group("orders", "billing").position
    assert mq.fetch("orders", "earliest").generation == 0


def test_given_many_messages_when_consumed_in_any_number_then_each_comes_once_in_order(mq: Client) -> None:
    ids: list[int] = []
    for number in range(40):
        ids += mq.produce("orders", [b"%d-%d" % (number, part) for part in range(number % 4 + 1)])
    assert all(a < b for a, b in pairwise(ids))
    found: list[int] = []
    for count in (1, 2, 3, 50, 7, 1_000, 1_000):
        batch = mq.consume("orders", "billing", count)
        assert len(batch) <= count
        found += batch.ids
    assert found == ids


def test_given_a_limit_of_bytes_when_read_then_it_is_kept_but_one_message_comes_at_least(mq: Client) -> None:
    ids = mq.produce("orders", [bytes(1000)] * 5)
    assert len(mq.consume("orders", "billing", max_bytes=1)) == 1
    assert len(mq.consume("orders", "billing", max_bytes=2_999)) <= 2
    assert len(mq.fetch("orders", ids[0], max_bytes=1)) == 1
    assert len(mq.fetch("orders", ids[0], max_bytes=3_000)) == 3
    assert len(mq.fetch("orders", ids[0])) == 5


def test_given_more_bytes_than_a_reply_may_hold_when_consumed_then_all_come_in_several(mq: Client) -> None:
    payloads = [bytes((number,)) * MIB for number in range(12)]
    for payload in payloads:
        mq.produce("orders", [payload])
    found: list[bytes] = []
    while batch := mq.consume("orders", "billing", max_bytes=1 << 30):
        assert len(batch) < 12
        found += batch.payloads
    assert found == payloads


@pytest.mark.parametrize("bounds", [(0, 1), (-1, 1), (1, 0), (1, -1), (1.5, 1), ("1", 1), (True, 1)])
def test_given_bounds_below_one_when_read_then_they_are_refused(mq: Client, bounds: tuple[int, int]) -> None:
    mq.produce("orders", [b"a"])
    with pytest.raises(InvalidRequest, match="max_"):
        mq.consume("orders", "billing", bounds[0], max_bytes=bounds[1])
    with pytest.raises(InvalidRequest, match="max_"):
        mq.fetch("orders", "earliest", bounds[0], max_bytes=bounds[1])
    assert mq.consume("orders", "billing").payloads == [b"a"]


@pytest.mark.parametrize("timeout", [-1, -0.001, float("nan"), float("-inf")])
def test_given_a_negative_timeout_when_read_then_it_is_refused_and_nothing_is_lost(mq: Client, timeout: float) -> None:
    mq.produce("orders", [b"a"])
    with pytest.raises(InvalidRequest, match="timeout"):
        mq.consume("orders", "billing", timeout=timeout)
    with pytest.raises(InvalidRequest, match="timeout"):
        mq.fetch("orders", "earliest", timeout=timeout)
    assert mq.consume("orders", "billing").payloads == [b"a"]


def test_given_huge_bounds_when_read_then_they_are_taken_for_no_bounds(mq: Client) -> None:
    mq.produce("orders", [b"a"])
    assert mq.fetch("orders", "earliest", 1 << 40, max_bytes=1 << 40).payloads == [b"a"]
    assert mq.consume("orders", "billing", 1 << 40, max_bytes=1 << 40).payloads == [b"a"]


# -- fetching --------------------------------------------------------------------------


def test_given_messages_when_fetched_from_any_start_then_it_begins_there_and_no_group_moves(mq: Client) -> None:
    latest = mq.fetch("orders", "latest").next_position
    ids = mq.produce("orders", [b"a", b"b", b"c"])
    moment = mq.fetch("orders", ids[0])[0].timestamp
    for start, payloads in (
        ("earliest", [b"a", b"b", b"c"]),
        (0, [b"a", b"b", b"c"]),
        (latest, [b"a", b"b", b"c"]),
        (ids[1], [b"b", b"c"]),
        (moment, [b"a", b"b", b"c"]),
        (moment - timedelta(days=9), [b"a", b"b", b"c"]),
        (moment + timedelta(days=9), []),
        ("latest", []),
        (ids[2] + 1, []),
    ):
        batch = mq.fetch("orders", start)
        assert (batch.payloads, batch.generation, batch.next_position) == (payloads, 0, ids[2] + 1)
    assert mq.describe_consumer_group("orders", "billing").lag_messages == 3


def test_given_a_time_in_another_zone_when_fetched_from_then_it_is_the_same_moment(mq: Client) -> None:
    mq.produce("orders", [b"a"])
    moment = mq.fetch("orders", "earliest")[0].timestamp
    assert mq.fetch("orders", moment.astimezone(timezone(timedelta(hours=9)))).payloads == [b"a"]
    assert mq.fetch("orders", moment + timedelta(microseconds=1)).payloads == []
