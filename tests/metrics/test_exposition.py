"""The text of an exposition, read by prometheus_client's parsers, which are not ours."""

from collections.abc import Iterable, Iterator
from typing import cast

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.metrics_core import Metric as Parsed
from prometheus_client.openmetrics.parser import (  # its argument is not typed
    text_string_to_metric_families as parse_openmetrics,  # pyright: ignore[reportUnknownVariableType]
)
from prometheus_client.parser import text_string_to_metric_families as parse

from rocksmq.metrics import process
from rocksmq.metrics.catalogue import Kind, Metric
from rocksmq.metrics.exposition import LINES_A_CHUNK, expose
from rocksmq.metrics.instruments import Histogram, MetricFamily, Sample, gauges, labelled

texts = st.text(st.characters(blacklist_categories=("Cs", "Cc")) | st.sampled_from('\n"\\'), max_size=8)
LAG = Metric("lag_messages", Kind.GAUGE, 'Help with "quotes", a \\ and\na second line.', ("channel", "group"))
SENT = Metric("sent_bytes_total", Kind.COUNTER, "Bytes sent.")
SIZES = Metric("sizes_bytes", Kind.HISTOGRAM, "Sizes.", (), (1.0, 0.5e3))


def written(families: list[MetricFamily], *, openmetrics: bool = False) -> str:
    return b"".join(expose(families, openmetrics=openmetrics)).decode()


def read(text: str, *, openmetrics: bool) -> dict[str, tuple[str, str, dict[tuple[str, ...], float]]]:
    """By name: type, help, and the samples by their name's end and labels."""
    families = cast(Iterable[Parsed], (parse_openmetrics if openmetrics else parse)(text))
    return {
        family.name: (
            family.type,
            family.documentation,
            {(sample.name, *sample.labels.values()): sample.value for sample in family.samples},
        )
        for family in families
    }


@given(st.dictionaries(st.tuples(texts, texts), st.integers(0, 1 << 53) | st.floats(0, 1e12)), st.booleans())
def test_given_any_labels_and_values_when_written_then_both_formats_are_read_back(
    values: dict[tuple[str, str], float], openmetrics: bool
) -> None:
    # Given
    histogram = Histogram(SIZES)
    histogram.observe(2.0, 3)
    families: list[MetricFamily] = [gauges(LAG, values.items()), (SENT, [Sample("", "", 7)]), histogram.family()]
    # When
    found = read(written(families, openmetrics=openmetrics), openmetrics=openmetrics)
    # Then
    help_read = 'Help with "quotes", a \\ and\na second line.'
    assert found["lag_messages"] == (
        "gauge",
        help_read,
        {("lag_messages", *labels): float(value) for labels, value in values.items()},
    )
    assert found["sent_bytes"] == ("counter", "Bytes sent.", {("sent_bytes_total",): 7})
    assert found["sizes_bytes"][2] == {
        ("sizes_bytes_bucket", "1.0"): 0,
        ("sizes_bytes_bucket", "500.0"): 3,
        ("sizes_bytes_bucket", "+Inf"): 3,
        ("sizes_bytes_count",): 3,
        ("sizes_bytes_sum",): 6,
    }


def test_given_many_samples_when_written_then_they_are_made_a_few_at_a_time() -> None:
    # Given
    made = 0

    def samples() -> Iterator[Sample]:
        nonlocal made
        for number in range(10 * LINES_A_CHUNK):
            made += 1
            yield Sample("", labelled(LAG, "orders", str(number)), number)

    # When
    chunks = expose([(LAG, samples())])
    steps: list[int] = []
    for _ in chunks:
        steps.append(made - sum(steps))
    # Then
    assert made == 10 * LINES_A_CHUNK
    assert max(steps) <= LINES_A_CHUNK


def test_given_a_place_to_pause_when_written_then_what_stands_before_it_comes_first() -> None:
    chunks = expose([(SENT, iter((Sample("", "", 1), None, None)))])
    assert next(chunks).endswith(b"sent_bytes_total 1\n")
    assert b"".join(chunks) == b""


def test_given_the_process_when_written_then_it_has_what_dashboards_expect() -> None:
    found = read(written(process.read()), openmetrics=False)
    assert found["process_cpu_seconds"][0] == "counter"
    assert found["process_resident_memory_bytes"][2]["process_resident_memory_bytes",] > 1 << 20
    assert len(found["python_gc_collections"][2]) == 3
    assert found["rocksmq_memory_limit_bytes"][2]["rocksmq_memory_limit_bytes",] > 1 << 20
