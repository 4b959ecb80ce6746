"""kill -9 at random moments under load: what was acknowledged stays, in order, with the right positions.

The plan of each cycle (who sends how much, when the kill comes) follows from the seed, which is printed.
TEST_SEED replays another one, TEST_CRASH_CYCLES asks for more.
"""

import os
import time
from pathlib import Path

import pytest

from rocksmq.clients.testing import Broker
from tests.helpers.ledger_crashes import Crashes

SEED = int(os.environ.get("TEST_SEED", "7660"))
CYCLES = int(os.environ.get("TEST_CRASH_CYCLES", "50"))


def run_cycles(tmp_path: Path, mode: str, cycles: int) -> None:
    with Broker(tmp_path / "data", "--durability", mode) as broker:
        crashes = Crashes(broker, f"{SEED}/{mode}")
        with broker.client() as mq:
            crashes.create(mq)
        for cycle in range(cycles):
            crashes.crash(cycle)
            if crashes.random.random() < 0.2:
                crashes.crash_while_starting()
            begin = time.perf_counter()
            broker.start()
            ready_s = time.perf_counter() - begin
            found = crashes.check(cycle)
            print(  # noqa: T201
                f"seed {SEED}, {mode}, cycle {cycle}: {crashes.ledger.acknowledged_count} acknowledgements so far,"
                f" {found} messages more, ready after {ready_s:.3f} s"
            )
        crashes.check_the_end()
    assert "Traceback" not in broker.log.read_text()


@pytest.mark.slow
def test_given_fsync_when_killed_50_times_then_nothing_acknowledged_is_lost_doubled_or_reordered(tmp_path: Path) -> None:
    run_cycles(tmp_path, "fsync", CYCLES)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["os", "interval:50"])
def test_given_a_weaker_mode_when_killed_then_nothing_acknowledged_is_lost_doubled_or_reordered(
    tmp_path: Path, mode: str
) -> None:
    run_cycles(tmp_path, mode, max(1, CYCLES // 5))
