"""Fixtures for all tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from rocksmq.clients import Client
from rocksmq.clients.testing import Broker


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    """A broker of its own for this test."""
    with Broker(tmp_path / "data") as process:
        yield process


@pytest.fixture
def client(broker: Broker) -> Iterator[Client]:
    """A client of `broker`."""
    with broker.client() as mq:
        yield mq
