"""The broker with its positions in a real etcd: what stands there, who may write there, and how it is reached."""

import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from rocksmq.clients import Client, GroupNotFound, MetaUnavailable
from rocksmq.clients.testing import Broker
from tests.helpers.certificates import Certificates
from tests.helpers.etcd import Etcd, free_port
from tests.helpers.etcd_cluster import EtcdCluster
from tests.helpers.etcd_proxy import EtcdProxy, Way
from tests.helpers.ledger import wait_until
from tests.helpers.model_systems import copy_as_killed

DATA_REFUSED, IN_USE = 3, 4
LEASE_SECONDS = 10
# The broker starts without etcd soon, asks the next endpoint soon, and tells its clients soon.
IMPATIENT = {
    f"ROCKSMQ_LIMITS_META_{what}_SECONDS": seconds for what, seconds in (("START", "0.3"), ("CALL", "0.5"), ("WAIT", "0.1"))
}
PASSWORD = "never-shown"

_prefixes = count()


@pytest.fixture(scope="module")
def etcd() -> Iterator[Etcd]:
    with Etcd() as process:
        yield process


@pytest.fixture
def prefix() -> str:
    return f"meta/{next(_prefixes)}"


def broker_at(directory: Path, url: str, *arguments: str) -> Broker:
    return Broker(directory / "data", "--meta", url, *arguments, environment=IMPATIENT)


def load(mq: Client) -> range:
    """One group in the midst of four messages."""
    mq.create_channel("orders")
    mq.create_consumer_group("orders", "billing")
    ids = mq.produce("orders", [b"a", b"b", b"c", b"d"])
    assert mq.consume("orders", "billing", 2).payloads == [b"a", b"b"]
    return ids


def goes_on(mq: Client) -> None:
    """After `load`."""
    assert mq.consume("orders", "billing").payloads == [b"c", b"d"]
    mq.produce("orders", [b"more"])
    assert mq.consume("orders", "billing").payloads == [b"more"]


def serves_without(broker: Broker, reason: str) -> None:
    """Messages are served, positions are not, and it is told why."""
    with broker.client() as mq:
        mq.create_channel("others")
        mq.produce("others", [b"x"])
        assert mq.fetch("others", "earliest").payloads == [b"x"]
    with broker.client(timeout=2) as mq, pytest.raises(MetaUnavailable, match=reason):  # after meta_wait_seconds, 0.5
        mq.create_consumer_group("others", "billing")
    text = broker.log.read_text()
    assert "starting without etcd prefix" in text
    assert re.search(reason, text), text
    assert PASSWORD not in text


# -- what stands there -------------------------------------------------------------------


def test_given_positions_when_listed_with_etcdctl_then_keys_and_values_are_exactly_as_documented(
    tmp_path: Path, etcd: Etcd, prefix: str
) -> None:
    with broker_at(tmp_path, etcd.url(prefix)) as broker, broker.client() as mq:
        ids = load(mq)
        mq.create_channel("empty")
        wait_until(lambda: etcd.get(f"{prefix}/empty/end_id") is not None, "ids are mirrored")
        wait_until(lambda: etcd.get(f"{prefix}/orders/end_id") == str(ids[-1]), "ids are mirrored")
        lines = etcd.ctl("get", "--prefix", f"{prefix}/").splitlines()
        found = {key.removeprefix(f"{prefix}/"): value for key, value in zip(lines[::2], lines[1::2], strict=True)}
        instance = json.loads((broker.directory / "format").read_text())["instance"]
        pid = broker.pid
    assert list(found) == [
        "billing/orders/current_id",
        "billing/orders/state",
        "commit",
        "data",
        "empty/begin_id",
        "empty/end_id",
        "orders/begin_id",
        "orders/end_id",
        "owner",
    ]
    assert found["billing/orders/current_id"] == str(ids[2])
    assert (found["orders/begin_id"], found["orders/end_id"]) == (str(ids[0]), str(ids[-1]))
    assert (found["empty/begin_id"], found["empty/end_id"]) == ("1", "0")
    assert re.fullmatch(r"1 \d+", found["commit"])
    assert json.loads(found["owner"]) == {"instance": instance, "epoch": 1, "host": os.uname().nodename, "pid": pid}
    data = json.loads(found["data"])
    assert data.keys() == {"instance", "commit_number"}
    assert data["instance"] == instance
    state = json.loads(found["billing/orders/state"])
    assert (state["version"], state["position"], state["offset"]) == (1, ids[2], 2)


def test_given_changes_when_a_second_has_passed_then_the_mirrored_ids_show_them(
    tmp_path: Path, etcd: Etcd, prefix: str
) -> None:
    with broker_at(tmp_path, etcd.url(prefix)) as broker, broker.client() as mq:
        mq.create_channel("orders")
        for _ in range(2):
            ids = mq.produce("orders", [b"x"] * 3)
            begin = time.monotonic()
            wait_until(lambda: etcd.get(f"{prefix}/orders/end_id") == str(ids[-1]), "the end is mirrored")  # noqa: B023
            assert time.monotonic() - begin < 2, "half a second, and what a busy machine needs"
        mq.destroy_channel("orders")
        wait_until(lambda: etcd.ctl("get", "--prefix", f"{prefix}/orders/") == "", "it is gone")


def test_given_a_position_edited_while_the_broker_runs_then_the_next_consume_overwrites_it(
    tmp_path: Path, etcd: Etcd, prefix: str
) -> None:
    with broker_at(tmp_path, etcd.url(prefix)) as broker, broker.client() as mq:
        ids = load(mq)
        etcd.ctl("put", f"{prefix}/billing/orders/current_id", str(ids[0]))
        assert mq.consume("orders", "billing").payloads == [b"c", b"d"]
        assert etcd.get(f"{prefix}/billing/orders/current_id") == str(ids[-1] + 1)


@pytest.mark.parametrize("edit", [("del", "commit"), ("put", "commit", "nonsense"), ("del", "--prefix", "")])
def test_given_a_prefix_deleted_or_edited_while_the_broker_runs_then_it_ends_with_exit_3_and_says_so(
    tmp_path: Path, etcd: Etcd, prefix: str, edit: tuple[str, ...]
) -> None:
    with broker_at(tmp_path, etcd.url(prefix)) as broker:
        with broker.client() as mq:
            load(mq)
            etcd.ctl(*(f"{prefix}/{word}" if word in ("commit", "") else word for word in edit))
            mq.produce("orders", [b"e"])  # whose ids are mirrored
            assert broker.wait() == DATA_REFUSED
        text = broker.log.read_text()
        assert f"rocksmqd: etcd prefix {prefix} was deleted, edited or restored" in text
        assert "Traceback" not in text


# -- who may write there -----------------------------------------------------------------


def test_given_a_broker_killed_when_started_again_then_it_takes_over_at_once(tmp_path: Path, etcd: Etcd, prefix: str) -> None:
    with broker_at(tmp_path, etcd.url(prefix)) as broker, broker.client() as mq:
        load(mq)
        broker.kill()
        assert etcd.get(f"{prefix}/owner") is not None, "its lease has not ended"
        begin = time.monotonic()
        broker.start()
        goes_on(mq)
        assert time.monotonic() - begin < LEASE_SECONDS / 2
        owner = json.loads(etcd.get(f"{prefix}/owner") or "")
        assert (owner["epoch"], owner["pid"]) == (2, broker.pid)


def test_given_a_start_killed_at_any_moment_of_its_takeover_then_the_next_one_takes_over(
    tmp_path: Path, etcd: Etcd, prefix: str
) -> None:
    with EtcdProxy(etcd.endpoint) as proxy, broker_at(tmp_path, proxy.url(prefix)) as broker:
        with broker.client() as mq:
            load(mq)
        begin = proxy.forwarded[Way.UP]
        broker.restart()
        whole = proxy.forwarded[Way.UP] - begin
        broker.kill()
        for share in range(10):
            begin = proxy.forwarded[Way.UP]
            process = subprocess.Popen(broker.command(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            try:
                wait_until(lambda: proxy.forwarded[Way.UP] - begin > whole * share / 10, "it has come so far")  # noqa: B023
            finally:
                process.kill()
                process.wait()
        broker.start()
        with broker.client() as mq:
            goes_on(mq)


def test_given_a_clean_stop_then_the_owner_is_gone_at_once_and_the_rest_stays(tmp_path: Path, etcd: Etcd, prefix: str) -> None:
    with broker_at(tmp_path, etcd.url(prefix)) as broker:
        with broker.client() as mq:
            load(mq)
        assert broker.terminate() == 0
        assert etcd.get(f"{prefix}/owner") is None
        assert etcd.get(f"{prefix}/commit") is not None
        broker.start()
        with broker.client() as mq:
            goes_on(mq)


def test_given_a_lease_revoked_when_it_is_noticed_then_the_same_epoch_has_a_new_one(
    tmp_path: Path, etcd: Etcd, prefix: str
) -> None:
    with broker_at(tmp_path, etcd.url(prefix)) as broker, broker.client() as mq:
        load(mq)
        before = etcd.get(f"{prefix}/owner")
        (found,) = json.loads(etcd.ctl("get", f"{prefix}/owner", "--write-out", "json"))["kvs"]
        etcd.ctl("lease", "revoke", f"{found['lease']:x}")
        assert etcd.get(f"{prefix}/owner") is None
        goes_on(mq)
        wait_until(lambda: etcd.get(f"{prefix}/owner") == before, "it is owned again")


@pytest.mark.parametrize("is_idle", [False, True], ids=["busy", "idle"])
def test_given_a_copy_started_elsewhere_then_the_first_is_fenced_and_ends_with_exit_4(
    tmp_path: Path, etcd: Etcd, prefix: str, is_idle: bool
) -> None:
    with broker_at(tmp_path, etcd.url(prefix)) as first, first.client() as mq:
        load(mq)
        copy_as_killed(first.directory, tmp_path / "copy" / "data")
        with broker_at(tmp_path / "copy", etcd.url(prefix)) as second, second.client() as other:
            if not is_idle:
                mq.produce("orders", [b"e"])  # whose ids are mirrored
            assert first.wait() == IN_USE
            text = first.log.read_text()
            assert f"rocksmqd: another broker has taken over etcd prefix {prefix}" in text
            assert "Traceback" not in text
            goes_on(other)
            with pytest.raises(RuntimeError, match=f"(?s)exit code {DATA_REFUSED}.*epoch 2, and here 1.*a copy"):
                first.start()
            other.ping()


# -- etcd away ---------------------------------------------------------------------------


def test_given_no_etcd_when_started_then_messages_are_served_and_positions_once_it_is_back(tmp_path: Path, prefix: str) -> None:
    with Etcd(tmp_path / "etcd") as etcd, broker_at(tmp_path, etcd.url(prefix)) as broker:
        with broker.client() as mq:
            load(mq)
        broker.kill()
        etcd.kill()
        broker.start()
        serves_without(broker, "cannot be reached")
        with broker.client(timeout=0.5) as mq:
            for ask in (
                lambda: mq.consume("orders", "billing"),
                lambda: mq.list_consumer_groups("orders"),
            ):
                with pytest.raises(MetaUnavailable, match=prefix):
                    ask()
        etcd.start()
        with broker.client() as mq:
            goes_on(mq)
        assert broker.terminate() == 0


def test_given_no_etcd_when_a_channel_is_destroyed_and_made_anew_then_its_groups_are_gone_once_it_is_back(
    tmp_path: Path, prefix: str
) -> None:
    with Etcd(tmp_path / "etcd") as etcd, broker_at(tmp_path, etcd.url(prefix)) as broker:
        with broker.client() as mq:
            load(mq)
            mq.create_consumer_group("orders", "audit")
            etcd.kill()
            mq.destroy_channel("orders")
            mq.create_channel("orders")
        broker.kill()
        broker.start()
        with broker.client() as mq:
            ids = mq.produce("orders", [b"new"])
            etcd.start()
            with pytest.raises(GroupNotFound):
                mq.consume("orders", "billing")
            assert mq.create_consumer_group("orders", "billing")
            assert mq.consume("orders", "billing").ids == ids
            assert etcd.get(f"{prefix}/billing/orders/current_id") == str(ids[-1] + 1)
            assert mq.list_consumer_groups("orders") == ["billing"]


# -- several endpoints -------------------------------------------------------------------


def test_given_a_dead_endpoint_first_when_started_then_the_next_serves(tmp_path: Path, etcd: Etcd, prefix: str) -> None:
    url = f"etcd://127.0.0.1:{free_port()},{etcd.endpoint}/{prefix}"
    with broker_at(tmp_path, url) as broker, broker.client() as mq:
        load(mq)
        assert "starting without" not in broker.log.read_text()


def test_given_endpoints_that_freeze_in_turn_then_the_other_serves(tmp_path: Path, etcd: Etcd, prefix: str) -> None:
    with (
        EtcdProxy(etcd.endpoint) as one,
        EtcdProxy(etcd.endpoint) as two,
        broker_at(tmp_path, f"etcd://{one.endpoint},{two.endpoint}/{prefix}") as broker,
        broker.client() as mq,
    ):
        load(mq)
        for frozen in (one, two):
            frozen.black_hole()
            ids = mq.produce("orders", [b"e"])
            assert mq.consume("orders", "billing").ids[-1] == ids[-1]
            frozen.mend()


def test_given_a_cluster_when_its_leader_is_killed_then_consuming_goes_on(tmp_path: Path, prefix: str) -> None:
    with (
        EtcdCluster(tmp_path / "etcd") as cluster,
        broker_at(tmp_path, cluster.url(prefix)) as broker,
        broker.client(timeout=30) as mq,
    ):
        load(mq)
        cluster.leader().kill()
        goes_on(mq)


# -- TLS, users --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates.make(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def tls(certificates: Certificates) -> Iterator[Etcd]:
    """Serves clients of its authority only."""
    with Etcd(certificates=certificates) as process:
        yield process


class ServerOnly(Certificates):
    """With which etcd asks clients for no certificate."""

    def server_flags(self) -> list[str]:
        return ["--cert-file", str(self.server_certificate), "--key-file", str(self.server_key)]


def tls_url(etcd: Etcd, prefix: str) -> str:
    return etcd.url(prefix).replace("etcd://", "etcds://")


def own(certificates: Certificates) -> list[str]:
    return ["--meta-cert", str(certificates.client_certificate), "--meta-key", str(certificates.client_key)]


def test_given_mutual_tls_when_the_broker_has_a_certificate_then_it_serves(
    tmp_path: Path, tls: Etcd, certificates: Certificates, prefix: str
) -> None:
    ca = ["--meta-ca", str(certificates.authority)]
    with broker_at(tmp_path, tls_url(tls, prefix), *ca, *own(certificates)) as broker, broker.client() as mq:
        load(mq)
        broker.kill()
        broker.start()
        goes_on(mq)


def test_given_tls_of_the_server_only_when_the_broker_knows_its_authority_then_it_serves(
    tmp_path: Path, certificates: Certificates, prefix: str
) -> None:
    with Etcd(tmp_path / "etcd", certificates=ServerOnly(*certificates)) as etcd:
        ca = ["--meta-ca", str(certificates.authority)]
        with broker_at(tmp_path, tls_url(etcd, prefix), *ca) as broker, broker.client() as mq:
            load(mq)
            goes_on(mq)


@pytest.mark.parametrize("case", ["no certificate", "another authority", "no authority", "no TLS"])
def test_given_mutual_tls_when_the_broker_does_not_fit_then_it_serves_without_and_says_so(
    tmp_path: Path, tls: Etcd, certificates: Certificates, prefix: str, case: str
) -> None:
    other = Certificates.make(tmp_path / "other")
    ca = ["--meta-ca", str(certificates.authority)]
    url = tls.url(prefix) if case == "no TLS" else tls_url(tls, prefix)
    arguments = {
        "no certificate": ca,
        "another authority": ["--meta-ca", str(other.authority), *own(certificates)],
        "no authority": own(certificates),
        "no TLS": [],
    }[case]
    with broker_at(tmp_path, url, *arguments) as broker:
        serves_without(broker, "cannot be reached|no answer within|refuses")


def test_given_a_certificate_for_another_name_when_the_broker_connects_then_it_serves_without_and_says_so(
    tmp_path: Path, tls: Etcd, certificates: Certificates, prefix: str
) -> None:
    url = tls_url(tls, prefix).replace("127.0.0.1", "[::ffff:127.0.0.1]")  # the same address, and no name of the certificate
    ca = ["--meta-ca", str(certificates.authority)]
    with broker_at(tmp_path, url, *ca, *own(certificates)) as broker:
        serves_without(broker, "cannot be reached")
        assert re.search(r"::ffff:127.0.0.1\]:\d+: .*(verification|verify|Hostname|Peer name)", broker.log.read_text())


def test_given_another_spelling_of_the_address_when_there_is_no_tls_then_it_is_reached(
    tmp_path: Path, etcd: Etcd, prefix: str
) -> None:
    with broker_at(tmp_path, etcd.url(prefix).replace("127.0.0.1", "[::ffff:127.0.0.1]")) as broker, broker.client() as mq:
        load(mq)


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Etcd]:
    """Lets in who knows PASSWORD."""
    with Etcd(tmp_path / "etcd", password=PASSWORD) as process:
        yield process


def login(tmp_path: Path, password: str = PASSWORD, user: str = "root") -> list[str]:
    file = tmp_path / "password"
    file.write_text(password + "\n")
    return ["--meta-user", user, "--meta-password-file", str(file)]


def test_given_a_user_when_etcd_forgets_its_tokens_then_the_broker_logs_in_again(
    tmp_path: Path, guarded: Etcd, prefix: str
) -> None:
    with broker_at(tmp_path, guarded.url(prefix), *login(tmp_path)) as broker, broker.client() as mq:
        load(mq)
        guarded.kill()
        guarded.start()
        goes_on(mq)
        assert PASSWORD not in broker.log.read_text()


def test_given_a_password_changed_when_the_old_one_is_refused_then_it_is_told_and_heals_with_it(
    tmp_path: Path, guarded: Etcd, prefix: str
) -> None:
    def let_in_with(password: str) -> None:
        guarded.ctl("user", "add", f"rocksmq:{password}")
        guarded.ctl("user", "grant-role", "rocksmq", "root")

    let_in_with(PASSWORD)
    with broker_at(tmp_path, guarded.url(prefix), *login(tmp_path, user="rocksmq")) as broker:
        with broker.client() as mq:
            load(mq)
        guarded.ctl("user", "delete", "rocksmq")
        let_in_with("another")
        refused = "refuses: etcdserver: (authentication failed|invalid auth token)"
        with broker.client(timeout=0.5) as mq, pytest.raises(MetaUnavailable, match=refused):
            mq.consume("orders", "billing")
        guarded.ctl("user", "delete", "rocksmq")
        let_in_with(PASSWORD)
        with broker.client() as mq:
            goes_on(mq)
        assert PASSWORD not in broker.log.read_text()


@pytest.mark.parametrize("case", ["a wrong password", "no user"])
def test_given_a_login_that_is_refused_when_started_then_it_serves_without_and_says_so(
    tmp_path: Path, guarded: Etcd, prefix: str, case: str
) -> None:
    arguments = login(tmp_path, "wrong") if case == "a wrong password" else []
    with broker_at(tmp_path, guarded.url(prefix), *arguments) as broker:
        serves_without(broker, "refuses: etcdserver: ")
