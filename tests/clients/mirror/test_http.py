"""A mirror's metrics over HTTP from its own process."""

import socket
import sys
import threading
from http.client import HTTPConnection
from urllib.request import Request, urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families as parse

from rocksmq.clients.mirror.http import serve_metrics
from rocksmq.clients.mirror.report import Report
from rocksmq.metrics.catalogue import CATALOGUE
from rocksmq.protocol.errors import InvalidRequest
from tests.helpers.stand_in_mirror import a_report

ANY = "127.0.0.1:0"


def report() -> Report:
    return Report("north", [a_report("orders")])


def test_given_a_mirror_when_scraped_then_it_shows_the_families_that_a_broker_shows_of_its_own() -> None:
    messages = 5

    def present() -> Report:
        return Report("north", [a_report("orders", messages=messages)])

    with serve_metrics(ANY, present) as address:
        for messages in (7, 9):
            with urlopen(f"http://{address}/metrics") as answer:
                families = {family.name: family for family in parse(answer.read().decode())}
            (sample,) = families["rocksmq_mirror_messages"].samples
            assert (sample.labels, sample.value) == ({"mirror": "north", "channel": "orders"}, messages)
    of_mirrors = {metric.name.removesuffix("_total") for metric in CATALOGUE if "mirror" in metric.labels}
    assert families.keys() & of_mirrors == of_mirrors - {"rocksmq_mirror_restarts"}
    assert "process_resident_memory_bytes" in families


def test_given_openmetrics_is_asked_for_when_scraped_then_it_comes_as_that() -> None:
    with serve_metrics(ANY, report) as address:
        wanted = Request(f"http://{address}/metrics", headers={"Accept": "application/openmetrics-text;version=1.0.0"})
        with urlopen(wanted) as answer:
            assert answer.headers["Content-Type"].startswith("application/openmetrics-text")
            assert answer.read().endswith(b"# EOF\n")


@pytest.mark.parametrize(("path", "status"), [("/", 200), ("/livez", 200), ("/readyz", 404)])
def test_given_a_path_when_asked_then_there_are_few(path: str, status: int) -> None:
    with serve_metrics(ANY, report) as address:
        connection = HTTPConnection(address, timeout=10)
        connection.request("GET", path)
        assert connection.getresponse().status == status
        connection.close()


def test_given_the_block_has_ended_when_asked_then_nobody_listens_and_no_thread_is_left() -> None:
    before = threading.active_count()
    with serve_metrics(ANY, report) as address:
        assert threading.active_count() == before + 1
    host, port = address.split(":")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)))
    assert threading.active_count() == before


@pytest.mark.parametrize("address", ["", "127.0.0.1", ":1", "127.0.0.1:x", "127.0.0.1:65536"])
def test_given_no_address_when_served_then_that_is_told(address: str) -> None:
    with pytest.raises(InvalidRequest, match="HOST:PORT"), serve_metrics(address, report):
        pass


def test_given_an_address_that_others_reach_when_served_then_it_takes_insecure() -> None:
    with pytest.raises(InvalidRequest, match="other machines reach it"), serve_metrics("0.0.0.0:0", report):
        pass
    with serve_metrics("localhost:0", report, insecure=True) as address:
        assert address.startswith("127.0.0.1:")


def test_given_a_port_that_is_taken_when_served_then_that_is_told() -> None:
    with (
        serve_metrics(ANY, report) as address,
        pytest.raises(InvalidRequest, match="Address already in use"),
        serve_metrics(address, report),
    ):
        pass


def test_given_no_trio_when_served_then_it_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trio", None)
    with pytest.raises(InvalidRequest, match=r"pip install 'rocksmq\[broker\]'"), serve_metrics(ANY, report):
        pass
