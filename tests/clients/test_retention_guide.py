"""clients/retention.md: its example runs as printed, its links lead somewhere."""

import re
from pathlib import Path

import pytest

from rocksmq.clients.testing import Broker

PLACE = Path(__file__).parents[2] / "clients"
GUIDE = (PLACE / "retention.md").read_text()
URL = "rocksmq://127.0.0.1:7660"


def test_given_the_example_when_run_then_it_prints_what_the_guide_says(
    broker: Broker, capsys: pytest.CaptureFixture[str]
) -> None:
    code = "".join(re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL))
    assert code.count(URL) == 1
    exec(compile(code.replace(URL, broker.url), "retention.md", "exec"), {})
    rules, messages, gaps = capsys.readouterr().out.splitlines()
    assert rules == "{'max_messages': 3}"
    assert f"prints the rules, then `{messages}`, then `{gaps}`." in GUIDE


def test_given_the_links_when_followed_then_the_files_are_there() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", GUIDE)
    assert links
    assert [link for link in links if not (PLACE / link).exists()] == []
