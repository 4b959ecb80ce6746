"""How long one message takes: until it is durable, and until a waiting consumer in another process has it."""

import json
import secrets
import time
from typing import TYPE_CHECKING

from rocksmq.protocol.errors import RocksMQError

from .processes import other

if TYPE_CHECKING:
    from rocksmq.clients.client import Client

PAYLOAD_BYTES = 100
PER_SECOND = 500  # the steady pace of the end-to-end producer
WARM_UP = 50  # messages before those that count
READER = "rocksmq.clients.bench.reader"


def one_at_a_time(mq: "Client", channel: str, count: int) -> list[float]:
    """Seconds of each produce of one message."""
    payload = secrets.token_bytes(PAYLOAD_BYTES)
    taken: list[float] = []
    for _ in range(WARM_UP + count):
        begin = time.perf_counter()
        mq.produce(channel, [payload])
        taken.append(time.perf_counter() - begin)
    return taken[WARM_UP:]


def end_to_end(mq: "Client", url: str | None, channel: str, group: str, count: int) -> tuple[list[float], list[float]]:
    """Seconds from before each produce to its payload in the reader's hands; and seconds of each produce.

    The reader is a process of its own. Both sides read CLOCK_MONOTONIC, which is one clock for the whole machine.
    """
    mq.create_consumer_group(channel, group)
    payload = secrets.token_bytes(PAYLOAD_BYTES)
    total = WARM_UP + count
    sent: list[int] = []
    produced: list[float] = []
    with other(url, READER, channel, group, str(total)) as reader:
        reader.line()
        pace_ns = 1_000_000_000 // PER_SECOND
        due = time.monotonic_ns()
        for _ in range(total):
            time.sleep(max(0, due - time.monotonic_ns()) / 1e9)
            sent.append(begin := time.monotonic_ns())
            mq.produce(channel, [payload])
            produced.append((time.monotonic_ns() - begin) / 1e9)
            due = max(due + pace_ns, begin)
        received: list[int] = json.loads(reader.line())
    if len(received) != total:
        raise RocksMQError("the reading process did not get all messages")
    return [(there - here) / 1e9 for here, there in zip(sent, received, strict=True)][WARM_UP:], produced[WARM_UP:]
