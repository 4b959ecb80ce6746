"""What the broker says of itself (SPEC §3.27): whether it is ready, what is wrong, and its metrics as typed values.

Reads the text exposition format 0.0.4 as far as our broker writes it: each family in one piece behind its TYPE line, and
histograms with all their buckets. Whatever else comes is a ProtocolError. Pure: knows no socket and no clock.
"""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TypeAlias

from rocksmq.protocol.cbor import Buffer
from rocksmq.protocol.errors import ProtocolError
from rocksmq.protocol.operations import STATUS_LINES_MAX

LabelValues: TypeAlias = tuple[str, ...]

_SAMPLE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? ([^ ]+)")
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"(?:,|$)')
_ESCAPE = re.compile(r"\\(.)")
_KINDS = ("counter", "gauge", "histogram")
_BUCKET, _COUNT, _SUM, _BOUND = "_bucket", "_count", "_sum", "le"


@dataclass(frozen=True, slots=True)
class Histogram:
    """How many values were at most each of ``bounds``, the last of which is infinite; ``total`` is the sum of the values."""

    bounds: tuple[float, ...]
    counts: tuple[float, ...]
    total: float

    @property
    def count(self) -> float:
        """All values."""
        return self.counts[-1]

    @property
    def mean(self) -> float | None:
        """None without values."""
        return self.total / self.count if self.count else None

    def quantile(self, share: float) -> float | None:
        """What ``share`` of the values, from 0 to 1, were at most, to within a bucket; None without values.

        Within a bucket values are taken as spread evenly; beyond the last finite bound it is that bound: at least so much.
        """
        if not self.count:
            return None
        rank = share * self.count
        index = next(index for index, count in enumerate(self.counts) if count >= rank and count)
        below = self.counts[index - 1] if index else 0
        low = self.bounds[index - 1] if index else 0.0
        if index == len(self.bounds) - 1:
            return low
        return low + (self.bounds[index] - low) * max(0.0, rank - below) / (self.counts[index] - below)

    def since(self, earlier: "Histogram | None") -> "Histogram":
        """The values that came after ``earlier``; all, if there was none, or if it was of a broker that has started anew."""
        if earlier is None or earlier.bounds != self.bounds:
            return self
        counts = tuple(later - former for later, former in zip(self.counts, earlier.counts, strict=True))
        if any(after < before for before, after in pairwise((0.0, *counts))):
            return self
        return Histogram(self.bounds, counts, max(0.0, self.total - earlier.total))

    def __add__(self, other: "Histogram") -> "Histogram":
        """The values of both, which have the same bounds."""
        counts = tuple(map(sum, zip(self.counts, other.counts, strict=True)))
        return Histogram(self.bounds, counts, self.total + other.total)


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric: ``kind`` is counter, gauge or histogram; the unit stands in its name.

    ``values``, or ``histograms`` of one, by the values of ``labels`` in that order; without labels by ``()``.
    """

    kind: str
    help: str
    labels: tuple[str, ...] = ()
    values: Mapping[LabelValues, float] = field(default_factory=dict[LabelValues, float])
    histograms: Mapping[LabelValues, Histogram] = field(default_factory=dict[LabelValues, Histogram])


@dataclass(frozen=True, slots=True)
class BrokerStatus:
    """Whether the broker is ready by its checks; ``problems``: what is wrong by those that fail; its ``metrics`` by name.

    A broker whose clock is in doubt is ready all the same, and that is among the problems.

    Units stand in the metrics' names, and what they mean in their ``help``:
    ``metrics["rocksmq_group_lag_messages"].values["orders", "billing"]``.
    """

    is_ready: bool
    problems: list[str]
    metrics: Mapping[str, Metric]


def parsed(exposition: Buffer) -> dict[str, Metric]:
    """The metrics of a text. Raises ProtocolError; time and memory are bounded by STATUS_LINES_MAX and the text's size."""
    try:
        text = bytes(exposition).decode()
    except UnicodeDecodeError:
        raise ProtocolError("the metrics are not text in UTF-8") from None
    if text.count("\n") > STATUS_LINES_MAX:
        raise ProtocolError(f"the metrics are more than {STATUS_LINES_MAX} lines")
    reader = _Reader()
    for number, line in enumerate(text.split("\n"), 1):
        try:
            reader.take(line)
        except ValueError as error:
            raise ProtocolError(f"line {number} of the metrics is not as a broker writes it: {error}") from None
    try:
        reader.end_family()
    except ValueError as error:
        raise ProtocolError(f"the metrics are not as a broker writes them: {error}") from None
    return reader.metrics


class _Reader:
    """Takes line after line; raises ValueError for one that is wrong."""

    def __init__(self) -> None:
        self.metrics: dict[str, Metric] = {}
        self._help = "", ""  # name and text of the latest
        self._name = self._kind = self._text = ""  # of the family that goes on
        self._samples: dict[str, dict[LabelValues, float]] = {}  # by suffix, then by labels
        self._labels: tuple[str, ...] | None = None
        self._known: dict[str, tuple[LabelValues, LabelValues]] = {}  # names and values of labels, by their text

    def take(self, line: str) -> None:
        if line.startswith("# HELP "):
            name, _, text = line[7:].partition(" ")
            self._help = name, _unescaped(text)
        elif line.startswith("# TYPE "):
            self.end_family()
            self._name, _, self._kind = line[7:].partition(" ")
            if self._name in self.metrics:
                raise ValueError(f"{self._name} comes twice")
            self._text = self._help[1] if self._help[0] == self._name else ""
        elif line and not line.startswith("#"):
            self._take_sample(line)

    def _take_sample(self, line: str) -> None:
        match = _SAMPLE.fullmatch(line)
        if match is None:
            raise ValueError("no name, labels and value")
        name, labels_text, number = match.groups()
        if not self._name or not name.startswith(self._name):
            raise ValueError(f"{name} has no TYPE before it")
        if self._kind not in _KINDS:
            return  # of a later broker
        suffix = name[len(self._name) :]
        if suffix not in ((_BUCKET, _COUNT, _SUM) if self._kind == "histogram" else ("",)):
            raise ValueError(f"{name} is none of the {self._kind} {self._name}")
        names, values = self._labels_of(labels_text or "")
        own = names[:-1] if suffix == _BUCKET and names[-1:] == (_BOUND,) else names
        if self._labels is None:
            self._labels = own
        elif own != self._labels:
            raise ValueError(f"{name} has other labels than before")
        samples = self._samples.setdefault(suffix, {})
        if values in samples:
            raise ValueError(f"{name} comes twice with the same labels")
        samples[values] = int(number) if number.isdecimal() else float(number)

    def _labels_of(self, text: str) -> tuple[LabelValues, LabelValues]:
        found = self._known.get(text)
        if found is None:
            names: list[str] = []
            values: list[str] = []
            position = 0
            while position < len(text):
                match = _LABEL.match(text, position)
                if match is None:
                    raise ValueError('its labels are not name="value"')
                names.append(match[1])
                values.append(_unescaped(match[2]))
                position = match.end()
            found = self._known[text] = tuple(names), tuple(values)
        return found

    def end_family(self) -> None:
        """Keep what was read of the family that ends here."""
        name, samples, labels = self._name, self._samples, self._labels or ()
        self._samples, self._labels = {}, None
        if not name or self._kind not in _KINDS:
            return
        if self._kind == "histogram":
            self.metrics[name] = Metric(self._kind, self._text, labels, {}, _histograms(name, samples))
        else:
            self.metrics[name] = Metric(self._kind, self._text, labels, samples.get("", {}))


def _histograms(name: str, samples: Mapping[str, Mapping[LabelValues, float]]) -> dict[LabelValues, Histogram]:
    buckets: dict[LabelValues, list[tuple[float, float]]] = {}
    for (*labels, bound), count in samples.get(_BUCKET, {}).items():
        buckets.setdefault(tuple(labels), []).append((float(bound), count))
    counts, totals = samples.get(_COUNT, {}), samples.get(_SUM, {})
    if not buckets.keys() == counts.keys() == totals.keys():
        raise ValueError(f"a histogram of {name} lacks its buckets, its count or its sum")
    return {labels: _histogram(name, found, counts[labels], totals[labels]) for labels, found in buckets.items()}


def _histogram(name: str, buckets: Iterable[tuple[float, float]], count: float, total: float) -> Histogram:
    bounds, counts = zip(*buckets, strict=True)
    rises = all(low < high for low, high in pairwise(bounds)) and all(low <= high for low, high in pairwise((0.0, *counts)))
    if not rises or bounds[-1] != math.inf or counts[-1] != count:
        raise ValueError(f"the buckets of {name} do not rise to its count")
    return Histogram(bounds, counts, total)


def _unescaped(text: str) -> str:
    return _ESCAPE.sub(lambda match: "\n" if match[1] == "n" else match[1], text) if "\\" in text else text
