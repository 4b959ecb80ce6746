"""TLS at a real broker: who gets in, who is told what, and what a change of certificates does."""

import os
import shutil
import signal
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import islice
from pathlib import Path

import pytest

from rocksmq.clients import Client, ConnectionFailed, InvalidRequest, LimitExceeded, ProtocolError
from rocksmq.clients.testing import Broker
from tests.helpers.certificates import Certificates
from tests.helpers.ledger import wait_until

MIB = 1 << 20
PROMPT = 5.0
PATIENCE = 60.0


class TlsBroker(Broker):
    """It serves by TLS, of certificates that a test may replace."""

    def __init__(self, directory: Path, *arguments: str) -> None:
        self.certificates = Certificates.make(directory / "certificates")
        files = ["--tls-cert", str(self.certificates.server_certificate), "--tls-key", str(self.certificates.server_key)]
        super().__init__(directory / "data", *files, *arguments)

    @property
    def url(self) -> str:
        return f"rocksmqs://{self.address}"

    @property
    def plain_url(self) -> str:
        return f"rocksmq://{self.address}"

    def context(self) -> ssl.SSLContext:
        """Of a client that trusts it."""
        return ssl.create_default_context(cafile=str(self.certificates.authority))

    def trusting(self, *, timeout: float = 30.0) -> Client:
        return Client(self.url, ssl_context=self.context(), timeout=timeout)


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsBroker]:
    with TlsBroker(tmp_path_factory.mktemp("tls")) as started:
        yield started


def test_given_messages_of_many_sizes_when_they_go_there_and_back_then_they_are_the_same(broker: TlsBroker) -> None:
    payloads = [os.urandom(size) for size in (0, 1, 100, 16_383, 16_384, 16_385, 100_000, MIB)]
    with broker.trusting() as mq:
        mq.create_channel("sizes")
        ids = list(mq.produce("sizes", payloads))
        found = mq.fetch("sizes", start=ids[0])
        got = [bytes(message.payload) for message in found]
        while len(got) < len(payloads):
            got += [bytes(message.payload) for message in mq.fetch("sizes", start=ids[len(got)])]
    assert got == payloads


def test_given_much_both_ways_at_once_when_a_producer_and_a_consumer_share_a_client_then_all_comes(
    broker: TlsBroker,
) -> None:
    with broker.trusting() as mq:
        mq.create_channel("both")
        mq.create_consumer_group("both", "g")
        with mq.producer("both") as producer, mq.consumer("both", "g") as consumer:
            for number in range(20_000):
                producer.send(b"%d" % number)
            producer.flush()
            got = [bytes(message.payload) for message in islice(consumer, 20_000)]
    assert got == [b"%d" % number for number in range(20_000)]


def test_given_the_environment_when_a_client_is_made_then_it_trusts_whom_that_names(
    broker: TlsBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROCKSMQ_URL", broker.url)
    monkeypatch.setenv("ROCKSMQ_CA", str(broker.certificates.authority))
    with Client() as mq:
        assert mq.list_channels() is not None
    monkeypatch.setenv("ROCKSMQ_CA", "/nowhere")
    with pytest.raises(InvalidRequest, match="ROCKSMQ_CA names /nowhere"):
        Client()


def test_given_a_broker_that_is_not_trusted_when_connected_then_it_is_said_at_once_and_how_to_trust_it(
    broker: TlsBroker, tmp_path: Path
) -> None:
    stranger = Certificates.make(tmp_path)
    began = time.monotonic()
    with pytest.raises(ConnectionFailed, match=r"is not trusted \(.*\): ROCKSMQ_CA names the file of who signed it"):
        Client(broker.url, ssl_context=ssl.create_default_context(cafile=str(stranger.authority)), timeout=60)
    assert time.monotonic() - began < 30  # it was not tried again for a minute


def test_given_a_client_without_tls_when_it_connects_then_it_is_told_what_to_do(broker: TlsBroker) -> None:
    with pytest.raises(ProtocolError, match="this port speaks TLS: begin the URL with rocksmqs://"):
        Client(broker.plain_url, timeout=60)


def test_given_a_broker_without_tls_when_a_client_wants_it_then_it_is_told_what_to_do(tmp_path: Path) -> None:
    with Broker(tmp_path / "data") as plain, pytest.raises(ProtocolError, match=r"speaks no TLS .* is it rocksmq://\?"):
        Client(plain.url.replace("rocksmq", "rocksmqs"), timeout=60)


def test_given_a_context_without_a_url_of_tls_when_a_client_is_made_then_it_is_refused(broker: TlsBroker) -> None:
    with pytest.raises(InvalidRequest, match="ssl_context is of use with rocksmqs:// only"):
        Client(broker.plain_url, ssl_context=broker.context())


def test_given_an_old_version_of_tls_when_asked_for_then_there_is_no_connection(broker: TlsBroker) -> None:
    context = broker.context()
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    host, port = broker.address.split(":")
    with socket.create_connection((host, int(port)), PROMPT) as sock, pytest.raises((ssl.SSLError, ConnectionError)):
        context.wrap_socket(sock, server_hostname=host)


def test_given_handshakes_that_stop_when_three_seconds_are_over_then_the_broker_ends_them(broker: TlsBroker) -> None:
    host, port = broker.address.split(":")
    with ExitStack() as stack:
        began = time.monotonic()
        sockets = [stack.enter_context(socket.create_connection((host, int(port)), 60)) for _ in range(4)]
        for sock, sent in zip(sockets, (b"", b"\x16", b"\x16\x03\x01\x02\x00\x01", b"\x16\x03\x01\x02"), strict=True):
            sock.sendall(sent)
        assert [sock.recv(1) for sock in sockets] == [b""] * 4
        assert time.monotonic() - began > 2
    wait_until(lambda: "no handshake of TLS within 3 s (tls_handshake_seconds)" in broker.log.read_text(), "it is logged")


def test_given_a_broker_without_room_when_a_client_connects_then_it_is_told_so_by_tls(tmp_path: Path) -> None:
    (tmp_path / "few.toml").write_text("[limits]\nconnections_max = 1\n")
    full = pytest.raises(LimitExceeded, match="connections_max")
    with TlsBroker(tmp_path, "--config", str(tmp_path / "few.toml")) as few, few.trusting(), full:
        few.trusting(timeout=0.5)


def test_given_clients_that_need_a_certificate_then_only_those_get_in_that_have_one(tmp_path: Path) -> None:
    authority = Certificates.make(tmp_path / "certificates").authority
    shutil.copy(authority, tmp_path / "clients.pem")
    with TlsBroker(tmp_path, "--tls-client-ca", str(tmp_path / "clients.pem")) as strict:
        shutil.copy(strict.certificates.authority, tmp_path / "clients.pem")
        strict.restart()
        with Client(strict.url, ssl_context=strict.certificates.context()) as mq:
            assert mq.list_channels() == []
        began = time.monotonic()
        with pytest.raises(ConnectionFailed, match="wants a certificate of its clients"):
            strict.trusting(timeout=60)
        assert time.monotonic() - began < 30
        stranger = Certificates.make(tmp_path / "strangers")
        context = strict.context()
        context.load_cert_chain(stranger.client_certificate, stranger.client_key)
        with pytest.raises(ConnectionFailed):
            Client(strict.url, ssl_context=context, timeout=1)


def test_given_another_certificate_when_sighup_comes_then_new_connections_see_it_and_the_old_ones_go_on(tmp_path: Path) -> None:
    with TlsBroker(tmp_path) as broker:
        before = broker.context()
        with Client(broker.url, ssl_context=before) as mq:
            Certificates.make(tmp_path / "certificates")
            os.kill(broker.pid, signal.SIGHUP)
            wait_until(lambda: "the options were read again" in broker.log.read_text(), "they were read again")
            assert mq.list_channels() == []
            with broker.trusting() as other:
                assert other.list_channels() == []
            with pytest.raises(ConnectionFailed, match="is not trusted"):
                Client(broker.url, ssl_context=before)


def test_given_new_certificates_again_and_again_when_many_produce_then_nothing_is_lost_and_all_get_in(
    tmp_path: Path,
) -> None:
    over = threading.Event()

    def produce(mq: Client) -> list[int]:
        found: list[int] = []
        while not over.is_set():
            found += mq.produce("orders", [b"x"] * 10)
        return found

    with TlsBroker(tmp_path) as broker, ThreadPoolExecutor(3) as pool, ExitStack() as stack:
        old = [stack.enter_context(broker.trusting()) for _ in range(3)]
        old[0].create_channel("orders")
        producing = [pool.submit(produce, mq) for mq in old]
        stack.callback(over.set)
        for number in range(1, 11):
            Certificates.make(tmp_path / "certificates")
            os.kill(broker.pid, signal.SIGHUP)
            wait_until(lambda: broker.log.read_text().count("the options were read again") == number, "they were read again")  # noqa: B023
            with broker.trusting() as new:
                before = new.describe_channel("orders").message_count
                wait_until(lambda: new.describe_channel("orders").message_count > before, "those of before go on")  # noqa: B023
        over.set()
        stored = sorted(message_id for one in producing for message_id in one.result(PATIENCE))
        found: list[int] = []
        with broker.trusting() as mq:
            while batch := mq.fetch("orders", found[-1] + 1 if found else "earliest"):
                found += batch.ids
        assert found == stored
        assert "Traceback" not in broker.log.read_text()


def test_given_files_that_are_no_certificate_when_sighup_comes_then_the_last_ones_stay(tmp_path: Path) -> None:
    with TlsBroker(tmp_path) as broker:
        context = broker.context()
        broker.certificates.server_key.write_text("broken")
        os.kill(broker.pid, signal.SIGHUP)
        wait_until(lambda: "no certificate in PEM and its key" in broker.log.read_text(), "it is logged")
        with Client(broker.url, ssl_context=context) as mq:
            assert mq.list_channels() == []


def test_given_garbage_after_the_handshake_when_it_comes_then_only_that_connection_ends(broker: TlsBroker) -> None:
    host, port = broker.address.split(":")
    with broker.trusting() as mq, socket.create_connection((host, int(port)), 60) as sock:
        with broker.context().wrap_socket(sock, server_hostname=host, do_handshake_on_connect=True) as tls:
            raw = socket.socket(fileno=os.dup(tls.fileno()))
            raw.settimeout(60)
            with raw:
                raw.sendall(b"\x17\x03\x03\x00\x20" + os.urandom(32))
                while raw.recv(4_096):
                    pass
        assert mq.list_channels() is not None


def test_given_a_broker_by_tls_when_frames_are_too_long_then_they_are_refused_as_ever(broker: TlsBroker) -> None:
    host, port = broker.address.split(":")
    sock = socket.create_connection((host, int(port)), 60)
    with sock, broker.context().wrap_socket(sock, server_hostname=host, suppress_ragged_eofs=False) as tls:
        tls.sendall(b"\xff\xff\xff\xff" + bytes(100))
        assert b"handshake_bytes_max" in tls.recv(4_096)
        assert tls.recv(1) == b""  # the end is said by TLS
