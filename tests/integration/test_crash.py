"""kill -9 at random moments under load: what was acknowledged stays, in order, with the right positions.

The plan of each cycle (who sends how much, when the kill comes) follows from the seed, which is printed.
TEST_SEED replays another one, TEST_CRASH_CYCLES asks for more.
"""

import os
import subprocess
import time
from pathlib import Path
from random import Random

import pytest

from rocksmq.clients import Client
from rocksmq.clients.testing import Broker
from tests.helpers.ledger import Ledger
from tests.helpers.ledger_admin import AdminLedger
from tests.helpers.ledger_group import GroupLedger
from tests.helpers.ledger_load import Load, StubbornConsumer, StubbornProducer, batches, consume, pipeline, produce, tail
from tests.helpers.raw import Raw

SEED = int(os.environ.get("TEST_SEED", "7660"))
CYCLES = int(os.environ.get("TEST_CRASH_CYCLES", "50"))
CHANNELS = ("orders", "clicks", "mixed")


class Crashes:
    """A broker, its ledger, and everyone who works on it."""

    def __init__(self, broker: Broker, mode: str) -> None:
        self.broker = broker
        self.random = Random(f"{SEED}/{mode}")
        self.ledger = Ledger()
        self.single = GroupLedger(self.ledger, "orders", "single")
        self.shared = GroupLedger(self.ledger, "clicks", "shared")
        self.certain = GroupLedger(self.ledger, "mixed", "certain", certain=True)
        self.admin = AdminLedger(self.ledger, "orders", "moved")
        self.stubborn_producer = StubbornProducer(self.ledger, "mixed", "stubborn")
        self.stubborn_consumer = StubbornConsumer(self.certain)
        self.groups = (self.single, self.shared, self.certain)

    def create(self, mq: Client) -> None:
        for channel in CHANNELS:
            mq.create_channel(channel)
        for group in self.groups:
            mq.create_consumer_group(group.channel, group.group)
        self.admin.create(mq)

    def load(self, cycle: int) -> Load:
        """Everyone at work."""
        load = Load(self.ledger, self.broker.url, f"{SEED}/{cycle}")
        address = self.broker.address
        load.start("one", produce(self.ledger, "orders", f"one-{cycle}", 1))
        load.start("two", produce(self.ledger, "mixed", f"two-{cycle}", 1))
        load.start("batches", produce(self.ledger, "clicks", f"batches-{cycle}", 30))
        load.start("pipeline", pipeline(self.ledger, "clicks", f"pipeline-{cycle}", batches(10)))
        load.start("single", consume(self.single, 50))
        load.start("shared-1", consume(self.shared, 50))
        load.start("shared-2", consume(self.shared, 200))
        load.start("tail", tail(self.ledger, "orders"))
        load.start("admin", self.admin.work(cycle))
        load.start("stubborn-producer", self.stubborn_producer.work(address))
        load.start("stubborn-consumer", self.stubborn_consumer.work(address))
        return load

    def crash(self, cycle: int) -> None:
        """Work until a random moment, then kill -9."""
        load = self.load(cycle)
        try:
            self.ledger.wait_for(self.ledger.acknowledged_count + self.random.randint(1, 400))
            time.sleep(self.random.random() * 0.01)  # the moment is any, not just behind an acknowledgement
        finally:
            self.broker.kill()
            load.stop()

    def crash_while_starting(self) -> None:
        """Kill it again at a random moment of its start."""
        with self.broker.log.open("a") as log:
            process = subprocess.Popen(self.broker.command(), stdout=subprocess.DEVNULL, stderr=log)
        time.sleep(self.random.random() * 0.3)
        process.kill()
        process.wait()

    def check(self, cycle: int) -> int:
        """Hold the broker against the ledger."""
        with self.broker.client() as mq:
            found = self.ledger.check(mq, CHANNELS)
            for group in self.groups:
                group.check(mq)
            self.admin.check(mq)
        self.ledger.give_up_unanswered(f"{name}-{cycle}" for name in ("one", "two", "batches", "pipeline"))
        return found

    def check_the_end(self) -> None:
        """Everything once more, and nothing of what was repeated is missing or double."""
        with Raw(self.broker.address) as raw, self.broker.client() as mq:
            self.stubborn_producer.settle(raw)
            self.stubborn_consumer.settle(raw)
            self.ledger.check(mq, CHANNELS)
            for group in self.groups:
                group.check(mq)
            self.ledger.check_again(mq)


def run_cycles(tmp_path: Path, mode: str, cycles: int) -> None:
    with Broker(tmp_path / "data", "--durability", mode) as broker:
        crashes = Crashes(broker, mode)
        with broker.client() as mq:
            crashes.create(mq)
        for cycle in range(cycles):
            crashes.crash(cycle)
            if crashes.random.random() < 0.2:
                crashes.crash_while_starting()
            begin = time.perf_counter()
            broker.start()
            ready_s = time.perf_counter() - begin
            found = crashes.check(cycle)
            print(  # noqa: T201
                f"seed {SEED}, {mode}, cycle {cycle}: {crashes.ledger.acknowledged_count} acknowledgements so far,"
                f" {found} messages more, ready after {ready_s:.3f} s"
            )
        crashes.check_the_end()
    assert "Traceback" not in broker.log.read_text()


@pytest.mark.slow
def test_given_fsync_when_killed_50_times_then_nothing_acknowledged_is_lost_doubled_or_reordered(tmp_path: Path) -> None:
    run_cycles(tmp_path, "fsync", CYCLES)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["os", "interval:50"])
def test_given_a_weaker_mode_when_killed_then_nothing_acknowledged_is_lost_doubled_or_reordered(
    tmp_path: Path, mode: str
) -> None:
    run_cycles(tmp_path, mode, max(1, CYCLES // 5))
