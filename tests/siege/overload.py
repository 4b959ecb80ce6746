"""Three times of what the broker can take, by producers that wait for no answer.

Twice: by a few with batches of usual size, and by a crowd whose batches together are more than may wait to be written, some of
which may be refused as Overloaded before the broker knows who writes. What is acknowledged must not fall, memory must stay
within its limits, an honest client must get on, and all must be as before soon after.
"""

from pathlib import Path
from typing import NamedTuple

from rocksmq.broker.limits import Limits
from rocksmq.clients.testing import Broker

from .honest import PAUSE_SECONDS, Honest, Pair, Send, p99
from .load import END_SECONDS, Load
from .memory import IDLE_BYTES, STORE_BYTES_MAX, Watch
from .offered import CHANNEL, Answers, Crowd, produce
from .result import MIB, Check, Result

KEPT_BYTES = 256 * MIB
FEW = Crowd(8, 1_000, 100)
MANY = Crowd(96, 1_000, 1_000)
TIMES = 3
SENDS_A_SECOND = round(1 / PAUSE_SECONDS)
STEP = SENDS_A_SECOND // 10
SENDS_MIN = SENDS_A_SECOND // 4  # of a second in which all is as before; fewer say nothing of a percentile
KEPT_RATE_MIN = 0.8
P99_RATIO_MAX = 5.0
RECOVERY_SECONDS_MAX = 2.0
LIMITS = Limits()


class Scale(NamedTuple):
    """How large it is. ``queue_bytes_max`` that may wait to be written; ``many`` have more in their hands."""

    many: Crowd
    queue_bytes_max: int
    seconds: float
    after_s: float


FULL = Scale(MANY, LIMITS.produce_queue_bytes_max, 12.0, 8.0)
SHORT = Scale(MANY._replace(connections=24), 8 * MIB, 1.0, 1.5)


class Overload(NamedTuple):
    """What one crowd did. ``capacity``: messages a second, when each waits for its answers."""

    capacity: float
    answers: Answers
    pair: Pair
    recovery_s: float
    memory_bytes: int
    memory_bytes_max: int

    def checks(self, name: str) -> tuple[Check, ...]:
        kept = self.answers.rate / self.capacity
        return (
            Check(f"{name}: acknowledged / capacity", kept, KEPT_RATE_MIN, is_least=True, is_timing=True),
            Check(f"{name}: p99 beside / alone", self.pair.ratio, P99_RATIO_MAX, is_timing=True),
            Check(f"{name}: s until as before", self.recovery_s, RECOVERY_SECONDS_MAX, is_timing=True),
            Check(f"{name}: MiB held", self.memory_bytes / MIB, self.memory_bytes_max / MIB),
            Check(f"{name}: refused otherwise", self.answers.refused_otherwise, 0),
            Check(f"{name}: unanswered", self.answers.unanswered, 0),
        )

    def measured(self, name: str) -> dict[str, float]:
        pair = {f"{name}: {what}": value for what, value in self.pair.measured().items()}
        return {f"{name}: capacity msg/s": self.capacity, f"{name}: acknowledged msg/s": self.answers.rate, **pair}


def recovery_s(alone: list[float], after: list[Send], after_s: float) -> float:
    """When the first second began that was no worse than the worst hundred sends alone; ``after_s`` if none was."""
    usual = max(p99(alone[begin : begin + SENDS_A_SECOND]) for begin in range(0, max(1, len(alone) - SENDS_A_SECOND), STEP))
    for number, first in enumerate(after):
        second = [send.seconds for send in after[number:] if send.begin < first.begin + 1]
        if first.begin + 1 <= after_s and len(second) >= SENDS_MIN and p99(second) <= usual:
            return first.begin
    return after_s


def overloaded(broker: Broker, honest: Honest, crowd: Crowd, scale: Scale) -> Overload:
    """Alone, beside a few who wait for their answers, alone, beside the overload, after it."""
    alone = honest.seconds_of_sends(scale.seconds)
    usual = crowd._replace(connections=FEW.connections)
    with Load(produce, broker.address, usual, None) as load:
        honest.seconds_of_sends(scale.seconds)
        capacity = load.end().rate
    alone += honest.seconds_of_sends(scale.seconds)
    with Watch(broker.pid) as watch, Load(produce, broker.address, crowd, TIMES * capacity) as load:
        beside = honest.seconds_of_sends(scale.seconds)
        load.stop()
        after = honest.sends(scale.after_s)
        answers = load.told(END_SECONDS)
    most = max(memory.anon_bytes for _, memory in watch.samples)
    # What is stored and cached, what waits, what is unsent, and what each has in its receive buffer, which doubles as it grows.
    received = 2 * crowd.connections * crowd.batch_bytes
    allowed = IDLE_BYTES + STORE_BYTES_MAX + scale.queue_bytes_max + LIMITS.output_bytes_max + received
    return Overload(capacity, answers, Pair(alone, beside), recovery_s(alone, after, scale.after_s), most, allowed)


def run(place: Path, *, is_short: bool) -> Result:
    """The few, then the crowd."""
    scale = SHORT if is_short else FULL
    limits = {"ROCKSMQ_LIMITS_PRODUCE_QUEUE_BYTES_MAX": str(scale.queue_bytes_max)}
    with Broker(place / "data", environment=limits) as broker, Honest(broker) as honest:
        with broker.client() as mq:
            mq.create_channel(CHANNEL, retention={"max_bytes": KEPT_BYTES})
        few = overloaded(broker, honest, FEW, scale)
        many = overloaded(broker, honest, scale.many, scale)
        missing = honest.missing()
    return Result(
        "overload",
        {"times capacity": TIMES, "few": FEW.connections, "many": scale.many.connections, "seconds": scale.seconds},
        {
            **{f"few: {name}": value for name, value in few.answers._asdict().items() if name != "rate"},
            **{f"many: {name}": value for name, value in many.answers._asdict().items() if name != "rate"},
        },
        {**few.measured("few"), **many.measured("many")},
        (
            *few.checks("few"),
            *many.checks("many"),
            Check("messages missing", missing, 0),
        ),
    )
