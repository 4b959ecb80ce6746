"""Record batches (SPEC §4.1): columns that do not add up or exceed a limit are refused by name; headers come back."""

from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rocksmq.protocol.batch import (
    HEADER_BYTES_MAX,
    HEADERS_MAX,
    RecordBatch,
    decode_headers,
    encode_headers,
    pack_lengths,
    unpack_lengths,
)
from rocksmq.protocol.cbor import TEXT_BYTES_MAX, Buffer
from rocksmq.protocol.errors import InvalidRequest, LimitExceeded, MessageTooLarge, ProtocolError, RocksMQError
from tests.protocol.strategies import batches, columns, deterministic, headers, nearly_cbor, u32s

MESSAGES_MAX = 100
PAYLOAD_BYTES_MAX = 1_000


def check(batch: RecordBatch) -> None:
    batch.check(messages_max=MESSAGES_MAX, payload_bytes_max=PAYLOAD_BYTES_MAX)


def batch_of(*payloads: bytes) -> RecordBatch:
    return RecordBatch(len(payloads), pack_lengths([len(p) for p in payloads]), b"".join(payloads), None, None)


# -- lengths ---------------------------------------------------------------------


def test_given_lengths_when_packed_then_they_are_u32_little_endian() -> None:
    assert pack_lengths([1, 256, 2**32 - 1]) == bytes.fromhex("01000000 00010000 ffffffff")
    assert list(unpack_lengths(bytes.fromhex("01000000 00010000 ffffffff"))) == [1, 256, 2**32 - 1]


@deterministic
@given(st.lists(u32s))
def test_given_any_lengths_when_packed_and_unpacked_then_they_come_back(lengths: list[int]) -> None:
    assert list(unpack_lengths(memoryview(pack_lengths(lengths)))) == lengths


@pytest.mark.parametrize("size", [1, 3, 5])
def test_given_lengths_that_are_cut_off_when_unpacked_then_they_are_refused(size: int) -> None:
    with pytest.raises(ProtocolError, match=f"a column of {size} bytes is cut off"):
        unpack_lengths(bytes(size))


# -- what check refuses ----------------------------------------------------------


@pytest.mark.parametrize(
    ("batch", "error", "reason"),
    [
        (RecordBatch(0, b"", b"", None, None), InvalidRequest, "at least one message"),
        (RecordBatch(1, b"", b"", None, None), InvalidRequest, "lengths holds 0 bytes, not 4 for each of 1"),
        (RecordBatch(1, bytes(8), b"", None, None), InvalidRequest, "lengths holds 8 bytes"),
        (RecordBatch(2, bytes(7), b"", None, None), InvalidRequest, "lengths holds 7 bytes"),
        (RecordBatch(1, bytes(4), b"x", None, None), InvalidRequest, "add up to 0 bytes, but payloads holds 1"),
        (RecordBatch(1, b"\x02\x00\x00\x00", b"x", None, None), InvalidRequest, "add up to 2 bytes, but payloads holds 1"),
        (RecordBatch(2, b"\xff" * 8, b"x", None, None), InvalidRequest, "add up to 8589934590 bytes"),
        (RecordBatch(1, bytes(4), b"", bytes(4), None), InvalidRequest, "both or neither"),
        (RecordBatch(1, bytes(4), b"", None, b""), InvalidRequest, "both or neither"),
        (RecordBatch(1, bytes(4), b"", bytes(3), b""), InvalidRequest, "header_lengths holds 3 bytes"),
        (RecordBatch(1, bytes(4), b"", bytes(4), b"\xa0"), InvalidRequest, "header_lengths add up to 0 bytes, but headers"),
    ],
)
def test_given_columns_that_do_not_add_up_when_checked_then_the_column_is_named(
    batch: RecordBatch, error: type[RocksMQError], reason: str
) -> None:
    with pytest.raises(error, match=reason):
        check(batch)


def test_given_the_most_messages_when_checked_then_one_more_is_refused() -> None:
    check(batch_of(*[b""] * MESSAGES_MAX))
    with pytest.raises(LimitExceeded, match=r"101 messages in a batch exceed the limit of 100 \(batch_messages_max\)"):
        check(batch_of(*[b""] * (MESSAGES_MAX + 1)))


def test_given_absurdly_many_messages_when_checked_then_the_count_alone_refuses_them() -> None:
    with pytest.raises(LimitExceeded, match="4294967295 messages"):
        check(RecordBatch(2**32 - 1, b"", b"", None, None))


def test_given_the_longest_payload_when_checked_then_one_byte_more_is_refused() -> None:
    check(batch_of(bytes(PAYLOAD_BYTES_MAX), b"", bytes(PAYLOAD_BYTES_MAX)))
    with pytest.raises(MessageTooLarge, match=r"payloads of 1001 bytes exceed the limit of 1000 \(payload_bytes_max\)"):
        check(batch_of(b"x", bytes(PAYLOAD_BYTES_MAX + 1)))


def test_given_the_longest_headers_when_checked_then_one_byte_more_is_refused() -> None:
    check(RecordBatch(1, bytes(4), b"", pack_lengths([HEADER_BYTES_MAX]), bytes(HEADER_BYTES_MAX)))
    with pytest.raises(MessageTooLarge, match=r"262145 bytes exceed the limit of 262144 \(header_bytes_max\)"):
        check(RecordBatch(1, bytes(4), b"", pack_lengths([HEADER_BYTES_MAX + 1]), bytes(HEADER_BYTES_MAX + 1)))


@deterministic
@given(batches)
def test_given_a_packed_batch_when_checked_then_it_passes_and_its_size_is_payloads_and_headers(batch: RecordBatch) -> None:
    check(batch)
    viewed = RecordBatch(batch.message_count, *(None if column is None else memoryview(column) for column in batch[1:]))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]
    check(viewed)
    assert viewed.size == batch.size == len(batch.payloads) + len(batch.headers or b"")


@deterministic
@given(st.integers(0, 5), columns, columns, st.none() | columns, st.none() | columns)
def test_given_any_columns_when_checked_then_only_the_three_refusals_are_raised(
    count: int, lengths: Buffer, payloads: Buffer, header_lengths: Buffer | None, header_column: Buffer | None
) -> None:
    batch = RecordBatch(count, lengths, payloads, header_lengths, header_column)
    try:
        check(batch)
    except (InvalidRequest, LimitExceeded, MessageTooLarge):
        return
    assert len(lengths) == 4 * count
    assert sum(unpack_lengths(lengths)) == len(payloads)


# -- headers ---------------------------------------------------------------------


def test_given_no_headers_when_encoded_then_they_are_no_bytes() -> None:
    assert encode_headers({}) == b""
    assert decode_headers(b"") == {}


def test_given_an_empty_map_when_decoded_then_there_are_no_headers() -> None:
    assert decode_headers(b"\xa0") == {}


@deterministic
@given(headers)
def test_given_headers_when_encoded_and_decoded_then_they_come_back(sent: dict[str, bytes]) -> None:
    encoded = encode_headers(sent)
    assert decode_headers(encoded) == decode_headers(memoryview(encoded)) == sent


def test_given_the_most_headers_when_encoded_then_one_more_is_refused() -> None:
    most = {str(number): b"" for number in range(HEADERS_MAX)}
    assert decode_headers(encode_headers(most)) == most
    with pytest.raises(LimitExceeded, match=r"65 headers on a message exceed the limit of 64 \(headers_max\)"):
        encode_headers({**most, "one more": b""})


def test_given_the_longest_headers_when_encoded_then_one_byte_more_is_refused() -> None:
    overhead = len(cbor2.dumps({"k": bytes(HEADER_BYTES_MAX)})) - HEADER_BYTES_MAX
    longest = {"k": bytes(HEADER_BYTES_MAX - overhead)}
    assert len(encode_headers(longest)) == HEADER_BYTES_MAX
    assert decode_headers(encode_headers(longest)) == longest
    with pytest.raises(MessageTooLarge, match="header_bytes_max"):
        encode_headers({"k": bytes(HEADER_BYTES_MAX - overhead + 1)})


@pytest.mark.parametrize("wrong", [{"k": "text"}, {"k": bytearray(b"x")}, {"k": None}, {1: b""}, {b"k": b""}])
def test_given_headers_of_another_type_when_encoded_then_they_are_refused(wrong: Any) -> None:
    with pytest.raises(InvalidRequest, match="names are str and values bytes"):
        encode_headers(wrong)


@pytest.mark.parametrize("name", ["k" * (TEXT_BYTES_MAX + 1), "é" * (TEXT_BYTES_MAX // 2 + 1), "\ud800"])
def test_given_a_header_name_that_no_reader_could_decode_when_encoded_then_it_is_refused(name: str) -> None:
    with pytest.raises(RocksMQError):
        encode_headers({name: b""})


@pytest.mark.parametrize(
    "data",
    [
        b"\x00",
        b"\x80",
        b"\xf6",
        b"\xa1\x61k\x61v",
        b"\xa1\x41k\x41v",
        b"\xa1\x61k\xf6",
        b"\xa1\x61k",
        b"\xa0\x00",
        b"\xa0\xa0",
        b"\xa2\x61k\x40\x61k\x40",
        b"\xbf\xff",
        b"\xc0\xa0",
        b"\xa1\x61k\x81\x40",
    ],
)
def test_given_headers_that_are_no_map_from_text_to_bytes_when_decoded_then_they_are_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode_headers(data)


@deterministic
@given(nearly_cbor)
def test_given_any_bytes_when_decoded_as_headers_then_a_map_or_a_protocol_error(data: bytes) -> None:
    try:
        found = decode_headers(data)
    except ProtocolError:
        return
    assert found == (cbor2.loads(data) if data else {})
