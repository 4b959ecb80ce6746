"""One of everything through a client that heals, and the check that all of it happened once.

The load has no retry code. Only when the client reports that storage failed, it does what any caller would: a produce is noted
as of unknown outcome, and so is what was behind it; anything else is done again. `Keeper` starts the broker again
whenever it ends.
"""

import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from types import TracebackType
from typing import Self, TypeVar

from rocksmq.clients import Client, Message, OutgoingMessage, OutOfSequence, RocksMQError, StorageFailed

from .content import LABEL, describe, label_of, labels_in, payload_of
from .process import FaultyBroker
from .producing import together

KEPT_CHANNEL = "kept"  # read from disk in each life
KEPT = [payload_of(label_of(0, number)) for number in range(10)]
GROUPS = ("auto", "called", "manual", "moved")
SENDER, CALLER, NAMED = 1, 2, 3  # producers
COUNT = 40  # messages of each
POLL_SECONDS = 0.1
LOOK_SECONDS = 0.01
ENDING_SECONDS = 30.0  # a broker whose storage failed is gone by then
Result = TypeVar("Result")


class Keeper:
    """Starts ``broker`` again when it has ended, with those of ``faults`` that did not strike yet; a context manager.

    ``codes``: the exit codes of the lives that ended meanwhile.
    """

    def __init__(self, broker: FaultyBroker, faults: Sequence[str]) -> None:
        self.codes: list[int] = []
        self._broker = broker
        self._faults = faults
        self._struck_before = len(broker.struck())
        self._is_over = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._start()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._is_over.set()
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    def struck(self) -> list[str]:
        """The faults that struck, in order."""
        return self._broker.struck()[self._struck_before :]

    def _run(self) -> None:
        try:
            while not self._is_over.wait(LOOK_SECONDS):
                if not self._broker.is_running:
                    self.codes.append(self._broker.wait())
                    self._start()
        except BaseException as error:
            self._failure = error

    def _start(self) -> None:
        """Until it serves: a start may be what is struck."""
        while True:
            self._broker.faults = sorted(set(self._faults).difference(self.struck()))
            if self._broker.start():
                return
            assert self._broker.faults, f"it does not start: {self._broker.log.read_text()[-2_000:]}"
            self.codes.append(self._broker.wait())


class Round:
    """The load, once, on a channel of its own. ``errors``: what the client raised."""

    def __init__(self, mq: Client, channel: str) -> None:
        self.errors: list[RocksMQError] = []
        self._mq = mq
        self._channel = channel
        self._unknown: set[int] = set()  # labels
        self._handed: dict[str, list[int]] = {"auto": [], "called": [], "manual": []}
        self._is_produced = threading.Event()

    def prepare(self) -> None:
        """While nothing strikes yet: the channel and its groups."""
        self._mq.create_channel(self._channel)
        for group in GROUPS:
            self._mq.create_consumer_group(self._channel, group)

    def run(self) -> None:
        """All of it."""
        together([self._produce_all, self._consume_auto, self._consume_called, self._consume_manual, self._administer])

    def check(self) -> None:
        """Raises AssertionError unless each message is there once, in order, and was handed out once."""
        mq, channel = self._mq, self._channel
        batch = mq.fetch(channel, "earliest", 10_000)
        labels = labels_in(batch.payloads)
        assert len(set(labels)) == len(labels), f"{channel} holds a message twice"
        for producer in (SENDER, CALLER, NAMED):
            sent = [label_of(producer, number) for number in range(COUNT)]
            there = [label for label in labels if label in sent]
            assert there == sorted(there), f"{channel}: the messages of producer {producer} are not in order"
            lost = set(sent) - set(there) - self._unknown
            assert not lost, f"{channel}: {describe(min(lost))} and {len(lost)} in all are lost"
        ids = list(batch.ids)
        for group in ("auto", "called"):
            handed = self._handed[group]
            missing, twice = set(ids) - set(handed), len(handed) - len(set(handed))
            told = f"{len(missing)} are missing, {twice} came twice, in order: {handed == sorted(handed)}"
            assert handed == ids, f"{channel}: group {group} was not handed out each of {len(ids)} messages once: {told}"
            assert mq.describe_consumer_group(channel, group).lag_messages == 0
        assert sorted(set(self._handed["manual"])) == ids, f"{channel}: the manual group has not read all"
        assert mq.describe_consumer_group(channel, "manual").position == ids[-1] + 1, "all was committed"
        assert mq.describe_consumer_group(channel, "moved").position == ids[-1] + 1, "it was sought to the end"
        assert mq.list_channels(f"{channel}-") == [], "the other channel was destroyed"

    # -- the parts ------------------------------------------------------------------

    def _do(self, call: Callable[[], Result]) -> Result:
        """What may be done again: until the broker that said so has ended, it says so again."""
        give_up = time.monotonic() + ENDING_SECONDS
        while True:
            try:
                return call()
            except StorageFailed as error:
                self.errors.append(error)
                if time.monotonic() > give_up:
                    raise

    def _produce(self, call: Callable[[], object], labels: Sequence[int] = ()) -> None:
        """What is done once. ``labels`` are stored by it, or not, when it raises."""
        try:
            call()
        except (StorageFailed, OutOfSequence) as error:
            self.errors.append(error)
            self._unknown.update(labels)
            lost: tuple[OutgoingMessage, ...] = error.not_stored
            self._unknown.update(LABEL.unpack_from(message.payload)[0] for message in lost)

    def _produce_all(self) -> None:
        try:
            self._send()
            for number in range(0, COUNT, 4):
                labels = [label_of(CALLER, number + i) for i in range(4)]
                payloads = [payload_of(label) for label in labels]
                self._produce(partial(self._mq.produce, self._channel, payloads), labels)
            self._send_named()
            self._do(lambda: self._mq.seek(self._channel, "moved", "latest"))
        finally:
            self._is_produced.set()

    def _send(self) -> None:
        producer = self._mq.producer(self._channel, linger=0.001, batch_messages=5)
        for number in range(COUNT):
            label = label_of(SENDER, number)
            self._produce(partial(producer.send, payload_of(label)), [label])
        self._produce(producer.flush)
        self._produce(producer.close)

    def _send_named(self) -> None:
        producer = self._do(lambda: self._mq.producer(self._channel, name="named", batch_messages=5))
        for number in range(COUNT):
            label = label_of(NAMED, number)
            self._produce(partial(producer.send, payload_of(label), sequence=number), [label])
        self._produce(producer.close)

    def _consume_auto(self) -> None:
        """Two consumers one after the other; the first gives back what it holds."""
        for batch_count in (3, None):
            consumer = self._do(lambda: self._mq.consumer(self._channel, "auto", batch_messages=12))
            self._read(partial(consumer.receive_batch, 5, POLL_SECONDS), "auto", batch_count=batch_count)
            self._do(consumer.close)

    def _consume_called(self) -> None:
        self._read(lambda: self._mq.consume(self._channel, "called", 7, timeout=POLL_SECONDS), "called")

    def _consume_manual(self) -> None:
        consumer = self._do(lambda: self._mq.consumer(self._channel, "manual", ack="manual"))
        self._read(partial(consumer.receive_batch, 9, POLL_SECONDS), "manual", then=consumer.commit)
        self._do(consumer.close)

    def _read(
        self,
        once: Callable[[], Sequence[Message]],
        group: str,
        *,
        then: Callable[[], object] = lambda: None,
        batch_count: int | None = None,
    ) -> None:
        """So many batches; or until nothing more comes, once all was produced. After each, ``then``."""
        count = 0
        while count != batch_count:
            was_produced = self._is_produced.is_set()
            found = self._do(once)
            self._handed[group] += [message.id for message in found]
            labels_in([message.payload for message in found])
            self._do(then)
            if was_produced and not found:
                return
            count += bool(found)

    def _administer(self) -> None:
        """Read from disk; make a channel, and destroy it."""
        mq, other = self._mq, f"{self._channel}-gone"

        def fetch() -> None:
            assert mq.fetch(KEPT_CHANNEL, "earliest").payloads == KEPT

        self._do(fetch)
        self._do(lambda: mq.create_channel(other))
        self._do(lambda: mq.create_consumer_group(other, "none"))
        self._produce(lambda: mq.produce(other, [b"x"]))
        self._do(lambda: mq.destroy_channel(other, missing_ok=True))


def prepare(broker: FaultyBroker) -> None:
    """A first life, which makes the channel that is read from disk."""
    assert broker.start()
    with Client(broker.url) as mq:
        mq.create_channel(KEPT_CHANNEL)
        mq.produce(KEPT_CHANNEL, KEPT)
    assert broker.terminate() == 0
