"""Counters and histograms, held against plain arithmetic."""

from hypothesis import given
from hypothesis import strategies as st

from rocksmq.metrics.catalogue import BUILD_INFO, COMMIT_MESSAGES, GROUP_LAG, REQUEST_SECONDS, REQUESTS, Kind, Metric
from rocksmq.metrics.instruments import (
    Counter,
    Counters,
    Histogram,
    Histograms,
    MetricFamily,
    Sample,
    Traffic,
    gauge,
    gauges,
    labelled,
)

BOUNDS = (1.0, 3.0, 10.0)
METRIC = Metric("sizes", Kind.HISTOGRAM, "Sizes.", (), BOUNDS)


def shown(family: MetricFamily) -> dict[str, float]:
    return {sample.suffix + sample.labels: sample.value for sample in family[1] if sample is not None}


@given(st.lists(st.tuples(st.sampled_from((0.0, 0.5, 1.0, 1.5, 3.0, 9.0, 10.0, 11.0, 1e9)), st.integers(0, 5))))
def test_given_values_when_observed_then_each_bucket_counts_what_is_at_or_below_its_bound(
    values: list[tuple[float, int]],
) -> None:
    histogram = Histogram(METRIC)
    for value, count in values:
        histogram.observe(value, count)
    expected = {
        f'_bucket{{le="{bound}"}}': sum(count for value, count in values if value <= bound) for bound in (*BOUNDS, float("inf"))
    }
    found = shown(histogram.family())
    assert {name.replace("+Inf", "inf"): value for name, value in found.items() if name.startswith("_bucket")} == expected
    assert found["_count"] == sum(count for _, count in values)
    assert found["_sum"] == sum(value * count for value, count in values)


def test_given_labels_when_observed_then_each_has_a_histogram_of_its_own() -> None:
    histograms = Histograms(REQUEST_SECONDS)
    histograms.observe("PRODUCE", 0.0002)
    histograms.observe("CONSUME", 20.0)
    found = shown(histograms.family())
    assert found['_bucket{op="PRODUCE",le="0.0001"}'] == 0
    assert found['_bucket{op="PRODUCE",le="0.00025"}'] == 1
    assert found['_bucket{op="CONSUME",le="10.0"}'] == 0
    assert found['_bucket{op="CONSUME",le="+Inf"}'] == found['_count{op="CONSUME"}'] == 1
    assert found['_sum{op="CONSUME"}'] == 20.0


def test_given_what_is_known_when_nothing_was_counted_then_it_is_shown_as_nought() -> None:
    counters = Counters(REQUESTS, (("PING", "OK"),))
    assert shown(counters.family()) == {'{op="PING",code="OK"}': 0}
    counters.add("PING", "OK")
    counters.add("PING", "Overloaded")
    counters.add("PING", "OK")
    assert shown(counters.family()) == {'{op="PING",code="OK"}': 2, '{op="PING",code="Overloaded"}': 1}


def test_given_a_counter_when_it_rises_then_it_is_shown() -> None:
    counter = Counter(COMMIT_MESSAGES)
    counter.value += 3
    assert shown(counter.family()) == {"": 3}


def test_given_characters_that_mean_something_when_labelled_then_they_are_escaped() -> None:
    assert labelled(GROUP_LAG, 'a"b', "c\\d\ne") == r'{channel="a\"b",group="c\\d\ne"}'
    assert labelled(COMMIT_MESSAGES) == ""
    assert len(labelled(BUILD_INFO, *"12345").split(",")) == 5


def test_given_a_truth_value_when_shown_then_it_is_a_number() -> None:
    (sample,) = gauge(COMMIT_MESSAGES, True)[1]
    assert sample == Sample("", "", 1)
    assert str(sample.value if sample else None) == "1"
    (sample,) = gauges(GROUP_LAG, [(("a", "b"), False)])[1]
    assert str(sample.value if sample else None) == "0"


def test_given_values_by_label_when_made_a_family_then_each_is_a_sample() -> None:
    assert shown(gauges(GROUP_LAG, [(("a", "b"), 1), (("a", "c"), 2)])) == {
        '{channel="a",group="b"}': 1,
        '{channel="a",group="c"}': 2,
    }


def test_given_traffic_when_added_then_both_are_summed() -> None:
    traffic = Traffic()
    traffic.add(2, 30)
    traffic.add(1, 12)
    assert (traffic.messages, traffic.size) == (3, 42)
