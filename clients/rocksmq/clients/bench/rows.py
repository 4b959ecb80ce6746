"""What a benchmark gives: rows of one figure a round. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median, quantiles

COLUMNS = ("name", "median", "lowest", "highest", "unit", "client CPU s/M", "broker CPU s/M")


@dataclass(slots=True)
class Row:
    """One figure, measured once a round. The CPU seconds are for a million messages; None when they are not known."""

    name: str
    unit: str
    values: list[float] = field(default_factory=list[float])
    client_cpu: list[float] = field(default_factory=list[float])
    broker_cpu: list[float] = field(default_factory=list[float])
    payload_bytes: int | None = None

    @property
    def median(self) -> float:
        """The middle of the rounds."""
        return median(self.values)

    def record(self) -> dict[str, object]:
        """For JSON: one flat object."""
        return {
            "name": self.name,
            "unit": self.unit,
            "median": round(self.median, 3),
            "lowest": round(min(self.values), 3),
            "highest": round(max(self.values), 3),
            "rounds": len(self.values),
            "payload_bytes": self.payload_bytes,
            "client_cpu_seconds_per_million": _median_or_none(self.client_cpu),
            "broker_cpu_seconds_per_million": _median_or_none(self.broker_cpu),
        }


def _median_or_none(values: Sequence[float]) -> float | None:
    return round(median(values), 3) if values else None


def ratio(name: str, value: float) -> Row:
    """A row of one quotient."""
    return Row(name, "ratio", [value])


def percentiles(seconds: Sequence[float]) -> tuple[float, float]:
    """The 50th and 99th, in microseconds."""
    cuts = quantiles(seconds, n=100, method="inclusive")
    return cuts[49] * 1e6, cuts[98] * 1e6


def cells(record: Mapping[str, object]) -> dict[str, str]:
    """A row's record as people see it, by COLUMNS."""
    names = ("median", "lowest", "highest", "client_cpu_seconds_per_million", "broker_cpu_seconds_per_million")
    shown = [_shown(record[name]) for name in names]
    return dict(zip(COLUMNS, [str(record["name"]), *shown[:3], str(record["unit"]), *shown[3:]], strict=True))


def _shown(value: object) -> str:
    if not isinstance(value, (int, float)):
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}"
