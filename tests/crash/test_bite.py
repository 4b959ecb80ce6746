"""The harness bites: with each mutant it fails, and says what is wrong; with the whole broker it passes the same cycles.

The faults are directed, where a random one would take long to hit: at most CYCLES_MAX cycles are allowed.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from .cast import SMALL_CAST
from .course import CALM
from .cycles import Cycle, Death
from .harness import Harness

CYCLES_MAX = 3
LIFE_SECONDS = 2.0
REACHED_SECONDS = 30.0  # a fault that kills ends the life, however slow the machine
# For each mutant: the faults that bring it to light, whether the power is cut, and what the harness says.
MUTANTS: dict[str, tuple[Sequence[str], bool, str]] = {
    "no-dedup": (["before-reply/produce=raise@5"], False, "doubled"),
    "early-ack": (["before-write=kill@30"], False, "lost|is not at|not there|does not start"),
    "position-after-reply": (["before-meta=kill@10"], False, "handed out twice|handed out, and is not there"),
    "no-consumer-entry": (["before-reply/consume=raise@5"], False, "never handed out"),
    "no-fsync": ([], True, "exit code 3"),
}
# The same with positions in etcd.
ETCD_MUTANTS: dict[str, tuple[Sequence[str], str]] = {
    "no-claim-in-etcd": ([], "handed out twice"),
    "no-consumer-in-etcd": (["before-reply/consume=kill@5"], "never handed out"),
}


def cycles(faults: Sequence[str], *, cuts_power: bool) -> Iterator[Cycle]:
    """The same again and again."""
    is_killed = any("=kill" in fault for fault in faults)
    death, life_s = (Death.FAULT, REACHED_SECONDS) if is_killed else (Death.KILL, LIFE_SECONDS)
    for _ in range(CYCLES_MAX):
        yield Cycle(death, faults, life_s, cuts_power=cuts_power)


@pytest.mark.slow
@pytest.mark.parametrize("mutant", MUTANTS)
def test_given_a_mutant_when_the_harness_runs_then_it_fails_and_says_why(tmp_path: Path, mutant: str) -> None:
    faults, cuts_power, says = MUTANTS[mutant]
    harness = Harness(tmp_path, "bite", cast=SMALL_CAST, intensity=CALM, mutant=mutant)
    with pytest.raises(AssertionError) as caught:
        harness.run(cycles(faults, cuts_power=cuts_power))
    assert re.search(says, str(caught.value)), str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("mutant", ETCD_MUTANTS)
def test_given_a_mutant_with_positions_in_etcd_when_the_harness_runs_then_it_fails_and_says_why(
    tmp_path: Path, mutant: str
) -> None:
    faults, says = ETCD_MUTANTS[mutant]
    harness = Harness(tmp_path, "bite", cast=SMALL_CAST, intensity=CALM, mutant=mutant, has_etcd=True, is_etcd_restless=False)
    with pytest.raises(AssertionError) as caught:
        harness.run(cycles(faults, cuts_power=False))
    assert re.search(says, str(caught.value)), str(caught.value)


@pytest.mark.slow
def test_given_the_whole_broker_when_it_meets_the_faults_of_all_mutants_then_the_harness_passes(tmp_path: Path) -> None:
    harness = Harness(tmp_path, "bite", cast=SMALL_CAST, intensity=CALM)
    planned = [next(cycles(faults, cuts_power=cuts_power)) for faults, cuts_power, _ in MUTANTS.values()]
    report = harness.run(planned)
    assert len(report.struck) == sum(len(cycle.faults) for cycle in planned)
    assert report.produced > 0
    assert not report.errors
