"""What is read from the broker's state at a scrape.

Every reading is made as its sample is asked for, so that whoever writes them out may give others their turn between any two:
what was destroyed meanwhile is left out. Many channels are read one after the other, never in one go.
"""

import sys
from collections import Counter as Count
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING

from rocksmq.metrics import catalogue
from rocksmq.metrics.catalogue import Metric
from rocksmq.metrics.instruments import MetricFamily, Sample, gauge, gauges, labelled
from rocksmq.protocol.errors import StorageFailed

from .channels import Channel
from .disk import DiskGuard
from .groups import Group
from .ids import clock_ms, time_ms_of
from .store import Family, Store

if TYPE_CHECKING:
    from .core import Core

A_TURN = 50  # channels or groups that are added up in one go
_PYTHON = ".".join(map(str, sys.version_info[:3]))
_VERSIONS = version("rocksmq"), _PYTHON, version("rocksdict")

OF_A_CHANNEL: tuple[tuple[Metric, Callable[[Channel], float]], ...] = (
    (catalogue.PRODUCED_MESSAGES, lambda channel: channel.produced.messages),
    (catalogue.PRODUCED_BYTES, lambda channel: channel.produced.size),
    (catalogue.CHANNEL_FIRST_ID, lambda channel: channel.visible.begin_id),
    (catalogue.CHANNEL_LAST_ID, lambda channel: channel.visible.end_id),
    (catalogue.CHANNEL_MESSAGES, lambda channel: channel.visible.message_count),
    (catalogue.CHANNEL_BYTES, lambda channel: channel.visible.byte_count),
)


def of_core(core: "Core") -> Iterator[MetricFamily]:
    """What there is one of."""
    committer, log = core.committer, core.log
    yield gauge(catalogue.BUILD_INFO, 1, *_VERSIONS, str(core.durability), core.meta.kind)
    yield gauge(catalogue.LONG_POLLS, len(core.waiters))
    yield gauge(catalogue.COMMIT_QUEUE_BYTES, committer.open.size)
    yield gauge(catalogue.SYNC_RUNNING, committer.syncing_seconds)
    yield gauge(catalogue.UNSYNCED_COMMITS, committer.written_number - committer.synced_number)
    yield gauge(catalogue.ID_AHEAD, max(0, time_ms_of(core.ids.present_id) - clock_ms()) / 1000)
    yield gauge(catalogue.CACHE_BYTES, log.cache.size)
    yield gauges(catalogue.CACHE_READS, ((("hit",), log.hit_count), (("miss",), log.miss_count)))
    yield catalogue.CHANNELS, _count(core, channels=True, groups=False)
    yield catalogue.GROUPS, _count(core, channels=False, groups=True)
    yield gauge(catalogue.POSITIONS_BROUGHT_BACK, core.positions_brought_back)
    yield gauge(catalogue.REMOVED_MESSAGES, core.retention.removed_messages)
    yield gauge(catalogue.REMOVED_BYTES, core.retention.removed_bytes)
    yield gauge(catalogue.GROUPS_EXPIRED, core.idle_groups.expired)
    yield gauge(catalogue.CLOCK_IN_DOUBT, core.retention.clock.doubt is not None)
    yield from core.meta.families()


def of_disk(disk: DiskGuard) -> Iterator[MetricFamily]:
    """Nothing while the file system does not tell."""
    disk.look()
    if disk.is_known:
        yield gauge(catalogue.DISK_FREE, disk.free_bytes)
        yield gauge(catalogue.DISK_TOTAL, disk.total_bytes)
        yield gauge(catalogue.DISK_RESERVE, disk.reserve)
        yield gauge(catalogue.DISK_FULL, disk.is_full)


def of_store(store: Store) -> Iterator[MetricFamily]:
    """Of RocksDB."""

    def of_all(name: str) -> int:
        return sum(store.figure(name, family) for family in Family)

    yield gauges(catalogue.STORAGE_DISK, ((("sst",), of_all("total-sst-files-size")), (("wal",), store.log_bytes())))
    memory = of_all("size-all-mem-tables"), store.figure("block-cache-usage"), of_all("estimate-table-readers-mem")
    kinds = ("memtables",), ("block_cache",), ("table_readers",)
    yield gauges(catalogue.STORAGE_MEMORY, zip(kinds, memory, strict=True))
    yield gauge(catalogue.COMPACTION_PENDING, of_all("estimate-pending-compaction-bytes"))
    yield gauge(catalogue.COMPACTIONS, store.figure("num-running-compactions"))
    yield gauge(catalogue.FLUSHES, store.figure("num-running-flushes"))
    yield gauge(catalogue.WRITE_STALLED, store.figure("is-write-stopped"))
    yield gauge(catalogue.WRITE_RATE, store.figure("actual-delayed-write-rate"))
    yield gauge(catalogue.BACKGROUND_ERRORS, store.background_errors())


def of_channels(core: "Core", names: Sequence[str] | None) -> Iterator[MetricFamily]:
    """Of the channels of those names; of all, if there are none; None: of all, or their sums when they are too many.

    Raises ChannelNotFound, at once.
    """
    channels = [core.channels.find(name) for name in dict.fromkeys(names)] if names else list(core.channels)
    is_of_sums = is_aggregated(core, names)
    families = _sums(core, channels) if is_of_sums else _each(core, channels)

    def found() -> Iterator[MetricFamily]:
        yield catalogue.SERIES, _count(core, channels=True, groups=True)
        yield gauge(catalogue.AGGREGATED, is_of_sums)
        yield from families

    return found()


def is_aggregated(core: "Core", names: Sequence[str] | None) -> bool:
    """Whether there are too many channels and groups for series of their own, and nobody asked for them by ``names``."""
    count, most = len(core.channels), core.limits.metrics_series_max
    return names is None and (count > most or count + core.channels.group_count > most)


def _count(core: "Core", *, channels: bool, groups: bool) -> Iterator[Sample | None]:
    """How many of them are there, and durable."""
    count = 0
    for index, channel in enumerate(_shown(core, tuple(core.channels)), 1):
        count += channels + (len(_groups(channel)) if groups else 0)
        if index % A_TURN == 0:
            yield None
    yield Sample("", "", count)


def _each(core: "Core", channels: Sequence[Channel]) -> Iterator[MetricFamily]:
    labels: dict[Channel | Group, str] = {}
    with_groups = [channel for channel in channels if channel.groups]

    def of(channel: Channel) -> str:
        if channel not in labels:
            labels[channel] = labelled(catalogue.CHANNEL_MESSAGES, channel.name)
        return labels[channel]

    def of_group(group: Group) -> str:
        if group not in labels:
            labels[group] = labelled(catalogue.GROUP_LAG, group.channel_name, group.name)
        return labels[group]

    def of_channels(value: Callable[[Channel], float]) -> Iterator[Sample]:
        return (Sample("", of(channel), value(channel)) for channel in _shown(core, channels))

    def of_groups(value: Callable[[Channel, Group], float]) -> Iterator[Sample]:
        for channel in _shown(core, with_groups):
            for group in _groups(channel):
                yield Sample("", of_group(group), value(channel, group))

    def delivered(value: Callable[[Channel | Group], float]) -> Iterator[Sample]:
        for channel in _shown(core, channels):
            yield Sample("", labelled(catalogue.DELIVERED_MESSAGES, channel.name, ""), value(channel))
            for group in _groups(channel):
                yield Sample("", of_group(group), value(group))

    def lags_ms() -> Iterator[Sample | None]:
        for channel in _shown(core, with_groups):
            for group in _groups(channel):
                known = group.oldest
                age_ms = _lag_ms(core, channel, group)
                if age_ms is not None:
                    yield Sample("", of_group(group), age_ms / 1000)
                if age_ms is None or group.oldest is not known:
                    yield None  # it was looked up

    def waiting() -> Iterator[Sample | None]:
        for channel in _shown(core, with_groups):
            counts: Count[str] = Count()
            for index, waiter in enumerate(core.waiters.of(channel.number), 1):
                if waiter.consumer is not None:
                    counts[waiter.consumer[0]] += 1
                if index % A_TURN == 0:
                    yield None
            for group in _groups(channel):
                yield Sample("", of_group(group), counts[group.name])

    def held() -> Iterator[Sample | None]:
        for channel in _shown(core, with_groups):
            if channel.rules.consumed_by_all and (found := core.retention.held(channel)) is not None:
                yield Sample("", labelled(catalogue.HELD_BYTES, channel.name, str(found[0])), int(found[2]))
                yield None  # it was looked up

    for metric, value in OF_A_CHANNEL:
        yield metric, of_channels(value)
    yield catalogue.HELD_BYTES, held()
    yield catalogue.DELIVERED_MESSAGES, delivered(lambda found: found.delivered.messages)
    yield catalogue.DELIVERED_BYTES, delivered(lambda found: found.delivered.size)
    yield catalogue.GROUP_OFFSET, of_groups(lambda channel, group: _offset(group))
    yield catalogue.GROUP_LAG, of_groups(lambda channel, group: core.groups.lag(group, channel.visible))
    yield catalogue.GROUP_LAG_SECONDS, lags_ms()
    yield catalogue.GROUP_WAITING, waiting()


def _sums(core: "Core", channels: Sequence[Channel]) -> Iterator[MetricFamily]:
    """Sums over all channels; of what is oldest, the oldest. Counts of what is gone stay in the sums: they never fall."""
    telemetry = core.telemetry
    sums: Count[Metric] = Count()
    oldest_ms = 0
    with_groups = [channel for channel in channels if channel.groups]

    def gather() -> Iterator[None]:
        nonlocal oldest_ms
        for index, channel in enumerate(_shown(core, channels)):
            sums[catalogue.CHANNEL_MESSAGES] += channel.visible.message_count
            sums[catalogue.CHANNEL_BYTES] += channel.visible.byte_count
            if index % A_TURN == 0:
                yield None
        groups = ((channel, group) for channel in _shown(core, with_groups) for group in _groups(channel))
        for index, (channel, group) in enumerate(groups):
            known = group.oldest
            sums[catalogue.GROUP_LAG] += core.groups.lag(group, channel.visible)
            sums[catalogue.GROUP_OFFSET] += _offset(group)
            age_ms = _lag_ms(core, channel, group)
            oldest_ms = max(oldest_ms, age_ms or 0)
            if index % A_TURN == 0 or age_ms is None or group.oldest is not known:
                yield None
        for index, waiter in enumerate(core.waiters):
            sums[catalogue.GROUP_WAITING] += waiter.consumer is not None
            if index % A_TURN == 0:
                yield None

    def gathered() -> Iterator[Sample | None]:
        yield from gather()
        yield Sample("", "", sums[catalogue.CHANNEL_MESSAGES])

    yield catalogue.CHANNEL_MESSAGES, gathered()
    for metric in (catalogue.CHANNEL_BYTES, catalogue.GROUP_OFFSET, catalogue.GROUP_LAG, catalogue.GROUP_WAITING):
        yield metric, _one(lambda metric=metric: sums[metric])  # type: ignore[misc]
    yield catalogue.GROUP_LAG_SECONDS, _one(lambda: oldest_ms / 1000)
    yield catalogue.PRODUCED_MESSAGES, _one(lambda: telemetry.produced.messages)
    yield catalogue.PRODUCED_BYTES, _one(lambda: telemetry.produced.size)
    yield catalogue.DELIVERED_MESSAGES, _one(lambda: telemetry.delivered.messages)
    yield catalogue.DELIVERED_BYTES, _one(lambda: telemetry.delivered.size)


def _one(value: Callable[[], float]) -> Iterator[Sample]:
    yield Sample("", "", value())


def _shown(core: "Core", channels: Iterable[Channel]) -> Iterator[Channel]:
    """Those that are there, and durable."""
    return (channel for channel in channels if channel.is_public and core.channels.get_numbered(channel.number) is channel)


def _offset(group: Group) -> int:
    return (group.visible or group.state).offset


def _lag_ms(core: "Core", channel: Channel, group: Group) -> int | None:
    """None where the store cannot be read, which hides no other group."""
    try:
        return core.groups.lag_ms(group, channel.number, channel.visible)
    except StorageFailed:
        return None


def _groups(channel: Channel) -> list[Group]:
    return [group for group in channel.groups.values() if group.visible is not None]
