"""`Client.status`: over a real broker, and over servers that answer what no broker should."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from rocksmq.clients import ChannelNotFound, Client, InvalidRequest, ProtocolError
from rocksmq.clients.testing import Broker
from rocksmq.metrics.catalogue import CATALOGUE
from rocksmq.protocol.administration import Status, StatusReported
from rocksmq.protocol.errors import Overloaded
from tests.clients.support import answering
from tests.helpers.fake_server import FakeServer, Peer


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A broker that this module shares."""
    with Broker(tmp_path_factory.mktemp("status") / "data") as process:
        yield process


@pytest.fixture
def client(broker: Broker) -> Iterator[Client]:
    """A client of it, on channels that are new to each test."""
    with broker.client() as mq:
        yield mq
        mq.destroy_channels(mq.list_channels())


def told(reply: Callable[[Any], StatusReported]) -> FakeServer:
    """Answers every request for the status with what ``reply`` makes of it."""

    def handle(peer: Peer, correlation: int, request: Any) -> None:
        assert isinstance(request, Status)
        peer.reply(correlation, reply(request))

    return FakeServer(answering(handle))


def test_given_a_broker_when_its_status_is_asked_for_then_it_is_ready_and_its_metrics_are_typed(client: Client) -> None:
    client.create_channel("orders")
    client.create_consumer_group("orders", "billing")
    client.produce("orders", [b"one", b"two", b"three"])
    client.consume("orders", "billing", 1)
    found = client.status()
    assert (found.is_ready, found.problems) == (True, [])
    assert found.metrics["rocksmq_group_lag_messages"].values["orders", "billing"] == 2
    assert found.metrics["rocksmq_produced_messages_total"].values["orders",] == 3
    assert found.metrics["rocksmq_channel_bytes"].values["orders",] == 11
    assert found.metrics["rocksmq_requests_total"].values["PRODUCE", "OK"] >= 1
    assert found.metrics["rocksmq_wal_sync_duration_seconds"].histograms[()].count > 0


def test_given_a_broker_when_its_status_is_asked_for_then_each_metric_is_as_the_catalogue_has_it(client: Client) -> None:
    client.create_channel("orders")
    client.create_consumer_group("orders", "billing")
    found = client.status().metrics
    for metric in CATALOGUE:
        if metric.name in found and (told := found[metric.name]) and (told.values or told.histograms):
            assert (told.kind, told.help, told.labels) == (metric.kind, metric.help, metric.labels)


def test_given_ids_beyond_what_a_float_holds_when_told_then_they_are_exact(client: Client) -> None:
    client.create_channel("orders")
    ids = client.produce("orders", [b"one", b"two"])
    metrics = client.status("orders").metrics
    assert metrics["rocksmq_channel_first_id"].values["orders",] == ids[0]
    assert metrics["rocksmq_channel_last_id"].values["orders",] == ids[1]


def test_given_a_channel_when_named_then_only_its_series_are_told(client: Client) -> None:
    client.create_channel("orders")
    client.create_channel("invoices")
    assert client.status("orders").metrics["rocksmq_channel_messages"].values == {("orders",): 0}
    assert len(client.status().metrics["rocksmq_channel_messages"].values) == 2


def test_given_a_channel_that_is_not_there_when_named_then_the_error_says_so(client: Client) -> None:
    with pytest.raises(ChannelNotFound, match="nobody"):
        client.status("nobody")
    with pytest.raises(InvalidRequest, match="no name"):
        client.status("no name")


def test_given_many_who_ask_at_once_when_answered_then_all_get_it(broker: Broker, client: Client) -> None:
    client.create_channel("orders")
    found: list[bool] = []
    threads = [threading.Thread(target=lambda: found.append(client.status().is_ready)) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 20


def test_given_a_broker_that_is_not_ready_when_asked_then_its_problems_are_told() -> None:
    with told(lambda request: StatusReported(False, ["disk: full"], b"")) as server, Client(server.url) as mq:
        found = mq.status()
    assert (found.is_ready, found.problems, found.metrics) == (False, ["disk: full"], {})


def test_given_metrics_that_are_none_when_asked_then_it_is_a_protocol_error_and_the_client_goes_on() -> None:
    metrics = iter([b"nonsense", b""])
    with told(lambda request: StatusReported(True, [], next(metrics))) as server, Client(server.url) as mq:
        with pytest.raises(ProtocolError, match="line 1 of the metrics"):
            mq.status()
        assert mq.status().is_ready
    assert server.connection_count == 1


def test_given_a_broker_that_is_asked_too_much_when_asked_then_the_client_comes_again() -> None:
    refusals = iter([True, False])

    def handle(peer: Peer, correlation: int, request: Any) -> None:
        if next(refusals):
            peer.refuse(correlation, Overloaded("too many", retry_after=0.01))
        else:
            peer.reply(correlation, StatusReported(True, [], b""))

    with FakeServer(answering(handle)) as server, Client(server.url) as mq:
        assert mq.status().is_ready
