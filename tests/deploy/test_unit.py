"""The unit of systemd: known keys, little exposure, and that it agrees with the broker."""

import re
import shlex
from pathlib import Path

from rocksmq.broker import daemon
from tests.deploy.support import DEPLOY, DRAIN_SECONDS, program, said, service

UNIT = DEPLOY / "systemd" / "rocksmqd.service"
EXPOSURE_MOST = 2.0
HOW = "apt-get install systemd"


def startable(directory: Path) -> Path:
    """The unit with a program that is there: systemd-analyze looks."""
    unit = directory / UNIT.name
    unit.write_text(UNIT.read_text().replace("/opt/rocksmq/bin/rocksmqd", "/bin/true"))
    return unit


def test_given_the_unit_when_verified_then_systemd_has_nothing_to_say(tmp_path: Path) -> None:
    analyze = program("systemd-analyze", HOW)
    assert said(analyze, "verify", startable(tmp_path)) == ""


def test_given_the_unit_when_its_exposure_is_judged_then_it_is_below_two(tmp_path: Path) -> None:
    analyze = program("systemd-analyze", HOW)
    answer = said(analyze, "security", "--offline=true", "--no-pager", startable(tmp_path))
    level = re.search(r"Overall exposure level for .*: ([0-9.]+)", answer)
    assert level is not None, answer
    assert float(level[1]) < EXPOSURE_MOST, answer


def test_given_the_unit_when_compared_with_the_broker_then_no_restart_follows_where_none_would_mend_it() -> None:
    codes = {daemon.EXIT_CONFIGURATION, daemon.EXIT_DATA_REFUSED, daemon.EXIT_IN_USE}
    assert set(map(int, service(UNIT)["RestartPreventExitStatus"].split())) == codes


def test_given_the_unit_when_compared_with_the_broker_then_it_waits_longer_than_the_broker_drains() -> None:
    assert int(service(UNIT)["TimeoutStopSec"]) > 2 * DRAIN_SECONDS


def test_given_the_unit_when_read_then_it_starts_the_broker_with_the_file_that_is_shipped_for_it() -> None:
    found = service(UNIT)
    assert shlex.split(found["ExecStart"]) == ["/opt/rocksmq/bin/rocksmqd", "--config", "/etc/rocksmq/rocksmqd.toml"]
    assert found["Environment"] == f"ROCKSMQ_DATA_DIR=%S/{found['StateDirectory']}"
    assert (found["Type"], found["NotifyAccess"], found["WatchdogSec"]) == ("notify", "main", "30")
