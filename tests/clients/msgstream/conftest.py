"""Fixtures: the worlds of worlds.py."""

from collections.abc import Iterator

import pytest

from rocksmq.clients.msgstream import MsgStream
from rocksmq.clients.testing import Broker
from tests.clients.msgstream.worlds import LiteWorld, MemWorld, PulsarWorld, RmqWorld, World, plain_reader, writer
from tests.helpers.pulsar import Pulsar, PulsarLite


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


@pytest.fixture
def memory() -> MemWorld:
    """In memory."""
    return MemWorld()


@pytest.fixture
def lite(pulsar_lite: PulsarLite) -> LiteWorld:
    """On pulsar-lite."""
    return LiteWorld(pulsar_lite)


@pytest.fixture
def pulsar(real_pulsar: Pulsar) -> PulsarWorld:
    """On Pulsar."""
    return PulsarWorld(real_pulsar)


@pytest.fixture(params=["rmq", "memory", "lite", "pulsar"], ids=["rocksmq", "memory", "pulsar-lite", "pulsar"])
def world(request: pytest.FixtureRequest) -> World:
    """Each of the worlds."""
    found: World = request.getfixturevalue(request.param)
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
