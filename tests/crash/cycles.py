"""What happens in each cycle of the crash harness: decided by the seed and the cycle's number alone."""

from collections.abc import Sequence
from enum import StrEnum
from random import Random
from typing import NamedTuple

LIFE_SECONDS = (0.05, 1.5)  # from ready on to the kill
# How often a point is passed in a life, roughly: a fault strikes at one of so many times.
_OPERATIONS = {
    **{"produce": 60, "consume": 40, "fetch": 10},
    **{"commit": 4, "open-producer": 2, "release-consumer": 2, "describe-group": 3},
}
_REQUESTS = {f"{point}/{op}": n for point in ("on-request", "before-reply", "during-reply") for op, n in _OPERATIONS.items()}
_COMMITS = dict.fromkeys(("before-write", "after-write", "during-sync", "after-sync", "before-meta", "in-meta"), 80)
_OTHERS = {"before-mark": 5, "in-mark": 5, "after-mark": 5, "on-accept": 12, "on-hello": 8}
DEADLY = _REQUESTS | _COMMITS | _OTHERS | {"before-window": 1, "in-window": 1, "in-read": 10}
STARTING = ("before-open", "after-open", "in-recovery")
HARMLESS = {f"{point}=raise": n for point, n in (_REQUESTS | _OTHERS).items() if point != "after-mark"} | {
    "before-write=raise:disk-full": 80,
    "before-write=delay:30": 80,
    "during-sync=delay:60": 80,
    "before-reply/produce=delay:30": 60,
}


class Death(StrEnum):
    """How a life of the broker ends."""

    KILL = "kill -9"
    FAULT = "kill -9 at a fail point"  # or at the end of its time, when that is not reached
    TERMINATE = "SIGTERM"


class Event(NamedTuple):
    """In the midst of a cycle a worker is stopped, or killed when its role allows that, and started again."""

    worker: int  # modulo the number of workers
    is_kill: bool
    at: float  # share of the life


class Cycle(NamedTuple):
    """One life of the broker. ``start_fault``: before it, one that is killed in its start."""

    death: Death
    faults: Sequence[str]
    life_s: float
    start_fault: str | None = None
    cuts_power: bool = False  # behind each kill
    event: Event | None = None

    @classmethod
    def of(cls, seed: object, number: int) -> "Cycle":
        """The plan of cycle ``number``."""
        random = Random(f"{seed}/cycle/{number}")
        death = random.choices(tuple(Death), (6, 5, 1))[0]
        harmless = random.sample(sorted(HARMLESS), random.randint(0, 3))
        faults = [f"{fault}@{random.randint(1, HARMLESS[fault])}" for fault in harmless]
        if death is Death.FAULT:
            point = random.choice(sorted(DEADLY))
            faults.append(f"{point}=kill@{random.randint(1, DEADLY[point])}")
        return cls(
            death,
            faults,
            random.uniform(*LIFE_SECONDS),
            random.choice(STARTING) if random.random() < 0.1 else None,
            random.random() < 0.3,
            Event(random.randrange(1_000), random.random() < 0.5, random.random()) if random.random() < 0.7 else None,
        )
