"""1,000 clients a second that connect, say HELLO and go: nothing of them stays.

The broker is looked at when a third of the time is over and at the end, each time with nobody connected.
"""

import time
from pathlib import Path

import trio

from rocksmq.clients.testing import Broker
from tests.crash.footprint import Footprint

from .honest import Honest
from .load import Counts, Load, Orders, raise_file_limit
from .memory import Memory
from .result import MIB, Check, Result
from .wire import connected, hello_frame, source_of

RATE = 1_000
SECONDS, SHORT_SECONDS = 60.0, 5.0
ADDRESSES = 64  # each has 28,000 ports, which the kernel keeps for a minute
AT_ONCE = 200
QUIET_SECONDS = 30.0  # for the broker to have closed what is gone, and ended threads that it wants no more
GROWTH_BYTES_MAX = 2 * MIB  # of noise: 60,000 connections that left 50 bytes each would be seen
STEP_SECONDS = 0.02


async def come_and_go(orders: Orders, address: str, seconds: float) -> Counts:
    """For that long, at RATE or as fast as it goes; every second one ends in a reset, as of a crashed machine."""
    counts = {"greeted": 0, "failed": 0}
    turns = trio.CapacityLimiter(AT_ONCE)

    async def one(number: int) -> None:
        try:
            async with turns, await connected(address, source_of(number % ADDRESSES)) as stream:
                await stream.send_all(hello_frame())
                counts["greeted" if await stream.receive_some() else "failed"] += 1
        except (OSError, trio.BrokenResourceError):
            counts["failed"] += 1

    orders.is_ready()
    begin, number = trio.current_time(), 0
    async with trio.open_nursery() as nursery:
        while (passed := trio.current_time() - begin) < seconds:
            while number < passed * RATE and turns.borrowed_tokens < AT_ONCE:
                nursery.start_soon(one, number)
                number += 1
                if number % AT_ONCE == 0:
                    await trio.lowlevel.checkpoint()
            await trio.sleep(STEP_SECONDS)
    return counts


def settled(broker: Broker, before: Footprint) -> Footprint:
    """What it holds once nobody of them is connected, and no thread is left that synced for a while."""
    deadline = time.monotonic() + QUIET_SECONDS
    while time.monotonic() < deadline:
        found = Footprint.of(broker.pid, broker.directory)
        if found.sockets <= before.sockets and found.threads <= before.threads:
            break
        time.sleep(0.05)
    return Footprint.of(broker.pid, broker.directory)


def run(place: Path, *, is_short: bool) -> Result:
    """A third of it to warm up, then the rest."""
    raise_file_limit()
    seconds = SHORT_SECONDS if is_short else SECONDS
    with Broker(place / "data") as broker, Honest(broker) as honest:
        idle = Footprint.of(broker.pid, broker.directory)

        def churned(part: float) -> tuple[Counts, float]:
            with Load(come_and_go, broker.address, part) as load:
                begin = time.monotonic()  # nobody produces meanwhile: memtables grow
                return load.told(part + QUIET_SECONDS), time.monotonic() - begin

        first, _ = churned(seconds / 3)
        before, memory_before = settled(broker, idle), Memory.of(broker.pid)
        second, took = churned(seconds * 2 / 3)
        after, memory_after = settled(broker, idle), Memory.of(broker.pid)
        honest.seconds_of_sends(1.0)
        missing = honest.missing()
    grown = memory_after.anon_bytes - memory_before.anon_bytes
    return Result(
        "churn",
        {"seconds": seconds, "wanted a second": RATE},
        {name: first[name] + second[name] for name in first},
        {"connections a second": second["greeted"] / took, "MiB held": memory_after.anon_bytes / MIB},
        (
            Check("MiB grown", grown / MIB, GROWTH_BYTES_MAX / MIB),
            Check("sockets more", after.sockets - before.sockets, 0),
            Check("files more", after.files - before.files, 0),
            Check("threads more", after.threads - before.threads, 0),
            Check("failed", first["failed"] + second["failed"], 0),
            Check("messages missing", missing, 0),
        ),
    )
