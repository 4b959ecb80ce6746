"""Each siege, shortened: memory stays within its bounds, all is answered or closed, nobody honest loses anything.

Times and their ratios are the machine's, and belong to `python -m tests.siege`.
"""

import json
from pathlib import Path

import pytest

from .__main__ import SIEGES
from .honest import Send
from .overload import recovery_s
from .result import Check, Result


@pytest.mark.slow
@pytest.mark.parametrize("name", SIEGES)
def test_given_a_broker_when_besieged_then_no_bound_but_those_of_time_is_missed(name: str, tmp_path: Path) -> None:
    result = SIEGES[name](tmp_path, is_short=True)
    assert result.missed_facts == [], str(result)


def test_given_a_result_when_a_bound_is_missed_then_its_line_and_its_record_say_so() -> None:
    checks = (Check("memory", 2, 1), Check("ratio", 3, 2, is_timing=True), Check("refused", 1, 1, is_least=True))
    result = Result("bombs", {"sizes": 5}, {"closed": 1_000}, {"MiB": 1.5}, checks)
    assert not result.is_met
    assert result.missed_facts == ["memory 2 (MISSED: <= 1)"]
    assert str(result) == (
        "bombs: MISSED; memory 2 (MISSED: <= 1); ratio 3 (MISSED: <= 2); refused 1 (met: >= 1); sizes 5, closed 1,000, MiB 1.5"
    )
    record = json.loads(json.dumps(result.record()))
    assert record["is_met"] is False
    assert [check["is_met"] for check in record["checks"]] == [False, False, True]


def test_given_sends_after_a_load_when_a_second_is_as_the_worst_alone_then_it_began_with_the_recovery() -> None:
    alone = [0.002] * 200
    quick = [Send(number / 100, 0.002) for number in range(200)]
    slow = [Send(number / 10, 0.1) for number in range(40)]
    assert recovery_s(alone, quick, 2) == 0
    assert recovery_s(alone, slow[:7] + [send._replace(begin=0.7 + send.begin) for send in quick], 4) == pytest.approx(0.7)
    assert recovery_s(alone, slow, 4) == 4
