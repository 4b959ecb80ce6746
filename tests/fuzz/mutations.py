"""Inputs made from known ones by chance alone, thirty times faster than those that are guided; nothing to install for it."""

from collections.abc import Iterator, Sequence
from random import Random

INTERESTING = (
    0x00,
    0x01,
    0x17,
    0x18,
    0x1B,
    0x3B,
    0x40,
    0x5B,
    0x5F,
    0x78,
    0x7F,
    0x80,
    0x9B,
    0x9F,
    0xA1,
    0xBF,
    0xC2,
    0xF6,
    0xFB,
    0xFF,
)
"""Heads of CBOR at which something else begins, and the ends of a byte's range."""
CHANGES_MAX = 4
PIECE_BYTES_MAX = 32


def mutated(seeds: Sequence[bytes], count: int, random: Random) -> Iterator[bytes]:
    """``count`` inputs: one of ``seeds``, with a few changes."""
    for _ in range(count):
        data = bytearray(random.choice(seeds))
        for _ in range(random.randint(1, CHANGES_MAX)):
            _change(data, seeds, random)
        yield bytes(data)


def _change(data: bytearray, seeds: Sequence[bytes], random: Random) -> None:
    """A bit or a byte is another one, a piece is gone, twice there or of another input, or the end is missing."""
    place, kind = random.randrange(len(data) + 1), random.randrange(6)
    end = place + random.randint(1, PIECE_BYTES_MAX)
    if kind == 0 and place < len(data):
        data[place] ^= 1 << random.randrange(8)
    elif kind == 1 and place < len(data):
        data[place] = random.choice(INTERESTING)
    elif kind == 2:
        del data[place:end]
    elif kind == 3:
        data[place:place] = data[place:end]
    elif kind == 4:
        other = random.choice(seeds)
        begin = random.randrange(len(other) + 1)
        data[place:end] = other[begin : begin + PIECE_BYTES_MAX]
    else:
        del data[place:]
