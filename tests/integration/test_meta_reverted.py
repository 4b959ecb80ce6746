"""A real etcd whose data directory is put back to an earlier state: what it had acknowledged since is not lost, nor doubled."""

import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rocksmq.clients import Client
from rocksmq.clients.testing import Broker
from tests.helpers.etcd import Etcd
from tests.helpers.ledger import wait_until

PREFIX = "reverted"
# The broker starts without etcd soon, asks again soon, and tells its clients soon.
IMPATIENT = {
    f"ROCKSMQ_LIMITS_META_{what}_SECONDS": seconds for what, seconds in (("START", "0.3"), ("CALL", "0.5"), ("WAIT", "0.1"))
}
GROUPS = [f"g{i}" for i in range(3)]
LOST = "has lost what it had acknowledged"


@pytest.fixture
def etcd(tmp_path: Path) -> Generator[Etcd]:
    with Etcd(tmp_path / "etcd") as process:
        yield process


def broker_of(tmp_path: Path, etcd: Etcd, *arguments: str) -> Broker:
    return Broker(tmp_path / "data", "--meta", etcd.url(PREFIX), *arguments, environment=IMPATIENT)


@contextmanager
def stopped(etcd: Etcd) -> Generator[None]:
    assert etcd.terminate() <= 0
    yield
    etcd.start()


def set_aside(etcd: Etcd) -> None:
    with stopped(etcd):
        shutil.copytree(etcd.directory / "data", etcd.directory / "earlier")


def put_back(etcd: Etcd) -> None:
    with stopped(etcd):
        shutil.rmtree(etcd.directory / "data")
        shutil.copytree(etcd.directory / "earlier", etcd.directory / "data")


def load(mq: Client) -> range:
    mq.create_channel("orders")
    for group in [*GROUPS, "destroyed"]:
        mq.create_consumer_group("orders", group)
    ids = mq.produce("orders", [b"a", b"b", b"c", b"d"])
    read(mq, b"a")
    return ids


def read(mq: Client, payload: bytes, *groups: str) -> None:
    for group in groups or GROUPS:
        assert mq.consume("orders", group, 1).payloads == [payload]


def change(mq: Client) -> None:
    """What is lost then."""
    read(mq, b"b")
    read(mq, b"c", GROUPS[0])
    mq.destroy_consumer_group("orders", "destroyed")
    mq.create_consumer_group("orders", "new")


def check_goes_on(mq: Client, etcd: Etcd, ids: range) -> None:
    """After `load` and `change`."""
    read(mq, b"c", *GROUPS[1:])
    read(mq, b"d")
    assert mq.consume("orders", "new").payloads == [b"a", b"b", b"c", b"d"]
    assert sorted(mq.list_consumer_groups("orders")) == [*GROUPS, "new"]
    for group in [*GROUPS, "new"]:
        assert etcd.get(f"{PREFIX}/{group}/orders/current_id") == str(ids[-1] + 1)
    wait_until(lambda: etcd.get(f"{PREFIX}/destroyed/orders/state") is None, "what is gone is gone there too")


def test_given_a_broker_that_runs_when_etcd_is_put_back_then_consuming_goes_on_and_etcd_is_told_all(
    tmp_path: Path, etcd: Etcd
) -> None:
    with broker_of(tmp_path, etcd) as broker, broker.client(timeout=20) as mq:
        ids = load(mq)
        set_aside(etcd)
        change(mq)
        put_back(etcd)
        wait_until(lambda: LOST in broker.log.read_text(), "it is noticed without any work")
        check_goes_on(mq, etcd, ids)
        assert broker.terminate() == 0


@pytest.mark.parametrize("is_killed", [False, True], ids=["stopped", "killed"])
def test_given_no_broker_when_etcd_is_put_back_then_the_next_one_goes_on_from_the_copy(
    tmp_path: Path, etcd: Etcd, is_killed: bool
) -> None:
    with broker_of(tmp_path, etcd) as broker:
        with broker.client(timeout=20) as mq:
            ids = load(mq)
            set_aside(etcd)
            change(mq)
        if is_killed:
            broker.kill()
        else:
            assert broker.terminate() == 0
        put_back(etcd)
        broker.start()
        with broker.client(timeout=20) as mq:
            check_goes_on(mq, etcd, ids)
        assert broker.log.read_text().count(LOST) == 1
        broker.kill()
        broker.start()
        assert broker.log.read_text().count(LOST) == 1, "it was told all"


def test_given_etcd_wiped_when_the_loss_is_accepted_then_all_positions_come_from_the_copy(tmp_path: Path, etcd: Etcd) -> None:
    with broker_of(tmp_path, etcd) as broker, broker.client(timeout=20) as mq:
        ids = load(mq)
        change(mq)
    with stopped(etcd):
        shutil.rmtree(etcd.directory / "data")
    with pytest.raises(RuntimeError, match="nothing stands there"), broker_of(tmp_path, etcd):
        pass
    with broker_of(tmp_path, etcd, "--accept-loss") as broker, broker.client(timeout=20) as mq:
        check_goes_on(mq, etcd, ids)
