"""A program that keeps calling `send` while its broker is away: its memory stays bounded, and all that was queued is stored.

python -m tests.crash.away [--seconds N]
"""

import os
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import click

from rocksmq.clients import Client, Producer, Timeout
from rocksmq.clients.testing import Broker

from .content import label_of, labels_in, payload_of
from .footprint import Footprint

CHANNEL, GROUP = "orders", "readers"
WARM_COUNT = 50_000  # messages before the broker goes
READY_SECONDS = 60.0  # more than enough for all that waits


class Away(NamedTuple):
    """What was seen. ``refused`` sends raised, each after the client's timeout; recovery counts from the broker's return."""

    refused: int
    rss_growth_bytes: int
    first_recovery_s: float  # until the first batch was acknowledged
    whole_recovery_s: float  # until all that was queued was
    produce_recovery_s: float  # until a produce that waited all the time returned
    consume_recovery_s: float  # until a consume that waited all the time returned


class Waiting:
    """A call that waits for the broker, in a thread of its own."""

    def __init__(self, url: str, name: str) -> None:
        self.ended_at = 0.0
        self._mq = Client(url, timeout=None)
        self._call = getattr(self, f"_{name}")
        self._thread = threading.Thread(target=self._run)

    def begin(self) -> None:
        self._thread.start()

    def end(self, since: float) -> float:
        """Seconds that it took."""
        self._thread.join(READY_SECONDS)
        assert not self._thread.is_alive(), "it waits for ever"
        self._mq.close()
        return self.ended_at - since

    def _run(self) -> None:
        self._call()
        self.ended_at = time.monotonic()

    def _produce(self) -> None:
        self._mq.produce(CHANNEL, [payload_of(label_of(2, 0))])

    def _consume(self) -> None:
        assert self._mq.consume(CHANNEL, GROUP, 10, timeout=None)


def away(broker: Broker, seconds: float, timeout: float) -> Away:
    """Raises AssertionError when a message is lost, doubled or out of order."""
    with Client(broker.url, timeout=timeout) as mq:
        mq.create_channel(CHANNEL)
        mq.create_consumer_group(CHANNEL, GROUP)
        with mq.producer(CHANNEL) as producer:
            for number in range(WARM_COUNT):
                producer.send(payload_of(label_of(1, number)))
            producer.flush()
            waiting = [Waiting(broker.url, "produce"), Waiting(broker.url, "consume")]
            before = Footprint.of(os.getpid())
            broker.kill()
            for one in waiting:
                one.begin()
            queued, refused = _send_on(producer, WARM_COUNT, seconds)
            growth = Footprint.of(os.getpid()).rss_bytes - before.rss_bytes
            acked = producer.acked
            broker.start()
            since = time.monotonic()
            while producer.acked == acked:
                time.sleep(0.001)
            first = time.monotonic() - since
            producer.flush(READY_SECONDS)
            whole = time.monotonic() - since
            recoveries = [one.end(since) for one in waiting]
        labels = [label for label in _stored(mq) if label != label_of(2, 0)]
        assert labels == [*range(label_of(1, 0), label_of(1, queued))], "lost, doubled or out of order"
    return Away(refused, growth, first, whole, *recoveries)


def _send_on(producer: Producer, number: int, seconds: float) -> tuple[int, int]:
    """Call `send` all the time. The number of the first message that was not queued; how many sends raised."""
    refused = 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            producer.send(payload_of(label_of(1, number)))
            number += 1
        except Timeout:
            refused += 1
    return number, refused


def _stored(mq: Client) -> Iterator[int]:
    position: int | str = "earliest"
    while batch := mq.fetch(CHANNEL, position, 10_000):
        yield from labels_in(batch.payloads)
        position = batch.next_position


@click.command()
@click.option("--seconds", type=float, default=60.0, show_default=True)
@click.option("--timeout", type=float, default=2.0, show_default=True, help="The client's.")
def main(seconds: float, timeout: float) -> None:
    """Take a broker away, bring it back, and say what its client did."""
    with tempfile.TemporaryDirectory(prefix="rocksmq-away-") as name, Broker(Path(name) / "data") as broker:
        for field, value in away(broker, seconds, timeout)._asdict().items():
            click.echo(f"{field:20} {value / 2**20:.1f} MiB" if field.endswith("bytes") else f"{field:20} {value:.3g}")


if __name__ == "__main__":
    main()
