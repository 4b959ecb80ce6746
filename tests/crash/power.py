"""An imitated power cut: what the broker did not sync is gone, as if the page cache had never reached the disk.

kill -9 alone loses nothing that was written, so a broker that forgot its fsync would pass every test. Here the broker
notes behind each real sync how long its logs (RocksDB's write-ahead logs) were; after a kill `cut_power` takes
from them what came later. The worst case is taken, unless a `random` says how much of the tail is left.

Only the newest log is cut. The others were closed when a memtable was full, and RocksDB syncs them by itself before a
table made of them counts; to cut them would leave a state that no power cut can.
"""

import json
import os
import threading
from pathlib import Path
from random import Random

from rocksmq.broker.store import Store

from .faults import Method, wrap

Lengths = dict[str, int]


class SyncNotes:
    """Keeps the file of notes: the length in bytes of each log at the last sync. Outlives kill -9, as the logs do.

    Two syncs may run at the same time, of a commit and of where positions are kept.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lengths: Lengths = {}
        self._lock = threading.Lock()

    def install(self) -> None:
        """Take notes of the store of this process; call it before anything else is wrapped around `Store`."""
        directory = Path()

        def opened(original: Method, store: Store, path: Path) -> None:
            nonlocal directory
            original(store, path)
            directory = path
            self._note({})  # what was recovered is in tables, and the new log is empty

        def sync(original: Method, store: Store) -> None:
            lengths = _lengths(directory)  # all of this is synced when the call returns; perhaps more
            original(store)
            self._note(lengths)

        wrap(Store, "__init__", opened)
        wrap(Store, "sync", sync)

    def _note(self, lengths: Lengths) -> None:
        temporary = self._path.with_suffix(".new")
        with self._lock:
            for name, length in lengths.items():
                self._lengths[name] = max(length, self._lengths.get(name, 0))
            temporary.write_text(json.dumps(self._lengths))
            os.replace(temporary, self._path)


def cut_power(data_directory: Path, notes: Path, random: Random | None = None) -> int:
    """Take away what a broker that was killed had not synced; how many bytes that were.

    Without ``random`` all of it goes, a log that was never synced goes as a whole; with it, any part of the end.
    """
    directory = data_directory / "db"
    synced: Lengths = json.loads(notes.read_text())
    lengths = _lengths(directory)
    if not lengths:
        return 0
    newest = max(lengths)  # numbered, with leading zeros
    length, kept = lengths[newest], synced.get(newest, 0)
    assert kept <= length, f"{newest} has {length} bytes, though {kept} were synced"
    if random is not None:
        kept = random.randint(kept, length)
    if kept == 0:
        (directory / newest).unlink()
    else:
        os.truncate(directory / newest, kept)
    return length - kept


def _lengths(directory: Path) -> Lengths:
    lengths: Lengths = {}
    for log in directory.glob("*.log"):
        try:
            lengths[log.name] = log.stat().st_size
        except FileNotFoundError:
            continue  # RocksDB has just deleted it
    return lengths
