"""Backups of a broker that is killed in every cycle, shortened: each is restored, and is a consistent prefix.

`python -m tests.crash.backups` takes 100.
"""

import os
import re
from pathlib import Path

import pytest

from .backups import run
from .cast import SMALL_CAST
from .course import CALM

SEED = os.environ.get("TEST_SEED", "7660")
BACKUPS = 8
# For each mutant what the audit says.
SAYS = {
    "stale": "was acknowledged before|it was at .* before",
    "hole": "no prefix of channel|ends at",
    "positions-back": "it was at .* before",
}


@pytest.mark.slow
@pytest.mark.parametrize("has_etcd", [False, True])
def test_given_kills_under_load_when_backups_are_restored_then_each_is_a_prefix_with_all_that_was_acknowledged(
    tmp_path: Path, has_etcd: bool
) -> None:
    outcome = run(tmp_path, SEED, BACKUPS, cast=SMALL_CAST, has_etcd=has_etcd)
    assert outcome.taken == BACKUPS
    assert outcome.linked > 0
    assert outcome.messages > 0
    assert not outcome.report.errors


@pytest.mark.slow
@pytest.mark.parametrize("mutant", SAYS)
def test_given_a_mutant_when_backups_are_restored_then_the_audit_fails_and_says_why(tmp_path: Path, mutant: str) -> None:
    with pytest.raises(AssertionError) as caught:
        run(tmp_path, "bite", 6, cast=SMALL_CAST, intensity=CALM, mutant=mutant)
    assert re.search(SAYS[mutant], str(caught.value)), str(caught.value)
