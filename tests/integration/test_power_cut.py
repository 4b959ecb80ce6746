"""A power cut under the write-ahead log, imitated: no synced write may be lost, nothing torn may come back.

A process writes; it is stopped and its files are copied right after a sync (A) and again after
more writes without one (B). What a power cut may leave is any mix of the two, but for what
RocksDB synced by itself between them, which strace tells: each page of a log that
differs comes from either, a log that grew has any length, a rename may be undone.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import NamedTuple

import pytest

from rocksmq.broker import keys
from rocksmq.broker.store import Family
from tests.helpers.raw_strace import calls, needs_strace, strace
from tests.integration.wal_writer import open_store, records, value_of

SEED = int(os.environ.get("TEST_SEED", "7660"))
MEMTABLE_BYTES = 1 << 20
PAGE_BYTES = 4_096
SECTOR_BYTES = 512
ROUNDS = 10
CUTS_A_ROUND = 2
MIXES_A_CUT = 4


class Files(NamedTuple):
    """A copy of a database directory; its logs by name: inode and bytes; how far the trace had come."""

    path: Path
    logs: dict[str, tuple[int, bytes]]
    traced: int


class Durable(NamedTuple):
    """What RocksDB made durable by itself: logs whose bytes, and names whose rename cannot be lost."""

    contents: set[str]
    names: set[str]


class Writer:
    """The writing process."""

    def __init__(self, directory: Path, seed: int) -> None:
        self.directory = directory
        self.trace = directory.with_suffix(".trace")
        command = [sys.executable, "-m", "tests.integration.wal_writer", str(directory), str(seed), str(MEMTABLE_BYTES)]
        self._process = subprocess.Popen(
            [*strace(self.trace, "fdatasync,fsync,rename"), *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._answer()

    def write(self, count: int) -> int:
        """Append without a sync; the number of records so far."""
        return self._do(f"write {count}")

    def sync(self) -> int:
        """Sync; the number of records so far."""
        return self._do("sync")

    def copy(self, path: Path) -> Files:
        """The files as they are at one moment: nothing moves meanwhile, not even RocksDB's own threads."""
        self._process.send_signal(signal.SIGSTOP)
        while any(task.read_text().rsplit(")", 1)[1].split()[0] not in "Tt" for task in self._tasks()):
            time.sleep(0.001)
        try:
            shutil.copytree(self.directory, path)
            logs = {log.name: (log.stat().st_ino, log.read_bytes()) for log in self.directory.glob("*.log")}
            traced = self.traced()
        finally:
            self._process.send_signal(signal.SIGCONT)
        return Files(path, logs, traced)

    def traced(self) -> int:
        """How many calls were traced so far."""
        return len(calls(self.trace))

    def durable(self, since: int, until: int) -> Durable:
        """What was synced between two calls of the trace, beyond what the test asked for."""
        contents: set[str] = set()
        names: set[str] = set()
        renamed: set[str] = set()
        for call in calls(self.trace)[since:until]:
            if call.name == "rename":
                renamed.add(call.arguments.rstrip('"').rsplit("/", 1)[1])
            elif call.path == str(self.directory):
                names |= renamed
            elif call.path.endswith(".log"):
                contents.add(Path(call.path).name)
        return Durable(contents, names)

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()

    def _tasks(self) -> list[Path]:
        return list(Path(f"/proc/{self._process.pid}/task").glob("*/stat"))

    def _do(self, command: str) -> int:
        assert self._process.stdin is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> int:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"the writer ended with exit code {self._process.wait()}"
        return int(line)


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[Writer]:
    process = Writer(tmp_path / "db", SEED)
    try:
        yield process
    finally:
        process.close()


def torn(random: Random, synced: bytes, later: bytes, keep: float) -> bytes:
    """``later`` with each page that differs taken from ``synced`` instead, but for a share ``keep`` of them."""
    unit = random.choice((PAGE_BYTES, PAGE_BYTES, SECTOR_BYTES))
    size = len(later) if len(later) <= len(synced) else random.randrange(len(synced), len(later) + 1)
    old = synced.ljust(size, b"\0")
    pieces = (
        later[at : min(at + unit, size)] if random.random() < keep else old[at : min(at + unit, size)]
        for at in range(0, size, unit)
    )
    return b"".join(pieces)


def mix(random: Random, synced: Files, later: Files, durable: Durable, path: Path) -> None:
    """One state that a power cut at the time of ``later`` may leave."""
    shutil.copytree(later.path, path)
    by_inode = {inode: (name, content) for name, (inode, content) in synced.logs.items()}
    keep = random.choice((0.05, 0.5, 0.9, 0.99))
    for name, (inode, content) in later.logs.items():
        if name in durable.contents:
            continue
        old_name, old = by_inode.get(inode, (name, b""))
        (path / name).unlink()
        renamed = name in durable.names or random.random() < 0.7
        (path / (name if renamed else old_name)).write_bytes(torn(random, old, content, keep))


def check(path: Path, synced_count: int, written_count: int) -> int:
    """Open what is left; how many records there are. Synced ones all, the others a prefix, none torn."""
    store = open_store(path, MEMTABLE_BYTES)
    try:
        count = 0
        for number, value in records(store):
            assert number == count, f"record {count} is missing: the next one is {number}"
            assert value == value_of(SEED, number), f"record {number} is damaged"
            count += 1
        commit = store.get(Family.META, keys.COMMIT_NUMBER)
    finally:
        store.close()
    assert synced_count <= count <= written_count, (
        f"{count} records, though {synced_count} were synced, {written_count} written"
    )
    assert commit is not None
    assert keys.from_u64(commit) == count - 1, "the families disagree"
    return count


@needs_strace
@pytest.mark.slow
def test_given_many_logs_when_a_power_cut_mixes_pages_then_every_synced_write_is_there(tmp_path: Path, writer: Writer) -> None:
    # Given: logs that were used before, full of old records with valid checksums.
    random = Random(SEED)
    mixes = lost = 0
    for turn in range(ROUNDS):
        writer.write(random.randrange(400, 900))
        written = writer.traced()
        synced_count = writer.sync()
        synced = writer.copy(tmp_path / f"synced-{turn}")
        assert max(synced.logs) in writer.durable(written, synced.traced).contents, "the sync did not reach the log"
        for cut in range(CUTS_A_ROUND):
            # When: more is written without a sync, and the power goes.
            written_count = writer.write(random.choice((1, 5, 40, 400)))
            later = writer.copy(tmp_path / f"later-{turn}-{cut}")
            durable = writer.durable(synced.traced, later.traced)
            for number in range(MIXES_A_CUT):
                path = tmp_path / f"mix-{turn}-{cut}-{number}"
                mix(random, synced, later, durable, path)
                # Then
                count = check(path, synced_count, written_count)
                print(f"seed {SEED}, mix {turn}.{cut}.{number}: {synced_count} synced, {written_count} written, {count} found")  # noqa: T201
                mixes += 1
                lost += count < written_count
                shutil.rmtree(path)
            shutil.rmtree(later.path)
        shutil.rmtree(synced.path)
    print(f"{mixes} mixes, {lost} of them lost something unsynced")  # noqa: T201
    assert lost, "no mix lost anything: the test shows nothing"
