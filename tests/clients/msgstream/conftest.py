"""Fixtures: the worlds of worlds.py."""

from collections.abc import Iterator

import pytest

from rocksmq.clients.testing import Broker
from tests.clients.msgstream.worlds import MemWorld, RmqWorld, World


@pytest.fixture(scope="module")
def shared_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A broker that a module shares."""
    with Broker(tmp_path_factory.mktemp("streams") / "data") as process:
        yield process


@pytest.fixture
def rmq(shared_broker: Broker) -> Iterator[RmqWorld]:
    """On a real broker."""
    with shared_broker.client() as mq:
        yield RmqWorld(shared_broker, mq)


@pytest.fixture(params=["rocksmq", "memory"])
def world(request: pytest.FixtureRequest) -> World:
    """Each of the worlds."""
    found: World = request.getfixturevalue("rmq") if request.param == "rocksmq" else MemWorld()
    return found
