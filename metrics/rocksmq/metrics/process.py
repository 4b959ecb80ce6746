"""What prometheus_client tells of any Python process, as dashboards know it: process_*, python_gc_*, python_info."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector

from .catalogue import Kind, Metric
from .instruments import MetricFamily, Sample, labelled

_REGISTRY = CollectorRegistry()
_COLLECTORS = (ProcessCollector(registry=_REGISTRY), GCCollector(registry=_REGISTRY), PlatformCollector(registry=_REGISTRY))


def families() -> Iterator[MetricFamily]:
    """As they are now. Off Linux, those of the process are left out."""
    for collector in _COLLECTORS:
        for found in collector.collect():
            kind = Kind(found.type)
            name = found.name + ("_total" if kind is Kind.COUNTER else "")
            labels = tuple(found.samples[0].labels) if found.samples else ()
            metric = Metric(name, kind, found.documentation, labels)
            yield metric, [Sample("", labelled(metric, *sample.labels.values()), sample.value) for sample in found.samples]
