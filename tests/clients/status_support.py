"""Brokers of the tests' making, as `rocksmq status` and `rocksmq top` see them."""

from collections.abc import Mapping, Sequence
from typing import Any

from rocksmq.clients.interval import START_TIME, Interval
from rocksmq.clients.status import BrokerStatus, Histogram, Metric
from rocksmq.metrics import catalogue
from rocksmq.metrics.catalogue import Kind

NOON = 1_791_000_000.0  # 2026-10-03 04:00:00 UTC
STARTED = NOON - 11_100
MIB, GIB = 1 << 20, 1 << 30
Samples = Mapping[tuple[str, ...], float] | float
WELL: dict[catalogue.Metric, Samples] = {
    catalogue.BUILD_INFO: {("0.1.0", "3.13.1", "0.3.29", "fsync", "embedded"): 1},
    catalogue.CHANNELS: 2,
    catalogue.GROUPS: 2,
    catalogue.AGGREGATED: 0,
    catalogue.CONNECTIONS: {("open",): 11, ("handshake",): 1},
    catalogue.CONNECTIONS_LIMIT: 4_096,
    catalogue.LONG_POLLS: 3,
    catalogue.DISK_FREE: 45 * GIB,
    catalogue.DISK_TOTAL: 100 * GIB,
    catalogue.DISK_RESERVE: GIB,
    catalogue.REQUESTS: {("PRODUCE", "OK"): 1_000, ("CONSUME", "OK"): 500, ("PRODUCE", "DiskFull"): 7},
    catalogue.PRODUCED_MESSAGES: {("orders",): 10_000, ("invoices",): 0},
    catalogue.PRODUCED_BYTES: {("orders",): 5 * MIB, ("invoices",): 0},
    catalogue.DELIVERED_MESSAGES: {("orders", ""): 0, ("orders", "billing"): 9_000, ("orders", "mail"): 100},
    catalogue.DELIVERED_BYTES: {("orders", ""): 0, ("orders", "billing"): 4 * MIB, ("orders", "mail"): 1 * MIB},
    catalogue.CHANNEL_MESSAGES: {("orders",): 12_345, ("invoices",): 0},
    catalogue.CHANNEL_BYTES: {("orders",): 6 * MIB, ("invoices",): 0},
    catalogue.GROUP_OFFSET: {("orders", "billing"): 9_000, ("orders", "mail"): 100},
    catalogue.GROUP_LAG: {("orders", "billing"): 1_000, ("orders", "mail"): 12_000},
    catalogue.GROUP_LAG_SECONDS: {("orders", "billing"): 0.25, ("orders", "mail"): 45.5},
    catalogue.GROUP_WAITING: {("orders", "billing"): 2, ("orders", "mail"): 0},
}


def histogram(metric: catalogue.Metric, *values: tuple[float, int]) -> Histogram:
    """Of values that came so many times."""
    bounds = (*metric.buckets, float("inf"))
    counts = tuple(sum(count for value, count in values if value <= bound) for bound in bounds)
    return Histogram(bounds, counts, sum(value * count for value, count in values))


def broker(
    changed: Mapping[catalogue.Metric, Samples] | None = None,
    *,
    problems: Sequence[str] = (),
    histograms: Mapping[catalogue.Metric, Mapping[tuple[str, ...], Histogram]] | None = None,
    started: float = STARTED,
    memory: float = 231 * MIB,
    cpu: float = 100.0,
) -> BrokerStatus:
    """One that is well, but for what is ``changed``."""
    metrics = {
        START_TIME: Metric("gauge", "", (), {(): started}),
        "process_resident_memory_bytes": Metric("gauge", "", (), {(): memory}),
        "process_cpu_seconds_total": Metric("counter", "", (), {(): cpu}),
    }
    for metric, samples in {**WELL, **(changed or {})}.items():
        values: Any = samples if isinstance(samples, Mapping) else {(): samples}
        labels = () if () in values else metric.labels
        metrics[metric.name] = Metric(metric.kind, metric.help, labels, values)
    for metric, found in (histograms or {}).items():
        metrics[metric.name] = Metric(Kind.HISTOGRAM, metric.help, metric.labels, {}, found)
    return BrokerStatus(not problems, list(problems), metrics)


def one_look(status: BrokerStatus) -> Interval:
    return Interval(None, status, 0.0)


def a_second_of_load(**more: Any) -> Interval:
    """Two looks at a broker under load, a second apart."""
    seconds, syncs, sizes, ages = (
        catalogue.REQUEST_SECONDS,
        catalogue.SYNC_SECONDS,
        catalogue.COMMIT_MESSAGES,
        catalogue.END_TO_END_SECONDS,
    )
    earlier = broker(
        histograms={
            seconds: {("PRODUCE",): histogram(seconds, (9.0, 50))},
            syncs: {(): histogram(syncs, (9.0, 50))},
            sizes: {(): histogram(sizes, (1.0, 10))},
            catalogue.COMMIT_BYTES: {(): histogram(catalogue.COMMIT_BYTES, (100.0, 10))},
            ages: {(): histogram(ages)},
        }
    )
    later = broker(
        {
            catalogue.REQUESTS: {("PRODUCE", "OK"): 1_100, ("CONSUME", "OK"): 560, ("PRODUCE", "DiskFull"): 9},
            catalogue.PRODUCED_MESSAGES: {("orders",): 22_345, ("invoices",): 3},
            catalogue.PRODUCED_BYTES: {("orders",): 9 * MIB, ("invoices",): 300},
            catalogue.DELIVERED_MESSAGES: {("orders", ""): 5, ("orders", "billing"): 21_000, ("orders", "mail"): 100},
            catalogue.DELIVERED_BYTES: {("orders", ""): 500, ("orders", "billing"): 7 * MIB, ("orders", "mail"): 1 * MIB},
            catalogue.GROUP_OFFSET: {("orders", "billing"): 21_000, ("orders", "mail"): 90},
            **more.pop("changed", {}),
        },
        histograms={
            seconds: {
                ("PRODUCE",): histogram(seconds, (9.0, 50), (0.0007, 90), (0.0015, 10)),
                ("CONSUME",): histogram(seconds, (0.0002, 50)),
                ("FETCH_MANY",): histogram(seconds, (0.0002, 10)),
            },
            syncs: {(): histogram(syncs, (9.0, 50), (0.0002, 80))},
            sizes: {(): histogram(sizes, (1.0, 10), (154.0, 80))},
            catalogue.COMMIT_BYTES: {(): histogram(catalogue.COMMIT_BYTES, (100.0, 10), (50_000.0, 80))},
            ages: {(): histogram(ages, (0.0015, 12_000))},
        },
        cpu=100.63,
        **more,
    )
    return Interval(earlier, later, 1.0)
