"""Clients of every kind at work on one broker, so that every metric has something to tell.

Producers whose rate goes up and down, groups that keep up, one that reads too slowly, one that nobody reads, readers without a
group, and visitors who ask for what is not there. What goes wrong with a client is raised at the end of the block.
"""

import math
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from types import TracebackType
from typing import Self

from rocksmq.clients import ChannelNotFound, Client, RocksMQError
from rocksmq.clients.testing import Broker

from .raw import Raw

CHANNELS = {"orders": (20, 200), "events": (1, 80), "pictures": (2, 20_000)}  # messages a batch, bytes a message
GROUPS = {"orders": ("billing", "report", "left"), "events": ("watch",), "pictures": ("thumbnails",)}
HELD = "orders"  # until every group has read; one never does
PAUSE_SECONDS = 0.02  # between two batches, at the middle of the tide
TIDE_SECONDS = 40.0
SLOW_MESSAGES, SLOW_SECONDS = 5, 0.2  # however slow the machine is, more comes in
VISIT_SECONDS = 0.5
Work = Callable[[Client], object]


class Traffic:
    """A context manager: with its block, the clients end. ``seconds`` that the broker may be away without harm."""

    def __init__(self, broker: Broker, *, seconds: float = 10.0) -> None:
        self._broker = broker
        self._seconds = seconds
        self._over = threading.Event()
        self._began = time.monotonic()
        self._pool = ThreadPoolExecutor(16, "traffic")
        self._clients: list[Client] = []
        self._futures: list[Future[None]] = []

    def __enter__(self) -> Self:
        with self._broker.client() as mq:
            for channel, groups in GROUPS.items():
                mq.create_channel(channel, retention={"consumed_by_all": True} if channel == HELD else None)
                for group in groups:
                    mq.create_consumer_group(channel, group)
        for channel in CHANNELS:
            self._start(self._producing(channel))
        self._start(lambda mq: mq.consume("orders", "billing", timeout=1.0))
        self._start(lambda mq: mq.consume("pictures", "thumbnails", timeout=1.0))
        for _ in range(2):
            self._start(lambda mq: mq.consume("events", "watch", 1, timeout=5.0))
        self._start(self._slow)
        self._start(self._following("orders"))
        self._start(self._visit)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._over.set()
        for client in self._clients:
            client.close()
        self._pool.shutdown()
        if error is None:
            for future in self._futures:
                future.result()

    def _start(self, work: Work) -> None:
        client = self._broker.client(timeout=self._seconds)
        self._clients.append(client)

        def run() -> None:
            while not self._over.is_set():
                try:
                    work(client)
                except RocksMQError:
                    if not self._over.is_set():
                        raise

        self._futures.append(self._pool.submit(run))

    def _producing(self, channel: str) -> Work:
        count, size = CHANNELS[channel]

        def work(mq: Client) -> None:
            mq.produce(channel, [random.randbytes(size) for _ in range(random.randint(1, 2 * count))])
            tide = math.sin((time.monotonic() - self._began) / TIDE_SECONDS * math.tau)
            self._over.wait(PAUSE_SECONDS * 4**-tide)

        return work

    def _slow(self, mq: Client) -> None:
        mq.consume("orders", "report", SLOW_MESSAGES)
        self._over.wait(SLOW_SECONDS)

    def _following(self, channel: str) -> Work:
        position = [0]

        def work(mq: Client) -> None:
            batch = mq.fetch(channel, position[0] or "latest", timeout=1.0)
            position[0] = batch.next_position

        return work

    def _visit(self, _: Client) -> None:
        with self._broker.client() as mq, suppress(ChannelNotFound):
            mq.ping()
            mq.describe_channel("nowhere")
        with Raw(self._broker.address, says_hello=False) as raw, suppress(EOFError, OSError):
            raw.socket.sendall(b"GET / HTTP/1.1\r\n\r\n")
            raw.receive()
        self._over.wait(VISIT_SECONDS)
