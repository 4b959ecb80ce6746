"""How each alert is provoked: a fault, the wait until it fires, the mending, the wait until it is over.

Each provocation tells in words what it does, as the table has it. Those of clients and of a process; the disk's are in
`provocations_disk`.
"""

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from rocksmq.broker.auth import ALL, Token, digest_of, new_secret
from rocksmq.broker.auth_file import rendered
from rocksmq.clients import Client, RocksMQError
from rocksmq.protocol.operations import Fetch, Position
from tests.helpers.etcd import Etcd
from tests.helpers.etcd_proxy import EtcdProxy
from tests.helpers.ledger import wait_until
from tests.helpers.raw import Raw

from .stage import NotProvoked, Patient, Watch

PAUSE_SECONDS = 0.05


class Provocation(NamedTuple):
    """``alerts``: those that must fire, the first of which the row is about."""

    alerts: tuple[str, ...]
    how: str
    run: Callable[[Path], Watch]


PROVOCATIONS: list[Provocation] = []


def provokes(*alerts: str, how: str) -> Callable[[Callable[[Path], Watch]], Callable[[Path], Watch]]:
    """Put a function into the table. It gets a directory of its own, and returns the watch that has seen the alerts."""

    def register(run: Callable[[Path], Watch]) -> Callable[[Path], Watch]:
        PROVOCATIONS.append(Provocation(alerts, how, run))
        return run

    return register


@contextmanager
def watched(broker: Patient, *, scrape_seconds: float = 0.5) -> Generator[Watch]:
    """A broker that runs, has a channel with a group, and has been scraped."""
    with broker, broker.client() as mq:
        mq.create_channel("orders")
        mq.create_consumer_group("orders", "billing")
        mq.produce("orders", [b"one"])
        with Watch({"rocksmq": [broker.http]}, scrape_seconds=scrape_seconds) as watch:
            watch.prometheus.wait_for("rocksmq_ready == 1 and rocksmq_ready offset 1s == 1")
            watch.begin()
            yield watch


@contextmanager
def at_work(
    broker: Patient, work: Callable[[Client], object], *, clients: int = 1, pause: float = PAUSE_SECONDS
) -> Generator[None]:
    """Clients that do the same again and again, whatever is answered."""
    over = threading.Event()

    def run() -> None:
        with suppress(RocksMQError), broker.client(timeout=2.0) as mq:
            while not over.wait(pause):
                with suppress(RocksMQError):
                    work(mq)

    threads = [threading.Thread(target=run) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()


@provokes("RocksMQDown", how="`kill -9` of the broker; then it is started")
def down_killed(directory: Path) -> Watch:
    with watched(broker := Patient(directory / "data")) as watch:
        broker.kill()
        watch.fires("RocksMQDown")
        broker.start()
        watch.resolves("RocksMQDown")
    return watch


@provokes("RocksMQDown", how="SIGSTOP of the broker; then SIGCONT")
def down_stopped(directory: Path) -> Watch:
    with watched(broker := Patient(directory / "data")) as watch:
        broker.stop()
        watch.fires("RocksMQDown")
        broker.cont()
        watch.resolves("RocksMQDown")
    return watch


@provokes("RocksMQMissing", how="the target is taken out of Prometheus' configuration, and put back")
def missing(directory: Path) -> Watch:
    with watched(broker := Patient(directory / "data")) as watch:
        watch.prometheus.scrape({"rocksmq": []})
        watch.fires("RocksMQMissing")
        watch.prometheus.scrape({"rocksmq": [broker.http]})
        watch.resolves("RocksMQMissing")
    return watch


@provokes("RocksMQNotReady", how="SIGTERM, while a client does not read its answer; then it does")
def not_ready(directory: Path) -> Watch:
    with watched(broker := Patient(directory / "data", environment={"ROCKSMQ_LIMITS_DRAIN_SECONDS": "60"})) as watch:
        with broker.client() as mq:
            for _ in range(20):
                mq.produce("orders", [bytes(500_000)])
        with Raw(broker.address, receive_buffer_bytes=4096) as raw:
            raw.send(Fetch("orders", Position.EARLIEST, 0, 10_000, 7 << 20, 0))
            os.kill(broker.pid, signal.SIGTERM)
            watch.begin()
            watch.fires("RocksMQNotReady")
        watch.resolves("RocksMQNotReady")
    return watch


@provokes("RocksMQCrashed", how="`kill -9` and start; an hour is a minute here")
def crashed(directory: Path) -> Watch:
    with watched(broker := Patient(directory / "data")) as watch:
        broker.kill()
        broker.start()
        watch.fires("RocksMQCrashed")
        watch.resolves("RocksMQCrashed")
    return watch


@provokes("RocksMQRestarting", how="`kill -9` and start, three times")
def restarting(directory: Path) -> Watch:
    with watched(broker := Patient(directory / "data")) as watch:
        for _ in range(3):
            started = watch.prometheus.query("process_start_time_seconds")[0].value
            broker.kill()
            broker.start()
            watch.prometheus.wait_for(f"process_start_time_seconds > {started}")
        watch.fires("RocksMQRestarting")
        watch.resolves("RocksMQRestarting")
    return watch


@provokes("RocksMQInternalErrors", how="a broker with a bug built in is asked for what meets it")
def internal_errors(directory: Path) -> Watch:
    with watched(broker := Patient(directory / "data", module=["tests.ops.buggy_broker"])) as watch, broker.client() as mq:
        with suppress(RocksMQError):
            mq.describe_channel("bug")
        watch.fires("RocksMQInternalErrors")
        watch.resolves("RocksMQInternalErrors")
    return watch


@provokes("RocksMQLoopSlow", how="the broker is stopped for 0.7 s of each second (SIGSTOP, SIGCONT), as if starved")
def loop_slow(directory: Path) -> Watch:
    with watched(broker := Patient(directory / "data"), scrape_seconds=1.0) as watch:
        over = threading.Event()

        def starve() -> None:
            while not over.wait(0.3):
                broker.stop()
                time.sleep(0.7)
                broker.cont()

        thread = threading.Thread(target=starve)
        thread.start()
        try:
            watch.fires("RocksMQLoopSlow")
        finally:
            over.set()
            thread.join()
        watch.resolves("RocksMQLoopSlow")
    return watch


@provokes(
    "RocksMQGroupLagGrowing",
    how="a group reads 100 messages a second of 10,000 that are produced; then it is sought to the end",
)
def lag_growing(directory: Path) -> Watch:
    with watched(broker := Patient(directory / "data")) as watch, broker.client() as mq:
        with (
            at_work(broker, lambda mq: mq.produce("orders", [b"x"] * 1_000), pause=0.1),
            at_work(broker, lambda mq: mq.consume("orders", "billing", 10), pause=0.1),
        ):
            watch.fires("RocksMQGroupLagGrowing")
        mq.seek("orders", "billing", "latest")
        watch.resolves("RocksMQGroupLagGrowing")
    return watch


@provokes(
    "RocksMQGroupLate",
    how="a group reads one message a second of many (an hour is a minute here); then it is sought to the end",
)
def late(directory: Path) -> Watch:
    with watched(broker := Patient(directory / "data")) as watch, broker.client() as mq:
        mq.produce("orders", [b"x"] * 1_000)
        with at_work(broker, lambda mq: mq.consume("orders", "billing", 1), pause=1.0):
            watch.fires("RocksMQGroupLate")
            mq.seek("orders", "billing", "latest")
            watch.resolves("RocksMQGroupLate")
    return watch


@provokes("RocksMQGroupNotRead", how="the only consumer of a group ends, and others go on producing; then it comes back")
def not_read(directory: Path) -> Watch:
    def read(mq: Client) -> object:
        return mq.consume("orders", "billing", timeout=0.2)

    with watched(broker := Patient(directory / "data")) as watch, at_work(broker, lambda mq: mq.produce("orders", [b"x"])):
        with at_work(broker, read):
            watch.prometheus.wait_for("rocksmq_group_offset_messages > 10")
        watch.begin()
        watch.fires("RocksMQGroupNotRead")
        with at_work(broker, read):
            watch.resolves("RocksMQGroupNotRead")
    return watch


@provokes("RocksMQConnectionsHigh", how="`limits.connections_max` = 50, and 48 connections; then they close")
def connections_high(directory: Path) -> Watch:
    broker = Patient(directory / "data", environment={"ROCKSMQ_LIMITS_CONNECTIONS_MAX": "50"})
    with watched(broker) as watch:
        with ExitStack() as stack:
            for _ in range(47):
                stack.enter_context(Raw(broker.address))
            watch.fires("RocksMQConnectionsHigh")
        watch.resolves("RocksMQConnectionsHigh")
    return watch


@provokes("RocksMQConnectionsRejected", how="the same, and clients that try again and again")
def connections_rejected(directory: Path) -> Watch:
    broker = Patient(directory / "data", environment={"ROCKSMQ_LIMITS_CONNECTIONS_MAX": "50"})
    over = threading.Event()

    def knock() -> None:
        while not over.wait(PAUSE_SECONDS):
            with suppress(RocksMQError, OSError, EOFError), Raw(broker.address):
                pass

    with watched(broker) as watch:
        with ExitStack() as stack:
            for _ in range(49):
                stack.enter_context(Raw(broker.address))
            thread = threading.Thread(target=knock)
            thread.start()
            try:
                watch.fires("RocksMQConnectionsRejected")
            finally:
                over.set()
                thread.join()
        watch.resolves("RocksMQConnectionsRejected")
    return watch


@provokes("RocksMQProtocolErrors", how="something sends HTTP to the port of clients, 20 times a second; then it ends")
def protocol_errors(directory: Path) -> Watch:
    def knock(_: Client) -> None:
        with suppress(OSError), socket.create_connection(address) as sock:
            sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
            while sock.recv(4096):
                pass

    with watched(broker := Patient(directory / "data")) as watch:
        host, port = broker.address.split(":")
        address = host, int(port)
        with at_work(broker, knock):
            watch.fires("RocksMQProtocolErrors")
        watch.resolves("RocksMQProtocolErrors")
    return watch


@provokes(
    "RocksMQMemoryHigh",
    how="`memory.max` of its cgroup (a file in its place) just above what it takes; then it restarts without",
)
def memory_high(directory: Path) -> Watch:
    script = 'mount -t tmpfs tmpfs /sys/fs/cgroup && echo 60000000 > /sys/fs/cgroup/memory.max && exec "$@"'
    broker = Patient(directory / "data", before=["unshare", "-rm", "sh", "-c", script, "sh"])
    with watched(broker) as watch:
        with broker.client() as mq:
            for _ in range(40):
                mq.produce("orders", [bytes(1_000_000)])
        watch.fires("RocksMQMemoryHigh")
        broker.kill()
        broker.before = ()
        broker.start()
        watch.resolves("RocksMQMemoryHigh")
    return watch


@provokes("RocksMQFilesHigh", how="`ulimit -n 64`, and connections until 60 files are open; then they close")
def files_high(directory: Path) -> Watch:
    broker = Patient(directory / "data", before=["sh", "-c", 'ulimit -n 64; exec "$@"', "sh"])
    with watched(broker) as watch:
        with ExitStack() as stack:
            while len(os.listdir(f"/proc/{broker.pid}/fd")) < 60:
                stack.enter_context(Raw(broker.address))
            watch.fires("RocksMQFilesHigh")
        watch.resolves("RocksMQFilesHigh")
    return watch


@provokes("RocksMQEtcdDown", how="`kill -9` of etcd; then it is started")
def etcd_down(directory: Path) -> Watch:
    with Etcd() as etcd, watched(Patient(directory / "data", "--meta", etcd.url("rocksmq"))) as watch:
        etcd.kill()
        watch.fires("RocksMQEtcdDown")
        etcd.start()
        watch.resolves("RocksMQEtcdDown")
    return watch


@provokes("RocksMQEtcdSlow", how="a network to etcd that takes 150 ms each way; then it does not")
def etcd_slow(directory: Path) -> Watch:
    with (
        Etcd() as etcd,
        EtcdProxy(etcd.endpoint) as proxy,
        watched(broker := Patient(directory / "data", "--meta", proxy.url("rocksmq"))) as watch,
        at_work(broker, lambda mq: mq.seek("orders", "billing", "earliest")),
    ):
        proxy.delay_s = 0.15
        watch.fires("RocksMQEtcdSlow")
        proxy.delay_s = 0.0
        watch.resolves("RocksMQEtcdSlow")
    return watch


@provokes("RocksMQConfigReloadFailed", how="SIGHUP with a misspelt option in the file; then with it mended")
def reload_failed(directory: Path) -> Watch:
    file = directory / "rocksmqd.toml"
    file.write_text('log_level = "info"\n')
    with watched(broker := Patient(directory / "data", "--config", str(file))) as watch:
        file.write_text('log_levle = "info"\n')
        os.kill(broker.pid, signal.SIGHUP)
        watch.fires("RocksMQConfigReloadFailed")
        file.write_text('log_level = "info"\n')
        os.kill(broker.pid, signal.SIGHUP)
        watch.resolves("RocksMQConfigReloadFailed")
    return watch


def _ahead(directory: Path, offset: str) -> Patient:
    """A broker whose wall clock is so much ahead of the machine's."""
    library = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
    if library is None:
        raise NotProvoked("no faketime here: apt-get install faketime")
    return Patient(directory, environment={"LD_PRELOAD": str(library), "FAKETIME": offset, "DONT_FAKE_MONOTONIC": "1"})


@provokes(
    "RocksMQIdsAhead", how="a clock 2 minutes ahead (faketime) while something is produced, and a start with the right one"
)
def ids_ahead(directory: Path) -> Watch:
    fake = _ahead(directory / "data", "+2m")
    with fake, fake.client() as mq:
        mq.create_channel("orders")
        mq.produce("orders", [b"one"])
        fake.terminate()
    with watched(Patient(directory / "data")) as watch:
        watch.fires("RocksMQIdsAhead")
        watch.resolves("RocksMQIdsAhead")
    return watch


@provokes("RocksMQCredentialExpiring", how="a token that is good for an hour, where 2 weeks are 5.6; then it is revoked")
def credential_expiring(directory: Path) -> Watch:
    tokens = directory / "tokens.json"
    tokens.write_text(rendered([Token("shop", digest_of(new_secret()), 0, int(time.time()) + 3_600, produce=ALL)]))
    with Patient(directory / "data", "--auth-file", str(tokens)) as broker, Watch({"rocksmq": [broker.http]}) as watch:
        watch.fires("RocksMQCredentialExpiring")
        tokens.write_text(rendered([]))
        os.kill(broker.pid, signal.SIGHUP)
        watch.resolves("RocksMQCredentialExpiring")
    return watch


@provokes("RocksMQClockInDoubt", how="a clock 2 minutes behind (faketime), a start with the right one; then it is confirmed")
def clock_in_doubt(directory: Path) -> Watch:
    fake = _ahead(directory / "data", "-2m")
    with fake, fake.client() as mq:
        mq.create_channel("orders", retention={"max_age": 1})
        mq.produce("orders", [b"one"])
        wait_until(lambda: mq.describe_channel("orders").message_count == 0, "the message has reached its age")
        fake.terminate()
    broker = Patient(directory / "data")
    with watched(broker) as watch, broker.client() as mq:
        watch.fires("RocksMQClockInDoubt")
        mq.confirm_clock()
        watch.resolves("RocksMQClockInDoubt")
    return watch
