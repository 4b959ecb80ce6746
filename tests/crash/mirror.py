"""A mirror under kills: broker, mirror and Pulsar are killed and stopped while producers write; then both sides are compared.

    python -m tests.crash.mirror [--messages N] [--faults N] [--back] [--no-deduplication] [--lite] [--seed S] [--dir DIR]

Prints each cycle of faults, and at the end one line of figures, or what was lost, doubled, moved or changed; then all that
there is of the run is kept. A seed replays the same plan. Needs Java and Maven; with `--lite` only pulsar-lite, not struck.
"""

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import click

from tests.helpers.pulsar import Pulsar, PulsarLite, fetch

from .mirror_mutants import MUTANTS
from .mirror_plan import Side, cycles_of
from .mirror_run import SETTINGS, WITHOUT_DEDUPLICATION, MirrorRun, faults_in, line
from .mirror_sides import REAL

NAIVE = ("-m", "tests.crash.mirror_naive")


@click.command()
@click.option("--messages", type=click.IntRange(min=4), default=200_000, show_default=True, help="In all, over 4 channels.")
@click.option("--faults", type=click.IntRange(min=0), default=30, show_default=True, help="As many kills and stops at least.")
@click.option("--only", type=click.Choice([side.value for side in Side]), multiple=True, help="Only these are struck.")
@click.option("--back", is_flag=True, help="From Pulsar to the broker.")
@click.option("--no-deduplication", is_flag=True, help="Of Pulsar: each message at least once, doubles are counted.")
@click.option("--lite", is_flag=True, help="With pulsar-lite, which has no deduplication.")
@click.option("--naive", type=click.Choice(("early", "late")), help="Another mirror, which the audit must find fault with.")
@click.option("--mutant", type=click.Choice(tuple(MUTANTS)), help="The mirror without one of its safeguards.")
@click.option("--seed", default="7660", show_default=True)
@click.option("--dir", "parent", type=click.Path(exists=True, file_okay=False), help="Where the run's directory is made.")
def main(
    messages: int,
    faults: int,
    only: Sequence[str],
    back: bool,
    no_deduplication: bool,
    lite: bool,
    naive: str | None,
    mutant: str | None,
    seed: str,
    parent: str | None,
) -> None:
    """Kill everything that takes part in a mirror, and compare both sides. The directory is kept on a failure."""
    directory = Path(tempfile.mkdtemp(prefix="rocksmq-mirror-", dir=parent))
    server: Pulsar | PulsarLite
    if lite:
        server = PulsarLite(directory / "pulsar-lite")
    else:
        fetch()
        server = Pulsar(directory / "pulsar", settings=(*SETTINGS, *(WITHOUT_DEDUPLICATION if no_deduplication else ())))
    program: Sequence[str] = REAL if naive is None else (*NAIVE, naive)
    if mutant is not None:
        program = ("-m", "tests.crash.mirror_mutants", mutant, *REAL[2:])
    run = MirrorRun(directory, seed, server, is_back=back, has_deduplication=not (lite or no_deduplication), mirror=program)
    struck = [side for side in run.sides if not only or side in only]
    # Some find their side away already.
    cycles = cycles_of(seed, faults + faults // 5, struck) if faults else []
    click.echo(f"seed {seed}, {messages:,} messages, {faults_in(cycles)} faults planned, in {directory}")
    try:
        report = run.run(messages, cycles)
    except AssertionError as error:
        raise click.ClickException(f"FAILED, seed {seed}; all is kept in {directory}: {error}") from error
    direction = "Pulsar to RocksMQ" if back else "RocksMQ to Pulsar"
    click.echo(f"seed {seed}, {direction}{', no deduplication' if lite or no_deduplication else ''}: {line(report)}")
    shutil.rmtree(directory)
    if (found := sum(report.struck.values())) < faults:
        raise click.ClickException(f"only {found} of {faults} faults struck")


if __name__ == "__main__":
    main()
