"""One channel of a running mirror: its course, its topic, and what is told of it. Belongs to the mirror's loop.

Only `open_topic`, `look` and `close_topic` are called elsewhere, one at a time a lane; and `report` anywhere.
"""

import random
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from rocksmq.protocol.errors import (
    ConnectionFailed,
    GroupNotFound,
    InvalidRequest,
    Overloaded,
    RocksMQError,
    ShuttingDown,
    Timeout,
)

from .course import Counts, Course, Phase, Room, Rules
from .envelope import origin_of
from .groups import Groups, Place
from .notes import Totals, decode, encode
from .options import MirrorOptions
from .report import ChannelReport, State
from .resume import Extent, Identity, Last, Refusal, Resume, decide, missing
from .silence import Silence
from .topics import Proof, Topic, check_unpartitioned, ids_behind, last_of

RETRY_SECONDS = 1.0
RETRY_SECONDS_MAX = 60.0  # of a channel that is stopped
AWAY_SECONDS_MAX = 5.0  # of one that waits for Pulsar or the broker
_PASSING = (ConnectionFailed, Timeout, Overloaded, ShuttingDown)
Job = Callable[[], Callable[[], None] | None]  # what blocks; gives what is to be done in the loop
# An opening of the lane, the number of a chunk, what failed, whether it is fresh.
Answer = tuple["Lane", int, int, str | None, bool]


@dataclass(frozen=True, slots=True)
class Opened:
    """What an opening found."""

    topic: Topic
    position: int
    last_sequence: int
    origin: str  # of what is sent


class Lane:
    """``number`` is the channel's; one that is made anew under its name has a lane of its own."""

    def __init__(
        self, options: MirrorOptions, channel: str, number: int, room: Room, answered: Callable[[Answer], None]
    ) -> None:
        self.channel = channel
        self.number = number
        self.is_gone = False  # the channel is
        self.is_busy = False  # something of it is done elsewhere
        self.jobs: deque[tuple[int, Job]] = deque()  # to be done there
        self.hangs = 0  # how often in a row that took long
        self.is_asked = False  # the broker was asked for its group
        self.is_told = False  # that deduplication is off
        self.gaps = 0
        self.state = State.STARTING
        self._to_do: int | None = None  # messages, of this life and yet to come, as the broker told last
        self._done_when_committed = 0
        self.asked_at = 0.0  # when the broker was last asked for the lag
        self.answered_at = 0.0  # when Pulsar last acknowledged something, or there was nothing to
        self.retry_at = 0.0  # of the next opening
        self.silence = Silence()
        self._committed: tuple[int, bytes] | None = None
        self.opening = 0  # what comes back for an earlier one is void
        self.deduplication: bool | None = None
        self.must_check = False  # whether deduplication is on, by opening once more
        self.topic: Topic | None = None
        self.generation: int | None = None  # of the group, once it is ours
        self._counts = Counts()
        self._before = Totals()
        self._options = options
        self.course = Course(Rules("", options.message_bytes_max, options.too_large, options.key_header), room, self._counts)
        self._proof: Proof | None = None  # of this opening
        self._doubtful: tuple[Proof, list[int]] | None = None  # what was on the way behind that when it was given up
        self._answered = answered
        self._errors = 0
        self._last_error = ""
        self._last_error_at = 0.0
        self._delay = RETRY_SECONDS
        self._group_position = 0

    @property
    def topic_name(self) -> str:
        return self._options.topic(self.channel)

    # -- elsewhere -----------------------------------------------------------------

    def open_topic(self, client: Any, groups: Groups, opening: int) -> Opened:
        """Take the group over, fence whoever produces, and find out where to go on. Raises RocksMQError."""
        name, topic = self.topic_name, self.topic
        if topic is not None:
            topic.close()
        self.topic = None
        self._hold_group(groups)
        check_unpartitioned(client, name)
        with suppress(ConnectionFailed):  # the second look tells more of the same
            # Before anybody is fenced on a topic that is not ours.
            self._decide(last_of(client, name, is_bare=False), groups)

        def done(number: int, failed: str | None, is_fresh: bool) -> None:
            self._answered((self, opening, number, failed, is_fresh))

        origin = origin_of(self._options.name, self.number, groups.describe(self.channel, self.number).created_ms)
        opened = Topic(client, name, self._options.producer_name(self.channel), origin, done)
        try:
            last_sequence = opened.last_sequence
            self._check_whole(client)
            found = self._decide(last_of(client, name, is_bare=last_sequence < 0), groups)
        except BaseException:
            opened.close()
            raise
        return Opened(opened, found.position, last_sequence, origin)

    def _check_whole(self, client: Any) -> None:
        """Of what was on the way when it was given up, Pulsar may have refused some and taken what followed."""
        if self._doubtful is None:
            return
        proof, sent = self._doubtful
        found = ids_behind(client, self.topic_name, proof)
        if found is not None and (lost := missing(sent, found)):
            raise InvalidRequest(
                f"{self.topic_name}: Pulsar has refused {len(lost)} messages, {lost[0]} to {lost[-1]}, and taken later ones: "
                "is there a maxMessageSize of the topic's own? Nothing more is sent; mirror the channel to another topic"
            )

    def _hold_group(self, groups: Groups) -> None:
        if self.generation is not None:
            try:
                self._group_position = max(self._group_position, groups.check(self.channel, self.generation).position)
            except GroupNotFound:  # somebody destroyed it: it is made anew
                self.generation = None
            else:
                return
        taken = groups.take_over(self.number)
        self._group_position, self.generation = taken.position, taken.generation
        if (note := decode(taken.metadata)) is not None:
            self._before = note.totals

    def _decide(self, last: Last | None, groups: Groups) -> Resume:
        found = groups.describe(self.channel, self.number)
        identity, extent = Identity(self.number, found.created_ms), Extent(found.begin_id, found.end_id)
        decision = decide(last, self._options.name, identity, self._group_position, extent)
        if isinstance(decision, Refusal):
            raise InvalidRequest(f"{self.topic_name}: {decision.reason}")
        return decision

    def look(self, client: Any, groups: Groups) -> int:
        """Behind a duplicate: the position behind the topic's last message, 0 if it is empty. Raises RocksMQError."""
        self._check_whole(client)
        last = last_of(client, self.topic_name, is_bare=False)
        return 0 if last is None else self._decide(last, groups).position

    def close_topic(self) -> None:
        """Never raises."""
        if self.topic is not None:
            self.topic.close()

    # -- in the loop ---------------------------------------------------------------

    def opened(self, found: Opened, now: float) -> None:
        """It goes on there."""
        self.topic = found.topic
        was_checked = self.must_check
        self.must_check = False
        if found.last_sequence >= 0:
            self.deduplication = True
        elif was_checked:
            self.deduplication = False
        self.state = State.RUNNING
        self.answered_at = now
        self.silence.broken(is_answered=False)
        self._proof = None
        self.course.named(found.origin)
        self.course.opened(found.position, self._group_position)

    def acknowledged(self, number: int, is_fresh: bool, now: float) -> None:
        """By Pulsar. Raises InternalError."""
        was_single = self.course.phase is Phase.SINGLES
        self.silence.broken(is_answered=True)
        if not (is_fresh or was_single):
            # What the library sent again after a lost connection; or what Pulsar has refused before, and takes for a duplicate
            # since it has taken what follows.
            self.again()
            return
        self.course.acknowledged(number, is_fresh)
        self.answered_at = now
        self.state = State.RUNNING
        if is_fresh:
            if self.topic is not None and (place := self.topic.places.pop(number, None)) is not None:
                self._proof = Proof(self.course.done_to - 1, place)
            self._doubtful = None
            self._delay = RETRY_SECONDS
            self.must_check = was_single and self.deduplication is None

    def failed(self, error: RocksMQError, now: float) -> None:
        """What is on the way is void; it is opened again after a while."""
        self.must_check = False
        self._give_up()
        is_passing = isinstance(error, _PASSING)
        self.state = State.WAITING if is_passing else State.STOPPED
        self.note(error)
        self._delay = min(self._delay * 2, AWAY_SECONDS_MAX if is_passing else RETRY_SECONDS_MAX)
        self.retry_at = now + self._delay * random.uniform(0.5, 1)  # noqa: S311

    def again(self) -> None:
        """It is opened again at once."""
        self._give_up()
        self.retry_at = 0.0

    def _give_up(self) -> None:
        if self._proof is not None:
            self._doubtful = self._proof, self.course.ids_on_the_way
            self._proof = None
        self._group_position = max(self._group_position, self.course.done_to)
        self.opening += 1
        self.course.drop()

    def note(self, error: RocksMQError) -> None:
        """An error to be shown."""
        self._errors += 1
        self._last_error, self._last_error_at = error.message, time.time()

    def ended(self, why: str = "") -> None:
        """The channel is gone, or the mirror ends."""
        self.opening += 1
        self.course.drop()
        self.state = State.ENDED
        if why:
            self._last_error, self._last_error_at = why, time.time()

    def place(self) -> Place | None:
        """What is to be committed; None: nothing that is new."""
        if self.generation is None or self.is_gone:
            return None
        metadata = encode(self.report(), self._before)
        position = self._group_position = max(self._group_position, self.course.done_to)
        if self._committed == (position, metadata):
            return None
        return Place(self.number, self.generation, position, metadata)

    @property
    def done(self) -> int:
        """Messages that were mirrored or skipped in this life."""
        return self._counts.messages + self._counts.skipped

    def committed(self, place: Place, done: int) -> None:
        """The group stands there; ``done`` is what `done` was when the place was asked for."""
        self._committed = place.position, place.metadata
        self._done_when_committed = done

    def told_lag(self, messages: int) -> None:
        """The broker counts so many behind the group's position."""
        self._to_do = messages + self._done_when_committed

    @property
    def lag(self) -> int | None:
        """Messages that are not mirrored, as far as is known."""
        return None if self._to_do is None else max(0, self._to_do - self.done)

    def report(self) -> ChannelReport:
        """As of now."""
        return ChannelReport(
            channel=self.channel,
            topic=self.topic_name,
            state=self.state,
            messages=self._counts.messages,
            bytes=self._counts.bytes,
            skipped=self._counts.skipped,
            gaps=self.gaps,
            errors=self._errors,
            lag=self.lag,
            deduplication=self.deduplication,
            last_error=self._last_error,
            last_error_at=self._last_error_at,
        )
