"""Who writes while `mirror` is struck: a thread a channel, or a topic, at the pace that the run allows.

The clients heal by themselves, and wait as long as they must: what was allowed is stored, once.
"""

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from random import Random
from types import TracebackType
from typing import Any, Self

from rocksmq.clients import Client, OutgoingMessage
from rocksmq.clients.pulsar.client import asked, connect, pulsar

from .content import headers_of, label_of, payload_of
from .mirror_audit import Copy, digest

BATCH_MESSAGES = (1, 1, 20, 200, 1_000)  # at most, drawn for each batch
HEADERS_EVERY = 2  # of the channels, one of so many has headers in its messages
HUGE_EVERY = 50_021  # a message of so many is as large as a channel takes
HUGE_BYTES = 1 << 20
TICK_SECONDS = 0.02
CLOSE_SECONDS = 30.0
CALLBACK_EVERY = 500
KEY = "number"  # the header that is the partition key
EVENT_TIME, KEY_HEADER = "pulsar.event-time", "pulsar.key"  # what the way back makes of those
EVENT_TIME_BEGIN = 1_700_000_000_000


def content_of(label: int, number: int) -> bytes:
    """The payload of message ``number`` of its channel."""
    payload = payload_of(label)
    return payload.ljust(HUGE_BYTES, b"+") if number % HUGE_EVERY == HUGE_EVERY - 1 else payload


def has_headers(channel: int) -> bool:
    """Whether the messages of the channel of that number have any."""
    return channel % HEADERS_EVERY == 1


def properties_of(label: int) -> dict[str, str]:
    """What a message in Pulsar has beside its payload: text."""
    return {name: value.decode("latin-1") for name, value in headers_of(label).items()}


class Pace:
    """How many messages may have been sent so far."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._allowed = self._taken = 0
        self._is_over = False

    def allow(self, total: int) -> None:
        """So many, unless that were more already."""
        with self._changed:
            self._allowed = max(self._allowed, total)
            self._changed.notify()

    def end(self) -> None:
        """There are no more than were allowed."""
        with self._changed:
            self._is_over = True
            self._changed.notify()

    def take(self, most: int) -> int:
        """Some of them, as soon as there are any; 0 at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._taken < self._allowed or self._is_over)
            taken = min(most, self._allowed - self._taken)
            self._taken += taken
            return taken


class Load(ABC):
    """All writers; a context manager, that ends them. ``copies``: what each has stored, when it has ended."""

    def __init__(self, seed: object, names: Sequence[str]) -> None:
        self.names = names
        self.copies = {name: Copy() for name in names}
        self._seed = seed
        self._paces = {name: Pace() for name in names}
        self._threads = [
            threading.Thread(target=self._run, args=(number,), name=f"load {n}", daemon=True) for number, n in enumerate(names)
        ]
        self._failure: BaseException | None = None

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.end()
        for thread in self._threads:
            thread.join(0.0 if error is not None else None)

    def allow(self, total: float) -> None:
        """So many messages of each channel may have been sent."""
        for pace in self._paces.values():
            pace.allow(int(total))

    def end(self) -> None:
        """No more than that."""
        for pace in self._paces.values():
            pace.end()

    def await_end(self, seconds: float) -> None:
        """Until all that was allowed is stored. Raises what kept it from that, AssertionError after ``seconds`` too."""
        deadline = time.monotonic() + seconds
        while any(thread.is_alive() for thread in self._threads):
            self.check()
            assert time.monotonic() < deadline, f"not stored within {seconds:g} s"
            time.sleep(TICK_SECONDS)
        self.check()

    def check(self) -> None:
        """Raises what a writer failed with."""
        if self._failure is not None:
            raise self._failure

    def _run(self, number: int) -> None:
        name = self.names[number]
        try:
            self._write(number, self._paces[name], self.copies[name], Random(f"{self._seed}/{name}"))
        except BaseException as error:
            self._failure = error

    @abstractmethod
    def _write(self, channel: int, pace: Pace, copy: Copy, random: Random) -> None:
        """Until ``pace`` ends."""


class BrokerLoad(Load):
    """Into channels of a broker; the keys are the ids that it gave."""

    def __init__(self, seed: object, channels: Sequence[str], url: str) -> None:
        super().__init__(seed, channels)
        self._mq = Client(url, timeout=None)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is not None:
            self._mq.close()
        super().__exit__(kind, error, trace)
        self._mq.close()

    def _write(self, channel: int, pace: Pace, copy: Copy, random: Random) -> None:
        number = 0
        while count := pace.take(random.choice(BATCH_MESSAGES)):
            labels = range(label_of(channel, number), label_of(channel, number + count))
            payloads = [content_of(label, place) for place, label in enumerate(labels, number)]
            headers = [headers_of(label) if has_headers(channel) else {} for label in labels]
            messages = [OutgoingMessage(*message) for message in zip(payloads, headers, strict=True)]
            ids = self._mq.produce(self.names[channel], messages)
            for key, payload, given in zip(ids, payloads, headers, strict=True):
                copy.add(key, digest(payload, given))
            number += count


class PulsarLoad(Load):
    """Into topics of Pulsar; the keys are labels, and the digests those that RocksMQ is to have.

    One of the topics is written without batches.
    """

    def __init__(self, seed: object, channels: Sequence[str], topics: Mapping[str, str], url: str) -> None:
        super().__init__(seed, channels)
        self._topics = topics
        self._client = connect(url, operation_seconds=CLOSE_SECONDS)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        super().__exit__(kind, error, trace)
        if error is None:
            self._client.close()

    def _write(self, channel: int, pace: Pace, copy: Copy, random: Random) -> None:
        producer = self._producer(channel)
        number = 0
        while count := pace.take(random.choice(BATCH_MESSAGES)):
            for place in range(number, number + count):
                self._send(producer, channel, place, copy)
            number += count
            if random.random() < 0.05:
                asked("flushing", producer.flush)
        asked("flushing", producer.flush)
        asked("closing", producer.close)

    def _producer(self, channel: int) -> Any:
        return asked(
            "opening",
            lambda: self._client.create_producer(
                self._topics[self.names[channel]],
                producer_name=f"load {channel}",
                send_timeout_millis=0,
                block_if_queue_full=True,
                batching_enabled=channel != 0,
                batching_max_messages=1_000,
                batching_max_publish_delay_ms=5,
            ),
        )

    def _send(self, producer: Any, channel: int, number: int, copy: Copy) -> None:
        label = label_of(channel, number)
        payload = content_of(label, number)
        is_told = number % CALLBACK_EVERY == 0
        callback = self._answered if is_told else None
        if has_headers(channel):
            event_time = EVENT_TIME_BEGIN + number
            properties = properties_of(label)
            producer.send_async(payload, callback, properties, partition_key=str(number), event_timestamp=event_time)
            headers = {name: value.encode() for name, value in properties.items()}
            headers |= {EVENT_TIME: str(event_time).encode(), KEY_HEADER: str(number).encode()}
        else:
            producer.send_async(payload, callback)
            headers = {}
        copy.add(label, digest(payload, headers))

    def _answered(self, result: Any, _: Any) -> None:
        if result != pulsar.Result.Ok:
            self._failure = AssertionError(f"Pulsar refused a message of the load: {result}")
