"""Each data directory of a released format is served as it was, and goes on; one of a newer format is refused."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from rocksmq.broker.directory import FORMAT, read_format
from rocksmq.protocol.operations import Consume, DescribeGroup, OpenProducer, Produce

from .check_support import findings
from .format_fixture import FIXTURES, NAMED, READER, make, opened, served
from .meta_support import MemoryRemote
from .support import batch_of, identity, in_trio

RELEASED = sorted(FIXTURES.glob("format-*.tar.xz"))
DATA_REFUSED = 3
SECONDS = 30


class Fixture(NamedTuple):
    """One of the two directories in a fixture; ``content`` is what a broker must serve."""

    path: Path
    remote: MemoryRemote | None
    content: dict[str, Any]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As this version writes it."""
    path = tmp_path_factory.mktemp("fixture")
    make(path)
    return path


@pytest.fixture(params=["made now", *(file.name for file in RELEASED)])
def unpacked(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A fixture, to open."""
    target = tmp_path / "fixture"
    if request.param == "made now":
        shutil.copytree(request.getfixturevalue("made"), target)
    else:
        with tarfile.open(FIXTURES / request.param) as tar:
            tar.extractall(target, filter="data")
    return target


@pytest.fixture(params=["embedded", "elsewhere"])
def fixture(request: pytest.FixtureRequest, unpacked: Path) -> Fixture:
    """Each of its directories."""
    name = str(request.param)
    content = json.loads((unpacked / "content.json").read_text())[name]
    remote = None
    if name == "elsewhere":
        remote = MemoryRemote()
        remote.entries = json.loads((unpacked / "positions.json").read_text())
    return Fixture(unpacked / name, remote, content)


def problems(fixture: Fixture) -> list[str]:
    return [line for line in findings(fixture.path, fixture.remote) if line.startswith("problem")]


def test_given_this_format_when_looked_for_then_there_is_a_fixture_of_it() -> None:
    assert FIXTURES / f"format-{FORMAT}.tar.xz" in RELEASED


def test_given_a_released_format_when_checked_then_nothing_is_wrong(fixture: Fixture) -> None:
    assert problems(fixture) == []


@in_trio
async def test_given_a_released_format_when_started_then_all_is_served_as_it_was_and_it_goes_on(fixture: Fixture) -> None:
    content = fixture.content
    for minutes in (3, 4):
        async with opened(fixture.path, fixture.remote, minutes) as mq:
            assert json.loads(json.dumps(await served(mq))) == content
    highest = max(content[channel]["described"][4] for channel in ("orders", "bills", "short"))
    async with opened(fixture.path, fixture.remote, minutes=5) as mq:
        # What was given back comes first, then what was not read yet.
        given_back = (await mq.call(Consume("orders", "billing", READER, 2, 100, 1 << 22, 0))).message_count
        lag = (await mq.call(DescribeGroup("orders", "billing"))).lag_messages
        assert (given_back, lag) == (3, content["orders"]["groups"]["billing"][2] - 3)
        opened_name = await mq.call(OpenProducer("orders", "importer", identity(1 << 62, 99)))
        assert opened_name.last_sequence == 12
        assert (await mq.produce("orders", [b"more"]))[0] > highest
        assert (await mq.consume("orders", "shipping")).payloads == [b"more"]
        await mq.call(Produce("bills", identity(1 << 62, 98), 0, *batch_of(b"new")))
        with pytest.raises(Exception, match="another producer"):
            await mq.call(Produce("orders", NAMED, 2, *batch_of(b"x"), sequences=[30, 30]))
    assert problems(fixture) == []


@pytest.mark.parametrize(("version", "says"), [(FORMAT + 1, "written by a newer rocksmqd"), (0, "which was never released")])
def test_given_another_format_when_a_broker_starts_then_it_ends_with_3_and_says_so_and_changes_nothing(
    unpacked: Path, version: int, says: str
) -> None:
    path = unpacked / "embedded"
    _, instance = read_format(path)
    (path / "format").write_text(json.dumps({"format": version, "instance": instance}))
    before = sorted((file.name, file.stat().st_size) for file in (path / "db").iterdir())
    ended = subprocess.run(
        [sys.executable, "-P", "-m", "rocksmq.broker", "--data-dir", path, "--listen", "127.0.0.1:0", "--http", "off"],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        env={name: value for name, value in os.environ.items() if not name.startswith("ROCKSMQ_")},
        check=False,
    )
    assert ended.returncode == DATA_REFUSED, ended.stderr
    (line,) = [line for line in ended.stderr.splitlines() if line.startswith("rocksmqd: ")]
    assert f"has format {version}" in line
    assert says in line
    assert sorted((file.name, file.stat().st_size) for file in (path / "db").iterdir()) == before
