"""A real broker's log, after everything that can be done wrong to it: no secret, no payload, no line of a client's making."""

import json
import re
import socket
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from rocksmq.clients import ChannelNotFound, Client, RocksMQError
from rocksmq.clients.testing import Broker
from rocksmq.protocol.operations import MAGIC, VERSION_MAX, VERSION_MIN, Hello
from tests.helpers.etcd import Etcd
from tests.helpers.ledger import wait_until
from tests.helpers.raw import frame, request_items

from .broker_with_faults import BrokerWithFaults
from .test_bad_frames import AFTER_HELLO, BEFORE_HELLO

SECRET = "never-logged"
FORGED = "x\n2026-01-01T00:00:00.000Z INFO rocksmq.broker: forged\x1b[31m"
LINE = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (DEBUG|INFO|WARNING|ERROR|CRITICAL) rocksmq[\w.]*: .*|    .*|fault: .*"
)
GREETING = frame(request_items(1, Hello(MAGIC, VERSION_MIN, VERSION_MAX, FORGED + SECRET, bytes(16), SECRET)))


def send(address: str, data: bytes) -> None:
    """Whatever it is, and wait until the broker has had enough of it."""
    host, port = address.rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=10) as sock:
        try:
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            while sock.recv(65_536):
                pass
        except ConnectionError:
            pass


def try_all(acts: list[Callable[[], object]]) -> None:
    for act in acts:
        with suppress(RocksMQError):
            act()


def misuse(mq: Client, channel: str) -> None:
    payload = SECRET.encode()
    headers = {SECRET: payload}
    unusual = [FORGED + SECRET, SECRET + "/../../etc", SECRET * 100, f"rocksmq://{SECRET}@host"]
    acts: list[Callable[[], object]] = [
        lambda: mq.produce(channel, [payload] * 10, headers=headers),
        lambda: mq.produce(channel, [payload * 200_000]),
        lambda: mq.consume(channel, "billing", 2),
        lambda: mq.seek(channel, "billing", "earliest"),
        lambda: mq.destroy_consumer_group(channel, SECRET),
        lambda: mq.fetch(channel, 1 << 63),
    ]
    for name in unusual:
        acts += [
            partial(mq.create_channel, name),
            partial(mq.produce, name, [payload]),
            partial(mq.create_consumer_group, channel, name),
            partial(mq.consume, channel, name),
        ]
    try_all(acts)


def http(broker: Broker) -> None:
    """Requests of a browser, and of worse."""
    address = broker.http_url.removeprefix("http://")
    for line in (
        f"GET /metrics?token={SECRET} HTTP/1.1",
        f"GET /{SECRET} HTTP/1.1",
        f"GET /metrics/detailed?channel={SECRET} HTTP/1.1",
        f"POST /metrics HTTP/1.1\r\nAuthorization: Bearer {SECRET}",
        f"{SECRET}",
        f"GET /\r\n{FORGED} HTTP/1.1",
    ):
        send(address, f"{line}\r\nHost: {SECRET}\r\nCookie: {SECRET}\r\n\r\n".encode())


def check(text: str, *, is_json: bool) -> None:
    """Of ``text``, all that was logged."""
    assert text
    assert SECRET not in text
    lines = text.splitlines()
    if is_json:
        trees = [json.loads(line) for line in lines if not line.startswith("fault: ")]
        assert all({"ts", "level", "logger", "message"} <= tree.keys() for tree in trees)
        assert not any(tree["message"] == "forged" for tree in trees)
    else:
        assert [line for line in lines if not LINE.fullmatch(line)] == []
        assert all(line.isprintable() for line in lines)


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_given_everything_done_wrong_to_it_when_logged_at_debug_then_no_secret_and_nothing_forged_is_in_the_log(
    tmp_path: Path, log_format: str
) -> None:
    options = {"ROCKSMQ_LOG_LEVEL": "debug", "ROCKSMQ_LOG_FORMAT": log_format, "ROCKSMQ_LIMITS_HANDSHAKE_SECONDS": "1"}
    faults = (
        "on-hello=raise@4",
        "before-reply/produce=raise@3",
        "during-reply/consume=raise@1",
        "before-write=raise:disk-full@9",
    )
    with BrokerWithFaults(tmp_path / "data", *faults, environment=options) as broker:
        with broker.client() as mq:
            mq.create_channel("orders")
            mq.create_consumer_group("orders", "billing")
            for _ in range(4):
                misuse(mq, "orders")
        for case, *_ in BEFORE_HELLO.values():
            send(broker.address, case)
        for case, *_ in AFTER_HELLO.values():
            send(broker.address, GREETING + case)
        http(broker)
        host, port = broker.address.split(":")
        with socket.create_connection((host, int(port))):
            wait_until(lambda: "no HELLO within" in broker.log.read_text(), "one that is silent was closed")
        with broker.client() as mq, pytest.raises(ChannelNotFound):
            mq.describe_channel(SECRET)
        assert broker.terminate() == 0
    text = broker.log.read_text()
    assert text.count("fault: ") == len(faults)
    check(text, is_json=log_format == "json")


def test_given_a_store_that_fails_when_logged_as_json_then_all_of_it_is_json_and_the_last_says_why(tmp_path: Path) -> None:
    options = {"ROCKSMQ_LOG_FORMAT": "json"}
    with BrokerWithFaults(tmp_path / "data", "during-sync=raise:storage-failed@5", environment=options) as broker:
        with broker.client(timeout=1) as mq:
            mq.create_channel("orders")
            with pytest.raises(RocksMQError):  # noqa: PT012
                for _ in range(10):
                    mq.produce("orders", [SECRET.encode()])
        assert broker.wait() == 5
    text = broker.log.read_text()
    check(text, is_json=True)
    *_, failed, last = (json.loads(line) for line in text.splitlines() if not line.startswith("fault: "))
    assert failed["error"]["type"] == "StorageFailed"
    assert failed["error"]["traceback"].startswith("Traceback")
    assert last["level"] == "critical"
    assert last["message"].endswith("stopped, so that nothing is acknowledged that may be lost")


def test_given_a_wrong_password_for_etcd_when_logged_at_debug_then_it_is_not_there(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text(SECRET)
    options = {"ROCKSMQ_LOG_LEVEL": "debug", "ROCKSMQ_LIMITS_META_START_SECONDS": "1"}
    with Etcd(tmp_path / "etcd", password="right") as etcd:
        login = ("--meta", etcd.url("p"), "--meta-user", "root", "--meta-password-file", str(file))
        with Broker(tmp_path / "data", *login, environment=options) as broker:
            wait_until(lambda: "positions cannot be moved" in broker.log.read_text(), "etcd has refused it")
            assert broker.terminate() == 0
    check(broker.log.read_text(), is_json=False)


def test_given_a_flood_of_what_is_logged_when_counted_then_few_lines_come_out_and_one_tells_of_the_rest(tmp_path: Path) -> None:
    faults = [f"on-accept=raise:no-files@{number}" for number in range(1, 41)]
    with BrokerWithFaults(tmp_path / "data", *faults) as broker:
        with broker.client(timeout=30) as mq:
            mq.ping()
        assert broker.terminate() == 0
    lines = [line for line in broker.log.read_text().splitlines() if "a connection could not be accepted" in line]
    assert len(lines) == 21
    assert "20 more like this were left out within 10 s: a connection could not be accepted: %s" in lines[-1]
