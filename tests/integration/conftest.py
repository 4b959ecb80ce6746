"""Fixtures for tests that attack a broker while somebody else works on it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.broker import BrokerProcess
from tests.helpers.raw import Raw
from tests.helpers.raw_bystander import Bystander


@pytest.fixture(scope="module")
def busy_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[BrokerProcess, Bystander]]:
    """A broker for a whole file of tests, and its bystander."""
    path: Path = tmp_path_factory.mktemp("busy") / "data"
    with BrokerProcess(path) as broker, Bystander(broker) as bystander:
        with broker.client() as mq:
            mq.create_channel("orders")
            mq.create_consumer_group("orders", "billing")
            mq.produce("orders", [b"one", b"two", b"three"])
        yield broker, bystander


@pytest.fixture
def attacked(busy_broker: tuple[BrokerProcess, Bystander]) -> Iterator[BrokerProcess]:
    """The busy broker; after the test its bystander goes on as if nothing had been."""
    broker, bystander = busy_broker
    yield broker
    bystander.check()


@pytest.fixture
def raw(attacked: BrokerProcess) -> Iterator[Raw]:
    """A connection to it that said HELLO."""
    with Raw(attacked.address) as connection:
        yield connection
