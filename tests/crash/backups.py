"""Backups of a broker that is killed in every cycle, under the load of the crash harness; each is restored and audited.

    python -m tests.crash.backups [--backups N] [--seed S] [--dir DIR] [--meta etcd]

Every channel of a restored directory must hold a prefix of what the broker has at the end, which the harness holds against
the books of all workers: so nothing is doubled, reordered or left out in the midst. It must hold at least what
was acknowledged before the command was given, positions likewise, and new ids must be above all that it holds. A command that
fails, as the broker was killed, must leave nothing. The power is not cut: what it takes, a backup may have.
"""

import shutil
import subprocess
import sys
import tempfile
import threading
import time
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

import click
import trio

from rocksmq.broker.backup import restore, verify
from rocksmq.broker.engine import RocksMQ
from rocksmq.broker.findings import Finding
from rocksmq.protocol.operations import DescribeGroup

from .__main__ import lines
from .audit import Report
from .backups_mutants import MUTANTS
from .book import Kind, read_book
from .cast import CHANNELS, GROUPS, MANUAL_GROUPS, WHOLE_CAST
from .content import labels_in
from .course import Intensity
from .cycles import Cycle
from .harness import LINK, Harness
from .worker import Part

# The harness' whole cast at a fifth of its pace: each backup holds all that was ever produced, and is read three times.
CAST = tuple(
    part._replace(options={**part.options, "rate": part.options["rate"] // 5}) if part.is_producer else part
    for part in WHOLE_CAST
)
NAMES = ("directory", "linked", "tar.tar.zst")  # of the targets, in turn; the second is made on the first as its base
READ_AT_ONCE = 10_000
END_SECONDS = 120.0
_ROOT = Path(__file__).parents[2]


class Told(NamedTuple):
    """What the workers were told: the highest acknowledged id of each channel, the lowest position that each group may have."""

    ids: Mapping[str, int]
    positions: Mapping[str, int]


class Holding(NamedTuple):
    """A channel as a directory has it: how many messages, and a digest of their ids and labels."""

    message_count: int
    digest: bytes


class Content:
    """Ids and labels of a channel, in order."""

    def __init__(self) -> None:
        self.ids = array("Q")
        self.labels = array("Q")

    def held(self, count: int) -> Holding:
        """The first ``count`` of them."""
        digest = blake2b(self.ids[:count].tobytes())
        digest.update(self.labels[:count].tobytes())
        return Holding(count, digest.digest())


class Outcome(NamedTuple):
    """What became of all."""

    report: Report
    taken: int
    failed: int
    messages: int  # in the restored channels, added up
    linked: int  # of the backups that were made on a base


def told_in(books: Path, cast: Sequence[Part]) -> Told:
    """What copies of books say."""
    parts = {part.name: part for part in cast}
    ids, positions = Counter[str](), Counter[str]()
    for book in books.iterdir():
        part = parts[book.name.split(".")[0]]
        for record in read_book(book):
            if record.kind is Kind.STORED:
                _, first, count = record.numbers
                ids[part.channel] = max(ids[part.channel], first + count - 1)
            elif record.kind is Kind.COMMITTED:
                positions[part.group] = max(positions[part.group], record.numbers[0])
            elif record.kind is Kind.HANDED and part.group not in MANUAL_GROUPS:
                positions[part.group] = max(positions[part.group], 1 + max(record.numbers[: len(record.numbers) // 2]))
    return Told(ids, positions)


class Taker:
    """Takes backups in a thread of its own, one after the other, until there are ``wanted``, and audits each."""

    def __init__(
        self,
        directory: Path,
        url: Callable[[], str],
        cast: Sequence[Part],
        wanted: int,
        mutant: str | None,
        tell: Callable[[str], object],
    ) -> None:
        self.taken: list[Mapping[str, Holding]] = []
        self.failed = self.linked = 0
        self.failure: BaseException | None = None
        self._directory = directory
        self._url = url
        self._cast = cast
        self._wanted = wanted
        self._mutant = mutant
        self._tell = tell
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="backups")

    def __enter__(self) -> "Taker":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join(END_SECONDS)

    @property
    def is_over(self) -> bool:
        return not self._thread.is_alive()

    def compare(self, data: Path) -> None:
        """Hold what was restored against the directory as it is at the end. Raises AssertionError."""
        contents, _ = trio.run(_read, data, True)  # the positions may be in etcd
        for number, held in enumerate(self.taken):
            for channel, holding in held.items():
                there = contents[channel].held(holding.message_count)
                assert there == holding, (
                    f"backup {number}: its {holding.message_count:,} messages are no prefix of channel {channel}"
                )

    def _run(self) -> None:
        try:
            while len(self.taken) < self._wanted and not self._stop.is_set():
                self._take(len(self.taken))
        except BaseException as error:
            self.failure = error

    def _take(self, number: int) -> None:
        name = NAMES[number % len(NAMES)]
        target = self._directory / name
        told = self._told()
        command = ["--url", self._url(), "--timeout", "5", "backup", "create", str(target)]
        if name == "linked":
            command += ["--base", str(self._directory / NAMES[0])]
        done = subprocess.run(
            [sys.executable, "-m", "rocksmq.clients.cli", *command], capture_output=True, text=True, check=False, cwd=_ROOT
        )
        if done.returncode:
            assert done.returncode == 1, f"backup {number}: the command ended with {done.returncode}: {done.stderr}"
            left = [path.name for path in self._directory.glob(f"{name}*")]
            assert not left, f"backup {number} failed ({done.stderr}), and left {left}"
            self.failed += 1
            return
        self._audit(number, target, told)
        if number % len(NAMES) == len(NAMES) - 1:
            for path in (self._directory / one for one in NAMES):
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def _told(self) -> Told:
        """By now. Copies, for the books grow."""
        with tempfile.TemporaryDirectory(dir=self._directory) as name:
            for book in self._directory.parent.glob("*.book"):
                shutil.copy(book, name)
            return told_in(Path(name), self._cast)

    def _audit(self, number: int, target: Path, told: Told) -> None:
        problems = [item for item in verify(target, _nothing, _nothing) if isinstance(item, Finding) and item.is_problem]
        assert not problems, f"backup {number}: {problems}"
        restored = self._directory / "restored"
        if self._mutant == "stale" and target.name == "linked":
            target = target.with_name(NAMES[0])
        restore(target, restored, _nothing)
        if self._mutant in MUTANTS:
            MUTANTS[self._mutant](restored)
        contents, positions = trio.run(_read, restored)
        for channel, content in contents.items():
            last = content.ids[-1] if content.ids else 0
            acknowledged = told.ids[channel]
            assert last >= acknowledged, f"backup {number}: {channel} ends at {last}, {acknowledged} was acknowledged before"
        for group, position in positions.items():
            wanted = told.positions[group]
            assert position >= wanted, f"backup {number}: group {group} is at {position}, it was at {wanted} before"
            ids = contents[GROUPS[group]].ids
            assert position <= (ids[-1] if ids else 0) + 1, f"backup {number}: group {group} is beyond the end"
        trio.run(_go_on, restored, max((content.ids[-1] for content in contents.values() if content.ids), default=0))
        shutil.rmtree(restored)
        self.linked += target.name == "linked"
        self.taken.append({channel: content.held(len(content.ids)) for channel, content in contents.items()})
        count = sum(len(content.ids) for content in contents.values())
        self._tell(f"backup {number}: {target.name}, {count:,} messages")


def _nothing(*told: object) -> None:
    """Nobody watches."""


async def _read(directory: Path, is_elsewhere: bool = False) -> tuple[dict[str, Content], dict[str, int]]:
    """All messages, each of which is whole, and the positions of the groups."""
    contents: dict[str, Content] = {}
    async with RocksMQ(directory, accept_loss=is_elsewhere) as mq:
        for channel in CHANNELS:
            content = contents[channel] = Content()
            position: int | str = "earliest"
            while batch := await mq.fetch(channel, position, READ_AT_ONCE):
                assert batch.gap is None, f"{channel} has a gap: {batch.gap}"
                content.ids.extend(batch.ids)
                content.labels.extend(labels_in(batch.payloads))
                position = batch.next_position
        positions = {group: (await mq.call(DescribeGroup(channel, group))).position for group, channel in GROUPS.items()}
    return contents, positions


async def _go_on(directory: Path, last_id: int) -> None:
    """A broker starts, and gives new ids above all others."""
    async with RocksMQ(directory) as mq:
        for channel in CHANNELS:
            ids = await mq.produce(channel, [b"new"])
            assert ids[0] > last_id, f"a restored broker gave out {ids[0]}, and {last_id} is there already"


def run(
    directory: Path,
    seed: object,
    backups: int,
    *,
    cast: Sequence[Part] = CAST,
    intensity: Intensity = LINK,
    mutant: str | None = None,
    has_etcd: bool = False,
    tell: Callable[[str], object] = click.echo,
) -> Outcome:
    """All of it. Raises AssertionError."""
    harness = Harness(directory, seed, cast=cast, intensity=intensity, has_etcd=has_etcd, tell=tell)
    place = directory / "backups"
    place.mkdir(parents=True)
    taker = Taker(place, lambda: harness.broker.url, cast, backups, mutant, tell)

    def cycles() -> Iterator[Cycle]:
        number = 0
        with taker:  # from here on there are channels and groups
            while not taker.is_over:
                yield Cycle.of(seed, number)._replace(cuts_power=False)
                number += 1
        if taker.failure is not None:
            raise taker.failure

    report = harness.run(cycles())
    taker.compare(harness.broker.directory)
    messages = sum(holding.message_count for held in taker.taken for holding in held.values())
    return Outcome(report, len(taker.taken), taker.failed, messages, taker.linked)


@click.command()
@click.option("--backups", type=click.IntRange(min=1), default=100, show_default=True)
@click.option("--seed", default="7660", show_default=True)
@click.option("--dir", "parent", type=click.Path(exists=True, file_okay=False), help="Where the run's directory is made.")
@click.option("--meta", type=click.Choice(("embedded", "etcd")), default="embedded", help="Where positions are kept.")
def main(backups: int, seed: str, parent: str | None, meta: str) -> None:
    """Back up a broker that is killed again and again under load. The directory is kept when something is wrong."""
    directory = Path(tempfile.mkdtemp(prefix="rocksmq-backups-", dir=parent))
    click.echo(f"seed {seed}, {backups} backups, in {directory}")
    begin = time.monotonic()
    try:
        outcome = run(directory, seed, backups, has_etcd=meta == "etcd")
    except AssertionError as error:
        raise click.ClickException(f"FAILED, seed {seed}; books and data are kept in {directory}: {error}") from error
    click.echo(f"\nseed {seed}, {time.monotonic() - begin:.0f} s")
    for line in lines(outcome.report):
        click.echo(line)
    click.echo(
        f"{outcome.taken} backups restored, {outcome.linked} of them on a base: each a prefix of every channel, with all that"
        f" was acknowledged before it; {outcome.messages:,} messages in them, 0 lost, doubled or reordered, positions likewise"
    )
    click.echo(f"{outcome.failed} commands failed, as the broker was killed, and left nothing")
    shutil.rmtree(directory)


if __name__ == "__main__":
    main()
