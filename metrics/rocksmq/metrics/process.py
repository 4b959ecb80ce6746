"""What prometheus_client tells of any Python process, as dashboards know it: process_*, python_gc_*, python_info."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector

from .catalogue import MEMORY_LIMIT, Kind, Metric
from .instruments import MetricFamily, Sample, gauge, labelled

CGROUPS = Path("/sys/fs/cgroup")
_REGISTRY = CollectorRegistry()
_COLLECTORS = (ProcessCollector(registry=_REGISTRY), GCCollector(registry=_REGISTRY), PlatformCollector(registry=_REGISTRY))


def memory_limit(own: Path = Path("/proc/self/cgroup"), cgroups: Path = CGROUPS) -> int:
    """Bytes that this process may take: the machine's memory, or the least that one of its cgroups (version 2) allows."""
    found = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    with suppress(OSError):
        inside = [line[len("0::/") :] for line in own.read_text().splitlines() if line.startswith("0::/")]
        for group in (cgroups / name for name in inside):
            for path in (group, *group.parents):
                with suppress(OSError, ValueError):  # the file says "max", or the path is none of a cgroup
                    found.append(int((path / "memory.max").read_text()))
    return min(found)


_MEMORY_LIMIT = memory_limit()


def read() -> list[MetricFamily]:
    """As they are now; off Linux, those of the process are left out.

    With thousands of open files this takes milliseconds, for they are listed to be counted.
    """
    return list(_families())


def _families() -> Iterator[MetricFamily]:
    for collector in _COLLECTORS:
        for found in collector.collect():
            kind = Kind(found.type)
            name = found.name + ("_total" if kind is Kind.COUNTER else "")
            labels = tuple(found.samples[0].labels) if found.samples else ()
            metric = Metric(name, kind, found.documentation, labels)
            yield metric, [Sample("", labelled(metric, *sample.labels.values()), sample.value) for sample in found.samples]
    yield gauge(MEMORY_LIMIT, _MEMORY_LIMIT)
