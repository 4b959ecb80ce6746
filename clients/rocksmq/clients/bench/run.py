"""The rounds of a run: each round does every scenario and the floor once, so that all see the same machine.

`messages.MessagesBench`, `many.ManyBench` and `msgstream.MsgStreamBench` say what the scenarios are.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from . import floor
from .rows import Row, percentiles
from .usage import Usage, peak_memory_bytes

if TYPE_CHECKING:
    from rocksmq.clients.client import Client

FLOOR_COUNT = 1_000


@dataclass(frozen=True, slots=True)
class Options:
    """``messages`` None: each scenario's own number. ``url`` is for processes that read.

    ``channels``, ``connections``, ``seconds`` and ``rate``: how many there are, for how long it is watched, and how many
    messages a second are due, where the scenario is about that.
    """

    url: str | None
    scenarios: Sequence[str]
    messages: int | None
    rounds: int
    broker_pid: int | None
    floor_directory: Path
    channels: int = 1_000
    connections: int = 64
    seconds: float = 10.0
    rate: float = 1_000.0


class Bench(ABC):
    """One run of a suite; a context manager that leaves no channel behind."""

    def __init__(self, mq: "Client", options: Options, say: Callable[[str], None]) -> None:
        self._mq = mq
        self._options = options
        self._say = say
        self._rows: dict[str, Row] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.destroy_channels()

    @abstractmethod
    def measure(self, name: str) -> None:
        """The scenario of that name, once."""

    @abstractmethod
    def ratios(self) -> list[Row]:
        """What can be compared between machines."""

    @abstractmethod
    def destroy_channels(self) -> None:
        """All that it made."""

    def run(self) -> list[Row]:
        """All rounds; the rows in the order of the scenarios, then floor and ratios."""
        for number in range(1, self._options.rounds + 1):
            for name in self._options.scenarios:
                self._say(f"round {number} of {self._options.rounds}: {name}")
                self.measure(name)
            self._say(f"round {number} of {self._options.rounds}: floor")
            self._add_percentiles("floor round trip", floor.round_trips(FLOOR_COUNT))
            self._add_percentiles("floor fdatasync", floor.synced_appends(self._options.floor_directory, FLOOR_COUNT))
        if self._options.broker_pid is not None:
            self._add("broker peak memory", "MiB", peak_memory_bytes(self._options.broker_pid) / 2**20)
        return [*self._rows.values(), *self.ratios()]

    # -- rows ----------------------------------------------------------------------

    def _row(self, name: str, unit: str) -> Row:
        return self._rows.setdefault(name, Row(name, unit))

    def _add(self, name: str, unit: str, value: float) -> None:
        self._row(name, unit).values.append(value)

    def _add_rate(self, name: str, payload_bytes: int, count: int, usage: Usage) -> None:
        row = self._row(name, "messages/s")
        row.payload_bytes = payload_bytes
        row.values.append(count / usage.wall)
        self._add_cpu(row, usage, count)

    def _add_percentiles(self, name: str, seconds: Sequence[float]) -> None:
        for what, value in zip(("p50", "p99"), percentiles(seconds), strict=True):
            self._add(f"{name} {what}", "µs", value)

    def _add_cpu(self, row: Row, usage: Usage, count: int) -> None:
        row.client_cpu.append(usage.client_cpu / count * 1e6)
        if usage.broker_cpu is not None:
            row.broker_cpu.append(usage.broker_cpu / count * 1e6)
