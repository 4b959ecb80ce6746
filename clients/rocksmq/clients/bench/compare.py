"""Two runs of a benchmark beside each other. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

Record = Mapping[str, Any]

COMPARED = ("name", "before", "after", "unit", "after / before", "")
_MORE_IS_BETTER = {"messages/s": True, "µs": False, "MiB": False}  # of other units one cannot say


def compared(before: Sequence[Record], after: Sequence[Record]) -> list[dict[str, str]]:
    """By COMPARED, what both have: the medians, their quotient, and whether it is more than the spread of the rounds."""
    earlier = {record["name"]: record for record in before}
    return [_row(earlier[record["name"]], record) for record in after if record["name"] in earlier]


def _row(before: Record, after: Record) -> dict[str, str]:
    quotient = after["median"] / before["median"] if before["median"] else float("nan")
    cells = (
        after["name"],
        _shown(before["median"]),
        _shown(after["median"]),
        after["unit"],
        f"{quotient:.2f}",
        _verdict(before, after),
    )
    return dict(zip(COMPARED, cells, strict=True))


def _verdict(before: Record, after: Record) -> str:
    if after["lowest"] <= before["highest"] and before["lowest"] <= after["highest"]:
        return "within the spread"
    if after["unit"] not in _MORE_IS_BETTER:
        return "different"
    return "better" if (after["median"] > before["median"]) is _MORE_IS_BETTER[after["unit"]] else "worse"


def _shown(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}"
