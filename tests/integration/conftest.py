"""Fixtures for tests that attack a broker while somebody else works on it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from rocksmq.clients.testing import Broker
from tests.helpers.raw import Raw
from tests.helpers.raw_bystander import Bystander


@pytest.fixture(scope="module")
def busy_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Broker, Bystander]]:
    """A broker for a whole file of tests, and its bystander."""
    path: Path = tmp_path_factory.mktemp("busy") / "data"
    with Broker(path) as broker, Bystander(broker) as bystander:
        with broker.client() as mq:
            mq.create_channel("orders")
            mq.create_consumer_group("orders", "billing")
            mq.produce("orders", [b"one", b"two", b"three"])
        yield broker, bystander


@pytest.fixture
def attacked(busy_broker: tuple[Broker, Bystander]) -> Iterator[Broker]:
    """The busy broker; after the test its bystander goes on as if nothing had been."""
    broker, bystander = busy_broker
    yield broker
    bystander.check()


@pytest.fixture
def raw(attacked: Broker) -> Iterator[Raw]:
    """A connection to it that said HELLO."""
    with Raw(attacked.address) as connection:
        yield connection
