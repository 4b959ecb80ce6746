"""Fixtures for all tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from rocksmq.clients import Client
from tests.helpers.broker import BrokerProcess


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[BrokerProcess]:
    """A broker of its own for this test."""
    with BrokerProcess(tmp_path / "data") as process:
        yield process


@pytest.fixture
def client(broker: BrokerProcess) -> Iterator[Client]:
    """A client of `broker`."""
    with broker.client() as mq:
        yield mq
