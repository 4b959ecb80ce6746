"""The table in `metrics/metrics.md`, made from the catalogue: `python -m tests.helpers.metrics_table` writes it anew."""

import re
from pathlib import Path

from rocksmq.metrics.catalogue import CATALOGUE, Metric

DOCUMENT = Path(__file__).parents[2] / "metrics" / "metrics.md"
HEAD = "| name | type | labels | unit | what it is |\n|---|---|---|---|---|\n"
UNIT = re.compile(r"_(bytes_per_second|seconds|bytes|messages|commits)(?:_total)?$")
TABLE = re.compile(re.escape(HEAD) + r"(\|.*\n)*")


def table() -> str:
    """All of the catalogue, in its order."""
    return HEAD + "".join(map(_row, CATALOGUE))


def _row(metric: Metric) -> str:
    labels = ", ".join(f"`{label}`" for label in metric.labels)
    unit = UNIT.search(metric.name)
    named = unit[1].replace("_per_", " a ") if unit else ""
    return f"| `{metric.name}` | {metric.kind} | {labels} | {named} | {metric.help} |\n"


if __name__ == "__main__":
    DOCUMENT.write_text(TABLE.sub(lambda _: table(), DOCUMENT.read_text()))
