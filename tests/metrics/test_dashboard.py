"""The dashboard as it stands. That its queries are answered, and return data: test_prometheus.py."""

import re
from collections.abc import Sequence

import pytest

from rocksmq.metrics.catalogue import CATALOGUE
from tests.helpers.dashboard import DASHBOARD, Panel, load, panels, tidy
from tests.helpers.prometheus import METRIC, known_metrics, metrics_in

from .test_alerts import rules

ROWS = ["Summary", "Produce", "Consume", "Storage", "Connections", "Dependencies", "Mirror", "Process"]
UNITS = {"none", "short", "s", "dtdurations", "bytes", "binBps", "percentunit", "mps", "reqps", "ops", "cps"}  # of Grafana's
COLUMNS = 24
SHOWN: Sequence[Panel] = [panel for panel in panels() if not panel.is_row]
TITLES = [f"{panel.id} {panel.title}" for panel in SHOWN]


def selectors(expression: str) -> list[tuple[str, str]]:
    """Each metric of a query with what stands in its braces."""
    return [
        (match[0], expression[match.end() + 1 : expression.index("}", match.end())])
        for match in METRIC.finditer(expression)
        if expression[match.end() : match.end() + 1] == "{"
    ]


def test_given_the_dashboard_when_read_then_its_rows_are_these() -> None:
    assert [panel.title for panel in panels() if panel.is_row] == ROWS


def test_given_the_dashboard_when_read_then_it_can_be_imported_anywhere() -> None:
    board = load()
    assert board["uid"] == "rocksmq"
    assert "id" not in board, "the number in one Grafana's database"
    assert "__inputs" not in board, "it asks for its data source by a variable"
    names = [variable["name"] for variable in board["templating"]["list"]]
    assert names == ["datasource", "job", "instance", "channel", "group", "runbook"]
    sources = re.findall(r'"uid": "([^"]+)"', DASHBOARD.read_text())
    assert set(sources) == {"rocksmq", "${datasource}", "-- Grafana --"}


def test_given_the_variables_when_read_then_all_jobs_instances_channels_and_groups_can_be_chosen() -> None:
    for variable in load()["templating"]["list"]:
        if variable["type"] == "query":
            assert variable["includeAll"]
            assert variable["multi"]
            assert metrics_in(variable["query"]["query"]) <= set(known_metrics())
        if variable["name"] in {"channel", "group"}:
            assert variable["allValue"] == ".*", "sums of too many have no such label"


def test_given_the_panels_when_laid_out_then_none_lies_over_another_or_out_of_the_page() -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in panels():
        assert panel.x + panel.width <= COLUMNS, panel.title
        for x in range(panel.x, panel.x + panel.width):
            for y in range(panel.y, panel.y + panel.height):
                assert taken.setdefault((x, y), panel.title) == panel.title
    assert len({panel.id for panel in panels()}) == len(list(panels()))
    assert len({panel.title for panel in panels()}) == len(list(panels()))


@pytest.mark.parametrize("panel", SHOWN, ids=TITLES)
def test_given_a_panel_when_read_then_it_says_what_it_shows_and_in_what_unit(panel: Panel) -> None:
    assert re.fullmatch(r"[A-Z].+[.)]", panel.description)
    assert panel.unit in UNITS
    assert panel.raw["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    assert panel.queries
    assert all(query.legend for query in panel.queries)


@pytest.mark.parametrize("panel", SHOWN, ids=TITLES)
def test_given_a_panel_when_its_queries_are_read_then_each_obeys_the_variables(panel: Panel) -> None:
    labels = {metric.name: metric.labels for metric in CATALOGUE}
    for query in panel.queries:
        found = selectors(query.expression)
        assert [name for name, _ in found] == METRIC.findall(query.expression), "each has braces"
        assert found or query.expression.startswith("count(ALERTS{")
        for name, selector in found:
            assert 'job=~"$job",instance=~"$instance"' in selector
            for label in ("channel", "group"):
                assert (f'{label}=~"${label}"' in selector) == (label in labels.get(name, ())), name


@pytest.mark.parametrize("panel", SHOWN, ids=TITLES)
def test_given_a_panel_when_its_links_are_followed_then_the_runbook_has_what_they_lead_to(panel: Panel) -> None:
    for link in panel.raw.get("links", ()):
        assert link["title"] in rules("alert")
        assert link["url"] == "${runbook}#" + link["title"].lower()


def test_given_the_catalogue_when_the_dashboard_is_read_then_all_metrics_are_on_it_and_no_other() -> None:
    shown = {name for panel in SHOWN for query in panel.queries for name in metrics_in(query.expression)}
    assert shown <= set(known_metrics())
    assert {metric.name for metric in CATALOGUE} <= shown


def test_given_the_file_when_tidied_then_it_stays_as_it_is() -> None:
    assert DASHBOARD.read_text() == tidy(load()) + "\n"
