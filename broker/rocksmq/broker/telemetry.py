"""What one broker counts as it goes, and how all that is known of it comes out.

Owns the instruments that the way of a request updates; `readings` reads the rest from the state at a scrape. Channels and
groups carry their own `Traffic`, so their series vanish with them. All in the loop's thread.
"""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, ParamSpec, TypeAlias, TypeVar

from rocksmq.metrics import catalogue
from rocksmq.metrics.exposition import expose
from rocksmq.metrics.instruments import Counter, Counters, Histogram, Histograms, MetricFamily, Traffic
from rocksmq.protocol.errors import RocksMQError, StorageFailed
from rocksmq.protocol.operations import OPS

from .channels import Channel
from .commit import Commit, Done
from .ids import clock_ms, time_ms_of
from .log import Reading
from .records import Extent

logger = logging.getLogger("rocksmq.broker")

Source: TypeAlias = Callable[[], Iterator[MetricFamily]]
ChannelSource: TypeAlias = Callable[[Sequence[str] | None], Iterator[MetricFamily]]
OK = "OK"
Item = TypeVar("Item")
Parameters = ParamSpec("Parameters")


def _whole(items: Iterable[Item]) -> Iterator[Item]:
    """``items``, up to one that cannot be had: that must not hide the others, least of all when something is wrong."""
    try:
        yield from items
    except Exception:
        logger.exception("a bug: some metrics are missing")


class Telemetry:
    """``of_channels`` reads the channels of those names, of all (an empty sequence), or as many as /metrics takes (None)."""

    def __init__(self, of_channels: ChannelSource) -> None:
        self.requests = Counters(catalogue.REQUESTS, ((op.name, OK) for op in OPS.values()))
        self.request_seconds = Histograms(catalogue.REQUEST_SECONDS)
        self.commit_messages = Histogram(catalogue.COMMIT_MESSAGES)
        self.commit_bytes = Histogram(catalogue.COMMIT_BYTES)
        self.commits_refused = Counter(catalogue.COMMITS_REFUSED)
        self.write_seconds = Histogram(catalogue.WRITE_SECONDS)
        self.sync_seconds = Histogram(catalogue.SYNC_SECONDS)
        self.sync_failures = Counter(catalogue.SYNC_FAILURES)
        self.mark_failures = Counter(catalogue.MARK_FAILURES)
        self.redelivered = Counter(catalogue.REDELIVERED_MESSAGES)
        self.end_to_end_seconds = Histogram(catalogue.END_TO_END_SECONDS)
        self.loop_lag = Histogram(catalogue.LOOP_LAG)
        self.produced = Traffic()  # of all channels there ever were: sums of those that are there would fall
        self.delivered = Traffic()
        self._of_channels = [of_channels]
        self._sources: list[Source] = [self._instruments]

    def add(self, source: Source) -> None:
        """Have the families of ``source`` exposed too."""
        self._sources.append(source)

    def add_of_channels(self, source: ChannelSource) -> None:
        """The same, of one that is asked for channels as ``of_channels`` is; they are there."""
        self._of_channels.append(source)

    def families(self, channels: Sequence[str] | None = None) -> Iterator[MetricFamily]:
        """All there is; of which channels, as ``of_channels`` has it. Raises ChannelNotFound, at once."""
        of_channels = [source(channels) for source in self._of_channels]

        def found() -> Iterator[MetricFamily]:
            for source in self._sources:
                yield from _whole(source())
            for families in of_channels:
                yield from _whole(families)

        return ((metric, _whole(samples)) for metric, samples in found())

    def exposition(self, channels: Sequence[str] | None = None, *, openmetrics: bool = False) -> Iterator[bytes]:
        """The same as text, in chunks that are quick to make. Raises ChannelNotFound, at once."""
        return expose(self.families(channels), openmetrics=openmetrics)

    def answered(self, op: str, reply: object, seconds: float | None) -> None:
        """A request was answered; ``seconds`` after it came, None: it had to wait for messages."""
        self.requests.add(op, type(reply).__name__ if isinstance(reply, RocksMQError) else OK)
        if seconds is not None:
            self.request_seconds.observe(op, seconds)

    def produce(self, channel: Channel, extent: Extent) -> int:
        """What ``channel`` has became durable, up to ``extent``; how many bytes came."""
        messages = extent.end_offset - channel.visible.end_offset
        size = extent.end_bytes - channel.visible.end_bytes
        channel.produced.add(messages, size)
        self.produced.add(messages, size)
        return size

    def deliver(self, reading: Reading, to: Traffic) -> None:
        """Messages leave in an answer."""
        now_ms = clock_ms()
        for piece in reading.slices:
            age_ms = max(0, now_ms - time_ms_of(piece.first_id))
            self.end_to_end_seconds.observe(age_ms / 1000, piece.stop - piece.start)
        to.add(reading.message_count, reading.size)
        self.delivered.add(reading.message_count, reading.size)

    def delivering(self, reading: Reading, to: Traffic, done: Done, *, is_repeat: bool) -> Done:
        """``done``, which also counts ``reading`` when that is what it answers with."""

        def told(reply: Any) -> None:
            if not isinstance(reply, RocksMQError):
                self.deliver(reading, to)
                self.redelivered.value += is_repeat * reading.message_count
            done(reply)

        return told

    def committed(self, commit: Commit) -> None:
        """A group commit is done; those without messages are not counted among sizes in messages."""
        if commit.changes:
            self.commit_bytes.observe(commit.size - commit.held_size)
        if commit.message_count:
            self.commit_messages.observe(commit.message_count)

    def timed(self, histogram: Histogram, function: Callable[Parameters, None]) -> Callable[Parameters, None]:
        """``function`` of the store, observed."""

        def call(*arguments: Parameters.args, **named: Parameters.kwargs) -> None:
            begin = time.perf_counter()
            try:
                function(*arguments, **named)
            except StorageFailed:
                self.sync_failures.value += 1
                raise
            histogram.observe(time.perf_counter() - begin)

        return call

    def _instruments(self) -> Iterator[MetricFamily]:
        for instrument in vars(self).values():
            if isinstance(instrument, (Counter, Counters, Histogram, Histograms)):
                yield instrument.family()
