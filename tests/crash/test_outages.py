"""Etcd is away in every way, shortened: consume says so in time, nothing is lost or doubled, and all heals.

`python -m tests.crash.outages` measures it too.
"""

from pathlib import Path

import pytest

from rocksmq.clients.testing import Broker

from .etcd_faults import OUTAGES
from .outages import check, suffer

SECONDS = 1.0
HASTY_SECONDS = 0.8
# So that the broker gives up soon enough for that client to be told.
LIMITS = {"ROCKSMQ_LIMITS_META_CALL_SECONDS": "0.4", "ROCKSMQ_LIMITS_META_WAIT_SECONDS": "0.4"}
LATE_SECONDS = 20.0  # a bound against hanging, not a figure


@pytest.mark.slow
@pytest.mark.parametrize("name", OUTAGES)
def test_given_an_etcd_that_is_away_when_clients_go_on_then_they_are_told_in_time_and_nothing_is_lost_or_doubled(
    tmp_path: Path, name: str
) -> None:
    with (
        OUTAGES[name](tmp_path / "etcd") as outage,
        Broker(tmp_path / "data", "--meta", outage.url, *outage.arguments, environment=LIMITS) as broker,
    ):
        hasty_s = HASTY_SECONDS if outage.is_noticed else LATE_SECONDS
        found = suffer(outage, broker, seconds=SECONDS, rounds=1, hasty_s=hasty_s, has_load=False)
        check(outage, found)
        assert broker.terminate() == 0
    assert found.report.produced > 0
    for back in found.rounds:
        assert back.answer_s < LATE_SECONDS
        assert back.back_s < LATE_SECONDS
    assert found.after.sockets <= found.before.sockets
    assert found.after.files <= found.before.files
