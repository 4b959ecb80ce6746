"""Etcd is away in every way that it can be, while a broker serves: what its clients notice, and what they do not.

    python -m tests.crash.outages [--fault NAME]... [--seconds N] [--rounds N] [--dir DIR]

Prints a line a fault: produce and fetch with it, as a share of what they are without, in the same run; how long a consume
waits for MetaUnavailable; how long after etcd's return the first one is served; what the broker holds before and after.
All the while other clients produce and consume, and their ledgers are checked at the end.
"""

import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import NamedTuple

import click

from rocksmq.clients import Client, MetaUnavailable, RocksMQError
from rocksmq.clients.cli.output import show_table
from rocksmq.clients.testing import Broker

from .audit import Audit, Report
from .cast import CHANNELS, GROUPS
from .etcd_faults import OUTAGES, Outage
from .footprint import Footprint
from .staff import Member, Staff
from .worker import Part

CALM_CAST: Sequence[Part] = (  # so few messages that they take nothing from who measures
    Part("produce", 1, "orders", {"batch": 10, "rate": 200}),
    Part("send", 2, "clicks", {"burst": 10, "rate": 200}),
    Part("batches", 11, "orders", {"most": 200, "held": 200}, "shared"),
    Part("consume", 12, "orders", {"most": 200}, "called"),
    Part("manual", 13, "clicks", {"most": 200}, "manual"),
    Part("iterate", 14, "clicks", {"held": 100}, "single"),
)
COLUMNS = ("etcd", "produce", "fetch", "consume", "back after", "nothing lost or doubled of", "held before", "held after")
PROBED, HASTY, PATIENT = "probed", "hasty", "patient"
WARM, LOAD = "warm", "load"
PAYLOAD_BYTES, BATCH_MESSAGES, FETCH_MESSAGES = 100, 1_000, 10_000
WARM_BATCHES = 500
SLICE_SECONDS = 1.0  # of produce, and of fetch
SLICES = 4  # of each, spread over a fault, and as many over as long a time without
BACK_SECONDS_MAX = 30.0
SETTLE_SECONDS = 10.0  # for the broker to hold again what it held


class Back(NamedTuple):
    """One fault, as a client that does not wait for its end saw it, and one that does."""

    error: RocksMQError | None  # that the hasty one got, None: messages
    answer_s: float  # after which it got that
    back_s: float  # from etcd's return to the patient one's messages


class Suffered(NamedTuple):
    """All rounds of one fault. ``before`` and ``after`` are what the broker held."""

    rounds: Sequence[Back]
    produced: Mapping[bool, Sequence[float]]  # messages a second, with the fault and without
    fetched: Mapping[bool, Sequence[float]]
    before: Footprint
    after: Footprint
    report: Report


class Load:
    """As many messages as one client can produce, and fetch."""

    def __init__(self, mq: Client) -> None:
        self.produced: dict[bool, list[float]] = {True: [], False: []}
        self.fetched: dict[bool, list[float]] = {True: [], False: []}
        self._mq = mq
        self._payloads = [number.to_bytes(2) * (PAYLOAD_BYTES // 2) for number in range(BATCH_MESSAGES)]
        mq.create_channel(WARM)
        with mq.producer(WARM) as producer:
            for _ in range(WARM_BATCHES):
                producer.send_many(self._payloads)

    def spread(self, seconds: float, *, has_fault: bool) -> None:
        """SLICES of both over ``seconds``."""
        self._mq.destroy_channel(LOAD, missing_ok=True)
        self._mq.create_channel(LOAD)
        begin = time.monotonic()
        for number in range(SLICES):
            _sleep_until(begin + seconds * number / SLICES)
            self.produced[has_fault].append(self._produce())
            self.fetched[has_fault].append(self._fetch())

    def _produce(self) -> float:
        count, begin = 0, time.monotonic()
        with self._mq.producer(LOAD) as producer:
            while time.monotonic() - begin < SLICE_SECONDS:
                producer.send_many(self._payloads)
                count += BATCH_MESSAGES
        return count / (time.monotonic() - begin)

    def _fetch(self) -> float:
        count, begin = 0, time.monotonic()
        position: int | str = "earliest"
        while (taken := time.monotonic() - begin) < SLICE_SECONDS:
            batch = self._mq.fetch(WARM, position, FETCH_MESSAGES)
            count += len(batch)
            position = batch.next_position if batch else "earliest"
        return count / taken


class Probe:
    """Two clients that consume while etcd is away, each in a thread of its own and from a group of its own."""

    def __init__(self, url: str, hasty_s: float) -> None:
        self._hasty = Client(url, timeout=hasty_s)
        self._patient = Client(url, timeout=None)
        self._hasty.create_channel(PROBED)
        for group in (HASTY, PATIENT):
            self._hasty.create_consumer_group(PROBED, group)
        self.error: RocksMQError | None = None
        self.answer_s = 0.0
        self.back_at = 0.0

    def begin(self) -> None:
        """There is a message, and both want it."""
        self._hasty.produce(PROBED, [b"there"])
        self._threads = [threading.Thread(target=ask) for ask in (self._ask_hastily, self._ask_patiently)]
        for thread in self._threads:
            thread.start()

    def answered(self) -> None:
        """Wait until the hasty one has got something."""
        self._threads[0].join()

    def end(self) -> None:
        """Wait until the patient one has got its message; then the hasty one gets its own."""
        self._threads[1].join(BACK_SECONDS_MAX)
        assert not self._threads[1].is_alive(), "a consume that waited for etcd's return waits still"
        if self.error is not None:
            assert self._hasty.consume(PROBED, HASTY, 10).payloads == [b"there"]

    def close(self) -> None:
        """End both, also those who wait."""
        self._hasty.close()
        self._patient.close()

    def _ask_hastily(self) -> None:
        self.error, begin = None, time.monotonic()
        try:
            found = self._hasty.consume(PROBED, HASTY, 10)
            assert found.payloads == [b"there"]
        except RocksMQError as error:
            self.error = error
        self.answer_s = time.monotonic() - begin

    def _ask_patiently(self) -> None:
        assert self._patient.consume(PROBED, PATIENT, 10, timeout=None).payloads == [b"there"]
        self.back_at = time.monotonic()


def suffer(outage: Outage, broker: Broker, *, seconds: float, rounds: int, hasty_s: float, has_load: bool) -> Suffered:
    """Let it strike ``rounds`` times for ``seconds``. Raises AssertionError when something is lost or doubled."""
    with ExitStack() as stack:
        mq = stack.enter_context(Client(broker.url))
        for channel in CHANNELS:
            mq.create_channel(channel)
        for group, channel in GROUPS.items():
            mq.create_consumer_group(channel, group)
        load = Load(mq) if has_load else None
        staff = stack.enter_context(Staff([Member(part, broker.url, broker.directory.parent) for part in CALM_CAST]))
        staff.await_begun()
        probe = Probe(broker.url, hasty_s)
        stack.callback(probe.close)
        _strike(outage, broker, probe, 0.0)  # once before it counts: what is made at the first time stays
        before = Footprint.of(broker.pid, broker.directory)
        backs: list[Back] = []
        for _ in range(rounds):
            if load is not None:
                load.spread(seconds, has_fault=False)
            backs.append(_strike(outage, broker, probe, seconds, load))
            staff.check()
        after = _settled(broker, before)
        staff.drain()
        report = Audit(mq, staff.members).run()
    if load is None:
        return Suffered(backs, {}, {}, before, after, report)
    return Suffered(backs, load.produced, load.fetched, before, after, report)


def _strike(outage: Outage, broker: Broker, probe: Probe, seconds: float, load: Load | None = None) -> Back:
    """One fault of so many seconds, and until it was noticed."""
    outage.strike(broker.pid)
    begin = time.monotonic()
    probe.begin()
    if load is not None:
        load.spread(seconds, has_fault=True)
    probe.answered()
    _sleep_until(begin + seconds)
    outage.heal()
    healed_at = time.monotonic()
    probe.end()
    return Back(probe.error, probe.answer_s, max(0.0, probe.back_at - healed_at))


def check(outage: Outage, found: Suffered) -> None:
    """Raises AssertionError when clients were told what they should not be."""
    for back in found.rounds:
        assert isinstance(back.error, MetaUnavailable) == outage.is_noticed, f"a consume got {back.error!r}"
    assert not found.report.errors, f"clients that wait for the end were told {found.report.errors}"
    assert found.report.unknown == found.report.refused == 0


def _sleep_until(moment: float) -> None:
    time.sleep(max(0.0, moment - time.monotonic()))


def _settled(broker: Broker, wanted: Footprint) -> Footprint:
    """Once it holds no more sockets and other files than ``wanted``, or else what it holds after SETTLE_SECONDS."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while True:
        found = Footprint.of(broker.pid, broker.directory)
        is_settled = found.sockets <= wanted.sockets and found.files <= wanted.files
        if is_settled or time.monotonic() > deadline:
            return found
        time.sleep(0.1)


def cells(name: str, found: Suffered) -> dict[str, str]:
    """One fault, to be read, by COLUMNS."""
    got = sorted({type(back.error).__name__ if back.error is not None else "messages" for back in found.rounds})
    handed = sum(found.report.handed_out.values())
    shown = (
        *(name, _share(found.produced), _share(found.fetched)),
        f"{' or '.join(got)} after {max(back.answer_s for back in found.rounds):.2f} s",
        f"{max(back.back_s for back in found.rounds):.2f} s",
        f"{found.report.produced:,} stored, {handed:,} handed out",
        *(str(found.before), str(found.after)),
    )
    return dict(zip(COLUMNS, shown, strict=True))


def _share(rates: Mapping[bool, Sequence[float]]) -> str:
    """What is left of a rate with the fault: of its median, lowest and highest."""
    whole = median(rates[False])
    return f"{median(rates[True]) / whole:.2f} ({min(rates[True]) / whole:.2f} .. {max(rates[True]) / whole:.2f})"


@click.command()
@click.option("--fault", "names", type=click.Choice(tuple(OUTAGES)), multiple=True, help="Only these.")
@click.option("--seconds", type=float, default=30.0, show_default=True, help="Of each fault, and as long without.")
@click.option("--rounds", type=click.IntRange(min=1), default=3, show_default=True)
@click.option("--timeout", type=float, default=3.0, show_default=True, help="Of the client that does not wait for the end.")
@click.option("--dir", "parent", type=click.Path(exists=True, file_okay=False), help="Where the run's directory is made.")
@click.option("--json", "as_json", is_flag=True)
def main(names: Sequence[str], seconds: float, rounds: int, timeout: float, parent: str | None, as_json: bool) -> None:
    """Let etcd be away in every way, and say what that did to who uses the broker."""
    rows: list[dict[str, str]] = []
    for name in names or OUTAGES:
        click.echo(f"{name}, {rounds} times for {seconds:g} s", err=True)
        with ExitStack() as stack:
            place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rocksmq-outages-", dir=parent)))
            outage = stack.enter_context(OUTAGES[name](place / "etcd"))
            broker = stack.enter_context(Broker(place / "data", "--meta", outage.url, *outage.arguments))
            found = suffer(outage, broker, seconds=seconds, rounds=rounds, hasty_s=timeout, has_load=True)
        check(outage, found)
        rows.append(cells(name, found))
    show_table(rows, COLUMNS, as_json=as_json)


if __name__ == "__main__":
    main()
