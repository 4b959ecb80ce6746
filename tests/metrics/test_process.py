"""How much memory the process may take, by the cgroups that it is in."""

from pathlib import Path

import pytest

from rocksmq.metrics.process import memory_limit

MACHINE = memory_limit(Path("/nonexistent"))


@pytest.fixture
def cgroups(tmp_path: Path) -> Path:
    group = tmp_path / "cgroups" / "system.slice" / "rocksmqd.service"
    group.mkdir(parents=True)
    (group / "memory.max").write_text("400000000\n")
    (group.parent / "memory.max").write_text("300000000\n")
    return tmp_path / "cgroups"


@pytest.mark.parametrize(
    ("own", "limit"),
    [
        ("0::/system.slice/rocksmqd.service\n", 300_000_000),  # the parent's is less
        ("0::/system.slice\n", 300_000_000),
        ("0::/\n", MACHINE),
        ("0::/elsewhere\n", MACHINE),
        ("4:memory:/system.slice\n", MACHINE),  # version 1
        ("", MACHINE),
    ],
)
def test_given_cgroups_when_asked_then_the_least_limit_counts(tmp_path: Path, cgroups: Path, own: str, limit: int) -> None:
    (tmp_path / "own").write_text(own)
    assert memory_limit(tmp_path / "own", cgroups) == limit


def test_given_no_limit_when_asked_then_it_is_the_machines(tmp_path: Path, cgroups: Path) -> None:
    for path in cgroups.rglob("memory.max"):
        path.write_text("max\n")
    (tmp_path / "own").write_text("0::/system.slice/rocksmqd.service\n")
    assert memory_limit(tmp_path / "own", cgroups) == MACHINE > 1 << 24
