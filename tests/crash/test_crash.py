"""The crash harness, shortened: nothing is lost, doubled or reordered, by a client that heals by itself.

With positions in etcd as in the broker's own database.

`make crash` runs 200 cycles. TEST_SEED replays another seed's faults.
"""

import os
from pathlib import Path

import pytest

from .__main__ import lines
from .cast import SMALL_CAST
from .cycles import DEADLY, HARMLESS, STARTING, Cycle, Death
from .harness import Harness
from .points import Fault

SEED = os.environ.get("TEST_SEED", "7660")
CYCLES, ETCD_CYCLES = 15, 5


@pytest.mark.slow
def test_given_kills_and_a_bad_link_when_all_is_read_then_each_message_is_there_once_and_in_order(tmp_path: Path) -> None:
    report = Harness(tmp_path, SEED).run(Cycle.of(SEED, number) for number in range(CYCLES))
    print("\n".join(lines(report)))  # noqa: T201
    assert report.cycles == CYCLES
    assert report.produced > 0
    assert report.outages > CYCLES
    assert report.unknown == report.refused == 0
    assert not report.errors


@pytest.mark.slow
def test_given_kills_of_broker_and_etcd_when_all_is_read_then_each_message_is_there_once_and_in_order(tmp_path: Path) -> None:
    harness = Harness(tmp_path, SEED, cast=SMALL_CAST, has_etcd=True)
    report = harness.run(Cycle.of(SEED, number) for number in range(ETCD_CYCLES))
    print("\n".join(lines(report)))  # noqa: T201
    assert report.cycles == ETCD_CYCLES
    assert report.produced > 0
    assert report.etcd
    assert report.unknown == report.refused == 0
    assert not report.errors


def test_given_a_seed_when_cycles_are_planned_then_they_are_the_same_and_of_every_kind() -> None:
    cycles = [Cycle.of(SEED, number) for number in range(2_000)]
    assert cycles == [Cycle.of(SEED, number) for number in range(2_000)]
    assert cycles != [Cycle.of("another", number) for number in range(2_000)]
    assert {cycle.death for cycle in cycles} == set(Death)
    assert {cycle.start_fault for cycle in cycles} == {None, *STARTING}
    planned = {fault.split("@")[0] for cycle in cycles for fault in cycle.faults}
    assert planned == set(HARMLESS) | {f"{point}=kill" for point in DEADLY}
    for cycle in cycles:
        for fault in cycle.faults:
            Fault.parse(fault)
