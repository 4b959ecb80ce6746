"""The dashboard as tests see it: its panels, their queries with the variables filled in, and how its file is written.

`python -m tests.helpers.dashboard FILE` prints an export of Grafana in the form in which it is kept.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, cast

DASHBOARD = Path(__file__).parents[2] / "metrics" / "dashboards" / "rocksmq.json"
LINE_CHARACTERS = 120
_ALL = ".*"


class Query(NamedTuple):
    """One target of a panel."""

    expression: str
    legend: str


class Panel(NamedTuple):
    """One panel, a row's title too; ``raw`` is all of it."""

    id: int
    kind: str
    title: str
    description: str
    unit: str
    x: int
    y: int
    width: int
    height: int
    queries: tuple[Query, ...]
    raw: dict[str, Any]

    @property
    def is_row(self) -> bool:
        return self.kind == "row"


def load() -> dict[str, Any]:
    """The file."""
    found: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return found


def panels() -> Iterator[Panel]:
    """All of them, from the top on."""
    for raw in load()["panels"]:
        place = raw["gridPos"]
        yield Panel(
            id=raw["id"],
            kind=raw["type"],
            title=raw["title"],
            description=raw.get("description", ""),
            unit=raw.get("fieldConfig", {}).get("defaults", {}).get("unit", ""),
            x=place["x"],
            y=place["y"],
            width=place["w"],
            height=place["h"],
            queries=tuple(Query(target["expr"], target["legendFormat"]) for target in raw.get("targets", ())),
            raw=raw,
        )


def filled(expression: str, window: str) -> str:
    """A query as Grafana sends it, with all jobs, instances, channels and groups, and rates over ``window``."""
    for name in ("job", "instance", "channel", "group"):
        expression = expression.replace(f"${name}", _ALL)
    return expression.replace("$__rate_interval", window)


def tidy(value: object, indent: int = 0) -> str:
    """JSON with what is short on one line, so that a person can read and change it."""
    flat = json.dumps(value, ensure_ascii=False)
    if indent and len(flat) + indent <= LINE_CHARACTERS:
        return flat
    if isinstance(value, dict):
        members = cast(dict[str, object], value)
        entries = [f"{json.dumps(key)}: {tidy(member, indent + 2)}" for key, member in members.items()]
    elif isinstance(value, list):
        entries = [tidy(entry, indent + 2) for entry in cast(list[object], value)]
    else:
        return flat
    inner = ",\n".join(" " * (indent + 2) + entry for entry in entries)
    return f"{flat[0]}\n{inner}\n{' ' * indent}{flat[-1]}"


if __name__ == "__main__":
    sys.stdout.write(tidy(json.loads(Path(sys.argv[1]).read_text())) + "\n")
