"""Fixtures: one Pulsar of each kind for all tests of a process, which use topics of their own."""

from collections.abc import Iterator

import pytest

from .pulsar import Pulsar, PulsarLite, require_pulsar, require_pulsar_lite


@pytest.fixture(scope="session")
def pulsar_lite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PulsarLite]:
    """PyPI's."""
    require_pulsar_lite()
    with PulsarLite(tmp_path_factory.mktemp("pulsar-lite")) as server:
        yield server


@pytest.fixture(scope="session")
def real_pulsar(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pulsar]:
    """A real one, with deduplication. Not to be killed."""
    require_pulsar()
    with Pulsar(tmp_path_factory.mktemp("pulsar")) as server:
        server.start()
        yield server
