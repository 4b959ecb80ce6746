"""Producing and catching up as fast as one client can, in each way that a program may."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeAlias

from rocksmq.protocol.errors import RocksMQError

if TYPE_CHECKING:
    from rocksmq.clients.client import Client

BATCH_MESSAGES = 1_000
CONSUME_MESSAGES = 10_000
SECONDS_MAX = 60.0  # of waiting for the end
Producing: TypeAlias = Callable[["Client", str, Sequence[bytes], int], None]
Consuming: TypeAlias = Callable[["Client", str, str, int], None]


def send_many(mq: "Client", channel: str, payloads: Sequence[bytes], count: int) -> None:
    """``count`` messages by `Producer.send_many`, a list of BATCH_MESSAGES at a time; durable when it returns."""
    with mq.producer(channel) as producer:
        for begin in range(0, count, BATCH_MESSAGES):
            producer.send_many(payloads[: min(BATCH_MESSAGES, count - begin)])
        producer.flush(SECONDS_MAX)


def send(mq: "Client", channel: str, payloads: Sequence[bytes], count: int) -> None:
    """``count`` messages by `Producer.send`, one after the other; durable when it returns."""
    with mq.producer(channel) as producer:
        for begin in range(0, count, BATCH_MESSAGES):
            for payload in payloads[: min(BATCH_MESSAGES, count - begin)]:
                producer.send(payload)
        producer.flush(SECONDS_MAX)


def calls(mq: "Client", channel: str, payloads: Sequence[bytes], count: int) -> None:
    """``count`` messages by `Client.produce` of BATCH_MESSAGES, one call after the other; durable when it returns."""
    for begin in range(0, count, BATCH_MESSAGES):
        mq.produce(channel, payloads[: min(BATCH_MESSAGES, count - begin)])


def receive_batches(mq: "Client", channel: str, group: str, count: int) -> None:
    """All ``count`` messages of the channel, as lists of payloads. Raises RocksMQError when there are fewer."""
    left = count
    with mq.consumer(channel, group, batch_messages=CONSUME_MESSAGES) as consumer:
        while left > 0:
            payloads = consumer.receive_batch().payloads
            if not payloads:
                raise _missing(left, count)
            left -= len(payloads)


def iterate(mq: "Client", channel: str, group: str, count: int) -> None:
    """All ``count`` messages of the channel, by ``for message in consumer``. Raises RocksMQError when there are fewer."""
    left = count
    with mq.consumer(channel, group, batch_messages=CONSUME_MESSAGES, idle_timeout=0.0) as consumer:
        for _ in consumer:
            left -= 1
    if left:
        raise _missing(left, count)


def _missing(left: int, count: int) -> RocksMQError:
    return RocksMQError(f"{left} of {count} messages did not come back")
