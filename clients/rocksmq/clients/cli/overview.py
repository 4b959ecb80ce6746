"""A broker at a glance: what `rocksmq top` and `rocksmq status` show, picked from two looks at it.

Rates and latencies are of the time between the two; None is what is not known, such as a rate after one look. Pure.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from rocksmq.metrics import catalogue
from rocksmq.metrics.catalogue import Metric

from ..interval import START_TIME, Interval
from .figures import counted, size

READS = ("CONSUME", "FETCH", "FETCH_MANY")
MEMORY, CPU = "process_resident_memory_bytes", "process_cpu_seconds_total"
OK = "OK"


@dataclass(frozen=True, slots=True)
class Flow:
    """A second."""

    messages_per_second: float | None
    bytes_per_second: float | None


@dataclass(frozen=True, slots=True)
class Latency:
    """Half of them took at most p50, all but one in a hundred at most p99, to within a bucket of the histogram."""

    p50_seconds: float | None
    p99_seconds: float | None


@dataclass(frozen=True, slots=True)
class Reader:
    """A group, or a channel without any (``group`` is empty, and there is no lag).

    ``produced`` is the channel's, ``read`` how fast the group's position moves; both in messages a second.
    """

    channel: str
    group: str
    lag_messages: float | None
    lag_seconds: float | None
    produced_per_second: float | None
    read_per_second: float | None
    waiting_consumers: float | None


@dataclass(frozen=True, slots=True)
class Mirror:
    """Of the broker's own. ``states``: how many channels are at each; ``lag_messages``: as far as it is known."""

    is_up: bool
    states: dict[str, int]
    lag_messages: float | None
    messages_per_second: float | None


@dataclass(frozen=True, slots=True)
class Overview:
    """``up_since``: seconds since 1970. ``readers``: the worst first; none when there are too many channels and groups."""

    is_ready: bool
    problems: list[str]
    up_since: float | None
    positions: str
    produced: Flow
    delivered: Flow
    requests_per_second: float | None
    errors_per_second: float | None
    produce: Latency
    read: Latency
    sync: Latency
    end_to_end: Latency
    commits_per_second: float | None
    commit_messages: float | None
    commit_bytes: float | None
    channels: float | None
    groups: float | None
    messages: float | None
    bytes: float | None
    is_aggregated: bool
    lag_seconds: float | None
    connections: float
    connections_limit: float | None
    long_polls: float | None
    disk_free_bytes: float | None
    disk_total_bytes: float | None
    memory_bytes: float | None
    cpu_share: float | None
    etcd_is_up: bool | None
    etcd: Latency
    mirror: Mirror | None
    readers: list[Reader]

    def as_json(self) -> dict[str, Any]:
        """For `json_line`."""
        since = None if self.up_since is None else datetime.fromtimestamp(self.up_since, UTC).isoformat(timespec="milliseconds")
        return {**asdict(self), "up_since": since}


def overview(look: Interval) -> Overview:
    """What there is to see between two looks."""
    up = look.value(catalogue.ETCD_UP.name)
    # Of so many that their series fit into no reply, the broker leaves out even the sums.
    is_left_out = bool(look.value(catalogue.CHANNELS.name)) and catalogue.CHANNEL_MESSAGES.name not in look.later.metrics
    is_aggregated = bool(look.value(catalogue.AGGREGATED.name)) or is_left_out
    commits = look.histogram(catalogue.COMMIT_MESSAGES.name)
    commit_bytes = look.histogram(catalogue.COMMIT_BYTES.name)
    return Overview(
        is_ready=look.later.is_ready,
        problems=look.later.problems,
        up_since=look.value(START_TIME),
        positions=next((labels[-1] for labels in look.values(catalogue.BUILD_INFO.name)), ""),
        produced=_flow(look, catalogue.PRODUCED_MESSAGES, catalogue.PRODUCED_BYTES),
        delivered=_flow(look, catalogue.DELIVERED_MESSAGES, catalogue.DELIVERED_BYTES),
        requests_per_second=look.rate(catalogue.REQUESTS.name),
        errors_per_second=look.rate(catalogue.REQUESTS.name, lambda labels: labels[1] != OK),
        produce=_latency(look, catalogue.REQUEST_SECONDS, "PRODUCE"),
        read=_latency(look, catalogue.REQUEST_SECONDS, *READS),
        sync=_latency(look, catalogue.SYNC_SECONDS),
        end_to_end=_latency(look, catalogue.END_TO_END_SECONDS),
        commits_per_second=None if commits is None else commits.count / look.seconds,
        commit_messages=None if commits is None else commits.mean,
        commit_bytes=None if commit_bytes is None else commit_bytes.mean,
        channels=look.value(catalogue.CHANNELS.name),
        groups=look.value(catalogue.GROUPS.name),
        messages=_total(look, catalogue.CHANNEL_MESSAGES),
        bytes=_total(look, catalogue.CHANNEL_BYTES),
        is_aggregated=is_aggregated,
        lag_seconds=max(look.values(catalogue.GROUP_LAG_SECONDS.name).values(), default=None),
        connections=_total(look, catalogue.CONNECTIONS) or 0,
        connections_limit=look.value(catalogue.CONNECTIONS_LIMIT.name),
        long_polls=look.value(catalogue.LONG_POLLS.name),
        disk_free_bytes=look.value(catalogue.DISK_FREE.name),
        disk_total_bytes=look.value(catalogue.DISK_TOTAL.name),
        memory_bytes=look.value(MEMORY),
        cpu_share=look.rate(CPU),
        etcd_is_up=None if up is None else bool(up),
        etcd=_latency(look, catalogue.ETCD_SECONDS),
        mirror=_mirror(look),
        readers=[] if is_aggregated else sorted(_readers(look), key=_badness),
    )


def holdings(found: Overview) -> str:
    """What is in the broker, in words."""
    parts = [(found.channels, "channel"), (found.groups, "group"), (found.messages, "message")]
    return ", ".join([*(counted(number, what) for number, what in parts), size(found.bytes)])


def _flow(look: Interval, messages: Metric, size: Metric) -> Flow:
    return Flow(look.rate(messages.name), look.rate(size.name))


def _latency(look: Interval, metric: Metric, *operations: str) -> Latency:
    histogram = look.histogram(metric.name, *operations)
    return Latency(None, None) if histogram is None else Latency(histogram.quantile(0.5), histogram.quantile(0.99))


def _total(look: Interval, metric: Metric) -> float | None:
    values = look.values(metric.name)
    return sum(values.values()) if values or metric.name in look.later.metrics else None


def _mirror(look: Interval) -> Mirror | None:
    up = look.values(catalogue.MIRROR_UP.name)
    if not up:
        return None
    states = {labels[-1]: int(count) for labels, count in look.values(catalogue.MIRROR_CHANNELS.name).items()}
    lags = look.values(catalogue.MIRROR_LAG.name).values()
    is_up = all(up.values())
    return Mirror(is_up, states, sum(lags) if lags and is_up else None, look.rate(catalogue.MIRROR_MESSAGES.name))


def _readers(look: Interval) -> Iterator[Reader]:
    produced = look.increases(catalogue.PRODUCED_MESSAGES.name)
    moved = look.changes(catalogue.GROUP_OFFSET.name)
    seconds_behind, waiting = look.values(catalogue.GROUP_LAG_SECONDS.name), look.values(catalogue.GROUP_WAITING.name)

    def rate(channel: str) -> float | None:
        return None if produced is None else produced.get((channel,), 0) / look.seconds

    lags = look.values(catalogue.GROUP_LAG.name)
    for labels, lag in lags.items():
        channel, group = labels
        yield Reader(
            channel,
            group,
            lag,
            seconds_behind.get(labels),
            rate(channel),
            max(0.0, moved[labels] / look.seconds) if labels in moved else None,  # below 0: a seek
            waiting.get(labels),
        )
    with_groups = {channel for channel, _ in lags}
    for (channel,) in look.values(catalogue.CHANNEL_MESSAGES.name):
        if channel not in with_groups:
            yield Reader(channel, "", None, None, rate(channel), None, None)


def _badness(reader: Reader) -> tuple[float, float, float, str, str]:
    """Sorts the oldest unread message first, then the most of them, then the busiest."""
    return (
        -(reader.lag_seconds or 0),
        -(reader.lag_messages or 0),
        -(reader.produced_per_second or 0),
        reader.channel,
        reader.group,
    )
