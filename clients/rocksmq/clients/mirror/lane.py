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

from ..pulsar.places import Place
from .course import HEAD_BYTES, Counts, Course, Phase, Room, Rules
from .envelope import message_size, origin_of
from .groups import Groups, Progress
from .notes import Totals, decode, encode
from .options import MirrorOptions
from .reading import Wanted
from .report import ChannelReport, State
from .resume import Extent, Identity, Last, Refusal, Resume, decide
from .silence import Silence
from .topics import Topic, check_unpartitioned, compared_behind, last_of

RETRY_SECONDS = 1.0
RETRY_SECONDS_MAX = 60.0  # of a channel that is stopped
AWAY_SECONDS_MAX = 5.0  # of one that waits for Pulsar or the broker
LARGER_SECONDS = 60.0  # until chunks are tried again that are as large as one that was refused; twice as long each time
LARGER_SECONDS_MAX = 3_600.0
_PASSING = (ConnectionFailed, Timeout, Overloaded, ShuttingDown)
Job = Callable[[], Callable[[], None] | None]  # what blocks; gives what is to be done in the loop
# An opening of the lane, the number of a chunk, what failed, where it is unless it was stored before.
Answer = tuple["Lane", int, int, str | None, Place | None]


@dataclass(frozen=True, slots=True)
class Opened:
    """What an opening found."""

    topic: Topic
    position: int
    last_sequence: int
    origin: str  # of what is sent
    skipped: int  # by a life of the mirror that could not tell any more


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
        self.known: tuple[int, int] | None = None  # an id to read from, and how many messages were ever appended before it
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
        self._place: Place | None = None  # in the topic, of a message before the group's position: up to it all is stored
        self._larger_at, self._larger_delay = 0.0, LARGER_SECONDS
        self._origin = ""
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

        def done(number: int, failed: str | None, place: Place | None) -> None:
            self._answered((self, opening, number, failed, place))

        origin = origin_of(self._options.name, self.number, groups.describe(self.channel, self.number).created_ms)
        opened = Topic(client, name, self._options.producer_name(self.channel), origin, done)
        try:
            last_sequence = opened.last_sequence
            last = last_of(client, name, is_bare=last_sequence < 0)
            position, skipped = self._position_behind(last, client, groups, origin)
        except BaseException:
            opened.close()
            raise
        return Opened(opened, position, last_sequence, origin, skipped)

    def _position_behind(self, last: Last | None, client: Any, groups: Groups, origin: str) -> tuple[int, int]:
        """Where to go on, and how many before that were skipped, and never counted. Raises RocksMQError."""
        position = self._decide(last, groups).position
        group_position = self._group_position
        if last is None or not self._place or position <= group_position:
            return position, 0
        options = self._options
        sent = (
            (message_id, message_size(message_id, origin, length, headers, options.key_header))
            for message_id, length, headers in groups.messages_from(self.number, group_position)
        )
        found = compared_behind(client, self.topic_name, self._place, group_position, sent)
        if found is None or not found.missing:
            return position, 0
        if options.too_large == "skip" and found.may_be_skipped(options.message_bytes_max - HEAD_BYTES):
            return position, len(found.missing)
        raise InvalidRequest(
            f"{self.topic_name}: Pulsar has refused {len(found.missing)} messages, {found.missing[0][0]} to "
            f"{found.missing[-1][0]}, and taken later ones: was the topic's own maxMessageSize lowered? Nothing more is sent"
        )

    def _hold_group(self, groups: Groups) -> None:
        if self.generation is not None:
            try:
                groups.check(self.channel, self.generation)
            except GroupNotFound:  # somebody destroyed it: it is made anew
                self.generation = None
            else:
                # What it describes may be the channel's beginning, behind what was removed before it was read.
                self._group_position = max(self._group_position, 0 if self._committed is None else self._committed[0])
                return
        taken = groups.take_over(self.number)
        self._group_position, self.generation = taken.position, taken.generation
        self.known = taken.position, taken.offset
        if (note := decode(taken.metadata)) is not None:
            self._before, self._place = note.totals, note.place and Place(*note.place)

    def _decide(self, last: Last | None, groups: Groups) -> Resume:
        found = groups.describe(self.channel, self.number)
        identity, extent = Identity(self.number, found.created_ms), Extent(found.begin_id, found.end_id)
        decision = decide(last, self._options.name, identity, self._group_position, extent)
        if isinstance(decision, Refusal):
            raise InvalidRequest(f"{self.topic_name}: {decision.reason}")
        return decision

    def look(self, client: Any, groups: Groups) -> tuple[int, int]:
        """Behind a duplicate: the position behind the topic's last message, 0 if it is empty. Raises RocksMQError.

        And how many before that were skipped, and never counted.
        """
        last = last_of(client, self.topic_name, is_bare=False)
        return (0, 0) if last is None else self._position_behind(last, client, groups, self._origin)

    def close_topic(self) -> None:
        """Never raises."""
        if self.topic is not None:
            self.topic.close()

    # -- in the loop ---------------------------------------------------------------

    def wanted(self) -> "Wanted[tuple[Lane, int]]":
        """What to read next."""
        place = self.course.fetch_from
        offset = self.known[1] if self.known is not None and self.known[0] == place else None
        return Wanted((self, self.opening), self.number, place, offset)

    def opened(self, found: Opened, now: float) -> None:
        """It goes on there."""
        self.topic = found.topic
        was_checked = self.must_check
        self.must_check = False
        if found.last_sequence >= 0:
            self.deduplication = True
        elif was_checked:
            self.deduplication = False
        if not self.silence.is_suspect:
            self.state = State.RUNNING
        self.answered_at = now
        self.silence.broken(is_answered=False)
        self._counts.skipped += found.skipped
        self._origin = found.origin
        self.course.named(found.origin)
        self.course.opened(found.position, self._group_position)

    def looked(self, position: int, skipped: int) -> None:
        """What `look` gave."""
        self._counts.skipped += skipped
        self.course.looked(position)

    def acknowledged(self, number: int, place: Place | None, now: float) -> None:
        """By Pulsar, which has put it there, or had it before. Raises InternalError."""
        is_fresh = place is not None
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
        self._group_position = max(self._group_position, self.course.done_to)
        if is_fresh:
            self._place = place
            self._delay = RETRY_SECONDS
            if now >= self._larger_at:
                if self.course.forget_refusals():
                    self._larger_delay = min(2 * self._larger_delay, LARGER_SECONDS_MAX)
                self._larger_at = now + self._larger_delay
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

    def progress(self) -> Progress | None:
        """What is to be committed; None: nothing that is new."""
        if self.generation is None or self.is_gone:
            return None
        metadata = encode(self.report(), self._before, self._place)
        position = self._group_position = max(self._group_position, self.course.done_to)
        if self._committed == (position, metadata):
            return None
        return Progress(self.number, self.generation, position, metadata)

    @property
    def done(self) -> int:
        """Messages that were mirrored or skipped in this life."""
        return self._counts.messages + self._counts.skipped

    def committed(self, progress: Progress, done: int) -> None:
        """The group stands there; ``done`` is what `done` was when that was asked for."""
        self._committed = progress.position, progress.metadata
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
