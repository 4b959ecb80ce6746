"""Why a produce is one entry: 1,000 messages a commit as one value, beside one entry a message.

    python -m tests.bench.storage_layout

Prints messages a second for each layout and size, synced once a commit, in interleaved rounds.
"""

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from rocksmq.broker.keys import batch_key
from rocksmq.broker.store import Change, Family, Put, Store

BATCH = 1_000
ROUNDS = 3
SECONDS = 2.0


def one_entry_a_produce(store: Store, payloads: list[bytes], seconds: float) -> float:
    """Messages a second."""
    return _run(store, lambda first_id: [Put(Family.DATA, batch_key(1, first_id), b"".join(payloads))], seconds)


def one_entry_a_message(store: Store, payloads: list[bytes], seconds: float) -> float:
    """Messages a second."""
    return _run(
        store, lambda first_id: [Put(Family.DATA, batch_key(2, first_id + i), p) for i, p in enumerate(payloads)], seconds
    )


def _run(store: Store, changes: Callable[[int], list[Change]], seconds: float) -> float:
    count = 0
    begin = time.perf_counter()
    while (taken := time.perf_counter() - begin) < seconds:
        store.write(changes(count))
        store.sync()
        count += BATCH
    return count / taken


def main() -> None:
    for size in (100, 1_000):
        payloads = [os.urandom(size) for _ in range(BATCH)]
        rates: dict[str, list[float]] = {}
        for _ in range(ROUNDS):
            for layout in (one_entry_a_produce, one_entry_a_message):
                with tempfile.TemporaryDirectory(prefix=".bench-", dir=Path.cwd()) as directory:
                    store = Store(Path(directory) / "db")
                    rates.setdefault(layout.__name__, []).append(layout(store, payloads, SECONDS))
                    store.close()
        for name, values in rates.items():
            spread = f"{min(values):,.0f} .. {max(values):,.0f}"
            sys.stdout.write(f"{size:>5} B  {name:<20} {statistics.median(values):>12,.0f} msg/s  ({spread})\n")


if __name__ == "__main__":
    main()
