"""The suite of many: channels, connections and groups on one broker, and both sides at once.

Owns its channels: named ``bench.<random>-...``, destroyed when the run ends.
"""

import json
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rocksmq.clients.models import OwnerDescription
from rocksmq.protocol.errors import RocksMQError

from . import throughput
from .crowd import produce_one_by_one
from .latency import READER
from .processes import other
from .rows import Row, ratio
from .run import Bench, Options
from .usage import cpu_seconds, measured

if TYPE_CHECKING:
    from rocksmq.clients.client import Client

PAYLOAD_BYTES = 100
GROUPS = 100
ALONE_PART = 8  # of the messages of a connection in the crowd, one alone produces so many times as much


class ManyBench(Bench):
    """As `Bench`."""

    def __init__(self, mq: "Client", options: Options, say: Callable[[str], None]) -> None:
        super().__init__(mq, options, say)
        self._role = f"bench.{secrets.token_hex(8)}"  # of this run alone, whatever became of a creation
        self._payloads = [secrets.token_bytes(PAYLOAD_BYTES) for _ in range(throughput.BATCH_MESSAGES)]

    def measure(self, name: str) -> None:
        scenario = SCENARIOS[name]
        scenario.run(self, name, self._options.messages or scenario.messages)

    def ratios(self) -> list[Row]:
        return ratios(self._rows)

    def destroy_channels(self) -> None:
        left = self._mq.list_channels(f"{self._role}-")
        most = self._mq.server.limits["request_channels_max"]
        for begin in range(0, len(left), most):
            self._mq.destroy_channels(left[begin : begin + most])

    # -- scenarios -----------------------------------------------------------------

    def channels(self, name: str, count: int) -> None:
        """``count`` messages in turns to many channels, each with a `Producer` of its own; durable at the end."""
        names = self._new_channels(self._options.channels)
        with measured(self._options.broker_pid) as usage, ExitStack() as stack:
            producers = [stack.enter_context(self._mq.producer(channel)) for channel in names]
            for number in range(count):
                producers[number % len(producers)].send(self._payloads[number % len(self._payloads)])
            for producer in producers:
                producer.flush(throughput.SECONDS_MAX)
        self._add_rate(name, PAYLOAD_BYTES, count, usage)
        self._mq.destroy_channels(names)  # the next scenarios are not to have so many beside them

    def connections(self, name: str, count: int) -> None:
        """One message at a time by each of many connections, and by one of them alone."""
        (channel,) = self._new_channels(1)
        each = max(1, count // self._options.connections)
        for which, connections, messages in (("alone", 1, ALONE_PART * each), ("", self._options.connections, each)):
            with measured(self._options.broker_pid) as usage:
                crowded = produce_one_by_one(self._options.url, channel, connections, messages)
            usage.wall, usage.client_cpu = crowded
            self._add_rate(f"{name} {which}".strip(), PAYLOAD_BYTES, connections * messages, usage)

    def groups(self, name: str, count: int) -> None:
        """``count`` messages in all, read by GROUPS groups of one channel in turns."""
        (channel,) = self._new_channels(1)
        each = max(1, count // GROUPS)
        throughput.send_many(self._mq, channel, self._payloads, each)
        groups = [f"group-{number}" for number in range(GROUPS)]
        for group in groups:
            self._mq.create_consumer_group(channel, group)
        with measured(self._options.broker_pid) as usage:
            for group in groups:
                throughput.receive_batches(self._mq, channel, group, each)
        self._add_rate(name, PAYLOAD_BYTES, each * GROUPS, usage)

    def mixed(self, name: str, count: int) -> None:
        """Produced here while a process consumes, until it has all. The client's CPU is that of both."""
        (channel,) = self._new_channels(1)
        self._mq.create_consumer_group(channel, "reader")
        with other(self._options.url, READER, channel, "reader", str(count)) as reader:
            reader.line()
            reader_begin, begin = cpu_seconds(reader.pid), time.monotonic_ns()
            with measured(self._options.broker_pid) as usage:
                throughput.send_many(self._mq, channel, self._payloads, count)
                received: list[int] = json.loads(reader.line())
            usage.client_cpu += cpu_seconds(reader.pid) - reader_begin
        if len(received) != count:
            raise RocksMQError("the reading process did not get all messages")
        usage.wall = (received[-1] - begin) / 1e9
        self._add_rate(name, PAYLOAD_BYTES, count, usage)

    def _new_channels(self, count: int) -> Sequence[str]:
        return self._mq.create_channels(OwnerDescription(self._role), count)


def ratios(rows: Mapping[str, Row]) -> list[Row]:
    """What many have together of what one has."""
    if "connections-100B" not in rows:
        return []
    return [ratio("connections-100B / alone", rows["connections-100B"].median / rows["connections-100B alone"].median)]


@dataclass(frozen=True, slots=True)
class Scenario:
    """How one is run, and with how much unless told otherwise."""

    run: Callable[[ManyBench, str, int], None]
    messages: int


SCENARIOS = {
    "channels-100B": Scenario(ManyBench.channels, 100_000),
    "connections-100B": Scenario(ManyBench.connections, 10_000),
    "groups-100B": Scenario(ManyBench.groups, 1_000_000),
    "mixed-100B": Scenario(ManyBench.mixed, 500_000),
}
