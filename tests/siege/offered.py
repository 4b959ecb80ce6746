"""Producers by hand, on several connections of one process: as fast as they are answered, or at a rate of their own.

At a rate of their own they wait for no reply, only for the socket to take what they send: what an overload is made of.
"""

from typing import Any, NamedTuple

import trio

from rocksmq.protocol.codec import SUCCESS, decode_error
from rocksmq.protocol.errors import Overloaded
from rocksmq.protocol.identity import Identity
from rocksmq.protocol.messages import pack_messages
from rocksmq.protocol.operations import Produce
from tests.helpers.raw import hello
from tests.helpers.raw_trio import RawTrio

from .load import Orders
from .wire import connected, source_of

CHANNEL = "offered"
WINDOW = 4  # batches on their way of one who waits for answers
RAMP_SECONDS = 1.0  # until what is acknowledged counts
DRAIN_SECONDS = 30.0


class Crowd(NamedTuple):
    """Producers, and what each sends at a time."""

    connections: int
    batch_messages: int
    message_bytes: int

    @property
    def batch_bytes(self) -> int:
        return self.batch_messages * self.message_bytes


class Answers(NamedTuple):
    """What became of what was sent. ``rate``: messages acknowledged a second, without the ramp and the end."""

    sent: int
    acknowledged: int
    overloaded: int
    refused_otherwise: int
    unanswered: int
    rate: float


class Tally:
    """Answers as they come."""

    def __init__(self) -> None:
        self.sent = self.acknowledged = self.overloaded = self.refused_otherwise = 0

    def take(self, items: list[Any]) -> bool:
        """One answer; whether what it answers was stored."""
        if items[1] == SUCCESS:
            self.acknowledged += 1
            return True
        error = decode_error(items)
        if isinstance(error, Overloaded) and error.retry_after:
            self.overloaded += 1
        else:
            self.refused_otherwise += 1
        return False

    @property
    def unanswered(self) -> int:
        return self.sent - self.acknowledged - self.overloaded - self.refused_otherwise


async def produce(orders: Orders, address: str, crowd: Crowd, rate: float | None) -> Answers:
    """Until told to end; ``rate``: messages a second of all of them together, None: each waits for its answers."""
    tally, over = Tally(), trio.Event()
    batch = pack_messages([bytes([number % 256]) * crowd.message_bytes for number in range(crowd.batch_messages)])
    interval = None if rate is None else crowd.batch_messages * crowd.connections / rate

    async def one(number: int) -> None:
        raw = RawTrio(await connected(address, source_of(number)))
        present_id: int = (await raw.call(hello()))[-1]
        window = trio.Semaphore(WINDOW)
        # An id has one batch on its way: one that followed a refused one of the same id would be out of sequence.
        free: list[Identity] = []
        on_their_way: dict[int, Identity] = {}

        async def read() -> None:
            while True:
                items = await raw.receive()
                identity = on_their_way.pop(items[0])
                identity.number += tally.take(items)
                free.append(identity)
                window.release()

        async with raw.stream, trio.open_nursery() as nursery:
            nursery.start_soon(read)
            due = trio.current_time() + (interval or 0) * number / crowd.connections
            while not over.is_set():
                if interval is None:
                    await window.acquire()
                else:
                    await trio.sleep_until(due)
                    due += interval
                identity = free.pop() if free else Identity.new(present_id)
                tally.sent += 1
                on_their_way[raw.next_correlation] = identity
                await raw.send(Produce(CHANNEL, identity.id, identity.number, *batch))

    async with trio.open_nursery() as nursery:
        for number in range(crowd.connections):
            nursery.start_soon(one, number)
        await trio.sleep(RAMP_SECONDS)
        begin, before = trio.current_time(), tally.acknowledged
        orders.is_ready()
        await orders.ended()
        gained = (tally.acknowledged - before) * crowd.batch_messages / (trio.current_time() - begin)
        over.set()
        with trio.move_on_after(DRAIN_SECONDS):
            while tally.unanswered:
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    return Answers(tally.sent, tally.acknowledged, tally.overloaded, tally.refused_otherwise, tally.unanswered, gained)
