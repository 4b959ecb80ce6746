"""The mirror under kills of broker and mirror, with pulsar-lite: wherever the tests run, also without Java.

Each message is there, those seen first in order; pulsar-lite has no deduplication, so some may be there twice.
"""

from pathlib import Path

import pytest

from tests.crash.mirror_run import MirrorRun
from tests.helpers.pulsar import PulsarLite, require_pulsar_lite

from .support import SEED, WAYS, strike


@pytest.mark.slow
@WAYS
def test_given_kills_of_broker_and_mirror_when_all_is_mirrored_then_each_message_is_there_and_in_order(
    tmp_path: Path, is_back: bool
) -> None:
    require_pulsar_lite()
    strike(MirrorRun(tmp_path, SEED, PulsarLite(tmp_path / "pulsar"), is_back=is_back, has_deduplication=False))
