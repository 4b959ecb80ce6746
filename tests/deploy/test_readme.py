"""deploy/README.md: its links lead somewhere, and its commands agree with what else stands in deploy/."""

import re

from tests.deploy.support import DEPLOY, PROJECT, service

TEXT = (DEPLOY / "README.md").read_text()


def test_given_the_readme_when_its_links_are_followed_then_each_file_is_there() -> None:
    links = re.findall(r"\]\((?!http)([^)#]+)\)", TEXT)
    assert len(links) > 10
    for link in links:
        assert (DEPLOY / link).exists(), link


def test_given_the_readme_when_its_commands_are_read_then_they_name_the_files_and_the_version_that_there_are() -> None:
    unit = service(DEPLOY / "systemd" / "rocksmqd.service")
    program, _, file = unit["ExecStart"].split()
    assert f"python3 -m venv {program.removesuffix('/bin/rocksmqd')}\n" in TEXT
    assert f"install -D -m 0644 deploy/rocksmqd.toml {file}\n" in TEXT
    assert set(re.findall(r"rocksmq:(\d\S*)", TEXT)) == {PROJECT["version"]}
