"""RocksMQ, by its blocking client."""

import importlib.metadata
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import ClassVar

from rocksmq.clients import Client
from rocksmq.clients.bench import latency
from rocksmq.clients.testing import Broker

from .peer import Peer, Serving, Timed

FETCH_MESSAGES = 10_000
SECONDS = 30.0


class RocksMQ(Peer):
    """As `Peer`."""

    name = "RocksMQ"
    modes: ClassVar = {"fsync": "fsync, the default", "os": "in the page cache"}
    needs = "pip install 'rocksmq[broker]'"
    has_send = True

    @classmethod
    def is_here(cls) -> bool:
        return True

    def versions(self) -> str:
        version = importlib.metadata.version
        return f"RocksMQ {version('rocksmq')}, rocksdict {version('rocksdict')}"

    def serve(self, directory: Path) -> Generator[Serving, None, None]:
        with Broker(directory / "data", "--durability", self.mode) as broker:
            assert broker.pid is not None, "it runs"
            yield Serving(broker.url, broker.pid)

    def _client(self) -> Client:
        return Client(self.url, timeout=SECONDS)

    def create(self, topics: Sequence[str]) -> None:
        with self._client() as mq:
            for topic in topics:
                mq.create_channel(topic)

    def produce(self, topic: str, payloads: Sequence[bytes], timed: Timed) -> None:
        with self._client() as mq, mq.producer(topic) as producer:
            for chunk in timed.chunks(payloads):
                producer.send_many(chunk)

    def send(self, topic: str, payloads: Sequence[bytes], timed: Timed) -> None:
        with self._client() as mq, mq.producer(topic) as producer:
            for chunk in timed.chunks(payloads):
                for payload in chunk:
                    producer.send(payload)

    def spread(self, topics: Sequence[str], payloads: Sequence[bytes], timed: Timed) -> None:
        with self._client() as mq, ExitStack() as stack:
            producers = [stack.enter_context(mq.producer(topic)) for topic in topics]
            for chunk in timed.chunks(payloads):
                for producer, payload in zip(producers, chunk, strict=False):
                    producer.send(payload)

    def consume(self, topic: str, timed: Timed) -> None:
        with self._client() as mq:
            mq.create_consumer_group(topic, "readers")
            with mq.consumer(topic, "readers", batch_messages=FETCH_MESSAGES) as consumer:
                while not timed.is_over:
                    timed.got(len(consumer.receive_batch(timeout=SECONDS).payloads))

    def one_at_a_time(self, topic: str, payload: bytes, count: int) -> list[float]:
        with self._client() as mq:
            return latency.one_at_a_time(mq, topic, count)

    def pace(self, topic: str, due: Iterator[bytes]) -> None:
        with self._client() as mq:
            for payload in due:
                mq.produce(topic, [payload])

    def receive(self, topic: str, count: int, ready: Callable[[], None], got: Callable[[bytes], None]) -> None:
        with self._client() as mq:
            mq.create_consumer_group(topic, "waiting")
            ready()
            while count > 0:
                payloads = mq.consume(topic, "waiting", timeout=SECONDS).payloads
                for payload in payloads:
                    got(payload)
                count -= len(payloads)
