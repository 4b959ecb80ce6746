"""Fixtures for all tests."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from rocksmq.clients import Client
from rocksmq.clients.testing import Broker
from tests.helpers.pulsar_fixtures import pulsar_lite, real_pulsar

__all__ = ["broker", "client", "pulsar_lite", "real_pulsar"]


def pytest_configure() -> None:
    """What is started takes Ctrl-C, also where a shell runs the tests in its background and has them ignore it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first: one of them that began last would be what all other workers wait for."""
    slow = {item.path for item in items if item.get_closest_marker("slow") is not None}
    items.sort(key=lambda item: item.path not in slow)


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
