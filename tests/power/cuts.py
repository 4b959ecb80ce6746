"""A broker whose disk loses its power under load, again and again, and a ledger of what it had acknowledged."""

import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import NamedTuple

from rocksmq.clients.testing import Broker
from tests.helpers.ledger_crashes import CHANNELS, Crashes

from .disk import Cut
from .mounted import PowerDisk

STARTING_SHARE = 0.25  # of the cuts, these are followed by another one in the start
CUTS_A_DISK = 20  # then a new one: what is on it is held in memory, twice
STUCK_SECONDS = 12.0  # RocksDB itself tries every 5 s
MEMTABLE_BYTES = 1 << 20  # so that tables are written, logs deleted and manifests changed, many times


class Report(NamedTuple):
    """What a run has seen; ``unsynced``: changes of files and directories that were at stake in the cuts."""

    cuts: int
    acknowledged: int
    messages: int
    unsynced: int
    seconds: float


class SmallTables(Broker):
    """Its memtable is soon full."""

    @property
    def is_running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def command(self) -> list[str]:
        python, *options, module = (words := super().command())[:4]
        assert (options, module) == (["-P", "-m"], "rocksmq.broker"), "the broker is a module that is run"
        own = ["--memtable-bytes", str(MEMTABLE_BYTES), "--stuck-seconds", str(STUCK_SECONDS)]
        return [python, "-m", "tests.crash.faulty_broker", *own, "--", *words[4:]]


def run(directory: Path, seed: str, how: Cut, cuts: int, durability: str, tell: Callable[[str], object]) -> Report:
    """``cuts`` power cuts on one disk. Raises AssertionError, or RuntimeError by a start, when anything is missing."""
    begin, random = time.monotonic(), Random(f"{seed}/cuts")
    with PowerDisk(directory / "disk") as disk:
        broker = SmallTables(disk.directory / "data", "--durability", durability)
        broker.log = directory / "broker.log"
        with broker:
            crashes = Crashes(broker, seed)
            with broker.client() as mq:
                crashes.create(mq)
            done = unsynced = messages = 0
            while done < cuts:
                crashes.crash(done)
                unsynced += disk.cut(how, f"{seed}/{done}")
                if random.random() < STARTING_SHARE:
                    crashes.crash_while_starting()
                    unsynced += disk.cut(how, f"{seed}/{done}/starting")
                done += 1
                broker.start()
                found = crashes.check(done - 1)
                messages += found
                tell(f"seed {seed}, {how}, cut {done} of {cuts}: {found} messages more, {unsynced} changes unsynced so far")
            crashes.check_the_end()
            assert all(crashes.ledger.logs[channel].ids for channel in CHANNELS), "nothing was stored"
            acknowledged = crashes.ledger.acknowledged_count
    return Report(done, acknowledged, messages, unsynced, time.monotonic() - begin)


def loses(directory: Path, seed: str, how: Cut, cuts: int, durability: str, tell: Callable[[str], object]) -> str | None:
    """What is missing after so many cuts at the latest, in the words of who noticed: the ledger or the broker itself."""
    try:
        run(directory, seed, how, cuts, durability, tell)
    except (AssertionError, RuntimeError) as error:
        return str(error)
    return None
