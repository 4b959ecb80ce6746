"""What a bad link does to one connection: decided by a seed and by byte offsets alone, never by timing.

Pure: knows no sockets and no clocks. A `Plan` says how a connection ends; a `Course`, one for each direction, turns
the bytes that come into pieces with pauses between. However the bytes arrive, the same offsets are hit.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from random import Random
from typing import NamedTuple

PIECE_BYTES_MAX = 7  # of a stretch that is sent in small odd pieces


class Ending(StrEnum):
    """How a connection is ended by the link."""

    RST = "rst"  # reset both ways, right behind what has just been forwarded
    FIN = "fin"  # closed both ways, right behind what has just been forwarded
    HALF_CLOSE = "half-close"  # this direction is closed, the other goes on
    SWALLOW = "swallow"  # closed both ways; the end of what was sent never arrives


class Way(StrEnum):
    """A direction."""

    UP = "up"  # from client to broker
    DOWN = "down"


@dataclass(frozen=True)
class Intensity:
    """How bad the link is. Spaces are in bytes of one direction, spread evenly over orders of magnitude up to their maximum."""

    endings: tuple[Ending, ...] = tuple(Ending)  # one of them is taken
    ending_share: float = 0.9  # of the connections; the others live until somebody else ends them
    ending_bytes_max: int = 4_000_000
    delay_bytes_max: int = 2_000_000  # between two delays; 0: none
    delay_seconds_max: float = 0.05
    split_bytes_max: int = 1_000_000  # between two stretches that are sent in small odd pieces; 0: none
    split_length_max: int = 200  # of such a stretch


CALM = Intensity(ending_share=0, delay_bytes_max=0, split_bytes_max=0)


class Step(NamedTuple):
    """Wait, then send ``data``."""

    pause_seconds: float
    data: "memoryview[int]"
    is_split: bool  # it is one of the small pieces


class Course:
    """One direction of one connection."""

    def __init__(self, random: Random, intensity: Intensity) -> None:
        self.offset = 0  # of the bytes that came
        self._random = random
        self._pieces = Random(random.random())  # of its own: how many pieces there are depends on how the bytes arrive
        self._intensity = intensity
        self._delay_at = self._space(intensity.delay_bytes_max)
        self._split_at = self._space(intensity.split_bytes_max)
        self._split_until = 0.0

    def steps(self, data: "memoryview[int]") -> Iterator[Step]:
        """``data`` in pieces, in order."""
        begin = 0
        while begin < len(data):
            pause = self._pause()
            size = min(self._piece_bytes(), self._delay_at - self.offset, len(data) - begin)
            piece = data[begin : begin + int(size)]
            yield Step(pause, piece, self.offset < self._split_until)
            begin += len(piece)
            self.offset += len(piece)

    def _pause(self) -> float:
        if self.offset < self._delay_at:
            return 0.0
        self._delay_at = self.offset + self._space(self._intensity.delay_bytes_max)
        return self._random.random() * self._intensity.delay_seconds_max

    def _piece_bytes(self) -> float:
        """How many bytes may go at once, from the present offset on."""
        if self.offset >= self._split_at:
            self._split_until = self._split_at + self._random.randint(2, self._intensity.split_length_max)
            self._split_at = self._split_until + self._space(self._intensity.split_bytes_max)
        if self.offset < self._split_until:
            return min(self._pieces.randint(1, PIECE_BYTES_MAX), self._split_until - self.offset)
        return self._split_at - self.offset

    def _space(self, most: int) -> float:
        return spread(self._random, most) if most else float("inf")


class Plan(NamedTuple):
    """A connection's fate: it ends as ``ending`` once ``at`` bytes went ``way``; None: the link leaves it alone."""

    ending: Ending | None
    way: Way
    at: int

    @classmethod
    def of(cls, seed: object, index: int, intensity: Intensity) -> "Plan":
        """The plan of connection ``index``, counted from 0."""
        random = Random(f"{seed}/{index}")
        ends = random.random() < intensity.ending_share
        ending = random.choice(intensity.endings) if ends else None
        return cls(ending, random.choice(tuple(Way)), spread(random, intensity.ending_bytes_max))


def course_of(seed: object, index: int, way: Way, intensity: Intensity) -> Course:
    """The course of one direction of connection ``index``."""
    return Course(Random(f"{seed}/{index}/{way}"), intensity)


def spread(random: Random, most: int) -> int:
    """From 1 to ``most``, every order of magnitude as likely as another."""
    return max(1, round(math.exp(random.random() * math.log(most))))
