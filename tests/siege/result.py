"""What one siege found: its numbers, and the bounds that they are held against. All of it can be JSON."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

MIB = 1 << 20
Number = int | float


class Check(NamedTuple):
    """One number and its bound. ``is_timing``: it depends on the machine, so that a test must not assert it."""

    what: str
    measured: float
    bound: float
    is_least: bool = False  # the bound is the least that is allowed, not the most
    is_timing: bool = False

    @property
    def is_met(self) -> bool:
        return self.measured >= self.bound if self.is_least else self.measured <= self.bound

    def __str__(self) -> str:
        sign = ">=" if self.is_least else "<="
        return f"{self.what} {self.measured:,.4g} ({'met' if self.is_met else 'MISSED'}: {sign} {self.bound:,.4g})"


class Result(NamedTuple):
    """Of one siege. ``parameters`` say how it was laid, ``counts`` what happened, ``measured`` what has no bound."""

    name: str
    parameters: Mapping[str, Number]
    counts: Mapping[str, int]
    measured: Mapping[str, float]
    checks: tuple[Check, ...]

    @property
    def is_met(self) -> bool:
        return all(check.is_met for check in self.checks)

    @property
    def missed_facts(self) -> list[str]:
        """Bounds that are missed whatever the machine is."""
        return [str(check) for check in self.checks if not check.is_timing and not check.is_met]

    def record(self) -> dict[str, object]:
        """As JSON takes it."""
        checks = [{**check._asdict(), "is_met": check.is_met} for check in self.checks]
        return {**self._asdict(), "checks": checks, "is_met": self.is_met}

    def __str__(self) -> str:
        numbers = {**self.parameters, **self.counts, **self.measured}
        told = ", ".join(f"{name} {value:{',d' if isinstance(value, int) else ',.4g'}}" for name, value in numbers.items())
        return f"{self.name}: {'met' if self.is_met else 'MISSED'}; {'; '.join(map(str, self.checks))}; {told}"


class Siege(Protocol):
    """Lays siege to a broker whose data are in a directory below ``place``."""

    def __call__(self, place: Path, *, is_short: bool) -> Result: ...
