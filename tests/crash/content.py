"""The messages of the crash harness: each says whose it is, and all else in it follows from that.

A label is one number: 24 bits of the producer, 40 of the message, counted from 0. So an audit needs no copy of what was
sent: whoever reads a message can tell whether it is whole.
"""

from collections.abc import Iterable
from random import Random
from struct import Struct

LABEL = Struct(">Q")
NUMBER_BITS = 40
LARGE_EVERY = 4_001  # a message of this many is large: it spans several reads and pieces of the link
LARGE_BYTES = 30_000
SMALL_BYTES_MAX = 60
_FILLER = Random("filler").randbytes(LARGE_BYTES + 256)


def label_of(producer: int, number: int) -> int:
    """The label of the producer's message ``number``."""
    return producer << NUMBER_BITS | number


def producer_of(label: int) -> int:
    """Whose message it is."""
    return label >> NUMBER_BITS


def number_of(label: int) -> int:
    """Which of its producer's messages it is."""
    return label & ((1 << NUMBER_BITS) - 1)


def payload_of(label: int) -> bytes:
    """The payload of the message with that label."""
    size = LARGE_BYTES if label % LARGE_EVERY == 0 else label % SMALL_BYTES_MAX
    begin = label % 251
    return LABEL.pack(label) + _FILLER[begin : begin + size]


def headers_of(label: int) -> dict[str, bytes]:
    """The headers of the message with that label, when its producer gives headers to its messages."""
    return {"number": str(number_of(label)).encode(), "filler": _FILLER[: label % 40]}


def labels_in(payloads: Iterable[bytes]) -> list[int]:
    """The labels of messages that were read. Raises AssertionError when one is damaged."""
    labels: list[int] = []
    for payload in payloads:
        (label,) = LABEL.unpack_from(payload)
        assert payload == payload_of(label), f"{describe(label)} is damaged"
        labels.append(label)
    return labels


def describe(label: int) -> str:
    """For the messages of failed checks."""
    return f"message {number_of(label)} of producer {producer_of(label)}"
