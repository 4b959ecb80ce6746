"""Many executions of each target: `python -m tests.fuzz [--runs N] [--guided N] [--workers N] [--keep] [TARGET ...]`.

First those that are guided by what of the code an input reaches (Atheris: pip install atheris), then those by chance, from what
was reached. Prints what each came to; with a finding it ends with 1 and names what holds the input. With ``--keep`` inputs that
reach more than the corpus did are added to it.
"""

import os
import tempfile
import time
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path
from random import Random

import click

from .guided import Fuzzed, fuzz
from .mutations import mutated
from .seeds import seeds_of
from .targets import TARGETS

SHARES = {"http": 0.003, "hello": 0.3, "frames": 0.3}  # of the runs, where one takes longer than elsewhere
PARTS = 8  # of the work by chance on a target, so that all workers have some to the end


def by_chance(target: str, runs: int, seed: str, corpus: Path | None = None) -> Fuzzed:
    """``runs`` executions with the seeds of the target, and the files of ``corpus``, as their beginning."""
    begin, execute = time.monotonic(), TARGETS[target]
    seeds = seeds_of(target) + ([] if corpus is None else [file.read_bytes() for file in sorted(corpus.iterdir())])
    for number, data in enumerate(mutated(seeds, runs, Random(seed))):
        try:
            execute(data)
        except Exception as error:
            return Fuzzed(target, number + 1, 0, time.monotonic() - begin, f"{type(error).__name__}: {error}: {data.hex()}")
    return Fuzzed(target, runs, 0, time.monotonic() - begin, None)


@click.command()
@click.argument("targets", nargs=-1, type=click.Choice(list(TARGETS)))
@click.option("--runs", type=click.IntRange(min=1), default=100_000_000, show_default=True, help="By chance, in all.")
@click.option("--guided", type=click.IntRange(min=0), default=2_000_000, show_default=True, help="Before these, in all.")
@click.option("--workers", type=click.IntRange(min=1), default=os.cpu_count() or 1, show_default=True)
@click.option("--seed", type=click.IntRange(min=1), default=7660, show_default=True)
@click.option("--keep", is_flag=True, help="Add to the corpus.")
def main(targets: tuple[str, ...], runs: int, guided: int, workers: int, seed: int, keep: bool) -> None:
    """Look for bytes that break what is promised of them."""
    chosen = targets or tuple(TARGETS)
    directory = Path(tempfile.mkdtemp(prefix="rocksmq-fuzz-"))
    found: list[Fuzzed] = []
    with ProcessPoolExecutor(workers) as pool:
        if guided:
            counts = _counts(chosen, guided)
            found += _told("guided", [pool.submit(fuzz, one, counts[one], seed, directory, keeps=keep) for one in chosen])
        waiting: list[Future[Fuzzed]] = []
        for one, count in _counts(chosen, runs).items():
            corpus = directory / one if guided else None
            waiting += [pool.submit(by_chance, one, -(-count // PARTS), f"{seed}/{n}", corpus) for n in range(PARTS)]
        found += _told("by chance", waiting)
    total, findings = sum(one.executions for one in found), sum(one.finding is not None for one in found)
    click.echo(f"{total:,} executions, seed {seed}: {findings or 'no'} findings")
    if findings:
        raise SystemExit(1)


def _counts(chosen: tuple[str, ...], runs: int) -> dict[str, int]:
    whole = sum(SHARES.get(target, 1.0) for target in chosen)
    return {target: max(1, round(runs * SHARES.get(target, 1.0) / whole)) for target in chosen}


def _told(how: str, waiting: list[Future[Fuzzed]]) -> list[Fuzzed]:
    """Each target's, as a line; whatever was found, as many."""
    found = [future.result() for future in waiting]
    for target in dict.fromkeys(one.target for one in found):
        parts = [one for one in found if one.target == target]
        executions, seconds = sum(one.executions for one in parts), sum(one.seconds for one in parts)
        edges = f", {parts[0].covered} edges" if parts[0].covered else ""
        click.echo(f"{target:8} {how:9} {executions:>12,} executions in {seconds:6.0f} s{edges}")
        for one in parts:
            if one.finding is not None:
                click.echo(f"FOUND: {one.finding}")
    return found


if __name__ == "__main__":
    main()
