"""Load for the ledger: producers and consumers of every kind, each a thread that runs until its connection ends."""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

from rocksmq.clients import Client, ConnectionFailed, ShuttingDown, Timeout
from rocksmq.clients.deadline import Deadline
from rocksmq.protocol.identity import Identity
from rocksmq.protocol.messages import MessageBatch, pack_messages
from rocksmq.protocol.operations import Consume, Produce

from .ledger import Attempt, Ledger
from .ledger_group import GroupLedger
from .pipeline import WINDOW, Pending, Pipeline
from .raw import Raw, response

ENDED = (ConnectionFailed, Timeout, ShuttingDown, ConnectionError, EOFError)  # what a killed broker looks like
PATIENCE_SECONDS = 10.0


class Load:
    """Threads against one life of the broker. `stop` waits for all of them and raises what any of them found."""

    def __init__(self, ledger: Ledger, url: str, seed: str) -> None:
        self._ledger = ledger
        self._url = url
        self._seed = seed
        self._threads: list[threading.Thread] = []
        self._clients: list[Client] = []
        self._failures: list[BaseException] = []

    def start(self, name: str, work: Callable[[Client, Random], None]) -> None:
        """Run ``work`` with a client and random numbers of its own."""
        mq = Client(self._url, timeout=PATIENCE_SECONDS)
        self._clients.append(mq)

        def run() -> None:
            try:
                work(mq, Random(f"{self._seed}/{name}"))
            except ENDED:
                pass
            except BaseException as error:
                self._failures.append(error)
                self._ledger.fail(error)

        thread = threading.Thread(target=run, name=name)
        self._threads.append(thread)
        thread.start()

    def stop(self) -> None:
        """The broker is gone: end every thread. Raises what one of them found."""
        for mq in self._clients:
            mq.close()
        for thread in self._threads:
            thread.join()
        for failure in self._failures:
            raise failure


def fillers(random: Random, count: int) -> list[bytes]:
    """Contents: most are small, a few larger than a block of the log."""
    return [random.randbytes(random.choice((0, 10, 100, 100, 300, random.randrange(40_000)))) for _ in range(count)]


def produce(ledger: Ledger, channel: str, name: str, messages_max: int) -> Callable[[Client, Random], None]:
    """One batch at a time."""

    def work(mq: Client, random: Random) -> None:
        number = 0
        while True:
            attempt, payloads = ledger.begin(channel, name, number, fillers(random, random.randint(1, messages_max)))
            ledger.acknowledged(attempt, mq.produce(channel, payloads))
            number += 1

    return work


def batches(messages_max: int) -> Callable[[Random], Iterator[list[bytes]]]:
    """Batches of up to so many messages, without end."""

    def generate(random: Random) -> Iterator[list[bytes]]:
        while True:
            yield fillers(random, random.randint(1, messages_max))

    return generate


def pipeline(
    ledger: Ledger, channel: str, name: str, contents: Callable[[Random], Iterator[list[bytes]]]
) -> Callable[[Client, Random], None]:
    """Many batches in flight from one thread, until ``contents`` ends."""

    def work(mq: Client, random: Random) -> None:
        in_flight: deque[tuple[Attempt, Pending]] = deque()
        deadline = Deadline(None)

        def settle(count: int) -> None:
            while len(in_flight) > count:
                attempt, pending = in_flight.popleft()
                ledger.acknowledged(attempt, pending.ids(deadline))

        line = Pipeline.of(mq, channel)
        try:
            for number, content in enumerate(contents(random)):
                settle(WINDOW - 1)
                attempt, payloads = ledger.begin(channel, name, number, content)
                in_flight.append((attempt, line.submit(pack_messages(payloads), deadline)))
        finally:  # what was answered before the end counts
            settle(0)

    return work


def consume(group: GroupLedger, messages_max: int) -> Callable[[Client, Random], None]:
    """One of the group's consumers, with a look at the group's position now and then."""

    def work(mq: Client, random: Random) -> None:
        while True:
            wanted = random.choice((1, 3, messages_max))
            call = group.asked(wanted)
            group.handed(call, mq.consume(group.channel, group.group, wanted, timeout=PATIENCE_SECONDS))
            if random.random() < 0.1:
                group.shown(mq.describe_consumer_group(group.channel, group.group).position)

    return work


def tail(ledger: Ledger, channel: str) -> Callable[[Client, Random], None]:
    """A reader of what comes from now on, as soon as it is shown."""

    def work(mq: Client, random: Random) -> None:
        position: int | str = "latest"
        while True:
            batch = mq.fetch(channel, position, timeout=PATIENCE_SECONDS)
            ledger.seen(channel, batch)
            position = batch.next_position

    return work


class StubbornProducer:
    """Repeats what was not answered, with the same number, at the broker's next life: each batch is stored once."""

    def __init__(self, ledger: Ledger, channel: str, name: str) -> None:
        self._ledger = ledger
        self._channel = channel
        self._name = name
        self._identity: Identity | None = None
        self._unanswered: deque[tuple[Attempt, Produce]] = deque()

    def work(self, address: str) -> Callable[[Client, Random], None]:
        """Its thread in one life of the broker."""

        def run(mq: Client, random: Random) -> None:
            with Raw(address) as raw:
                self._identity = self._identity or Identity.new(raw.server.present_id)
                self.settle(raw)
                while True:
                    while len(self._unanswered) < WINDOW // 2:
                        raw.send(self._next(random, self._identity))
                    self._take(raw)

        return run

    def settle(self, raw: Raw) -> None:
        """Send all that is unanswered once more and wait for the answers."""
        for _, request in self._unanswered:
            raw.send(request)
        while self._unanswered:
            self._take(raw)

    def _next(self, random: Random, producer: Identity) -> Produce:
        attempt, payloads = self._ledger.begin(
            self._channel, self._name, producer.number, fillers(random, random.randint(1, 20))
        )
        request = Produce(self._channel, producer.id, producer.number, *pack_messages(payloads))
        self._unanswered.append((attempt, request))
        producer.number += 1
        return request

    def _take(self, raw: Raw) -> None:
        """The next answer; produces on one connection are answered in order."""
        attempt, request = self._unanswered[0]
        first_id = response(Produce, raw.receive()).first_id
        self._ledger.acknowledged(attempt, range(first_id, first_id + request.message_count))
        self._unanswered.popleft()


class StubbornConsumer:
    """Repeats a consume without an answer, with the same number: it gets each message exactly once."""

    def __init__(self, group: GroupLedger) -> None:
        self._group = group
        self._identity: Identity | None = None
        self._unanswered: tuple[int, Consume] | None = None

    def work(self, address: str) -> Callable[[Client, Random], None]:
        """Its thread in one life of the broker."""

        def run(mq: Client, random: Random) -> None:
            with Raw(address) as raw:
                self._identity = self._identity or Identity.new(raw.server.present_id)
                self.settle(raw)
                while True:
                    wanted = random.choice((1, 10, 50))
                    place = (self._group.channel, self._group.group)
                    request = Consume(*place, self._identity.id, self._identity.number, wanted, 1 << 20, 1_000)
                    self._unanswered = self._group.asked(wanted), request
                    self._take(raw, request)

        return run

    def settle(self, raw: Raw) -> None:
        """Repeat what is unanswered, if anything is."""
        if self._unanswered is not None:
            self._take(raw, self._unanswered[1]._replace(wait_ms=0))

    def _take(self, raw: Raw, request: Consume) -> None:
        reply: Any = raw.call(request)
        assert self._unanswered is not None
        assert self._identity is not None
        self._group.handed(self._unanswered[0], MessageBatch(reply))
        self._unanswered = None
        self._identity.number += reply.message_count > 0
