"""What tests of the way back share: topics with messages in them, a mirror in a thread, what is in a channel."""

import logging
import secrets
import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from rocksmq.clients import Client
from rocksmq.clients.mirror.back import BackMirror
from rocksmq.clients.mirror.options import MirrorOptions
from rocksmq.clients.mirror.report import ChannelReport, State
from rocksmq.clients.pulsar.client import connect, pulsar
from rocksmq.protocol.errors import RocksMQError
from rocksmq.protocol.messages import Message
from tests.clients.support import wait_until

PATIENCE = 60.0
logging.getLogger("rocksmq.pulsar").setLevel(logging.CRITICAL)


def new_name() -> str:
    """Of a channel and its topic, that nobody has used."""
    return f"back-{secrets.token_hex(6)}"


@contextmanager
def topic_of(url: str, channel: str) -> Generator["Topic"]:
    """To put messages in."""
    client = connect(url)
    try:
        yield Topic(client, f"persistent://public/default/{channel}")
    finally:
        client.close()


class Topic:
    """``name``: the full one."""

    def __init__(self, client: Any, name: str) -> None:
        self.name = name
        self.client = client
        self._producers: dict[bool, Any] = {}

    def send(self, payloads: Sequence[bytes], *, batched: bool = True, **content: Any) -> None:
        """As one batch, or each by itself. All are stored when it returns."""
        producer = self._producers.get(batched)
        if producer is None:
            producer = self._producers[batched] = self.client.create_producer(
                self.name,
                batching_enabled=batched,
                batching_max_messages=100_000,
                batching_max_publish_delay_ms=60_000,
                batching_max_allowed_size_in_bytes=4 << 20,
                max_pending_messages=0,
            )
        for payload in payloads:
            producer.send_async(payload, None, **content)
        producer.flush()


@dataclass
class Running:
    """A mirror and its thread. ``failure``: what `run` raised."""

    mirror: BackMirror
    is_stopped: threading.Event = field(default_factory=threading.Event)
    failure: RocksMQError | None = None

    def __post_init__(self) -> None:
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        try:
            self.mirror.run(self.is_stopped)
        except RocksMQError as error:
            self.failure = error

    def stop(self) -> None:
        """Return when it has ended."""
        self.is_stopped.set()
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive(), "it ends"

    def report(self, channel: str) -> ChannelReport:
        """Of a channel."""
        return self.mirror.report()[channel]

    def wait_for(self, channel: str, state: State) -> ChannelReport:
        """The report once it says so."""
        wait_until(lambda: self.report(channel).state == state, PATIENCE)
        return self.report(channel)


def options(source: str, target: str, *channels: str, **more: Any) -> MirrorOptions:
    """Of a way back."""
    return MirrorOptions(source=source, target=target, channels=channels, **more)


@contextmanager
def running(made: MirrorOptions) -> Generator[Running]:
    """While the block runs."""
    mirror = Running(BackMirror(made))
    try:
        yield mirror
    finally:
        mirror.stop()


def content(mq: Client, channel: str) -> list[Message]:
    """All that is in a channel."""
    found: list[Message] = []
    start: Any = "earliest"
    while batch := mq.fetch(channel, start, 10_000):
        found += batch
        start = batch.next_position
    return found


def payloads(mq: Client, channel: str) -> list[bytes]:
    """All that is in a channel."""
    return [message.payload for message in content(mq, channel)]


def wait_for(mq: Client, channel: str, count: int) -> None:
    """Return when the channel has so many messages."""
    wait_until(lambda: channel in mq.list_channels() and mq.describe_channel(channel).message_count >= count, PATIENCE)


def numbered(count: int, begin: int = 0) -> list[bytes]:
    """Payloads that differ."""
    return [b"message %d" % number for number in range(begin, begin + count)]


def earliest() -> Any:
    """Where a reader of Pulsar begins."""
    return pulsar.MessageId.earliest
