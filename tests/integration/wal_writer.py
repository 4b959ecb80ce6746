"""A process that writes numbered records into a `Store` on command, so that a test can stop it anywhere.

Commands on stdin: ``write N`` appends N records without a sync, ``switch`` as many as it takes until
another log is begun, ``sync`` syncs. Each is answered by the number of records so far. Record i is a
function of the seed and i.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random

from rocksmq.broker import keys, store, store_options
from rocksmq.broker.store import Family, Put, Store

VALUE_BYTES_MAX = 60_000  # more than a block of RocksDB's log, so that records are split


def value_of(seed: int, number: int) -> bytes:
    """What record ``number`` holds; most are small, as most group commits are."""
    random = Random(f"{seed}/{number}")
    return random.randbytes(random.choice((0, 17, 300, 4_096, random.randrange(VALUE_BYTES_MAX))))


def append(target: Store, seed: int, number: int) -> None:
    """One record, in one write with its number, like a group commit."""
    target.write(
        [
            Put(Family.DATA, keys.u64(number), value_of(seed, number)),
            Put(Family.META, keys.COMMIT_NUMBER, keys.u64(number)),
        ]
    )


def records(target: Store) -> Iterator[tuple[int, bytes]]:
    """All records in order of their numbers."""
    for key, value in target.scan(Family.DATA, b"", b"\xff" * 9):
        yield keys.from_u64(key), value


def newest_log(directory: Path) -> str:
    """The one that is written to: they are numbered, with leading zeros."""
    return max(name for name in os.listdir(directory) if name.endswith(".log"))


def main() -> None:
    directory, seed, memtable_bytes = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    store.MEMTABLE_BYTES = memtable_bytes  # logs are as small as it, so that there are many of them soon
    store_options.LEVEL0_FILES_SLOW = 1_000  # tables do not hold it up
    target = Store(directory)
    count = 0
    sys.stdout.write(f"{count}\n")
    sys.stdout.flush()
    for line in sys.stdin:
        command, *arguments = line.split()
        if command == "sync":
            target.sync()
        elif command == "switch":
            newest = newest_log(directory)
            while newest_log(directory) == newest:
                append(target, seed, count)
                count += 1
        else:
            for _ in range(int(arguments[0])):
                append(target, seed, count)
                count += 1
        sys.stdout.write(f"{count}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
