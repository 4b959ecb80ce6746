"""The alerts: as they stand, and as promtool and Alertmanager take them. That they fire for real: tests/ops/alerts.py."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from rocksmq.protocol.errors import RocksMQError
from rocksmq.protocol.operations import OPS
from tests.helpers.dashboard import DASHBOARD
from tests.helpers.prometheus import known_metrics, metrics_in, promtool

METRICS = Path(__file__).parents[2] / "metrics"
ALERTS = METRICS / "alerts"
RULES = ALERTS / "rocksmq.yaml"
RUNBOOK = METRICS / "runbook.md"
SEVERITIES = {"critical", "warning"}


def rules(kind: str) -> dict[str, dict[str, Any]]:
    """Those of ``kind``, alert or record, by name."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
    found = [rule for group in groups for rule in group["rules"] if kind in rule]
    names = [rule[kind] for rule in found]
    assert len(set(names)) == len(names), "each is named once"
    return dict(zip(names, found, strict=True))


def test_given_the_rules_when_promtool_checks_them_then_it_finds_no_fault() -> None:
    assert "SUCCESS" in promtool("check", "rules", str(RULES))


def test_given_made_up_series_when_the_rules_are_evaluated_then_each_alert_fires_where_it_should_and_only_there() -> None:
    assert "SUCCESS" in promtool("test", "rules", str(ALERTS / "rocksmq_test.yaml"))


def test_given_the_tests_of_the_rules_when_read_then_each_alert_fires_in_one_and_not_in_another() -> None:
    cases = yaml.safe_load((ALERTS / "rocksmq_test.yaml").read_text())["tests"]
    checks = [check for case in cases for check in case.get("alert_rule_test", ())]
    assert {check["alertname"] for check in checks if check["exp_alerts"]} == set(rules("alert"))
    assert {check["alertname"] for check in checks if not check["exp_alerts"]} == set(rules("alert"))


@pytest.mark.parametrize("name", rules("alert"))
def test_given_an_alert_when_read_then_it_says_how_bad_it_is_and_what_to_do(name: str) -> None:
    rule = rules("alert")[name]
    assert name.startswith("RocksMQ")
    assert rule["labels"]["severity"] in SEVERITIES
    assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
    assert rule["annotations"]["runbook_url"].endswith(f"/runbook.md#{name.lower()}")


@pytest.mark.parametrize("kind", ["alert", "record"])
def test_given_the_rules_when_their_metrics_are_looked_up_then_all_are_in_the_catalogue(kind: str) -> None:
    for name, rule in rules(kind).items():
        assert metrics_in(rule["expr"]) <= set(known_metrics()), name


def test_given_the_rules_and_the_dashboard_when_the_operations_and_codes_they_ask_for_are_looked_up_then_all_can_be_met() -> (
    None
):
    asked = RULES.read_text() + DASHBOARD.read_text().replace('\\"', '"')
    known = {
        "op": {op.name for op in OPS.values()},
        "code": {error.__name__ for error in RocksMQError.__subclasses__()} | {"OK"},
    }
    for label, values in known.items():
        found = {value for text in re.findall(rf'\b{label}(?:=~|!=|=)"([^"]*)"', asked) for value in text.split("|")}
        assert found
        assert found <= values


def test_given_the_numbers_at_the_top_when_the_alerts_are_read_then_each_is_used_and_no_other_is() -> None:
    used = {name for rule in rules("alert").values() for name in re.findall(r"rocksmq:[\w:]+", rule["expr"])}
    assert used == set(rules("record"))
