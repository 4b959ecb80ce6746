"""The topic of a subscription's positions: `register` with the I/O. One thread at a time."""

import random
import secrets
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from rocksmq.protocol.errors import ChannelNotFound, ProtocolError, RocksMQError, Timeout

from ..deadline import Deadline
from .answers import BACK_OFF_SECONDS, BACK_OFF_SECONDS_MAX, OK, Answer, Answers
from .client import logger, pulsar
from .holds import Holds
from .places import Place
from .register import Entry, Register, State
from .tail import NOT_FOUND, Tail

PREFETCH = 100
_NATIVE: Any = pulsar._pulsar


class Positions:
    """Of the subscription ``name``. What is not known to be done raises Timeout or ConnectionFailed, and may be done later."""

    def __init__(self, client: Any, answers: Answers, topic: str, name: str) -> None:
        self.name = name
        self._client = client
        self._answers = answers
        self._topic = topic
        self._holds = Holds(client, answers, lambda channel: topic, name)
        self._tail = Tail(client, answers, topic, topic, PREFETCH)
        self._register = Register()
        self._read_to: Place | None = None
        self.is_open = False
        self._producer: Any = None
        self._appended: Answer | None = None  # the last one

    @property
    def state(self) -> State:
        """As far as it was read."""
        return self._register.state

    def open(self, deadline: Deadline) -> None:
        """Read what there is. May be repeated. Raises ChannelNotFound when there is no topic, and Pulsar makes none."""
        if self.is_open:
            return
        self._produce(deadline)
        with self._holds.attached({self.name: False}, deadline) as attached:
            end = self._holds.ends(attached, deadline)[self.name]
        self._register = Register()
        if end is not None:
            last = end.previous_entry
            self._tail.stand(last)
            entry = self._one(deadline)[1]
            self._register = Register()  # only what it follows was wanted of it: it may be one that does not count
            self._read_to = None if entry is None else entry.follows
            self._read_up_to(last, deadline)
        self._register.settle()
        self.is_open = True

    def refresh(self, deadline: Deadline) -> None:
        """Read on to what the subscription is now."""
        if self.is_open:
            self._catch_up(deadline)
        self.open(deadline)

    def swap(self, change: Callable[[State], State], deadline: Deadline) -> State:
        """Make of the state what ``change`` makes of it, durably; the state then. ``change`` may be called again.

        What it raises is raised, once it is sure that the state is the last one.
        """
        self.open(deadline)
        self._settle(deadline)
        pause = BACK_OFF_SECONDS
        while True:
            present = self._register.state
            try:
                wanted = change(present)
            except RocksMQError:
                self._catch_up(deadline)
                present = self._register.state
                wanted = change(present)
            if wanted is present:
                return wanted
            entry = self._register.following(wanted, secrets.token_hex(8))
            if self._is_first(entry, deadline):
                return wanted
            if deadline.remaining <= pause:
                raise Timeout(f"others moved the subscription {self.name!r} all the time: it was not moved")
            time.sleep(random.uniform(0, pause))  # noqa: S311
            pause = min(2 * pause, BACK_OFF_SECONDS_MAX)

    def acknowledge(self, deadline: Deadline) -> None:
        """What lies before the last two entries that count is no longer held."""
        entry = self._register.entry
        if entry is None or entry.follows is None:
            return
        with self._holds.attached({self.name: False}, deadline) as attached:
            self._holds.acknowledge(attached, {self.name: entry.follows}, deadline)

    def remove(self, deadline: Deadline) -> None:
        """The topic is no longer held."""
        self._holds.remove([self.name], deadline)

    def close(self) -> None:
        """Let go of everything."""
        self._tail.close()
        if self._producer is not None:
            self._answers.close(self._producer)
            self._producer = None

    # -- appending ---------------------------------------------------------------

    def _produce(self, deadline: Deadline) -> None:
        if self._producer is not None:
            return
        conf = _NATIVE.ProducerConfiguration()
        conf.batching_enabled(False)
        conf.send_timeout_millis(0)
        conf.block_if_queue_full(False)
        begin = {self.name: partial(self._answers.ask, self._client.create_producer_async, self._topic, conf)}
        answer = self._answers.all_of(begin, deadline)[self.name]
        if answer.result == NOT_FOUND:
            raise ChannelNotFound(f"Pulsar makes no topics by itself there: create {self._topic}, where positions are kept")
        if answer.result != OK:
            raise answer.error(f"keeping the positions of {self.name!r}")
        self._producer = answer.value

    def _settle(self, deadline: Deadline) -> None:
        """Nothing is appended while it is not known what became of the last one, so no more than that is ever on its way."""
        if self._appended is not None and not self._answers.wait([self._appended], deadline):
            raise Timeout(f"Pulsar does not answer: the subscription {self.name!r} cannot be moved")

    def _is_first(self, entry: Entry, deadline: Deadline) -> bool:
        """Append it, and read on up to it; whether it counts."""
        self._produce(deadline)
        message = _NATIVE.MessageBuilder().content(entry.encode()).build()
        appended = self._appended = self._answers.ask(self._producer.send_async, message)
        while True:
            if appended.result not in ("", OK):
                producer, self._producer = self._producer, None
                self._answers.close(producer)
                error = appended.error(f"moving the subscription {self.name!r}")
                if not error.retryable:
                    raise error
                return False
            read = self._maybe_one(deadline, appended)
            if read is not None and read[1] is not None and read[1].id == entry.id:
                return self._register.entry is not None and self._register.entry.id == entry.id

    # -- reading -----------------------------------------------------------------

    def _catch_up(self, deadline: Deadline) -> None:
        with self._holds.attached({self.name: False}, deadline) as attached:
            end = self._holds.ends(attached, deadline)[self.name]
        if end is not None:
            self._read_up_to(end.previous_entry, deadline)

    def _read_up_to(self, last: Place, deadline: Deadline) -> None:
        """All that lies before or at that entry."""
        while self._read_to is None or self._read_to <= last:
            self._tail.stand(self._read_to)
            self._one(deadline)

    def _one(self, deadline: Deadline) -> tuple[Place, Entry | None]:
        while True:
            if (read := self._maybe_one(deadline, None)) is not None:
                return read

    def _maybe_one(self, deadline: Deadline, unless: Answer | None) -> tuple[Place, Entry | None] | None:
        """The next entry of the log; None for one that is none, or when ``unless`` has failed."""
        if self.is_open:
            self._tail.stand(self._read_to)
        while not self._tail.is_ready():
            self._tail.advance()
            if unless is not None and unless.result not in ("", OK):
                return None
            if deadline.is_over:
                raise Timeout(f"Pulsar does not answer: it is not known whether the subscription {self.name!r} was moved")
            self._tail.wait(deadline, unless)
        ((place, message),) = self._tail.take(1, 0, gives_one=True)
        entry: Entry | None = None
        try:
            entry = Entry.decode(message.data())
            self._register.read(place, entry)
        except ProtocolError as error:
            logger.warning("%s at %s is passed over: %s", self._topic, place, error)
        self._read_to = place.behind
        self._tail.settle(place.behind)
        return place, entry
