"""Message streams under kills: writers, a ticker and readers, each a process, and a broker that is killed again and again.

    python -m tests.crash.streams [--cycles N] [--seed S] [--dir DIR] [--meta etcd]

Prints what every cycle did, and at the end one line of figures, or what was lost, doubled or wrong; then all that was written
down is kept. A seed replays the same plan. With `--meta etcd` positions are in an etcd, which is killed and stopped too.
"""

import shutil
import tempfile
import time
from collections import Counter
from pathlib import Path

import click

from .streams_cycles import Cycle
from .streams_run import Report, StreamsRun

ETCD_CHANNELS = 4


@click.command()
@click.option("--cycles", type=click.IntRange(min=0), default=50, show_default=True)
@click.option("--seed", default="7660", show_default=True)
@click.option("--dir", "parent", type=click.Path(exists=True, file_okay=False), help="Where the run's directory is made.")
@click.option("--meta", type=click.Choice(("embedded", "etcd")), default="embedded", help="Where positions are kept.")
def main(cycles: int, seed: str, parent: str | None, meta: str) -> None:
    """Kill everything that takes part in message streams, and check all that was read. The directory is kept on a failure."""
    directory = Path(tempfile.mkdtemp(prefix="rocksmq-streams-", dir=parent))
    click.echo(f"seed {seed}, {cycles} cycles, in {directory}")
    begin = time.monotonic()
    has_etcd = meta == "etcd"
    try:
        run = (
            StreamsRun(directory, seed, channel_count=ETCD_CHANNELS, has_etcd=True) if has_etcd else StreamsRun(directory, seed)
        )
        report = run.run(Cycle.of(seed, number) for number in range(cycles))
    except AssertionError as error:
        raise click.ClickException(f"FAILED, seed {seed}; all is kept in {directory}: {error}") from error
    click.echo(f"seed {seed}, {meta}, {time.monotonic() - begin:.0f} s: {line(report)}")
    shutil.rmtree(directory)


def line(report: Report) -> str:
    """The report, to be read."""
    figures = report.figures
    return "; ".join(
        (
            f"{report.cycles} cycles",
            f"kills: {_listed(report.kills)}",
            f"{len(report.struck)} faults",
            f"{figures.messages:,} messages and {figures.ticks:,} ticks",
            f"{figures.unknown} parts of unknown outcome, {figures.unknown_stored} of them stored",
            f"{figures.packs:,} packs, {figures.late:,} late",
            f"{figures.repeated} packs repeated in {figures.lives} lives, {report.fenced} fenced off",
            f"errors retried: {_listed(report.errors)}",
            "lost 0, doubled 0",
        )
    )


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{kind} {number}" for kind, number in sorted(counts.items())) or "none"


if __name__ == "__main__":
    main()
