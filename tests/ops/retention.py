"""Disk bytes over time under each rule of retention: `python -m tests.ops.retention [--gigabytes N] [FILE]`.

One broker a rule, fsynced; 5 GB are produced as fast as it takes them under a cap of 1 GB, and a group reads at half that
pace. The ledger: each message carries its number, so what is kept must be the last ones without a hole, as many as the rule
keeps, and what the group read with what it was told was removed must be all of them. The picture is broker/retention.png.
"""

import tempfile
import threading
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import click

from rocksmq.clients import Client
from rocksmq.clients.cli.output import show_table
from rocksmq.clients.testing import Broker
from tests.helpers.dashboard import Panel

from .dashboard import picture
from .drawing import PAGE, Box, Curve, Point, drawn

PICTURE = Path(__file__).parents[2] / "broker" / "retention.png"
GB, MB = 1_000_000_000, 1_000_000
CHANNEL, GROUP = "orders", "half"
MESSAGE_BYTES, BATCH_MESSAGES, NUMBER_BYTES = 1_000, 1_000, 8
SAMPLE_SECONDS = 0.2
AGE_SECONDS = 4.0
QUIET_SECONDS = 30.0  # behind the last message, in which the disk is to fall
WIDTH, HEIGHT = 1_000, 190
COLUMNS = ("rule", "MB/s", "most kept MB", "most on disk MB", "at the end MB", "kept messages", "read", "told as removed")


class Rule(NamedTuple):
    """One to be shown: what the channel and the broker are told, and the bytes that the rule keeps, if it counts bytes."""

    name: str
    retention: dict[str, Any]
    options: dict[str, str]
    cap: float | None


RULES = (
    Rule("max_bytes", {"max_bytes": GB}, {}, GB),
    Rule("max_messages", {"max_messages": GB // MESSAGE_BYTES}, {}, GB),
    Rule("max_age", {"max_age": AGE_SECONDS}, {}, None),
    Rule("consumed_by_all and max_bytes", {"consumed_by_all": True, "max_bytes": GB}, {}, GB),
    Rule("total_bytes_max of the broker", {}, {"ROCKSMQ_RETENTION_TOTAL_BYTES_MAX": str(GB)}, GB),
)


class Sample(NamedTuple):
    """At one time: files of the data directory, and payloads that readers have."""

    at: float
    disk: int
    kept: int


class Run(NamedTuple):
    """What one rule did."""

    rule: Rule
    samples: list[Sample]
    seconds: float
    kept_messages: int
    read: int
    removed: int


class Watch(threading.Thread):
    """Samples until it is stopped."""

    def __init__(self, broker: Broker) -> None:
        super().__init__()
        self.samples: list[Sample] = []
        self.stopped = threading.Event()
        self._broker = broker

    def run(self) -> None:
        begin = time.monotonic()
        with self._broker.client() as mq:
            while not self.stopped.wait(SAMPLE_SECONDS):
                kept = mq.describe_channel(CHANNEL).byte_count
                self.samples.append(Sample(time.monotonic() - begin, disk_bytes(self._broker.directory), kept))


class Reader(threading.Thread):
    """Reads one batch for each two that are produced, then the rest; ``numbers`` are those it was handed."""

    def __init__(self, broker: Broker) -> None:
        super().__init__()
        self.read = self.removed = 0
        self.may_read = threading.Semaphore(0)
        self.is_last = False
        self._broker = broker

    def run(self) -> None:
        expected = 0
        with self._broker.client() as mq:
            while True:
                self.may_read.acquire()
                batch = mq.consume(CHANNEL, GROUP, BATCH_MESSAGES, max_bytes=1 << 23)
                if not batch and self.is_last:
                    return
                expected += batch.gap.message_count or 0 if batch.gap is not None else 0
                self.removed += batch.gap.message_count or 0 if batch.gap is not None else 0
                assert numbers_of(batch.payloads) == list(range(expected, expected + len(batch))), (
                    "what it was not told is missing"
                )
                expected += len(batch)
                self.read += len(batch)
                if self.is_last:
                    self.may_read.release()


def numbers_of(payloads: Sequence[bytes]) -> list[int]:
    """The number that each message carries."""
    return [int.from_bytes(payload[:NUMBER_BYTES], "big") for payload in payloads]


def disk_bytes(directory: Path) -> int:
    """Of all files, as the file system counts them."""
    total = 0
    for file in directory.rglob("*"):
        try:
            total += file.stat().st_blocks * 512
        except FileNotFoundError:  # deleted meanwhile
            continue
    return total


@contextmanager
def watched(broker: Broker) -> Generator[Watch, None, None]:
    watch = Watch(broker)
    watch.start()
    try:
        yield watch
    finally:
        watch.stopped.set()
        watch.join()


def produce(mq: Client, count: int, reader: Reader) -> None:
    """``count`` messages that nothing compresses, each with its number."""
    random, size = Random(), MESSAGE_BYTES - NUMBER_BYTES
    with mq.producer(CHANNEL) as producer:
        for first in range(0, count, BATCH_MESSAGES):
            numbers = range(first, first + BATCH_MESSAGES)
            noise = random.randbytes(BATCH_MESSAGES * size)
            payloads = [
                number.to_bytes(NUMBER_BYTES, "big") + noise[index * size : (index + 1) * size]
                for index, number in enumerate(numbers)
            ]
            producer.send_many(payloads)
            if first // BATCH_MESSAGES % 2:
                reader.may_read.release()


def check_kept(mq: Client, count: int) -> int:
    """What is kept are the last messages, without a hole; how many these are."""
    expected: int | None = None
    kept = 0
    position: str | int = "earliest"
    while batch := mq.fetch(CHANNEL, position, max_bytes=1 << 23):
        numbers = numbers_of(batch.payloads)
        expected = numbers[0] if expected is None else expected
        assert numbers == list(range(expected, expected + len(numbers))), f"there is a hole before {numbers[0]}"
        expected += len(numbers)
        kept += len(numbers)
        position = batch.next_position
    assert expected in (None, count), "the end is missing"
    return kept


def run(rule: Rule, gigabytes: float) -> Run:
    count = int(gigabytes * GB / MESSAGE_BYTES / BATCH_MESSAGES) * BATCH_MESSAGES
    with (
        tempfile.TemporaryDirectory() as name,
        Broker(Path(name) / "data", environment=rule.options) as broker,
        broker.client() as mq,
    ):
        mq.create_channel(CHANNEL, retention=rule.retention)
        mq.create_consumer_group(CHANNEL, GROUP)
        reader = Reader(broker)
        reader.start()
        with watched(broker) as watch:
            begin = time.monotonic()
            produce(mq, count, reader)
            seconds = time.monotonic() - begin
            kept = mq.describe_channel(CHANNEL).message_count
            reader.is_last = True
            reader.may_read.release()
            reader.join()
            end = time.monotonic() + QUIET_SECONDS
            while time.monotonic() < end:
                watch.stopped.wait(SAMPLE_SECONDS)
        assert reader.read + reader.removed == count, "the group read, or was told of, each message"
        at_end = check_kept(mq, count)
        assert at_end <= kept
        if rule.cap is not None and "consumed_by_all" not in rule.retention:
            assert at_end * MESSAGE_BYTES == rule.cap, "a cap keeps what it says"
        return Run(rule, watch.samples, seconds, at_end, reader.read, reader.removed)


def row(found: Run, gigabytes: float) -> dict[str, str]:
    cells = (
        found.rule.name,
        f"{gigabytes * GB / MB / found.seconds:,.0f}",
        f"{max(sample.kept for sample in found.samples) / MB:,.0f}",
        f"{max(sample.disk for sample in found.samples) / MB:,.0f}",
        f"{found.samples[-1].disk / MB:,.0f}",
        f"{found.kept_messages:,}",
        f"{found.read:,}",
        f"{found.removed:,}",
    )
    return dict(zip(COLUMNS, cells, strict=True))


def page(runs: Sequence[Run]) -> str:
    """HTML with a panel for each rule, behind its size in a comment."""
    parts: list[str] = []
    for number, found in enumerate(runs):
        end = found.samples[-1].at
        curves = [
            curve("disk", [(sample.at, float(sample.disk)) for sample in found.samples], 0),
            curve("messages kept", [(sample.at, float(sample.kept)) for sample in found.samples], 1),
        ]
        if found.rule.cap is not None:
            curves.append(curve("cap", [(0.0, found.rule.cap), (end, found.rule.cap)], 2))
        title = f"{found.rule.name}: {found.seconds:.0f} s of produce, then {QUIET_SECONDS:.0f} s of rest"
        raw: dict[str, Any] = {"fieldConfig": {"defaults": {}, "overrides": []}}
        panel = Panel(number, "timeseries", title, "", "bytes", 0, 0, WIDTH, HEIGHT, (), raw)
        at = f"position: absolute; left: 0; top: {number * (HEIGHT + 6)}px"
        parts.append(f'<div style="{at}">{drawn(panel, curves, Box(WIDTH, HEIGHT, 0.0, end))}</div>')
    style = f"<style>body {{ margin: 0; background: {PAGE}; font-family: sans-serif }}</style>"
    return f"<!-- {WIDTH} {len(runs) * (HEIGHT + 6)} -->{style}{''.join(parts)}"


def curve(name: str, points: list[Point], number: int) -> Curve:
    return Curve(name, {}, points, number)


@click.command()
@click.argument("file", type=click.Path(path_type=Path), default=PICTURE)
@click.option("--gigabytes", default=5.0, show_default=True, help="Produced under each rule.")
@click.option("--rule", "wanted", type=click.Choice([rule.name for rule in RULES]), multiple=True)
def main(file: Path, gigabytes: float, wanted: Sequence[str]) -> None:
    runs = [run(rule, gigabytes) for rule in RULES if not wanted or rule.name in wanted]
    show_table([row(found, gigabytes) for found in runs], COLUMNS, as_json=False)
    picture(page(runs), file)
    click.echo(f"{file}: {file.stat().st_size} bytes")


if __name__ == "__main__":
    main()
