"""A power cut under the write-ahead log, imitated: no synced write may be lost, nothing torn may come back.

A process writes; it is stopped and its files are copied right after a sync (A) and again after
more writes without one (B). What a power cut may leave is any mix of the two, but for what
RocksDB synced by itself between them, which strace tells: each page of a log that
differs comes from either, and a log that grew has any length. A log is known by its name: RocksDB
never gives a number twice, and none is renamed. (An inode is given to a new file once its log is deleted.)
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
from rocksmq.broker.store import Family, Store
from tests.helpers.raw_strace import calls, needs_strace, strace
from tests.integration.wal_writer import records, value_of

SEED = int(os.environ.get("TEST_SEED", "7660"))
MEMTABLE_BYTES = 1 << 20
PAGE_BYTES = 4_096
SECTOR_BYTES = 512
ROUNDS = 10
CUTS_A_ROUND = 2
MIXES_A_CUT = 4
LOOKS = 30_000  # for half a minute


class Files(NamedTuple):
    """A copy of a database directory; its logs by name; how far the trace had come."""

    path: Path
    logs: dict[str, bytes]
    traced: int


class Writer:
    """The writing process."""

    def __init__(self, directory: Path, seed: int) -> None:
        self.directory = directory
        self.trace = directory.with_suffix(".trace")
        command = [sys.executable, "-m", "tests.integration.wal_writer", str(directory), str(seed), str(MEMTABLE_BYTES)]
        self._process = subprocess.Popen(
            [*strace(self.trace, "fdatasync,fsync,rename,write"), *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._answer()

    def write(self, count: int) -> int:
        """Append without a sync; the number of records so far."""
        return self._do(f"write {count}")

    def sync(self) -> int:
        """Sync; the number of records so far."""
        return self._do("sync")

    def switch(self) -> int:
        """Append without a sync until another log is begun; the number of records so far."""
        return self._do("switch")

    def copy(self, path: Path) -> Files:
        """The files as they are at one moment: nothing moves meanwhile, not even RocksDB's own threads."""
        self._process.send_signal(signal.SIGSTOP)
        try:
            for _ in range(LOOKS):
                if self._is_copied(path):
                    break
                shutil.rmtree(path, ignore_errors=True)
            else:
                pytest.fail("the writer does not stand still")
            return Files(path, {log.name: log.read_bytes() for log in path.glob("*.log")}, self.traced())
        finally:
            self._process.send_signal(signal.SIGCONT)

    def traced(self) -> int:
        """How many calls were traced so far."""
        return len(calls(self.trace))

    def durable(self, since: int, until: int) -> set[str]:
        """The logs that were synced between two calls of the trace, beyond what the test asked for."""
        traced = calls(self.trace)[since:until]
        assert not any(call.name == "rename" and call.arguments.endswith('.log"') for call in traced), "a log was renamed"
        return {Path(call.path).name for call in traced if call.name != "write" and call.path.endswith(".log")}

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()

    def _is_copied(self, path: Path) -> bool:
        """Copy if all stands still; whether it still did when the copy was done."""
        try:
            before = self._standing()
            if before is None:
                time.sleep(0.001)
                return False
            copy_files(self.directory, path)
            return self._standing() == before
        except OSError:  # a thread or a file went, so they did not stand
            return False

    def _standing(self) -> list[str] | None:
        """How often strace and each thread were on a processor until they stood; None: not all of them do.

        A thread looks stopped also while strace lets it into a call or out of it; but then strace itself is about to run.
        Once strace waits, all that it traced is in its file.
        """
        process = Path(f"/proc/{self._process.pid}")
        tracer = Path("/proc", _status(process)["TracerPid"])
        switches: list[str] = []
        for task, states in ((tracer, "S"), *((thread, "Tt") for thread in sorted(process.glob("task/*")))):
            status = _status(task)
            if status["State"][0] not in states:
                return None
            switches += [task.name, status["voluntary_ctxt_switches"], status["nonvoluntary_ctxt_switches"]]
        return switches

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


def _status(task: Path) -> dict[str, str]:
    """What the kernel tells of a task."""
    return dict(line.split(":\t", 1) for line in (task / "status").read_text().splitlines())


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[Writer]:
    process = Writer(tmp_path / "db", SEED)
    try:
        yield process
    finally:
        process.close()


def copy_files(source: Path, path: Path) -> None:
    """A database directory; tables are only linked, since they never change."""
    shutil.copytree(
        source, path, copy_function=lambda file, copy: (os.link if file.endswith(".sst") else shutil.copy)(file, copy)
    )


def torn(random: Random, synced: bytes, later: bytes, keep: float) -> bytes:
    """``later`` with each page that differs taken from ``synced`` instead, but for a share ``keep`` of them."""
    unit = random.choice((PAGE_BYTES, PAGE_BYTES, SECTOR_BYTES))
    size = random.choice((len(later), random.randint(min(len(synced), len(later)), len(later))))
    old = synced.ljust(size, b"\0")
    pieces = (
        later[at : min(at + unit, size)] if random.random() < keep else old[at : min(at + unit, size)]
        for at in range(0, size, unit)
    )
    return b"".join(pieces)


def mix(random: Random, synced: Files, later: Files, durable: set[str], path: Path) -> None:
    """One state that a power cut at the time of ``later`` may leave."""
    copy_files(later.path, path)
    keep = random.choice((0.05, 0.5, 0.9, 0.99))
    for name in sorted(later.logs.keys() - durable):
        (path / name).write_bytes(torn(random, synced.logs.get(name, b""), later.logs[name], keep))


def check(path: Path, synced_count: int, written_count: int) -> int:
    """Open what is left; how many records there are. Synced ones all, the others a prefix, none torn."""
    store = Store(path)
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
def test_given_writes_without_a_sync_when_another_log_is_begun_then_the_old_one_was_synced_first(writer: Writer) -> None:
    writer.write(1_000)
    unsynced: set[str] = set()
    begun: set[str] = set()
    for call in calls(writer.trace):
        log = Path(call.path).name
        if call.name == "write" and log.endswith(".log"):
            assert unsynced <= {log}, f"{unsynced} could lose their ends, and {log} would be left"
            unsynced.add(log)
            begun.add(log)
        elif call.name == "fdatasync":
            unsynced.discard(log)
    assert len(begun) > 3


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
        assert max(synced.logs) in writer.durable(written, synced.traced), "the sync did not reach the log"
        for cut in range(CUTS_A_ROUND):
            # When: more is written without a sync, until another log is begun or any while, and the power goes.
            written_count = writer.switch() if cut else writer.write(random.choice((1, 5, 40, 400)))
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
