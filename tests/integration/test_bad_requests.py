"""Requests that can never succeed, or reach a limit: each gets its typed error, and the connection goes on."""

import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rocksmq.clients.testing import Broker
from rocksmq.protocol.batch import HEADER_BYTES_MAX, RecordBatch, pack_lengths
from rocksmq.protocol.errors import ErrorCode, RocksMQError
from rocksmq.protocol.identity import Identity
from rocksmq.protocol.messages import pack_messages
from rocksmq.protocol.operations import (
    Commit,
    Consume,
    CreateChannel,
    CreateGroup,
    DescribeChannel,
    DescribeGroup,
    DestroyChannel,
    DestroyGroup,
    Empty,
    Fetch,
    ListGroups,
    Produce,
    Seek,
)
from tests.helpers.raw import Raw
from tests.helpers.raw_bystander import Bystander, check_text

MIB = 1 << 20
BAD_NAMES = ["", "-a", ".a", "_a", "a/b", "../etc", "a b", "a\n", "a\0", "ä", "a" * 201, "\N{SNOWMAN}" * 60]
SMALL = {
    "CHANNELS_MAX": "3",
    "GROUPS_MAX": "2",
    "PAYLOAD_BYTES_MAX": "1000",
    "BATCH_MESSAGES_MAX": "5",
    "CONSUME_MESSAGES_MAX": "4",
    "CONSUME_BYTES_MAX": "2500",
    "PRODUCE_QUEUE_BYTES_MAX": "4000",
}


def new_id() -> bytes:
    return secrets.token_bytes(16)


def produce(raw: Raw, batch: RecordBatch, *, channel: str = "orders", number: int = 0) -> Produce:
    return Produce(channel, Identity.new(raw.server.present_id).id, number, *batch)


def consume(raw: Raw, *, channel: str = "orders", group: str = "billing", number: int = 0, most: int = 1) -> Consume:
    return Consume(channel, group, Identity.new(raw.server.present_id).id, number, most, 1 << 20, 0)


def refused(raw: Raw, request: Any, code: ErrorCode, *fragments: str) -> RocksMQError:
    """The request is refused so; what comes behind it on the connection is answered."""
    error = raw.refused(request)
    assert error.code is code, f"{error!r}"
    check_text(error, *fragments)
    raw.call(Empty())
    return error


def columns(batch: RecordBatch, **changes: Any) -> RecordBatch:
    return batch._replace(**changes)


@pytest.mark.parametrize("name", BAD_NAMES)
def test_given_a_name_that_is_not_allowed_when_used_anywhere_then_invalid_request(raw: Raw, name: str) -> None:
    requests = (
        CreateChannel(name, None, None, None, new_id()),
        DestroyChannel(name, 1),
        DescribeChannel(name),
        ListGroups(name, ""),
        CreateGroup("orders", name, 1, 0, new_id()),
        CreateGroup(name, "billing", 1, 0, new_id()),
        DestroyGroup("orders", name, 1),
        DescribeGroup("orders", name),
        produce(raw, pack_messages([b"x"]), channel=name),
        consume(raw, channel=name),
        consume(raw, group=name),
        Fetch(name, 1, 0, 1, 1, 0),
        Commit("orders", name, 1, None, b""),
        Seek("orders", name, 1, 0, new_id()),
    )
    for request in requests:
        refused(raw, request, ErrorCode.INVALID_REQUEST, "name", "is not allowed", "A-Z")


def test_given_no_such_channel_when_anything_is_asked_of_it_then_channel_not_found(raw: Raw) -> None:
    requests = (
        DescribeChannel("nowhere"),
        ListGroups("nowhere", ""),
        CreateGroup("nowhere", "billing", 1, 0, new_id()),
        DescribeGroup("nowhere", "billing"),
        produce(raw, pack_messages([b"x"]), channel="nowhere"),
        consume(raw, channel="nowhere"),
        Fetch("nowhere", 1, 0, 1, 1, 0),
        Commit("nowhere", "billing", 1, None, b""),
        Seek("nowhere", "billing", 1, 0, new_id()),
    )
    for request in requests:
        refused(raw, request, ErrorCode.CHANNEL_NOT_FOUND, "'nowhere'", "create it")


def test_given_no_such_group_when_anything_is_asked_of_it_then_group_not_found(raw: Raw) -> None:
    requests = (
        DescribeGroup("orders", "nobody"),
        consume(raw, group="nobody"),
        Commit("orders", "nobody", 1, None, b""),
        Seek("orders", "nobody", 1, 0, new_id()),
    )
    for request in requests:
        refused(raw, request, ErrorCode.GROUP_NOT_FOUND, "'orders'", "'nobody'", "create it")


THREE = pack_messages([b"a", b"bc", b"def"])
HEADED = pack_messages([b"a", b"b"], {"k": b"v"})
BAD_BATCHES: dict[str, tuple[RecordBatch, *tuple[str, ...]]] = {
    "no messages": (columns(THREE, message_count=0), "at least one message"),
    "a count too high": (columns(THREE, message_count=4), "lengths holds 12 bytes", "4 messages"),
    "a count too low": (columns(THREE, message_count=2), "lengths holds 12 bytes"),
    "half a length": (columns(THREE, lengths=bytes(THREE.lengths)[:-2]), "lengths holds 10 bytes"),
    "lengths above the payloads": (columns(THREE, payloads=b"abcde"), "lengths add up to 6 bytes", "payloads holds 5"),
    "lengths below the payloads": (columns(THREE, payloads=b"abcdefg"), "lengths add up to 6 bytes"),
    "lengths that overflow": (columns(THREE, lengths=pack_lengths([0xFFFF_FFFF, 6, 1])), "add up to 4294967302"),
    "header lengths alone": (columns(HEADED, headers=None), "header_lengths and headers"),
    "headers alone": (columns(HEADED, header_lengths=None), "header_lengths and headers"),
    "header lengths too few": (columns(HEADED, header_lengths=pack_lengths([4])), "header_lengths holds 4 bytes"),
    "header lengths above the headers": (columns(HEADED, header_lengths=pack_lengths([4, 9])), "header_lengths add up"),
}


@pytest.mark.parametrize("case", BAD_BATCHES)
def test_given_columns_that_do_not_add_up_when_produced_then_invalid_request_and_nothing_stored(raw: Raw, case: str) -> None:
    batch, *fragments = BAD_BATCHES[case]
    before = raw.call(DescribeChannel("orders"))
    refused(raw, produce(raw, batch), ErrorCode.INVALID_REQUEST, *fragments)
    assert raw.call(DescribeChannel("orders")) == before


def test_given_the_default_limits_when_passed_by_one_then_the_limit_is_named_and_nothing_stored(raw: Raw) -> None:
    before = raw.call(DescribeChannel("orders"))
    large = produce(raw, pack_messages([b"small", bytes(MIB + 1)]))
    refused(raw, large, ErrorCode.MESSAGE_TOO_LARGE, "1048577", "1048576", "payload_bytes_max")
    many = produce(raw, pack_messages([b""] * 10_001))
    refused(raw, many, ErrorCode.LIMIT_EXCEEDED, "10001", "10000", "batch_messages_max")
    size = HEADER_BYTES_MAX + 1
    headed = produce(raw, RecordBatch(1, pack_lengths([0]), b"", pack_lengths([size]), bytes(size)))
    refused(raw, headed, ErrorCode.MESSAGE_TOO_LARGE, "262145", "262144", "header_bytes_max")
    assert raw.call(DescribeChannel("orders")) == before


def test_given_the_default_limits_when_just_kept_then_it_is_stored_and_comes_back(raw: Raw) -> None:
    raw.call(CreateChannel("large", None, None, None, new_id()))
    payloads = [secrets.token_bytes(MIB), b"", secrets.token_bytes(MIB)]
    first_id = raw.call(produce(raw, pack_messages(payloads), channel="large")).first_id
    reply = raw.call(Fetch("large", 0, first_id, 10, 7 * MIB, 0))
    assert reply.payloads == b"".join(payloads)
    raw.call(produce(raw, pack_messages([b""] * 10_000), channel="large"))
    assert raw.call(DescribeChannel("large")).message_count == 10_003


def test_given_numbers_out_of_bounds_when_reading_then_invalid_request(raw: Raw) -> None:
    for request in (
        Fetch("orders", 1, 0, 0, 1, 0),
        Fetch("orders", 1, 0, 1, 0, 0),
        consume(raw, most=0),
        consume(raw)._replace(max_bytes=0),
    ):
        refused(raw, request, ErrorCode.INVALID_REQUEST, "max_messages", "max_bytes", "1")


def test_given_a_numbered_request_out_of_turn_when_sent_then_out_of_sequence_with_what_is_expected(raw: Raw) -> None:
    unknown = refused(raw, produce(raw, THREE, number=3), ErrorCode.OUT_OF_SEQUENCE, "3", "unknown producer")
    assert unknown.expected_number is None
    request = produce(raw, THREE)
    first = raw.call(request)
    ahead = refused(raw, request._replace(number=2), ErrorCode.OUT_OF_SEQUENCE, "batch 2", "1 is")
    assert ahead.expected_number == 1
    assert ahead.present_id is not None
    assert ahead.present_id > first.first_id
    assert raw.call(request) == first, "a repeat gets the first answer"
    consumer = refused(raw, consume(raw, number=1), ErrorCode.OUT_OF_SEQUENCE, "consume 1", "unknown consumer")
    assert consumer.expected_number is None


def test_given_a_group_when_committed_wrongly_then_refused_and_unmoved(raw: Raw) -> None:
    group = raw.call(DescribeGroup("orders", "billing"))
    end = raw.call(DescribeChannel("orders")).end_id
    refused(raw, Commit("orders", "billing", end + 2, None, b""), ErrorCode.INVALID_REQUEST, str(end + 2), str(end + 1))
    refused(raw, Commit("orders", "billing", end, None, bytes(257)), ErrorCode.INVALID_REQUEST, "257", "256", "metadata")
    other = group.generation + 1
    refused(raw, Commit("orders", "billing", end, other, b""), ErrorCode.CONFLICT, str(other), str(group.generation))
    after = raw.call(DescribeGroup("orders", "billing"))
    assert (after.position, after.generation, after.metadata) == (group.position, group.generation, group.metadata)


@pytest.mark.parametrize("mode", ["", "FSYNC", "always", "interval", "interval:0", "interval:-1", "interval:60001", "os "])
def test_given_an_unknown_durability_when_creating_a_channel_then_invalid_request_names_those_there_are(
    raw: Raw, mode: str
) -> None:
    request = CreateChannel("strange", mode, None, None, new_id())
    refused(raw, request, ErrorCode.INVALID_REQUEST, "durability", "fsync", "os", "interval:<ms>")


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Raw]:
    """A connection to a broker whose limits are small."""
    environment = {f"ROCKSMQ_LIMITS_{name}": value for name, value in SMALL.items()}
    with Broker(tmp_path / "data", environment=environment) as broker, Bystander(broker, batch=4) as bystander:
        with Raw(broker.address) as raw:
            raw.call(CreateChannel("orders", None, None, None, new_id()))
            raw.call(CreateGroup("orders", "billing", 1, 0, new_id()))
            yield raw
        bystander.check()


def test_given_small_limits_when_counts_are_reached_then_limit_exceeded(small: Raw) -> None:
    small.call(CreateChannel("last", None, None, None, new_id()))
    refused(small, CreateChannel("more", None, None, None, new_id()), ErrorCode.LIMIT_EXCEEDED, "3", "channels_max")
    small.call(CreateGroup("orders", "last", 1, 0, new_id()))
    refused(small, CreateGroup("orders", "more", 1, 0, new_id()), ErrorCode.LIMIT_EXCEEDED, "2", "groups_max")


def test_given_small_limits_when_a_produce_passes_them_then_they_are_named(small: Raw) -> None:
    large = produce(small, pack_messages([bytes(1_001)]))
    refused(small, large, ErrorCode.MESSAGE_TOO_LARGE, "1001", "1000", "payload_bytes_max")
    many = produce(small, pack_messages([b""] * 6))
    refused(small, many, ErrorCode.LIMIT_EXCEEDED, "6", "5", "batch_messages_max")
    error = refused(small, produce(small, pack_messages([bytes(1_000)] * 5)), ErrorCode.OVERLOADED, "4000")
    check_text(error, "produce_queue_bytes_max", "try again")
    assert error.retryable
    assert error.retry_after is not None


def test_given_small_limits_when_more_is_read_at_once_then_the_reply_is_shorter(small: Raw) -> None:
    for number in range(3):
        small.call(produce(small, pack_messages([bytes([number]) * 900] * 3)))
    by_count = small.call(Fetch("orders", 1, 0, 1_000, 1 << 20, 0))
    assert by_count.message_count == 2, "the third message would pass consume_bytes_max"
    small.call(produce(small, pack_messages([b""] * 5)))
    end = small.call(DescribeChannel("orders")).end_id
    assert small.call(Fetch("orders", 0, end - 4, 1_000, 1 << 20, 0)).message_count == 4
    assert small.call(consume(small, most=1_000)).message_count == 2


def test_given_a_reply_of_one_byte_when_read_then_it_holds_one_message_all_the_same(small: Raw) -> None:
    small.call(produce(small, pack_messages([bytes(900)] * 3)))
    assert small.call(Fetch("orders", 1, 0, 10, 1, 0)).message_count == 1
