"""Connections that come and go in every way, shortened; `python -m tests.crash.churn` is long."""

from pathlib import Path

import pytest

from rocksmq.clients.testing import Broker

from .churn import churn

RSS_BYTES_MORE = 64 << 20  # for what a broker remembers of producers and consumers, all of it bounded


@pytest.mark.slow
def test_given_connections_that_come_and_go_when_all_are_gone_then_the_broker_holds_what_it_held_before(tmp_path: Path) -> None:
    with Broker(tmp_path / "data") as broker:
        found = churn(broker, processes=6, connections=20, seconds=8, stay_s=0.5, seed="short")
        print(found)  # noqa: T201
        assert found.most.sockets > found.before.sockets + 20, "there were many"
        assert found.after.sockets == found.before.sockets
        assert found.after.files == found.before.files
        assert found.after.rss_bytes < found.before.rss_bytes + RSS_BYTES_MORE
        assert found.killed > 0
        assert "Traceback" not in broker.log.read_text()
