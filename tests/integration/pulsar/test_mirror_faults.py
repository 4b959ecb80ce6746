"""The mirror under kills of everything, shortened, both ways: each message once, in order; without deduplication also doubles.

`python -m tests.crash.mirror` strikes longer. TEST_SEED replays another seed's faults.
"""

from pathlib import Path

import pytest

from tests.crash.mirror_run import SETTINGS, WITHOUT_DEDUPLICATION, MirrorRun
from tests.helpers.pulsar import Pulsar, require_pulsar

from .support import SEED, WAYS, strike


@pytest.mark.slow
@WAYS
def test_given_kills_of_broker_mirror_and_pulsar_when_all_is_mirrored_then_each_message_is_there_once_and_in_order(
    tmp_path: Path, is_back: bool
) -> None:
    require_pulsar()
    strike(MirrorRun(tmp_path, SEED, Pulsar(tmp_path / "pulsar", settings=SETTINGS), is_back=is_back))


@pytest.mark.slow
def test_given_kills_and_no_deduplication_when_all_is_mirrored_then_each_message_is_there_and_in_order(tmp_path: Path) -> None:
    require_pulsar()
    server = Pulsar(tmp_path / "pulsar", settings=(*SETTINGS, *WITHOUT_DEDUPLICATION))
    strike(MirrorRun(tmp_path, SEED, server, has_deduplication=False), fault_count=4)
