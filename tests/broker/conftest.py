"""Fixtures for the broker's tests."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from rocksmq.broker.store import Store
from tests.helpers.etcd import Etcd

from .check_support import Healthy, made
from .disk_support import Disk
from .place_support import Place, embedded_place, etcd_place
from .support import World


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A store in an empty directory."""
    opened = Store(tmp_path / "db")
    yield opened
    opened.close()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Channels and groups over a store of their own."""
    made = World(tmp_path / "db")
    yield made
    made.close()


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    """Every store's disk, for the test to slow down or break."""
    return Disk(monkeypatch)


@pytest.fixture(scope="session")
def checked_original(tmp_path_factory: pytest.TempPathFactory) -> Healthy:
    """A healthy data directory."""
    return made(tmp_path_factory.mktemp("check") / "data")


@pytest.fixture
def healthy(checked_original: Healthy, tmp_path: Path) -> Healthy:
    """A copy to damage."""
    shutil.copytree(checked_original.path, tmp_path / "data")
    return checked_original._replace(path=tmp_path / "data")


@pytest.fixture(scope="module")
def etcd() -> Iterator[Etcd]:
    with Etcd() as process:
        yield process


@pytest.fixture(params=["embedded", "etcd"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Both stores of positions, one after the other."""
    if request.param == "embedded":
        return embedded_place(tmp_path / "data")
    return etcd_place(tmp_path / "data", request.getfixturevalue("etcd"))
