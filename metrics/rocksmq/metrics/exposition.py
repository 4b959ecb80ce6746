"""The text that Prometheus reads: families of samples, a few lines at a time.

Format 0.0.4, or OpenMetrics 1.0.0, without exemplars. prometheus_client writes a whole registry in one go, which for ten
thousand channels holds the loop for a good part of a second; here the samples are made as the lines are asked for, and whoever
asks gives others their turn in between. Tests read it with prometheus_client's parsers and promtool.
"""

from collections.abc import Iterable, Iterator

from .catalogue import Kind
from .instruments import MetricFamily

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS_CONTENT_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"
LINES_A_CHUNK = 50  # some 50 us of work
TOTAL = "_total"


def expose(families: Iterable[MetricFamily], *, openmetrics: bool = False) -> Iterator[bytes]:
    """The text, in chunks that take well below a millisecond each to make; some are empty."""
    for metric, samples in families:
        name = metric.name
        announced = name.removesuffix(TOTAL) if openmetrics and metric.kind is Kind.COUNTER else name
        lines = [f"# HELP {announced} {_escaped(metric.help, openmetrics)}\n# TYPE {announced} {metric.kind}\n"]
        for sample in samples:
            if sample is not None:
                lines.append(f"{name}{sample.suffix}{sample.labels} {sample.value}\n")
            if sample is None or len(lines) >= LINES_A_CHUNK:
                yield "".join(lines).encode()
                lines.clear()
        yield "".join(lines).encode()
    if openmetrics:
        yield b"# EOF\n"


def _escaped(text: str, openmetrics: bool) -> str:
    text = text.replace("\\", r"\\").replace("\n", r"\n")
    return text.replace('"', r"\"") if openmetrics else text
