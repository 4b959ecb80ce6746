"""What a scrape of very many channels does to who produces meanwhile: `python -m tests.bench.scrape`.

    python -m tests.bench.scrape [--rounds N] [--seconds N] [--channels N] [--groups N] [--dir DIR] [--json]

One broker, one client with one `produce` of one message after the other, each fsynced, and a process of its own that scrapes:
not at all, once a second as Prometheus does at most, or again and again. Each round measures all of it, in turns.
"""

import multiprocessing
import socket
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import pairwise
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median, quantiles
from typing import NamedTuple

import click

from rocksmq.clients import Client, OwnerDescription
from rocksmq.clients.bench.throughput import BATCH_MESSAGES
from rocksmq.clients.cli.output import show_table
from rocksmq.clients.testing import Broker

PROJECT = Path(__file__).parents[2]
CHANNEL, PAYLOAD = "bench", b"x" * 100
COLUMNS = ("scraped", "how often", "produce p50 us", "produce p99 us", "p99 / without", "a scrape ms", "kB")
ONCE_A_SECOND, AGAIN_AND_AGAIN = 1.0, 0.0
WARM_UP = 200  # produces before those that count
READ_BYTES = 1 << 20


class Load(NamedTuple):
    """What is scraped while one produces; ``pause`` in seconds, between the begin of one scrape and the next at least."""

    path: str
    pause: float


NOTHING = Load("", 0.0)
LOADS = (
    NOTHING,
    *(Load(path, pause) for path in ("/metrics", "/metrics/detailed") for pause in (ONCE_A_SECOND, AGAIN_AND_AGAIN)),
)


class Taken(NamedTuple):
    """Seconds of each produce, seconds and bytes of each scrape."""

    produces: list[float]
    scrapes: list[float]
    sizes: list[int]


def scrape(address: str, path: str) -> int:
    """Its bytes. Nothing is made of them, so that the broker is measured and not who reads."""
    host, _, port = address.rpartition(":")
    size, last = 0, b""
    with socket.create_connection((host, int(port)), timeout=60) as sock:
        sock.sendall(f"GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n".encode())
        while piece := sock.recv(READ_BYTES):
            size += len(piece)
            last = (last + piece)[-5:]
    if last != b"0\r\n\r\n":
        raise RuntimeError(f"{path} was cut off")
    return size


def scraper(address: str, orders: "Connection[tuple[list[float], list[int]], Load | None]") -> None:
    """A process: scrapes as it is told, until it is told something else; None ends it."""
    load = orders.recv()
    while load is not None:
        scrapes: list[float] = []
        sizes: list[int] = []
        while not orders.poll():
            begin = time.perf_counter()
            sizes.append(scrape(address, load.path))
            scrapes.append(time.perf_counter() - begin)
            orders.poll(max(0.0, begin + load.pause - time.perf_counter()))
        orders.recv()  # that it is over
        orders.send((scrapes, sizes))
        load = orders.recv()


def produced(mq: Client, seconds: float) -> list[float]:
    """The seconds of each, of those that begin within ``seconds``."""
    for _ in range(WARM_UP):
        mq.produce(CHANNEL, [PAYLOAD])
    begins = [time.perf_counter()]
    while begins[-1] < begins[0] + seconds:
        mq.produce(CHANNEL, [PAYLOAD])
        begins.append(time.perf_counter())
    return [end - begin for begin, end in pairwise(begins)]


def fill(mq: Client, channels: int, groups: int) -> None:
    """So many channels, of which so many have a group and a message."""
    mq.create_channel(CHANNEL)
    for begin in range(1, channels, BATCH_MESSAGES):
        mq.create_channels(OwnerDescription(CHANNEL, "", ""), min(BATCH_MESSAGES, channels - begin))
    for name in mq.list_channels()[:groups]:
        mq.create_consumer_group(name, "readers")
        mq.produce(name, [PAYLOAD])


def measure(mq: Client, orders: "Connection[Load | str, tuple[list[float], list[int]]]", load: Load, seconds: float) -> Taken:
    """One load."""
    if load == NOTHING:
        return Taken(produced(mq, seconds), [], [])
    orders.send(load)
    produces = produced(mq, seconds)
    orders.send("stop")
    return Taken(produces, *orders.recv())


def rows(found: dict[Load, list[Taken]]) -> Iterator[dict[str, str]]:
    """One a load."""
    alone = [p99(taken.produces) for taken in found[NOTHING]]
    for load, rounds in found.items():
        tails = [p99(taken.produces) for taken in rounds]
        scrapes = [1e3 * median(taken.scrapes) for taken in rounds if taken.scrapes]
        sizes = [size for taken in rounds for size in taken.sizes]
        cells = (
            load.path or "nothing",
            "-" if load == NOTHING else "again and again" if load.pause == AGAIN_AND_AGAIN else f"each {load.pause:g} s",
            _shown([1e6 * median(taken.produces) for taken in rounds], ",.0f"),
            _shown([1e6 * tail for tail in tails], ",.0f"),
            _shown([tail / without for tail, without in zip(tails, alone, strict=True)], ".2f"),
            _shown(scrapes, ",.0f") if scrapes else "",
            f"{median(sizes) / 1e3:,.0f}" if sizes else "",
        )
        yield dict(zip(COLUMNS, cells, strict=True))


def p99(values: Sequence[float]) -> float:
    return quantiles(values, n=100)[-1]


def _shown(values: Sequence[float], form: str) -> str:
    return f"{median(values):{form}} ({min(values):{form}} .. {max(values):{form}})"


@click.command()
@click.option("--rounds", type=click.IntRange(min=1), default=7, show_default=True)
@click.option("--seconds", type=float, default=4.0, show_default=True, help="Of each load, in each round.")
@click.option("--channels", type=click.IntRange(min=1), default=10_000, show_default=True)
@click.option("--groups", type=click.IntRange(min=0), default=500, show_default=True)
@click.option("--dir", "parent", type=click.Path(exists=True, file_okay=False, path_type=Path), default=PROJECT)
@click.option("--json", "as_json", is_flag=True)
def main(rounds: int, seconds: float, channels: int, groups: int, parent: Path, as_json: bool) -> None:
    """Measure a broker on the disk of DIR."""
    found: dict[Load, list[Taken]] = {load: [] for load in LOADS}
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=".bench-", dir=parent)))
        broker = stack.enter_context(Broker(place / "data", http="127.0.0.1:0"))
        mq = stack.enter_context(broker.client(timeout=60))
        click.echo(f"{channels} channels, {groups} of them with a group", err=True)
        fill(mq, channels, groups)
        context = multiprocessing.get_context("spawn")
        orders, theirs = context.Pipe()
        process = context.Process(target=scraper, args=(broker.http, theirs), daemon=True)
        process.start()
        theirs.close()  # so that the end of that process is noticed
        for number in range(rounds):
            turned = LOADS[number % len(LOADS) :] + LOADS[: number % len(LOADS)]
            for load in turned:
                click.echo(f"round {number + 1} of {rounds}: {load.path or 'nothing'} {load.pause:g}", err=True)
                found[load].append(measure(mq, orders, load, seconds))
        orders.send(None)
        process.join()
    show_table(list(rows(found)), COLUMNS, as_json=as_json)


if __name__ == "__main__":
    main()
