"""`make bench`: a broker of its own, `rocksmq bench`, a bare RocksDB and the floor, in one run and one table.

    python -m tests.bench [--dir DIR] [--rounds N] [--suite msgstream] [OPTIONS OF rocksmq bench]

Figures of different machines, or of different hours, do not compare: the ratios do.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import click

from rocksmq.clients.bench.rows import COLUMNS, cells, ratio
from rocksmq.clients.cli.output import show_table
from rocksmq.clients.testing import Broker

from .bare_rocksdb import NAME as BARE

PROJECT = Path(__file__).parents[2]
MESSAGES = "messages"  # the suite
COMMAND = "from rocksmq.clients.cli import main; main()"
Record = dict[str, object]


@click.command(context_settings={"ignore_unknown_options": True})
@click.option("--dir", "directory", type=click.Path(exists=True, file_okay=False, path_type=Path), default=PROJECT)
@click.option("--rounds", type=click.IntRange(min=1), default=3)
@click.option("--suite", default=MESSAGES)
@click.option("--json", "as_json", is_flag=True)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def main(directory: Path, rounds: int, suite: str, as_json: bool, arguments: Sequence[str]) -> None:
    """Measure a broker in DIR, on whose disk the floor is timed too; the bare RocksDB beside the suite of messages."""
    with tempfile.TemporaryDirectory(prefix=".bench-", dir=directory) as name:
        place = Path(name)
        shared = ("--rounds", str(rounds))
        bare = _records(["-m", "tests.bench.bare_rocksdb", "--dir", name, *shared]) if suite == MESSAGES else []
        with Broker(place / "data") as broker:
            options = ("--broker-pid", str(broker.pid), "--floor-dir", name, *shared, *arguments)
            measured = _records(["-c", COMMAND, "--json", "--url", broker.url, "bench", suite, *options])
    records = [*measured, *bare, *_against(measured, bare)]
    if not as_json:
        click.echo(f"durability: {measured[0]['durability']}, median of {rounds} rounds")
    show_table(records if as_json else map(cells, records), COLUMNS, as_json=as_json)


def _records(arguments: Sequence[str]) -> list[Record]:
    """The JSON lines that a Python program prints; what it says on stderr is seen."""
    done = subprocess.run([sys.executable, *arguments], stdout=subprocess.PIPE, cwd=PROJECT, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def _against(measured: Sequence[Record], bare: Sequence[Record]) -> list[Record]:
    """How much of the bare database's rate is left to who produces through the broker."""
    return [
        ratio(f"produce-1KiB / {BARE}", _megabytes_a_second(record) / cast(float, alone["median"])).record()
        for alone in bare
        for record in measured
        if record["name"] == "produce-1KiB"
    ]


def _megabytes_a_second(record: Record) -> float:
    return cast(float, record["median"]) * cast(int, record["payload_bytes"]) / 1e6


if __name__ == "__main__":
    main()
