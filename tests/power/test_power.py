"""A broker on a disk that loses its power, or that fails its calls: what was acknowledged is there, and it says what is wrong.

The plan of each cut follows from the seed, which is printed. TEST_SEED replays another one, TEST_POWER_CUTS asks for more.
"""

import errno
import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from rocksmq.broker.daemon import EXIT_STORAGE_FAILED
from rocksmq.clients import Client, DiskFull, RocksMQError
from tests.helpers.ledger import Ledger, wait_until

from .cuts import SmallTables, loses, run
from .disk import Cut, Fault
from .mounted import PowerDisk, require_fuse

SEED = os.environ.get("TEST_SEED", "7660")
CUTS = int(os.environ.get("TEST_POWER_CUTS", "3"))
CALLS = ("write", "fsync", "create", "rename", "unlink")
BEFORE, DURING = 20, 60  # batches around the beginning of a fault, which fill memtables
SLOW_SENDS = 5
CHANNEL = "orders"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[PowerDisk]:
    require_fuse()
    with PowerDisk(tmp_path / "disk") as mounted:
        yield mounted


@pytest.fixture
def broker(disk: PowerDisk, tmp_path: Path) -> Iterator[SmallTables]:
    process = SmallTables(disk.directory / "data", http="127.0.0.1:0")
    process.log = tmp_path / "broker.log"
    with process as started:
        with started.client() as mq:
            mq.create_channel(CHANNEL)
        yield started


class Sender:
    """Batches of one producer, with their ledger; a failure of one is told, and no fault of the test."""

    def __init__(self) -> None:
        self.ledger = Ledger()
        self.failures: list[RocksMQError] = []
        self._number = 0

    def send(self, mq: Client, count: int) -> int:
        """Up to the first that fails; how many were acknowledged."""
        acknowledged = 0
        for _ in range(count):
            attempt, payloads = self.ledger.begin(CHANNEL, "one", self._number, [bytes(50_000)])
            self._number += 1
            try:
                self.ledger.acknowledged(attempt, mq.produce(CHANNEL, payloads))
                acknowledged += 1
            except RocksMQError as error:
                self.failures.append(error)
                break
        return acknowledged


@pytest.mark.slow
@pytest.mark.parametrize("how", Cut)
def test_given_power_cuts_under_load_when_started_again_then_all_that_was_acknowledged_is_there(
    tmp_path: Path, how: Cut
) -> None:
    require_fuse()
    report = run(tmp_path, f"{SEED}/{how}", how, CUTS, "fsync", print)
    assert report.cuts == CUTS
    assert report.unsynced > 0, "nothing was at stake"


@pytest.mark.parametrize("how", Cut)
def test_given_no_fsync_when_the_power_is_cut_then_the_ledger_misses_something(tmp_path: Path, how: Cut) -> None:
    require_fuse()
    missing = loses(tmp_path, f"{SEED}/{how}", how, 10, "os", print)
    assert missing is not None
    assert re.search("is lost|is gone|handed out", missing), missing


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC], ids=["EIO", "ENOSPC"])
@pytest.mark.parametrize("call", CALLS)
def test_given_calls_that_fail_when_producing_then_nothing_acknowledged_is_lost_whether_it_goes_on_or_ends(
    disk: PowerDisk, broker: SmallTables, call: str, number: int
) -> None:
    sender = Sender()
    with broker.client(timeout=1) as mq:
        assert sender.send(mq, BEFORE) == BEFORE
        disk.fault(Fault(call, "/db/", number))
        sender.send(mq, DURING)
        disk.fault(None)
        wait_until(lambda: not broker.is_running or bool(sender.send(mq, 1)), "it takes messages again, or ends")
    if broker.is_running:
        broker.kill()
    else:
        assert broker.wait() == EXIT_STORAGE_FAILED, broker.log.read_text()[-2_000:]
        assert broker.log.read_text().splitlines()[-1].startswith("rocksmqd: ")
    disk.cut(Cut.REORDERED, SEED)
    broker.start()
    with broker.client() as mq:
        assert sender.ledger.check(mq, [CHANNEL]) >= BEFORE
        assert sender.send(mq, 1) == 1


def test_given_an_fsync_that_fails_when_producing_then_exit_5_and_nothing_more_is_acknowledged(
    disk: PowerDisk, broker: SmallTables
) -> None:
    sender = Sender()
    with broker.client(timeout=1) as mq:
        sender.send(mq, 1)
        disk.fault(Fault("fsync", "/db/", errno.EIO))
        assert sender.send(mq, 1) == 0
        assert broker.wait() == EXIT_STORAGE_FAILED
        assert sender.send(mq, 1) == 0
    disk.fault(None)
    disk.cut(Cut.CLEAN, SEED)  # what a failed fsync leaves in the page cache counts for nothing
    broker.start()
    with broker.client() as mq:
        assert sender.ledger.check(mq, [CHANNEL]) == 1


def test_given_no_space_for_writes_when_producing_then_disk_full_and_it_goes_on_with_space(
    disk: PowerDisk, broker: SmallTables
) -> None:
    sender = Sender()
    with broker.client(timeout=1) as mq:
        sender.send(mq, 1)
        disk.fault(Fault("write", "/db/", errno.ENOSPC))
        assert sender.send(mq, 1) == 0
        assert isinstance(sender.failures[0], DiskFull)
        disk.fault(None)
        wait_until(lambda: bool(sender.send(mq, 1)), "it takes messages again")
        assert sender.ledger.check(mq, [CHANNEL]) == 2


def test_given_writes_that_are_short_when_producing_then_all_is_stored(disk: PowerDisk, broker: SmallTables) -> None:
    sender = Sender()
    disk.fault(Fault("write", "/db/", share=0.3))
    with broker.client() as mq:
        assert sender.send(mq, DURING) == DURING
    broker.kill()
    disk.cut(Cut.CLEAN, SEED)
    broker.start()
    with broker.client() as mq:
        assert sender.ledger.check(mq, [CHANNEL]) == DURING


def test_given_a_slow_fsync_when_producing_then_others_are_served_meanwhile(disk: PowerDisk, broker: SmallTables) -> None:
    sender = Sender()
    with broker.client() as mq, broker.client() as reader:
        sender.send(mq, 1)
        disk.fault(Fault("fsync", "/db/", seconds=0.5))
        sender.send(mq, 3)  # by now it knows that the disk is slow
        sending = threading.Thread(target=sender.send, args=(mq, SLOW_SENDS))
        sending.start()
        reads = 0
        while sending.is_alive():
            assert reader.fetch(CHANNEL, "earliest", 1)
            reads += 1
        sending.join()
        assert reads > 4 * SLOW_SENDS, "readers wait for the disk of the producers"
        assert (sender.failures, sender.ledger.check(mq, [CHANNEL])) == ([], 4 + SLOW_SENDS)
