"""Parts of packs on their way to Pulsar: each is one batch, which Pulsar stores as a whole or not at all.

All messages of a part are handed over, and flushed, in one go that no interrupt can tear. A part whose outcome is not known is
never sent again: its answer is waited for on, or, where none can come any more, it is looked for in the topic. So it is stored
once, however often it is sent, where Pulsar drops what its own client sends again (`brokerDeduplicationEnabled`).
"""

import operator
import secrets
import threading
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from rocksmq.protocol.errors import ChannelNotFound, InvalidRequest, Overloaded, RocksMQError, Timeout

from ..deadline import SLICE_SECONDS, Deadline
from .answers import OK, Answer, Answers
from .client import pulsar
from .places import Place, place_of
from .tail import NOT_FOUND, Tail

ENTRY_BYTES_MAX = (5 << 20) - (64 << 10)  # what Pulsar takes as a batch unless it is set up otherwise, and room for its heading
MESSAGE_BYTES = 32  # at the most what a batch has of its own for each message
PENDING_BYTES_MAX = 64 << 20  # of parts that are on their way
PART = "rocksmq.part"  # property of a part's first message: which part it is
_LOOK_PREFETCH = 1_000
_NEVER_MS = 24 * 3_600_000
_NATIVE: Any = pulsar._pulsar


class PulsarPart:
    """As `Part`. ``key``: no other part has it."""

    def __init__(self, channel: str, payloads: Sequence[bytes], size: int) -> None:
        self.channel = channel
        self.payloads = payloads
        self.size = size
        self.key = secrets.token_hex(8)
        self.ids: range | None = None
        self.error: RocksMQError | None = None
        self.answer: Answer | None = None  # once it was handed over
        self.outlet: Outlet | None = None
        self.is_in_doubt = False  # it may be stored, and no answer will come
        self.reason = ""  # why not
        self.looked_to: Place | None = None  # in the topic, for it


class Outlet:
    """A producer of Pulsar for one channel."""

    def __init__(self, producer: Any) -> None:
        self.producer = producer
        self.last: Place | None = None  # that it has stored
        self.is_broken = False
        self.closed: Answer | None = None
        self._turn = threading.Lock()

    def hand_over(self, part: PulsarPart, answers: Answers) -> None:
        """Begin to send it."""
        messages = [_message(payload, part.key if not index else None) for index, payload in enumerate(part.payloads)]
        answer = Answer()
        send, told = self.producer.send_async, answers.expected(answer)
        calls: list[Callable[[], object]] = [partial(setattr, part, "outlet", self), partial(setattr, part, "answer", answer)]
        calls += [partial(send, message, None) for message in messages[:-1]]
        calls += [partial(send, messages[-1], told), partial(self.producer.flush_async, None)]
        with self._turn:
            deque(map(operator.call, calls), maxlen=0)  # no Python runs in between, so nobody can interrupt


def _message(payload: bytes, key: str | None) -> Any:
    builder = _NATIVE.MessageBuilder()
    builder.content(payload)
    if key is not None:
        builder.property(PART, key)
    return builder.build()


class Sending:
    """To topics by the names of their channels. Any thread."""

    def __init__(self, client: Any, answers: Answers, topic_of: Callable[[str], str]) -> None:
        self._client = client
        self._answers = answers
        self._topic_of = topic_of
        self._opening = threading.Lock()
        self._outlets: dict[str, Outlet] = {}
        self._pending: dict[str, PulsarPart] = {}  # by key

    def open(self, channels: Sequence[str], deadline: Deadline) -> None:
        """Have a producer for each. Raises ChannelNotFound with all that do not exist, what else Pulsar says."""
        found = self._opened(channels, deadline)
        if missing := [channel for channel in channels if isinstance(found.get(channel), ChannelNotFound)]:
            raise ChannelNotFound(f"there are no channels {', '.join(map(repr, missing))}: check the names, or create them")
        for error in found.values():
            raise error

    def _opened(self, channels: Sequence[str], deadline: Deadline) -> dict[str, RocksMQError]:
        """Why there is none, by channel."""
        with self._opening:
            wanted = [name for name in channels if name not in self._outlets or self._outlets[name].is_broken]
            found = self._answers.all_of({name: partial(self._create, name) for name in wanted}, deadline)
            self._outlets |= {name: Outlet(answer.value) for name, answer in found.items() if answer.result == OK}
        return {name: answer.error(f"sending to {name!r}") for name, answer in found.items() if answer.result != OK}

    def _create(self, channel: str) -> Answer:
        conf = _NATIVE.ProducerConfiguration()
        conf.send_timeout_millis(0)
        conf.max_pending_messages(0)
        conf.block_if_queue_full(False)
        conf.batching_enabled(True)  # and only a flush ends one
        conf.batching_max_messages(0x7FFFFFFF)
        conf.batching_max_allowed_size_in_bytes(2 * ENTRY_BYTES_MAX)
        conf.batching_max_publish_delay_ms(_NEVER_MS)
        return self._answers.ask(self._client.create_producer_async, self._topic_of(channel), conf)

    def close(self) -> None:
        """Let go of the producers."""
        outlets, self._outlets = self._outlets, {}
        for outlet in outlets.values():
            self._answers.close(outlet.producer)

    # -- sending -----------------------------------------------------------------

    def send(self, parts: Sequence[PulsarPart], deadline: Deadline) -> None:
        """As `Transport.send`."""
        for part in parts:
            part.error = None
        self._look(parts, deadline)
        unsent = [part for part in parts if part.answer is None and part.ids is None and part.error is None]
        errors = self._opened([part.channel for part in unsent], deadline)
        for part in unsent:
            if (error := errors.get(part.channel)) is not None:
                part.error = error
            elif sum(pending.size for pending in tuple(self._pending.values())) > PENDING_BYTES_MAX:
                part.error = Overloaded(f"{PENDING_BYTES_MAX >> 20} MiB are on their way to Pulsar, which does not answer")
            else:
                self._pending[part.key] = part
                self._outlets[part.channel].hand_over(part, self._answers)
        waited = [part for part in parts if part.answer is not None and part.ids is None]
        self._wait(waited, deadline)
        for part in waited:
            self._conclude(part)
        self._look(parts, deadline)

    def _wait(self, parts: Sequence[PulsarPart], deadline: Deadline) -> None:
        """Until all are answered; of a topic that is gone none ever comes."""
        asked: dict[str, Answer] = {}
        while not deadline.is_over:
            waited = [(part, part.answer) for part in parts if part.answer and not part.answer.result and part.error is None]
            if self._answers.wait([answer for _, answer in waited], deadline.at_most(SLICE_SECONDS)):
                return
            for part, _ in waited:
                if part.outlet is None or part.outlet.producer.is_connected():
                    continue
                found = asked.get(part.channel)
                if found is not None and found.result == NOT_FOUND:
                    part.error = found.error(f"sending to {part.channel!r}")
                elif found is None or found.result:
                    topic = self._topic_of(part.channel)
                    asked[part.channel] = self._answers.ask(self._client.get_topic_partitions_async, topic)

    def _conclude(self, part: PulsarPart) -> None:
        """What its answer means, if there is one."""
        answer, outlet = part.answer, part.outlet
        assert answer is not None, "it was handed over"
        assert outlet is not None, "it was handed over"
        if not answer.result:
            what = f"Pulsar does not say whether the part for {part.channel!r} is stored: send it again to find out"
            part.error = part.error or Timeout(what)
            return
        self._pending.pop(part.key, None)
        last = place_of(answer.value) if answer.result == OK else None
        if last is not None:
            part.ids = _numbers(last, len(part.payloads))
            outlet.last = last
            return
        part.is_in_doubt = True
        if answer.result == OK:  # it was dropped, for it had come before
            part.error = Timeout(f"Pulsar has lost the part for {part.channel!r}")
        else:
            outlet.is_broken = True
            part.error = answer.error(f"sending to {part.channel!r}")
        part.reason = part.error.message

    # -- looking for what is in doubt ----------------------------------------------

    def _look(self, parts: Sequence[PulsarPart], deadline: Deadline) -> None:
        for part in parts:
            if part.is_in_doubt:
                try:
                    self._look_for(part, deadline)
                except RocksMQError as error:
                    part.error = error

    def _look_for(self, part: PulsarPart, deadline: Deadline) -> None:
        """Find out whether it is stored: its producer has ended, so it is now or never will be.

        A topic that is too long to be read by the deadline is read on the next time.
        """
        unknown = f"Pulsar does not say whether the part for {part.channel!r} is stored ({part.reason})"
        outlet = part.outlet
        assert outlet is not None, "it was handed over"
        if outlet.is_broken:
            if outlet.closed is None:
                outlet.closed = self._answers.close(outlet.producer)
            if not self._answers.wait([outlet.closed], deadline):
                raise Timeout(unknown)
        tail = Tail(self._client, self._answers, self._topic_of(part.channel), part.channel, _LOOK_PREFETCH)
        try:
            tail.stand(part.looked_to or (None if outlet.last is None else outlet.last.behind))
            while (at_end := tail.maybe_at_end() if not tail.is_ready() else False) is not True:
                tail.advance()
                for place, message in tail.take(_LOOK_PREFETCH, ENTRY_BYTES_MAX, gives_one=True):
                    if message.properties().get(PART) == part.key:
                        part.ids = range(place.number, place.number + len(part.payloads))
                        part.error, part.is_in_doubt = None, False
                        return
                    part.looked_to = place.behind
                if deadline.is_over:
                    raise Timeout(unknown)
                if at_end is not False or not tail.is_ready():
                    tail.wait(deadline)
        finally:
            tail.close()
        part.answer = part.outlet = part.looked_to = None  # it is not: it may be sent anew
        part.is_in_doubt = False


def _numbers(last: Place, count: int) -> range:
    """The ids of a part, of which the last message is there."""
    if max(0, last.offset) != count - 1:
        raise InvalidRequest(f"Pulsar has torn a batch of {count} messages: {last}")
    return range(last.number - count + 1, last.number + 1)


def checked_size(payloads: Sequence[Any], channel: str) -> int:
    """Bytes of the part that they make. Raises InvalidRequest when it is too large to be stored as a whole."""
    for payload in payloads:
        if not isinstance(payload, bytes):
            raise InvalidRequest(f"Pulsar carries bytes, not {type(payload).__name__}: give the factory other dispatchers")
    size = sum(map(len, payloads)) + len(payloads) * MESSAGE_BYTES
    if size > ENTRY_BYTES_MAX:
        what = f"{len(payloads)} messages of {size} bytes, {ENTRY_BYTES_MAX} are allowed"
        raise InvalidRequest(f"the part of the pack for {channel!r} is too large: {what}")
    return size
