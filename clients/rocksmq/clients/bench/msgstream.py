"""The suite of message streams: plain and time-tick, as fast as they go, under a light load, and with nothing to do.

Owns its channels: named ``bench.<random>-...``, destroyed when the run ends, and their subscriptions with them.
"""

import secrets
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from rocksmq.clients.models import OwnerDescription
from rocksmq.clients.msgstream import MsgStream, ProtoUDFactory, RmqMsgStreamFactory

from .rows import Row, ratio
from .run import Bench, Options
from .stream_reader import PATIENCE_SECONDS, Job, Pack, opened, read
from .streams import (
    LIGHT_MESSAGES,
    ROW,
    TICK_SECONDS,
    Making,
    check_count,
    delays,
    insert,
    light_load,
    produce,
    produce_with_ticks,
    reading,
    search,
    tick,
)
from .usage import connection_count, cpu_seconds, measured

if TYPE_CHECKING:
    from rocksmq.clients.client import Client

PLAIN_CHANNELS = 4
TICKED_CHANNELS = 8
PACK_MESSAGES = 4_000
TICKED_PACK_MESSAGES = 1_000  # fewer, so that most ticks have something new to say
LIGHT_WARM_UP = 50  # ticks before those that count


class MsgStreamBench(Bench):
    """As `Bench`."""

    def __init__(self, mq: "Client", options: Options, say: Callable[[str], None]) -> None:
        super().__init__(mq, options, say)
        self._factory = RmqMsgStreamFactory(options.url)
        self._role = f"bench.{secrets.token_hex(8)}"  # of this run alone, whatever became of a creation
        self._filled: dict[tuple[Making, int], list[str]] = {}  # channels that hold so many such messages

    @staticmethod
    def check_installed() -> None:
        """Raises ImportError where protobuf is missing, and says what to install."""
        ProtoUDFactory().new_unmarshal_dispatcher()

    def measure(self, name: str) -> None:
        scenario = SCENARIOS[name]
        scenario.run(self, name, scenario.make, self._options.messages or scenario.messages)

    def ratios(self) -> list[Row]:
        return ratios(self._rows)

    def destroy_channels(self) -> None:
        left = self._mq.list_channels(f"{self._role}-")
        most = self._mq.server.limits["request_channels_max"]
        for begin in range(0, len(left), most):
            self._mq.destroy_channels(left[begin : begin + most])

    # -- scenarios -----------------------------------------------------------------

    def both(self, name: str, make: Making, count: int) -> None:
        """Produced here while a process reads, until it has the last message. The client's CPU is that of both."""
        channels = self._new_channels(PLAIN_CHANNELS)
        with self._producing(channels) as stream, self._rated(name, Job(channels, messages=count), count):
            produce(stream, make, count, PACK_MESSAGES)

    def produce(self, name: str, make: Making, count: int) -> None:
        """Produced with nobody reading, until all is durable."""
        channels = self._new_channels(PLAIN_CHANNELS)
        with self._producing(channels) as stream, measured(self._options.broker_pid) as usage:
            produce(stream, make, count, PACK_MESSAGES)
        self._filled[make, count] = channels
        self._add_rate(name, len(ROW), count, usage)

    def consume(self, name: str, make: Making, count: int) -> None:
        """Consumed with nobody producing, by a new subscription."""
        channels = self._filled.pop((make, count), None)
        if channels is None:
            channels = self._new_channels(PLAIN_CHANNELS)
            with self._producing(channels) as stream:
                produce(stream, make, count, PACK_MESSAGES)
        job = Job(channels, messages=count)
        with opened(self._factory, job) as stream, measured(self._options.broker_pid) as usage:
            packs = read(stream, job)
        check_count(packs, count)
        self._add_rate(name, len(ROW), count, usage)

    def ticks(self, name: str, make: Making, count: int) -> None:
        """As `both`, with ticks and a time-tick reader."""
        channels = self._new_channels(TICKED_CHANNELS)
        job = Job(channels, last_ts=count)
        with (
            self._producing(channels) as stream,
            self._producing(channels) as ticker,
            self._rated(name, job, count) as packs,
        ):
            produce_with_ticks(stream, ticker, make, count, TICKED_PACK_MESSAGES)
        self._add(f"{name} packs", "packs", len(packs))
        self._add(f"{name} late", "messages", sum(pack.late_count for pack in packs))

    def latency(self, name: str, make: Making, count: int) -> None:
        """From before a tick to its pack in the hands of a waiting process, and the broadcast alone."""
        channels = self._new_channels(TICKED_CHANNELS)
        wanted = LIGHT_WARM_UP + max(2, count // LIGHT_MESSAGES)
        with reading(self._options.url, Job(channels, last_ts=wanted)) as reader, self._producing(channels) as stream:
            told = light_load(stream, wanted, TICK_SECONDS, lambda ts: [make(ts, key) for key in range(LIGHT_MESSAGES)])
            report = reader.report()
        self._add_percentiles(name, delays(told, report)[LIGHT_WARM_UP:])
        self._add_percentiles(f"{name} its broadcast", [seconds for _, seconds in told.values()][LIGHT_WARM_UP:])

    def idle(self, name: str, make: Making, count: int) -> None:
        """One stream over many channels in a process of its own: at rest, then with nothing but a tick a second."""
        channels, seconds = self._new_channels(self._options.channels), self._options.seconds
        ticks = max(2, round(seconds))
        job = Job(channels, last_ts=ticks + 1, patience=PATIENCE_SECONDS + 2 * seconds)
        with reading(self._options.url, job) as reader, self._producing(channels) as stream:
            self._add(f"{name} open", "s", reader.open_seconds)
            with self._watched(f"{name} at rest", reader.pid):
                time.sleep(seconds)
            with self._watched(f"{name} ticked", reader.pid):
                told = light_load(stream, ticks, seconds / ticks)
            self._add(f"{name} connections", "TCP", connection_count(reader.pid))
            told[ticks + 1] = tick(stream, ticks + 1)  # only ends it
            report = reader.report()
        self._add(f"{name} packs", "packs", len(report.packs) - 1)
        self._add(f"{name} pack", "µs", median(delays(told, report)) * 1e6)
        self._add(f"{name} its broadcast", "µs", median(seconds for _, seconds in told.values()) * 1e6)
        self._mq.destroy_channels(channels)  # the next scenarios are not to have so many beside them

    # -- parts of them -------------------------------------------------------------

    def _new_channels(self, count: int) -> list[str]:
        return self._mq.create_channels(OwnerDescription(self._role), count)

    @contextmanager
    def _producing(self, channels: Sequence[str]) -> Generator[MsgStream, None, None]:
        with self._factory.new_msg_stream() as stream:
            stream.as_producer(channels)
            yield stream

    @contextmanager
    def _rated(self, name: str, job: Job, count: int) -> Generator[list[Pack], None, None]:
        """A process does the job. Adds the rate from the begin of the block to the last pack there; the block's end gives the
        packs."""
        packs: list[Pack] = []
        with reading(self._options.url, job) as reader, measured(self._options.broker_pid) as usage:
            begin = time.monotonic_ns()
            yield packs
            report = reader.report()
        packs += report.packs
        check_count(packs, count)
        usage.wall = (packs[-1].received_ns - begin) / 1e9
        usage.client_cpu += report.cpu_seconds
        self._add_rate(name, len(ROW), count, usage)

    @contextmanager
    def _watched(self, name: str, pid: int) -> Generator[None, None, None]:
        """Adds how busy that process and the broker's were in the block."""
        reader_begin = cpu_seconds(pid)
        with measured(self._options.broker_pid) as usage:
            yield
        self._add(f"{name} reader CPU", "% of a core", (cpu_seconds(pid) - reader_begin) / usage.wall * 100)
        if usage.broker_cpu is not None:
            self._add(f"{name} broker CPU", "% of a core", usage.broker_cpu / usage.wall * 100)


def ratios(rows: Mapping[str, Row]) -> list[Row]:
    """Both sides at once with the producer alone, a pack with its tick alone."""
    found: list[Row] = []
    for both, alone in (
        ("stream-plain", "stream-produce"),
        ("stream-plain-search", "stream-produce-search"),
        ("stream-latency p50", "stream-latency its broadcast p50"),
    ):
        if {both, alone} <= rows.keys():
            found.append(ratio(f"{both} / {alone.removeprefix('stream-latency ')}", rows[both].median / rows[alone].median))
    return found


@dataclass(frozen=True, slots=True)
class Scenario:
    """How one is run, and with how much unless told otherwise."""

    run: Callable[[MsgStreamBench, str, Making, int], None]
    make: Making
    messages: int


SCENARIOS = {
    "stream-plain": Scenario(MsgStreamBench.both, insert, 400_000),
    "stream-produce": Scenario(MsgStreamBench.produce, insert, 400_000),
    "stream-consume": Scenario(MsgStreamBench.consume, insert, 400_000),
    "stream-plain-search": Scenario(MsgStreamBench.both, search, 400_000),
    "stream-produce-search": Scenario(MsgStreamBench.produce, search, 400_000),
    "stream-consume-search": Scenario(MsgStreamBench.consume, search, 400_000),
    "stream-ticks": Scenario(MsgStreamBench.ticks, insert, 400_000),
    "stream-latency": Scenario(MsgStreamBench.latency, insert, 10_000),
    "stream-idle": Scenario(MsgStreamBench.idle, insert, 0),
}
