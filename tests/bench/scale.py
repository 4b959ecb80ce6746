"""`make bench-scale`: does it stay as quick and as small with much data: 100 million messages, and 10,000 channels.

    python -m tests.bench.scale [--messages N] [--channels N] [--dir DIR] [--json]

A broker of its own in DIR, loaded through the client, killed, stopped and started, read as a whole and sought in at random; the
full run takes 13 GB there. The figures are of this machine and this hour; what comes back is checked, and
is an error wherever. Each goal is held against the median of its figure.
"""

import tempfile
from pathlib import Path

import click

from rocksmq.clients.cli.output import show_table

from . import scale_channel, scale_channels
from .scale_place import COLUMNS, Tally, Watched, cells

PROJECT = Path(__file__).parents[2]
MESSAGES, CHANNELS, CHANNEL_MESSAGES = 100_000_000, 10_000, 1_000


def measured(parent: Path, messages: int, channels: int, *, batch_messages: int, seeks: int, rounds: int) -> Tally:
    """One large channel, then many, each in a broker of its own on the disk of ``parent``. Raises AssertionError."""
    tally = Tally()
    if messages:
        with _broker(parent) as place, Watched(Path(place) / "data") as broker:
            broker.kill()  # its first start is measured
            scale_channel.measure(broker, tally, messages, batch_messages=batch_messages, seeks=seeks, rounds=rounds)
    if channels:
        with _broker(parent) as place, Watched(Path(place) / "data") as broker:
            broker.kill()
            scale_channels.measure(broker, tally, channels, CHANNEL_MESSAGES, rounds=rounds)
    return tally


def _broker(parent: Path) -> "tempfile.TemporaryDirectory[str]":
    return tempfile.TemporaryDirectory(prefix=".bench-", dir=parent)


@click.command()
@click.option("--messages", type=click.IntRange(min=0), default=MESSAGES, show_default=True, help="Of one channel; 0: none.")
@click.option("--channels", type=click.IntRange(min=0), help="Of 1,000 messages each.  [default: a 10,000th of the messages]")
@click.option("--batch-messages", type=click.IntRange(1, 10_000), default=1_000, show_default=True, help="In a produce.")
@click.option("--seeks", type=click.IntRange(min=2), default=500, show_default=True, help="Of each kind.")
@click.option("--rounds", type=click.IntRange(min=1), default=5, show_default=True, help="Of starts.")
@click.option("--dir", "parent", type=click.Path(exists=True, file_okay=False, path_type=Path), default=PROJECT)
@click.option("--json", "as_json", is_flag=True)
def main(
    messages: int, channels: int | None, batch_messages: int, seeks: int, rounds: int, parent: Path, as_json: bool
) -> None:
    """Measure brokers on the disk of DIR."""
    count = messages // (MESSAGES // CHANNELS) if channels is None else channels
    tally = measured(parent, messages, count, batch_messages=batch_messages, seeks=seeks, rounds=rounds)
    records = [figure.record() for figure in tally.values()]
    show_table(records if as_json else map(cells, records), COLUMNS, as_json=as_json)


if __name__ == "__main__":
    main()
