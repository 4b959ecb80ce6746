"""What metrics cost: a broker that counts and is scraped, beside one that does not. `python -m tests.bench.metrics`.

    python -m tests.bench.metrics [--rounds N] [--dir DIR] [--json]

Both on the same disk, each message fsynced before it is acknowledged. Each round measures both with every load; they take turns
in who is first; the one that counts is scraped once a second meanwhile.
"""

import secrets
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from urllib.request import urlopen

import click

from rocksmq.clients import Client
from rocksmq.clients.bench import throughput
from rocksmq.clients.cli.output import show_table
from rocksmq.clients.testing import Broker

PROJECT = Path(__file__).parents[2]
COLUMNS = ("load", "unit", "with", "without", "with / without")
SCRAPE_SECONDS = 1.0
MANY, SOME, FEW = 1_000_000, 60_000, 3_000


class WithoutMetrics(Broker):
    """One that counts nothing."""

    def command(self) -> list[str]:
        return [sys.executable, "-m", "tests.bench.without_metrics", *super().command()[4:]]


def rate(count: int, act: Callable[[], None]) -> float:
    """A second, of ``count`` that ``act`` does."""
    begin = time.perf_counter()
    act()
    return count / (time.perf_counter() - begin)


def batches(mq: Client, channel: str) -> float:
    """Messages a second in batches of 1,000, 16 on their way."""
    payloads = [secrets.token_bytes(100)] * throughput.BATCH_MESSAGES
    return rate(MANY, lambda: throughput.send_many(mq, channel, payloads, MANY))


def singles(mq: Client, channel: str) -> float:
    """Requests a second of one message, 16 on their way."""

    def send() -> None:
        with mq.producer(channel, batch_messages=1) as producer:
            for _ in range(SOME):
                producer.send(b"x" * 100)
            producer.flush(60)

    return rate(SOME, send)


def calls(mq: Client, channel: str) -> float:
    """Calls of `produce` a second, of one message, one after the other."""

    def call() -> None:
        for _ in range(FEW):
            mq.produce(channel, [b"x" * 100])

    return rate(FEW, call)


LOADS: dict[str, tuple[str, Callable[[Client, str], float]]] = {
    "produce, batches of 1,000, 16 in flight": ("msg/s", batches),
    "produce, batches of 1, 16 in flight": ("msg/s", singles),
    "produce, one call at a time": ("calls/s", calls),
}


@contextmanager
def scraped(url: str) -> Generator[None]:
    """Read `/metrics` now and then, until the end."""
    is_over = threading.Event()

    def scrape() -> None:
        while not is_over.wait(SCRAPE_SECONDS):
            with urlopen(f"{url}/metrics", timeout=10) as answer:
                answer.read()

    thread = threading.Thread(target=scrape)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def measure(counting: Broker, plain: Broker, rounds: int, say: Callable[[str], None]) -> Iterator[dict[str, str]]:
    """A row a load, once all rounds are over."""
    rates: dict[str, list[list[float]]] = {name: [[], []] for name in LOADS}
    for number in range(rounds):
        for name, (_, load) in LOADS.items():
            say(f"round {number + 1} of {rounds}: {name}")
            for which in (0, 1) if number % 2 == 0 else (1, 0):
                with ExitStack() as stack:
                    if which == 0:
                        stack.enter_context(scraped(counting.http_url))
                    mq = stack.enter_context((counting, plain)[which].client())
                    channel = f"bench-{secrets.token_hex(4)}"
                    mq.create_channel(channel)
                    rates[name][which].append(load(mq, channel))
                    mq.destroy_channel(channel)
    for name, (unit, _) in LOADS.items():
        there, nowhere = rates[name]
        ratios = [one / other for one, other in zip(there, nowhere, strict=True)]
        cells = (name, unit, _shown(there, ",.0f"), _shown(nowhere, ",.0f"), _shown(ratios, ".3f"))
        yield dict(zip(COLUMNS, cells, strict=True))


def _shown(values: Sequence[float], form: str) -> str:
    return f"{median(values):{form}} ({min(values):{form}} .. {max(values):{form}})"


@click.command()
@click.option("--rounds", type=click.IntRange(min=1), default=7, show_default=True)
@click.option("--dir", "parent", type=click.Path(exists=True, file_okay=False, path_type=Path), default=PROJECT)
@click.option("--json", "as_json", is_flag=True)
def main(rounds: int, parent: Path, as_json: bool) -> None:
    """Measure both, on the disk of DIR."""
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=".bench-", dir=parent)))
        counting = stack.enter_context(Broker(place / "with", http="127.0.0.1:0"))
        plain = stack.enter_context(WithoutMetrics(place / "without"))
        rows = list(measure(counting, plain, rounds, lambda text: click.echo(text, err=True)))
    show_table(rows, COLUMNS, as_json=as_json)


if __name__ == "__main__":
    main()
