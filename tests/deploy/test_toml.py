"""deploy/rocksmqd.toml: every option with its default, commented out; and what the image sets."""

import re
import tomllib
from pathlib import Path

from rocksmq.broker import config
from tests.deploy.support import DEPLOY, PROJECT, ROOT

SHIPPED = DEPLOY / "rocksmqd.toml"
COMMENTED = re.compile(r"^#(?=[a-z_]+ = |\[)", re.MULTILINE)


def test_given_the_shipped_file_when_all_is_uncommented_then_every_option_stands_there_with_its_default(tmp_path: Path) -> None:
    file = tmp_path / "all.toml"
    file.write_text(COMMENTED.sub("", SHIPPED.read_text()))
    found = config.load(file, {}, {})
    assert found.values() == config.Config().values()
    assert {key for key, origin in found.origins.items() if origin != str(file)} == set()


def test_given_the_shipped_file_when_loaded_as_it_is_then_it_sets_nothing() -> None:
    assert tomllib.loads(SHIPPED.read_text()) == {}
    assert set(config.load(SHIPPED, {}, {}).origins.values()) == {"default"}


def test_given_the_shipped_file_when_read_then_each_option_follows_a_sentence_and_no_line_is_of_neither_kind() -> None:
    for paragraph in SHIPPED.read_text().split("\n\n"):
        lines = paragraph.strip().splitlines()
        assert all(line.startswith("# ") or COMMENTED.match(line) or line == "#" for line in lines), paragraph
        assert lines[0].startswith("# "), paragraph
        assert max(map(len, lines)) <= 140, paragraph


def test_given_the_file_of_the_image_when_loaded_then_it_is_good_and_names_only_what_a_container_needs() -> None:
    found = config.load(DEPLOY / "container.toml", {}, {})
    own = {key for key, origin in found.origins.items() if origin != "default"}
    assert own == {"data_dir", "listen", "http", "insecure", "log_format"}
    assert all(found.values()[key] != config.Config().values()[key] for key in own)


def test_given_the_requirements_of_the_image_when_compared_then_they_are_those_of_all_extras() -> None:
    extras: dict[str, list[str]] = PROJECT["optional-dependencies"]
    parts = (extras[name] for name in ("broker", "etcd", "msgstream", "pulsar"))
    wanted = {*PROJECT["dependencies"], *(one for part in parts for one in part)} - {"rocksmq[broker]"}
    lines = {line for line in (ROOT / "requirements" / "image.in").read_text().splitlines() if not line.startswith("#")}
    assert lines <= wanted
    assert names(lines) == names(wanted)


def names(requirements: set[str]) -> set[str]:
    return {re.split(r"[<>=]", one)[0] for one in requirements}
