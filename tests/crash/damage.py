"""Damage to each file of a data directory: does a start refuse it, does `check` say so, or is everything there all the same?

    python -m tests.crash.damage [--step BITS] [--only TEXT] [--workers N] [--dir DIR] [--verbose]

Two directories, one of a broker that ended in order and one of a kill -9 (damage_base.py). Of each file every BITS-th bit is
flipped, its end is cut off in several places, and it is taken away; each time a copy is checked, a broker is started on
it, and all that it serves is compared with what was stored. Prints a table. Fails when something is lost, or other than it
was stored, and neither said so; and when a start is refused by what `check` finds in order.
"""

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple

import click

from .damage_base import Base, bases
from .damage_cases import CUT, FLIP, MISSING, Case, cases, kind_of
from .damage_worker import Outcome

DAMAGES = {FLIP: "bits flipped", CUT: "cut short", MISSING: "missing"}
REFUSED, STOPPED, TOLD, HARMLESS = "start refused", "broker stops", "only check says", "harmless"
LATER, CRASHED, LOST = "only a read fails", "crashed", "SILENT LOSS"
VERDICTS = (REFUSED, STOPPED, TOLD, HARMLESS, LATER, CRASHED, LOST)


class Result(NamedTuple):
    """``outcome``: None when the process crashed."""

    case: Case
    outcome: Outcome | None

    @property
    def verdict(self) -> str:
        """Who said so, if anything is wrong."""
        outcome = self.outcome
        if outcome is None:
            return CRASHED
        if outcome.differs and not outcome.check:
            return LOST
        if outcome.refusal is not None:
            return REFUSED
        if outcome.failure is not None:
            return STOPPED
        if outcome.check:
            return TOLD
        return LATER if outcome.fails else HARMLESS

    @property
    def wrong(self) -> str | None:
        """What must not be."""
        outcome = self.outcome
        if outcome is None:
            return "the process crashed"
        if self.verdict == LOST:
            return f"lost without a word: {', '.join(outcome.differs)}"
        if outcome.differs:
            return f"check says so, but a broker serves less without an error: {', '.join(outcome.differs)}"
        if outcome.refusal is not None and not outcome.check:
            return f"a start is refused, and check finds nothing: {outcome.refusal}"
        if outcome.failure is not None and not outcome.check:
            return f"the broker stops, and check finds nothing: {outcome.failure}"
        if self.verdict == LATER:
            return f"neither a start nor check says that reading fails: {outcome.fails[0]}"
        return None


class _Worker:
    """A process of `damage_worker`; a new one when it has crashed."""

    def __init__(self, found: list[Base]) -> None:
        self._bases = found
        self._start()

    def _start(self) -> None:
        command = [sys.executable, "-m", "tests.crash.damage_worker"]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        for base in self._bases:
            self._say({"base": base.name, "path": str(base.path), "content": base.content})

    def _say(self, request: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()

    def try_(self, case: Case) -> Result:
        """What comes of it."""
        assert self._process.stdout is not None
        self._say(case._asdict())
        line = self._process.stdout.readline()
        if line:
            return Result(case, Outcome(**json.loads(line)))
        self.close()
        self._start()
        return Result(case, None)

    def close(self) -> None:
        """It ends."""
        for end in (self._process.stdin, self._process.stdout):
            if end is not None:
                end.close()
        self._process.wait()


def tried(found: list[Base], wanted: Iterable[Case], workers: int) -> Iterator[Result]:
    """All of them, in order."""
    free: SimpleQueue[_Worker] = SimpleQueue()
    made = [_Worker(found) for _ in range(workers)]
    for worker in made:
        free.put(worker)

    def with_free(case: Case) -> Result:
        worker = free.get()
        try:
            return worker.try_(case)
        finally:
            free.put(worker)

    try:
        with ThreadPoolExecutor(workers) as pool:
            yield from pool.map(with_free, wanted)
    finally:
        for worker in made:
            worker.close()


def table(results: Iterable[Result]) -> Iterator[str]:
    """Markdown: for each kind of file and damage how many cases ended how; in how many of those that `check` told of reads
    were answered with errors, and in how many harmless ones a compaction would stop the broker.
    """
    counts: defaultdict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for result in results:
        row = kind_of(result.case.file), DAMAGES[result.case.damage]
        outcome = result.outcome
        counts[row].update(("cases", result.verdict))
        if outcome is not None:
            counts[row]["errors"] += result.verdict == TOLD and bool(outcome.fails)
            counts[row]["compactions"] += result.verdict == HARMLESS and outcome.compaction is not None
    heads = ("cases", *VERDICTS, "told by check, and reads fail", "harmless, and a compaction fails")
    yield f"| file | damage | {' | '.join(heads)} |"
    yield "|---" * (len(heads) + 2) + "|"
    for row in sorted(counts):
        figures = (counts[row][name] for name in ("cases", *VERDICTS, "errors", "compactions"))
        yield f"| {' | '.join(row)} | {' | '.join(f'{figure:,}' for figure in figures)} |"


def all_cases(found: list[Base], step_bits: int, only: str = "") -> list[Case]:
    """Of both directories; bits of a file that is the same in both are flipped once."""
    wanted: list[Case] = []
    known: set[bytes] = set()
    for base in found:
        contents = {str(file): (base.path / file).read_bytes() for file in base.files()}
        for case in cases(base.name, base.path, base.files(), step_bits):
            if only in case.file and (case.damage != FLIP or contents[case.file] not in known):
                wanted.append(case)
        known |= set(contents.values())
    return wanted


@click.command()
@click.option("--step", type=click.IntRange(min=1), default=4_096, show_default=True, help="Every so many bits one is flipped.")
@click.option("--only", default="", help="Only files in whose names this stands.")
@click.option("--workers", type=click.IntRange(min=1), default=2, show_default=True)
@click.option("--dir", "parent", type=click.Path(exists=True, file_okay=False), help="Where the run's directory is made.")
@click.option("--verbose", is_flag=True, help="Also a line for each case.")
def main(step: int, only: str, workers: int, parent: str | None, verbose: bool) -> None:
    """Damage everything, and print who noticed."""
    directory = Path(tempfile.mkdtemp(prefix="rocksmq-damage-", dir=parent))
    begin = time.monotonic()
    found = bases(directory)
    wanted = all_cases(found, step, only)
    click.echo(f"{len(wanted):,} damages, in {directory}", err=True)
    results: list[Result] = []
    for result in tried(found, wanted, workers):
        results.append(result)
        if verbose:
            click.echo(f"{result.case}: {result.verdict}: {result.outcome}")
    for line in table(results):
        click.echo(line)
    wrong = [result for result in results if result.wrong]
    good = f"{len(results) - len(wrong):,} told or harmless"
    click.echo(f"\n{len(results):,} damages, every {step:,}th bit, in {time.monotonic() - begin:.0f} s: {good}")
    for result in wrong:
        click.echo(f"WRONG {result.case}: {result.wrong}")
    shutil.rmtree(directory)
    if wrong:
        raise click.ClickException(f"{len(wrong):,} are neither")


if __name__ == "__main__":
    main()
