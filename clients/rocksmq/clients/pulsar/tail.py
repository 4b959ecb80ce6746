"""One topic, read from a place on by a temporary reader of Pulsar, of which nothing stays behind.

Waiting is done by `_reader.read_next_async`, which Pulsar's client for asyncio is built on too: its public Reader has only a
call that blocks the whole wait. While such a one is out, none of the blocking kind is made: the two would get messages out of
order. For one thread at a time, but for what `Answers` notes.
"""

import random
import time
from typing import Any, NamedTuple

from rocksmq.protocol.errors import InvalidRequest, Timeout

from ..deadline import SLICE_SECONDS, Deadline
from .answers import BACK_OFF_SECONDS, BACK_OFF_SECONDS_MAX, OK, OVERDUE, Answer, Answers
from .client import pulsar
from .places import LATEST, Place, place_of

CHECK_SECONDS = 1.0  # a topic that cannot be reached is asked for so often; a reader that gives nothing is replaced so soon
NOT_FOUND = "TopicNotFound"
_NATIVE: Any = pulsar._pulsar
_EARLIEST, _TIMED_OUT = _NATIVE.MessageId.earliest, pulsar.Timeout
# The server says that it has no last message of a topic: pulsar-lite of an empty one.
_NONE_THERE = "UnknownError"
_NOWHERE = Place(-1, -1, -1)  # where that is not sure


class Read(NamedTuple):
    """A message of Pulsar, and where it stands."""

    place: Place
    message: Any


class Gap(NamedTuple):
    """What is at ``begin`` was to be read, and is gone up to ``end``."""

    begin: Place
    end: Place


class Tail:
    """``name`` of what is read, for errors; ``prefetch``: messages that may lie ready."""

    def __init__(self, client: Any, answers: Answers, topic: str, name: str, prefetch: int) -> None:
        self.name = name
        self.is_known = False  # whether it has anything, when it was opened
        self.gap: Gap | None = None  # found at the first message behind `stand`
        self._client = client
        self._answers = answers
        self._topic = topic
        self._prefetch = prefetch
        self._next: Place | None = _NOWHERE  # behind what was given
        self._begin: Place | None = None
        self._is_checked = False  # that what is at `_begin` is still there
        self._held: Read | None = None  # read, and not given yet
        self._opening: Answer | None = None
        self._reader: Any = None
        self._parked: Answer | None = None
        self._asked: Answer | None = None  # whether there is more
        self._was_at_end = False  # when it was asked before, with a read parked
        self._more_since: float | None = None  # there is said to be more, and it does not come
        self._patience = CHECK_SECONDS  # with that
        self._checking: Answer | None = None  # whether the topic exists
        self._not_before = 0.0  # when to do that again, or to open a reader
        self._not_asked_before = 0.0
        self._pause = BACK_OFF_SECONDS

    def stand(self, place: Place | None) -> None:
        """Read on from there, where it stands already if nothing was torn."""
        self._asked, self._not_asked_before, self._was_at_end = None, 0.0, False
        if self._next == place:
            return
        self.close()
        self._begin = place
        self._is_checked = place is None or place.offset < 0
        self._next = place

    def seek(self, milliseconds: int, deadline: Deadline) -> None:
        """Read on at what was published then or later. Raises Timeout, what else Pulsar says."""
        self.stand(None)
        while self._reader is None:
            self.advance()
            if deadline.is_over:
                raise Timeout(f"Pulsar does not answer: reading {self.name!r}")
            opening = () if self._opening is None else (self._opening,)
            if not self._answers.wait(opening, deadline) or not opening:
                time.sleep(BACK_OFF_SECONDS)
        answer = self._answers.ask(self._reader.seek_async, milliseconds)
        if not self._answers.wait([answer], deadline) or answer.result != OK:
            raise answer.error(f"seeking in {self.name!r}")

    def advance(self) -> None:
        """Open a reader, or notice that it was opened. Raises what Pulsar says for good: ChannelNotFound."""
        self._check_topic()
        if self._opening is None and self._reader is None:
            if time.monotonic() >= self._not_before:
                self._open()
        elif self._opening is not None and self._opening.result:
            answer, self._opening = self._opening, None
            if answer.result == OK:
                # Pulsar's reader keeps its callback, by that the answer, and by this itself and the client, for ever.
                self._reader, answer.value, self._pause = answer.value, None, BACK_OFF_SECONDS
                return
            self._not_before = time.monotonic() + random.uniform(self._pause / 2, self._pause)  # noqa: S311
            self._pause = min(2 * self._pause, BACK_OFF_SECONDS_MAX)
            error = answer.error(f"reading {self.name!r}")
            if not error.retryable and answer.result != OVERDUE:
                raise error

    def _open(self) -> None:
        conf = _NATIVE.ReaderConfiguration()
        conf.receiver_queue_size(self._prefetch)
        conf.start_message_id_inclusive(self._begin != LATEST)
        start = _EARLIEST if self._begin is None else self._begin.before.message_id
        self._opening = self._answers.ask(self._client.create_reader_async, self._topic, start, conf)

    def _check_topic(self) -> None:
        """Of a reader that has lost its connection one never hears that the topic is gone."""
        answer = self._checking
        if answer is not None and answer.result:
            self._checking = None
            if answer.result == NOT_FOUND:
                self._not_before = 0.0
                raise answer.error(f"reading {self.name!r}")
        elif answer is None and self.is_cut_off and time.monotonic() >= self._not_before:
            self._not_before = time.monotonic() + CHECK_SECONDS
            self._checking = self.looked_for()

    def looked_for(self) -> Answer:
        """Whether the topic exists."""
        return self._answers.ask(self._client.get_topic_partitions_async, self._topic)

    @property
    def is_cut_off(self) -> bool:
        """It has a reader, which is not connected."""
        return self._reader is not None and not self._reader.is_connected()

    # -- reading -----------------------------------------------------------------

    def is_ready(self) -> bool:
        """Whether there is a message."""
        if self._held is None:
            place, self._next = self._next, _NOWHERE  # for an interrupt that strikes while it is in nobody's hand
            self._held = self._read()
            self._next = place
            self.is_known = self.is_known or self._held is not None
        return self._held is not None

    def take(self, messages_max: int, bytes_max: int, *, gives_one: bool) -> list[Read]:
        """Those that are there, with ``gives_one`` one even if it is larger. `settle` tells that they were had."""
        taken: list[Read] = []
        size = 0
        while len(taken) < messages_max and self.is_ready():
            assert self._held is not None, "it is ready"
            size += self._held.message.length()
            if size > bytes_max and (taken or not gives_one):
                break
            self._next = _NOWHERE
            taken.append(self._held)
            self._held = None
        return taken

    def settle(self, place: Place | None) -> None:
        """What was taken goes up to before ``place``, and is in good hands."""
        self._next = place

    def _read(self) -> Read | None:
        while self._reader is not None:
            message = self._next_message()
            if message is None:
                return None
            place = place_of(message.message_id())
            if place is None or place.ledger < 0:
                raise InvalidRequest(f"{self.name!r} has partitions: streams are over topics without")
            if self._begin in (None, LATEST) or place >= self._begin:
                self._check_gap(place)
                self._more_since, self._patience = None, CHECK_SECONDS
                self._begin = place.behind  # a reader that was cut off gives its last message again
                return Read(place, message)
            self._is_checked = True  # what comes before is there, so nothing is missing
            self._not_asked_before = 0.0
        return None

    def _next_message(self) -> Any:
        if self._parked is not None:
            if not self._parked.result:
                return None
            answer, self._parked = self._parked, None
            if answer.result == OK:
                self._was_at_end = False
                return answer.value
        try:
            return self._reader.read_next(0)
        except _TIMED_OUT:
            return None
        except pulsar.PulsarException:  # it is closed, or has no connection
            return None

    def _check_gap(self, place: Place) -> None:
        if not self._is_checked and self._begin is not None and place != self._begin:
            self.gap = Gap(self._begin, place)
        self._is_checked = True

    def next_message(self, deadline: Deadline) -> Read:
        """Wait for it. Raises Timeout."""
        while not self.is_ready():
            self.advance()
            if deadline.is_over:
                raise Timeout(f"Pulsar does not answer: reading {self.name!r}")
            self.wait(deadline)
        return self.take(1, 0, gives_one=True)[0]

    # -- waiting -----------------------------------------------------------------

    def park(self) -> None:
        """Have `Answers.changed` notified when there is a message."""
        if self._reader is not None and self._parked is None and self._held is None:
            self._parked = self._answers.ask(self._reader.read_next_async)

    def wait(self, deadline: Deadline, other: Answer | None = None) -> None:
        """Until something has changed, or ``other`` has come; not for long."""
        self.park()
        until = deadline.at_most(SLICE_SECONDS)
        with self._answers.changed:
            while not self.has_changed() and not until.is_over and not (other is not None and other.result not in ("", OK)):
                self._answers.check()
                self._answers.changed.wait(until.remaining)
        self._answers.check()

    def has_changed(self) -> bool:
        """Something has come since it was parked, or is to be done."""
        waiting = (self._parked, self._opening, self._checking, self._asked)
        return any(answer is not None and answer.result for answer in waiting)

    def maybe_at_end(self) -> bool | None:
        """Whether nothing more is stored; None: not known yet. Asks. What is stored may be what `stand` passes over."""
        has_more = self._has_more()
        if has_more is None:
            return None
        if has_more and not self._was_at_end:
            self._not_asked_before = time.monotonic() + SLICE_SECONDS
            self._wait_for_more()
            return False
        if self._parked is not None and not self._was_at_end:
            # What a parked read was just given counts as read, and its answer may still be on its way. It is here when the next
            # one is, whatever that says.
            self._was_at_end, self._not_asked_before = True, 0.0
            return None
        self._was_at_end = False
        is_given = self._parked is not None and self._parked.result == OK
        self.is_known = True
        return None if is_given else True

    def _has_more(self) -> bool | None:
        """What Pulsar says, as far as it counts its reader's messages; None: it has not said yet."""
        if self._asked is None:
            if self._reader is not None and time.monotonic() >= self._not_asked_before:
                self._asked = self._answers.ask(self._reader.has_message_available_async)
            return None
        if not self._asked.result:
            return None
        answer, self._asked = self._asked, None
        if answer.result not in (OK, _NONE_THERE):
            self._not_asked_before = time.monotonic() + SLICE_SECONDS
            return None
        return answer.result == OK and answer.value is True

    def _wait_for_more(self) -> None:
        """A reader that was cut off at the end of a terminated topic says for ever that there is more: another one knows."""
        now = time.monotonic()
        if self._more_since is None:
            self._more_since = now
        elif self._begin != LATEST and now - self._more_since > self._patience:
            self._more_since, self._patience = None, 2 * self._patience
            self._let_go()

    def close(self) -> None:
        """Let go of the reader, and forget where it stood."""
        self._let_go()
        self._next, self._begin, self._held, self.gap = _NOWHERE, None, None, None
        self._more_since, self._patience, self.is_known = None, CHECK_SECONDS, False

    def _let_go(self) -> None:
        if self._opening is not None:
            self._answers.give_up([self._opening])
        if self._reader is not None:
            self._answers.close(self._reader)
        self._reader = self._opening = self._parked = self._asked = self._checking = None
        self._not_before = 0.0
