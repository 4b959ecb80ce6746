"""The catalogue keeps to Prometheus' rules for names, units and buckets."""

import re
from itertools import pairwise

import pytest

from rocksmq.metrics.catalogue import CATALOGUE, Kind, Metric

UNITS = re.compile(r"_(seconds|bytes|messages|commits|requests|connections|consumers|per_second)(_total)?$")
OF_NO_UNIT = {
    "rocksmq_started_after_crash",
    *("rocksmq_build_info", "rocksmq_ready", "rocksmq_ready_check", "rocksmq_read_only", "rocksmq_disk_full"),
    *("rocksmq_clock_in_doubt", "rocksmq_authentication_on"),
    *("rocksmq_channel_first_id", "rocksmq_channel_last_id", "rocksmq_etcd_up", "rocksmq_write_stalled"),
    *("rocksmq_mirror_up", "rocksmq_mirror_channel_up", "rocksmq_mirror_channel_stopped", "rocksmq_mirror_not_deduplicated"),
    *("rocksmq_metrics_aggregated", "rocksmq_config_last_reload_successful", "rocksmq_connections_limit"),
}
LABELS = {"channel", "group", "op", "code", "check", "state", "reason", "result", "kind", "level", "mirror", "name"}

every_metric = pytest.mark.parametrize("metric", CATALOGUE, ids=lambda metric: metric.name)


def test_given_the_catalogue_when_read_then_each_name_stands_there_once() -> None:
    names = [metric.name for metric in CATALOGUE]
    assert len(names) == len(set(names)) > 60


@every_metric
def test_given_a_metric_when_read_then_its_name_says_what_it_is(metric: Metric) -> None:
    assert re.fullmatch(r"rocksmq_[a-z]+(_[a-z]+)*", metric.name)
    assert metric.name.endswith("_total") == (metric.kind is Kind.COUNTER)
    assert metric.help.endswith(".")
    counts = ["channels", "groups", "polls", "waiting", "series", "paused", "flight", "running"]
    is_count = metric.kind is Kind.GAUGE and any(word in metric.name for word in counts)
    assert metric.kind is Kind.COUNTER or is_count or metric.name in OF_NO_UNIT or UNITS.search(metric.name)
    assert metric.name == "rocksmq_build_info" or set(metric.labels) <= LABELS
    nouns = ("channel", "group", "check", "mirror")  # what a metric may be of
    assert not any(label in metric.name.split("_")[1:] for label in metric.labels if label not in nouns)


@every_metric
def test_given_a_histogram_when_read_then_its_buckets_rise_by_steps_that_tell_something(metric: Metric) -> None:
    assert bool(metric.buckets) == (metric.kind is Kind.HISTOGRAM)
    assert all(1.9 < higher / lower <= 24 for lower, higher in pairwise(metric.buckets))
    assert len(metric.buckets) <= 17
