"""Apache Pulsar standalone, and pulsar-lite, by pulsar-client."""
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownLambdaType=false

import importlib.metadata
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pulsar

from rocksmq.clients.bench.latency import WARM_UP
from tests.helpers import pulsar as servers

from .peer import Peer, PeerFailed, Serving, Timed

PENDING = 20_000
BATCH_MESSAGES = 1_000
BATCH_BYTES = 2**20
DELAY_MS = 10
RECEIVE = (5_000, 8 * 2**20, 1_000)  # messages, bytes, milliseconds
SECONDS = 60.0


class PulsarLite(Peer):
    """As `Peer`."""

    name = "pulsar-lite"
    modes: ClassVar = {"default": "no fsync"}
    needs = "pip install pulsar-lite pulsar-client"

    @classmethod
    def is_here(cls) -> bool:
        return True

    def versions(self) -> str:
        version = importlib.metadata.version
        return f"pulsar-lite {version('pulsar-lite')}, pulsar-client {version('pulsar-client')}"

    def serve(self, directory: Path) -> Generator[Serving, None, None]:
        with servers.PulsarLite(directory) as server:
            yield Serving(server.url, server.pid)

    def _client(self) -> Any:
        """Kept, for its destructor waits ten seconds for its connections."""
        self._kept = pulsar.Client(self.url, logger=pulsar.ConsoleLogger(pulsar.LoggerLevel.Error))
        return self._kept

    def create(self, topics: Sequence[str]) -> None:
        """A topic comes with its first producer."""

    def produce(self, topic: str, payloads: Sequence[bytes], timed: Timed) -> None:
        self._produce([topic], PENDING, payloads, timed)

    def spread(self, topics: Sequence[str], payloads: Sequence[bytes], timed: Timed) -> None:
        self._produce(topics, BATCH_MESSAGES, payloads, timed)

    def _produce(self, topics: Sequence[str], pending: int, payloads: Sequence[bytes], timed: Timed) -> None:
        client = self._client()
        producers = [
            client.create_producer(
                topic,
                block_if_queue_full=True,
                max_pending_messages=pending,
                batching_enabled=True,
                batching_max_messages=BATCH_MESSAGES,
                batching_max_allowed_size_in_bytes=BATCH_BYTES,
                batching_max_publish_delay_ms=DELAY_MS,
            )
            for topic in topics
        ]
        changed = threading.Condition()
        settled, failed = 0, 0

        def on_settled(result: object, _: object) -> None:
            nonlocal settled, failed
            with changed:
                settled += 1
                failed += result != pulsar.Result.Ok
                changed.notify()

        for chunk in timed.chunks(payloads):
            for number, payload in enumerate(chunk):
                producers[number % len(producers)].send_async(payload, on_settled)
        for producer in producers:
            producer.flush()
        with changed:
            if not changed.wait_for(lambda: settled == timed.done, SECONDS) or failed:
                raise PeerFailed(f"{failed} refused, {timed.done - settled} unconfirmed of {timed.done}")

    def consume(self, topic: str, timed: Timed) -> None:
        consumer = self._client().subscribe(
            topic,
            "readers",
            initial_position=pulsar.InitialPosition.Earliest,
            receiver_queue_size=2 * RECEIVE[0],
            batch_receive_policy=pulsar.ConsumerBatchReceivePolicy(*RECEIVE),
        )
        while not timed.is_over:
            messages = consumer.batch_receive()
            if messages:
                payloads = [message.data() for message in messages]
                consumer.acknowledge_cumulative(messages[-1])
                timed.got(len(payloads))

    def one_at_a_time(self, topic: str, payload: bytes, count: int) -> list[float]:
        producer = self._client().create_producer(topic, batching_enabled=False)
        taken: list[float] = []
        for _ in range(WARM_UP + count):
            begin = time.perf_counter()
            producer.send(payload)
            taken.append(time.perf_counter() - begin)
        return taken[WARM_UP:]

    def pace(self, topic: str, due: Iterator[bytes]) -> None:
        producer = self._client().create_producer(topic, batching_enabled=False)
        for payload in due:
            producer.send_async(payload, lambda *_: None)
        producer.flush()

    def receive(self, topic: str, count: int, ready: Callable[[], None], got: Callable[[bytes], None]) -> None:
        consumer = self._client().subscribe(topic, "waiting", initial_position=pulsar.InitialPosition.Earliest)
        ready()
        for _ in range(count):
            message = consumer.receive(timeout_millis=int(SECONDS * 1_000))
            got(message.data())
            consumer.acknowledge(message)


class Pulsar(PulsarLite):
    """As `Peer`."""

    name = "Pulsar"
    modes: ClassVar = {"fsync": "fsync of its journal, the default"}
    needs = "apt-get install openjdk-17-jdk-headless maven"

    @classmethod
    def is_here(cls) -> bool:
        return servers.refusal() is None

    def versions(self) -> str:
        return f"Pulsar {servers.VERSION}, pulsar-client {importlib.metadata.version('pulsar-client')}"

    def serve(self, directory: Path) -> Generator[Serving, None, None]:
        with servers.Pulsar(directory) as server:
            server.start()
            yield Serving(server.url, server.pid)
