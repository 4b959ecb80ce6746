"""Packed columns of numbers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rocksmq.protocol.columns import pack_numbers, unpack_numbers
from rocksmq.protocol.errors import ProtocolError
from tests.protocol.strategies import deterministic, u64s


@deterministic
@given(st.lists(u64s))
def test_given_numbers_when_packed_then_each_is_8_bytes_the_least_significant_first_and_they_come_back(
    numbers: list[int],
) -> None:
    column = pack_numbers(numbers)
    assert column == b"".join(number.to_bytes(8, "little") for number in numbers)
    for held in (column, bytearray(column), memoryview(column)):
        assert list(unpack_numbers(held)) == numbers


@pytest.mark.parametrize("size", [1, 7, 9])
def test_given_a_column_that_is_cut_off_when_unpacked_then_it_is_refused(size: int) -> None:
    with pytest.raises(ProtocolError, match=f"a column of {size} bytes is cut off"):
        unpack_numbers(bytes(size))


@pytest.mark.parametrize("number", [-1, 1 << 64])
def test_given_a_number_beyond_64_bits_when_packed_then_it_is_refused(number: int) -> None:
    with pytest.raises(OverflowError):
        pack_numbers([number])
