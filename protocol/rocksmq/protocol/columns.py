"""Packed columns of 64-bit numbers (SPEC §3.33): u64 little-endian, one behind the other; those of u32 are in `batch`."""

import sys
from array import array
from collections.abc import Iterable

from .cbor import Buffer
from .errors import ProtocolError

NUMBER_BYTES = 8


def pack_numbers(numbers: Iterable[int]) -> bytes:
    """``numbers``, each below 2^64, as a column."""
    return _little_endian(array("Q", numbers)).tobytes()


def unpack_numbers(column: Buffer) -> "array[int]":
    """The numbers of a column. Raises ProtocolError for a length that is no multiple of 8."""
    if len(column) % NUMBER_BYTES:
        raise ProtocolError(f"a column of {len(column)} bytes is cut off: a number takes {NUMBER_BYTES}")
    numbers = array("Q")
    numbers.frombytes(column)
    return _little_endian(numbers)


def _little_endian(numbers: "array[int]") -> "array[int]":
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers
