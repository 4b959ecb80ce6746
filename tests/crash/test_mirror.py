"""The harness of the mirror, by itself: its plan, its audit, which bites, and two mirrors that it must find fault with.

The mirror itself is put to it in tests/integration/pulsar.
"""

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers.pulsar import PulsarLite, require_pulsar_lite

from .mirror import NAIVE
from .mirror_audit import Copy, check_first, check_same, digest
from .mirror_plan import Blow, Cycle, Kind, Side, cycles_of
from .mirror_run import MirrorRun, faults_in

SEED = os.environ.get("TEST_SEED", "7660")
MESSAGES = 40_000
KILLS = [Cycle(True, True, life_s, [Blow(Side.MIRROR, Kind.KILL, 0.0, 0.0, None)]) for life_s in (0.1, 0.15, 0.2)]


def test_given_a_seed_when_faults_are_planned_then_they_are_the_same_and_strike_every_side_in_every_way() -> None:
    cycles = cycles_of(SEED, 2_000)
    assert cycles == cycles_of(SEED, 2_000)
    assert cycles != cycles_of("another", 2_000)
    assert 2_000 <= faults_in(cycles) <= 2_006
    blows = [blow for cycle in cycles for blow in cycle.blows]
    every = {(side, kind) for side in Side for kind in (Kind.KILL, Kind.STOP)} | {(Side.MIRROR, Kind.TWIN)}
    assert {(blow.side, blow.kind) for blow in blows} == every
    together = {frozenset(blow.side for blow in cycle.blows) for cycle in cycles}
    assert len(together) == 7, "each alone, each pair, all three"
    for side in Side:
        of_side = [blow for blow in blows if blow.side is side]
        assert len(of_side) > len(blows) / 4
        assert sum(blow.kind is Kind.KILL for blow in of_side) > len(of_side) / 2
        assert any(blow.again_s is not None for blow in of_side)


def test_given_only_some_sides_when_faults_are_planned_then_no_other_is_struck() -> None:
    blows = [blow for cycle in cycles_of(SEED, 200, [Side.BROKER, Side.MIRROR]) for blow in cycle.blows]
    assert {blow.side for blow in blows} == {Side.BROKER, Side.MIRROR}


# -- the audit bites -------------------------------------------------------------------

SENT = [(key, digest(b"payload %d" % key, {"number": b"%d" % key})) for key in range(100, 200)]


def test_given_the_same_messages_when_they_are_audited_then_nothing_is_wrong() -> None:
    check_same("topic", Copy(SENT), Copy(SENT))
    assert check_first("topic", Copy(SENT), Copy(SENT)) == 0


def changed(place: int) -> list[tuple[int, int]]:
    key = SENT[place][0]
    return [*SENT[:place], (key, digest(b"payload %d" % key, {})), *SENT[place + 1 :]]


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (SENT[:-1], r"1 lost \(199\)"),
        (SENT[3:], r"3 lost \(100, 101, 102\)"),
        (SENT[:40] + SENT[60:], r"20 lost \(140, 141, 142, 143, 144, …\)"),
        (SENT[:50] + SENT[45:], r"5 doubled \(145, 146"),
        (SENT + SENT[:1], r"1 doubled \(100\)"),
        ([*SENT[:7], SENT[8], SENT[7], *SENT[9:]], r"1 out of order \(107\)"),
        ([*SENT[50:], *SENT[:50]], "50 out of order"),
        (changed(9), r"1 changed \(109\)"),
        ([*SENT, (500, 1)], r"1 never sent \(500\)"),
        ([], "100 lost"),
    ],
    ids=["last lost", "first lost", "middle lost", "doubled", "first doubled", "swapped", "moved", "changed", "made up", "all"],
)
def test_given_a_fault_when_it_is_audited_then_it_is_named(found: list[tuple[int, int]], told: str) -> None:
    with pytest.raises(AssertionError, match=told):
        check_same("topic", Copy(SENT), Copy(found))


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (SENT[:-1], "1 lost"),
        (SENT[:40] + SENT[30:60] + SENT[61:], r"1 lost \(160\)"),
        ([*SENT[:7], SENT[8], SENT[7], *SENT[8:]], r"1 out of order \(107\)"),
        (changed(9), "1 changed"),
        (SENT + changed(9)[5:15], "message 109 is there twice with different content"),
        ([*SENT, (500, 1)], "1 never sent"),
    ],
    ids=["last lost", "lost among doubles", "first seen in another order", "changed", "changed in a double", "made up"],
)
def test_given_a_fault_beyond_doubles_when_it_is_audited_then_it_is_named(found: list[tuple[int, int]], told: str) -> None:
    with pytest.raises(AssertionError, match=told):
        check_first("topic", Copy(SENT), Copy(found))


def test_given_doubles_where_they_may_be_when_they_are_audited_then_they_are_counted() -> None:
    assert check_first("topic", Copy(SENT), Copy(SENT[:50] + SENT[40:] + SENT[95:])) == 15


def test_given_a_label_that_was_sent_twice_when_it_is_audited_then_it_has_to_be_there_twice() -> None:
    doubled = SENT[:50] + SENT[45:]
    check_same("channel", Copy(doubled), Copy(doubled))
    with pytest.raises(AssertionError, match="1 lost"):
        check_same("channel", Copy(doubled), Copy(SENT[:50] + SENT[46:]))


@pytest.mark.parametrize(
    "there", [{}, {"a": b"xy"}, {"a": b"x", "b": b""}, {"b": b"x"}], ids=["none", "longer", "more", "other"]
)
def test_given_other_headers_when_a_message_is_digested_then_it_is_another(there: dict[str, bytes]) -> None:
    assert digest(b"payload", {"a": b"x"}) != digest(b"payload", there)
    assert digest(b"payload", {"a": b"x"}) == digest(b"payload", {"a": b"x"})


# -- and the whole of it ---------------------------------------------------------------


def naive_run(directory: Path, server: PulsarLite, kind: str, tell: Callable[[str], object]) -> MirrorRun:
    return MirrorRun(directory, SEED, server, has_deduplication=False, mirror=(*NAIVE, kind), tell=tell)


@pytest.mark.slow
def test_given_a_mirror_that_commits_early_when_it_is_killed_then_what_it_lost_is_found(tmp_path: Path) -> None:
    require_pulsar_lite()
    run = naive_run(tmp_path, PulsarLite(tmp_path / "pulsar"), "early", print)
    with pytest.raises(AssertionError, match=re.compile(r"the topic of orders\.\d: of \d+ messages \d+ lost")):
        run.run(MESSAGES, KILLS)


@pytest.mark.slow
def test_given_a_mirror_that_commits_late_when_it_is_killed_then_what_it_doubled_is_counted(tmp_path: Path) -> None:
    require_pulsar_lite()
    report = naive_run(tmp_path, PulsarLite(tmp_path / "pulsar"), "late", print).run(MESSAGES, KILLS)
    assert report.messages == MESSAGES
    assert report.struck == {"mirror kill": len(KILLS)}
    assert report.doubles > 0
