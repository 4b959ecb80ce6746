"""`make crash`: many workers behind a bad link, and a broker that is killed in every cycle.

    python -m tests.crash [--cycles N] [--seed S] [--dir DIR] [--meta etcd]

Prints what every cycle did; at the end that nothing was lost, doubled or reordered, or what was. A seed
replays the same faults. With `--meta etcd` positions are in an etcd, which is killed and stopped too.
"""

import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import click

from .audit import Report
from .cycles import Cycle
from .harness import Harness


@click.command()
@click.option("--cycles", type=click.IntRange(min=0), default=200, show_default=True)
@click.option("--seed", default="7660", show_default=True)
@click.option("--dir", "parent", type=click.Path(exists=True, file_okay=False), help="Where the run's directory is made.")
@click.option("--meta", type=click.Choice(("embedded", "etcd")), default="embedded", help="Where positions are kept.")
def main(cycles: int, seed: str, parent: str | None, meta: str) -> None:
    """Kill a broker again and again under load, and check everything. The directory is kept when something is wrong."""
    directory = Path(tempfile.mkdtemp(prefix="rocksmq-crash-", dir=parent))
    click.echo(f"seed {seed}, {cycles} cycles, in {directory}")
    begin = time.monotonic()
    try:
        report = Harness(directory, seed, has_etcd=meta == "etcd").run(Cycle.of(seed, number) for number in range(cycles))
    except AssertionError as error:
        raise click.ClickException(f"FAILED, seed {seed}; books and data are kept in {directory}: {error}") from error
    click.echo(f"\nseed {seed}, {time.monotonic() - begin:.0f} s")
    for line in lines(report):
        click.echo(line)
    shutil.rmtree(directory)


def lines(report: Report) -> Iterator[str]:
    """The report, to be read."""
    kinds = Counter(text.split("@")[0] for text in report.struck)
    yield f"{report.cycles} cycles, {report.lives} lives of workers"
    yield f"{report.produced:,} messages stored: 0 lost, 0 doubled, 0 reordered"
    handed = ", ".join(f"{group} {count:,}" for group, count in report.handed_out.items())
    yield f"handed out to groups: {handed}; again to manual consumers, uncommitted: {report.handed_out_again:,}"
    yield f"{len(report.struck)} faults struck in the broker: " + ", ".join(f"{kind} {n}" for kind, n in kinds.most_common())
    yield "the link: " + ", ".join(f"{kind} {n:,}" for kind, n in sorted(report.link.items()))
    if report.etcd:
        yield "etcd: " + ", ".join(f"{kind} {n:,}" for kind, n in sorted(report.etcd.items()))
    yield f"{report.outages:,} outages healed by the client"
    yield f"outcome unknown to the client: {report.unknown:,} messages; refused: {report.refused:,}"
    yield "errors raised by the client: " + (", ".join(f"{text} ({n})" for text, n in report.errors.items()) or "none")


if __name__ == "__main__":
    main()
