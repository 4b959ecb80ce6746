"""The text that Prometheus reads: families of samples, a few lines at a time.

Format 0.0.4, or OpenMetrics 1.0.0, without exemplars. prometheus_client writes a whole registry in one go, which for ten
thousand channels holds the loop for a good part of a second; here the samples are made as the lines are asked for, and whoever
asks gives others their turn in between. Tests read it with prometheus_client's parsers and promtool.
"""

import re
from collections.abc import Iterable, Iterator

from .catalogue import Kind
from .instruments import MetricFamily

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS_CONTENT_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"
LINES_A_CHUNK = 50  # some 50 us of work
TOTAL = "_total"
ACCEPT_CHARACTERS = 1_000  # looked at; Prometheus sends some 250
_QUALITY = re.compile(r"[01](\.\d{0,3})?")


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


def prefers_openmetrics(accept: str) -> bool:
    """Whether a header ``Accept`` asks for OpenMetrics 1.0.0, and not more for plain text."""
    openmetrics = plain = 0.0
    for kind, parameters in _media_ranges(accept):
        quality = parameters.get("q", "1")
        weight = float(quality) if _QUALITY.fullmatch(quality) else 0.0
        if kind == "application/openmetrics-text" and parameters.get("version", "1.0.0") == "1.0.0":
            openmetrics = max(openmetrics, weight)
        elif kind == "text/plain":
            plain = max(plain, weight)
    return openmetrics > 0 and openmetrics >= plain


def _media_ranges(accept: str) -> Iterator[tuple[str, dict[str, str]]]:
    for wanted in accept[:ACCEPT_CHARACTERS].lower().split(","):
        kind, *parameters = wanted.split(";")
        pairs = (parameter.partition("=") for parameter in parameters)
        yield kind.strip(), {name.strip(): value.strip(' "') for name, _, value in pairs}


def _escaped(text: str, openmetrics: bool) -> str:
    text = text.replace("\\", r"\\").replace("\n", r"\n")
    return text.replace('"', r"\"") if openmetrics else text
