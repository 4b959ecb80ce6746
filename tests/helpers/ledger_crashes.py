"""Everyone who works on a broker that is struck down, and the ledger of it all, over all its lives."""

import subprocess
import time
from random import Random

from rocksmq.clients import Client
from rocksmq.clients.testing import Broker

from .ledger import Ledger
from .ledger_admin import AdminLedger
from .ledger_group import GroupLedger
from .ledger_load import Load, StubbornConsumer, StubbornProducer, batches, consume, pipeline, produce, tail
from .raw import Raw

CHANNELS = ("orders", "clicks", "mixed")


class Crashes:
    """A broker, its ledger, and everyone who works on it."""

    def __init__(self, broker: Broker, seed: str) -> None:
        self.broker = broker
        self.random = Random(seed)
        self._seed = seed
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
        load = Load(self.ledger, self.broker.url, f"{self._seed}/{cycle}")
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
