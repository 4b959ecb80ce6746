"""A broker on a disk of 256 MiB that is filled and freed again and again: nothing acknowledged is lost, nobody restarts it.

    python -m tests.crash.tiny_disk [--turns N] [--mib N] [--disk tmpfs|ext4] [--seed S] [--dir DIR]

Each turn produces to several channels at once until all are refused, looks that reading and positions go on, frees space in
one of several ways, and waits until producing goes on by itself. An outside ledger (`tiny_disk_book`) is held against all
channels in each turn, and at the end against a copy of the files as a kill -9 would leave them. The disk is a file system of
its own that only the broker's process sees: that takes `unshare`, for ext4 a real root.
"""

import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random
from typing import cast, get_args

import click

from rocksmq.clients import Client, ConnectionFailed, DiskFull, InvalidRequest, Timeout
from rocksmq.clients.testing import Broker
from tests.helpers.model_systems import copy_as_killed
from tests.helpers.small_disk import BrokerOnSmallDisk, Kind, refusal

from .tiny_disk_book import ChannelBook

MIB = 1 << 20
FILLED = 4  # channels that take the disk, in turns, so that their messages share the database's files
PRODUCERS = 3
FAVOUR = 5  # times more often than others a channel is filled that a rule of retention is to free
BATCH_BYTES = 256 * 1024
CAPPED, CAPPED_BYTES = "capped", 16 * MIB  # a channel with a cap, where there is retention
CAPPED_SLACK = 1.25  # until a check comes
KEPT, KEPT_SHARE = "kept", 64  # a channel that stays, and gets one batch of so many
READERS = "readers"
REFUSALS = 3  # in a row, until a producer takes it that the disk is full
IMPATIENT_SECONDS = 0.5  # of a client that wants to hear of a full disk
PATIENCE_SECONDS = 60.0
LOWEST_FREE_BYTES = 4 * MIB  # that are left in any case: the disk is never full by what the broker writes itself
FOREIGN_BYTES = 48 * MIB  # of another program's file
POLL_SECONDS = 0.002


@dataclass(slots=True)
class Turn:
    """What happened in one; bytes and seconds."""

    way: str
    acknowledged: int = 0
    refused: int = 0
    lowest_free: int = 1 << 62
    resumed_after: float = 0.0
    messages: int = 0  # that were compared

    def __str__(self) -> str:
        return (
            f"{self.acknowledged / MIB:6.1f} MiB acknowledged, {self.refused:3} batches refused, at least"
            f" {self.lowest_free / MIB:5.1f} MiB free; by {self.way} it went on after {self.resumed_after:4.1f} s;"
            f" {self.messages:,} messages compared"
        )


@dataclass(slots=True)
class Reading:
    """What the group that reads all the time got."""

    ids: list[int] = field(default_factory=list[int])
    full: int = 0  # consumes that were answered DiskFull


class TinyDisk:
    """The whole run on one broker; ``turns`` does it. Raises AssertionError."""

    def __init__(self, broker: BrokerOnSmallDisk, seed: str) -> None:
        self.broker = broker
        self.random = Random(seed)
        self.mq = broker.client(PATIENCE_SECONDS)
        self.kept = ChannelBook(KEPT)
        self.filled: list[ChannelBook] = []
        self.capped: list[ChannelBook] = []  # one at most
        self.reading = Reading()
        self._made = 0
        self._failures: list[BaseException] = []
        self.mq.create_channel(KEPT)
        self.mq.create_consumer_group(KEPT, READERS)
        self._produce(self.mq, self.kept, self.random)
        self.ways: dict[str, Callable[[Turn], None]] = {
            "destroying a channel": self._free_by_destroying,
            "deleting another file": self._free_by_deleting,
            "destroying the group that kept messages": self._free_by_group,
            "deleting a file that left not a byte": self._free_from_brim,
            "reading to the end with consumed_by_all": self._free_by_reading,
        }
        if self._has_retention():
            self.capped.append(ChannelBook(CAPPED, is_trimmed=True))
            self.mq.create_channel(CAPPED, retention={"max_bytes": CAPPED_BYTES})
        else:
            for way in ("destroying the group that kept messages", "reading to the end with consumed_by_all"):
                del self.ways[way]

    def turns(self, count: int) -> Iterator[Turn]:
        """One way after the other."""
        pid = self.broker.pid
        for number in range(count):
            way = list(self.ways)[number % len(self.ways)]
            turn = Turn(way)
            with self._watched(turn), self._read_meanwhile():
                self._prepare(way)
                self._fill(turn)
                self._check_full(turn)
                self.ways[way](turn)
            self._check(turn)
            assert self.broker.pid == pid, "the same process all the time"
            yield turn

    def check_after_kill(self, directory: Path) -> int:
        """Of what a kill -9 now would leave; how many messages were compared."""
        copy_as_killed(self.broker.disk, directory)
        with Broker(directory) as after, after.client(PATIENCE_SECONDS) as mq:
            return sum(book.check(mq) for book in self._books)

    @property
    def _books(self) -> list[ChannelBook]:
        return [self.kept, *self.capped, *self.filled]

    def _has_retention(self) -> bool:
        try:
            self.mq.create_channel("trial", retention={"consumed_by_all": True})
        except InvalidRequest:
            return False
        self.mq.destroy_channel("trial")
        return True

    # -- a turn ----------------------------------------------------------------------

    def _prepare(self, way: str) -> None:
        """So many channels to fill, of which the first is one that the turn's way can free."""
        retention = {"consumed_by_all": True} if "group" in way or "consumed" in way else None
        if retention is not None and len(self.filled) == FILLED:
            self._destroy(max(self.filled, key=lambda book: book.size))
        while len(self.filled) < FILLED:
            self._made += 1
            book = ChannelBook(f"filled-{self._made}", is_trimmed=retention is not None)
            self.mq.create_channel(book.name, retention=retention)
            if retention is not None:
                self.mq.create_consumer_group(book.name, READERS)
                self.filled.insert(0, book)
            else:
                self.filled.append(book)
            retention = None
        if "another file" in way:
            free = self.broker.free_bytes
            self.broker.fill(but=max(free - FOREIGN_BYTES, free // 2))

    def _fill(self, turn: Turn) -> None:
        """Produce until each producer is refused again and again."""
        lock = threading.Lock()

        books = self.capped + self.filled
        if self.filled[0].is_trimmed:
            books += FAVOUR * self.filled[:1]  # what is freed of it must be more than it takes to go on

        def produce(seed: float) -> None:
            random, refusals = Random(seed), 0
            with self.broker.client(IMPATIENT_SECONDS) as mq:
                while refusals < REFUSALS:
                    book = self.kept if random.randrange(KEPT_SHARE) == 0 else random.choice(books)
                    stored = self._produce(mq, book, random)
                    refusals = refusals + 1 if stored == 0 else 0
                    with lock:
                        turn.acknowledged += stored or 0
                        turn.refused += stored == 0

        self._together([partial(produce, self.random.random()) for _ in range(PRODUCERS)])

    def _produce(self, mq: Client, book: ChannelBook, random: Random) -> int | None:
        """One batch; the bytes of it that were acknowledged, 0 if it was refused; None: not known."""
        payloads = book.payloads(random, BATCH_BYTES)
        try:
            ids = mq.produce(book.name, payloads)
        except DiskFull:
            book.refused(payloads)
            return 0
        except (Timeout, ConnectionFailed):
            book.unknown(payloads)
            return None
        book.acknowledged(payloads, ids)
        return sum(map(len, payloads))

    def _check_full(self, turn: Turn) -> None:
        """Produce is refused; reading, positions and descriptions go on."""
        for book in self._books:
            described = self.mq.describe_channel(book.name)
            assert book.is_trimmed or described.message_count >= len(book.stored), f"{book.name} lacks messages"
            if book.stored:
                begin = described.begin_id
                assert begin is not None, f"{book.name} is not empty"
                book.check_handed(self.mq.fetch(book.name, begin, 10))
        self.mq.create_consumer_group(KEPT, "seeking")
        assert self.mq.seek(KEPT, "seeking", "earliest").outcome == "earliest"
        self.kept.check_handed(self.mq.consume(KEPT, "seeking", 10))
        self.mq.destroy_consumer_group(KEPT, "seeking")
        assert turn.refused >= REFUSALS * PRODUCERS
        assert turn.lowest_free >= LOWEST_FREE_BYTES, f"only {turn.lowest_free} bytes were free"

    def _check(self, turn: Turn) -> None:
        """All channels, whole, against the books; what the group got against the channel that it read."""
        turn.messages = sum(book.check(self.mq) for book in self._books)
        for book in self.capped:
            kept = self.mq.describe_channel(book.name).byte_count
            assert kept <= CAPPED_BYTES * CAPPED_SLACK, f"{kept} bytes are kept above the cap"
        assert self.reading.ids == sorted(set(self.reading.ids)), "the group got messages twice, or out of order"
        got = set(self.reading.ids)
        skipped = [message_id for message_id in self.kept.stored if message_id not in got]
        assert not skipped, f"the group read past {len(skipped)} acknowledged messages"
        log = self.broker.log.read_text()
        assert "Traceback" not in log, log[-2_000:]

    def _resumed(self, turn: Turn) -> None:
        """Wait until produce works again."""
        begin = time.monotonic()
        with self.broker.client(IMPATIENT_SECONDS) as mq:
            while not self._produce(mq, self.kept, self.random):
                assert time.monotonic() < begin + PATIENCE_SECONDS, f"after {turn.way} nothing can be produced"
        turn.resumed_after = time.monotonic() - begin

    # -- ways to free space ------------------------------------------------------------

    def _free_by_destroying(self, turn: Turn) -> None:
        self._destroy(max(self.filled, key=lambda book: book.size))
        self._resumed(turn)

    def _free_by_deleting(self, turn: Turn) -> None:
        self.broker.free()
        self._resumed(turn)

    def _free_by_group(self, turn: Turn) -> None:
        """One group has read all; only the other holds it."""
        book = self.filled[0]
        self.mq.create_consumer_group(book.name, "done", start="latest")
        self.mq.destroy_consumer_group(book.name, READERS)
        self._resumed(turn)

    def _free_by_reading(self, turn: Turn) -> None:
        book = self.filled[0]
        while batch := self.mq.consume(book.name, READERS, 20):  # the last one stays, as it may be asked for again
            book.check_handed(batch)
        self._resumed(turn)

    def _free_from_brim(self, turn: Turn) -> None:
        """Beyond the reserve not even positions can move; fetch goes on, and all of it heals."""
        before = self.reading.full
        end = time.monotonic() + PATIENCE_SECONDS
        while self.reading.full < before + REFUSALS:
            assert time.monotonic() < end, "the disk has not a byte left, and positions still move"
            self.broker.fill(but=0)  # what is written already may have room to grow in; compactions give some back
            with self.broker.client(IMPATIENT_SECONDS) as mq:
                self._produce(mq, self.kept, self.random)
                try:
                    mq.seek(KEPT, READERS, self.mq.describe_consumer_group(KEPT, READERS).position)
                except DiskFull:
                    self.reading.full += 1
        for book in self._books:
            book.check_handed(self.mq.fetch(book.name, "earliest", 10))
        turn.lowest_free = self.broker.free_bytes
        self.broker.free()
        begin = time.monotonic()
        while True:
            try:
                self.mq.seek(KEPT, READERS, self.mq.describe_consumer_group(KEPT, READERS).position)
                break
            except DiskFull:
                assert time.monotonic() < begin + PATIENCE_SECONDS, "positions do not move again"
        self._destroy(max(self.filled, key=lambda book: book.size))
        self._resumed(turn)
        turn.resumed_after = time.monotonic() - begin

    def _destroy(self, book: ChannelBook) -> None:
        book.check(self.mq)
        self.mq.destroy_channel(book.name)
        self.filled.remove(book)

    # -- what goes on meanwhile -----------------------------------------------------------

    @contextmanager
    def _watched(self, turn: Turn) -> Generator[None]:
        """How much is free, looked at again and again."""
        over = threading.Event()

        def watch() -> None:
            while not over.wait(POLL_SECONDS):
                turn.lowest_free = min(turn.lowest_free, self.broker.free_bytes)

        with self._beside(watch, over):
            yield

    @contextmanager
    def _read_meanwhile(self) -> Generator[None]:
        """The group reads the channel that stays; when the turn is over, to its end."""
        over = threading.Event()

        def read() -> None:
            with self.broker.client(PATIENCE_SECONDS) as mq, self.broker.client(IMPATIENT_SECONDS) as impatient:
                while not over.is_set() or mq.describe_consumer_group(KEPT, READERS).lag_messages:
                    try:
                        batch = impatient.consume(KEPT, READERS, 100, timeout=0.1)
                    except DiskFull:
                        self.reading.full += 1
                        continue
                    except Timeout:  # a busy machine; the next consume gets what this one may have claimed
                        continue
                    self.kept.check_handed(batch)
                    self.reading.ids += batch.ids

        with self._beside(read, over):
            yield

    @contextmanager
    def _beside(self, work: Callable[[], None], over: threading.Event) -> Generator[None]:
        def run() -> None:
            try:
                work()
            except BaseException as error:
                self._failures.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
        for failure in self._failures:
            raise failure

    def _together(self, works: Sequence[Callable[[], None]]) -> None:
        if works:
            with self._beside(works[0], threading.Event()):
                self._together(works[1:])


def run(directory: Path, turns: int, disk_bytes: int, kind: Kind, seed: str) -> Iterator[str]:
    """What each turn did, and at the end what a kill -9 would have left. Raises AssertionError."""
    with BrokerOnSmallDisk(directory / "data", disk_bytes, kind) as broker:
        tiny = TinyDisk(broker, seed)
        with tiny.mq:
            for number, turn in enumerate(tiny.turns(turns), 1):
                yield f"{number:3}  {turn}"
        compared = tiny.check_after_kill(directory / "killed")
        yield f"as a kill -9 would leave it: {compared:,} messages compared, nothing acknowledged is lost"
        code = broker.terminate()
        assert code == 0, f"exit code {code}: {broker.log.read_text()[-2_000:]}"


@click.command()
@click.option("--turns", type=click.IntRange(min=1), default=20, show_default=True)
@click.option("--mib", type=click.IntRange(min=200), default=256, show_default=True, help="Of the disk.")
@click.option("--disk", "kind", type=click.Choice(get_args(Kind)), default="tmpfs", show_default=True)
@click.option("--seed", default="7660", show_default=True)
@click.option("--dir", "parent", type=click.Path(exists=True, file_okay=False), help="Where the run's directory is made.")
def main(turns: int, mib: int, kind: str, seed: str, parent: str | None) -> None:
    """Fill it, be refused, free it, go on. The directory is kept when something is wrong."""
    if why := refusal(cast(Kind, kind)):
        raise click.ClickException(why)
    directory = Path(tempfile.mkdtemp(prefix="rocksmq-tiny-", dir=parent))
    click.echo(f"seed {seed}, {turns} turns on {kind} of {mib} MiB")
    begin = time.monotonic()
    try:
        for line in run(directory, turns, mib * MIB, cast(Kind, kind), seed):
            click.echo(line)
    except AssertionError as error:
        raise click.ClickException(f"FAILED, seed {seed}; the log is in {directory}: {error}") from error
    click.echo(f"{turns} turns in {time.monotonic() - begin:.0f} s: no restart, no acknowledged message lost")
    shutil.rmtree(directory)


if __name__ == "__main__":
    main()
