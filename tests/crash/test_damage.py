"""Damage to any file of a data directory is told of, or harmless: a short run of `python -m tests.crash.damage`."""

from collections import Counter
from pathlib import Path

import pytest

from .damage import CRASHED, HARMLESS, LATER, LOST, REFUSED, STOPPED, TOLD, Result, table, tried
from .damage_base import bases
from .damage_cases import CUT, FLIP, MISSING, Case, cases, damaged_copy
from .damage_worker import Outcome

STEP_BITS, FEWEST_FLIPS = 400_000, 3
CASE = Case("killed", "db/000009.sst", FLIP, 12)
GOOD = Outcome([], None, None, [], [], None)


@pytest.mark.slow
def test_given_any_file_damaged_when_checked_and_started_then_somebody_says_so_or_all_is_there(tmp_path: Path) -> None:
    (killed,) = [base for base in bases(tmp_path) if base.name == "killed"]
    files = [file for file in killed.files() if not file.name.startswith("LOG")]
    wanted = list(cases(killed.name, killed.path, files, STEP_BITS, FEWEST_FLIPS))
    assert len({case.file for case in wanted}) == len(files)
    results = list(tried([killed], wanted, 2))
    assert [f"{result.case}: {result.wrong}" for result in results if result.wrong] == []
    verdicts = Counter(result.verdict for result in results)
    assert verdicts.keys() >= {REFUSED, TOLD, HARMLESS}
    by_file = {(result.case.file, result.case.damage): result.verdict for result in results}
    assert by_file["mark", MISSING] == by_file["format", MISSING] == by_file["db/CURRENT", MISSING] == REFUSED
    assert all(verdict == REFUSED for (file, damage), verdict in by_file.items() if file.endswith(".log") and damage == MISSING)
    assert len(list(table(results))) > 10


@pytest.mark.parametrize(
    ("outcome", "verdict", "says"),
    [
        (GOOD, HARMLESS, None),
        (GOOD._replace(compaction="fails"), HARMLESS, None),
        (GOOD._replace(check=["p"]), TOLD, None),
        (GOOD._replace(check=["p"], fails=["f"]), TOLD, None),
        (GOOD._replace(check=["p"], refusal="r"), REFUSED, None),
        (GOOD._replace(check=["p"], failure="r"), STOPPED, None),
        (GOOD._replace(refusal="r"), REFUSED, "a start is refused, and check finds nothing: r"),
        (GOOD._replace(failure="r"), STOPPED, "the broker stops, and check finds nothing: r"),
        (GOOD._replace(fails=["f"]), LATER, "neither a start nor check says that reading fails: f"),
        (GOOD._replace(differs=["channel c"]), LOST, "lost without a word: channel c"),
        (GOOD._replace(check=["p"], differs=["channel c"]), TOLD, "a broker serves less without an error: channel c"),
        (None, CRASHED, "the process crashed"),
    ],
)
def test_given_an_outcome_when_judged_then_only_what_nobody_told_is_wrong(
    outcome: Outcome | None, verdict: str, says: str | None
) -> None:
    result = Result(CASE, outcome)
    assert result.verdict == verdict
    assert (result.wrong is None) == (says is None)
    assert (says or "") in (result.wrong or "")


def test_given_a_directory_when_damaged_then_only_the_copy_is_and_only_as_named(tmp_path: Path) -> None:
    source = tmp_path / "data"
    (source / "db").mkdir(parents=True)
    (source / "mark").write_bytes(b"\0" * 10)
    (source / "db" / "1.sst").write_bytes(b"table")
    found = list(cases("killed", source, [Path("mark")], 1 << 20, 2))
    assert [case.damage for case in found] == [FLIP, FLIP, *[CUT] * 6, MISSING]
    for index, case in enumerate(found):
        target = tmp_path / str(index)
        damaged_copy(source, target, case)
        assert (target / "db" / "1.sst").read_bytes() == b"table"
        left = (target / "mark").read_bytes() if (target / "mark").exists() else None
        if case.damage == MISSING:
            assert left is None
        elif case.damage == CUT:
            assert left == bytes(case.at)
        else:
            assert left is not None
            assert sum(byte.bit_count() for byte in left) == 1
    assert (source / "mark").read_bytes() == bytes(10)
