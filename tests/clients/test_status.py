"""The status of a broker as a client reads it: the text of its metrics, and their histograms."""

import math
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from rocksmq.clients import Histogram, Metric, ProtocolError
from rocksmq.clients.status import parsed
from rocksmq.metrics import catalogue
from rocksmq.metrics.exposition import expose
from rocksmq.metrics.instruments import Counters, Histograms, MetricFamily, gauge, gauges
from rocksmq.metrics.instruments import Histogram as Counting
from rocksmq.protocol.operations import STATUS_LINES_MAX
from tests.protocol.strategies import deterministic

INFINITE = math.inf
HISTOGRAM = """# TYPE h histogram
h_bucket{le="1"} 2
h_bucket{le="2"} 3
h_bucket{le="+Inf"} 4
h_count 4
h_sum 7.5
"""


def broker_s() -> Iterator[MetricFamily]:
    """Some of each kind, with and without labels and samples."""
    seconds = Histograms(catalogue.REQUEST_SECONDS)
    seconds.observe("PRODUCE", 0.0003)
    seconds.observe("CONSUME", 0.2)
    seconds.observe("CONSUME", 99)
    sizes = Counting(catalogue.COMMIT_MESSAGES)
    sizes.observe(5, 3)
    requests = Counters(catalogue.REQUESTS, [("PRODUCE", "OK"), ("FETCH", "OK")])
    requests.add("PRODUCE", "OK")
    yield gauge(catalogue.CHANNELS, 2)
    yield gauge(catalogue.ID_AHEAD, 0.25)
    yield seconds.family()
    yield sizes.family()
    yield requests.family()
    yield gauges(catalogue.GROUP_LAG, [(("orders", "billing"), 7), (("orders", 'a\\b"c\nd,e="f"} 1'), 1 << 60)])
    yield gauges(catalogue.GROUP_WAITING, [])


def test_given_what_a_broker_writes_when_read_then_every_value_is_there_under_its_labels() -> None:
    metrics = parsed(b"".join(expose(broker_s())))
    assert metrics["rocksmq_channels"] == Metric("gauge", "Channels.", (), {(): 2})
    assert metrics["rocksmq_message_id_ahead_seconds"].values == {(): 0.25}
    assert metrics["rocksmq_group_lag_messages"].labels == ("channel", "group")
    assert metrics["rocksmq_group_lag_messages"].values == {
        ("orders", "billing"): 7,
        ("orders", 'a\\b"c\nd,e="f"} 1'): 1 << 60,
    }
    assert metrics["rocksmq_requests_total"].kind == "counter"
    assert metrics["rocksmq_requests_total"].values == {("FETCH", "OK"): 0, ("PRODUCE", "OK"): 1}
    seconds = metrics["rocksmq_request_duration_seconds"].histograms
    assert seconds["PRODUCE",] == Histogram((*catalogue.REQUEST_BUCKETS, INFINITE), (0, 0, *[1] * 14), 0.0003)
    assert (seconds["CONSUME",].counts[-2:], seconds["CONSUME",].total) == ((1, 2), 99.2)
    assert metrics["rocksmq_commit_messages"].histograms[()].mean == 5
    assert metrics["rocksmq_group_waiting_consumers"].values == {}


def test_given_what_a_broker_writes_when_prometheus_reads_it_too_then_it_finds_the_same_samples() -> None:
    text = b"".join(expose(broker_s()))
    theirs = {family.name: family for family in text_string_to_metric_families(text.decode())}
    ours = parsed(text)
    assert len(theirs) == len(ours)
    for name, metric in ours.items():
        family = theirs[name.removesuffix("_total")]
        assert (family.type, family.documentation) == (metric.kind, metric.help)
        plain = {tuple(sample.labels.values()): sample.value for sample in family.samples}
        if metric.kind != "histogram":
            assert plain == metric.values
        assert len(family.samples) == len(metric.values) + sum(len(found.bounds) + 2 for found in metric.histograms.values())


def test_given_nothing_when_read_then_there_are_no_metrics() -> None:
    assert parsed(b"") == {}
    assert parsed(b"\n# a comment\n") == {}


def test_given_a_kind_of_a_later_broker_when_read_then_it_is_left_out_and_the_rest_is_there() -> None:
    metrics = parsed(b'# TYPE s summary\ns{quantile="0.5"} 1\ns_sum 1\ns_count 1\n# TYPE g gauge\ng NaN\n')
    assert list(metrics) == ["g"]
    assert math.isnan(metrics["g"].values[()])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x 1\n", "x has no TYPE before it"),
        ("# TYPE x gauge\ny 1\n", "y has no TYPE before it"),
        ("# TYPE x gauge\nx_more 1\n", "x_more is none of the gauge x"),
        ("# TYPE x gauge\nx\n", "no name, labels and value"),
        ("# TYPE x gauge\nx 1 2\n", "no name, labels and value"),
        ("# TYPE x gauge\nx one\n", "could not convert"),
        ('# TYPE x gauge\nx{a="1} 1\n', "its labels"),
        ('# TYPE x gauge\nx{a="1"b="2"} 1\n', "its labels"),
        ('# TYPE x gauge\nx{a="1"} 1\nx{b="1"} 1\n', "x has other labels than before"),
        ('# TYPE x gauge\nx{a="1"} 1\nx{a="1"} 1\n', "x comes twice with the same labels"),
        ("# TYPE x gauge\nx 1\n# TYPE x gauge\nx 1\n", "x comes twice"),
        (HISTOGRAM.replace('"1"} 2', '"1"} 9'), "the buckets of h do not rise"),
        (HISTOGRAM.replace('"1"} 2', '"1"} -1'), "the buckets of h do not rise"),
        (HISTOGRAM.replace('"1"} 2', '"5"} 2'), "the buckets of h do not rise"),
        (HISTOGRAM.replace("+Inf", "3"), "the buckets of h do not rise"),
        (HISTOGRAM.replace("h_count 4", "h_count 5"), "the buckets of h do not rise"),
        (HISTOGRAM.replace("h_sum 7.5\n", ""), "lacks its buckets, its count or its sum"),
        (HISTOGRAM.replace("h_sum 7.5", "h 7.5"), "h is none of the histogram h"),
        (HISTOGRAM.replace('le="1"', 'other="1"'), "other labels"),
        (HISTOGRAM.replace('{le="1"}', ""), "expected"),
        ("\n" * (STATUS_LINES_MAX + 1), f"more than {STATUS_LINES_MAX} lines"),
    ],
)
def test_given_text_that_no_broker_writes_when_read_then_it_is_refused_and_the_error_says_why(text: str, said: str) -> None:
    with pytest.raises(ProtocolError, match=said):
        parsed(text.encode())


def test_given_bytes_that_are_no_text_when_read_then_they_are_refused() -> None:
    with pytest.raises(ProtocolError, match="not text in UTF-8"):
        parsed(b'# TYPE x gauge\nx{a="\xff"} 1\n')


pieces = st.sampled_from(
    [
        "# TYPE ",
        "# HELP ",
        "gauge",
        "histogram",
        "x",
        " ",
        "\n",
        "{",
        "}",
        "a",
        "=",
        '"',
        "\\",
        ",",
        "1",
        "e",
        "x_bucket",
        "le",
        "Inf",
    ]
)


@deterministic
@given(st.lists(pieces | st.text(max_size=3), max_size=40).map("".join))
def test_given_any_text_when_read_then_it_is_metrics_or_a_protocol_error(text: str) -> None:
    try:
        metrics = parsed(text.encode())
    except ProtocolError:
        return
    assert all(isinstance(metric, Metric) for metric in metrics.values())


@deterministic
@given(st.dictionaries(st.tuples(st.text(), st.text()), st.floats(allow_nan=False) | st.integers(0, 1 << 64)))
def test_given_any_labels_and_values_when_written_and_read_then_they_are_the_same(values: dict[tuple[str, str], float]) -> None:
    text = b"".join(expose([gauges(catalogue.GROUP_LAG, values.items())]))
    assert parsed(text)["rocksmq_group_lag_messages"].values == values


# -- histograms --------------------------------------------------------------------


def histogram(*counts: float, total: float = 0.0) -> Histogram:
    return Histogram((1.0, 2.0, 4.0, INFINITE), counts, total)


@pytest.mark.parametrize(
    ("counts", "share", "found"),
    [
        ((10, 10, 10, 10), 0.5, 0.5),  # spread evenly below the first bound
        ((0, 10, 10, 10), 0.5, 1.5),
        ((0, 5, 10, 10), 0.5, 2.0),
        ((0, 5, 10, 10), 0.99, 3.96),
        ((0, 0, 0, 10), 0.5, 4.0),  # at least so much
        ((0, 10, 10, 10), 0.0, 1.0),
        ((0, 10, 10, 10), 1.0, 2.0),
        ((1, 1, 1, 1), 1.0, 1.0),
        ((0, 0, 0, 0), 0.5, None),
    ],
)
def test_given_a_histogram_when_a_quantile_is_asked_for_then_it_lies_where_prometheus_has_it(
    counts: tuple[float, ...], share: float, found: float | None
) -> None:
    assert histogram(*counts).quantile(share) == (None if found is None else pytest.approx(found))


@deterministic
@given(st.lists(st.integers(0, 100), min_size=4, max_size=4), st.floats(0, 1), st.floats(0, 1))
def test_given_any_histogram_when_quantiles_are_asked_for_then_they_rise_and_stay_within_its_bounds(
    came: list[int], first: float, second: float
) -> None:
    counts = [sum(came[: end + 1]) for end in range(4)]
    low, high = (histogram(*counts).quantile(share) for share in sorted((first, second)))
    if not counts[-1]:
        assert low is high is None
    else:
        assert low is not None
        assert high is not None
        assert 0 <= low <= high <= 4


def test_given_two_looks_when_compared_then_what_came_between_them_is_left() -> None:
    later = histogram(2, 5, 9, 10, total=30.0)
    assert later.since(histogram(1, 2, 3, 4, total=12.5)) == histogram(1, 3, 6, 6, total=17.5)
    assert later.since(None) == later
    assert later.since(later).quantile(0.5) is None
    assert later.since(later).mean is None


@pytest.mark.parametrize("earlier", [histogram(0, 6, 9, 10), histogram(2, 5, 9, 11), Histogram((1.0, INFINITE), (0, 0), 0.0)])
def test_given_a_broker_that_started_anew_when_compared_then_all_of_the_later_look_counts(earlier: Histogram) -> None:
    later = histogram(2, 5, 9, 10, total=30.0)
    assert later.since(earlier) == later


def test_given_two_histograms_when_added_then_the_values_of_both_are_in_it() -> None:
    assert histogram(1, 2, 3, 4, total=1.0) + histogram(0, 0, 0, 1, total=9.0) == histogram(1, 2, 3, 5, total=10.0)
