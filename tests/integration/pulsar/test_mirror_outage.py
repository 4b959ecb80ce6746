"""Pulsar is away for a while, shortened: who produces does not notice, the mirror does not grow, and catches up by itself.

`python -m tests.bench.mirror_outage` measures ten minutes of it.
"""

from pathlib import Path

import pytest

from rocksmq.clients.mirror.course import MESSAGE_OVERHEAD_BYTES
from tests.bench.mirror_outage import MIB, PAYLOAD, measure, memory
from tests.helpers.pulsar import require_pulsar

AWAY_SECONDS = 6.0
BUFFER_BYTES = 2 * MIB
GROWTH_BYTES_MAX = 40 * MIB  # of what it reads ahead, as objects, and of Pulsar's client
BATCH = 300
HUNG_SECONDS = 2.0  # a bound against hanging, not a figure


@pytest.mark.slow
def test_given_pulsar_away_when_it_is_back_then_all_is_mirrored_and_neither_producers_nor_memory_noticed(
    tmp_path: Path,
) -> None:
    require_pulsar()
    found = measure(tmp_path, AWAY_SECONDS, batch=BATCH, before_s=2.0, buffer_bytes=BUFFER_BYTES, tell=print)
    print(f"p99 ratio {found.away.ratio:.2f}; {memory(found)}")  # noqa: T201
    assert found.backlog * (len(PAYLOAD) + MESSAGE_OVERHEAD_BYTES) > 4 * BUFFER_BYTES, "more than it may read ahead"
    assert max(found.rss_away) < found.rss_before + GROWTH_BYTES_MAX
    assert max(found.away.mirrored) < HUNG_SECONDS
