"""Metrics and health of a real broker: under load, while what it needs is away, while it stops, and under attack."""

import http.client
import json
import os
import signal
import socket
import threading
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from random import Random
from typing import NamedTuple

import pytest
from prometheus_client.parser import text_string_to_metric_families as parse

from rocksmq.clients import DiskFull, MetaUnavailable
from rocksmq.clients.testing import Broker
from rocksmq.protocol.operations import Fetch, Position
from tests.helpers.etcd import Etcd
from tests.helpers.ledger import wait_until
from tests.helpers.raw import Raw
from tests.helpers.raw_bystander import Bystander, resident_bytes
from tests.helpers.small_disk import MIB, BrokerOnSmallDisk, needs_mount

ANY_PORT = "127.0.0.1:0"
RESERVE_BYTES = 64 * MIB
PATIENCE_SECONDS = 20.0
CONNECTIONS_MAX = 32
NAMES = ["store", "disk", "meta", "draining"]  # without which a broker is not ready
PATHS = ["/", "/livez", "/readyz", "/metrics", "/metrics/detailed", "/metrics/detailed?channel=bystander"]
ATTACKS = 400
ATTACK_SECONDS = 0.1  # without progress; then it goes on to the next
MEMORY_BYTES = 16 << 20  # what all of them together may cost, with the noise of measuring


class Answer(NamedTuple):
    """Of the HTTP listener."""

    status: int
    content_type: str
    body: str


def ask(broker: Broker, path: str, method: str = "GET", **headers: str) -> Answer:
    with closing(http.client.HTTPConnection(broker.http, timeout=PATIENCE_SECONDS)) as connection:
        connection.request(method, path, headers=headers)
        response = connection.getresponse()
        return Answer(response.status, response.headers["Content-Type"], response.read().decode())


def samples(broker: Broker, path: str = "/metrics") -> dict[tuple[str, ...], float]:
    """By name and values of labels."""
    found = (sample for family in parse(ask(broker, path).body) for sample in family.samples)
    return {(sample.name, *sample.labels.values()): sample.value for sample in found}


def wrong(broker: Broker) -> dict[str, str]:
    """The reasons of the checks that fail; the status and the metrics say the same."""
    answer = ask(broker, "/readyz")
    told = json.loads(answer.body)
    checks = {check["check"]: check["reason"] for check in told["checks"] if not check["ok"]}
    assert [check["check"] for check in told["checks"]] == [*NAMES, "clock"]
    assert (answer.status, told["ready"]) == ((503, False) if checks else (200, True))
    return checks


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Broker, Bystander]]:
    with Broker(tmp_path_factory.mktemp("http") / "data", http=ANY_PORT) as broker, Bystander(broker) as bystander:
        yield broker, bystander
        bystander.check()


# -- under load --------------------------------------------------------------------------


@pytest.mark.parametrize("path", PATHS)
def test_given_a_load_when_a_path_is_asked_for_then_it_is_answered_and_the_load_goes_on(
    busy: tuple[Broker, Bystander], path: str
) -> None:
    broker, bystander = busy
    for _ in range(3):
        answer = ask(broker, path)
        assert (answer.status, bool(answer.body)) == (200, True)
        if "metrics" in path:
            assert list(parse(answer.body))
            assert answer.content_type.startswith("text/plain; version=0.0.4")
        head = ask(broker, path, "HEAD")
        assert head == Answer(200, answer.content_type, "")
        bystander.check()


def test_given_a_load_when_scraped_then_the_numbers_are_those_of_the_load(busy: tuple[Broker, Bystander]) -> None:
    broker, bystander = busy
    before = samples(broker)
    rounds = bystander.rounds
    bystander.check()
    done = bystander.rounds
    after = samples(broker)
    produced = ("rocksmq_produced_messages_total", "bystander")
    assert after[produced] - before[produced] >= 10 * (done - rounds - 1)
    assert after["rocksmq_ready",] == 1
    assert {name: after["rocksmq_ready_check", name] for name in NAMES} == dict.fromkeys(NAMES, 1)
    assert samples(broker, "/metrics/detailed?channel=bystander")[produced] >= after[produced]
    assert ask(broker, "/metrics/detailed?channel=unknown").status == 404
    openmetrics = ask(broker, "/metrics", Accept="application/openmetrics-text;version=1.0.0")
    assert openmetrics.content_type.startswith("application/openmetrics-text")
    assert openmetrics.body.endswith("# EOF\n")


# -- what it needs is away ---------------------------------------------------------------


def test_given_etcd_killed_when_asked_then_not_ready_says_why_until_it_is_back(tmp_path: Path) -> None:
    quick = {"ROCKSMQ_LIMITS_META_CALL_SECONDS": "0.5", "ROCKSMQ_LIMITS_META_WAIT_SECONDS": "0.1"}
    with (
        Etcd() as etcd,
        Broker(tmp_path / "data", "--meta", etcd.url("http"), environment=quick, http=ANY_PORT) as broker,
        broker.client(timeout=1) as mq,
    ):
        mq.create_channel("orders")
        mq.create_consumer_group("orders", "billing")
        assert wrong(broker) == {}
        # When nobody asks for positions meanwhile
        etcd.kill()
        # Then
        wait_until(lambda: bool(wrong(broker)), "it is noticed")
        assert list(wrong(broker)) == ["meta"]
        assert "produce and fetch go on" in wrong(broker)["meta"]
        assert ask(broker, "/livez").status == ask(broker, "/readyz?exclude=meta").status == 200
        found = samples(broker)
        assert found["rocksmq_ready",] == 0
        assert {name: found["rocksmq_ready_check", name] for name in NAMES} == dict.fromkeys(NAMES, 1) | {"meta": 0}
        mq.produce("orders", [b"x"])
        with pytest.raises(MetaUnavailable):
            mq.consume("orders", "billing")
        # And
        etcd.start()
        wait_until(lambda: not wrong(broker), "it heals")
        assert mq.consume("orders", "billing", timeout=5).payloads == [b"x"]
        assert samples(broker)["rocksmq_ready",] == 1


@needs_mount
def test_given_a_full_disk_when_asked_then_not_ready_without_a_produce_and_it_heals(tmp_path: Path) -> None:
    with BrokerOnSmallDisk(tmp_path / "data", http=ANY_PORT) as broker, broker.client(timeout=0.5) as mq:
        mq.create_channel("orders")
        assert wrong(broker) == {}
        broker.fill(but=RESERVE_BYTES - MIB)
        wait_until(lambda: bool(wrong(broker)), "it is noticed")
        assert list(wrong(broker)) == ["disk"]
        with pytest.raises(DiskFull):
            mq.produce("orders", [b"x"])
        broker.free()
        wait_until(lambda: not wrong(broker), "it heals")
        mq.produce("orders", [b"x"])


def test_given_a_client_that_does_not_read_when_the_broker_stops_then_it_tells_so_until_the_end(tmp_path: Path) -> None:
    with Broker(tmp_path / "data", http=ANY_PORT) as broker:
        with broker.client() as mq:
            mq.create_channel("orders")
            mq.produce("orders", [bytes(1_000_000)] * 6)
        with Raw(broker.address, receive_buffer_bytes=4_096) as raw:
            for _ in range(2):
                raw.send(Fetch("orders", Position.EARLIEST, 0, 10, 7_000_000, 0))
            raw.socket.recv(1, socket.MSG_PEEK)  # the answers are on their way
            os.kill(broker.pid, signal.SIGTERM)
            wait_until(lambda: bool(wrong(broker)), "it is told")
            assert list(wrong(broker)) == ["draining"]
            assert ask(broker, "/livez").status == 200
            found = samples(broker)
            assert (found["rocksmq_ready",], found["rocksmq_ready_check", "draining"]) == (0, 0)
        assert broker.wait() == 0
        assert "Traceback" not in broker.log.read_text()


# -- under attack ------------------------------------------------------------------------


def attack(random: Random, address: str) -> None:
    """One connection that does what none should."""
    host, _, port = address.rpartition(":")
    request = b"GET %s HTTP/1.%d\r\nHost: x\r\n%s\r\n" % (
        random.choice([b"/metrics", b"/metrics/detailed", b"/readyz?exclude=" + random.randbytes(3), b"/", b"*", b"//"]),
        random.randrange(3),
        random.choice([b"", b"Content-Length: 99999999\r\n", b"Transfer-Encoding: chunked\r\n", b" x\r\n", b"a: b\r\n" * 200]),
    )
    data = random.choice(
        [
            random.randbytes(random.randrange(20_000)),
            request,
            request * 50,
            request[: random.randrange(len(request))],
            bytes(byte if random.random() < 0.95 else random.randrange(256) for byte in request),
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + random.randbytes(500),
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + random.randbytes(50),
        ]
    )
    with socket.socket() as sock:
        sock.settimeout(ATTACK_SECONDS)
        if random.random() < 0.2:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1_024)
        try:
            sock.connect((host, int(port)))
            for begin in range(0, len(data), step := random.choice([1 << 20, 1_000, 100])):
                sock.sendall(data[begin : begin + step])
            if random.random() < 0.5:
                sock.shutdown(socket.SHUT_WR)
            for _ in range(random.randrange(5)):
                if not sock.recv(random.choice([1, 100, 100_000])):
                    return
        except (ConnectionError, TimeoutError):
            pass


@contextmanager
def silent(broker: Broker, count: int) -> Generator[None]:
    """So many connections that say nothing, for as long as they are let."""
    host, _, port = broker.http.rpartition(":")
    socks = [socket.create_connection((host, int(port))) for _ in range(count)]
    try:
        yield
    finally:
        for sock in socks:
            sock.close()


def test_given_every_kind_of_nonsense_when_it_comes_from_many_then_producers_and_scrapes_go_on(
    busy: tuple[Broker, Bystander],
) -> None:
    broker, bystander = busy
    with silent(broker, CONNECTIONS_MAX + 8):
        bystander.check()
    before = resident_bytes(broker.pid)
    threads = [threading.Thread(target=attacks, args=(seed, broker.http)) for seed in range(8)]
    for thread in threads:
        thread.start()
    try:
        bystander.check()
    finally:
        for thread in threads:
            thread.join()
    # Then
    bystander.check()
    wait_until(lambda: is_answered(broker), "it is free again")
    assert wrong(broker) == {}
    assert samples(broker)["rocksmq_ready",] == 1
    assert resident_bytes(broker.pid) - before < MEMORY_BYTES


def attacks(seed: int, address: str) -> None:
    random = Random(seed)
    for _ in range(ATTACKS // 8):
        attack(random, address)


def is_answered(broker: Broker) -> bool:
    try:
        return ask(broker, "/livez").status == 200
    except (ConnectionError, http.client.HTTPException):
        return False
