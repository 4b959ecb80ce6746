"""What happened between two looks at a broker: rates from counters, quantiles from histograms.

A broker that was started anew in between counts from nothing again: what it counted since is what happened. Pure.
"""

from collections.abc import Callable, Mapping
from typing import TypeAlias

from .status import BrokerStatus, Histogram, LabelValues, Metric

Wanted: TypeAlias = Callable[[LabelValues], bool]
START_TIME = "process_start_time_seconds"
_NOTHING = Metric("", "")


def _all(labels: LabelValues) -> bool:
    return True


class Interval:
    """``seconds`` lie between ``earlier`` (None: nobody looked before) and ``later``."""

    def __init__(self, earlier: BrokerStatus | None, later: BrokerStatus, seconds: float) -> None:
        self.later = later
        self.seconds = seconds
        self.is_known = earlier is not None and seconds > 0
        self._later = later.metrics
        self._earlier: Mapping[str, Metric] = earlier.metrics if earlier is not None else {}
        if self._value_of(self._earlier, START_TIME) != self.value(START_TIME):
            self._earlier = {}

    def value(self, name: str, *labels: str) -> float | None:
        """Of a gauge or counter, as it is now; None: there is none."""
        return self._value_of(self._later, name, *labels)

    def values(self, name: str) -> Mapping[LabelValues, float]:
        """All of a gauge or counter, as they are now."""
        return self._later.get(name, _NOTHING).values

    def increases(self, name: str) -> dict[LabelValues, float] | None:
        """By how much each of a counter has risen, never negative: one that fell was made anew, and began at 0.

        None where that is not known: nobody looked before, or the broker shows sums now and did not then, or the reverse.
        """
        later, earlier = self._later.get(name), self._earlier.get(name, _NOTHING)
        if not self.is_known or later is None or (earlier.values and later.values and earlier.labels != later.labels):
            return None
        return {
            labels: value - before if value >= (before := earlier.values.get(labels, 0)) else value
            for labels, value in later.values.items()
        }

    def changes(self, name: str) -> dict[LabelValues, float]:
        """By how much each of a gauge has changed, of those that were there before and are there still."""
        earlier = self._earlier.get(name, _NOTHING).values
        return {labels: value - earlier[labels] for labels, value in self.values(name).items() if labels in earlier}

    def rate(self, name: str, is_wanted: Wanted = _all) -> float | None:
        """By how much a counter has risen a second, all its series that are wanted together; None: not known."""
        increases = self.increases(name)
        if increases is None:
            return None
        return sum(increase for labels, increase in increases.items() if is_wanted(labels)) / self.seconds

    def histogram(self, name: str, *labels: str) -> Histogram | None:
        """What came meanwhile, of all that begin with one of ``labels`` together; None: nothing is known."""
        later = self._later.get(name, _NOTHING).histograms
        earlier = self._earlier.get(name, _NOTHING).histograms
        if not self.is_known:
            return None
        found: Histogram | None = None
        for key, histogram in later.items():
            if not labels or (key[:1] and key[0] in labels):
                came = histogram.since(earlier.get(key))
                found = came if found is None else found + came
        return found

    @staticmethod
    def _value_of(metrics: Mapping[str, Metric], name: str, *labels: str) -> float | None:
        return metrics.get(name, _NOTHING).values.get(labels)
