"""The suite of plain channels: producing and consuming in each way that a program may, and how long one message takes.

Owns its channels: named ``bench.<random>``, destroyed when the run ends.
"""

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from . import latency, throughput
from .rows import Row, ratio
from .run import Bench, Options
from .usage import measured

if TYPE_CHECKING:
    from rocksmq.clients.client import Client


class MessagesBench(Bench):
    """As `Bench`."""

    def __init__(self, mq: "Client", options: Options, say: Callable[[str], None]) -> None:
        super().__init__(mq, options, say)
        self._channels: list[str] = []
        self._filled: dict[tuple[int, int], str] = {}  # a channel that holds so many messages of that many bytes
        self._payloads: dict[int, list[bytes]] = {}

    def measure(self, name: str) -> None:
        scenario = SCENARIOS[name]
        scenario.run(self, name, scenario.payload_bytes, self._options.messages or scenario.messages)

    def ratios(self) -> list[Row]:
        return ratios(self._rows)

    def destroy_channels(self) -> None:
        for channel in self._channels:
            self._mq.destroy_channel(channel, missing_ok=True)

    # -- scenarios -----------------------------------------------------------------

    def send_many(self, name: str, payload_bytes: int, count: int) -> None:
        """`throughput.send_many` to a new channel."""
        self._produce(throughput.send_many, name, payload_bytes, count)

    def send(self, name: str, payload_bytes: int, count: int) -> None:
        """`throughput.send` to a new channel."""
        self._produce(throughput.send, name, payload_bytes, count)

    def calls(self, name: str, payload_bytes: int, count: int) -> None:
        """`throughput.calls` to a new channel."""
        self._produce(throughput.calls, name, payload_bytes, count)

    def _produce(self, way: throughput.Producing, name: str, payload_bytes: int, count: int) -> None:
        channel = self._new_channel()
        with measured(self._options.broker_pid) as usage:
            way(self._mq, channel, self._payloads_of(payload_bytes), count)
        self._filled[payload_bytes, count] = channel
        self._add_rate(name, payload_bytes, count, usage)

    def receive_batches(self, name: str, payload_bytes: int, count: int) -> None:
        """`throughput.receive_batches` by a new group."""
        self._consume(throughput.receive_batches, name, payload_bytes, count)

    def iterate(self, name: str, payload_bytes: int, count: int) -> None:
        """`throughput.iterate` by a new group."""
        self._consume(throughput.iterate, name, payload_bytes, count)

    def _consume(self, way: throughput.Consuming, name: str, payload_bytes: int, count: int) -> None:
        channel = self._filled.get((payload_bytes, count))
        if channel is None:
            channel = self._filled[payload_bytes, count] = self._new_channel()
            throughput.send_many(self._mq, channel, self._payloads_of(payload_bytes), count)
        group = secrets.token_hex(8)
        self._mq.create_consumer_group(channel, group)
        with measured(self._options.broker_pid) as usage:
            way(self._mq, channel, group, count)
        self._add_rate(name, payload_bytes, count, usage)

    def one_at_a_time(self, name: str, payload_bytes: int, count: int) -> None:
        """`latency.one_at_a_time` to a new channel."""
        channel = self._new_channel()
        with measured(self._options.broker_pid) as usage:
            taken = latency.one_at_a_time(self._mq, channel, count)
        self._add_percentiles(name, taken)
        self._add_cpu(self._rows[f"{name} p50"], usage, count + latency.WARM_UP)

    def open_loop(self, name: str, payload_bytes: int, count: int) -> None:
        """`latency.open_loop` to a new channel."""
        channel = self._new_channel()
        with measured(self._options.broker_pid) as usage:
            taken = latency.open_loop(self._mq, channel, count, self._options.rate)
        self._add_percentiles(name, taken)
        self._add_cpu(self._rows[f"{name} p50"], usage, count + latency.WARM_UP)

    def end_to_end(self, name: str, payload_bytes: int, count: int) -> None:
        """`latency.end_to_end` through a new channel."""
        taken, produced = latency.end_to_end(self._mq, self._options.url, self._new_channel(), "reader", count)
        self._add_percentiles(name, taken)
        self._add_percentiles(f"{name} its produce", produced)

    def _new_channel(self) -> str:
        channel = f"bench.{secrets.token_hex(8)}"
        self._channels.append(channel)
        self._mq.create_channel(channel)
        return channel

    def _payloads_of(self, payload_bytes: int) -> list[bytes]:
        """A batch of random payloads, so that compression gains nothing."""
        if payload_bytes not in self._payloads:
            self._payloads[payload_bytes] = [secrets.token_bytes(payload_bytes) for _ in range(throughput.BATCH_MESSAGES)]
        return self._payloads[payload_bytes]


def ratios(rows: Mapping[str, Row]) -> list[Row]:
    """Ways to produce with each other, each latency against what it stands on."""
    found: list[Row] = []
    if {"send-100B", "calls-100B"} <= rows.keys():
        found.append(ratio("send-100B / calls-100B", rows["send-100B"].median / rows["calls-100B"].median))
    if "one-at-a-time p50" in rows:
        least = rows["floor round trip p50"].median + rows["floor fdatasync p50"].median
        found.append(ratio("one-at-a-time p50 / (round trip + fdatasync)", rows["one-at-a-time p50"].median / least))
    if "end-to-end p50" in rows:
        produced = rows["end-to-end its produce p50"].median
        found.append(ratio("end-to-end p50 / its produce p50", rows["end-to-end p50"].median / produced))
    return found


@dataclass(frozen=True, slots=True)
class Scenario:
    """How one is run, and with how much unless told otherwise."""

    run: Callable[[MessagesBench, str, int, int], None]
    payload_bytes: int
    messages: int


SCENARIOS = {
    "produce-100B": Scenario(MessagesBench.send_many, 100, 1_000_000),
    "produce-1KiB": Scenario(MessagesBench.send_many, 1_024, 300_000),
    "send-100B": Scenario(MessagesBench.send, 100, 1_000_000),
    "calls-100B": Scenario(MessagesBench.calls, 100, 300_000),
    "consume-100B": Scenario(MessagesBench.receive_batches, 100, 1_000_000),
    "consume-1KiB": Scenario(MessagesBench.receive_batches, 1_024, 300_000),
    "iterate-100B": Scenario(MessagesBench.iterate, 100, 1_000_000),
    "one-at-a-time": Scenario(MessagesBench.one_at_a_time, latency.PAYLOAD_BYTES, 2_000),
    "open-loop": Scenario(MessagesBench.open_loop, latency.PAYLOAD_BYTES, 5_000),
    "end-to-end": Scenario(MessagesBench.end_to_end, latency.PAYLOAD_BYTES, 1_000),
}
