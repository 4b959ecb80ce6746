"""The roles that produce. Each notes a message before it hands it to the client, and then what the client says of it."""

import threading
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from rocksmq.clients import OutgoingMessage, Producer, RocksMQError
from rocksmq.protocol.errors import OUTCOME_UNKNOWN

from .book import Kind
from .content import LABEL, headers_of, label_of, number_of, payload_of
from .worker import Worker

SEQUENCE_STEP = 3  # between the sequences of messages: a name allows holes


def send(worker: Worker, *, burst: int, rate: int, headers: bool = False, **options: Any) -> None:
    """`Producer.send`, in bursts of up to ``burst``, ``rate`` a second at most; now and then `flush`."""
    number, producer_number = 0, worker.part.producers[0]
    producer = worker.mq.producer(worker.part.channel, **options)
    while True:
        count = worker.random.randint(1, burst)
        first = label_of(producer_number, number)
        worker.book.note(Kind.SENT, [first, count])
        for label in range(first, first + count):
            _send_one(worker, producer, label, headers_of(label) if headers else None)
        number += count
        if worker.random.random() < 0.1:
            _flush(worker, producer, first + count - 1)
        if not worker.pause(count / rate):
            break
    _close(worker, producer)


def _send_one(worker: Worker, producer: Producer, label: int, headers: Mapping[str, bytes] | None, **options: Any) -> None:
    try:
        producer.send(payload_of(label), headers, **options)
    except RocksMQError as error:
        worker.book.note(Kind.REFUSED, [label])
        _note_failure(worker, error)


def _flush(worker: Worker, producer: Producer, last_label: int) -> None:
    try:
        producer.flush()
    except RocksMQError as error:
        _note_failure(worker, error)
    else:
        last_id = producer.last_id
        if last_id is not None:
            worker.book.note(Kind.STORED, [last_label, last_id, 1])


def _close(worker: Worker, producer: Producer) -> None:
    try:
        producer.close()
    except RocksMQError as error:
        _note_failure(worker, error)


def _note_failure(worker: Worker, error: RocksMQError) -> None:
    kind = Kind.UNKNOWN if isinstance(error, OUTCOME_UNKNOWN) else Kind.REFUSED
    lost: tuple[OutgoingMessage, ...] = error.not_stored
    worker.book.note(kind, [LABEL.unpack_from(message.payload)[0] for message in lost])
    worker.raised(error)


def named(worker: Worker, *, name: str, burst: int, rate: int, text: bool = False, **options: Any) -> None:
    """A producer with a name, which goes on where its last life, that may have been killed, got to.

    Its sequences leave holes; with ``text`` they are bytes.
    """

    def sequence_of(label: int) -> int | bytes:
        sequence = number_of(label) * SEQUENCE_STEP
        return b"%020d" % sequence if text else sequence

    producer = worker.mq.producer(worker.part.channel, name=name, **options)
    last = producer.last_sequence
    number = 0 if last is None else int(last) // SEQUENCE_STEP + 1
    producer_number = worker.part.producers[0]
    while True:
        count = worker.random.randint(1, burst)
        first = label_of(producer_number, number)
        worker.book.note(Kind.SENT, [first, count])
        for label in range(first, first + count):
            _send_one(worker, producer, label, None, sequence=sequence_of(label))
        number += count
        if worker.random.random() < 0.1:
            _flush(worker, producer, first + count - 1)
        if not worker.pause(count / rate):
            break
    _close(worker, producer)


def produce(worker: Worker, *, batch: int, rate: int, threads: int = 1) -> None:
    """`Client.produce`, one batch at a time, in each thread."""

    def run(producer: int) -> None:
        number = 0
        while True:
            count = worker.random.randint(1, batch)
            first = label_of(producer, number)
            labels = range(first, first + count)
            number += count
            worker.book.note(Kind.SENT, [first, count])
            try:
                ids = worker.mq.produce(worker.part.channel, [payload_of(label) for label in labels])
            except RocksMQError as error:
                worker.book.note(Kind.UNKNOWN if isinstance(error, OUTCOME_UNKNOWN) else Kind.REFUSED, labels)
                worker.raised(error)
            else:
                worker.book.note(Kind.STORED, [first, ids[0], len(ids)])
            if not worker.pause(count / rate):
                return

    assert len(worker.part.producers) == threads, "each is a producer of its own"
    together([partial(run, producer) for producer in worker.part.producers])


def together(works: list[Callable[[], None]]) -> None:
    """Run each in a thread, and wait for all; what one raises is raised."""
    errors: list[BaseException] = []

    def run(work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    running = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    for error in errors:
        raise error


PRODUCERS: dict[str, Callable[..., None]] = {"send": send, "named": named, "produce": produce}
