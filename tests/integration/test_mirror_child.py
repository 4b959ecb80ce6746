"""A real broker whose `[mirror]` runs the real mirror, to pulsar-lite."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest

from rocksmq.broker.auth import ALL, Token, digest_of, new_secret
from rocksmq.broker.auth_file import rendered
from rocksmq.clients import Client
from rocksmq.clients.pulsar.client import connect, pulsar
from rocksmq.clients.testing import Broker
from tests.helpers.certificates import Certificates
from tests.helpers.ledger import wait_until
from tests.helpers.pulsar import PulsarLite
from tests.helpers.stand_in_mirror import is_alive

COUNT = 1_000
PATIENCE_MILLIS = 20_000
MESSAGES = 'rocksmq_mirror_messages_total{mirror="pulsar",channel="orders.one"}'
RESTARTS = 'rocksmq_mirror_restarts_total{mirror="pulsar"}'


def shown(broker: Broker) -> dict[str, float]:
    """What the broker says of the mirror."""
    with urlopen(f"{broker.http_url}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return {name: float(value) for name, _, value in (x.rpartition(" ") for x in lines if x.startswith("rocksmq_mirror"))}


def children(pid: int) -> list[int]:
    """The processes that one has started, by its threads."""
    return [int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()]


class Guarded(Broker):
    """It wants TLS, certificates and tokens of its clients."""

    def __init__(self, directory: Path, *arguments: str) -> None:
        self.secret = new_secret()
        self.certificates = Certificates.make(directory)
        ops = Token("ops", digest_of(self.secret), 0, None, ALL, ALL, ALL)
        (directory / "tokens.json").write_text(rendered([ops]))
        tls = ["--tls-cert", self.certificates.server_certificate, "--tls-key", self.certificates.server_key]
        needed = [*tls, "--tls-client-ca", self.certificates.authority, "--auth-file", directory / "tokens.json"]
        super().__init__(directory / "data", *map(str, needed), *arguments, http="127.0.0.1:0")

    def client(self, timeout: float = 10.0) -> Client:
        context = self.certificates.context()
        return Client(f"rocksmqs://{self.address}", token=self.secret, ssl_context=context, timeout=timeout)


@pytest.fixture(params=[False, True], ids=["open", "guarded"])
def broker(request: pytest.FixtureRequest, tmp_path: Path, pulsar_lite: PulsarLite) -> Iterator[Broker]:
    file = tmp_path / "rocksmqd.toml"
    template = f"persistent://public/default/{tmp_path.name}-{{channel}}"
    file.write_text(f'[mirror]\nto = "{pulsar_lite.url}"\nchannels = "orders.*"\ntopic_template = "{template}"\n')
    options = "--config", str(file)
    with Guarded(tmp_path, *options) if request.param else Broker(tmp_path / "data", *options, http="127.0.0.1:0") as found:
        yield found


def test_given_the_table_mirror_when_messages_come_then_they_are_in_pulsar_and_counted_and_the_child_ends_with_the_broker(
    broker: Broker, tmp_path: Path, pulsar_lite: PulsarLite
) -> None:
    payloads = [b"%d" % number for number in range(COUNT)]
    with broker.client() as mq:
        mq.create_channel("orders.one")
        mq.create_channel("bills")
        mq.produce("orders.one", payloads)
        wait_until(lambda: shown(broker).get(MESSAGES) == COUNT, "all are mirrored")
        assert "bills" not in str(shown(broker))
        (child,) = children(broker.pid)
        os.kill(child, signal.SIGKILL)
        wait_until(lambda: shown(broker)[RESTARTS] == 1, "it was started again")
        mq.produce("orders.one", [b"last"])
        wait_until(lambda: shown(broker)[MESSAGES] == COUNT + 1, "it goes on")
    found: list[bytes] = []
    client = connect(pulsar_lite.url)
    try:
        topic = f"persistent://public/default/{tmp_path.name}-orders.one"
        reader = client.create_reader(topic, pulsar.MessageId.earliest)
        while len(found) <= COUNT:
            found.append(reader.read_next(PATIENCE_MILLIS).data())
        assert not reader.has_message_available()
    finally:
        client.close()
    assert found == [*payloads, b"last"]
    (child,) = children(broker.pid)
    assert broker.terminate() == 0
    assert not is_alive(child)


def test_given_a_broker_that_is_killed_when_its_mirror_notices_then_it_ends(broker: Broker) -> None:
    wait_until(lambda: shown(broker).get('rocksmq_mirror_up{mirror="pulsar"}') == 1, "it reports")
    (child,) = children(broker.pid)
    os.kill(broker.pid, signal.SIGKILL)
    broker.wait()
    wait_until(lambda: not is_alive(child), "it ended")
