"""The mirror's figures as metrics, read from what it reports of itself: one object of JSON, cut by channels.

Both who watches a mirror from outside and the mirror's own process show them by this. Counts go on over the lives of the
process; the series of a channel end with it. Knows the form of a report by its fields, and nothing of who writes it.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from . import catalogue
from .catalogue import Metric
from .instruments import MetricFamily, Sample, gauge, labelled

STATES = ("starting", "running", "waiting", "stopped", "ended")
_STARTING, RUNNING, _WAITING, STOPPED, ENDED = STATES
COUNTS: Mapping[str, Metric] = {
    "messages": catalogue.MIRROR_MESSAGES,
    "bytes": catalogue.MIRROR_BYTES,
    "skipped": catalogue.MIRROR_SKIPPED,
    "gaps": catalogue.MIRROR_GAPS,
    "errors": catalogue.MIRROR_ERRORS,
}


class _Channel:
    """One that is mirrored."""

    __slots__ = ("counts", "deduplication", "lag", "last_error_at", "seen", "state")

    def __init__(self) -> None:
        self.state = _STARTING
        self.lag: int | None = None
        self.deduplication: bool | None = None
        self.last_error_at = 0.0
        self.counts = dict.fromkeys(COUNTS, 0)
        self.seen = dict.fromkeys(COUNTS, 0)  # of them, what the process that runs has told

    def take(self, told: "_Told") -> dict[str, int]:
        """What the counts rose by."""
        self.state, self.lag, self.deduplication, self.last_error_at = (
            told.state,
            told.lag,
            told.deduplication,
            told.last_error_at,
        )
        rises = {name: count - self.seen[name] if count >= self.seen[name] else count for name, count in told.counts.items()}
        self.seen = told.counts
        for name, rise in rises.items():
            self.counts[name] += rise
        return rises


class _Told:
    """One channel of a report. Raises AttributeError, KeyError, OverflowError, TypeError or ValueError for anything else."""

    __slots__ = ("counts", "deduplication", "lag", "last_error_at", "name", "state")

    def __init__(self, tree: Mapping[str, Any]) -> None:
        self.name = str(tree["channel"])
        self.state = str(tree["state"])
        if self.state not in STATES:
            raise ValueError(self.state)
        self.counts = {name: max(0, int(tree.get(name, 0))) for name in COUNTS}
        self.lag = None if tree.get("lag") is None else int(tree["lag"])
        self.deduplication = None if tree.get("deduplication") is None else bool(tree["deduplication"])
        self.last_error_at = float(tree.get("last_error_at", 0))


class MirrorFigures:
    """Of the mirror of that name."""

    def __init__(self, mirror: str) -> None:
        self.mirror = mirror
        self._channels: dict[str, _Channel] = {}
        self._sums = dict.fromkeys(COUNTS, 0)  # of all channels there ever were
        self._seen_sums = dict.fromkeys(COUNTS, 0)

    def take(self, report: str | bytes) -> None:
        """Show what ``report`` tells from now on. Raises ValueError when it is none; then nothing has changed."""
        try:
            tree = json.loads(report)
            channels = [_Told(one) for one in tree["channels"]]
            sums = {name: max(0, int(tree["sums"][name])) for name in COUNTS}
            is_whole = int(tree["sums"]["channels"]) <= len(channels)
        except (AttributeError, KeyError, OverflowError, RecursionError, TypeError, ValueError) as error:
            raise ValueError(f"this is no report of a mirror: {report[:100]!r}") from error
        known, self._channels = self._channels, {}
        for told in channels:
            channel = self._channels[told.name] = known.get(told.name) or _Channel()
            rises = channel.take(told)
            if is_whole:
                self._add(rises)
        if not is_whole:  # there are more channels than a report holds
            self._add({name: max(0, total - self._seen_sums[name]) for name, total in sums.items()})
        self._seen_sums = sums

    def begin_life(self) -> None:
        """The process begins anew, and its counts at 0."""
        self._seen_sums = dict.fromkeys(COUNTS, 0)
        for channel in self._channels.values():
            channel.seen = dict.fromkeys(COUNTS, 0)

    def families(
        self, names: Sequence[str] | None = None, *, is_up: bool = True, is_aggregated: bool = False
    ) -> Iterator[MetricFamily]:
        """Of the channels of those ``names``; of all, if there are none; ``is_aggregated``: sums of all.

        Of a mirror that is not ``is_up`` nothing is known but what it counted.
        """
        channels = {name: one for name, one in self._channels.items() if one.state != ENDED and (not names or name in names)}
        yield gauge(catalogue.MIRROR_UP, is_up, self.mirror)
        yield self._by_state(is_up)
        now = channels if is_up else {}
        gauges: dict[Metric, Mapping[str, float]] = {
            catalogue.MIRROR_CHANNEL_UP: {name: is_up and one.state == RUNNING for name, one in channels.items()},
            catalogue.MIRROR_CHANNEL_STOPPED: {name: is_up and one.state == STOPPED for name, one in channels.items()},
            catalogue.MIRROR_LAG: {name: one.lag for name, one in now.items() if one.lag is not None},
            catalogue.MIRROR_NOT_DEDUPLICATED: {name: one.deduplication is False for name, one in channels.items()},
        }
        for metric, values in gauges.items():
            yield metric, self._one(metric, sum(values.values())) if is_aggregated else self._each(metric, values)
        for name, metric in COUNTS.items():
            counts = {channel: one.counts[name] for channel, one in channels.items()}
            yield metric, self._one(metric, self._sums[name]) if is_aggregated else self._each(metric, counts)
        errors = {name: one.last_error_at for name, one in channels.items()}
        metric = catalogue.MIRROR_LAST_ERROR
        yield metric, self._one(metric, max(errors.values(), default=0)) if is_aggregated else self._each(metric, errors)

    def _add(self, rises: Mapping[str, int]) -> None:
        for name, rise in rises.items():
            self._sums[name] += rise

    def _by_state(self, is_up: bool) -> MetricFamily:
        found = [one.state for one in self._channels.values()] if is_up else []
        metric = catalogue.MIRROR_CHANNELS
        return metric, [Sample("", labelled(metric, self.mirror, state), found.count(state)) for state in STATES]

    def _one(self, metric: Metric, value: float) -> Iterable[Sample]:
        return (Sample("", labelled(catalogue.MIRROR_UP, self.mirror), value),)

    def _each(self, metric: Metric, values: Mapping[str, float]) -> Iterator[Sample]:
        return (Sample("", labelled(metric, self.mirror, name), +value) for name, value in values.items())
