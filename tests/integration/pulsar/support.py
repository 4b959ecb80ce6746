"""What the tests of a struck mirror share."""

import os

import pytest

from tests.crash.mirror_plan import cycles_of
from tests.crash.mirror_run import MirrorRun, faults_in, line

SEED = os.environ.get("TEST_SEED", "7660")
MESSAGES, FAULTS = 60_000, 6
WAYS = pytest.mark.parametrize("is_back", [False, True], ids=["to Pulsar", "to RocksMQ"])


def strike(run: MirrorRun, fault_count: int = FAULTS) -> None:
    """A run to its end, with its audit."""
    cycles = cycles_of(SEED, fault_count, run.sides)
    report = run.run(MESSAGES, cycles)
    print(f"seed {SEED}: {line(report)}")  # noqa: T201
    assert report.messages == MESSAGES
    assert 0 < sum(report.struck.values()) <= faults_in(cycles)
    assert len(report.lives) > 1, "no plan of so many faults spares the mirror"
