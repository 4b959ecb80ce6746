"""What tests of the client share: replies, a clock, a fake broker that answers by rules, waiting for what threads do."""

import os
import signal
import struct
import time
import warnings
from collections.abc import Callable
from typing import Any

from rocksmq.clients import Client
from rocksmq.clients.testing import Broker
from rocksmq.protocol.batch import pack_lengths
from rocksmq.protocol.operations import Messages
from tests.helpers.fake_server import PRESENT_ID, Peer

PATIENCE = 20.0  # until a test gives up; nothing waits for it to be right
NOTHING = Messages(PRESENT_ID, None, 0, None, b"", 0, b"", b"", None, None)


class Clock:
    """The time that deadlines go by; it moves when a test says so."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def monotonic(self) -> float:
        return self.now


def messages(payloads: list[bytes], first_id: int = PRESENT_ID, gap: Any = None, offset: int = 0) -> Messages:
    """A reply with these, one id after the other from ``first_id`` on; ``offset`` were ever appended before."""
    count = len(payloads)
    lengths = pack_lengths([len(payload) for payload in payloads])
    runs = struct.pack("<QI", first_id, count) if count else b""
    return Messages(first_id + count, offset + count, 0, gap, runs, count, lengths, b"".join(payloads), None, None)


def answering(handle: Callable[[Peer, int, Any], None]) -> Callable[[Peer], None]:
    """For `FakeServer`: greets, and hands each request to ``handle`` with its connection and correlation id."""

    def answer(peer: Peer) -> None:
        peer.greet()
        while True:
            handle(peer, *peer.receive())

    return answer


def wait_until(condition: Callable[[], bool], patience: float = PATIENCE) -> None:
    """Return once ``condition`` holds, looking often; fail when it never does."""
    begin = time.monotonic()
    while not condition():
        assert time.monotonic() - begin < patience, "it did not come"
        time.sleep(0.001)


def keep_last(mq: Client, channel: str, count: int) -> None:
    """Let retention remove all but the last ``count`` messages (0: all), then nothing more."""
    mq.set_retention(channel, {"max_messages": count} if count else {"max_age": 0.001})
    wait_until(lambda: mq.describe_channel(channel).message_count <= count)
    mq.set_retention(channel, {})


def forked(work: Callable[[], bytes]) -> bytes:
    """What ``work`` returned in a child process, which has ended."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads in the parent: the child uses none of them
        child = os.fork()
    if not child:
        try:
            signal.alarm(int(PATIENCE))
            os.write(writing, work())
            os._exit(0)
        finally:
            os._exit(1)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        told = pipe.read()
    _, status = os.waitpid(child, 0)
    assert status == 0, "the child did its work"
    return told


class Frozen:
    """The broker answers nothing in this block."""

    def __init__(self, broker: Broker) -> None:
        self._pid = broker.pid

    def __enter__(self) -> None:
        os.kill(self._pid, signal.SIGSTOP)

    def __exit__(self, *_: object) -> None:
        os.kill(self._pid, signal.SIGCONT)
