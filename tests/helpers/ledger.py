"""An outside ledger: what was sent to a broker, what it acknowledged, and whether its log agrees.

Owns no connection. Load (`ledger_load`) writes down each batch before it is sent, its acknowledgement and
every message a reader saw; `Ledger.check` reads the channels anew and refuses any difference:

- each acknowledged message is there once, with its id and its bytes;
- a batch that was not acknowledged is there whole and once, or not at all, and stays so;
- a producer's batches are in order; ids rise, also over restarts, and with the order of acknowledgements;
- what any reader was shown is still there.
"""

import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from hashlib import blake2b

from rocksmq.clients import Client, Message


def digest(payload: bytes) -> bytes:
    """What the ledger keeps of a payload."""
    return blake2b(payload, digest_size=16).digest()


@dataclass(eq=False, slots=True)
class Attempt:
    """One batch of one producer. ``floor``: the highest id known anywhere when it was sent first."""

    channel: str
    producer: str
    number: int
    digests: list[bytes]
    floor: int
    acknowledged_id: int | None = None  # of its first message
    found_id: int | None = None  # where the log has it
    is_over: bool = False  # it will not be sent again: what is missing now stays missing


@dataclass(slots=True)
class ChannelLog:
    """What was found in a channel so far, in order."""

    ids: list[int] = field(default_factory=list[int])
    digests: list[bytes] = field(default_factory=list[bytes])
    newest: dict[str, int] = field(default_factory=dict[str, int])  # by producer: number of its last batch
    unfinished: tuple[str, int, int] | None = None  # producer, batch and message that must come next


class Ledger:
    """The book of one broker's life, over all its restarts. May be shared by threads."""

    def __init__(self) -> None:
        self.acknowledged_count = 0  # batches and other acknowledged operations
        self.logs: dict[str, ChannelLog] = {}
        self._changed = threading.Condition()
        self._attempts: dict[tuple[str, str, int], Attempt] = {}
        self._unchecked: list[Attempt] = []
        self._highest_id = 0
        self._seen: list[tuple[str, int, bytes]] = []
        self._failure: BaseException | None = None

    # -- what the load writes down ---------------------------------------------------

    def begin(self, channel: str, producer: str, number: int, fillers: Iterable[bytes]) -> tuple[Attempt, list[bytes]]:
        """Note a batch about to be sent; the attempt and its payloads, each of which says whose it is."""
        contents = list(fillers)
        payloads = [b"%s/%d/%d/%d|" % (producer.encode(), number, i, len(contents)) + c for i, c in enumerate(contents)]
        with self._changed:
            attempt = Attempt(channel, producer, number, [digest(payload) for payload in payloads], self._highest_id)
            assert (channel, producer, number) not in self._attempts, "a batch is begun once"
            self._attempts[channel, producer, number] = attempt
            self._unchecked.append(attempt)
        return attempt, payloads

    def acknowledged(self, attempt: Attempt, ids: range) -> None:
        """Its ids came back."""
        assert len(ids) == len(attempt.digests), f"{len(ids)} ids for {len(attempt.digests)} messages"
        with self._changed:
            assert attempt.floor < ids[0], f"{_name(attempt)} got id {ids[0]}, not above {attempt.floor} acknowledged before it"
            if attempt.found_id is not None:
                assert attempt.found_id == ids[0], f"{_name(attempt)} is at {attempt.found_id}, but was answered {ids[0]}"
            attempt.acknowledged_id = ids[0]
            self._highest_id = max(self._highest_id, ids[-1])
        self.progress()

    def seen(self, channel: str, messages: Iterable[Message]) -> None:
        """A reader was shown these."""
        noted = [(channel, message.id, digest(message.payload)) for message in messages]
        with self._changed:
            self._seen += noted

    def progress(self) -> None:
        """Something was acknowledged."""
        with self._changed:
            self.acknowledged_count += 1
            self._changed.notify_all()

    def fail(self, error: BaseException) -> None:
        """A part of the load found a fault."""
        with self._changed:
            self._failure = self._failure or error
            self._changed.notify_all()

    def wait_for(self, count: int, patience_s: float = 60.0) -> None:
        """Until so much was acknowledged in all. Raises what `fail` was told."""
        with self._changed:
            done = self._changed.wait_for(lambda: self._failure is not None or self.acknowledged_count >= count, patience_s)
            if self._failure is not None:
                raise self._failure
            assert done, f"nothing is acknowledged any more: {self.acknowledged_count}, not {count}"

    # -- what the broker has -----------------------------------------------------------

    def check(self, mq: Client, channels: Iterable[str]) -> int:
        """Read what is new in ``channels`` and hold it against the book; the number of new messages.

        Called while no load runs. Raises AssertionError.
        """
        found = 0
        for channel in channels:
            log = self.logs.setdefault(channel, ChannelLog())
            position = log.ids[-1] + 1 if log.ids else "earliest"
            while batch := mq.fetch(channel, position, 10_000):
                self._enter(channel, log, batch)
                found += len(batch)
                position = batch.next_position
            assert log.unfinished is None, f"{channel} ends inside of a batch: {log.unfinished} is missing"
            assert mq.describe_channel(channel).message_count == len(log.ids), f"{channel} describes another number of messages"
        self._check_attempts()
        self._check_seen()
        return found

    def check_again(self, mq: Client) -> None:
        """Read everything from the beginning: it is what was read before."""
        for channel, log in self.logs.items():
            ids: list[int] = []
            digests: list[bytes] = []
            position: int | str = "earliest"
            while batch := mq.fetch(channel, position, 10_000):
                ids += batch.ids
                digests += [digest(payload) for payload in batch.payloads]
                position = batch.next_position
            assert ids == log.ids, f"{channel}: the ids have changed"
            assert digests == log.digests, f"{channel}: the payloads have changed"

    def _enter(self, channel: str, log: ChannelLog, messages: Iterable[Message]) -> None:
        for message in messages:
            producer, number, index, count = _label(message.payload)
            attempt = self._attempts.get((channel, producer, number))
            assert attempt is not None, f"{channel} holds {message.id} of a batch that was never sent"
            assert message.id > (log.ids[-1] if log.ids else 0), f"{channel}: id {message.id} does not rise"
            assert message.id > attempt.floor, (
                f"{_name(attempt)} has id {message.id}, not above {attempt.floor}, known before it"
            )
            assert digest(message.payload) == attempt.digests[index], f"{_name(attempt)}: message {index} is damaged"
            if index == 0:
                assert log.unfinished is None, f"{_name(attempt)} begins inside of {log.unfinished}"
                self._enter_first(log, attempt, message.id)
            else:
                assert log.unfinished == (producer, number, index), (
                    f"{channel}: {message.id} is not what follows {log.unfinished}"
                )
                assert message.id == log.ids[-1] + 1, f"{_name(attempt)}: its ids are not contiguous"
            log.unfinished = (producer, number, index + 1) if index + 1 < count else None
            log.ids.append(message.id)
            log.digests.append(attempt.digests[index])
            self._highest_id = max(self._highest_id, message.id)

    @staticmethod
    def _enter_first(log: ChannelLog, attempt: Attempt, message_id: int) -> None:
        assert attempt.found_id is None, f"{_name(attempt)} is stored twice: {attempt.found_id} and {message_id}"
        assert not attempt.is_over, f"{_name(attempt)} was missing and appears now"
        newest = log.newest.get(attempt.producer, -1)
        assert newest < attempt.number, f"{_name(attempt)} comes after batch {newest}"
        attempt.found_id, log.newest[attempt.producer] = message_id, attempt.number

    def _check_attempts(self) -> None:
        waiting: list[Attempt] = []
        for attempt in self._unchecked:
            if attempt.acknowledged_id is not None:
                assert attempt.found_id is not None, (
                    f"{_name(attempt)} was acknowledged as {attempt.acknowledged_id} and is lost"
                )
                assert attempt.found_id == attempt.acknowledged_id, (
                    f"{_name(attempt)} is at {attempt.found_id}, not where it was"
                )
            elif not attempt.is_over and attempt.found_id is None:
                waiting.append(attempt)
        self._unchecked = waiting

    def give_up_unanswered(self, producers: Iterable[str]) -> None:
        """Those producers are gone: none of their batches is sent again."""
        gone = set(producers)
        for attempt in self._unchecked:
            if attempt.producer in gone:
                attempt.is_over = True

    def _check_seen(self) -> None:
        for channel, message_id, content in self._seen:
            log = self.logs[channel]
            index = bisect_left(log.ids, message_id)
            there = index < len(log.ids) and log.ids[index] == message_id
            assert there, f"{channel}: a reader was shown {message_id}, and it is gone"
            assert log.digests[index] == content, f"{channel}: a reader was shown other bytes as {message_id}"
        self._seen.clear()


def _label(payload: bytes) -> tuple[str, int, int, int]:
    producer, number, index, count = payload[: payload.index(b"|")].split(b"/")
    return producer.decode(), int(number), int(index), int(count)


def _name(attempt: Attempt) -> str:
    return f"batch {attempt.number} of {attempt.producer} on {attempt.channel}"


def wait_until(condition: Callable[[], bool], what: str, patience_s: float = 30.0) -> None:
    """Look again and again until ``condition`` holds. Raises AssertionError, saying ``what`` did not come."""
    deadline = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain until {what}"
        time.sleep(0.005)
