"""The failing network between a client and etcd, with the real etcd behind it."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyetcd import etcdrpc
from pyetcd.exceptions import ConnectionFailedError, ConnectionTimeoutError

from tests.helpers.etcd import Etcd
from tests.helpers.etcd_client import etcd_client
from tests.helpers.etcd_proxy import EtcdProxy, Way


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Etcd]:
    with Etcd(tmp_path_factory.mktemp("etcd")) as process:
        yield process


@pytest.fixture
def proxy(etcd: Etcd) -> Iterator[EtcdProxy]:
    with EtcdProxy(etcd.endpoint) as network:
        yield network


def test_given_a_good_network_when_a_client_puts_then_it_is_there(etcd: Etcd, proxy: EtcdProxy) -> None:
    with etcd_client(proxy.endpoint) as client:
        client.put("good", "value")
    assert etcd.get("good") == "value"
    assert proxy.connections == 1
    assert min(proxy.forwarded[way] for way in Way) > 0


def test_given_lost_replies_when_a_client_puts_then_it_is_there_though_it_never_heard(etcd: Etcd, proxy: EtcdProxy) -> None:
    with etcd_client(proxy.endpoint) as client:
        client.put("lost", "before")
        proxy.lose_replies()
        call = client.kvstub.Put.future(etcdrpc.PutRequest(key=b"lost", value=b"after"), 10)
        while etcd.get("lost") != "after":
            assert not call.done()
        assert not call.done()
        call.cancel()
        proxy.mend()
        assert client.get("lost")[0] == b"after"


def test_given_a_black_hole_when_a_client_puts_then_nothing_reaches_etcd(etcd: Etcd, proxy: EtcdProxy) -> None:
    with etcd_client(proxy.endpoint) as client, etcd_client(proxy.endpoint) as late:
        client.put("hole", "before")
        client.timeout = late.timeout = 0.3
        proxy.black_hole()
        forwarded = proxy.forwarded[Way.UP]
        for caller in (client, late):
            with pytest.raises(ConnectionTimeoutError):
                caller.put("hole", "after")
        assert proxy.forwarded[Way.UP] == forwarded
        assert etcd.get("hole") == "before"


def test_given_a_call_in_a_black_hole_when_it_is_mended_then_the_call_is_answered(etcd: Etcd, proxy: EtcdProxy) -> None:
    with etcd_client(proxy.endpoint) as client:
        client.put("mend", "before")
        proxy.black_hole()
        call = threading.Thread(target=client.put, args=("mend", "after"))
        call.start()
        proxy.mend()
        call.join()
    assert etcd.get("mend") == "after"


def test_given_connections_when_they_are_cut_then_calls_fail_at_once_and_new_ones_are_served(
    etcd: Etcd, proxy: EtcdProxy
) -> None:
    with etcd_client(proxy.endpoint) as client:
        client.put("cut", "before")
        proxy.lose_replies()
        call = client.kvstub.Range.future(etcdrpc.RangeRequest(key=b"cut"), 10)
        proxy.cut()
        assert call.exception(10) is not None
        proxy.mend()
        client.put("cut", "after")
    assert etcd.get("cut") == "after"


def test_given_a_delay_when_a_client_calls_then_both_ways_wait(proxy: EtcdProxy) -> None:
    with etcd_client(proxy.endpoint) as client:
        client.put("delay", "value")
        proxy.delay_s = 0.05
        begin = time.monotonic()
        client.put("delay", "value")
        assert time.monotonic() - begin >= 2 * proxy.delay_s


def test_given_no_etcd_behind_it_when_a_client_calls_then_it_is_refused(tmp_path: Path) -> None:
    with Etcd(tmp_path) as etcd, EtcdProxy(etcd.endpoint) as proxy, etcd_client(proxy.endpoint) as client:
        etcd.kill()
        with pytest.raises(ConnectionFailedError):
            client.put("key", "value")


def test_given_connections_in_a_black_hole_when_the_proxy_ends_then_it_ends_at_once(etcd: Etcd) -> None:
    with EtcdProxy(etcd.endpoint) as proxy, etcd_client(proxy.endpoint) as client:
        client.put("end", "value")
        proxy.black_hole()
        call = client.kvstub.Range.future(etcdrpc.RangeRequest(key=b"end"), 10)
    assert call.done()
