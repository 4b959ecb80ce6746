"""The broker is away while a program goes on sending, shortened; `python -m tests.crash.away` is long."""

from pathlib import Path

import pytest

from rocksmq.clients.testing import Broker

from .away import away

RSS_BYTES_MORE = 32 << 20  # 16 batches of 256 KiB, as they came and as they are sent, and what the allocator keeps


@pytest.mark.slow
def test_given_a_broker_that_is_away_when_send_is_called_on_and_on_then_memory_is_bounded_and_all_queued_is_stored(
    tmp_path: Path,
) -> None:
    with Broker(tmp_path / "data") as broker:
        found = away(broker, seconds=3.0, timeout=0.2)
    print(found)  # noqa: T201
    assert found.refused > 0, "a full window raises"
    assert found.rss_growth_bytes < RSS_BYTES_MORE
