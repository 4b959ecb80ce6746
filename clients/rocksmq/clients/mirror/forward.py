"""`ForwardMirror`: channels of a broker of RocksMQ to topics of Pulsar, each message once and in order.

One thread, that of `run`, reads, sends and commits; a few others do what blocks: they open topics, look channels up, connect.
What Pulsar's client calls back only leaves a note.
"""

import logging
import os
import socket
import threading
import time
from collections import deque
from contextlib import suppress
from functools import partial
from typing import Any

from rocksmq.protocol.errors import (
    ChannelNotFound,
    ConnectionFailed,
    GroupNotFound,
    InternalError,
    InvalidRequest,
    MessageTooLarge,
    PermissionDenied,
    RocksMQError,
    Timeout,
    Unauthenticated,
    UnsupportedVersion,
)

from ..address import Address
from ..credentials import Credentials
from ..deadline import Deadline
from ..link import Link
from ..pulsar.client import connect
from .course import MESSAGE_OVERHEAD_BYTES, Phase, Room
from .groups import ChannelGone, Groups, TakenOver
from .lane import Answer, Lane, Opened
from .listing import channels_matching, unmatched
from .options import MirrorOptions
from .positions import Positions
from .reading import CHANNELS_MAX, Poll
from .report import Report, State
from .silence import GIVEN_UP_SECONDS, SILENT_SECONDS, silent
from .topics import send_failure
from .workers import Result, Workers, told_bug

logger = logging.getLogger("rocksmq.mirror")

LOOK_SECONDS = 5.0  # between two looks at which channels there are
UNWATCHED_SECONDS = 0.2  # of silence, which say nothing
DRAIN_SECONDS = 3.0  # at the end, for what is on the way
ENDED_SECONDS = 60.0  # that a channel which is gone stays in the report
READ_BYTES = 1 << 20
READ_MESSAGES = 10_000
BUSY_WAIT_SECONDS = 0.01  # of a poll, while a channel that is left out of it may have room soon
IDLE_WAIT_SECONDS = 0.2
_FOR_GOOD = (Unauthenticated, PermissionDenied, UnsupportedVersion)


class ForwardMirror:
    """`run` it once; `report` may be called meanwhile, by any thread."""

    def __init__(self, options: MirrorOptions) -> None:
        """Connects nothing yet. Raises InvalidRequest."""
        self._options = options.checked()
        address = Address.parse(options.source)
        name = f"mirror {options.name} {socket.gethostname()}:{os.getpid()}"
        self._link = Link(address, Credentials.found(address, token=options.token), name)
        self._groups = Groups(self._link, options.group, options.timeout)
        self._client: Any = None
        self._suspects_client: Any = None  # for topics that may break the connection of all that share it
        self._room = Room(options.buffer_bytes)
        self._lanes: dict[str, Lane] = {}
        self._ended: deque[tuple[float, Lane]] = deque()
        self._answers: deque[Answer] = deque()
        self._results: deque[Result] = deque()  # of what was done elsewhere, for the loop
        self._wake = threading.Event()
        self._workers = Workers(self._done_elsewhere, self._failing)
        self._poll: Poll[tuple[Lane, int]] | None = None
        self._positions = Positions(self._groups, self._take_group_error, options.timeout)
        self._look_at = 0.0
        self._is_looking = self._is_connecting = False
        self._error: RocksMQError | None = None
        self._state = State.STARTING
        self._last_error, self._last_error_at = "", 0.0  # of what concerns all channels
        self._turn = 0  # for channels that are more than go into a poll

    def report(self) -> Report:
        """As of now, of every channel that is or was mirrored."""
        ended = [lane for _, lane in tuple(self._ended) if lane.channel not in self._lanes]
        return Report(
            self._options.name,
            [lane.report() for lane in (*tuple(self._lanes.values()), *ended)],
            state=self._state,
            last_error=self._last_error,
            last_error_at=self._last_error_at,
        )

    def run(self, is_stopped: threading.Event) -> None:
        """Mirror until then; what is on the way is waited for, a little, and the position committed.

        Raises Conflict when another mirror of this name has taken over, Unauthenticated, PermissionDenied, UnsupportedVersion.
        """
        self._client = self._connected()
        try:
            while not is_stopped.is_set():
                self._step()
            self._drain()
        finally:
            self._close()

    def _connected(self) -> Any:
        options = self._options
        return connect(options.target, token=options.pulsar_token, ca=options.pulsar_ca, operation_seconds=options.timeout)

    # -- the loop ------------------------------------------------------------------

    def _step(self) -> None:
        self._wake.clear()
        now = time.monotonic()
        self._settle(now)
        if self._error is not None:
            raise self._error
        if self._is_up():
            self._look_for_channels(now)
            self._open_topics(now)
            self._ask(now)
            self._positions.commit(self._lanes.values(), now)
            self._positions.check(self._lanes.values(), now)
        self._watch(now)
        self._send()
        self._read()

    def _settle(self, now: float) -> None:
        """What came from elsewhere, and from Pulsar."""
        while self._results:
            self._results.popleft()()
        self._take_answers(now)

    def _take_answers(self, now: float) -> bool:
        """Whether there were any."""
        is_any = bool(self._answers)
        while self._answers:
            lane, opening, number, failed, place = self._answers.popleft()
            if lane.opening != opening or lane.course.phase is Phase.OPENING:
                continue
            try:
                if failed is not None:
                    self._take_failure(lane, number, failed, now)
                    continue
                lane.acknowledged(number, place, now)
            except Exception as error:
                self._fail(lane, told_bug(lane, error), now)
                continue
            if lane.must_check:
                lane.again()
            elif lane.course.phase is Phase.LOOKING:
                self._workers.do(lane, partial(self._look, lane, lane.opening))
        return is_any

    def _take_failure(self, lane: Lane, number: int, failed: str, now: float) -> None:
        error = send_failure(lane.topic_name, failed)
        if isinstance(error, MessageTooLarge) and lane.course.refused(number, failed):
            lane.note(error)
        elif isinstance(error, MessageTooLarge) and lane.course.alone is not None:
            lane.again()  # with smaller chunks
        else:
            self._fail(lane, error, now)

    def _fail(self, lane: Lane, error: RocksMQError, now: float) -> None:
        lane.failed(error, now)
        if lane.topic is not None:  # at once: it must not come back and send what follows on what has failed
            self._workers.do(lane, lane.close_topic)

    def _done_elsewhere(self, result: Result) -> None:
        self._results.append(result)
        self._wake.set()

    def _failing(self, lane: Lane, opening: int, error: RocksMQError) -> Result:
        return lambda: self._take_error(lane, opening, error)

    def _take_error(self, lane: Lane, opening: int, error: RocksMQError) -> None:
        if lane.opening != opening:
            return
        if isinstance(error, TakenOver):
            self._error = error
        elif isinstance(error, ChannelGone):
            self._end(lane, error.message)
        else:
            self._fail(lane, error, time.monotonic())

    # -- channels --------------------------------------------------------------------

    def _look_for_channels(self, now: float) -> None:
        if self._is_looking or now < self._look_at:
            return
        self._is_looking = True
        self._workers.ask(self._list)

    def _list(self) -> None:
        """Elsewhere."""
        try:
            numbers = channels_matching(self._link, self._options.channels, self._options.timeout)
            self._done_elsewhere(lambda: self._take_channels(numbers))
        except ChannelNotFound:
            self._done_elsewhere(lambda: self._looked(0.0))
        except RocksMQError as error:
            self._done_elsewhere(partial(self._take_listing_error, error))
        except Exception as error:
            logger.exception("a bug: listing channels")
            self._done_elsewhere(partial(self._take_listing_error, InternalError(f"a bug: {error!r}")))

    def _looked(self, seconds: float) -> None:
        self._is_looking = False
        self._look_at = time.monotonic() + seconds

    def _take_listing_error(self, error: RocksMQError) -> None:
        self._looked(1.0)
        self._wait_for_broker(error)
        for lane in self._lanes.values():
            lane.note(error)

    def _take_channels(self, numbers: dict[str, int]) -> None:
        self._looked(LOOK_SECONDS)
        for lane in tuple(self._lanes.values()):
            if numbers.get(lane.channel) != lane.number:
                self._end(lane, "the channel was destroyed")
        for channel, number in numbers.items():
            if channel not in self._lanes:
                self._lanes[channel] = Lane(self._options, channel, number, self._room, self._answered)
        missing = unmatched(self._options.channels, numbers)
        self._state = State.RUNNING if self._lanes else State.WAITING
        if missing:
            self._note(f"no channel matches {', '.join(map(repr, missing))} yet")

    def _note(self, error: str) -> None:
        if error != self._last_error:
            self._last_error_at = time.time()
        self._last_error = error

    def _wait_for_broker(self, error: RocksMQError) -> None:
        if isinstance(error, _FOR_GOOD):
            self._error = error
        self._state = State.WAITING
        self._note(error.message)

    def _answered(self, answer: Answer) -> None:
        """On a thread of Pulsar's client."""
        self._answers.append(answer)

    def _end(self, lane: Lane, why: str) -> None:
        if self._lanes.get(lane.channel) is lane:
            del self._lanes[lane.channel]
            self._ended.append((time.monotonic(), lane))
        if not lane.is_gone:
            lane.is_gone = True
            lane.ended(why)
            self._workers.do(lane, lane.close_topic)
        self._look_at = 0.0

    # -- topics ------------------------------------------------------------------------

    def _open_topics(self, now: float) -> None:
        for lane in self._lanes.values():
            if lane.course.phase is Phase.OPENING and not lane.is_busy and now >= lane.retry_at:
                lane.retry_at = now + GIVEN_UP_SECONDS * 10
                self._workers.do(lane, partial(self._open, lane, self._client_of(lane), lane.opening))

    def _client_of(self, lane: Lane) -> Any:
        if not lane.silence.is_suspect:
            return self._client
        self._suspects_client = self._suspects_client or self._connected()
        return self._suspects_client

    def _open(self, lane: Lane, client: Any, opening: int) -> Result:
        """Elsewhere."""
        found = lane.open_topic(client, self._groups, opening)
        return lambda: self._take_opened(lane, opening, found)

    def _take_opened(self, lane: Lane, opening: int, found: Opened) -> None:
        if lane.opening != opening:
            self._workers.do(lane, found.topic.close)
            return
        lane.opened(found, time.monotonic())
        if lane.deduplication is False:
            self._tell_no_deduplication(lane)

    def _tell_no_deduplication(self, lane: Lane) -> None:
        told_before, lane.is_told = lane.is_told, True
        how = "turn it on for the namespace (set-deduplication --enable), and start the mirror again"
        if self._options.requires_deduplication:
            error = InvalidRequest(f"{lane.topic_name}: deduplication is off, and the mirror was told to require it: {how}")
            self._fail(lane, error, time.monotonic())
        elif not told_before:
            logger.warning(
                "%s: deduplication is off: after a lost connection or a crash messages may be there twice, each for the first "
                "time still in order; %s",
                lane.topic_name,
                how,
            )

    def _look(self, lane: Lane, opening: int) -> Result:
        """Elsewhere."""
        position, skipped = lane.look(self._client, self._groups)
        return lambda: self._take_look(lane, opening, position, skipped)

    def _take_look(self, lane: Lane, opening: int, position: int, skipped: int) -> None:
        if lane.opening == opening:
            lane.looked(position, skipped)

    def _watch(self, now: float) -> None:
        """What does not come."""
        is_up = self._link.is_up
        for lane in tuple(self._lanes.values()):
            if lane.course.phase not in (Phase.SINGLES, Phase.FLOWING):
                continue
            if lane.course.is_on_the_way:
                self._watch_silence(lane, now)
            elif not lane.silence.is_suspect or now > lane.answered_at + SILENT_SECONDS:
                lane.answered_at = now
                lane.state = State.RUNNING if is_up else State.WAITING
        while self._ended and self._ended[0][0] < now - ENDED_SECONDS:
            self._ended.popleft()

    def _watch_silence(self, lane: Lane, now: float) -> None:
        seconds = now - lane.answered_at
        if seconds < UNWATCHED_SECONDS or lane.topic is None:
            return
        is_connected = lane.topic.is_connected
        failed = lane.silence.look(
            lane.topic_name,
            seconds,
            lane.course.alone,
            is_connected=is_connected,
            is_pulsar_there=not is_connected and seconds > SILENT_SECONDS and self._is_pulsar_there(),
        )
        if failed is not None:
            self._fail(lane, failed, now)
        elif seconds > SILENT_SECONDS and lane.state is State.RUNNING:
            lane.state = State.WAITING
            lane.note(silent(lane.topic_name, seconds, lane.course.alone))

    def _is_pulsar_there(self) -> bool:
        """Whether some topic is connected, as far as is known."""
        return any(lane.topic is not None and lane.topic.is_connected for lane in tuple(self._lanes.values()))

    def _send(self) -> None:
        """All that may be sent, channel by channel in turns."""
        lanes = [lane for lane in self._lanes.values() if lane.topic is not None]
        sending = lanes
        while sending:
            again: list[Lane] = []
            for lane in sending:
                try:
                    chunk = lane.course.next_chunk()
                    topic = lane.topic
                    if chunk is None or topic is None:
                        continue
                    topic.send(chunk)
                    again.append(lane)
                except Exception as error:
                    self._fail(lane, told_bug(lane, error), time.monotonic())
            sending = lanes if self._take_answers(time.monotonic()) else again

    # -- the broker ----------------------------------------------------------------------

    def _is_up(self) -> bool:
        if self._link.is_up:
            return True
        self._poll = None
        if not self._is_connecting:
            self._is_connecting = True
            self._workers.ask(self._reconnect)
        return False

    def _reconnect(self) -> None:
        """Elsewhere."""
        failed: RocksMQError | None = None
        try:
            self._link.connected(Deadline(self._options.timeout))
        except RocksMQError as error:
            failed = error
        self._done_elsewhere(lambda: self._take_connection(failed))

    def _take_connection(self, failed: RocksMQError | None) -> None:
        self._is_connecting = False
        if failed is None:
            self._look_at = 0.0
            return
        self._wait_for_broker(failed)
        for lane in self._lanes.values():
            lane.note(failed)
            if lane.state is State.RUNNING:
                lane.state = State.WAITING

    def _ask(self, now: float) -> None:
        """Have a poll on its way, for the channels that have room."""
        if self._poll is not None:
            return
        wanting = [lane for lane in self._lanes.values() if lane.course.wants(READ_BYTES)]
        if not wanting:
            return
        if len(wanting) > CHANNELS_MAX:
            self._turn = (self._turn + CHANNELS_MAX) % len(wanting)
            wanting = (wanting[self._turn :] + wanting[: self._turn])[:CHANNELS_MAX]
        is_all = len(wanting) == len(self._lanes)
        left = max(0, self._room.bytes_max - self._room.used) // 2
        messages = max(1, min(READ_MESSAGES, left // MESSAGE_OVERHEAD_BYTES))
        wanted = [lane.wanted() for lane in wanting]
        wait = IDLE_WAIT_SECONDS if is_all else BUSY_WAIT_SECONDS
        with suppress(ConnectionFailed, Timeout):
            self._poll = Poll(self._link, wanted, messages, max(1, min(READ_BYTES, left)), wait, self._options.timeout)

    def _read(self) -> None:
        """Wait a little for what the poll brings."""
        is_hurried = any(lane.course.is_on_the_way for lane in self._lanes.values())
        patience = BUSY_WAIT_SECONDS if is_hurried else IDLE_WAIT_SECONDS / 2
        if self._poll is None:
            self._wake.wait(patience)
            return
        try:
            parts = self._poll.parts(patience)
        except ChannelNotFound:
            self._poll, self._look_at = None, 0.0
            self._wake.wait(BUSY_WAIT_SECONDS)
            return
        except RocksMQError as error:
            self._poll = None
            for lane in self._lanes.values():
                lane.note(error)
            self._wake.wait(BUSY_WAIT_SECONDS)
            return
        if parts is None:
            return
        self._poll = None
        for part in parts:
            lane, opening = part.reader
            if lane.opening != opening or lane.is_gone:
                continue
            is_taken = lane.course.fetched(part.place, part.ids, part.payloads, part.headers, part.next_place)
            if is_taken:
                lane.known = part.next_place, part.next_offset
            if is_taken and part.has_gap:
                count = part.gap_messages
                lane.gaps += 1 if count is None else count
                removed = "messages, nobody knows how many," if count is None else f"{count} messages"
                logger.warning("channel %s: retention removed %s before they were mirrored", lane.channel, removed)

    def _take_group_error(self, lane: Lane, error: RocksMQError) -> None:
        """What the broker answers for the lane's group."""
        if isinstance(error, TakenOver):
            self._error = error
        elif isinstance(error, ChannelGone):
            self._end(lane, error.message)
        elif isinstance(error, GroupNotFound) or not error.retryable:
            self._fail(lane, error, time.monotonic())

    # -- the end -----------------------------------------------------------------------

    def _drain(self) -> None:
        """What is on the way, but nothing new."""
        until = Deadline(DRAIN_SECONDS)
        while not until.is_over and any(lane.course.is_on_the_way for lane in self._lanes.values()):
            self._settle(time.monotonic())
            self._wake.wait(BUSY_WAIT_SECONDS)

    def _close(self) -> None:
        self._state = State.ENDED
        for lane in self._lanes.values():
            lane.state = State.ENDED
        if self._link.is_up and self._error is None:
            self._positions.commit_last(self._lanes.values())
        for lane in self._lanes.values():
            lane.ended()
        self._link.close()  # who waits for it elsewhere does so no more
        self._workers.close()  # first: closing client and reader at the same time can hang for good
        for client in (self._client, self._suspects_client):
            with suppress(Exception):
                client.close()  # and all producers
