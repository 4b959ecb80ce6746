"""Positions on their way to the broker, and the questions whose the groups are: nothing here waits for an answer."""

import logging
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import NamedTuple

from rocksmq.protocol.errors import ConnectionFailed, RocksMQError, Timeout

from ..deadline import Deadline
from ..link import Sent
from .groups import Groups, Progress, TakenOver, checked, told
from .lane import Lane
from .reading import CHANNELS_MAX

logger = logging.getLogger("rocksmq.mirror")

COMMIT_SECONDS = 0.5
CHECK_SECONDS = 2.0  # between two questions for a group: whose it is, and its lag
CHECKS_MAX = 50  # at once
LAST_SECONDS = 3.0  # for a last commit


class _Commit(NamedTuple):
    """A place on its way to the broker; ``done``: messages of the lane by then."""

    lane: Lane
    place: Progress
    done: int


class Positions:
    """Belongs to the mirror's loop; ``failed`` gets what the broker refuses, lane by lane."""

    def __init__(self, groups: Groups, failed: Callable[[Lane, RocksMQError], None], timeout: float) -> None:
        self._groups = groups
        self._failed = failed
        self._timeout = timeout
        self._sent: tuple[Sent, list[_Commit]] | None = None
        self._checks: deque[tuple[Sent, Lane, int]] = deque()  # and the generation that is ours
        self._commit_at = 0.0
        self._turn = 0  # for places that are more than go into a request

    def commit(self, lanes: Iterable[Lane], now: float) -> None:
        """Now and then, what is new."""
        if self._sent is not None:
            sent, places = self._sent
            if not sent.call.done:
                return
            self._sent = None
            self._take(sent, places)
        if now < self._commit_at:
            return
        self._commit_at = now + COMMIT_SECONDS
        if places := self._next(_places(lanes)):
            with suppress(ConnectionFailed, Timeout):
                self._sent = self._groups.begin_commit([one.place for one in places]), places

    def _next(self, places: list[_Commit]) -> list[_Commit]:
        """As many as go into a request, so that each has its turn."""
        if len(places) <= CHANNELS_MAX:
            return places
        self._turn = (self._turn + CHANNELS_MAX) % len(places)
        return (places[self._turn :] + places[: self._turn])[:CHANNELS_MAX]

    def commit_last(self, lanes: Iterable[Lane]) -> None:
        """What is new; waits, a little, and never raises."""
        deadline = Deadline(LAST_SECONDS)
        for lane, place, _ in _places(lanes):
            try:
                self._groups.commit([place], deadline)
            except RocksMQError as error:
                logger.warning("channel %s: its position could not be committed: %s", lane.channel, error)

    def _take(self, sent: Sent, places: list[_Commit]) -> None:
        try:
            sent.call.result()
        except (ConnectionFailed, Timeout):
            return
        except RocksMQError as error:
            if len(places) == 1:
                self._failed(places[0].lane, told(error))
                return
            for lane, place, done in places:  # one by one: each that can be is committed
                try:
                    self._groups.commit([place], Deadline(self._timeout))
                    lane.committed(place, done)
                except RocksMQError as one:
                    self._failed(lane, one)
            return
        for lane, place, done in places:
            lane.committed(place, done)

    def check(self, lanes: Iterable[Lane], now: float) -> None:
        """Now and then: whose the groups are, and how far behind."""
        while self._checks and self._checks[0][0].call.done:
            sent, lane, generation = self._checks.popleft()
            lane.is_asked = False
            try:
                lane.told_lag(checked(sent.call.result(), lane.channel, generation).lag_messages)
            except TakenOver as error:
                if not lane.is_gone and lane.generation == generation:
                    self._failed(lane, error)
            except RocksMQError as error:
                logger.debug("channel %s: %s", lane.channel, error)
        for lane in lanes:
            if len(self._checks) >= CHECKS_MAX:
                return
            if not lane.is_asked and not lane.is_busy and lane.generation is not None and now >= lane.asked_at + CHECK_SECONDS:
                lane.asked_at, lane.is_asked = now, True
                try:
                    self._checks.append((self._groups.begin_check(lane.channel), lane, lane.generation))
                except (ConnectionFailed, Timeout):
                    lane.is_asked = False


def _places(lanes: Iterable[Lane]) -> list[_Commit]:
    return [_Commit(lane, place, lane.done) for lane in lanes if (place := lane.progress()) is not None]
