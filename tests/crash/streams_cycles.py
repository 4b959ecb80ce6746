"""What happens in each cycle of `streams`: decided by the seed and the cycle's number alone."""

from collections.abc import Sequence
from enum import StrEnum
from random import Random
from typing import NamedTuple

LIFE_SECONDS = (0.2, 2.0)
HANG_SECONDS = 1.5  # of whoever has a twin, at the most; often not at all
AWAY_SECONDS = 1.0  # that whoever was killed stays away, at the most; often not at all
# How often a point is passed in a cycle, roughly: a fault strikes at one of so many times.
_OPERATIONS = {"produce": 40, "fetch-many": 30, "commit-many": 10, "seek-many": 1, "subscribe": 1}
_REQUESTS = {f"{point}/{op}": n for point in ("on-request", "before-reply", "during-reply") for op, n in _OPERATIONS.items()}
_COMMITS = {"before-write": 40, "after-write": 40, "during-sync": 40, "after-sync": 40, "before-meta": 10, "in-meta": 10}
DEADLY = _REQUESTS | _COMMITS | {"in-mark": 3, "on-hello": 5, "in-read": 2}
_STALLS = {f"{point}=delay:500": n for point, n in _REQUESTS.items()}  # of the whole broker, longer than some calls may take
_RAISES = {f"{point}=raise": n for point, n in _REQUESTS.items()}
_DISK = {"before-write=raise:disk-full": 40, "before-meta=raise:disk-full": 10, "during-sync=delay:60": 40}
HARMLESS = _RAISES | _STALLS | _DISK | {"before-reply/produce=delay:30": 40}


class Death(StrEnum):
    """How the broker's life ends with the cycle."""

    NONE = "the broker lives on"
    KILL = "kill -9"
    FAULT = "kill -9 at a fail point"  # or at the cycle's end, when that is not reached
    TERMINATE = "SIGTERM"


class Blow(StrEnum):
    """What happens to a process."""

    KILL = "kill"
    STOP = "stop"  # as it ends by itself
    TWIN = "twin"  # of those by subscription: another one begins beside it, which hangs for a while


class Event(NamedTuple):
    """In the midst of a cycle."""

    at: float  # share of the cycle
    member: int  # modulo their number
    blow: Blow


class Cycle(NamedTuple):
    """``together``: members that are killed with the broker, or at the cycle's end."""

    life_s: float
    death: Death
    faults: Sequence[str]
    away_s: float
    events: Sequence[Event]
    together: Sequence[int]

    @classmethod
    def of(cls, seed: object, number: int) -> "Cycle":
        """The plan of cycle ``number``."""
        random = Random(f"{seed}/streams/{number}")
        death = random.choices(tuple(Death), (4, 5, 4, 2))[0]
        faults = [
            f"{fault}@{random.randint(1, HARMLESS[fault])}" for fault in random.sample(sorted(HARMLESS), random.randint(0, 2))
        ]
        if death is Death.FAULT:
            point = random.choice(sorted(DEADLY))
            faults.append(f"{point}=kill@{random.randint(1, DEADLY[point])}")
        blows = random.choices(tuple(Blow), (6, 2, 3), k=random.choice((0, 1, 1, 2, 3)))
        events = sorted(Event(random.random(), random.randrange(1_000), blow) for blow in blows)
        together = [random.randrange(1_000) for _ in range(random.choice((0, 0, 1, 3)) or (death is Death.NONE))]
        away_s = random.choice((0.0, random.random() * AWAY_SECONDS))
        return cls(random.uniform(*LIFE_SECONDS), death, faults, away_s, events, together)
