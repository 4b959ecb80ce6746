"""Pulsar's own subscriptions on topics: they keep the data that a stream has yet to read, and show how much that is.

Nobody is connected to one for longer than it takes to move it, so whoever removes it is not kept from that. Where a stream goes
on is not theirs to say: that is in `positions`.
"""

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeAlias

from rocksmq.protocol.errors import ChannelNotFound, ConnectionFailed

from ..deadline import Deadline
from .answers import OK, Answer, Answers
from .client import pulsar
from .places import Place, place_of
from .tail import NOT_FOUND, Tail

Attached: TypeAlias = Mapping[str, Any]
"""Consumers of Pulsar by channel."""
_NATIVE: Any = pulsar._pulsar
_NO_LAST = "UnknownError"  # what pulsar-lite says of an empty topic
_EMPTY_SECONDS = 0.3  # for which nothing comes of it, then


class Holds:
    """The subscriptions called ``name``."""

    def __init__(self, client: Any, answers: Answers, topic_of: Callable[[str], str], name: str) -> None:
        self._client = client
        self._answers = answers
        self._topic_of = topic_of
        self._name = name

    @contextmanager
    def attached(self, channels: Mapping[str, bool], deadline: Deadline) -> Generator[Attached]:
        """Be connected to those of the channels, where there is none make one: at the end of the topic, or at its beginning.

        ``channels``: by name, whether at its end. Raises ChannelNotFound with all that do not exist.
        """
        begin = {channel: partial(self._attach, channel, at_end) for channel, at_end in channels.items()}
        found = self._answers.all_of(begin, deadline)
        try:
            _check(found, f"subscribing to {{}} as {self._name!r}")
            yield {channel: answer.value for channel, answer in found.items()}
        finally:
            closing = [self._answers.close(answer.value) for answer in found.values() if answer.result == OK]
            if not self._answers.is_closed:
                self._answers.wait(closing, deadline)

    def _attach(self, channel: str, at_end: bool) -> Answer:
        conf = _NATIVE.ConsumerConfiguration()
        conf.consumer_type(_NATIVE.ConsumerType.Failover)  # several may be connected
        conf.receiver_queue_size(0)  # and get no messages
        conf.start_message_id_inclusive(True)
        where = _NATIVE.InitialPosition
        conf.subscription_initial_position(where.Latest if at_end else where.Earliest)
        return self._answers.ask(self._client.subscribe_async, self._topic_of(channel), self._name, conf)

    def ends(self, attached: Attached, deadline: Deadline) -> dict[str, Place | None]:
        """Behind the last message of each; None: there is none."""
        begin = {name: partial(self._answers.ask, one.get_last_message_id_async) for name, one in attached.items()}
        found = self._answers.all_of(begin, deadline, final=_NO_LAST)
        ends: dict[str, Place | None] = {}
        for name, answer in found.items():
            if answer.result == _NO_LAST and self._is_empty(name):
                ends[name] = None
                continue
            _check({name: answer}, "looking for the end of {}")
            last = place_of(answer.value)
            ends[name] = None if last is None else Place(last.ledger, last.entry + 1)
        return ends

    def _is_empty(self, channel: str) -> bool:
        tail = Tail(self._client, self._answers, self._topic_of(channel), channel, 1)
        until = Deadline(_EMPTY_SECONDS)
        try:
            tail.stand(None)
            while not tail.is_ready() and not until.is_over:
                tail.advance()
                tail.wait(until)
            return not tail.is_ready()
        finally:
            tail.close()

    def acknowledge(self, attached: Attached, places: Mapping[str, Place | None], deadline: Deadline) -> None:
        """What lies before the entries of those places is no longer held; as far as that can be done."""
        asked = [
            self._answers.ask(attached[name].acknowledge_cumulative_async, place.previous_entry.message_id)
            for name, place in places.items()
            if place is not None and place.entry > 0
        ]
        self._answers.wait(asked, deadline)

    def seek(self, attached: Attached, places: Mapping[str, Place | None], deadline: Deadline) -> None:
        """What lies from those places on is held; as far as that can be done."""
        earliest = _NATIVE.MessageId.earliest
        asked = [
            self._answers.ask(
                attached[name].seek_async, earliest if place is None else Place(place.ledger, place.entry).message_id
            )
            for name, place in places.items()
        ]
        self._answers.wait(asked, deadline)

    def remove(self, channels: list[str], deadline: Deadline) -> None:
        """Where the topic is gone, so is it. Raises ConnectionFailed when somebody is connected all the time."""
        found = self._answers.all_of({name: partial(self._attach, name, False) for name in channels}, deadline)
        there = {name: answer for name, answer in found.items() if answer.result != NOT_FOUND}
        consumers = {name: answer.value for name, answer in there.items() if answer.result == OK}
        begin = {name: partial(self._answers.ask, one.unsubscribe_async) for name, one in consumers.items()}
        removed = self._answers.all_of(begin, deadline)
        left = {name: answer for name, answer in (there | removed).items() if answer.result not in (OK, NOT_FOUND)}
        for name in left.keys() & consumers.keys():
            self._answers.close(consumers[name])
        for name, answer in left.items():
            why = answer.error(f"removing {self._name!r} from {name!r}")
            raise ConnectionFailed(f"{why.message}; nothing is read under it any more, but its messages are kept: try again")


def _check(found: Mapping[str, Answer], what: str) -> None:
    """Raises ChannelNotFound with all that do not exist, or what else went wrong. ``{}`` is the channel's name."""
    if missing := [name for name, answer in found.items() if answer.result == NOT_FOUND]:
        raise ChannelNotFound(f"there are no channels {', '.join(map(repr, missing))}: check the names, or create them")
    for name, answer in found.items():
        if answer.result != OK:
            raise answer.error(what.format(repr(name)))
