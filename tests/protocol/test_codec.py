"""Requests, replies and errors as frames (SPEC §2.3, §3, §5.1): every row of OPS there and back, nothing else accepted."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rocksmq.protocol.cbor import decode, encode_frame
from rocksmq.protocol.codec import (
    NO_CORRELATION,
    SUCCESS,
    decode_error,
    decode_reply,
    decode_request,
    encode_error,
    encode_reply,
    encode_request,
)
from rocksmq.protocol.errors import (
    ErrorCode,
    InternalError,
    InvalidRequest,
    OutOfSequence,
    Overloaded,
    ProtocolError,
    RocksMQError,
)
from rocksmq.protocol.operations import (
    OPS,
    PING,
    ChannelsDescribed,
    ManyMessages,
    Messages,
    Operation,
    Position,
    Produce,
    ProducerOpened,
)
from rocksmq.protocol.wire import ID_BYTES
from tests.protocol.feeding import fed_three_ways
from tests.protocol.make_vectors import fields_of
from tests.protocol.strategies import (
    allowed_arrays,
    columns,
    correlations,
    deterministic,
    errors,
    nearly_cbor,
    replies,
    requests,
)

U32_END, U64_END = 2**32, 2**64
ZEROS = bytes(ID_BYTES)
PRODUCED = ["orders", ZEROS, 0, 1, b"", b"", None, None, None]
CONSUMED = ["orders", "billing", ZEROS, 0, 1, 1, 0]
ONE = bytes([1, 0, 0, 0, 0, 0, 0, 0])  # as a column of numbers
OWNER = ["role", "address", ""]
SOUGHT_MANY = ["billing", ONE, None, None, None, None, ZEROS]
GOT = [0, None, 0, None, b"", 0, b"", b"", None, None]


def same(left: Any, right: Any) -> bool:
    """Whether two requests or replies of one type are equal, however their buffers are held."""
    return type(left) is type(right) and fields_of(left) == fields_of(right)


@pytest.mark.parametrize(("number", "is_taken"), [(7, False), (13, False), (15, True), (21, False)])
def test_given_kind_4_when_encoded_then_only_a_seek_takes_it(number: int, is_taken: bool) -> None:
    fields: dict[int, list[Any]] = {
        7: ["orders", "billing", Position.CURRENT, 0, ZEROS],
        13: ["orders", Position.CURRENT, 0, 1, 1, 0],
        15: ["orders", "billing", Position.CURRENT, 0, ZEROS],
        21: ["billing", ONE, Position.CURRENT, 0, ZEROS],
    }
    request = OPS[number].request(*fields[number])
    if is_taken:
        items = fed_three_ways(b"".join(encode_request(OPS[number], 1, request)))
        assert decode_request(items) == (OPS[number], 1, request)
        return
    with pytest.raises(InvalidRequest, match="start_kind must be 0 id, 1 earliest, 2 latest or 3 time"):
        encode_request(OPS[number], 1, request)


@pytest.mark.parametrize("last_sequence", [None, 0, U64_END - 1, b"", bytes(32)])
def test_given_a_last_sequence_when_sent_three_ways_then_its_kind_is_kept(last_sequence: int | bytes | None) -> None:
    items = fed_three_ways(b"".join(encode_reply(1, ProducerOpened(last_sequence))))
    found = decode_reply(OPS[16], items)
    assert found == ProducerOpened(last_sequence)
    assert type(found.last_sequence) is type(last_sequence)


# -- there and back --------------------------------------------------------------


@deterministic
@given(requests, correlations)
def test_given_any_request_when_sent_three_ways_then_it_is_read_the_same(sent: tuple[Operation, Any], correlation: int) -> None:
    op, request = sent
    items = fed_three_ways(b"".join(encode_request(op, correlation, request)))
    found, found_correlation, decoded = decode_request(items)
    assert (found, found_correlation) == (op, correlation)
    assert same(decoded, request)


@deterministic
@given(replies, correlations)
def test_given_any_reply_when_sent_three_ways_then_it_is_read_the_same(sent: tuple[Operation, Any], correlation: int) -> None:
    op, reply = sent
    items = fed_three_ways(b"".join(encode_reply(correlation, reply)))
    assert items[:2] == [correlation, SUCCESS]
    assert same(decode_reply(op, items), reply)


@deterministic
@given(errors, st.integers(0, U32_END - 1))
def test_given_any_error_when_sent_three_ways_then_it_is_read_the_same(sent: RocksMQError, correlation: int) -> None:
    items = fed_three_ways(b"".join(encode_error(correlation, sent)))
    assert items[:2] == [correlation, sent.code]
    with pytest.raises(type(sent)) as refusal:
        decode_reply(PING, items)
    for error in (refusal.value, decode_error(items)):
        assert type(error) is type(sent)
        assert fields_of(error) == fields_of(sent)


# -- requests that are refused ---------------------------------------------------


@pytest.mark.parametrize("items", [[], [2], [2, None], ["PING", 1], [2, 1.0], [True, 1], [2, True], [[2], 1], [None, 1]])
def test_given_a_request_without_two_numbers_in_front_when_decoded_then_it_is_refused(items: list[Any]) -> None:
    with pytest.raises(ProtocolError, match="begins with an operation's number and a correlation id"):
        decode_request(items)


def test_given_correlation_ids_when_decoded_then_0_and_2_to_the_32_are_refused() -> None:
    assert decode_request([2, 1])[1] == 1
    assert decode_request([2, U32_END - 1])[1] == U32_END - 1
    for correlation in (NO_CORRELATION, -1, U32_END):
        with pytest.raises(ProtocolError, match="a correlation id from 1 to"):
            decode_request([2, correlation])


@pytest.mark.parametrize("number", [0, len(OPS) + 1, -1, U64_END - 1])
def test_given_an_unknown_operation_when_decoded_then_it_is_refused(number: int) -> None:
    with pytest.raises(ProtocolError, match=f"there is no operation {number}"):
        decode_request([number, 1])


@pytest.mark.parametrize("op", OPS.values(), ids=lambda op: op.name)
def test_given_too_few_or_too_many_fields_when_decoded_then_both_counts_are_told(op: Operation) -> None:
    size = len(op.request._fields)
    for count in {0, size - 1, size + 1, size + 100} - {size, -1}:
        with pytest.raises(ProtocolError, match=f"{op.name} has {count} fields, not {size}"):
            decode_request([op.number, 1, *[None] * count])


@pytest.mark.parametrize(
    ("number", "fields", "index", "wrong", "reason"),
    [
        (4, ["orders", 0], 0, b"orders", "channel must be a text"),
        (4, ["orders", 0], 0, None, "channel must be a text"),
        (4, ["orders", 0], 1, -1, "number must be an unsigned 64-bit integer"),
        (4, ["orders", 0], 1, U64_END, "number must be an unsigned 64-bit integer"),
        (4, ["orders", 0], 1, True, "number must be an unsigned 64-bit integer"),
        (4, ["orders", 0], 1, None, "number must be an unsigned 64-bit integer"),
        (11, PRODUCED, 1, bytes(15), "producer must be a byte string of 16 bytes"),
        (11, PRODUCED, 1, bytes(17), "producer must be a byte string of 16 bytes"),
        (11, PRODUCED, 1, "0" * 16, "producer must be a byte string of 16 bytes"),
        (11, PRODUCED, 3, U32_END, "message_count must be an unsigned 32-bit integer"),
        (11, PRODUCED, 4, None, "lengths must be a byte string"),
        (11, PRODUCED, 5, "text", "payloads must be a byte string"),
        (11, PRODUCED, 6, 0, "header_lengths must be a byte string, or null"),
        (11, PRODUCED, 7, False, "headers must be a byte string, or null"),
        (11, PRODUCED, 8, 0, r"sequences must be an array \[first, last\] of sequences, or null"),
        (11, PRODUCED, 8, [0], "sequences must be an array"),
        (11, PRODUCED, 8, [0, 1, 2], "sequences must be an array"),
        (11, PRODUCED, 8, [0, None], "sequences must be an array"),
        (11, PRODUCED, 8, [0, U64_END], "sequences must be an array"),
        (11, PRODUCED, 8, [-1, 0], "sequences must be an array"),
        (11, PRODUCED, 8, [False, True], "sequences must be an array"),
        (11, PRODUCED, 8, [b"", bytes(33)], "sequences must be an array"),
        (11, PRODUCED, 8, ["a", "b"], "sequences must be an array"),
        (12, CONSUMED, 6, U32_END, "wait_ms must be an unsigned 32-bit integer"),
        (14, ["orders", "billing", 0, None, b""], 3, -1, "generation must be an unsigned 64-bit integer, or null"),
        (14, ["orders", "billing", 0, None, b""], 4, "", "metadata must be a byte string"),
        (7, ["orders", "billing", 1, 0, ZEROS], 2, 4, "start_kind must be 0 id, 1 earliest, 2 latest or 3 time"),
        (13, ["orders", 1, 0, 1, 1, 0], 1, 4, "start_kind must be 0 id, 1 earliest, 2 latest or 3 time"),
        (15, ["orders", "billing", 4, 0, ZEROS], 2, 5, "to_kind must be 0 id, 1 earliest, 2 latest, 3 time or 4 current"),
        (15, ["orders", "billing", 1, 0, ZEROS], 2, -1, "to_kind must be 0 id"),
        (15, ["orders", "billing", 1, 0, ZEROS], 2, True, "to_kind must be 0 id"),
        (16, ["orders", "importer", ZEROS], 1, b"importer", "name must be a text"),
        (16, ["orders", "importer", ZEROS], 2, bytes(15), "producer must be a byte string of 16 bytes"),
        (17, ["orders", "billing", ZEROS, 0, 0, 0], 2, None, "consumer must be a byte string of 16 bytes"),
        (17, ["orders", "billing", ZEROS, 0, 0, 0], 3, None, "number must be an unsigned 64-bit integer"),
        (17, ["orders", "billing", ZEROS, 0, 0, 0], 4, U64_END, "position must be an unsigned 64-bit integer"),
        (3, ["orders", None, None, None, ZEROS], 1, 0, "durability must be a text of at most 4096 bytes in UTF-8, or null"),
        (3, ["orders", None, None, None, ZEROS], 2, [], "retention must be a map from text to integer, or null"),
        (3, ["orders", None, None, None, ZEROS], 2, {b"max": 1}, "retention must be a map from text to integer, or null"),
        (3, ["orders", None, None, None, ZEROS], 2, {"max": "1"}, "retention must be a map from text to integer, or null"),
        (3, ["orders", None, None, None, ZEROS], 2, {"max": True}, "retention must be a map from text to integer, or null"),
        (3, ["orders", None, None, None, ZEROS], 3, ["role", "address"], r"owner must be an array \[role, address, desc"),
        (3, ["orders", None, None, None, ZEROS], 3, ["role", "address", 3], r"owner must be an array \[role, address"),
        (3, ["orders", None, None, None, ZEROS], 3, ["role", "address", "", ""], r"owner must be an array \[role, addr"),
        (18, [OWNER, 1, ZEROS], 0, None, r"owner must be an array \[role, address, description\]"),
        (18, [OWNER, 1, ZEROS], 0, OWNER[:2], r"owner must be an array \[role, address, description\]"),
        (18, [OWNER, 1, ZEROS], 1, U32_END, "channel_count must be an unsigned 32-bit integer"),
        (19, [["orders"], ONE], 0, "orders", "channels must be an array of texts"),
        (19, [["orders"], ONE], 0, ["orders", None], "channels must be an array of texts"),
        (19, [["orders"], ONE], 1, [1], "numbers must be a byte string"),
        (20, [["orders"]], 0, [b"orders"], "channels must be an array of texts"),
        (21, ["billing", ONE, 1, 0, ZEROS], 1, None, "numbers must be a byte string"),
        (22, SOUGHT_MANY, 1, None, "numbers must be a byte string"),
        (22, SOUGHT_MANY, 2, 0, "generations must be a byte string, or null"),
        (22, SOUGHT_MANY, 3, [0], "positions must be a byte string, or null"),
        (22, SOUGHT_MANY, 4, "", "metadata_lengths must be a byte string, or null"),
        (22, SOUGHT_MANY, 5, "", "metadata must be a byte string, or null"),
        (23, [ONE * 2, 1, 1, 0], 0, [[1, 0]], "starts must be a byte string"),
        (24, ["billing", ONE, ONE, ONE, b"", b""], 2, None, "generations must be a byte string"),
        (24, ["billing", ONE, ONE, ONE, b"", b""], 4, None, "metadata_lengths must be a byte string"),
        (25, ["billing", ONE, ONE], 2, None, "generations must be a byte string"),
        (1, ["RocksMQ", 1, 1, "", ZEROS, None], 5, b"token", "token must be a text of at most 4096 bytes in UTF-8, or null"),
    ],
)
def test_given_a_field_outside_its_type_when_decoded_then_the_field_is_named(
    number: int, fields: list[Any], index: int, wrong: Any, reason: str
) -> None:
    decode_request([number, 1, *fields])
    fields = [*fields[:index], wrong, *fields[index + 1 :]]
    with pytest.raises(ProtocolError, match=f"^{OPS[number].name}: {reason}"):
        decode_request([number, 1, *fields])


@deterministic
@given(
    allowed_arrays | st.tuples(st.integers(0, len(OPS) + 1), correlations, allowed_arrays).map(lambda t: [t[0], t[1], *t[2]])
)
def test_given_any_array_when_decoded_as_a_request_then_a_request_or_a_protocol_error(items: list[Any]) -> None:
    try:
        op, correlation, request = decode_request(items)
    except ProtocolError:
        return
    assert [op.number, correlation, *request] == items


@deterministic
@given(nearly_cbor)
def test_given_any_bytes_when_decoded_as_a_request_then_a_request_or_a_protocol_error(body: bytes) -> None:
    try:
        decode_request(decode(memoryview(body)))
    except ProtocolError:
        return


# -- replies and errors that are refused -----------------------------------------


@pytest.mark.parametrize("items", [[], [1], [1, None], [1, "0"], [1, True], [1, [0]]])
def test_given_a_reply_without_a_status_when_decoded_then_it_is_refused(items: list[Any]) -> None:
    with pytest.raises(ProtocolError, match="begins with a correlation id and a status"):
        decode_reply(PING, items)


@pytest.mark.parametrize("op", OPS.values(), ids=lambda op: op.name)
def test_given_a_reply_with_too_few_or_too_many_fields_when_decoded_then_it_is_refused(op: Operation) -> None:
    size = len(op.reply._fields)
    for count in {0, size - 1, size + 1} - {size, -1}:
        with pytest.raises(ProtocolError, match=f"reply to {op.name} has {count} fields, not {size}"):
            decode_reply(op, [1, SUCCESS, *[None] * count])


@pytest.mark.parametrize(
    ("index", "wrong", "reason"),
    [
        (0, -1, "next_position must be an unsigned 64-bit integer"),
        (1, "7", "next_offset must be an unsigned 64-bit integer, or null"),
        (3, [1, 2], "gap must be an array"),
        (3, [1, 2, 3, 4], "gap must be an array"),
        (3, ["1", 2, 3], "gap must be an array"),
        (3, [1, None, 3], "gap must be an array"),
        (3, [1, 2, "3"], "gap must be an array"),
        (3, [1, 2, [3]], "gap must be an array"),
        (3, 0, "gap must be an array"),
        (4, None, "runs must be a byte string"),
        (6, [], "lengths must be a byte string"),
        (8, "", "header_lengths must be a byte string, or null"),
    ],
)
def test_given_a_field_of_a_reply_outside_its_type_when_decoded_then_the_field_is_named(
    index: int, wrong: Any, reason: str
) -> None:
    assert isinstance(decode_reply(OPS[12], [1, SUCCESS, *GOT]), Messages)
    with pytest.raises(ProtocolError, match=f"^reply to CONSUME: {reason}"):
        decode_reply(OPS[12], [1, SUCCESS, *GOT[:index], wrong, *GOT[index + 1 :]])


@pytest.mark.parametrize(
    ("number", "fields"),
    [
        (1, [1, "", "", {"a": "b"}, 0]),
        (3, [1]),
        (5, [["a", 1], False]),
        (5, [["a"], 0]),
        (11, [b""]),
        (18, ["one"]),
        (20, [b"", [OWNER[:2]]]),
        (20, [b"", [*OWNER]]),
        (20, [b"", None]),
        (22, [b"", b"", None, b"", b""]),
        (23, [b"", [[0, 1, 2]], *GOT[4:]]),
        (23, [b"", [[U32_END, 1, 2, None]], *GOT[4:]]),
        (23, [b"", [[0, 1, None, None]], *GOT[4:]]),
        (23, [b"", [[0, 1, 2, "3"]], *GOT[4:]]),
        (23, [b"", [0, 1, 2, 3], *GOT[4:]]),
        (23, [b"", None, *GOT[4:]]),
        (16, [-1]),
        (16, [True]),
        (16, ["7"]),
        (16, [bytes(33)]),
        (16, [[7]]),
    ],
)
def test_given_a_reply_of_other_types_when_decoded_then_it_is_refused(number: int, fields: list[Any]) -> None:
    with pytest.raises(ProtocolError, match="must be"):
        decode_reply(OPS[number], [1, SUCCESS, *fields])


@pytest.mark.parametrize(
    ("number", "reply"),
    [
        (20, ChannelsDescribed(bytes(8_000), [OWNER] * 1_000)),
        (23, ManyMessages(bytes(28), [[index, 1, 2, 3] for index in range(800)], b"", 0, b"", b"", None, None)),
    ],
    ids=["owners", "gaps"],
)
def test_given_as_much_as_a_reply_about_many_channels_may_tell_when_sent_then_it_is_within_the_items_of_a_frame(
    number: int, reply: Any
) -> None:
    assert same(decode_reply(OPS[number], decode(memoryview(b"".join(encode_reply(1, reply)))[4:])), reply)


@deterministic
@given(st.sampled_from(list(OPS.values())), allowed_arrays | allowed_arrays.map(lambda items: [1, SUCCESS, *items]))
def test_given_any_array_when_decoded_as_a_reply_then_a_reply_or_a_typed_error(op: Operation, items: list[Any]) -> None:
    try:
        reply = decode_reply(op, items)
    except RocksMQError:
        return
    assert [*items[:2], *reply] == items


@pytest.mark.parametrize(
    "items",
    [
        [],
        [1, 5],
        [1, 5, "text", None, None],
        [1, 5, "text", None, None, None, None],
        [1, 5, b"bytes", None, None, None],
        [1, 5, None, None, None, None],
        [1, 5, "text", "soon", None, None],
        [1, 5, "text", None, True, None],
        [1, 5, "text", None, None, []],
        [1, None, "text", None, None, None],
        [1, "5", "text", None, None, None],
        [0, [], "text", None, None, None],
        [0, {}, "text", None, None, None],
    ],
)
def test_given_an_array_that_is_no_error_when_decoded_as_one_then_it_is_refused(items: list[Any]) -> None:
    with pytest.raises(ProtocolError, match="not an error reply"):
        raise decode_error(items)


anything: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.integers(-1, 200),
    st.text(max_size=3),
    st.booleans(),
    st.lists(st.integers(), max_size=1),
    st.dictionaries(st.text(), st.none(), max_size=1),
)


@deterministic
@given(st.tuples(anything, anything, st.text(max_size=3), *[st.none() | st.integers()] * 3).map(list) | allowed_arrays)
def test_given_any_array_when_decoded_as_an_error_then_an_error_and_nothing_else(items: list[Any]) -> None:
    try:
        assert isinstance(decode_error(items), RocksMQError)
    except ProtocolError:
        return


def test_given_a_code_of_a_later_broker_when_decoded_then_it_is_an_internal_error() -> None:
    error = decode_error([1, 99, "something new", None, None, None])
    assert type(error) is InternalError
    assert error.message == "something new"


@pytest.mark.parametrize("code", [ErrorCode.CONNECTION_FAILED, ErrorCode.TIMEOUT])
def test_given_a_code_that_never_travels_when_decoded_then_it_is_an_internal_error(code: ErrorCode) -> None:
    assert type(decode_error([1, int(code), "not of a broker", None, None, None])) is InternalError


def test_given_details_when_an_error_is_encoded_then_they_stand_in_their_places() -> None:
    frame = b"".join(encode_error(7, Overloaded("later", retry_after=0.1)))
    assert frame == b"".join(encode_frame((7, 7, "later", 100, None, None)))
    frame = b"".join(encode_error(7, OutOfSequence("no", expected_number=3, present_id=4)))
    assert frame == b"".join(encode_frame((7, 12, "no", None, 3, 4)))


@deterministic
@given(columns)
def test_given_large_columns_when_a_produce_is_encoded_then_they_are_not_copied(column: bytes) -> None:
    buffers = encode_request(OPS[11], 1, Produce("orders", ZEROS, 0, 1, b"", column, None, None))
    assert any(buffer is column for buffer in buffers) == (len(column) >= 1_024)
