"""metrics.md and the runbook: what they name is there, and what is there they name."""

import re
from pathlib import Path

import pytest

from tests.helpers.metrics_table import DOCUMENT, TABLE, table
from tests.helpers.prometheus import known_metrics, metrics_in, promtool

from .test_alerts import ALERTS, RULES, RUNBOOK, rules

ENTRY = re.compile(r"^### (\w+)\n\n\*\*(\w+)\.\*\* (.*?)(?=^##|\Z)", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#]*)(?:#([^)]*))?\)")
PAGES = [DOCUMENT, RUNBOOK, ALERTS / "README.md"]


def blocks(page: Path, language: str) -> list[str]:
    """What stands between fences of ``language``."""
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)


def headings(page: Path) -> set[str]:
    """The anchors of a page, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def test_given_the_catalogue_when_metrics_md_is_read_then_its_table_is_made_from_it() -> None:
    found = TABLE.search(DOCUMENT.read_text())
    assert found is not None
    assert found[0] == table(), "python -m tests.helpers.metrics_table"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_given_a_page_when_its_metrics_are_looked_up_then_all_are_in_the_catalogue(page: Path) -> None:
    named = {name for name in metrics_in(page.read_text()) if not name.endswith("_")}  # process_* is none
    assert named <= set(known_metrics())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_given_a_page_when_its_links_are_followed_then_they_lead_somewhere(page: Path) -> None:
    for path, anchor in LINK.findall(page.read_text()):
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), path
        assert not anchor or anchor in headings(target), f"{path}#{anchor}"


def test_given_the_example_when_promtool_checks_it_then_it_finds_no_fault(tmp_path: Path) -> None:
    (example,) = blocks(DOCUMENT, "yaml")
    (tmp_path / "prometheus.yml").write_text(example)
    (tmp_path / RULES.name).write_text(RULES.read_text())
    assert "SUCCESS: 1 rule files found" in promtool("check", "config", str(tmp_path / "prometheus.yml"))


def test_given_the_alerts_when_the_runbook_is_read_then_each_has_its_entry_in_their_order_and_says_what_it_must() -> None:
    entries = ENTRY.findall(RUNBOOK.read_text())
    assert [name for name, _, _ in entries] == list(rules("alert"))
    for name, severity, text in entries:
        assert severity == rules("alert")[name]["labels"]["severity"], name
        assert re.search(r"^- Look", text, re.MULTILINE), name
        assert re.search(r"^- (Do|Look and do):", text, re.MULTILINE), name
