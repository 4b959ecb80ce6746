"""Rates and quantiles between two looks at a broker."""

import math

import pytest

from rocksmq.clients import BrokerStatus, Histogram, Metric
from rocksmq.clients.interval import START_TIME, Interval

PRODUCED, LATENCY, OPEN = "produced_total", "latency_seconds", "open"
Counts = dict[tuple[str, ...], float]


def look(produced: Counts | None = None, *, started: float | None = 100.0, histograms: object = None) -> BrokerStatus:
    """One with a counter by channel, if it is not None: sums when its only labels are ()."""
    metrics = {} if started is None else {START_TIME: Metric("gauge", "", (), {(): started})}
    if produced is not None:
        metrics[PRODUCED] = Metric("counter", "", () if () in produced else ("channel",), produced)
    if isinstance(histograms, dict):
        metrics[LATENCY] = Metric("histogram", "", ("op",), {}, histograms)  # pyright: ignore[reportUnknownArgumentType]
    return BrokerStatus(True, [], metrics)


def rate(earlier: BrokerStatus | None, later: BrokerStatus, seconds: float = 2.0) -> float | None:
    return Interval(earlier, later, seconds).rate(PRODUCED)


def test_given_two_looks_when_a_rate_is_asked_for_then_it_is_the_increase_of_all_series_a_second() -> None:
    assert rate(look({("a",): 10, ("b",): 5}), look({("a",): 14, ("b",): 5})) == 2.0


def test_given_labels_that_are_wanted_when_a_rate_is_asked_for_then_only_those_count() -> None:
    interval = Interval(look({("a",): 0, ("b",): 0}), look({("a",): 4, ("b",): 6}), 1.0)
    assert interval.rate(PRODUCED, lambda labels: labels[0] == "b") == 6.0


def test_given_a_series_that_is_new_when_a_rate_is_asked_for_then_it_began_at_0() -> None:
    assert rate(look({("a",): 10}), look({("a",): 10, ("b",): 4})) == 2.0


def test_given_a_series_that_is_gone_when_a_rate_is_asked_for_then_it_takes_nothing_away() -> None:
    assert rate(look({("a",): 10, ("b",): 1_000}), look({("a",): 14})) == 2.0


def test_given_a_channel_that_was_made_anew_when_a_rate_is_asked_for_then_what_the_new_one_counts_is_the_increase() -> None:
    assert rate(look({("a",): 1_000}), look({("a",): 4})) == 2.0


@pytest.mark.parametrize("later", [4.0, 2_000.0])
def test_given_a_broker_that_was_restarted_when_a_rate_is_asked_for_then_all_it_counted_since_is_the_increase(
    later: float,
) -> None:
    assert rate(look({("a",): 1_000}), look({("a",): later}, started=200.0)) == later / 2


def test_given_a_broker_that_tells_sums_since_when_a_rate_is_asked_for_then_it_is_not_known() -> None:
    assert rate(look({("a",): 10}), look({(): 1_000_000})) is None
    assert rate(look({(): 1_000_000}), look({("a",): 10})) is None
    assert rate(look({(): 10}), look({(): 14})) == 2.0


def test_given_nothing_to_compare_with_when_a_rate_is_asked_for_then_it_is_not_known() -> None:
    assert rate(None, look({("a",): 10})) is None
    assert rate(look({("a",): 10}), look({("a",): 14}), 0.0) is None
    assert rate(look(), look()) is None


def test_given_no_channels_when_a_rate_is_asked_for_then_it_is_0() -> None:
    assert rate(look({}), look({})) == 0.0


def test_given_a_broker_that_does_not_tell_when_it_started_when_a_counter_falls_then_no_rate_is_negative() -> None:
    assert rate(look({("a",): 1_000}, started=None), look({("a",): 4}, started=None)) == 2.0


def test_given_a_gauge_when_its_value_is_asked_for_then_it_is_that_of_the_later_look() -> None:
    interval = Interval(look({("a",): 1}), look({("a",): 2, ("b",): 3}), 1.0)
    assert interval.value(PRODUCED, "b") == 3
    assert interval.value(PRODUCED, "c") is None
    assert interval.value("nothing") is None
    assert interval.values(PRODUCED) == {("a",): 2, ("b",): 3}


def values(*counts: float) -> Histogram:
    return Histogram((1.0, 2.0, math.inf), counts, 0.0)


def test_given_histograms_when_asked_for_then_those_of_the_labels_are_added_up_since_the_earlier_look() -> None:
    earlier = look(histograms={("A",): values(1, 1, 1), ("B",): values(5, 5, 5)})
    later = look(histograms={("A",): values(1, 3, 3), ("B",): values(5, 6, 6), ("C",): values(0, 0, 9)})
    interval = Interval(earlier, later, 1.0)
    assert interval.histogram(LATENCY, "A", "B") == values(0, 3, 3)
    assert interval.histogram(LATENCY, "C") == values(0, 0, 9)
    assert interval.histogram(LATENCY) == values(0, 3, 12)
    assert interval.histogram(LATENCY, "D") is None
    assert Interval(look(histograms={}), look(histograms={(): values(1, 1, 1)}), 1.0).histogram(LATENCY, "A") is None
    assert Interval(None, later, 1.0).histogram(LATENCY) is None


def test_given_a_broker_that_was_restarted_when_a_histogram_is_asked_for_then_all_of_it_came_since() -> None:
    earlier = look(histograms={("A",): values(1, 1, 1)})
    later = look(histograms={("A",): values(2, 2, 2)}, started=200.0)
    assert Interval(earlier, later, 1.0).histogram(LATENCY) == values(2, 2, 2)
