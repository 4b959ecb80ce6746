"""How long one message takes: until it is durable, and until a waiting consumer in another process has it.

Where messages are due at a rate, each counts from when it was due, whether it could be sent then or not: otherwise a broker
that stops for a second would be asked nothing in it, and look quick.
"""

import json
import secrets
import threading
import time
from itertools import count
from typing import TYPE_CHECKING

from rocksmq.protocol.errors import RocksMQError

from .processes import other

if TYPE_CHECKING:
    from rocksmq.clients.client import Client

PAYLOAD_BYTES = 100
PER_SECOND = 500  # the steady pace of the end-to-end producer
WARM_UP = 50  # messages before those that count
SENDERS = 32  # threads of the open loop: beyond so many unanswered, what is due waits its turn, and is late
READER = "rocksmq.clients.bench.reader"


def one_at_a_time(mq: "Client", channel: str, messages: int) -> list[float]:
    """Seconds of each produce of one message."""
    payload = secrets.token_bytes(PAYLOAD_BYTES)
    taken: list[float] = []
    for _ in range(WARM_UP + messages):
        begin = time.perf_counter()
        mq.produce(channel, [payload])
        taken.append(time.perf_counter() - begin)
    return taken[WARM_UP:]


def open_loop(mq: "Client", channel: str, messages: int, per_second: float) -> list[float]:
    """Seconds from when each was due until it was durable, at a steady rate by SENDERS threads. Raises as produce does."""
    payload = secrets.token_bytes(PAYLOAD_BYTES)
    total = WARM_UP + messages
    taken = [0.0] * total
    failures: list[RocksMQError] = []
    numbers = count()
    begin = time.perf_counter()

    def send() -> None:
        while (number := next(numbers)) < total and not failures:
            due = begin + number / per_second
            time.sleep(max(0.0, due - time.perf_counter()))
            try:
                mq.produce(channel, [payload])
            except RocksMQError as error:
                failures.append(error)
            taken[number] = time.perf_counter() - due

    threads = [threading.Thread(target=send) for _ in range(SENDERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return taken[WARM_UP:]


def end_to_end(mq: "Client", url: str | None, channel: str, group: str, messages: int) -> tuple[list[float], list[float]]:
    """Seconds from when each message was due to its payload in the reader's hands; and seconds of each produce.

    The reader is a process of its own. Both sides read CLOCK_MONOTONIC, which is one clock for the whole machine.
    """
    mq.create_consumer_group(channel, group)
    payload = secrets.token_bytes(PAYLOAD_BYTES)
    total = WARM_UP + messages
    sent: list[int] = []
    produced: list[float] = []
    with other(url, READER, channel, group, str(total)) as reader:
        reader.line()
        pace_ns = 1_000_000_000 // PER_SECOND
        due = time.monotonic_ns()
        for _ in range(total):
            time.sleep(max(0, due - time.monotonic_ns()) / 1e9)
            begin = time.monotonic_ns()
            mq.produce(channel, [payload])
            produced.append((time.monotonic_ns() - begin) / 1e9)
            sent.append(due)
            due += pace_ns
        received: list[int] = json.loads(reader.line())
    if len(received) != total:
        raise RocksMQError("the reading process did not get all messages")
    return [(there - here) / 1e9 for here, there in zip(sent, received, strict=True)][WARM_UP:], produced[WARM_UP:]
