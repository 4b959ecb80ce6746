"""5,000 sockets that drip: half of them a HELLO, half a frame behind their HELLO, a byte at a time, and again when closed.

They come from many addresses, so that the limit of one address is not what saves the broker.
"""

import re
import urllib.request
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread
from typing import NamedTuple

import trio

from rocksmq.broker.limits import Limits
from rocksmq.clients import Client, RocksMQError
from rocksmq.clients.testing import Broker

from .honest import Honest, Pair
from .load import Counts, Load, Orders, raise_file_limit
from .result import Check, Result
from .wire import connected, hello_frame, source_of

SOCKETS, SHORT_SOCKETS = 5_000, 500
SECONDS, SHORT_SECONDS = 30.0, 2.0  # a round
ROUNDS, SHORT_ROUNDS = 2, 1
PER_ADDRESS = 200  # half of them drip their HELLO: more than one address may
DRIP_SECONDS = 1.0  # between two bytes
AGAIN_SECONDS = 5.0  # until one that was closed connects again
RAMP_SECONDS = AGAIN_SECONDS  # over which the first ones come, and so those that come again
P99_RATIO_MAX = 2.0
NEWCOMER_SECONDS = 10.0  # that a client which is not connected yet has to get in
POLL_SECONDS = 0.2
FRAME_BEGIN = bytes((0, 16, 0, 0))  # of a frame of 1 MiB
_SAMPLE = re.compile(r'^rocksmq_connections(_rejected_total)?\{(?:state|reason)="(\w+)"\} (\S+)$', re.MULTILINE)


async def drip(orders: Orders, address: str, count: int) -> Counts:
    """``count`` sockets."""
    counts = {"connects": 0, "bytes dripped": 0, "closed by the broker": 0, "logged in": 0}

    async def one(number: int) -> None:
        await trio.sleep(RAMP_SECONDS * number / count)
        while True:
            with suppress(OSError, trio.BrokenResourceError):
                async with await connected(address, source_of(number // PER_ADDRESS)) as stream:
                    counts["connects"] += 1
                    await live(stream, logs_in=number % 2 == 1)
            counts["closed by the broker"] += 1
            await trio.sleep(AGAIN_SECONDS)

    async def live(stream: trio.SocketStream, *, logs_in: bool) -> None:
        """Until the broker closes it."""
        data = hello_frame()
        if logs_in:
            await stream.send_all(data)
            await stream.receive_some(len(data))
            counts["logged in"] += 1
            data = FRAME_BEGIN + bytes(10_000)
        for byte in data[:-1]:  # whole, a HELLO would be one
            await stream.send_all(bytes((byte,)))
            counts["bytes dripped"] += 1
            with trio.move_on_after(DRIP_SECONDS):
                while await stream.receive_some():
                    pass
                return
        await stream.receive_some()

    async with trio.open_nursery() as nursery:
        for number in range(count):
            nursery.start_soon(one, number)
        await trio.sleep(RAMP_SECONDS)
        orders.is_ready()
        await orders.ended()
        nursery.cancel_scope.cancel()
    return counts


class Seen(NamedTuple):
    """What the broker shows of its connections: those before HELLO at their most, and how many it refused by each limit."""

    handshakes_most: int
    rejected: dict[str, int]


class Scraper:
    """Asks the broker's metrics again and again, and whether a client that comes new gets in."""

    def __init__(self, broker: Broker) -> None:
        self.seen = Seen(0, {})
        self.newcomers = self.newcomers_in = 0
        self._broker = broker
        self._over = Event()
        self._threads = [Thread(target=self._scrape), Thread(target=self._come)]

    def __enter__(self) -> "Scraper":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _scrape(self) -> None:
        while not self._over.wait(POLL_SECONDS):
            with urllib.request.urlopen(f"{self._broker.http_url}/metrics") as answer:
                samples = _SAMPLE.findall(answer.read().decode())
            handshakes = max(int(float(value)) for _, label, value in samples if label == "handshake")
            rejected = {label: int(float(value)) for is_rejected, label, value in samples if is_rejected}
            self.seen = Seen(max(self.seen.handshakes_most, handshakes), rejected)

    def _come(self) -> None:
        while not self._over.wait(POLL_SECONDS):
            self.newcomers += 1
            with suppress(RocksMQError), Client(self._broker.url, timeout=NEWCOMER_SECONDS) as mq:
                mq.ping()
                self.newcomers_in += 1


def run(place: Path, *, is_short: bool) -> Result:
    """Alone and beside them, in turns, with the limits as they are shipped."""
    raise_file_limit()
    sockets, seconds = (SHORT_SOCKETS, SHORT_SECONDS) if is_short else (SOCKETS, SECONDS)
    rounds = SHORT_ROUNDS if is_short else ROUNDS
    pair, counts = Pair.new(), dict[str, int]()
    limits = Limits()
    with Broker(place / "data", http="127.0.0.1:0") as broker, Honest(broker) as honest, Scraper(broker) as scraper:
        for _ in range(rounds):
            pair.alone.extend(honest.seconds_of_sends(seconds))
            with Load(drip, broker.address, sockets) as load:
                pair.beside.extend(honest.seconds_of_sends(seconds))
                counts = {name: counts.get(name, 0) + value for name, value in load.end().items()}
        missing = honest.missing()
    refused = sum(scraper.seen.rejected.values())
    return Result(
        "slowloris",
        {
            **{"sockets": sockets, "addresses": sockets // PER_ADDRESS, "seconds": seconds * rounds},
            **{"byte each s": DRIP_SECONDS, "again after s": AGAIN_SECONDS},
        },
        {**counts, "refused": refused, "newcomers": scraper.newcomers, "newcomers in": scraper.newcomers_in},
        pair.measured(),
        (
            Check("p99 beside / alone", pair.ratio, P99_RATIO_MAX, is_timing=True),
            Check("connections before HELLO at most", scraper.seen.handshakes_most, limits.handshakes_max),
            Check("refused", refused, 1, is_least=True),
            Check("messages missing", missing, 0),
        ),
    )
