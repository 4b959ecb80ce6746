"""One channel's way back: a thread that opens its route, carries messages over it, and tries again after whatever fails."""

import logging
import secrets
import threading
import time
from collections.abc import Callable
from typing import Any

from rocksmq.protocol.errors import (
    Conflict,
    ConnectionFailed,
    InternalError,
    MessageTooLarge,
    OutOfSequence,
    RocksMQError,
    StorageFailed,
    Timeout,
)

from ..client import Client
from .back_messages import contents
from .back_places import Place, Unstored
from .back_route import Received, Route, TakenOver
from .options import MirrorOptions
from .report import ChannelReport, State

logger = logging.getLogger("rocksmq.mirror")

RETRY_SECONDS = 1.0  # doubled with each failure, up to
RETRY_SECONDS_MAX = 60.0
WAITING_RETRY_SECONDS_MAX = 5.0  # when one of the sides is away
ACKNOWLEDGE_SECONDS = 0.5
STALLED_SECONDS = 2.0  # without anything stored, after which the reason is looked for
END_SECONDS = 5.0  # between two looks at the end of a topic of which nothing comes; at the second a reader is taken for stuck


class BackChannel:
    """``share_bytes``: of memory, by and large. ``fail``: is told what concerns the whole mirror."""

    def __init__(
        self,
        options: MirrorOptions,
        channel: str,
        share_bytes: int,
        is_stopped: threading.Event,
        fail: Callable[[RocksMQError], None],
    ) -> None:
        self._options = options
        self._channel = channel
        self._share_bytes = share_bytes
        self._is_stopped = is_stopped
        self._fail = fail
        self._topic = options.topic(channel)
        self._is_created = False
        self._state = State.STARTING
        self._unstored = Unstored()
        self._moved_at = 0.0  # on time.monotonic: nothing waited to be stored, or something was
        self._idle_since = 0.0  # likewise: nothing came; 0: something does
        self._end_due = 0.0  # likewise: when to look at the topic's end
        self._barren: Place | None = None  # an end that is never delivered, as a mark of Pulsar's own
        self._skipped = self._gaps = self._errors = 0
        self._told_at: Place | None = None  # the message before which the last gap is
        self._lag: int | None = None
        self._last_error, self._last_error_at = "", 0.0

    def report(self) -> ChannelReport:
        """From any thread."""
        return ChannelReport(
            channel=self._channel,
            topic=self._topic,
            state=self._state,
            messages=self._unstored.messages,
            bytes=self._unstored.bytes,
            skipped=self._skipped,
            gaps=self._gaps,
            errors=self._errors,
            lag=self._lag,
            last_error=self._last_error,
            last_error_at=self._last_error_at,
        )

    def failed(self, error: RocksMQError, state: State | None = None) -> None:
        """Note why it does not go on at the moment."""
        self._errors += 1
        self._last_error, self._last_error_at = error.message, time.time()
        self._state = state or (State.WAITING if _is_passing(error) else State.STOPPED)
        self._lag = None

    def run(self, mq: Client, client: Any) -> None:
        """Until an end is wanted."""
        failures = 0
        while not self._is_stopped.is_set():
            stored = self._unstored.messages
            try:
                self._carry(mq, client)
            except TakenOver as error:
                self.failed(error)
                self._fail(Conflict(error.message))
                return
            except RocksMQError as error:
                self.failed(error)
            except Exception as error:
                logger.exception("a bug: the mirror of %s failed", self._channel)
                self.failed(InternalError(f"a bug: {error!r}; the log has the details"), State.STOPPED)
            else:
                continue
            failures = 1 if self._unstored.messages > stored else failures + 1
            most = WAITING_RETRY_SECONDS_MAX if self._state == State.WAITING else RETRY_SECONDS_MAX
            pause = min(most, RETRY_SECONDS * 2 ** min(failures - 1, 10)) * (0.5 + secrets.randbelow(500) / 1_000)
            self._is_stopped.wait(pause)
        self._state = State.ENDED

    def _carry(self, mq: Client, client: Any) -> None:
        """Open the route, and carry until it is to be opened anew, or an end is wanted."""
        if not self._is_created:
            mq.create_channel(self._channel)
            self._is_created = True  # one that is destroyed later stays so: somebody meant it
        with Route(self._options, self._channel, mq, client, self._unstored, self._share_bytes) as route:
            route.open(self._is_stopped, self._run_empty)
            if route.begins_late is not None:
                self._tell_late(route, route.begins_late)
            self._moved_at = time.monotonic()
            self._idle_since = due = 0.0
            while not (self._is_stopped.is_set() or route.is_old):
                received = route.next()
                if received is not None:
                    self._idle_since = 0.0
                    self._pass(route, received)
                if received is None or time.monotonic() >= due:
                    self._look(route, is_idle=received is None)
                    due = time.monotonic() + ACKNOWLEDGE_SECONDS

    def _run_empty(self) -> None:
        """Both sides are there, and the topic has nothing yet."""
        self._state = State.RUNNING

    def _pass(self, route: Route, received: Received) -> None:
        """Queue the message, waiting for room as long as it takes."""
        if received.lost_behind is not None:
            self._tell_gap(route, received.place, received.lost_behind)
        try:
            payload, headers = contents(received.message, route.payload_bytes_max)
        except MessageTooLarge as error:
            self._pass_over(route, received, error)
            return
        while not self._is_stopped.is_set():
            try:
                route.send(received, payload, headers)
            except Timeout as error:
                if error.not_stored:
                    raise
                self._wait(error)
            else:
                return

    def _pass_over(self, route: Route, received: Received, error: MessageTooLarge) -> None:
        """Skip what no broker takes, or raise that."""
        text = f"{route.topic} at {received.place}: {error.message}"
        if self._options.too_large == "stop":
            raise MessageTooLarge(f"{text}; let the broker take it, or leave it out with too_large skip") from error
        logger.warning("%s: skipped", text)
        self._skipped += 1
        route.skip(received)

    def _tell_gap(self, route: Route, place: Place, last: Place) -> None:
        """How many are lost nobody can tell: it counts as one. A message that is read again does not count again."""
        if place != self._told_at:
            self._told_at = place
            self._gaps += 1
            what = f"Pulsar has removed messages behind {last}, before they were mirrored"
            self._tell(f"{route.topic}: {what}; it goes on at {place}")

    def _tell_late(self, route: Route, place: Place) -> None:
        if place != self._told_at:
            self._told_at = place
            where = f"begins at {place}, where its subscription {self._options.group} is"
            self._tell(f"{route.topic}: {where}; the topic has more before that")

    def _tell(self, text: str) -> None:
        """What does not stand against going on."""
        logger.warning("%s", text)
        self._last_error, self._last_error_at = text, time.time()

    def _look(self, route: Route, *, is_idle: bool) -> None:
        """Acknowledge what is stored, and see how it is going. Raises what asks for a new beginning."""
        before = self._unstored.messages
        route.acknowledge()
        if self._unstored.messages != before or not len(self._unstored):
            self._moved_at = time.monotonic()
        if not route.is_connected:
            raise ConnectionFailed(f"Pulsar: the connection of {route.topic} was lost")
        if time.monotonic() - self._moved_at > STALLED_SECONDS:
            try:
                route.check_sending()
            except Timeout as error:
                if error.not_stored:
                    raise
                self._wait(error)
        else:
            self._state = State.RUNNING
            if not is_idle or len(self._unstored):
                self._lag = None
            else:
                self._look_at_end(route)

    def _look_at_end(self, route: Route) -> None:
        """Nothing came. Raises ConnectionFailed if something should, for a reader may be stuck."""
        now = time.monotonic()
        if not self._idle_since:
            self._idle_since, self._end_due = now, 0.0
        if now < self._end_due:
            return
        self._end_due = now + END_SECONDS
        end = route.ends_beyond()
        self._lag = 0 if end in (None, self._barren) else None
        if self._lag is None and now - self._idle_since >= END_SECONDS:
            self._barren = end
            raise ConnectionFailed(f"Pulsar: nothing comes of {route.topic}, though it ends at {end}")

    def _wait(self, error: RocksMQError) -> None:
        """The broker stores nothing at the moment; what was sent to it goes on being so."""
        if self._state != State.WAITING:
            self.failed(error, State.WAITING)


def _is_passing(error: RocksMQError) -> bool:
    return error.retryable or isinstance(error, (Timeout, Conflict, OutOfSequence, StorageFailed))
