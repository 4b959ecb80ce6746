"""What RocksDB alone takes: the least that a batch of 1,000 messages of 1 KiB can cost the broker.

    python -m tests.bench.bare_rocksdb --dir DIR

Writes batches of that size through the broker's own `Store`, with its options, each made durable
before the next; prints one JSON object with MB/s.
"""

import secrets
import tempfile
import time
from pathlib import Path

import click

from rocksmq.broker.store import Family, Put, Store
from rocksmq.clients.bench.rows import Row
from rocksmq.clients.cli.output import json_line

NAME = "bare RocksDB"
BATCH_BYTES = 1_000 * 1_024


def write_batches(directory: Path, count: int) -> float:
    """Seconds that ``count`` durable batches take in a new database."""
    store = Store(directory)
    value = secrets.token_bytes(BATCH_BYTES)
    begin = time.perf_counter()
    for number in range(count):
        store.write([Put(Family.DATA, number.to_bytes(8, "big"), value)])
        store.sync()
    taken = time.perf_counter() - begin
    store.close()
    return taken


@click.command()
@click.option("--dir", "directory", type=click.Path(exists=True, file_okay=False, path_type=Path), default=".")
@click.option("--batches", type=click.IntRange(min=1), default=300)
@click.option("--rounds", type=click.IntRange(min=1), default=3)
def main(directory: Path, batches: int, rounds: int) -> None:
    """Print MB/s of durable 1 MB batches."""
    row = Row(NAME, "MB/s", payload_bytes=BATCH_BYTES)
    for _ in range(rounds):
        with tempfile.TemporaryDirectory(dir=directory) as place:
            row.values.append(batches * BATCH_BYTES / 1e6 / write_batches(Path(place) / "db", batches))
    click.echo(json_line(row.record()))


if __name__ == "__main__":
    main()
