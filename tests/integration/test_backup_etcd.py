"""Backups of a broker whose positions are in etcd: they are in the copy, and the restored broker has them in its directory."""

import json
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from rocksmq.clients.cli import main
from rocksmq.clients.testing import Broker
from tests.helpers.etcd import Etcd

_prefixes = count()


@pytest.fixture(scope="module")
def etcd() -> Iterator[Etcd]:
    with Etcd() as process:
        yield process


@pytest.fixture
def url(etcd: Etcd) -> str:
    return etcd.url(f"backup/{next(_prefixes)}")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], prog_name="rocksmq")


def succeeded(*arguments: object) -> Result:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result


def loaded(broker: Broker) -> None:
    with broker.client() as mq:
        mq.create_channel("orders")
        mq.create_consumer_group("orders", "billing")
        mq.produce("orders", [b"%d" % number for number in range(10)])
        assert mq.consume("orders", "billing", 4).payloads == [b"0", b"1", b"2", b"3"]


def created(broker: Broker, target: Path) -> tuple[dict[str, Any], str]:
    result = succeeded("--url", broker.url, "--json", "backup", "create", target)
    return json.loads(result.stdout), result.stderr


def test_given_positions_in_etcd_when_restored_then_they_are_in_the_directory_and_that_is_told(
    tmp_path: Path, url: str, etcd: Etcd
) -> None:
    with Broker(tmp_path / "data", "--meta", url) as broker:
        loaded(broker)
        made, said = created(broker, tmp_path / "copy")
        assert made["positions"].startswith("etcd")
        assert (made["has_positions"], said) == (True, "")
        key = f"{url.split('/', 3)[3]}/billing/orders/state"
        before = etcd.get(key)
        result = succeeded("backup", "restore", tmp_path / "copy", tmp_path / "restored")
        assert f"the positions were kept in {made['positions']}, and are in the directory now" in result.stderr
        assert "1 group\n" in result.stdout
        with Broker(tmp_path / "restored") as other, other.client() as mq:
            assert mq.consume("orders", "billing", 1).payloads == [b"4"]
        assert etcd.get(key) == before != ""
        with broker.client() as mq:
            assert mq.consume("orders", "billing", 1).payloads == [b"4"]


def test_given_a_restored_directory_when_its_positions_are_moved_then_a_fresh_prefix_takes_them_and_the_old_one_does_not(
    tmp_path: Path, url: str, etcd: Etcd
) -> None:
    with Broker(tmp_path / "data", "--meta", url) as broker:
        loaded(broker)
        created(broker, tmp_path / "copy")
        assert broker.terminate() == 0
    succeeded("backup", "restore", tmp_path / "copy", tmp_path / "restored")
    exported = succeeded("meta", "export", "--data-dir", tmp_path / "restored").stdout
    (tmp_path / "positions").write_text(exported)
    fresh = etcd.url(f"backup/{next(_prefixes)}")
    moving = ("meta", "import", "--data-dir", tmp_path / "restored", tmp_path / "positions", "--meta")
    assert run(*moving, url).exit_code == 1
    succeeded(*moving, fresh)
    with Broker(tmp_path / "restored", "--meta", fresh) as other, other.client() as mq:
        assert mq.consume("orders", "billing", 1).payloads == [b"4"]


def test_given_etcd_away_when_backed_up_then_the_positions_are_there_as_they_were_acknowledged(
    tmp_path: Path, url: str, etcd: Etcd
) -> None:
    with Broker(tmp_path / "data", "--meta", url) as broker:
        loaded(broker)
        etcd.stop()
        try:
            assert created(broker, tmp_path / "copy")[0]["has_positions"]
        finally:
            etcd.cont()
    succeeded("backup", "restore", tmp_path / "copy", tmp_path / "restored")
    with Broker(tmp_path / "restored") as other, other.client() as mq:
        assert mq.consume("orders", "billing", 1).payloads == [b"4"]


def test_given_a_broker_that_never_reached_its_etcd_when_backed_up_then_it_says_that_positions_are_missing(
    tmp_path: Path, url: str, etcd: Etcd
) -> None:
    with Broker(tmp_path / "data") as broker:
        loaded(broker)
        assert broker.terminate() == 0
    exported = succeeded("meta", "export", "--data-dir", tmp_path / "data").stdout
    (tmp_path / "positions").write_text(exported)
    succeeded("meta", "import", "--data-dir", tmp_path / "data", tmp_path / "positions", "--meta", url)
    etcd.stop()
    try:
        with Broker(tmp_path / "data", "--meta", url) as broker:
            made, said = created(broker, tmp_path / "copy")
    finally:
        etcd.cont()
    assert not made["has_positions"]
    assert "they are not in it" in said
    result = succeeded("backup", "restore", tmp_path / "copy", tmp_path / "restored")
    assert "its groups are missing" in result.stderr
    with Broker(tmp_path / "restored") as other, other.client() as mq:
        assert mq.describe_channel("orders").message_count == 10
        assert mq.list_consumer_groups("orders") == []
