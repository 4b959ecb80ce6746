"""Message streams on Apache Pulsar: a topic a channel, by the name that a template makes of the channel's.

Data is read by temporary readers. A subscription is a register of its own (`positions`), and on each topic a subscription of
Pulsar of the same name, which keeps what is yet to be read (`holds`).
"""

import ctypes
import secrets
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import Any

from rocksmq.protocol.errors import InvalidRequest, RocksMQError
from rocksmq.protocol.messages import Start, milliseconds_of, start_of

from ..deadline import Deadline
from ..forks import call_in_child
from ..msgstream.transport import Part
from ..msgstream.types import MsgPosition
from . import PREFETCH, TOPIC_TEMPLATE, places, threads
from .answers import OK, Answers
from .client import CONNECT_SECONDS, connect, logger, pulsar
from .holds import Holds
from .places import Place
from .positions import Positions
from .reading import Reading
from .register import Standing, State, committed, sought, subscribed, taken_over, unsubscribed
from .sending import PulsarPart, Sending, checked_size
from .tail import NOT_FOUND, Tail

POSITIONS = "_positions."  # before a subscription's name: the channel of its positions, as no other can be called
ACKNOWLEDGE_SECONDS = 5.0  # between telling Pulsar what need not be kept any more
CLOSE_SECONDS = 2.0


class PulsarTransport:
    """As `Transport`. A place is a `Place`, or None: the beginning."""

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        ca: str | None = None,
        topic_template: str = TOPIC_TEMPLATE,
        positions_template: str | None = None,
        timeout: float | None = CONNECT_SECONDS,
        prefetch: int = PREFETCH,
    ) -> None:
        """Nothing is connected yet. Raises InvalidRequest."""
        if type(prefetch) is not int or prefetch < 1:
            raise InvalidRequest(f"prefetch {prefetch!r} is not allowed: 1 at least")
        threads.close_at_exit(self)
        self._template = _checked_template(topic_template)
        self._positions_template = _checked_template(positions_template or topic_template)
        self._timeout = timeout
        self._wrapped = connect(url, token=token, ca=ca, operation_seconds=CONNECT_SECONDS if timeout is None else timeout)
        self._client: Any = self._wrapped._client
        self._answers = Answers()
        self._sending = Sending(self._client, self._answers, self._topic_of)
        self._reading = Reading(self._client, self._answers, self._topic_of, timeout, prefetch)
        self.receive = self._reading.receive
        self._positions: Positions | None = None
        self._holds: Holds | None = None
        self._generations: dict[str, str] = {}  # of those channels that this stream has taken over
        self._acknowledge_at = 0.0
        self._unacknowledged: dict[str, Place | None] = {}
        call_in_child(self._close_in_child)

    def _topic_of(self, channel: str) -> str:
        return self._template.format(channel=channel)

    def _deadline(self) -> Deadline:
        return Deadline(self._timeout)

    def _close_in_child(self) -> None:
        """In a forked child: the client's threads are the parent's, and without them even its end hangs. So it stays."""
        self._answers.is_closed = True
        for kept in (self._wrapped, self._client, self._sending, self._reading, self._positions, self._answers):
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(kept))

    def close(self) -> None:
        if self._answers.is_closed:
            return
        if self._unacknowledged:
            self._acknowledge(Deadline(CLOSE_SECONDS))
        self._answers.is_closed = True
        with self._answers.changed:
            self._answers.changed.notify_all()
        self._sending.close()
        self._reading.close()
        if self._positions is not None:
            self._positions.close()
        deadline = Deadline(CLOSE_SECONDS)
        if self._answers.all_closed(deadline) and self._answers.drained(deadline):
            # Not close_async: its thread lets go of the callback after the call, which aborts an interpreter that ends then.
            with suppress(pulsar.PulsarException):
                self._client.close()
                return
        logger.warning("Pulsar does not answer: its client is ended without it")
        self._client.shutdown()

    # -- sending -----------------------------------------------------------------

    def open_producers(self, channels: Sequence[str]) -> None:
        deadline = self._deadline()
        self._check_topics(channels, deadline)
        self._sending.open(channels, deadline)

    def parts(self, payloads: Sequence[Any], channels: Sequence[str]) -> Sequence[Part]:
        size = checked_size(payloads, channels[0])
        return [PulsarPart(channel, payloads, size) for channel in channels]

    def send(self, parts: Sequence[Part]) -> None:
        self._sending.send([part for part in parts if isinstance(part, PulsarPart)], self._deadline())

    def _check_topics(self, channels: Sequence[str], deadline: Deadline) -> None:
        """They have no partitions. Those that do not exist are told by whoever uses them."""
        ask, topics = self._answers.ask, {channel: self._topic_of(channel) for channel in channels}
        found = self._answers.all_of(
            {channel: partial(ask, self._client.get_topic_partitions_async, topic) for channel, topic in topics.items()},
            deadline,
        )
        for channel, answer in found.items():
            if answer.result not in (OK, NOT_FOUND):
                raise answer.error(f"looking for {topics[channel]}")
            if (answer.result == OK and len(answer.value) != 1) or any("-partition-" in name for name in answer.value or ()):
                raise InvalidRequest(f"{topics[channel]} has partitions: streams are over topics without")

    # -- the subscription --------------------------------------------------------

    def subscribe(self, channels: Sequence[str], subscription: str, start: Start) -> None:
        _check_start(start)
        deadline = self._deadline()
        self._check_topics(channels, deadline)
        if self._positions is None or self._positions.name != subscription:
            self._let_go()
            topic = self._positions_template.format(channel=POSITIONS + subscription)
            self._holds = Holds(self._client, self._answers, self._topic_of, subscription)
            self._positions = Positions(self._client, self._answers, topic, subscription)
        holds, positions = self._held()
        positions.refresh(deadline)
        at_end = {channel: start == "latest" and channel not in positions.state for channel in channels}
        with holds.attached(
            at_end, deadline
        ) as attached:  # first, so that nothing is lost; an existing one may have lost its hold
            new = [channel for channel in channels if channel not in positions.state]
            found = self._places_of(start, {channel: attached[channel] for channel in new}, deadline)
            generation = secrets.token_hex(8)
            standings = {channel: Standing(place, 0, generation) for channel, place in found.items()}
            positions.swap(lambda state: subscribed(state, standings), deadline)
            if start not in ("earliest", "latest"):
                holds.acknowledge(attached, found, deadline)

    def _held(self) -> tuple[Holds, Positions]:
        if self._holds is None or self._positions is None:
            raise InvalidRequest("the stream has no subscription")
        return self._holds, self._positions

    def _let_go(self) -> None:
        if self._positions is not None:
            self._positions.close()
        self._positions, self._holds, self._generations, self._unacknowledged = None, None, {}, {}

    def _places_of(self, start: Start, attached: Mapping[str, Any], deadline: Deadline) -> dict[str, Place | None]:
        if start == "earliest" or not attached:
            return dict.fromkeys(attached)
        holds, _ = self._held()
        ends = holds.ends(attached, deadline)
        if not isinstance(start, datetime):
            return ends
        return {channel: self._place_at(channel, start, ends[channel], deadline) for channel in attached}

    def _place_at(self, channel: str, start: datetime, end: Place | None, deadline: Deadline) -> Place | None:
        """Of the first message that was published then or later."""
        if end is None:
            return None
        since = milliseconds_of(start)
        tail = Tail(self._client, self._answers, self._topic_of(channel), channel, 1)
        try:
            tail.stand(end.previous_entry)
            if tail.next_message(deadline).message.publish_timestamp() < since:
                return end
            tail.seek(since, deadline)
            return tail.next_message(deadline).place
        finally:
            tail.close()

    def take_over(self, channels: Sequence[str]) -> Sequence[MsgPosition]:
        _, positions = self._held()
        generation = secrets.token_hex(8)
        state = positions.swap(lambda state: taken_over(state, channels, generation), self._deadline())
        self._generations |= dict.fromkeys(channels, generation)
        return [_position_of(channel, state) for channel in channels]

    def seek(self, positions: Sequence[MsgPosition], request_id: bytes) -> Sequence[MsgPosition]:
        holds, register = self._held()
        deadline = self._deadline()
        wanted = {each.channel_name: (self.decode(each.msg_id), each.timestamp_filter) for each in positions}
        generation, before = secrets.token_hex(8), register.state
        with holds.attached(dict.fromkeys(wanted, False), deadline) as attached:
            ends = holds.ends(attached, deadline)
            for channel, (place, _) in wanted.items():
                end = ends[channel]
                if place is not None and (end is None or place > end):
                    wanted[channel] = end, 0
            state = register.swap(
                lambda state: sought(state, wanted, self._generations, request_id.hex(), generation), deadline
            )
            self._generations |= {channel: state[channel].generation for channel in wanted}
            back = {
                channel: place
                for channel, (place, _) in wanted.items()
                if channel in before and _is_before(place, before[channel].place)
            }
            if back:
                holds.seek(attached, back, deadline)
        self._unacknowledged |= {channel: place for channel, (place, _) in wanted.items()}
        return [_position_of(channel, state) for channel in wanted]

    def commit(self, positions: Sequence[MsgPosition], deadline: Deadline | None = None) -> None:
        _, register = self._held()
        deadline = deadline or self._deadline()
        wanted = {each.channel_name: (self.decode(each.msg_id), each.timestamp_filter) for each in positions}
        self._reading.check(list(wanted), deadline)
        state = register.swap(lambda state: committed(state, wanted, self._generations), deadline)
        self._unacknowledged |= {channel: state[channel].place for channel in wanted}
        if time.monotonic() >= self._acknowledge_at:
            self._acknowledge(deadline)

    def _acknowledge(self, deadline: Deadline) -> None:
        """Let Pulsar forget what was read; if that fails, the next time does it."""
        holds, positions = self._held()
        self._acknowledge_at = time.monotonic() + ACKNOWLEDGE_SECONDS
        places, self._unacknowledged = self._unacknowledged, {}
        try:
            with holds.attached(dict.fromkeys(places, False), deadline) as attached:
                holds.acknowledge(attached, places, deadline)
            positions.acknowledge(deadline)
        except RocksMQError as error:
            logger.info("%r cannot be acknowledged yet: %s", positions.name, error)
            self._unacknowledged = places | self._unacknowledged

    def unsubscribe(self, channels: Sequence[str]) -> None:
        holds, positions = self._held()
        deadline = self._deadline()
        state = positions.swap(lambda state: unsubscribed(state, channels, self._generations), deadline)
        self._unacknowledged = {}
        holds.remove(list(channels), deadline)
        if not state:
            positions.remove(deadline)
        self._reading.close()
        self._let_go()

    # -- places ------------------------------------------------------------------

    def encode(self, place: Place | None) -> str:
        return "" if place is None else str(place)

    def decode(self, msg_id: str) -> Place | None:
        return places.decoded(msg_id)


def _position_of(channel: str, state: State) -> MsgPosition:
    standing = state[channel]
    return MsgPosition(channel, "" if standing.place is None else str(standing.place), standing.timestamp_filter)


def _is_before(place: Place | None, other: Place | None) -> bool:
    return other is not None and (place is None or place < other)


def _check_start(start: Start) -> None:
    start_of(start)
    if isinstance(start, int):
        raise InvalidRequest('streams on Pulsar begin at "earliest", "latest" or a datetime; seek to a MsgPosition for an id')


def _checked_template(template: str) -> str:
    try:
        topic = template.format(channel="channel")
    except (KeyError, IndexError, ValueError, AttributeError):
        topic = ""
    if "channel" not in topic or topic.startswith("non-persistent:"):
        raise InvalidRequest(f"{template!r} is no template of a topic's name, as {TOPIC_TEMPLATE} is")
    return template
