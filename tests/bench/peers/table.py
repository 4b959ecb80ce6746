"""The table of a run of `python -m tests.bench.peers`, for people.

    python -m tests.bench.peers.table [FILE] [--write README.md]

Medians of the rounds; in brackets the lowest and the highest where they differ by a tenth and more. ``--write`` puts it
between the two lines of that document that name `make bench-peers`.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import click

Record = Mapping[str, Any]
RESULTS = Path(__file__).with_name("results.jsonl")
BEGIN = "<!-- made by `make bench-peers` -->\n"
END = "<!-- end of what is made by `make bench-peers` -->\n"
RATES = {
    "produce-100B": "produce 100 B",
    "send-100B": "send in a loop",
    "produce-1KiB": "produce 1 KiB",
    "consume-100B": "consume 100 B",
    "consume-1KiB": "consume 1 KiB",
    "channels-100B": "1,000 channels",
}
LATENCIES = {"one-at-a-time": "one at a time", "end-to-end": "end to end"}


def table(records: Sequence[Record]) -> str:
    """Markdown: rates in thousands of messages a second, latencies in microseconds, CPU seconds of a million messages."""
    found: dict[tuple[str, str], dict[str, list[Record]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        if "error" not in record:
            found[record["peer"], record["means"]][record["workload"]].append(record)
    heads = ["", "an ack means", *RATES.values(), *LATENCIES.values(), "CPU s"]
    lines = [_row(heads), _row(["---"] * len(heads))]
    for (peer, means), workloads in found.items():
        cells = [_spread([each["rate"] / 1e3 for each in workloads[name]]) for name in RATES]
        cells += [_percentiles(workloads[name]) for name in LATENCIES]
        produced = workloads["produce-100B"]
        cells.append(" + ".join(_middle([each[side] for each in produced]) for side in ("server_cpu", "client_cpu")))
        lines.append(_row([peer, means, *cells]))
    rounds = max(record["round"] for record in records)
    machine = f"{records[-1]['machine']}, {records[-1]['date']}"
    versions = ", ".join(dict.fromkeys(part for record in records for part in record["versions"].split(", ")))
    return "\n".join(
        [
            "Thousands of messages a second, all confirmed or acknowledged; microseconds p50 / p99; CPU seconds of server +"
            f" client for a million messages produced. Medians of {rounds} interleaved rounds (lowest .. highest): {machine}.",
            "",
            *lines,
            "",
            f"{versions}.",
            "",
        ]
    )


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _middle(values: Sequence[float]) -> str:
    return _number(median(values)) if values else "-"


def _spread(values: Sequence[float]) -> str:
    if not values:
        return "-"
    spread = f" ({_number(min(values))} .. {_number(max(values))})" if max(values) >= 1.1 * min(values) else ""
    return _middle(values) + spread


def _percentiles(records: Sequence[Record]) -> str:
    return " / ".join(_middle([each[name] for each in records]) for name in ("p50", "p99")) if records else "-"


def read(path: Path) -> list[Record]:
    """The records of a run."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def put(text: str, made: str) -> str:
    """``text`` with ``made`` between its two lines."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    assert begin, "the document has the line that begins it"
    assert end, "and the line that ends it"
    return f"{before}{begin}\n{made}\n{end}{after}"


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path), default=RESULTS)
@click.option("--write", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def main(file: Path, write: Path | None) -> None:
    """The table of FILE."""
    made = table(read(file))
    if write is None:
        click.echo(made, nl=False)
    else:
        write.write_text(put(write.read_text(), made))


if __name__ == "__main__":
    main()
