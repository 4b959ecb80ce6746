"""The provocations: of every alert, under the rules that are shipped, and told in the alerts' README as they were done."""

import re
from pathlib import Path

from tests.helpers.prometheus import promtool
from tests.metrics.test_alerts import rules

from .alerts import README, TABLE
from .provocations import PROVOCATIONS
from .stage import RULES, hurried
from .units import ticks, written


def test_given_the_alerts_when_the_provocations_are_listed_then_each_has_one() -> None:
    assert {alert for found in PROVOCATIONS for alert in found.alerts} == set(rules("alert"))


def test_given_the_rules_when_hurried_then_every_duration_is_a_60th_and_promtool_takes_them(tmp_path: Path) -> None:
    text = hurried(RULES.read_text())
    assert len(text.splitlines()) == len(RULES.read_text().splitlines())
    assert not re.search(r"\[\d+[mh]\]|for: \d+[mh]\b|offset \d+[mh]\b", text)
    assert text.count(" / 60)") == 4, "the limits that are hours"
    assert "for: 2000ms" in text
    (tmp_path / "rules.yaml").write_text(text)
    promtool("check", "rules", str(tmp_path / "rules.yaml"))


def test_given_the_readme_when_its_table_is_read_then_it_tells_of_all_provocations_and_all_have_fired() -> None:
    found = TABLE.search(README.read_text())
    assert found is not None
    rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in found[0].splitlines()[2:]]
    done = {(alert, provocation.how) for provocation in PROVOCATIONS for alert in provocation.alerts}
    assert {(alert, how) for alert, how, _, _ in rows} == done
    assert all(re.fullmatch(r"[\d.]+ s", cell) for row in rows for cell in row[2:])


def test_given_numbers_when_written_then_they_read_as_in_grafana() -> None:
    found = [
        written(*given) for given in ((0.00125, "s"), (90.0, "s"), (1536, "bytes"), (12_345, "mps"), (0.0104, "percentunit"))
    ]
    assert found == ["1.25 ms", "1.5 min", "1.5 KiB", "12.3 K msg/s", "1.04%"]


def test_given_a_range_when_its_ticks_are_chosen_then_they_are_round_and_within() -> None:
    assert ticks(0, 0.9, "s") == [0, 0.25, 0.5, 0.75]
    assert ticks(0, 3_500_000, "bytes") == [0, 1 << 20, 2 << 20, 3 << 20]
