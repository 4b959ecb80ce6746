"""One channel's way into its topic: what is sent next, what an acknowledgement means. Pure: no Pulsar, no clock, no thread.

    OPENING --opened--> SINGLES --fresh--> FLOWING
       ^                 |   ^
       |      duplicate  v   | looked
       +-- (any failure) LOOKING

Behind an opening, what a producer before had on its way may still be stored, and Pulsar tells of a batch only its first
sequence id. So one message at a time is sent, until one is acknowledged as fresh: then all of that lies before it. One that is
acknowledged as a duplicate lies in a batch that was stored meanwhile, and the topic's last message tells its end.

What fails alone while later ones are stored would be lost, since the next opening goes on behind the last. So nothing is sent
beside others that might: a message of a size that Pulsar has not taken before goes alone.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from itertools import accumulate, takewhile
from typing import Literal

from rocksmq.protocol.errors import InternalError, MessageTooLarge

from .envelope import Outgoing, outgoing, plain_size
from .silence import Alone

CHUNK_MESSAGES = 500  # between two acknowledgements that are asked for: each costs as much as three messages
CHUNK_BYTES = 64 << 10
PROVEN_BYTES = 128 << 10  # that any Pulsar takes, by our word
PROPERTY_BYTES_MAX = 2 << 20  # on the way: Pulsar's client cuts batches by payloads alone
MESSAGE_OVERHEAD_BYTES = 800  # in memory, of a message on its way
FRAME_BYTES = 64  # of a message's own head in a batch


class Phase(Enum):
    """See above."""

    OPENING = auto()
    SINGLES = auto()
    LOOKING = auto()
    FLOWING = auto()


@dataclass(slots=True)
class Room:
    """Bytes on their way, of all channels; and the largest message that was taken.

    A channel may take as much as is left: so those that are stuck, however many, leave room for the others.
    """

    bytes_max: int
    used: int = 0
    proven_bytes: int = PROVEN_BYTES

    def is_left_for(self, used: int) -> bool:
        """Whether a channel that has ``used`` bytes may have more."""
        return not used or used < self.bytes_max - self.used


@dataclass(frozen=True, slots=True)
class Chunk:
    """Messages to send one behind the other; the acknowledgement of the last one tells of all."""

    number: int
    ids: Sequence[int]
    payloads: Sequence[bytes]
    envelopes: Sequence[Outgoing | None]  # None for one without headers
    payload_bytes: int
    property_bytes: int
    is_alone: bool  # nothing else may be on the way

    @property
    def cost(self) -> int:
        """Bytes in memory."""
        return self.payload_bytes + self.property_bytes + len(self.ids) * MESSAGE_OVERHEAD_BYTES


@dataclass(slots=True)
class _Held:
    """Messages that were read, those before ``begin`` are gone."""

    ids: Sequence[int]
    payloads: Sequence[bytes]
    headers: Sequence[bytes] | None
    begin: int = 0


@dataclass(slots=True)
class Counts:
    """Of what Pulsar has acknowledged."""

    messages: int = 0
    bytes: int = 0
    skipped: int = 0


@dataclass(slots=True)
class Rules:
    """What the mirror was told."""

    origin: str
    message_bytes_max: int
    too_large: Literal["stop", "skip"]
    key_header: str | None = None
    chunk_messages: int = CHUNK_MESSAGES
    property_bytes_max: int = field(init=False)
    plain_bytes: int = field(init=False)  # properties of a message without headers

    def __post_init__(self) -> None:
        self.property_bytes_max = min(PROPERTY_BYTES_MAX, (self.message_bytes_max - PROVEN_BYTES) // 2)
        self.plain_bytes = plain_size(self.origin)


class Course:
    """Of one channel, from one opening to the next. ``done_to``: all before it is stored in the topic, or skipped."""

    def __init__(self, rules: Rules, room: Room, counts: Counts) -> None:
        self.phase = Phase.OPENING
        self.fetch_from = 0  # where reading goes on
        self.done_to = 0
        self._rules = rules
        self._room = room
        self._counts = counts
        self._held: deque[_Held] = deque()
        self._held_bytes = 0
        self._on_the_way: deque[Chunk] = deque()
        self._cost = 0  # of those
        self._property_bytes = 0  # of those
        self._number = 0
        self._counted_to = 0

    # -- opening -----------------------------------------------------------------

    def named(self, origin: str) -> None:
        """What every message is to tell of where it comes from."""
        self._rules = replace(self._rules, origin=origin)

    def opened(self, position: int, counted_to: int = 0) -> None:
        """All before ``position`` is stored; what follows may be on the way from a producer before.

        ``counted_to``: what is skipped before that was counted.
        """
        self.drop()
        self._counted_to = max(self._counted_to, counted_to)
        self.phase = Phase.SINGLES
        self.fetch_from = self.done_to = position

    def looked(self, position: int) -> None:
        """Behind a duplicate: all before ``position`` is stored, and the duplicate itself."""
        assert self.phase is Phase.LOOKING, "it was asked for"
        self.phase = Phase.SINGLES
        self.done_to = max(self.done_to, position)
        self.fetch_from = max(self.fetch_from, self.done_to)
        while self._held and (held := self._held[0]).ids[held.begin] < self.done_to:
            self._take(held, 1)

    def drop(self) -> None:
        """Nothing of it is on the way any more, or held."""
        self._room.used -= self._cost + self._held_bytes
        self._held.clear()
        self._on_the_way.clear()
        self._cost = self._held_bytes = self._property_bytes = 0
        self.phase = Phase.OPENING

    # -- reading -----------------------------------------------------------------

    @property
    def ids_on_the_way(self) -> list[int]:
        """In order."""
        return [message_id for chunk in self._on_the_way for message_id in chunk.ids]

    @property
    def is_on_the_way(self) -> bool:
        """Whether an acknowledgement is awaited."""
        return bool(self._on_the_way)

    @property
    def alone(self) -> Alone | None:
        """A message that is on the way with nothing beside it."""
        if len(self._on_the_way) != 1 or len(self._on_the_way[0].ids) != 1:
            return None
        chunk = self._on_the_way[0]
        return Alone(chunk.ids[0], chunk.payload_bytes + chunk.property_bytes)

    def wants(self, held_bytes_max: int) -> bool:
        """Whether more is to be read from ``fetch_from`` on."""
        if self.phase is Phase.OPENING or self.phase is Phase.LOOKING:
            return False
        return self._held_bytes <= held_bytes_max and self._room.is_left_for(self._cost + self._held_bytes)

    def fetched(
        self, place: int, ids: Sequence[int], payloads: Sequence[bytes], headers: Sequence[bytes] | None, next_place: int
    ) -> bool:
        """Messages from ``place`` on; reading goes on at ``next_place``.

        False: they are not taken, since reading has gone on elsewhere meanwhile, or there is no room; then they are read again.
        """
        if place != self.fetch_from or self.phase is Phase.OPENING:
            return False
        size = sum(map(len, payloads)) + sum(map(len, headers or ())) + len(ids) * MESSAGE_OVERHEAD_BYTES
        if ids and self._room.used + size > self._room.bytes_max and (self._held or self._on_the_way):
            return False
        self.fetch_from = next_place
        if ids:
            self._held.append(_Held(ids, payloads, headers))
            self._held_bytes += size
            self._room.used += size
        return True

    # -- sending -----------------------------------------------------------------

    def next_chunk(self) -> Chunk | None:
        """What to send now; None: nothing, or an acknowledgement must come first.

        Raises MessageTooLarge for a message that must stop the channel, once all before it is done.
        """
        while self._held and self._may_send():
            held = self._held[0]
            first = self._outgoing(held, held.begin)
            size = self._size(held, held.begin, first) + FRAME_BYTES
            if size > self._rules.message_bytes_max:
                if self._on_the_way:
                    return None
                self._too_large(held.ids[held.begin], size, f"the mirror's limit of {self._rules.message_bytes_max}")
                self._take(held, 1)
                continue
            is_alone = self.phase is Phase.SINGLES or size > self._room.proven_bytes or self._is_heavy(first)
            if is_alone and self._on_the_way:
                return None
            envelopes = [first] if is_alone else self._together(held, first)
            return self._cut(held, envelopes, is_alone)
        return None

    def _may_send(self) -> bool:
        if self.phase is Phase.SINGLES:
            return not self._on_the_way
        if self.phase is not Phase.FLOWING:
            return False
        if not self._on_the_way:
            return True
        return (
            not self._on_the_way[-1].is_alone
            and self._property_bytes < self._rules.property_bytes_max
            and self._cost < self._room.bytes_max - self._room.used + self._held_bytes
        )

    def _outgoing(self, held: _Held, index: int) -> Outgoing | None:
        """None: it has no headers."""
        if held.headers is None or not held.headers[index]:
            return None
        return outgoing(held.ids[index], self._rules.origin, held.headers[index], self._rules.key_header)

    def _size(self, held: _Held, index: int, envelope: Outgoing | None) -> int:
        return len(held.payloads[index]) + (self._rules.plain_bytes if envelope is None else envelope.size)

    def _is_heavy(self, envelope: Outgoing | None) -> bool:
        """Whether its properties, with those that may be on the way, could make a batch too large."""
        return envelope is not None and envelope.size > self._rules.property_bytes_max // 4

    def _together(self, held: _Held, first: Outgoing | None) -> Sequence[Outgoing | None]:
        """The envelopes of as many as make a chunk."""
        if held.headers is None:
            return [None] * self._count_plain(held)
        envelopes, size = [first], self._size(held, held.begin, first)
        for index in range(held.begin + 1, min(held.begin + self._rules.chunk_messages, len(held.ids))):
            envelope = self._outgoing(held, index)
            if self._is_heavy(envelope):
                break
            size += self._size(held, index, envelope)
            if size > CHUNK_BYTES:
                break
            envelopes.append(envelope)
        return envelopes

    def _count_plain(self, held: _Held) -> int:
        payloads = held.payloads[held.begin : held.begin + self._rules.chunk_messages]
        if max(map(len, payloads)) + self._rules.plain_bytes <= CHUNK_BYTES // len(payloads):
            return len(payloads)
        sizes = accumulate(len(payload) + self._rules.plain_bytes for payload in payloads)
        return max(1, sum(1 for _ in takewhile(lambda size: size <= CHUNK_BYTES, sizes)))

    def _cut(self, held: _Held, envelopes: Sequence[Outgoing | None], is_alone: bool) -> Chunk:
        count = len(envelopes)
        begin, end = held.begin, held.begin + count
        ids, payloads = held.ids[begin:end], held.payloads[begin:end]
        assert ids[0] >= self.done_to, "ids rise"
        with_headers = [one.size for one in envelopes if one is not None]
        property_bytes = sum(with_headers) + (count - len(with_headers)) * self._rules.plain_bytes
        chunk = Chunk(self._number, ids, payloads, envelopes, sum(map(len, payloads)), property_bytes, is_alone)
        self._number += 1
        self._take(held, count)
        self._on_the_way.append(chunk)
        self._property_bytes += chunk.property_bytes
        self._cost += chunk.cost
        self._room.used += chunk.cost
        return chunk

    def _take(self, held: _Held, count: int) -> None:
        end = held.begin + count
        size = sum(map(len, held.payloads[held.begin : end])) + count * MESSAGE_OVERHEAD_BYTES
        if held.headers is not None:
            size += sum(map(len, held.headers[held.begin : end]))
        held.begin = end
        self._held_bytes -= size
        self._room.used -= size
        if end == len(held.ids):
            self._held.popleft()

    # -- acknowledgements ----------------------------------------------------------

    def acknowledged(self, number: int, is_fresh: bool) -> None:
        """Of the chunk with that number. Behind a duplicate in SINGLES the caller looks at the topic's last message.

        Raises InternalError if one before it was left out: then nothing is known.
        """
        if not self._on_the_way or self._on_the_way[0].number != number:
            raise InternalError(f"acknowledgement {number} of Pulsar came out of order")
        chunk = self._on_the_way.popleft()
        self._cost -= chunk.cost
        self._property_bytes -= chunk.property_bytes
        self._room.used -= chunk.cost
        self.done_to = chunk.ids[-1] + 1
        self._counts.messages += len(chunk.ids)
        self._counts.bytes += chunk.payload_bytes
        if is_fresh and chunk.is_alone:
            self._room.proven_bytes = max(self._room.proven_bytes, chunk.payload_bytes + chunk.property_bytes + FRAME_BYTES)
        if self.phase is Phase.SINGLES:
            self.phase = Phase.FLOWING if is_fresh else Phase.LOOKING

    def refused(self, number: int, said: str) -> bool:
        """Pulsar takes no message as large as the one of that chunk; whether it went alone, so that nothing else is harmed.

        Raises MessageTooLarge if it must stop the channel.
        """
        alone = self.alone
        if alone is None or self._on_the_way[0].number != number:
            return False
        self._too_large(alone.message_id, alone.size, f"Pulsar's limit: {said}")
        self._on_the_way.popleft()
        self._room.used -= self._cost
        self._cost = self._property_bytes = 0
        return True

    def _too_large(self, message_id: int, size: int, limit: str) -> None:
        if self._rules.too_large == "stop":
            raise MessageTooLarge(f"message {message_id} of {size} bytes with its headers exceeds {limit}")
        self.done_to = message_id + 1
        self._counts.skipped += message_id >= self._counted_to
        self._counted_to = max(self._counted_to, self.done_to)
