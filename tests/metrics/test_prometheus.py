"""A real Prometheus at a real broker under load: what the dashboard and the alerts ask is answered, with data."""

import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from rocksmq.broker.auth import ALL, Token, digest_of, new_secret
from rocksmq.broker.auth_file import rendered
from rocksmq.clients.mirror.report import ChannelReport, State
from rocksmq.clients.testing import Broker
from tests.helpers.broker_with_mirror import BrokerWithMirror
from tests.helpers.dashboard import Panel, filled, panels
from tests.helpers.etcd import Etcd
from tests.helpers.metrics_table import DOCUMENT
from tests.helpers.prometheus import Prometheus, known_metrics, promtool, require_prometheus
from tests.helpers.traffic import Traffic

from .test_alerts import RULES, RUNBOOK, rules

YEAR_2100 = 4_102_444_800  # in seconds since 1970
WINDOW = "10s"  # as $__rate_interval
PATIENCE_SECONDS = 10.0  # on a busy machine a scrape may come too late, and there is nothing until the next
SHOWN = [panel for panel in panels() if not panel.is_row]
MIRRORED = ChannelReport(
    channel="orders", topic="t", state=State.RUNNING, messages=1_000, lag=5, deduplication=True, errors=1, last_error_at=1.7e9
)
SELECTOR = re.compile(r"(?<![\w:])(?:up|(?:rocksmq|process)[_:][\w:]+)(?:\{[^}]*\})?")


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Broker, Prometheus]]:
    """A broker under load with positions in etcd and a mirror, and a Prometheus that has looked at it for a while."""
    require_prometheus()
    directory = tmp_path_factory.mktemp("watched")
    tokens, secret = directory / "tokens.json", new_secret()
    tokens.write_text(rendered([Token("test", digest_of(secret), 0, YEAR_2100, ALL, ALL, ALL)]))
    with (
        pytest.MonkeyPatch.context() as patch,
        Etcd() as etcd,
        BrokerWithMirror(directory / "data", "--meta", etcd.url("rocksmq"), "--auth-file", str(tokens)) as broker,
        Prometheus({"rocksmq": [broker.http]}, [RULES]) as prometheus,
    ):
        patch.setenv("ROCKSMQ_TOKEN", secret)
        broker.stand_in.tell([MIRRORED])
        with Traffic(broker):
            wait_until_told(prometheus)
            yield broker, prometheus


def wait_until_told(prometheus: Prometheus) -> None:
    """Every kind of client has come and gone, and rates have what they need."""
    prometheus.wait_for('increase(rocksmq_connections_closed_total{reason="client"}[10s]) > 3')
    prometheus.wait_for('increase(rocksmq_protocol_errors_total{kind="protocol"}[10s]) > 3')
    prometheus.wait_for('rocksmq_group_lag_messages{group="report"} > 1000')
    prometheus.wait_for("rocksmq_mirror_lag_messages == 5")


@pytest.mark.parametrize("panel", SHOWN, ids=[f"{panel.id} {panel.title}" for panel in SHOWN])
def test_given_a_broker_under_load_when_a_panel_is_drawn_then_each_of_its_queries_returns_data(
    watched: tuple[Broker, Prometheus], panel: Panel
) -> None:
    for query in panel.queries:
        watched[1].wait_for(filled(query.expression, WINDOW), seconds=PATIENCE_SECONDS)


@pytest.mark.parametrize("name", [*rules("alert"), *rules("record")])
def test_given_a_broker_under_load_when_a_rule_is_evaluated_then_it_is_answered_and_all_that_it_looks_at_is_there(
    watched: tuple[Broker, Prometheus], name: str
) -> None:
    rule = (rules("alert") | rules("record"))[name]
    watched[1].query(rule["expr"])
    for found in SELECTOR.findall(rule["expr"]):
        if found == "rocksmq:scheduled_group":
            continue  # no group is read on a schedule here
        selector = re.sub(r'code=~?"[^"]*"', 'code!=""', found).replace("scheduled", "report|left")
        watched[1].wait_for(selector, seconds=PATIENCE_SECONDS)


@pytest.mark.parametrize("page", [DOCUMENT, RUNBOOK], ids=lambda page: page.name)
def test_given_a_broker_under_load_when_the_questions_of_a_page_are_asked_then_all_are_answered(
    watched: tuple[Broker, Prometheus], page: Path
) -> None:
    questions = re.findall(r"```promql\n(.*?)```", page.read_text(), re.DOTALL)
    assert questions
    for question in questions:
        watched[1].wait_for(question, seconds=PATIENCE_SECONDS)


def test_given_a_broker_under_load_when_the_series_of_a_channel_are_counted_then_there_are_as_many_as_metrics_md_says(
    watched: tuple[Broker, Prometheus],
) -> None:
    channel, group = (
        watched[1].wait_for(f'count({{channel="events",group="{name}",__name__!~".*:.*"}})', seconds=PATIENCE_SECONDS)[0].value
        for name in ("", "watch")
    )
    assert f"Each channel has {channel:.0f} series, each group {group:.0f}." in DOCUMENT.read_text()


def test_given_a_mirror_when_the_series_of_its_channel_are_counted_then_there_are_as_many_as_metrics_md_says(
    watched: tuple[Broker, Prometheus],
) -> None:
    (found,) = watched[1].wait_for('count({channel="orders",mirror="pulsar",__name__!~".*:.*"})', seconds=PATIENCE_SECONDS)
    assert f"{found.value:.0f} further series for each channel that is mirrored" in DOCUMENT.read_text()


def test_given_a_broker_under_load_when_its_series_are_listed_then_all_of_the_catalogue_are_there(
    watched: tuple[Broker, Prometheus],
) -> None:
    names = {re.sub(r"_bucket$", "", name) for name in watched[1].call("label/__name__/values")}
    assert set(known_metrics()) <= names


def test_given_a_broker_under_load_when_promtool_checks_its_metrics_then_it_finds_no_fault(
    watched: tuple[Broker, Prometheus],
) -> None:
    with urllib.request.urlopen(f"{watched[0].http_url}/metrics") as answer:
        assert promtool("check", "metrics", given=answer.read()) == ""


def test_given_a_broker_in_order_when_the_rules_have_been_evaluated_then_none_has_failed_and_no_alert_fires(
    watched: tuple[Broker, Prometheus],
) -> None:
    groups = watched[1].call("rules")["groups"]
    assert [rule["lastError"] for group in groups for rule in group["rules"] if rule.get("lastError")] == []
    assert [alert for alert in watched[1].alerts() if alert["state"] == "firing"] == []
