"""What is struck when in a run of `mirror`, drawn from a seed alone: pure.

A run is a row of cycles. In each the load flows, and after a while one side, a pair or all of them are struck, each at a
moment of its own; some are struck again in their start.
"""

from collections.abc import Iterator, Sequence
from enum import StrEnum
from random import Random
from typing import NamedTuple

LIFE_SECONDS, SETTLED_LIFE_SECONDS = (0.0, 2.0), (0.3, 5.0)
SPREAD_SECONDS = 0.5  # between the first and the last blow of a cycle, at most
AWAY_SECONDS = ((0.0, 0.3), (0.0, 0.3), (0.3, 3.0))
STOP_SECONDS = ((0.2, 3.0), (0.2, 3.0), (0.2, 3.0), (11.0, 15.0))  # the last: longer than calls wait
AGAIN_SECONDS = ((0.0, 0.5), (0.5, 1.5), (1.5, 5.0))  # after the start: still importing, connecting, resuming
PULSAR_AGAIN_SECONDS = ((1.5, 4.0), (4.0, 9.0))  # its process is there after 1 s, and serves after 5
SETTLED_SHARE, FLOOD_SHARE, AGAIN_SHARE = 0.6, 0.5, 0.3
SECOND_SHARE, THIRD_SHARE = 0.4, 0.3
LATE_SHARE = 0.15  # of cycles: what a mirror had on its way when it was killed is stored while the next one begins
LATE_SECONDS = (0.5, 4.0)
STOP_SHARE, TWIN_SHARE = 0.15, 0.15


class Side(StrEnum):
    """Who is struck."""

    BROKER = "broker"
    MIRROR = "mirror"
    PULSAR = "Pulsar"


class Kind(StrEnum):
    """With what."""

    KILL = "kill"  # -9, and started again
    STOP = "stop"  # SIGSTOP, then SIGCONT
    TWIN = "twin"  # another mirror is started beside one that is stopped and goes on later


class Blow(NamedTuple):
    """One of them. ``away_s``: until it is started again, or goes on; ``again_s``: killed once more so soon after that."""

    side: Side
    kind: Kind
    after_s: float
    away_s: float
    again_s: float | None

    def __str__(self) -> str:
        again = "" if self.again_s is None else f", again after {self.again_s:.2f} s"
        return f"{self.side} {self.kind} at +{self.after_s:.2f} s, away {self.away_s:.2f} s{again}"

    @property
    def fault_count(self) -> int:
        """How often it strikes."""
        return 1 if self.again_s is None else 2


class Cycle(NamedTuple):
    """``is_settled``: all sides are up before ``life_s`` begins. ``is_flood``: its load is there at its begin."""

    is_settled: bool
    is_flood: bool
    life_s: float
    blows: Sequence[Blow]

    def __str__(self) -> str:
        begin, load = "settled" if self.is_settled else "at once", "flood" if self.is_flood else "flow"
        return f"{begin}, {load}, {self.life_s:.2f} s: {'; '.join(map(str, self.blows))}"


def cycles_of(seed: object, fault_count: int, sides: Sequence[Side] = tuple(Side)) -> list[Cycle]:
    """As many cycles as have ``fault_count`` faults, spread evenly over ``sides``."""
    random = Random(f"{seed}/plan")
    deck = _deck(random, sides)
    found: list[Cycle] = []
    planned = 0
    while planned < fault_count:
        cycle = _cycle(random, deck, len(sides))
        found.append(cycle)
        planned += sum(blow.fault_count for blow in cycle.blows)
    return found


def _deck(random: Random, sides: Sequence[Side]) -> Iterator[Side]:
    while True:
        yield from random.sample(sides, len(sides))


def _cycle(random: Random, deck: Iterator[Side], side_count: int) -> Cycle:
    is_settled = random.random() < SETTLED_SHARE
    if side_count == len(Side) and random.random() < LATE_SHARE:
        stop = Blow(Side.PULSAR, Kind.STOP, 0.0, random.uniform(*LATE_SECONDS), None)
        kill = Blow(Side.MIRROR, Kind.KILL, random.uniform(0.05, SPREAD_SECONDS), 0.0, None)
        return Cycle(True, True, random.uniform(0.0, 1.0), [stop, kill])
    count = 1
    if side_count > 1 and random.random() < SECOND_SHARE:
        count = min(side_count, 2 + (random.random() < THIRD_SHARE))
    struck = list(dict.fromkeys(next(deck) for _ in range(count)))
    return Cycle(
        is_settled,
        random.random() < FLOOD_SHARE,
        random.uniform(*(SETTLED_LIFE_SECONDS if is_settled else LIFE_SECONDS)),
        [_blow(random, side, 0.0 if number == 0 else random.uniform(0, SPREAD_SECONDS)) for number, side in enumerate(struck)],
    )


def _blow(random: Random, side: Side, after_s: float) -> Blow:
    drawn = random.random()
    if drawn < STOP_SHARE:
        return Blow(side, Kind.STOP, after_s, random.uniform(*random.choice(STOP_SECONDS)), None)
    if side is Side.MIRROR and drawn < STOP_SHARE + TWIN_SHARE:
        return Blow(side, Kind.TWIN, after_s, random.uniform(*random.choice(STOP_SECONDS)), None)
    again = PULSAR_AGAIN_SECONDS if side is Side.PULSAR else AGAIN_SECONDS
    again_s = random.uniform(*random.choice(again)) if random.random() < AGAIN_SHARE else None
    return Blow(side, Kind.KILL, after_s, random.uniform(*random.choice(AWAY_SECONDS)), again_s)
