"""The CBOR subset (SPEC §2.2): what is refused before anything is built, and what comes back as it was sent."""

import contextlib
import tracemalloc
from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rocksmq.protocol.cbor import (
    CUT_BYTES_MIN,
    DEPTH_MAX,
    ITEMS_MAX,
    TEXT_BYTES_MAX,
    Gathered,
    decode,
    decode_value,
    encode_frame,
    encode_value,
    scan,
)
from rocksmq.protocol.errors import ProtocolError
from tests.protocol.feeding import fed_three_ways
from tests.protocol.strategies import allowed_arrays, deterministic, long_bytes, nearly_cbor

LONG = bytes(range(256)) * 4
ALLOCATION_BYTES_MAX = 64 * 1024  # what a refusal may cost, its exception included


def decoded(body: bytes) -> list[Any]:
    return decode(memoryview(body))


def framed(*items: Any) -> bytes:
    return b"".join(encode_frame(items))


# -- what is refused -------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("", "an item is missing"),
        ("81", "an item is missing"),
        ("8201", "an item is missing"),
        ("8118", "an item's length is missing"),
        ("811900", "an item's length is missing"),
        ("811a000000", "an item's length is missing"),
        ("811b00000000000000", "an item's length is missing"),
        ("814361", "a string is cut off"),
        ("816361", "a string is cut off"),
        ("9f01ff", "indefinite lengths"),
        ("81ff", "indefinite lengths"),
        ("815f4101ff", "indefinite lengths"),
        ("817f6161ff", "indefinite lengths"),
        ("81bf6161ff", "indefinite lengths"),
        ("811c", "indefinite lengths"),
        ("811d", "indefinite lengths"),
        ("811e", "indefinite lengths"),
        ("81c001", "tags"),
        ("81c249010000000000000000", "tags"),
        ("81d81801", "tags"),
        ("81d9d9f781", "tags"),
        ("81f93c00", "floats"),
        ("81fa3f800000", "floats"),
        ("81fb3ff0000000000000", "floats"),
        ("81f7", "simple values"),
        ("81e0", "simple values"),
        ("81f3", "simple values"),
        ("81f814", "simple values"),
        ("81f8ff", "simple values"),
        ("00", "one CBOR array"),
        ("a0", "one CBOR array"),
        ("4101", "one CBOR array"),
        ("f6", "one CBOR array"),
        ("8000", "1 bytes behind the end"),
        ("8101820102", "3 bytes behind the end"),
    ],
)
def test_given_a_breach_of_the_subset_when_scanned_then_it_is_refused_by_name(body: str, reason: str) -> None:
    with pytest.raises(ProtocolError, match=reason):
        scan(memoryview(bytes.fromhex(body)))


@pytest.mark.parametrize(
    "body",
    [
        pytest.param("81a24161014161 02", id="the same byte string key twice"),
        pytest.param("81a2616101616102", id="the same text key twice"),
        pytest.param("81a10101", id="an integer as key"),
        pytest.param("81a1f501", id="a boolean as key"),
        pytest.param("81a1f601", id="null as key"),
        pytest.param("81a1810101", id="an array as key"),
        pytest.param("81a1a001", id="a map as key"),
        pytest.param("8161ff", id="text that is not UTF-8"),
        pytest.param("8163eda080", id="text with half a surrogate pair"),
    ],
)
def test_given_what_only_decoding_can_see_when_decoded_then_it_is_refused(body: str) -> None:
    with pytest.raises(ProtocolError, match="not valid CBOR"):
        decoded(bytes.fromhex(body))


@pytest.mark.parametrize("head", ["5b", "7b", "9b", "bb"], ids=["bytes", "text", "array", "map"])
@pytest.mark.parametrize("length", [2**20, 2**32 - 1, 2**63, 2**64 - 1])
def test_given_an_absurd_declared_length_when_decoded_then_it_is_refused_without_allocating(head: str, length: int) -> None:
    body = memoryview(b"\x81" + bytes.fromhex(head) + length.to_bytes(8, "big"))
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolError):
            decode(body)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < ALLOCATION_BYTES_MAX


def test_given_a_megabyte_of_empty_maps_when_decoded_then_it_is_refused_without_building_them() -> None:
    body = memoryview(b"\x9a\x00\x10\x00\x00" + b"\xa0" * (1 << 20))
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolError, match="CBOR items"):
            decode(body)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < ALLOCATION_BYTES_MAX


# -- each limit, from both sides -------------------------------------------------


def nested(depth: int, opening: bytes, innermost: bytes) -> bytes:
    return b"\x81" + opening * (depth - 2) + innermost


@pytest.mark.parametrize(
    ("opening", "innermost"),
    [(b"\x81", b"\x80"), (b"\x81", b"\xa0"), (b"\xa1\x61k", b"\xa0"), (b"\x81", b"\x81\x01"), (b"\x82\x01", b"\x80")],
)
def test_given_the_greatest_depth_when_decoded_then_one_more_is_refused(opening: bytes, innermost: bytes) -> None:
    assert decoded(nested(DEPTH_MAX, opening, innermost))
    with pytest.raises(ProtocolError, match="nested deeper than 6"):
        decoded(nested(DEPTH_MAX + 1, opening, innermost))


def test_given_deep_values_side_by_side_when_decoded_then_depth_does_not_add_up() -> None:
    deep = nested(DEPTH_MAX - 1, b"\x81", b"\x80")
    assert decoded(b"\x98\x64" + deep * 100) == [cbor2.loads(deep)] * 100


def test_given_the_most_items_when_decoded_then_one_more_is_refused() -> None:
    assert len(decoded(b"\x99" + (ITEMS_MAX - 1).to_bytes(2, "big") + bytes(ITEMS_MAX - 1))) == ITEMS_MAX - 1
    with pytest.raises(ProtocolError, match="more than 4096 CBOR items"):
        decoded(b"\x99" + ITEMS_MAX.to_bytes(2, "big") + bytes(ITEMS_MAX))


def test_given_the_most_items_in_several_containers_when_decoded_then_they_are_counted_together() -> None:
    half = b"\x99\x07\xfe" + bytes(2_046)  # 2,047 items with its own head
    assert len(decoded(b"\x83" + half + half + b"\x00")) == 3
    with pytest.raises(ProtocolError, match="more than 4096 CBOR items"):
        decoded(b"\x84" + half + half + b"\x00\x00")


def test_given_a_map_when_scanned_then_keys_and_values_both_count() -> None:
    with pytest.raises(ProtocolError, match="more than 4096 CBOR items"):
        scan(memoryview(b"\x81\xb9\x08\x01"))


def test_given_the_longest_text_when_decoded_then_one_byte_more_is_refused() -> None:
    longest = b"a" * TEXT_BYTES_MAX
    assert decoded(b"\x81\x79\x10\x00" + longest) == ["a" * TEXT_BYTES_MAX]
    with pytest.raises(ProtocolError, match="longer than 4096 bytes"):
        decoded(b"\x81\x79\x10\x01" + longest + b"a")


def test_given_a_bound_of_all_texts_when_one_byte_more_comes_then_it_is_refused() -> None:
    body = memoryview(b"\x82\x63abc\x81\x63def")
    assert decode(body, 6) == ["abc", ["def"]]
    with pytest.raises(ProtocolError, match="texts of more than 5 bytes"):
        decode(body, 5)


# -- whatever the bytes are ------------------------------------------------------


@deterministic
@given(nearly_cbor)
def test_given_any_bytes_when_decoded_then_a_list_or_a_protocol_error_and_nothing_else(body: bytes) -> None:
    try:
        items = decoded(body)
    except ProtocolError:
        return
    assert items == cbor2.loads(body)


@deterministic
@given(allowed_arrays, st.binary(min_size=1, max_size=3))
def test_given_an_allowed_array_when_cut_short_or_lengthened_then_it_is_refused(items: list[Any], tail: bytes) -> None:
    body = cbor2.dumps(items)
    for size in range(len(body)) if len(body) < 100 else (0, 1, len(body) // 2, len(body) - 1):
        with pytest.raises(ProtocolError):
            decoded(body[:size])
    with pytest.raises(ProtocolError):
        decoded(body + tail)


@deterministic
@given(allowed_arrays)
def test_given_an_allowed_array_when_encoded_and_fed_three_ways_then_it_comes_back(items: list[Any]) -> None:
    assert fed_three_ways(framed(*items)) == items


@deterministic
@given(allowed_arrays)
def test_given_an_allowed_array_when_encoded_then_it_is_what_plain_cbor2_writes(items: list[Any]) -> None:
    frame = framed(*items)
    assert frame == (len(frame) - 4).to_bytes(4, "big") + cbor2.dumps(items)


def test_given_longer_forms_of_numbers_when_decoded_then_they_are_accepted() -> None:
    body = bytes.fromhex("9b0000000000000003 1801 190001 5a0000000161")
    assert decoded(body) == [1, 1, b"a"]


@pytest.mark.parametrize("number", [2**64 - 1, -(2**64)])
def test_given_the_largest_integers_when_sent_then_they_come_back(number: int) -> None:
    assert fed_three_ways(framed(number)) == [number]


# -- large byte strings are passed on, not copied --------------------------------


def test_given_a_large_outermost_byte_string_when_decoded_then_it_is_a_view_of_the_frame() -> None:
    body = bytearray(cbor2.dumps([1, LONG, "between", LONG[:-1], LONG + b"x"]))
    number, first, text, small, last = decode(memoryview(body))
    assert (number, text, small) == (1, "between", LONG[:-1])
    assert isinstance(small, bytes)
    assert first == LONG
    assert last == LONG + b"x"
    for view in (first, last):
        assert isinstance(view, memoryview)
        assert view.obj is body


def test_given_a_large_byte_string_further_in_when_decoded_then_it_is_a_copy() -> None:
    [[inner]] = decoded(cbor2.dumps([[LONG]]))
    assert isinstance(inner, bytes)
    assert inner == LONG


def test_given_large_buffers_when_encoded_then_they_are_handed_on_themselves() -> None:
    columns = (LONG, bytearray(LONG), memoryview(LONG))
    buffers = encode_frame((1, *columns, 2))
    assert [any(buffer is column for buffer in buffers) for column in columns] == [True] * 3
    assert fed_three_ways(b"".join(buffers)) == [1, LONG, LONG, LONG, 2]


@deterministic
@given(st.lists(st.binary(max_size=40) | long_bytes, max_size=6))
def test_given_gathered_parts_when_encoded_then_they_travel_as_one_byte_string(parts: list[bytes]) -> None:
    buffers = encode_frame((0, Gathered(parts, sum(map(len, parts))), None))
    assert all(len(buffer) for buffer in buffers)
    assert fed_three_ways(b"".join(buffers)) == [0, b"".join(parts), None]


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
@pytest.mark.parametrize("size", [0, 1, 23, 24, 255, 256, CUT_BYTES_MIN - 1, CUT_BYTES_MIN, 65_535, 65_536])
def test_given_any_buffer_of_any_size_when_encoded_then_it_travels_as_a_byte_string(kind: Any, size: int) -> None:
    frame = framed(kind(bytes(size)), 1)
    assert frame[4:] == cbor2.dumps([bytes(size), 1])


@pytest.mark.parametrize("count", [0, 1, 23, 24, 255, 256, ITEMS_MAX - 1])
def test_given_any_number_of_items_when_encoded_then_the_head_is_the_shortest(count: int) -> None:
    assert framed(*[0] * count)[4:] == cbor2.dumps([0] * count)


# -- values outside frames -------------------------------------------------------


@deterministic
@given(allowed_arrays)
def test_given_a_value_when_encoded_and_decoded_then_it_comes_back(items: list[Any]) -> None:
    assert decode_value(encode_value(items)) == items


@deterministic
@given(nearly_cbor)
def test_given_any_bytes_when_decoded_as_a_value_then_a_value_or_a_protocol_error(data: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        decode_value(data)
