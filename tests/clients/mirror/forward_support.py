"""A mirror in a thread of its own, a broker, and what stands in a topic."""

import logging
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

from rocksmq.clients.mirror.forward import ForwardMirror
from rocksmq.clients.mirror.options import MirrorOptions
from rocksmq.clients.mirror.report import ChannelReport
from rocksmq.clients.pulsar.client import connect, pulsar
from rocksmq.protocol.errors import RocksMQError

WAIT_SECONDS = 60.0
QUIET_MS = 1_500  # after which a topic is taken for read

logging.getLogger("rocksmq.pulsar").setLevel(logging.CRITICAL)


class Running:
    """A mirror that runs; ``error`` is what it ended with."""

    def __init__(self, options: MirrorOptions) -> None:
        self.mirror = ForwardMirror(options)
        self.error: RocksMQError | None = None
        self._is_stopped = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.mirror.run(self._is_stopped)
        except RocksMQError as error:
            self.error = error

    def channel(self, name: str) -> ChannelReport:
        """What is told of it now. Raises KeyError."""
        return self.mirror.report()[name]

    def wait(self, is_so: Callable[["Running"], object]) -> None:
        """Until then; a channel that is not told of yet is not so. Raises AssertionError with the report."""
        until = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < until:
            try:
                if is_so(self):
                    return
            except KeyError:
                pass
            time.sleep(0.01)
        raise AssertionError(f"{self.error!r} {self.mirror.report().to_json()}")

    def wait_for(self, channel: str, messages: int) -> None:
        """Until so many of the channel were mirrored."""
        self.wait(lambda running: running.channel(channel).messages >= messages)

    def join(self) -> None:
        self._thread.join(WAIT_SECONDS)
        assert not self._thread.is_alive()

    def stop(self) -> None:
        self._is_stopped.set()
        self.join()


@contextmanager
def running(source: str, target: str, *channels: str, **options: Any) -> Generator[Running]:
    """A mirror while the block runs."""
    mirror = Running(MirrorOptions(source=source, target=target, channels=channels, **options))
    try:
        yield mirror
    finally:
        mirror.stop()


def content(url: str, topic: str) -> list[Any]:
    """All messages of a topic, as pulsar-client gives them."""
    client = connect(url)
    try:
        reader = client.create_reader(topic, pulsar.MessageId.earliest)
        found: list[Any] = []
        while True:
            try:
                found.append(reader.read_next(QUIET_MS))
            except pulsar.Timeout:
                reader.close()
                return found
    finally:
        client.close()


def ids(url: str, topic: str) -> list[int]:
    """The ids in a topic, in order."""
    return [int(message.properties()["rocksmq.id"]) for message in content(url, topic)]
