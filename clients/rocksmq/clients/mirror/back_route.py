"""One topic opened for the way back: its reader, the subscription that holds its data, the named producer of its channel.

Reading goes on behind the last sequence that is stored, whatever the subscription says, but for the first time: so it is exact
also within a batch. The subscription is acknowledged behind what is stored, by whole entries; it makes Pulsar keep the rest,
and the last entry that is stored. Ledgers are removed as a whole, the oldest first: while that entry's can be read, nothing
behind it was removed. So where what is read does not follow on it, the reader is opened anew before it, to see whether it is
there.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Self, TypeVar

from rocksmq.protocol.errors import Conflict, ConnectionFailed, InvalidRequest, RocksMQError

from ..client import Client
from ..deadline import Deadline
from ..outbox import WINDOW
from ..producer import BATCH_BYTES
from ..pulsar.client import asked, failure, pulsar
from .back_messages import batch_size, first_chunk
from .back_places import UNBATCHED, Place, Unstored
from .options import MirrorOptions

logger = logging.getLogger("rocksmq.mirror")
Result = TypeVar("Result")

POLL_SECONDS = 0.25  # of one wait for a message: how long an end that is wanted goes unnoticed
FLUSH_SECONDS = 2.0  # for what is on its way when it is closed
NAME_SECONDS = 12 * 3_600.0  # after which it is opened anew: a broker forgets a name that is idle for 30 days
AHEAD_MAX = 1_000  # messages that Pulsar's client reads ahead
CHUNKED_ENTRIES = 64  # before what is stored, that are read again: a message in chunks may begin there and end behind it
START = Place(-1, -1, UNBATCHED)


class TakenOver(Conflict):
    """Another mirror of the same name carries the channel now."""


class Received(NamedTuple):
    """A message of the topic, as Pulsar's client has it."""

    place: Place
    message: Any
    ends_entry: bool
    lost_behind: Place | None = None  # Pulsar has removed that, and maybe more, up to this message


class Route:
    """A context manager, used by one thread. ``share_bytes``: how much of it may be in memory, by and large."""

    def __init__(
        self, options: MirrorOptions, channel: str, mq: Client, client: Any, unstored: Unstored, share_bytes: int
    ) -> None:
        """Ties the mirror's name to this one. Raises what `Client.producer` raises."""
        unstored.forget()
        self._unstored = unstored
        self._channel = channel
        self.topic = options.topic(channel)
        self.payload_bytes_max = mq.server.limits["payload_bytes_max"]
        self._name = options.group
        self._client = client
        self._ahead = max(1, min(AHEAD_MAX, share_bytes // 2 // self.payload_bytes_max))
        self._last = self._begin = START
        self._batch_size = 0
        self._before = self._read_again = START  # where the reader was opened, and what it has given of what was read before
        self._looked_behind: Place | None = None  # the reader was opened to see whether that is there
        self._begins_late: Place | None = None
        self._consumer: Any = None
        self._reader: Any = None
        self._opened_at = time.monotonic()
        in_flight = max(1, min(WINDOW, share_bytes // 2 // BATCH_BYTES))
        self._producer = mq.producer(channel, max_in_flight=in_flight, name=self._name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        """Wait a moment for what is on its way, acknowledge what is stored, and close everything. Raises nothing."""
        self._quietly(lambda: self._producer.close_within(Deadline(FLUSH_SECONDS)))
        if self._consumer is not None:
            self._quietly(self.acknowledge)
            self._quietly(lambda: self._asked("closing", self._consumer.close))
        if self._reader is not None:
            self._quietly(lambda: self._asked("closing", self._reader.close))

    @property
    def is_old(self) -> bool:
        """It is to be opened anew."""
        return time.monotonic() - self._opened_at > NAME_SECONDS

    @property
    def begins_late(self) -> Place | None:
        """Where it began, if that was for the first time, and behind the topic's beginning."""
        return self._begins_late

    @property
    def is_connected(self) -> bool:
        """To Pulsar."""
        return bool(self._reader.is_connected())

    def ends_beyond(self) -> Place | None:
        """Where the topic ends, if that is beyond what was read. Raises what Pulsar says."""
        end = self._end()
        return end if end > self._last else None

    def open(self, is_stopped: threading.Event, nothing_yet: Callable[[], object]) -> None:
        """Find where to read on; nothing can be read if an end was wanted before.

        The topic's first message is waited for, and ``nothing_yet`` called while none comes. Raises what stands against it.
        """
        if self._asked("looking up", lambda: self._client.get_topic_partitions(self.topic)) != [self.topic]:
            raise InvalidRequest(
                f"{self.topic} has partitions, so its messages have no order: mirror each partition by its name"
            )
        last = self._producer.last_sequence
        self._consumer = self._asked("subscribing to", lambda: self._subscribed(is_first=last is None))
        if last is None:
            start = self._first_place(is_stopped, nothing_yet)
            if start is not None:
                self._reader = self._reader_at(start)
        else:
            self._last = self._begin = Place.of_sequence(last)
            self._unstored.forget(self._last)
            self._look_at_end()
            self._read_before_last()

    def next(self) -> Received | None:
        """The next message, None when none came within POLL_SECONDS. Raises what stands against it."""
        until = time.monotonic() + POLL_SECONDS
        while (message := self._read_one()) is not None:
            found = message.message_id()
            place = Place(found.ledger_id(), found.entry_id(), found.batch_index())
            if place <= self._last:
                self._drop(place, found, until)
                continue
            goes_on = self._last.batch_index + 1 < self._batch_size or place[:2] == self._last[:2]
            if goes_on and place != self._last.after:
                raise ConnectionFailed(f"Pulsar: {self.topic} was read at {place}, though the batch of {self._last} goes on")
            if not (self._follows(place, found) or self._looked_behind == self._last):
                self._looked_behind = self._last
                self._read_before_last()
                continue
            is_lost = self._last > START and self._last.ledger not in (place.ledger, self._read_again.ledger)
            lost_behind = self._last if is_lost and self._looked_behind == self._last else None
            if place[:2] != self._last[:2] or not self._batch_size:
                self._batch_size = batch_size(found.serialize())
            self._last = place
            return Received(place, message, place.batch_index in (UNBATCHED, self._batch_size - 1), lost_behind)
        return None

    def send(self, received: Received, payload: bytes, headers: Mapping[str, bytes]) -> None:
        """Queue it. Raises TakenOver, and what `Producer.send` raises."""
        try:
            self._producer.send(payload, headers, sequence=received.place.sequence)
        except Conflict as error:
            raise self._taken_over(error) from error
        self._unstored.add(received.place, len(payload), ends_entry=received.ends_entry)

    def skip(self, received: Received) -> None:
        """Go on without it."""
        self._unstored.add(received.place, 0, ends_entry=received.ends_entry, is_skipped=True)

    def check_sending(self) -> None:
        """Raise Timeout, that says why, while what was sent is not stored; or what has ended the sending, TakenOver too."""
        try:
            self._producer.flush(0.0)
        except Conflict as error:
            raise self._taken_over(error) from error

    def acknowledge(self) -> None:
        """What is stored by now. Raises what Pulsar says."""
        stored = self._producer.last_sequence
        self._unstored.stored(stored if isinstance(stored, bytes) else None)
        if (done := self._unstored.take_done()) is not None:
            self._acknowledge_entry(done.ledger, done.entry)

    # -- opening -----------------------------------------------------------------

    def _subscribed(self, *, is_first: bool) -> Any:
        """Failover: several may acknowledge, and none is refused while Pulsar takes a dead one for alive."""
        return self._client.subscribe(
            self.topic,
            self._name,
            consumer_type=pulsar.ConsumerType.Failover,
            receiver_queue_size=1 if is_first else 0,  # with 0 it gets nothing, which is all that acknowledging needs
            initial_position=pulsar.InitialPosition.Earliest,
        )

    def _reader_at(self, place: Place) -> Any:
        begin = pulsar.MessageId(-1, *place)
        return self._asked(
            "reading",
            lambda: self._client.create_reader(
                self.topic, begin, receiver_queue_size=self._ahead, start_message_id_inclusive=True, reader_name=self._name
            ),
        )

    def _read_before_last(self) -> None:
        """Have the reader begin some way before the last message, of which nothing is taken again."""
        reader, self._reader = self._reader, None
        if reader is not None:
            self._asked("closing", reader.close)
        self._read_again = START
        self._before = Place(self._last.ledger, max(0, self._last.entry - CHUNKED_ENTRIES), UNBATCHED)
        self._reader = self._reader_at(self._before)

    def _read_one(self) -> Any:
        """None: none came."""
        try:
            return self._reader.read_next(round(POLL_SECONDS * 1_000))
        except pulsar.Timeout:
            return None
        except pulsar.PulsarException as error:
            raise failure(f"reading {self.topic}", type(error).__name__) from error

    def _drop(self, place: Place, found: Any, until: float) -> None:
        """What was read before. Raises for what is not to come again."""
        if place < self._before and self._last == self._begin:
            raise self._other_topic(f"goes on at {place}")
        if place > self._read_again:
            self._read_again = place
        elif time.monotonic() > until:  # some repeat what they sent before a connection was lost; not for ever
            raise ConnectionFailed(f"Pulsar: {self.topic} was read at {place}, behind {self._last}")
        if place[:2] == self._last[:2]:
            self._batch_size = batch_size(found.serialize())

    def _follows(self, place: Place, found: Any) -> bool:
        """Whether there is nothing between it and the last one, for certain."""
        if self._last == START or place[:2] == self._last[:2]:
            return True
        ledger, entry = first_chunk(found.serialize()) or place[:2]
        return ledger == self._last.ledger and entry <= self._last.entry + 1

    def _first_place(self, is_stopped: threading.Event, nothing_yet: Callable[[], object]) -> Place | None:
        """Where the subscription begins, once there is a message; None: an end was wanted before.

        So it is for a channel in which nothing is stored under this name, or so long ago that the broker has forgotten it.
        START when that is the topic's beginning: a message in chunks may begin there too, and be whole only later.
        """
        while not is_stopped.is_set():
            try:
                found = self._consumer.receive(round(POLL_SECONDS * 1_000)).message_id()
            except pulsar.Timeout:
                if not self._consumer.is_connected():
                    raise ConnectionFailed(f"Pulsar: the connection of {self.topic} was lost") from None
                nothing_yet()
                continue
            except pulsar.PulsarException as error:
                raise failure(f"reading {self.topic}", type(error).__name__) from error
            place = Place(found.ledger_id(), found.entry_id(), found.batch_index())
            if self._is_beginning(place):
                return START
            self._begins_late = place
            chunk = first_chunk(found.serialize())
            return place if chunk is None else Place(*chunk, UNBATCHED)
        return None

    def _is_beginning(self, place: Place) -> bool:
        """Whether no message of the topic is before it."""
        self._reader = self._reader_at(START)
        message = self._read_one()
        reader, self._reader = self._reader, None
        self._asked("closing", reader.close)
        if message is None:
            raise ConnectionFailed(f"Pulsar: {self.topic} was not read from its beginning")
        found = message.message_id()
        return Place(found.ledger_id(), found.entry_id(), found.batch_index()) >= place

    def _look_at_end(self) -> None:
        """Refuse a topic that ends too early; acknowledge what a lost connection has kept from being so, but for the last."""
        end = self._end()
        if START[:2] < end[:2] < self._last[:2]:
            raise self._other_topic(f"ends at {end}")
        self._acknowledge_entry(self._last.ledger, self._last.entry - 1)

    def _end(self) -> Place:
        """Of the last message."""
        found = self._asked("looking at the end of", self._consumer.get_last_message_id)
        return Place(found.ledger_id(), found.entry_id(), found.batch_index())

    def _acknowledge_entry(self, ledger: int, entry: int) -> None:
        """And all before it."""
        if entry >= 0:
            place = pulsar.MessageId(-1, ledger, entry, UNBATCHED)
            self._asked("acknowledging", lambda: self._consumer.acknowledge_cumulative(place))

    def _other_topic(self, does: str) -> InvalidRequest:
        return InvalidRequest(
            f"{self.topic} {does}, but its channel has it up to {self._last}: it is another topic of this name, or an older "
            "copy of it; under another --name all of it is mirrored"
        )

    def _taken_over(self, error: Conflict) -> TakenOver:
        return TakenOver(f"another mirror, of the name that {self._name} tells, has channel {self._channel!r}: {error.message}")

    def _asked(self, what: str, call: Callable[[], Result]) -> Result:
        return asked(f"{what} {self.topic}", call)

    def _quietly(self, call: Callable[[], None]) -> None:
        try:
            call()
        except RocksMQError as error:
            logger.debug("closing %s: %s", self.topic, error)
