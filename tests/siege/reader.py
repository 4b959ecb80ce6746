"""A reader that takes 1 KB a second of replies of 7 MiB, of which it has asked for hundreds, while gigabytes go in.

The broker may hold for it what an output buffer holds, once. A cap on the channel keeps the disk small, so that it also
reads what retention is removing. Whenever the broker closes it, it comes again.
"""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from random import Random
from statistics import mean
from time import monotonic, sleep

import trio

from rocksmq.broker.limits import Limits
from rocksmq.clients.testing import Broker
from rocksmq.protocol.operations import Fetch, Position
from tests.helpers.raw import frame, request_items

from .load import Counts, Load, Orders
from .memory import IDLE_BYTES, STORE_BYTES_MAX, Memory, Watch
from .result import MIB, Check, Result
from .wire import connected, hello_frame, source_of

BYTES, SHORT_BYTES = 5_000_000_000, 100_000_000
KEPT_BYTES = 256 * MIB
CHANNEL = "flood"
MESSAGE_BYTES, BATCH_MESSAGES = 1_000, 1_000
FETCHES = 200
READ_BYTES = 1_000
RECEIVE_BUFFER_BYTES = 4_096
WARM_UP = 0.2  # of the time
PARTS = 4  # of the rest, whose means are compared
APART_MAX = 0.05
HELD_BYTES_MAX = IDLE_BYTES + STORE_BYTES_MAX + Limits().output_bytes_max + Limits().frame_bytes_max  # one buffer and a reply


async def trickle(orders: Orders, address: str) -> Counts:
    """One such reader."""
    counts = {"bytes read": 0, "connections": 0}
    fetch = Fetch(CHANNEL, Position.EARLIEST, 0, Limits().consume_messages_max, Limits().consume_bytes_max, 0)
    requests = b"".join(frame(request_items(number + 2, fetch)) for number in range(FETCHES))

    async def read() -> None:
        while True:
            with suppress(OSError, trio.BrokenResourceError):
                async with await connected(address, source_of(0), RECEIVE_BUFFER_BYTES) as stream:
                    counts["connections"] += 1
                    await stream.send_all(hello_frame() + requests)
                    while data := await stream.receive_some(READ_BYTES):
                        counts["bytes read"] += len(data)
                        await trio.sleep(1.0)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        orders.is_ready()
        await orders.ended()
        nursery.cancel_scope.cancel()
    return counts


def flood(broker: Broker, size: int) -> None:
    """So many bytes that nothing compresses."""
    random = Random(7660)
    noise = random.randbytes(BATCH_MESSAGES * MESSAGE_BYTES * 2)
    with broker.client(timeout=60) as mq, mq.producer(CHANNEL) as producer:
        for _ in range(size // (BATCH_MESSAGES * MESSAGE_BYTES)):
            begin = random.randrange(BATCH_MESSAGES * MESSAGE_BYTES)
            ends = range(begin, begin + BATCH_MESSAGES * MESSAGE_BYTES, MESSAGE_BYTES)
            producer.send_many([noise[end : end + MESSAGE_BYTES] for end in ends])


def parts(samples: Sequence[tuple[float, Memory]]) -> list[float]:
    """The mean of each part of the time behind the warm-up."""
    begin, step = len(samples) * WARM_UP, len(samples) * (1 - WARM_UP) / PARTS
    return [
        mean(memory.anon_bytes for _, memory in samples[round(begin + part * step) : round(begin + (part + 1) * step)])
        for part in range(PARTS)
    ]


def run(place: Path, *, is_short: bool) -> Result:
    """The flood beside the reader."""
    size = SHORT_BYTES if is_short else BYTES
    with Broker(place / "data") as broker:
        with broker.client() as mq:
            mq.create_channel(CHANNEL, retention={"max_bytes": KEPT_BYTES})
        flood(broker, SHORT_BYTES // 10)  # something to read
        with Load(trickle, broker.address) as load, Watch(broker.pid) as watch:
            begin = monotonic()
            flood(broker, size)
            took = monotonic() - begin
            sleep(1.0)
            counts = load.end()
    means = parts(watch.samples)
    apart = max(abs(value / mean(means) - 1) for value in means)
    held = max(memory.anon_bytes for _, memory in watch.samples)
    return Result(
        "reader",
        {"MB": size // 1_000_000, "bytes a second": READ_BYTES, "fetches asked for": FETCHES},
        counts,
        {
            "MB/s in": size / 1e6 / took,
            **{f"MiB held, part {number + 1}": value / MIB for number, value in enumerate(means)},
        },
        (
            # What a broker holds is filled by its first gigabyte only.
            *(() if is_short else (Check("apart from the mean at most", apart, APART_MAX),)),
            Check("MiB held at most", held / MIB, HELD_BYTES_MAX / MIB),
        ),
    )
