"""What positions cost in etcd, beside positions in the broker's own database: `python -m tests.bench.meta`.

    python -m tests.bench.meta [--rounds N] [--seconds N] [--dir DIR] [--json]

Two brokers, one etcd, all on the same disk; each round measures both with every load. Many groups at once are driven from
one thread over one connection, each group with one request on its way, so that the broker is measured and not the client.
"""

import secrets
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import click

from rocksmq.clients import Client
from rocksmq.clients.bench import throughput
from rocksmq.clients.cli.output import show_table
from rocksmq.clients.testing import Broker
from rocksmq.protocol.identity import Identity
from rocksmq.protocol.operations import Commit, Consume, CreateGroup, DescribeGroup, DestroyGroup, Position
from tests.helpers.etcd import Etcd
from tests.helpers.raw import Raw, response

PROJECT = Path(__file__).parents[2]
COLUMNS = ("load", "unit", "embedded", "etcd", "etcd / embedded")
CHANNEL = "bench"
MESSAGES, BATCH_MESSAGES, PAYLOAD_BYTES = 1_000_000, 1_000, 100
WARM_UP = 20  # answers before those that count, a group


class Side(NamedTuple):
    """One broker, which holds MESSAGES in CHANNEL, and the ids of those."""

    url: str
    address: str
    ids: Sequence[int]

    @classmethod
    def filled(cls, broker: Broker) -> "Side":
        """With a broker that has nothing yet."""
        payloads = [secrets.token_bytes(PAYLOAD_BYTES) for _ in range(BATCH_MESSAGES)]
        with Client(broker.url) as mq:
            mq.create_channel(CHANNEL)
            ids = [number for _ in range(MESSAGES // BATCH_MESSAGES) for number in mq.produce(CHANNEL, payloads)]
        return cls(broker.url, broker.address, ids)

    def fan(self, groups: int, work: "Callable[[Fan], float]") -> float:
        """What ``work`` finds with so many groups, which are there for it alone."""
        with Raw(self.address) as raw:
            fan = Fan(raw, groups)
            found = work(fan)
            fan.destroy()
        return found


class Fan:
    """Groups of CHANNEL, created for one measurement, each with one request on its way."""

    def __init__(self, raw: Raw, groups: int) -> None:
        self._raw = raw
        self._groups = [secrets.token_hex(8) for _ in range(groups)]
        for group in self._groups:
            raw.call(CreateGroup(CHANNEL, group, Position.EARLIEST, 0, secrets.token_bytes(16)))

    def destroy(self) -> None:
        """The groups."""
        for group in self._groups:
            self._raw.call(DestroyGroup(CHANNEL, group, self._raw.call(DescribeGroup(CHANNEL, group)).creation_id))

    def consume(self, most: int, seconds: float) -> tuple[float, float]:
        """Each consumes ``most`` again and again: messages and answers a second."""

        def requests(group: str) -> Iterator[Consume]:
            identity = Identity.new(self._raw.server.present_id)
            for number in count():
                yield Consume(CHANNEL, group, identity.id, number, most, 4 << 20, 0)

        return self._drive(requests, Consume, seconds)

    def commit(self, ids: Sequence[int], seconds: float) -> float:
        """Each commits one message after the other: answers a second."""

        def requests(group: str) -> Iterator[Commit]:
            for message_id in ids:
                yield Commit(CHANNEL, group, message_id + 1, None, b"")

        return self._drive(requests, Commit, seconds)[1]

    def _drive(self, requests: Callable[[str], Iterator[Any]], kind: type[Any], seconds: float) -> tuple[float, float]:
        waiting = {self._raw.send(next(of)): of for of in map(requests, self._groups)}
        messages = answers = 0
        begin = end = float("inf")
        for number in count():
            if number == WARM_UP * len(self._groups):
                messages = answers = 0
                begin = time.perf_counter()
                end = begin + seconds
            items = self._raw.receive()
            of = waiting.pop(items[0])
            reply = response(kind, items)
            is_over = time.perf_counter() > end
            if kind is Consume:
                messages += reply.message_count
                is_over |= not reply.message_count  # it has had them all
            if is_over:
                break
            answers += 1
            waiting[self._raw.send(next(of))] = of
        taken = time.perf_counter() - begin
        for _ in waiting:
            self._raw.receive()
        return messages / taken, answers / taken


def one_reader(side: Side, seconds: float) -> float:
    """Messages a second of one `Consumer` that claims 10,000 at a time."""
    messages, taken = 0, 0.0
    with Client(side.url) as mq:
        while taken < seconds:
            group = secrets.token_hex(8)
            mq.create_consumer_group(CHANNEL, group)
            begin = time.perf_counter()
            throughput.receive_batches(mq, CHANNEL, group, MESSAGES)
            taken += time.perf_counter() - begin
            messages += MESSAGES
            mq.destroy_consumer_group(CHANNEL, group)
    return messages / taken


def one_at_a_time(side: Side, seconds: float) -> float:
    """Microseconds (median) of a consume of one message by one client."""
    taken: list[float] = []
    with Client(side.url) as mq:
        group = secrets.token_hex(8)
        mq.create_consumer_group(CHANNEL, group)
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            begin = time.perf_counter()
            mq.consume(CHANNEL, group, 1)
            taken.append(time.perf_counter() - begin)
    return median(taken[WARM_UP:]) * 1e6


def consumed_by(groups: int, most: int) -> Callable[[Side, float], float]:
    """Messages a second, all groups together, ``most`` a consume."""
    return lambda side, seconds: side.fan(groups, lambda fan: fan.consume(most, seconds)[0])


LOADS: dict[str, tuple[str, Callable[[Side, float], float]]] = {
    "1 reader, 10,000 a consume": ("msg/s", one_reader),
    "16 groups, 10,000 a consume": ("msg/s", consumed_by(16, 10_000)),
    "16 groups, 1,000 a consume": ("msg/s", consumed_by(16, 1_000)),
    "16 groups, 100 a consume": ("msg/s", consumed_by(16, 100)),
    "100 groups, consumes of 10": ("consumes/s", lambda side, s: side.fan(100, lambda fan: fan.consume(10, s)[1])),
    "100 groups, commits": ("commits/s", lambda side, s: side.fan(100, lambda fan: fan.commit(side.ids, s))),
    "1 reader, consume of one": ("us, median", one_at_a_time),
}


def measure(sides: Sequence[Side], rounds: int, seconds: float, say: Callable[[str], None]) -> Iterator[dict[str, str]]:
    """A row a load, once all rounds are over; the two sides take turns in who is first."""
    rates: dict[str, list[list[float]]] = {name: [[], []] for name in LOADS}
    for number in range(rounds):
        for name, (_, load) in LOADS.items():
            say(f"round {number + 1} of {rounds}: {name}")
            for which in (0, 1) if number % 2 == 0 else (1, 0):
                rates[name][which].append(load(sides[which], seconds))
    for name, (unit, _) in LOADS.items():
        embedded, etcd = rates[name]
        ratios = [there / here for here, there in zip(embedded, etcd, strict=True)]
        cells = (name, unit, *(_shown(values, ",.0f") for values in (embedded, etcd)), _shown(ratios, ".2f"))
        yield dict(zip(COLUMNS, cells, strict=True))


def _shown(values: Sequence[float], form: str) -> str:
    return f"{median(values):{form}} ({min(values):{form}} .. {max(values):{form}})"


@click.command()
@click.option("--rounds", type=click.IntRange(min=1), default=5, show_default=True)
@click.option("--seconds", type=float, default=2.0, show_default=True, help="Of each load, in each round.")
@click.option("--dir", "parent", type=click.Path(exists=True, file_okay=False, path_type=Path), default=PROJECT)
@click.option("--json", "as_json", is_flag=True)
def main(rounds: int, seconds: float, parent: Path, as_json: bool) -> None:
    """Measure both, on the disk of DIR."""
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=".bench-", dir=parent)))
        etcd = stack.enter_context(Etcd(place / "etcd"))
        brokers = [Broker(place / "embedded"), Broker(place / "remote", "--meta", etcd.url("bench"))]
        sides = [Side.filled(stack.enter_context(broker)) for broker in brokers]
        rows = list(measure(sides, rounds, seconds, lambda text: click.echo(text, err=True)))
    show_table(rows, COLUMNS, as_json=as_json)


if __name__ == "__main__":
    main()
