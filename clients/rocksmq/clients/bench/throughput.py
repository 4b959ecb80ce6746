"""Producing and catching up as fast as one client can."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rocksmq.clients.deadline import Deadline
from rocksmq.protocol.errors import RocksMQError
from rocksmq.protocol.messages import pack_messages

if TYPE_CHECKING:
    from rocksmq.clients.client import Client

BATCH_MESSAGES = 1_000
CONSUME_MESSAGES = 10_000
SECONDS_MAX = 60.0  # of waiting for one batch


def produce(mq: "Client", channel: str, payloads: Sequence[bytes], count: int) -> None:
    """``count`` messages in batches of BATCH_MESSAGES, as many in flight as a pipeline has; durable when it returns."""
    pipeline = mq.pipeline(channel)
    for begin in range(0, count, BATCH_MESSAGES):
        batch = pack_messages(payloads[: min(BATCH_MESSAGES, count - begin)])
        pipeline.submit(batch, Deadline(SECONDS_MAX))
    pipeline.flush(Deadline(SECONDS_MAX))


def consume(mq: "Client", channel: str, group: str, count: int) -> None:
    """All ``count`` messages of the channel, as lists of payloads. Raises RocksMQError when there are fewer."""
    left = count
    while left > 0:
        payloads = mq.consume(channel, group, CONSUME_MESSAGES).payloads
        if not payloads:
            raise RocksMQError(f"{left} of {count} messages did not come back")
        left -= len(payloads)
