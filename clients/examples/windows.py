"""Two writers, one ticker, and a reader that puts their rows into windows of time, each in order and complete.

    python windows.py [URL | memory]

A tick promises that nothing at or before its time follows. No writer can promise that for the other: so there is one
ticker. The writers take their timestamps from one clock, which knows those that are still on their way, and the ticker
sends the highest below all of these. Writers in several processes need a clock that all of them reach.

The functions take a factory of streams. With ``memory`` the very same run on channels in this process, as in your tests, and
with pulsar://host:6650 on Apache Pulsar, where that makes a topic when one is named, as it does unless it is told not to.
"""

import secrets
import sys
import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager

from rocksmq.clients import Client, OwnerDescription
from rocksmq.clients.msgstream import (
    InsertMsg,
    MemBroker,
    MemMsgStreamFactory,
    MsgPack,
    MsgStream,
    MsgStreamFactory,
    TimeTickMsg,
    msg_stream_factory,
)

WIDTH = 100  # of a window
WRITERS, PACKS, ROWS = 2, 100, 7  # packs of a writer, rows of a pack
END = WRITERS * PACKS * ROWS  # the last timestamp


class Clock:
    """Gives out timestamps from 1 on, each once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = 0
        self._open: set[int] = set()  # the first of those that belong together

    @contextmanager
    def timestamps(self, count: int) -> Generator[range]:
        """For what is durable when the block ends. If the block fails, they stay open, and no tick passes them."""
        with self._lock:
            first = self._last + 1
            self._last += count
            self._open.add(first)
        yield range(first, first + count)
        with self._lock:
            self._open.remove(first)

    def settled(self) -> int:
        """What has a timestamp up to this one is durable. Timestamps that belong together are settled together."""
        with self._lock:
            return min(self._open, default=self._last + 1) - 1


def write(number: int, clock: Clock, factory: MsgStreamFactory, channels: Sequence[str]) -> None:
    """Rows of one writer, spread over the channels by their keys."""
    with factory.new_msg_stream() as stream:
        stream.as_producer(channels)
        for pack in range(PACKS):
            keys = range(pack * ROWS, (pack + 1) * ROWS)
            rows = [b"row %d of writer %d" % (key, number) for key in keys]
            with clock.timestamps(ROWS) as stamps:
                msg = InsertMsg(id=pack, timestamps=stamps, row_ids=keys, rows=rows, hash_keys=keys)
                stream.produce(MsgPack(msgs=[msg]))


def tick(clock: Clock, factory: MsgStreamFactory, channels: Sequence[str], is_over: threading.Event) -> None:
    """A tick on every channel, a hundred times a second at most."""
    ticked = 0
    with factory.new_msg_stream() as stream:
        stream.as_producer(channels)
        while not is_over.wait(0.01):
            if (settled := clock.settled()) > ticked:
                stream.broadcast(MsgPack(msgs=[TimeTickMsg(timestamp=settled)]))
                ticked = settled


def windows(stream: MsgStream) -> Iterator[list[tuple[int, bytes]]]:
    """The rows of each window with their timestamps, as soon as a pack's end says that there are no more."""
    rows: list[tuple[int, bytes]] = []
    end = WIDTH
    while pack := stream.consume(timeout=10.0):
        for msg in pack.msgs:
            if isinstance(msg, InsertMsg):
                rows += zip(msg.timestamps, msg.rows, strict=True)
        rows.sort()
        while end <= pack.end_ts:
            count = sum(timestamp <= end for timestamp, _ in rows)
            yield rows[:count]
            del rows[:count]
            end += WIDTH


def run(factory: MsgStreamFactory, channels: Sequence[str]) -> None:
    """Print a line a window."""
    clock, is_over = Clock(), threading.Event()
    threads = [threading.Thread(target=write, args=(number, clock, factory, channels)) for number in range(WRITERS)]
    threads.append(threading.Thread(target=tick, args=(clock, factory, channels, is_over)))
    for thread in threads:
        thread.start()
    try:
        with factory.new_tt_msg_stream() as stream:
            stream.as_consumer(channels, "windows")
            stream.start()
            for rows in windows(stream):
                print(f"{rows[0][0]} to {rows[-1][0]}: {len(rows)} rows")
                if rows[-1][0] >= END:
                    break
    finally:
        is_over.set()
        for thread in threads:
            thread.join()


def main(url: str | None) -> None:
    """On the broker at ``url``, on Pulsar, or in memory."""
    owner = OwnerDescription("windows")
    if url == "memory":
        memory = MemBroker()
        run(MemMsgStreamFactory(memory), memory.create_channels(owner, 4))
    elif url is not None and url.startswith("pulsar"):
        name = secrets.token_hex(8)
        run(msg_stream_factory(url), [f"windows-{name}-{number}" for number in range(4)])
    else:
        with Client(url) as mq:
            channels = mq.create_channels(owner, 4)
            run(msg_stream_factory(url), channels)
            mq.destroy_channels(channels)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else None)
