"""What a real broker shows is what the catalogue names: nothing less, nothing else."""

from pathlib import Path
from urllib.request import urlopen

from prometheus_client.parser import text_string_to_metric_families as parse

from rocksmq.clients.testing import Broker
from rocksmq.metrics.catalogue import CATALOGUE, Metric
from tests.helpers.broker_with_mirror import BrokerWithMirror
from tests.helpers.etcd import Etcd
from tests.helpers.ledger import wait_until
from tests.helpers.stand_in_mirror import a_report

OF_THE_PROCESS = ("process_", "python_")


def shown(broker: Broker) -> dict[str, str]:
    """Name and kind of every metric of the broker's own."""
    with urlopen(f"{broker.http_url}/metrics") as answer:
        families = parse(answer.read().decode())
    found = {family.name + ("_total" if family.type == "counter" else ""): family.type for family in families}
    return {name: kind for name, kind in found.items() if not name.startswith(OF_THE_PROCESS)}


def named(metrics: tuple[Metric, ...]) -> dict[str, str]:
    return {metric.name: str(metric.kind) for metric in metrics}


def test_given_a_broker_over_etcd_with_a_mirror_when_asked_then_it_shows_the_whole_catalogue(tmp_path: Path) -> None:
    with (
        Etcd(tmp_path / "etcd") as etcd,
        BrokerWithMirror(tmp_path / "data", "--meta", etcd.url("catalogue")) as broker,
    ):
        broker.stand_in.tell([a_report("orders")])
        wait_until(lambda: "rocksmq_mirror_lag_messages" in shown(broker), "the mirror reports")
        assert shown(broker) == named(CATALOGUE)


def test_given_positions_of_its_own_and_no_mirror_when_asked_then_only_what_is_of_them_is_missing(tmp_path: Path) -> None:
    with Broker(tmp_path / "data", http="127.0.0.1:0") as broker:
        of_etcd = {"rocksmq_etcd_up", "rocksmq_etcd_requests_total", "rocksmq_etcd_request_duration_seconds"}
        of_mirror = {metric.name for metric in CATALOGUE if "mirror" in metric.labels}
        missing = named(CATALOGUE).keys() - shown(broker).keys()
        assert missing == of_etcd | of_mirror | {"rocksmq_positions_waiting"}
