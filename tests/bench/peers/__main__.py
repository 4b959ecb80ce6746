"""`make bench-peers`: RocksMQ beside others, each in its modes of durability, in interleaved rounds on one machine.

    python -m tests.bench.peers [--rounds N] [--peer NAME] [--workload NAME] [--dir DIR] [--out FILE]

Each round starts a fresh server of each, measures all workloads with a client process of its own, and stops it. A line of JSON
for each figure goes to FILE; `python -m tests.bench.peers.table FILE` makes a table of them.
"""

import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from rocksmq.clients.bench.processes import Other, other
from rocksmq.clients.bench.usage import peak_memory_bytes
from rocksmq.protocol.errors import RocksMQError

from . import PEERS
from .peer import Peer, PeerFailed, Serving

PROJECT = Path(__file__).parents[3]
RESULTS = Path(__file__).with_name("results.jsonl")
WORKER = "tests.bench.peers.worker"
SECONDS_MIN = 2.0
SECONDS = 10.0  # for which messages are sent at most: the slowest would take an hour
COUNTS = {
    "produce-100B": 1_000_000,
    "produce-1KiB": 300_000,
    "send-100B": 1_000_000,
    "consume-100B": 1_000_000,
    "consume-1KiB": 300_000,
    "one-at-a-time": 2_000,
    "end-to-end": 2_000,
    "channels-100B": 100_000,
}
Record = dict[str, Any]


@click.command()
@click.option("--rounds", type=click.IntRange(min=1), default=3)
@click.option("--peer", "peers", multiple=True, type=click.Choice(list(PEERS)), default=list(PEERS))
@click.option("--workload", "workloads", multiple=True, type=click.Choice(list(COUNTS)), default=list(COUNTS))
@click.option("--part", type=click.FloatRange(0, 1, min_open=True), default=1.0, help="Of the messages and seconds.")
@click.option("--dir", "directory", type=click.Path(exists=True, file_okay=False, path_type=Path), default=PROJECT)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), default=RESULTS)
def main(rounds: int, peers: Sequence[str], workloads: Sequence[str], part: float, directory: Path, out: Path) -> None:
    """Measure; the data of all servers lie in DIR."""
    here = [PEERS[name] for name in peers if PEERS[name].is_here()]
    for peer in (PEERS[name] for name in peers if PEERS[name] not in here):
        click.echo(f"no {peer.name} here: {peer.needs}", err=True)
    with out.open("w") as file:
        for number in range(1, rounds + 1):
            for peer, mode in [(each, mode) for each in here for mode in each.modes]:
                click.echo(f"round {number} of {rounds}: {peer.name}, {mode}", err=True)
                about = {"peer": peer.name, "mode": mode, "means": peer.modes[mode], "versions": peer(mode).versions()}
                for record in _measured(peer, mode, workloads, part, directory):
                    file.write(json.dumps({**about, "round": number, **_machine(), **record}) + "\n")
                    file.flush()


def _machine() -> dict[str, str]:
    cores = len(os.sched_getaffinity(0))
    now = datetime.now(UTC).date().isoformat()
    return {"machine": f"{cores} cores, Python {platform.python_version()}, Linux {platform.release()}", "date": now}


def _measured(kind: type[Peer], mode: str, workloads: Sequence[str], part: float, directory: Path) -> Iterator[Record]:
    """One fresh server's figures. What fails is a record too: an error."""
    place = tempfile.TemporaryDirectory(prefix=".bench-", dir=directory)
    with place, contextmanager(kind(mode).serve)(Path(place.name) / "server") as serving:
        stored: dict[str, int] = {}
        for workload in workloads:
            if workload == "send-100B" and not kind.has_send:
                continue
            count = stored.get(workload.replace("consume", "produce"), int(COUNTS[workload] * part))
            try:
                found = _run(kind, mode, serving, workload, count, max(SECONDS_MIN, SECONDS * part))
                stored[workload] = found["count"]
            except (RocksMQError, PeerFailed) as error:
                found = {"error": str(error)}
            yield {"workload": workload, **found, "peak_memory": peak_memory_bytes(serving.pid)}


def _run(kind: type[Peer], mode: str, serving: Serving, workload: str, count: int, seconds: float) -> Record:
    def process(name: str) -> Any:
        return other(None, WORKER, kind.name, mode, serving.url, str(serving.pid), name, str(count), str(seconds))

    with process(workload) as first:
        if workload != "end-to-end":
            return _said(first)
        first.line()
        with process("end-to-end its sender") as sender:
            found = _said(first)
            sender.line()
            return found


def _said(process: Other) -> Record:
    said: Record = json.loads(process.line())
    return said


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(f"{error}: {error.stderr}")
