"""The roles that consume. Each notes what it was handed, in the order in which it was."""

from collections.abc import Callable, Iterable

from rocksmq.clients import Consumer, Message, RocksMQError

from .book import Kind
from .content import LABEL, headers_of, labels_in
from .producing import together
from .worker import Worker

POLL_SECONDS = 0.5
NOTED_TOGETHER = 200  # messages that were taken one by one


def _note(worker: Worker, ids: Iterable[int], payloads: Iterable[bytes]) -> None:
    worker.book.note(Kind.HANDED, [*ids, *labels_in(payloads)])


def _is_over(worker: Worker, found: int, *, was_draining: bool) -> bool:
    """After a poll that brought ``found``. What counts is whether nothing was produced any more when it began."""
    return worker.must_stop or (was_draining and not found)


def _closed(worker: Worker, consumer: Consumer) -> None:
    try:
        consumer.close()
    except RocksMQError as error:
        worker.raised(error)


def batches(worker: Worker, *, most: int, held: int = 1_000) -> None:
    """`Consumer.receive_batch`, of up to ``most``; ``held`` are claimed at a time."""
    consumer = worker.mq.consumer(worker.part.channel, worker.part.group, batch_messages=held)
    while True:
        was_draining = worker.must_drain
        try:
            batch = consumer.receive_batch(worker.random.randint(1, most), POLL_SECONDS)
        except RocksMQError as error:
            worker.raised(error)
            continue
        if batch:
            _note(worker, batch.ids, batch.payloads)
        if _is_over(worker, len(batch), was_draining=was_draining):
            break
    _closed(worker, consumer)


def iterate(worker: Worker, *, held: int) -> None:
    """The consumer as an iterator; left in the midst of a batch when it is told to stop."""
    consumer = worker.mq.consumer(worker.part.channel, worker.part.group, batch_messages=held, idle_timeout=POLL_SECONDS)
    while True:
        was_draining = worker.must_drain
        found: list[Message] = []
        try:
            for message in consumer:
                found.append(message)
                if len(found) == NOTED_TOGETHER or worker.must_stop:
                    break
        except RocksMQError as error:
            worker.raised(error)
            was_draining = False
        if found:
            _check_headers(found)
            _note(worker, [message.id for message in found], [message.payload for message in found])
        if _is_over(worker, len(found), was_draining=was_draining):
            break
    _closed(worker, consumer)


def _check_headers(messages: Iterable[Message]) -> None:
    for message in messages:
        (label,) = LABEL.unpack_from(message.payload)
        assert message.headers in ({}, headers_of(label)), f"message {message.id} has other headers than it was sent with"


def consume(worker: Worker, *, most: int, threads: int = 1) -> None:
    """`Client.consume` of up to ``most``, in each thread. The threads share the client, and so its consumer ids."""

    def run() -> None:
        while True:
            was_draining = worker.must_drain
            try:
                batch = worker.mq.consume(
                    worker.part.channel, worker.part.group, worker.random.randint(1, most), timeout=POLL_SECONDS
                )
            except RocksMQError as error:
                worker.raised(error)
                continue
            if batch:
                _note(worker, batch.ids, batch.payloads)
            if _is_over(worker, len(batch), was_draining=was_draining):
                return

    together([run] * threads)


def manual(worker: Worker, *, most: int) -> None:
    """A consumer that commits now and then, and always at the end unless it is told to stop."""
    consumer = worker.mq.consumer(worker.part.channel, worker.part.group, ack="manual")
    position = 0
    while True:
        was_draining = worker.must_drain
        try:
            batch = consumer.receive_batch(worker.random.randint(1, most), POLL_SECONDS)
            if batch:
                _note(worker, batch.ids, batch.payloads)
                position = batch.ids[-1] + 1
            if position and (worker.random.random() < 0.3 or was_draining):
                worker.book.note(Kind.COMMITTING, [position])
                consumer.commit()
                worker.book.note(Kind.COMMITTED, [position])
        except RocksMQError as error:
            worker.raised(error)
            continue
        if _is_over(worker, len(batch), was_draining=was_draining):
            break
    _closed(worker, consumer)


CONSUMERS: dict[str, Callable[..., None]] = {"batches": batches, "iterate": iterate, "consume": consume, "manual": manual}
