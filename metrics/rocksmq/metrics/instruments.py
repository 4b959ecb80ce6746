"""What counts: counters and histograms, owned by one thread and read by it.

An update is a few machine operations, for it stands on the way of every request: no lock, no label look-up where the
owner can keep the instrument. What is read at a scrape instead, such as the state of channels, is a
`MetricFamily` made then. Knows nothing of the broker.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from typing import NamedTuple, TypeAlias

from .catalogue import Metric


class Sample(NamedTuple):
    """One line of an exposition: name of the metric and ``suffix``, then ``labels`` as they are written, then the value."""

    suffix: str
    labels: str
    value: float


MetricFamily: TypeAlias = tuple[Metric, Iterable[Sample | None]]
"""A metric and its samples; None among them marks where whoever writes them out may give others their turn."""

_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


def labelled(metric: Metric, *values: str) -> str:
    """The labels of ``metric`` with ``values``, as they are written: ``{channel="orders"}``."""
    pairs = [f'{name}="{value.translate(_ESCAPES)}"' for name, value in zip(metric.labels, values, strict=True)]
    return "{" + ",".join(pairs) + "}" if pairs else ""


def gauge(metric: Metric, value: float, *labels: str) -> MetricFamily:
    """A family of one sample; a truth value is 0 or 1."""
    return metric, (Sample("", labelled(metric, *labels), +value),)


def gauges(metric: Metric, values: Iterable[tuple[tuple[str, ...], float]]) -> MetricFamily:
    """A family of samples by their labels' values; truth values as in `gauge`."""
    return metric, (Sample("", labelled(metric, *labels), +value) for labels, value in values)


class Traffic:
    """Messages and their bytes, as counted by their owner."""

    __slots__ = ("messages", "size")

    def __init__(self) -> None:
        self.messages = 0
        self.size = 0

    def add(self, messages: int, size: int) -> None:
        """Count them."""
        self.messages += messages
        self.size += size


class Counter:
    """``value`` only ever rises."""

    __slots__ = ("metric", "value")

    def __init__(self, metric: Metric) -> None:
        self.metric = metric
        self.value = 0

    def family(self) -> MetricFamily:
        return gauge(self.metric, self.value)


class Counters:
    """Counters by the values of their labels; those in ``known`` are shown before they first count."""

    __slots__ = ("metric", "values")

    def __init__(self, metric: Metric, known: Iterable[tuple[str, ...]] = ()) -> None:
        self.metric = metric
        self.values: dict[tuple[str, ...], int] = dict.fromkeys(known, 0)

    def add(self, *labels: str) -> None:
        """Count one."""
        self.values[labels] = self.values.get(labels, 0) + 1

    def family(self) -> MetricFamily:
        return gauges(self.metric, sorted(self.values.items()))


class Histogram:
    """How often values fell below each bound of the metric's buckets."""

    __slots__ = ("_bounds", "_counts", "metric", "total")

    def __init__(self, metric: Metric) -> None:
        self.metric = metric
        self.total = 0.0
        self._bounds = metric.buckets
        self._counts = [0] * (len(metric.buckets) + 1)

    def observe(self, value: float, count: int = 1) -> None:
        """Count ``value``, as if it came ``count`` times."""
        self._counts[bisect_left(self._bounds, value)] += count
        self.total += value * count

    def family(self) -> MetricFamily:
        return self.metric, self.samples()

    def samples(self, *labels: str) -> Iterator[Sample]:
        """All of one histogram, with the values of its labels."""
        within = labelled(self.metric, *labels)[1:-1]
        within += "," if within else ""
        count = 0
        for bound, counted in zip((*map(str, self._bounds), "+Inf"), tuple(self._counts), strict=True):
            count += counted
            yield Sample("_bucket", f'{{{within}le="{bound}"}}', count)
        yield Sample("_count", labelled(self.metric, *labels), count)
        yield Sample("_sum", labelled(self.metric, *labels), self.total)


class Histograms:
    """Histograms by the value of their one label."""

    __slots__ = ("by_label", "metric")

    def __init__(self, metric: Metric) -> None:
        self.metric = metric
        self.by_label: dict[str, Histogram] = {}

    def observe(self, label: str, value: float) -> None:
        """Count ``value`` under ``label``."""
        histogram = self.by_label.get(label)
        if histogram is None:
            histogram = self.by_label[label] = Histogram(self.metric)
        histogram.observe(value)

    def family(self) -> MetricFamily:
        found = sorted(self.by_label.items())
        return self.metric, (sample for label, histogram in found for sample in histogram.samples(label))
