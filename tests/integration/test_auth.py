"""Tokens at a real broker: how they come and go while it runs, and what it says when it cannot read them."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from rocksmq.broker.auth import ALL, Patterns, Token, digest_of
from rocksmq.broker.auth_file import rendered
from rocksmq.clients import Client, ConnectionFailed, PermissionDenied, Unauthenticated
from rocksmq.clients.testing import Broker
from tests.helpers.certificates import Certificates
from tests.helpers.ledger import wait_until

OPS = Token("ops", digest_of("of-ops"), 0, None, ALL, ALL, ALL)
SHOP = Token("shop", digest_of("of-shop"), 0, None, produce=Patterns.of(["orders.*"]))


class Guarded(Broker):
    """It wants tokens, of a file that a test may change."""

    def __init__(self, directory: Path, *arguments: str, tokens: str = rendered([OPS, SHOP])) -> None:
        self.file = directory / "tokens.json"
        self.file.write_text(tokens)
        super().__init__(directory / "data", "--auth-file", str(self.file), *arguments)

    def hang_up(self, content: str, said: str) -> None:
        self.file.write_text(content)
        before = self.log.read_text().count(said)
        os.kill(self.pid, signal.SIGHUP)
        wait_until(lambda: self.log.read_text().count(said) > before, said)

    def client_of(self, token: str, timeout: float = 10.0) -> Client:
        return Client(self.url, token=f"of-{token}", timeout=timeout)


READ = "the options were read again"


def ends(refused: Callable[[], object]) -> None:
    """What is done with a token that is no longer good fails for that, if not at the first call."""
    wait_until(lambda: _is_unauthenticated(refused), "the connection was ended, and its token is refused")


def _is_unauthenticated(refused: Callable[[], object]) -> bool:
    try:
        refused()
    except Unauthenticated:
        return True
    except ConnectionFailed:  # it was under way when the connection ended: whether it is stored is unknown
        return False
    return False


def test_given_tokens_when_clients_come_then_each_may_do_what_its_own_permits(tmp_path: Path) -> None:
    with Guarded(tmp_path) as broker:
        with broker.client_of("ops") as ops, broker.client_of("shop") as shop:
            ops.create_channel("orders.eu")
            ops.create_channel("bills")
            shop.produce("orders.eu", [b"one"])
            with pytest.raises(PermissionDenied, match="the token shop does not permit PRODUCE: it needs produce on bills"):
                shop.produce("bills", [b"one"])
            with pytest.raises(PermissionDenied):
                shop.fetch("orders.eu", "earliest")
            with pytest.raises(PermissionDenied):
                shop.destroy_channel("orders.eu")
            assert shop.list_channels() == ["orders.eu"]
            assert ops.fetch("orders.eu", "earliest").payloads == [b"one"]
        began = time.monotonic()
        for token in (None, "of-nobody"):
            with pytest.raises(Unauthenticated):
                Client(broker.url, token=token, timeout=60)
        assert time.monotonic() - began < 30  # nothing is tried again


def test_given_a_token_when_it_is_revoked_then_its_connections_end_and_one_that_is_made_anew_gets_in(tmp_path: Path) -> None:
    with Guarded(tmp_path) as broker, broker.client_of("ops") as ops, broker.client_of("shop") as shop:
        ops.create_channel("orders.eu")
        shop.produce("orders.eu", [b"one"])
        broker.hang_up(rendered([OPS]), READ)
        ends(lambda: shop.produce("orders.eu", [b"two"]))
        ops.produce("orders.eu", [b"three"])
        broker.hang_up(rendered([OPS, SHOP]), READ)
        shop.produce("orders.eu", [b"four"])
        found = ops.fetch("orders.eu", "earliest").payloads
    assert found[0] == b"one"
    assert found[-2:] == [b"three", b"four"]
    assert len(found) == len(set(found) - {b"two"}) + found.count(b"two")


def test_given_a_token_when_it_gets_other_rights_then_its_clients_have_them_without_noticing(tmp_path: Path) -> None:
    with Guarded(tmp_path) as broker, broker.client_of("ops") as ops, broker.client_of("shop") as shop:
        ops.create_channel("bills")
        with pytest.raises(PermissionDenied):
            shop.produce("bills", [b"one"])
        broker.hang_up(rendered([OPS, SHOP._replace(produce=ALL)]), READ)

        def may_produce() -> bool:
            try:
                shop.produce("bills", [b"one"])
            except PermissionDenied:
                return False
            return True

        wait_until(may_produce, "its new rights are in effect")


def test_given_a_token_that_expires_when_its_time_comes_then_its_connection_ends(tmp_path: Path) -> None:
    soon = SHOP._replace(expires=int(time.time()) + 3)
    with Guarded(tmp_path, tokens=rendered([OPS, soon])) as broker:
        with broker.client_of("ops") as ops:
            ops.create_channel("orders.eu")
        with broker.client_of("shop") as shop:
            shop.produce("orders.eu", [b"one"])
            ends(lambda: shop.produce("orders.eu", [b"two"]))
        assert time.time() >= (soon.expires or 0)


@pytest.mark.parametrize(
    ("content", "said"),
    [("", "it is empty"), ("{", "not valid JSON"), ('{"tokens": [{}]}', "is missing"), (None, "No such file")],
)
def test_given_tokens_that_cannot_be_read_then_there_is_no_start_and_at_sighup_the_last_ones_stay(
    tmp_path: Path, content: str | None, said: str
) -> None:
    with Guarded(tmp_path) as broker, broker.client_of("shop") as shop:
        broker.file.unlink()
        if content is not None:
            broker.file.write_text(content)
        os.kill(broker.pid, signal.SIGHUP)
        wait_until(lambda: said in broker.log.read_text(), "it is logged")
        assert "the options could not be read again, and stay as they are" in broker.log.read_text()
        with broker.client_of("ops") as ops:
            assert ops.list_channels() == shop.list_channels() == []
        broker.kill()
        with pytest.raises(RuntimeError, match=f"exit code 2: rocksmqd: --auth-file .*{said}"):
            broker.start()


def test_given_a_file_without_tokens_then_the_broker_starts_and_admits_nobody(tmp_path: Path) -> None:
    with Guarded(tmp_path, tokens='{"tokens": []}') as broker, pytest.raises(Unauthenticated):
        Client(broker.url, timeout=60)


def test_given_tls_and_tokens_then_other_machines_may_reach_the_broker_and_without_either_they_may_not(tmp_path: Path) -> None:
    certificates = Certificates.make(tmp_path / "certificates")
    tls = ["--tls-cert", str(certificates.server_certificate), "--tls-key", str(certificates.server_key)]
    file = tmp_path / "tokens.json"
    file.write_text(rendered([OPS]))
    auth = ["--auth-file", str(file)]

    def said(*arguments: str) -> str:
        broker = Broker(tmp_path / "data", "--listen", "0.0.0.0:0", "--check-config", *arguments)
        with pytest.raises(RuntimeError) as raised:
            broker.start()
        return str(raised.value)

    assert "other machines reach it: give tls_cert, tls_key, auth_file" in said()
    assert "other machines reach it: give auth_file" in said(*tls)
    assert "other machines reach it: give tls_cert, tls_key" in said(*auth)
    assert "other machines reach it, and metrics have no TLS" in said(*tls, *auth, "--http", "0.0.0.0:0")
    assert "exit code 0" in said(*tls, *auth)
    assert "exit code 0" in said("--insecure")
