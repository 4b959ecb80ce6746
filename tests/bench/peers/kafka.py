"""Apache Kafka, one KRaft node with the flags of its own start script, by confluent-kafka.

python -m tests.bench.peers.kafka      fetches its jars from Maven Central, once: 110 MB, to ~/.cache
"""
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

import base64
import importlib.util
import os
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import confluent_kafka
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from rocksmq.clients.bench.latency import WARM_UP
from tests.helpers.etcd import free_port

from .peer import Peer, PeerFailed, Serving, Timed, has, running

VERSION = "4.3.1"
HOME = Path(os.environ.get("KAFKA_LIBS") or Path.home() / ".cache" / f"rocksmq-kafka-{VERSION}")
POM = Path(__file__).with_name("kafka-pom.xml")
FETCH_SECONDS = 900.0
QUEUED_MESSAGES = 500_000
FETCH_MESSAGES = 10_000
SECONDS = 60.0
_JVM = (
    *("-Xmx1G", "-Xms1G", "-server", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20", "-XX:InitiatingHeapOccupancyPercent=35"),
    *("-XX:+ExplicitGCInvokesConcurrent", "-Djava.awt.headless=true"),
)


class Kafka(Peer):
    """As `Peer`."""

    name = "Kafka"
    modes: ClassVar = {"default": "in the page cache", "fsync": "flush.messages=1"}
    needs = "apt-get install openjdk-17-jdk-headless maven; python -m tests.bench.peers.kafka"
    has_send = True

    @classmethod
    def is_here(cls) -> bool:
        return has("java") and HOME.is_dir() and importlib.util.find_spec("confluent_kafka") is not None

    def versions(self) -> str:
        return f"Kafka {VERSION}, confluent-kafka {confluent_kafka.__version__}"

    def serve(self, directory: Path) -> Generator[Serving, None, None]:
        directory.mkdir(parents=True)
        port, controller = free_port(), free_port()
        listeners = f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}"
        settings = {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.bootstrap.servers": f"localhost:{controller}",
            "listeners": listeners,
            "advertised.listeners": listeners,
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "PLAINTEXT",
            "log.dirs": str(directory / "logs"),
            "offsets.topic.replication.factor": "1",
            "offsets.topic.num.partitions": "1",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "group.initial.rebalance.delay.ms": "0",
        }
        config = directory / "server.properties"
        config.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        java = ("java", *_JVM, "-cp", f"{HOME}/*")
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        tool = ("kafka.tools.StorageTool", "format", "--standalone", "-t", cluster, "-c", str(config))
        subprocess.run([*java, *tool], check=True, capture_output=True)
        self.url = f"127.0.0.1:{port}"
        with running([*java, "kafka.Kafka", str(config)], directory, self._answers) as pid:
            yield Serving(self.url, pid)

    def _answers(self) -> bool:
        try:
            self._admin().list_topics(timeout=1)
        except confluent_kafka.KafkaException:
            return False
        return True

    def _admin(self) -> AdminClient:
        return AdminClient({"bootstrap.servers": self.url, "log_level": 0})

    def create(self, topics: Sequence[str]) -> None:
        config = {"flush.messages": "1"} if self.mode == "fsync" else {}
        admin = self._admin()  # which is to live until it is done
        made = admin.create_topics([NewTopic(topic, 1, 1, config=config) for topic in topics], request_timeout=SECONDS)
        for future in made.values():
            future.result()

    def _producer(self, failures: list[object], **settings: object) -> Producer:
        """Connected. Only what fails calls back: nothing left after a flush means that all the rest is confirmed."""

        def on_delivery(error: object, _: object) -> None:
            failures.append(error)

        producer = Producer(
            {
                "bootstrap.servers": self.url,
                "acks": "all",
                "delivery.report.only.error": True,
                "on_delivery": on_delivery,
                "queue.buffering.max.messages": 2 * QUEUED_MESSAGES,
                "queue.buffering.max.kbytes": 2**20,
                **settings,
            }
        )
        producer.list_topics(timeout=SECONDS)
        return producer

    def produce(self, topic: str, payloads: Sequence[bytes], timed: Timed) -> None:
        messages = [{"value": payload} for payload in payloads]

        def give(producer: Producer, chunk: Sequence[bytes]) -> None:
            if producer.produce_batch(topic, messages[: len(chunk)]) != len(chunk):
                raise PeerFailed("its queue is full")

        self._produce(give, payloads, timed)

    def send(self, topic: str, payloads: Sequence[bytes], timed: Timed) -> None:
        self.spread([topic] * len(payloads), payloads, timed)

    def spread(self, topics: Sequence[str], payloads: Sequence[bytes], timed: Timed) -> None:
        def give(producer: Producer, chunk: Sequence[bytes]) -> None:
            for topic, payload in zip(topics, chunk, strict=False):
                producer.produce(topic, payload)

        self._produce(give, payloads, timed)

    def _produce(self, give: Callable[[Producer, Sequence[bytes]], None], payloads: Sequence[bytes], timed: Timed) -> None:
        failures: list[object] = []
        producer = self._producer(failures, **{"linger.ms": 100, "batch.num.messages": 100_000})
        for chunk in timed.chunks(payloads):
            while len(producer) > QUEUED_MESSAGES:
                producer.poll(0.01)
            give(producer, chunk)
            producer.poll(0)
        if (left := producer.flush(SECONDS)) or failures:
            raise PeerFailed(f"{left} unconfirmed, {len(failures)} refused: {failures[:1]}")

    def _consumer(self, topic: str, settings: Mapping[str, object]) -> Consumer:
        consumer = Consumer({"bootstrap.servers": self.url, "group.id": topic, "auto.offset.reset": "earliest", **settings})
        consumer.subscribe([topic])
        return consumer

    def consume(self, topic: str, timed: Timed) -> None:
        # Otherwise one that has 100,000 messages queued pauses for a second.
        consumer = self._consumer(topic, {"queued.min.messages": 1_000_000, "fetch.queue.backoff.ms": 5})
        while not timed.is_over:
            messages = consumer.consume(num_messages=FETCH_MESSAGES, timeout=0.1)
            payloads = [message.value() for message in messages if message.error() is None]
            if payloads:
                timed.got(len(payloads))
        consumer.commit(asynchronous=False)

    def one_at_a_time(self, topic: str, payload: bytes, count: int) -> list[float]:
        failures: list[object] = []
        producer = self._producer(failures, **{"linger.ms": 0})
        taken: list[float] = []
        for _ in range(WARM_UP + count):
            begin = time.perf_counter()
            producer.produce(topic, payload)
            producer.flush()
            taken.append(time.perf_counter() - begin)
        if failures:
            raise PeerFailed(f"refused: {failures[0]}")
        return taken[WARM_UP:]

    def pace(self, topic: str, due: Iterator[bytes]) -> None:
        producer = self._producer([], **{"linger.ms": 0})
        for payload in due:
            producer.produce(topic, payload)
            producer.poll(0)
        producer.flush()

    def receive(self, topic: str, count: int, ready: Callable[[], None], got: Callable[[bytes], None]) -> None:
        consumer = self._consumer(topic, {})
        while not consumer.assignment():
            consumer.poll(0.1)
        ready()
        while count > 0:
            message = consumer.poll(SECONDS)
            value = None if message is None else message.value()
            if not isinstance(value, bytes):
                raise PeerFailed("no message came")
            got(value)
            count -= 1
        consumer.commit(asynchronous=False)


def fetch() -> None:
    """Have the jars in HOME. Raises CalledProcessError, TimeoutExpired, OSError."""
    if HOME.is_dir():
        return
    HOME.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=HOME.parent) as name:
        goal = ("dependency:copy-dependencies", f"-DoutputDirectory={name}/libs", f"-Dkafka={VERSION}")
        subprocess.run(
            ["mvn", "-q", "-B", "-ntp", "-Dstyle.color=never", "-f", str(POM), *goal], check=True, timeout=FETCH_SECONDS
        )
        (Path(name) / "libs").rename(HOME)


if __name__ == "__main__":
    fetch()
    print(HOME)  # noqa: T201
