"""The roles of `streams` that produce: each notes what it is about to send, and what of it is stored under which ids.

``sent`` [number, {channel: items}], ``stored`` [number, {channel: [first id, count]}]. The timestamps of a pack are open until
all of it is stored, so the ticker promises nothing that is not durable.
"""

from collections.abc import Callable, Mapping, Sequence

from rocksmq.clients.msgstream import MsgPack, MsgStream, PackPartlyProduced, TimeTickMsg, TsMsg

from .streams_clock import AHEAD_MAX, ClockClient
from .streams_content import Item, by_id, made, parts
from .streams_worker import Worker, is_passing

PAUSE_SECONDS = 0.03  # between two packs of a producer, at the most
HOLD_SECONDS = 0.03  # that a producer keeps timestamps before it sends what has them
TICK_SECONDS = (0.01, 0.05)  # between two ticks
TICKER = 0xFF  # in the place of a producer's number


class _Sender:
    """Sends packs, and keeps the book."""

    def __init__(self, worker: Worker, stream: MsgStream) -> None:
        self._worker = worker
        self._stream = stream
        self._number = 0

    def send(
        self, send: Callable[[MsgPack], Mapping[str, range]], msgs: list[TsMsg], items: Mapping[str, Sequence[Item]]
    ) -> None:
        """Until each part of it is stored."""
        book, number = self._worker.book, self._number
        self._number += 1
        book.note("sent", [number, items])
        pack = MsgPack(msgs=msgs)
        while True:
            try:
                stored = send(pack)
            except PackPartlyProduced as error:
                self._note_stored(number, error.ids)
                for failure in error.errors.values():
                    if not is_passing(failure):
                        raise
                book.note("error", ["PackPartlyProduced", str(error)])
                pack, send = error.rest, self._stream.produce
                self._worker.pause(0.005)
            else:
                self._note_stored(number, stored)
                return

    def _note_stored(self, number: int, stored: Mapping[str, range]) -> None:
        if stored:
            self._worker.book.note("stored", [number, {channel: [ids.start, len(ids)] for channel, ids in stored.items()}])


def write(worker: Worker) -> None:
    """Packs of messages, again and again; a writer of an odd number mixes types, and has a repack function for that."""
    part, random, clock = worker.part, worker.random, ClockClient(worker.part.clock_port)
    next_id = part.number << 48 | part.life << 32
    with worker.persist(worker.factory().new_msg_stream) as stream:
        worker.persist(lambda: stream.as_producer(part.channels))
        mixes = part.number % 2 == 1
        if mixes:
            stream.set_repack_func(
                lambda msgs, _: {at: MsgPack(msgs=own) for at, own in by_id(msgs, len(part.channels)).items()}
            )
        sender, route = _Sender(worker, stream), by_id if mixes else parts
        while not worker.must_stop:
            stamps = clock.open(random.randint(1, 8), random.randint(1, AHEAD_MAX))
            msgs = made(random, next_id, stamps, mixes=mixes)
            next_id += len(msgs)
            items = {
                part.channels[index]: [Item.of(msg, is_due=stamps.is_open(msg.end_ts)) for msg in chosen]
                for index, chosen in route(msgs, len(part.channels)).items()
            }
            worker.pause(random.random() * HOLD_SECONDS)
            sender.send(stream.produce, msgs, items)
            clock.close()
            worker.pause(random.random() * PAUSE_SECONDS)
    worker.book.note("end")


def tick(worker: Worker) -> None:
    """Ticks up to what is settled: to all channels, or to one; some are lower than others before, some are 0."""
    part, random, clock = worker.part, worker.random, ClockClient(worker.part.clock_port)
    channels, next_id = part.channels, TICKER << 48 | part.life << 32
    with worker.persist(worker.factory().new_msg_stream) as stream:
        worker.persist(lambda: stream.as_producer(channels))
        sender = _Sender(worker, stream)
        while not worker.must_stop:
            final, settled = worker.final, clock.settled()
            chance = 1.0 if final is not None else random.random()
            timestamp = settled if final is None else final
            timestamp = 0 if chance < 0.03 else max(0, timestamp - random.randint(0, 50)) if chance < 0.1 else timestamp
            key = random.randrange(len(channels))
            msg = TimeTickMsg(timestamp, id=next_id, hash_keys=[key])
            next_id += 1
            if chance < 0.3:
                sender.send(stream.produce, [msg], {channels[key]: [Item.of(msg)]})
            else:
                sender.send(stream.broadcast, [msg], {channel: [Item.of(msg)] for channel in channels})
            if final is not None:
                break
            worker.pause(random.uniform(*TICK_SECONDS))
    worker.book.note("end")


PRODUCERS: dict[str, Callable[[Worker], None]] = {"writer": write, "ticker": tick}
