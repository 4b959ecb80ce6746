"""Fixtures: the worlds of worlds.py."""

from collections.abc import Iterator

import pytest

from rocksmq.clients.msgstream import MsgStream
from rocksmq.clients.testing import Broker
from tests.clients.msgstream.worlds import MemWorld, RmqWorld, World, plain_reader, writer


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


@pytest.fixture
def channels(world: World) -> list[str]:
    """Two channels."""
    return world.channels(2)


@pytest.fixture
def out(world: World, channels: list[str]) -> Iterator[MsgStream]:
    """Produces to them."""
    with writer(world, channels) as stream:
        yield stream


@pytest.fixture
def stream(world: World, channels: list[str]) -> Iterator[MsgStream]:
    """Reads them."""
    with plain_reader(world, channels) as opened:
        yield opened
