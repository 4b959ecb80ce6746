"""What a backup does to who produces meanwhile: `python -m tests.bench.backup`.

    python -m tests.bench.backup [--rounds N] [--seconds N] [--stored-mb N] [--rate-mb N] [--target DIR] [--dir DIR] [--json]

One broker, with much stored; two producers, batches of 1,000 messages of 100 B and of 1 KB, at full load or at a rate that
leaves the processors room; and a third that calls `produce` with one message after the other, each fsynced: its latencies are
what is measured, and how often the broker's loop woke more than 10 ms late. In turns without a backup, with checkpoints alone
(BACKUP_BEGIN and BACKUP_END, again and again), and with whole backups by the command.
"""

import multiprocessing
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Event
from pathlib import Path
from statistics import median, quantiles
from typing import NamedTuple

import click

from rocksmq.clients import Client
from rocksmq.clients.cli.output import show_table
from rocksmq.clients.testing import Broker
from rocksmq.protocol.administration import BackupBegin, BackupEnd

PROJECT = Path(__file__).parents[2]
PROBED, LOADED = "probed", ("small", "large")
SIZES = {"small": 100, "large": 1_000}
BATCH_MESSAGES = 1_000
PAUSE_SECONDS = 0.1  # between two checkpoints
LONG_SECONDS = 0.010
NOTHING, CHECKPOINTS = "nothing", "checkpoints"
WAYS = {NOTHING: "", CHECKPOINTS: "", "backups to a directory": "copy", "backups to a tar": "copy.tar.zst"}  # and their targets
COLUMNS = ("meanwhile", "count", "produces", "p50 ms", "p99 ms", "max ms", "p99 / without", "over 10 ms", "loop late", "MB/s")
LAG = "rocksmq_event_loop_lag_seconds"


class Wakes(NamedTuple):
    """Of the broker's loop, and those that came later than LONG_SECONDS."""

    all: int
    late: int

    @classmethod
    def of(cls, broker: Broker) -> "Wakes":
        """Since its start."""
        with urllib.request.urlopen(f"{broker.http_url}/metrics") as reply:
            lines = [line.rpartition(" ") for line in reply.read().decode().splitlines() if line.startswith(LAG)]
        values = {name: int(float(value)) for name, _, value in lines}
        count = values[f"{LAG}_count"]
        return cls(count, count - values[f'{LAG}_bucket{{le="{LONG_SECONDS}"}}'])


class Taken(NamedTuple):
    """``times`` that it was done, seconds of each produce, bytes that the load stored, seconds of it all."""

    times: int
    wakes: Wakes
    produces: list[float]
    loaded: int
    seconds: float


def load(url: str, channel: str, rate: float | None, stop: "Event") -> None:
    """A process: load on ``channel``, full or of ``rate`` bytes a second."""
    batch = [secrets.token_bytes(SIZES[channel] // 2) + b"x" * (SIZES[channel] // 2) for _ in range(BATCH_MESSAGES)]
    with Client(url, timeout=60) as mq, mq.producer(channel) as producer:
        due = time.perf_counter()
        while not stop.is_set():
            producer.send_many(batch)
            if rate is not None:
                due = max(due + SIZES[channel] * BATCH_MESSAGES / rate, time.perf_counter() - 1)
                time.sleep(max(0.0, due - time.perf_counter()))


def act(way: str, url: str, place: Path, is_over: "Event", count: "Synchronized[int]") -> None:
    """A process: does again and again what is measured."""
    with Client(url, timeout=60) as mq:
        while not is_over.is_set():
            if way == CHECKPOINTS:
                request_id = secrets.token_bytes(16)
                for request in (BackupBegin(request_id), BackupEnd(request_id)):
                    mq._link.call(request, mq._deadline())  # pyright: ignore[reportPrivateUsage]
                time.sleep(PAUSE_SECONDS)
            else:
                back_up(url, place / WAYS[way])
            count.value += 1


def back_up(url: str, target: Path) -> None:
    """By the command, in a process of its own."""
    command = [sys.executable, "-m", "rocksmq.clients.cli", "--url", url, "backup", "create", str(target)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    shutil.rmtree(target) if target.is_dir() else target.unlink()


def probed(broker: Broker, seconds: float, way: str, place: Path) -> Taken:
    """Produce, one after the other, while something is done in another process."""
    url, wakes = broker.url, Wakes.of(broker)
    produces: list[float] = []
    count: Synchronized[int] = multiprocessing.Value("i", 0)
    is_over = multiprocessing.Event()
    acting = multiprocessing.Process(target=act, args=(way, url, place, is_over, count))
    if way != NOTHING:
        acting.start()
    with Client(url, timeout=60) as mq:
        before = sum(mq.describe_channel(channel).byte_count for channel in LOADED)
        begin = time.perf_counter()
        while (now := time.perf_counter()) < begin + seconds:
            mq.produce(PROBED, [b"x" * 100])
            produces.append(time.perf_counter() - now)
        passed = time.perf_counter() - begin
        after = sum(mq.describe_channel(channel).byte_count for channel in LOADED)
    is_over.set()
    if way != NOTHING:
        acting.join()
    woken = Wakes(*(now - then for now, then in zip(Wakes.of(broker), wakes, strict=True)))
    return Taken(count.value, woken, produces, after - before, passed)


def row(name: str, rounds: list[Taken], without: list[Taken]) -> dict[str, object]:
    """Medians of the rounds."""

    def p99(taken: Taken) -> float:
        return quantiles(taken.produces, n=100)[98]

    ratios = [p99(taken) / p99(other) for taken, other in zip(rounds, without, strict=True)]
    produces = [seconds for taken in rounds for seconds in taken.produces]
    return {
        "meanwhile": name,
        "count": sum(taken.times for taken in rounds),
        "produces": len(produces),
        "p50 ms": round(median(median(taken.produces) for taken in rounds) * 1e3, 2),
        "p99 ms": round(median(map(p99, rounds)) * 1e3, 2),
        "max ms": round(median(max(taken.produces) for taken in rounds) * 1e3, 1),
        "p99 / without": f"{median(ratios):.2f} ({min(ratios):.2f} .. {max(ratios):.2f})",
        "over 10 ms": f"{sum(seconds > LONG_SECONDS for seconds in produces) / len(produces):.2%}",
        "loop late": f"{sum(taken.wakes.late for taken in rounds) / sum(taken.wakes.all for taken in rounds):.2%}",
        "MB/s": round(median(taken.loaded / taken.seconds for taken in rounds) / 1e6),
    }


@click.command()
@click.option("--rounds", type=click.IntRange(min=1), default=3, show_default=True)
@click.option("--seconds", type=float, default=10.0, show_default=True, help="Of each measurement.")
@click.option("--stored-mb", type=int, default=1_000, show_default=True, help="What is stored before.")
@click.option("--rate-mb", type=float, help="Of both producers together, a second. [default: what they can]")
@click.option(
    "--target", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Where backups go. [default: DIR]"
)
@click.option("--dir", "parent", type=click.Path(exists=True, file_okay=False), help="Where the broker's directory is made.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
def main(
    rounds: int, seconds: float, stored_mb: int, rate_mb: float | None, target: Path | None, parent: str | None, as_json: bool
) -> None:
    """Measure the latency of produce without and with backups, under load."""
    taken: dict[str, list[Taken]] = {}
    rate = None if rate_mb is None else rate_mb * 1e6 / len(LOADED)
    with tempfile.TemporaryDirectory(prefix="rocksmq-bench-", dir=parent) as name:
        place = target or Path(name)
        for _ in range(rounds):
            with Broker(Path(name) / "data", http="127.0.0.1:0") as broker:
                with broker.client(60) as mq:
                    for channel in (PROBED, *LOADED):
                        mq.create_channel(channel)
                    payloads = [secrets.token_bytes(1_000) for _ in range(1_000)]
                    for _ in range(stored_mb):
                        mq.produce("large", payloads)
                url, stop = broker.url, multiprocessing.Event()
                loads = [multiprocessing.Process(target=load, args=(url, channel, rate, stop)) for channel in LOADED]
                for process in loads:
                    process.start()
                probed(broker, 1.0, NOTHING, place)
                for way in WAYS:
                    taken.setdefault(way, []).append(probed(broker, seconds, way, place))
                stop.set()
                for process in loads:
                    process.join()
            shutil.rmtree(Path(name) / "data")
    records = [row(way, found, taken[NOTHING]) for way, found in taken.items()]
    show_table(records, COLUMNS, as_json=as_json)


if __name__ == "__main__":
    main()
