"""One large channel: loading it, starts, reading all of it, seeking in it. Whatever comes back is checked on the way."""

import os
import time
from bisect import bisect_left
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from random import Random
from struct import Struct
from typing import NamedTuple

from rocksmq.clients import Client, Message

from .scale_place import (
    CONSUME_RATIO_MIN,
    MIB,
    SEEK_MS_MAX,
    START_SECONDS_MAX,
    Result,
    Tally,
    Watched,
    timed,
)

LARGE, SMALL, GROUP = "large", "small", "readers"
PAYLOAD_BYTES = 100
CHUNK = 4_096  # messages that are handed to the producer at a time
CONSUME_MESSAGES = 10_000
STRETCHES = 20  # of the load and of the read, between which something is looked at
NOTED_PER_STRETCH = 10  # messages whose place and id are known
SMALL_MESSAGES_MAX = 1_000_000
TAIL_MESSAGES = 500_000  # that are on their way into the log when the broker is killed: so many, then twice, three times
TIMEOUT_SECONDS = 120.0
_INDEX = Struct(">Q")
_FILLERS = [os.urandom(PAYLOAD_BYTES - _INDEX.size) for _ in range(CHUNK)]  # more than any compression looks back


class Noted(NamedTuple):
    """The message of that number, counted from 0, has that id."""

    number: int
    message_id: int


def payloads(begin: int, end: int) -> list[bytes]:
    """Each begins with its index."""
    return [_INDEX.pack(index) + filler for index, filler in zip(range(begin, end), _FILLERS, strict=False)]


def index_of(payload: bytes) -> int:
    """Which message that is."""
    return int(_INDEX.unpack_from(payload)[0])


class LoadedChannel:
    """A channel whose messages are numbered, and of which some are known by their ids."""

    def __init__(self, mq: Client, name: str) -> None:
        self.name = name
        self.count = 0
        self.notes: list[Noted] = []
        mq.create_channel(name)

    def load(self, mq: Client, count: int, stops: int, batch_messages: int) -> float:
        """Append ``count`` messages, with a look at the id after each of ``stops`` parts; the seconds."""
        begin, end = self.count, self.count + count
        started = time.perf_counter()
        with mq.producer(self.name, batch_messages=batch_messages, batch_bytes=2 * MIB) as producer:
            for stop in range(1, stops + 1):
                part_end = begin + count * stop // stops
                while self.count < part_end:
                    following = min(self.count + CHUNK, part_end)
                    producer.send_many(payloads(self.count, following))
                    self.count = following
                producer.flush(TIMEOUT_SECONDS)
                assert producer.last_id is not None, "it is flushed"
                if not self.notes or self.notes[-1].number < self.count - 1:
                    self.notes.append(Noted(self.count - 1, producer.last_id))
        assert self.count == end
        return time.perf_counter() - started

    def check_described(self, mq: Client) -> None:
        """All is there, as far as the broker says."""
        found = mq.describe_channel(self.name)
        assert found.message_count == self.count, f"{found.message_count} messages, not {self.count}"
        assert found.byte_count == self.count * PAYLOAD_BYTES, f"{found.byte_count} bytes of {self.count} messages"
        assert found.end_id == self.notes[-1].message_id, "the end is where the last acknowledgement said"

    def check_at(self, target: int, found: Message) -> None:
        """``found`` is the first message at or behind the id ``target``, as far as the notes can tell."""
        assert found.id >= target, f"{found.id} lies before {target}"
        ids = [note.message_id for note in self.notes]
        above = bisect_left(ids, target)  # the first note at or behind the target
        is_noted = ids[above] == target
        highest = self.notes[above].number
        lowest = highest if is_noted else self.notes[above - 1].number + 1 if above else 0
        index = index_of(found.payload)
        assert lowest <= index <= highest, f"message {index} at {target}, not {lowest} .. {highest}"

    def targets(self, mq: Client, random: Random, count: int) -> list[int]:
        """Ids all over the channel; a third of them certainly of a message."""
        first = mq.describe_channel(self.name).begin_id
        assert first is not None, "it is not empty"
        last = self.notes[-1].message_id
        noted = [note.message_id for note in self.notes]
        return [random.choice(noted) if number % 3 == 0 else random.randint(first, last) for number in range(count)]


class Reader:
    """A group's way through a channel, in pieces; each message is where it belongs, seen by the ends of each batch."""

    def __init__(self, mq: Client, channel: LoadedChannel) -> None:
        self._mq = mq
        self._channel = channel
        self.index = 0
        mq.create_consumer_group(channel.name, GROUP)
        mq.seek(channel.name, GROUP, "earliest")

    def read(self, count: int) -> float:
        """Consume ``count`` messages; messages a second."""
        begin, end = time.perf_counter(), self.index + count
        while self.index < end:
            wanted = min(CONSUME_MESSAGES, end - self.index)
            batch = self._mq.consume(self._channel.name, GROUP, wanted)
            found = batch.payloads
            assert found, f"the channel ends at message {self.index} of {self._channel.count}"
            ends = index_of(found[0]), index_of(found[-1])
            assert ends == (self.index, self.index + len(found) - 1), f"messages {ends}, not from {self.index} on"
            self.index += len(found)
        return count / (time.perf_counter() - begin)

    def check_over(self) -> None:
        """There is nothing behind the last message."""
        assert self.index == self._channel.count, f"{self.index} messages were read of {self._channel.count}"
        assert not self._mq.consume(self._channel.name, GROUP), "there are more than were sent"


def measure(broker: Watched, tally: Tally, messages: int, *, batch_messages: int, seeks: int, rounds: int) -> None:
    """All about a channel of so many messages; ``broker`` is stopped, and is so again."""
    tally.note("start of an empty broker", "s", broker.start_seconds())
    with broker.client(TIMEOUT_SECONDS) as mq:
        small = LoadedChannel(mq, SMALL)
        small.load(mq, min(SMALL_MESSAGES_MAX, messages // 10), STRETCHES, batch_messages)
        large = LoadedChannel(mq, LARGE)
        tail = min(TAIL_MESSAGES, messages // (4 * rounds))
        tails = [tail * (1 + number % 3) for number in range(rounds)]
        stretch = (messages - sum(tails)) // STRETCHES
        broker.begin_peak()
        for number in range(STRETCHES):
            count = stretch if number else messages - sum(tails) - stretch * (STRETCHES - 1)
            tally.note("load", "msg/s", count / large.load(mq, count, NOTED_PER_STRETCH, batch_messages))
        broker.note_peak(tally, "loading")
    for count in tails:
        with broker.client(TIMEOUT_SECONDS) as mq:
            large.load(mq, count, 2, batch_messages)
        broker.kill()
        tally.note("start after kill -9", "s", broker.start_seconds(), at_most=START_SECONDS_MAX)
    for _ in range(rounds):
        assert broker.terminate() == 0, f"see {broker.log}"
        tally.note("start after a stop", "s", broker.start_seconds(), at_most=START_SECONDS_MAX)
    assert broker.terminate() == 0, f"see {broker.log}"
    broker.forget_pages()
    tally.note("start after a stop, nothing in the system's cache", "s", broker.start_seconds(), at_most=START_SECONDS_MAX)
    tally.note("data on the disk", "MiB", broker.disk_bytes() / MIB)
    with broker.client(TIMEOUT_SECONDS) as mq:
        for channel in (small, large):
            channel.check_described(mq)
        _seek(broker, mq, tally, [small, large], seeks)
        _read(broker, mq, tally, small, large)
    assert broker.terminate() == 0, f"see {broker.log}"


def _read(broker: Watched, mq: Client, tally: Tally, small: LoadedChannel, large: LoadedChannel) -> None:
    """The large channel as a whole, in stretches, beside the small one in turns: from the disk, then from the cache."""
    broker.begin_peak()
    for how in ("cold", "warm"):
        if how == "warm":
            broker.load_pages()
        reader = Reader(mq, large)
        for number in range(1, STRETCHES + 1):
            if how == "cold":
                broker.forget_pages()
            beside = Reader(mq, small)
            small_rate = beside.read(small.count)
            beside.check_over()
            rate = reader.read(large.count * number // STRETCHES - reader.index)
            tally.note(f"consume, small, {how}", "msg/s", small_rate)
            tally.note(f"consume, large, {how}", "msg/s", rate)
            tally.note(f"consume, large / small, {how}", "ratio", rate / small_rate, at_least=CONSUME_RATIO_MIN)
        reader.check_over()
    broker.note_peak(tally, "reading")


def _seek(broker: Watched, mq: Client, tally: Tally, channels: list[LoadedChannel], count: int) -> None:
    random = Random(1)
    broker.begin_peak()
    for channel in channels:
        mq.create_consumer_group(channel.name, GROUP)
        for how in ("cold", "warm"):
            before: Callable[[], None] = broker.forget_pages if how == "cold" else lambda: None
            _seek_in(channel, mq, tally, channel.targets(mq, random, count), how, before)
        seconds = [timed(partial(mq.describe_channel, channel.name))[0] for _ in range(count)]
        tally.note_calls(f"describe {channel.name}", seconds, at_most=SEEK_MS_MAX)
    broker.note_peak(tally, "seeking")


def _seek_in(
    channel: LoadedChannel, mq: Client, tally: Tally, targets: list[int], how: str, before: Callable[[], None]
) -> None:
    """Each target by its id, by its time, by a fetch; ``before`` each of these calls the caches are made as they should be."""
    taken: dict[str, list[float]] = {}

    def call(name: str, what: Callable[[], Result]) -> Result:
        before()
        seconds, result = timed(what)
        taken.setdefault(name, []).append(seconds)
        return result

    for target in targets:
        moment = datetime.fromtimestamp((target >> 18) / 1_000, UTC)
        places: tuple[tuple[str, int | datetime, int], ...] = (
            ("seek by id", target, target),
            ("seek by time", moment, target >> 18 << 18),
        )
        for name, to, lowest in places:
            call(name, partial(mq.seek, channel.name, GROUP, to))
            call("describe group", partial(mq.describe_consumer_group, channel.name, GROUP))
            (message,) = mq.consume(channel.name, GROUP, 1)
            channel.check_at(lowest, message)
        (message,) = call("fetch by id", partial(mq.fetch, channel.name, target, 1))
        channel.check_at(target, message)
    for name, seconds in taken.items():
        tally.note_calls(f"{name}, {channel.name}, {how}", seconds, at_most=SEEK_MS_MAX)
