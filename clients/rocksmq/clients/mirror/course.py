"""One channel's way into its topic: what is sent next, what an acknowledgement means. Pure: no Pulsar, no clock, no thread.

    OPENING --opened--> SINGLES --fresh--> FLOWING
       ^                 |   ^
       |      duplicate  v   | looked
       +-- (any failure) LOOKING

Behind an opening, what a producer before had on its way may still be stored, and Pulsar tells of a batch only its first
sequence id. So one message at a time is sent, until one is acknowledged as fresh: then all of that lies before it. One that is
acknowledged as a duplicate lies in a batch that was stored meanwhile, and the topic's last message tells its end.

A chunk is what is sent at once, as one entry of Pulsar's: stored as a whole or not at all. What is refused while later ones
are stored would be lost, since the next opening goes on behind the last. So nothing is sent beside others that might be: a
chunk larger than what was taken since the opening goes alone. Chunks grow that way; of those that are not full few go at once.
"""

from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto
from itertools import accumulate
from typing import Literal

from rocksmq.protocol.errors import InternalError, MessageTooLarge

from .envelope import Outgoing, frame_size, outgoing, payload_size, plain_size, varint_size
from .silence import Alone

CHUNK_BYTES = 128 << 10  # of one with several messages
HELD_MESSAGES = 1_000  # to which what comes in small parts is put together
PARTIAL_MAX = 4  # chunks on the way, beside which one that is not full waits
GROWTH = 8  # of a chunk beside the largest that the topic has taken
GROWTH_MIN = 2  # less is not worth waiting for what is on the way
REFUSALS = 2  # until chunks as large as the refused one are not tried again: Pulsar may just have gone away
MESSAGE_OVERHEAD_BYTES = 800  # in memory, of a message on its way
PLAIN_BYTES = 100  # of a message in a chunk beside its payload, more or less
HEAD_BYTES = 512  # at the most, that all chunks of a producer have alike
RESERVE = 4  # one part in so many of the room, for channels that move and have nothing


class Phase(Enum):
    """See above."""

    OPENING = auto()
    SINGLES = auto()
    LOOKING = auto()
    FLOWING = auto()


@dataclass(slots=True)
class Room:
    """Bytes on their way, of all channels: ``bytes_max`` and a reserve at the most, and what one read brings.

    A channel may take as much as is left, so those that are stuck leave room for others. Where they are so many that nothing is
    left, those that move have the reserve.
    """

    bytes_max: int
    used: int = 0

    def is_left_for(self, used: int, *, is_moving: bool) -> bool:
        """Whether a channel that has ``used`` bytes may have more."""
        if used:
            return used < self.bytes_max - self.used
        return self.used < self.bytes_max + (self.bytes_max // RESERVE if is_moving else 0)


@dataclass(frozen=True, slots=True)
class Chunk:
    """Messages to send at once; the acknowledgement of the last one tells of all."""

    number: int
    ids: Sequence[int]
    payloads: Sequence[bytes]
    envelopes: Sequence[Outgoing | None]  # None for one without headers
    payload_bytes: int
    size: int  # bytes in Pulsar, beside a head that all chunks of a producer have alike
    is_alone: bool  # nothing else may be on the way


@dataclass(frozen=True, slots=True)
class _Sent:
    """What is kept of a chunk: the rest is Pulsar's client's now."""

    number: int
    first_id: int
    last_id: int
    count: int
    payload_bytes: int
    size: int
    is_alone: bool

    @property
    def cost(self) -> int:
        """Bytes in memory."""
        return self.size + self.count * MESSAGE_OVERHEAD_BYTES


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


@dataclass(frozen=True, slots=True)
class Rules:
    """What the mirror was told."""

    origin: str
    message_bytes_max: int
    too_large: Literal["stop", "skip"]
    key_header: str | None = None


class Course:
    """Of one channel, from one opening to the next. ``done_to``: all before it is stored in the topic, or skipped."""

    def __init__(self, rules: Rules, room: Room, counts: Counts) -> None:
        self.phase = Phase.OPENING
        self.fetch_from = 0  # where reading goes on
        self.done_to = 0
        self._rules = rules
        self._chunk_bytes = min(CHUNK_BYTES, rules.message_bytes_max - HEAD_BYTES)
        self._room = room
        self._counts = counts
        self._held: deque[_Held] = deque()
        self._held_bytes = 0
        self._on_the_way: deque[_Sent] = deque()
        self._cost = 0  # of those
        self._number = 0
        self._counted_to = 0
        self._proven_bytes = 0  # size of the largest that was taken alone in this opening: nothing smaller is refused
        self._refusals = 0
        self._refused_bytes: int | None = None

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
        self._proven_bytes = 0
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
        """Nothing of it is on the way any more, or held. Whatever went alone may have been refused."""
        if self.alone is not None and self.alone.messages > 1:
            self._refusals += 1
            if self._refusals >= REFUSALS:
                self._refused_bytes = self.alone.size
        self._room.used -= self._cost + self._held_bytes
        self._held.clear()
        self._on_the_way.clear()
        self._cost = self._held_bytes = 0
        self.phase = Phase.OPENING

    def forget_refusals(self) -> bool:
        """Chunks as large as those that were refused are tried again; whether there were any."""
        refusals, self._refusals, self._refused_bytes = self._refusals, 0, None
        return refusals > 0

    # -- reading -----------------------------------------------------------------

    @property
    def is_on_the_way(self) -> bool:
        """Whether an acknowledgement is awaited."""
        return bool(self._on_the_way)

    @property
    def alone(self) -> Alone | None:
        """What is on the way with nothing beside it, since it might be refused."""
        if not self._on_the_way or not self._on_the_way[0].is_alone:
            return None
        sent = self._on_the_way[0]
        return Alone(sent.first_id, sent.count, sent.size)

    def wants(self, held_bytes_max: int) -> bool:
        """Whether more is to be read from ``fetch_from`` on."""
        if self.phase is Phase.OPENING or self.phase is Phase.LOOKING or self._held_bytes > held_bytes_max:
            return False
        return self._room.is_left_for(self._cost + self._held_bytes, is_moving=self.phase is Phase.FLOWING)

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
            self._hold(ids, payloads, headers)
            self._held_bytes += size
            self._room.used += size
        return True

    def _hold(self, ids: Sequence[int], payloads: Sequence[bytes], headers: Sequence[bytes] | None) -> None:
        """What comes in small parts goes together."""
        last = self._held[-1] if self._held else None
        if last is None or len(last.ids) - last.begin + len(ids) > HELD_MESSAGES:
            self._held.append(_Held(ids, payloads, headers))
            return
        if last.headers is not None or headers is not None:
            before = last.headers or [b""] * len(last.ids)
            last.headers = [*before[last.begin :], *(headers or [b""] * len(ids))]
        last.ids = [*last.ids[last.begin :], *ids]
        last.payloads = [*last.payloads[last.begin :], *payloads]
        last.begin = 0

    # -- sending -----------------------------------------------------------------

    def next_chunk(self) -> Chunk | None:
        """What to send now; None: nothing, or an acknowledgement must come first.

        Raises MessageTooLarge for a message that must stop the channel, once all before it is done.
        """
        while self._held and self._may_send():
            held = self._held[0]
            first = self._outgoing(held, held.begin)
            size = self._size(held, held.begin, first)
            whole = size + _head_size(first, 1) + HEAD_BYTES
            if whole > self._rules.message_bytes_max:
                if self._on_the_way:
                    return None
                self._too_large(held.ids[held.begin], whole, f"the mirror's limit of {self._rules.message_bytes_max}")
                self._take(held, 1)
                continue
            return self._chunk_of(held, first, size)
        return None

    def _chunk_of(self, held: _Held, first: Outgoing | None, size: int) -> Chunk | None:
        count = len(held.ids) - held.begin
        there = self._held_bytes - count * (MESSAGE_OVERHEAD_BYTES - PLAIN_BYTES)  # more or less
        larger = 0 if self.phase is Phase.SINGLES else self._larger()
        if larger and there >= GROWTH_MIN * self._proven_bytes:
            if self._on_the_way:
                return None
            envelopes, whole = self._together(held, first, larger)
            if whole >= GROWTH_MIN * self._proven_bytes:
                return self._cut(held, envelopes, whole, is_alone=True)
        if self.phase is Phase.SINGLES or size + _head_size(first, 1) > self._proven_bytes:
            return None if self._on_the_way else self._cut(held, [first], size, is_alone=True)
        bytes_max = min(self._chunk_bytes, self._proven_bytes - _head_size(first, CHUNK_BYTES))
        if len(self._on_the_way) >= PARTIAL_MAX and len(self._held) == 1 and there < bytes_max:
            return None
        return self._cut(held, *self._together(held, first, bytes_max), is_alone=False)

    def _larger(self) -> int:
        """Size of a chunk that is worth trying alone, 0: none is."""
        larger = min(self._chunk_bytes, GROWTH * self._proven_bytes)
        if self._refused_bytes is not None:
            larger = min(larger, self._refused_bytes // 2)
        return larger if larger >= GROWTH_MIN * self._proven_bytes else 0

    def _may_send(self) -> bool:
        if self.phase is Phase.SINGLES:
            return not self._on_the_way
        if self.phase is not Phase.FLOWING:
            return False
        if not self._on_the_way:
            return True
        return not self._on_the_way[-1].is_alone and self._cost < self._room.bytes_max - self._room.used + self._held_bytes

    def _outgoing(self, held: _Held, index: int) -> Outgoing | None:
        """None: it has no headers."""
        if held.headers is None or not held.headers[index]:
            return None
        return outgoing(held.ids[index], self._rules.origin, held.headers[index], self._rules.key_header)

    def _size(self, held: _Held, index: int, envelope: Outgoing | None) -> int:
        """In a chunk."""
        message_id = held.ids[index]
        more = plain_size(message_id, self._rules.origin) if envelope is None else envelope.size
        return frame_size(message_id) + more + payload_size(len(held.payloads[index]))

    def _together(self, held: _Held, first: Outgoing | None, bytes_max: int) -> tuple[Sequence[Outgoing | None], int]:
        """The envelopes of as many as make a chunk, one at least, and their size."""
        if held.headers is None:
            return self._plain_together(held, bytes_max)
        envelopes, size = [first], self._size(held, held.begin, first)
        for index in range(held.begin + 1, len(held.ids)):
            envelope = self._outgoing(held, index)
            size += self._size(held, index, envelope)
            if size > bytes_max:
                return envelopes, size - self._size(held, index, envelope)
            envelopes.append(envelope)
        return envelopes, size

    def _plain_together(self, held: _Held, bytes_max: int) -> tuple[Sequence[None], int]:
        message_id = held.ids[held.begin]
        own = frame_size(message_id) + plain_size(message_id, self._rules.origin)
        payloads = held.payloads[held.begin : held.begin + bytes_max // own + 1]
        sizes = list(accumulate(own + payload_size(len(payload)) for payload in payloads))
        count = max(1, bisect_right(sizes, bytes_max))
        return [None] * count, sizes[count - 1]

    def _cut(self, held: _Held, envelopes: Sequence[Outgoing | None], size: int, *, is_alone: bool) -> Chunk:
        count = len(envelopes)
        begin, end = held.begin, held.begin + count
        ids, payloads = held.ids[begin:end], held.payloads[begin:end]
        assert ids[0] >= self.done_to, "ids rise"
        size += _head_size(envelopes[0], count)
        chunk = Chunk(self._number, ids, payloads, envelopes, sum(map(len, payloads)), size, is_alone)
        self._number += 1
        self._take(held, count)
        sent = _Sent(chunk.number, ids[0], ids[-1], count, chunk.payload_bytes, chunk.size, is_alone)
        self._on_the_way.append(sent)
        self._cost += sent.cost
        self._room.used += sent.cost
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
        sent = self._on_the_way.popleft()
        self._cost -= sent.cost
        self._room.used -= sent.cost
        self.done_to = sent.last_id + 1
        self._counts.messages += sent.count
        self._counts.bytes += sent.payload_bytes
        if is_fresh and sent.is_alone:
            self._proven_bytes = max(self._proven_bytes, sent.size)
        if self.phase is Phase.SINGLES:
            self.phase = Phase.FLOWING if is_fresh else Phase.LOOKING

    def refused(self, number: int, said: str) -> bool:
        """Pulsar takes no message as large as the one of that chunk; whether that went alone, so that nothing else is harmed.

        Raises MessageTooLarge if it must stop the channel.
        """
        alone = self.alone
        if alone is None or alone.messages > 1 or self._on_the_way[0].number != number:
            return False
        self._too_large(alone.message_id, alone.size, f"Pulsar's limit: {said}")
        self._on_the_way.popleft()
        self._room.used -= self._cost
        self._cost = 0
        return True

    def _too_large(self, message_id: int, size: int, limit: str) -> None:
        if self._rules.too_large == "stop":
            raise MessageTooLarge(f"message {message_id} of {size} bytes with its headers exceeds {limit}")
        self.done_to = message_id + 1
        self._counts.skipped += message_id >= self._counted_to
        self._counted_to = max(self._counted_to, self.done_to)


def _head_size(first: Outgoing | None, count: int) -> int:
    """Bytes of the head of a chunk that begins with that, and has so many messages."""
    return varint_size(count) + (first.head_size if first is not None else 0)
