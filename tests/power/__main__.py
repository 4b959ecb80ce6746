"""Power cuts under load, with a disk on FUSE: `python -m tests.power [--cuts N] [--seed S] [--durability MODE] [--dir DIR]`.

A third of the cuts loses everything that was not synced, a third tears it, a third leaves any part of it. Ends with 1, and
keeps the logs, when anything that was acknowledged is missing, doubled or out of order. With ``--durability os`` something is
to be missing.
"""

import logging
import tempfile
from pathlib import Path

import click

from .cuts import CUTS_A_DISK, Report, loses, run
from .disk import Cut


@click.command()
@click.option("--cuts", type=click.IntRange(min=1), default=300, show_default=True, help="In all.")
@click.option("--seed", default="7660", show_default=True)
@click.option("--durability", default="fsync", show_default=True)
@click.option("--dir", "parent", type=click.Path(exists=True, file_okay=False), help="Where the run's directory is made.")
def main(cuts: int, seed: str, durability: str, parent: str | None) -> None:
    """Cut the power of a broker again and again."""
    logging.getLogger("rocksmq").setLevel(logging.CRITICAL)  # clients tell of each life that ended
    directory = Path(tempfile.mkdtemp(prefix="rocksmq-power-", dir=parent))
    for how in Cut:
        reports: list[Report] = []
        for number in range(-(-cuts // len(Cut) // CUTS_A_DISK)):
            place, name = directory / f"{how}-{number}", f"{seed}/{how}/{number}"
            if durability != "fsync":
                missing = loses(place, name, how, CUTS_A_DISK, durability, _silent)
                click.echo(f"{how}, {durability}: {missing.splitlines()[0] if missing else 'NOTHING WAS LOST'}")
                break
            try:
                reports.append(run(place, name, how, CUTS_A_DISK, durability, _silent))
            except BaseException:
                click.echo(f"FAILED, seed {name}; the logs are in {place}", err=True)
                raise
        if reports:
            click.echo(line(how, reports))


def line(how: Cut, reports: list[Report]) -> str:
    """Several runs, to be read."""
    cuts, acknowledged, messages, unsynced, seconds = map(sum, zip(*reports, strict=True))
    return (
        f"{how}: {cuts:,} power cuts in {seconds:.0f} s, {acknowledged:,} acknowledgements, {messages:,} messages, "
        f"{unsynced:,} changes that were not synced: 0 lost, 0 doubled, 0 reordered"
    )


def _silent(text: str) -> None:
    """Cuts are many."""


if __name__ == "__main__":
    main()
