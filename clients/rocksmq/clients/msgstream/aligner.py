"""Packs between ticks, from what was read of several channels (contract §7).

The aligner reads nothing itself: `wanted` says what to read on, `feed` takes what came, `pack` gives the next pack. What a pack
holds depends on the channels' logs and on where they began to be read, not on what was read when. Not for several threads.

Let E be the last pack's end. A channel's *cut* is its first tick above E. All ticks before it are at most E, and the next pack
ends at the lowest cut, so the cut is also the first tick at or above that end: what stands before it may go into the pack, what
stands behind it may not. A channel has `held`, what stands before the cut and went into no pack; the cut; and `ahead`, what was
read behind the cut. What was delivered of a channel is at any time: before its first tick at or above its filter, and ending
at or below the filter. So place and filter say all, and a channel that is left out just keeps both.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from rocksmq.protocol.errors import BufferFull, InvalidRequest

from .types import TIMESTAMP_MAX, MsgPack, MsgPosition, MsgType, StreamGap, TsMsg

_TICK = int(MsgType.TIME_TICK)
_NEVER = TIMESTAMP_MAX + 1
_NAMED_MAX = 3  # as many channels are named in an error


class _Stretch:
    """Messages with no tick between them, in columns, and the tick behind them; ``tick`` 0: none was read yet."""

    __slots__ = ("each", "ends", "msgs", "places", "tick", "tick_place")

    def __init__(
        self, msgs: list[TsMsg], ends: list[int], places: list[Any], each: int, tick: int = 0, tick_place: Any = None
    ) -> None:
        self.msgs, self.ends, self.places = msgs, ends, places
        self.each = each  # bytes a message, estimated
        self.tick, self.tick_place = tick, tick_place

    def __len__(self) -> int:
        """How much of ``messages_max`` it takes: a tick takes memory too."""
        return len(self.ends) + 1


class _Channel:
    """One channel: its held messages in columns, its cut, and what was read ahead of that."""

    __slots__ = (
        *("ahead", "cut", "cut_place", "earliest", "ends", "filter", "is_left_out"),
        *("is_lost", "msgs", "name", "next_place", "places", "position", "size"),
    )

    def __init__(self, name: str, place: Any, position: MsgPosition) -> None:
        self.name = name
        self.position = position  # at the end of the last pack to which it contributed
        self.next_place = place
        self.is_lost = False  # something read was not kept: what is fed does not follow until `wanted` has told the place
        self.is_left_out = False  # only ever without a cut
        self.filter = position.timestamp_filter  # 0: the first tick at or above it was passed
        self.msgs: list[TsMsg] = []
        self.ends: list[int] = []
        self.places: list[Any] = []
        self.size = 0  # bytes held
        self.earliest = _NEVER  # the least of ends
        self.cut = 0  # 0: not read yet
        self.cut_place: Any = None
        self.ahead: deque[_Stretch] = deque()  # empty without a cut

    def hold(self, stretch: _Stretch) -> None:
        """What stands before the next tick."""
        if self.ends:
            self.msgs += stretch.msgs
            self.ends += stretch.ends
            self.places += stretch.places
        else:
            self.msgs, self.ends, self.places = stretch.msgs, stretch.ends, stretch.places
        self.size += stretch.each * len(stretch.ends)
        self.earliest = min(self.earliest, *stretch.ends)

    def take(self, end_ts: int) -> tuple[list[TsMsg], list[int]]:
        """The held messages that end at or below ``end_ts``, no longer held, and their ends."""
        msgs, ends = self.msgs, self.ends
        if max(ends) <= end_ts:
            self.msgs, self.ends, self.places = [], [], []
            self.size, self.earliest = 0, _NEVER
            return msgs, ends
        left = [index for index, end in enumerate(ends) if end > end_ts]
        self.size = self.size * len(left) // len(ends)
        self.msgs, self.ends = [msgs[index] for index in left], [ends[index] for index in left]
        self.places = [self.places[index] for index in left]
        self.earliest = min(self.ends)
        taken = [index for index, end in enumerate(ends) if end <= end_ts]
        return [msgs[index] for index in taken], [ends[index] for index in taken]


class TickAligner:
    """The packs of a time-tick stream.

    ``encode`` gives a place as the text of a position. ``messages_max`` and ``bytes_max`` bound what is held while no pack can
    be made, and beside it what was read ahead, that up to one round of reading; ahead is read again when it was dropped.
    Beyond the bound each channel may still hold its even share of it, and one message, so that a channel that holds much does
    not keep the others' ticks from being read: so at most about twice the bound is held. Bytes are taken as spread evenly over
    what was fed together.
    """

    def __init__(self, encode: Callable[[Any], str] = str, *, messages_max: int, bytes_max: int) -> None:
        self._encode = encode
        self._messages_max = messages_max
        self._bytes_max = bytes_max
        self._channels: dict[str, _Channel] = {}
        self._gaps: list[StreamGap] = []
        self._refused: set[str] = set()  # channels that hold too much to take what was fed
        self._held = self._held_bytes = 0
        self._ahead = self._ahead_bytes = 0
        self._end_ts = 0

    @property
    def end_ts(self) -> int:
        """Where the last pack ended and the next begins."""
        return self._end_ts

    @property
    def positions(self) -> list[MsgPosition]:
        """Of all channels, in the order in which they were added: the last pack's end, or where a channel began.

        A fresh aligner that begins there gives the very packs that this one would give next, but for channels left out.
        """
        return [channel.position for channel in self._channels.values()]

    @property
    def stalled(self) -> list[str]:
        """Channels without a tick above the last pack's end, while another has one, or that are left out."""
        channels = self._channels.values()
        others_have = any(channel.cut for channel in channels)
        return [channel.name for channel in channels if not channel.cut and (others_have or channel.is_left_out)]

    def add(self, channel: str, place: Any, timestamp_filter: int) -> None:
        """Begin to read ``channel`` at ``place``, None: its beginning.

        What lies before its first tick at or above ``timestamp_filter`` and ends at or below that was delivered before; what
        else it has up to the last pack's end is late. A filter above that end becomes the begin of the next pack, whether there
        were packs before or not, as if all were sought: what was delivered of the channel is known for its filter only, and
        for no earlier end. Then what the others have up to the filter is late. Raises InvalidRequest for a channel that
        is read already.
        """
        if channel in self._channels:
            raise InvalidRequest(f"channel {channel!r} is read already")
        position = MsgPosition(channel, self._text(place), timestamp_filter)
        self._channels[channel] = _Channel(channel, place, position)
        if timestamp_filter > self._end_ts:
            self._end_ts = timestamp_filter
            for other in self._channels.values():
                if other.cut and other.cut <= timestamp_filter:
                    self._scan(other)

    def wanted(self) -> list[tuple[str, Any]]:
        """The channels to be read on before the next pack, also those left out, and the place from which to read each.

        Raises BufferFull once when something fed since the last pack did not fit. Nothing is lost: the next call tells where
        to read on, and a tick that then comes before what does not fit is taken.
        """
        waiting = [channel for channel in self._channels.values() if not channel.cut]
        if not all(channel.is_left_out for channel in waiting):
            self._drop_ahead()
        if any(channel.name in self._refused for channel in waiting):
            self._refused.clear()
            raise self._buffer_full(waiting)
        for channel in waiting:
            channel.is_lost = False
        return [(channel.name, channel.next_place) for channel in waiting]

    def feed(self, channel: str, msgs: Sequence[TsMsg], places: Sequence[Any], next_place: Any, size: int) -> None:
        """What was read of ``channel``: messages and ticks in the log's order, each with its place; ``size`` bytes in all.

        It follows on what was fed before; ``next_place`` follows on it, also when there is no message. What does not fit is
        left, for `wanted` to name its place again, and what is fed until then is left too. Raises InvalidRequest for a channel
        that was not added.
        """
        reading = self._named(channel)
        if reading.is_lost:
            return
        reading.next_place = next_place
        if not msgs:
            return
        each = -(-size // len(msgs))
        msgs, places, ends = list(msgs), list(places), [msg.end_ts for msg in msgs]
        start = 0
        for at in [index for index, msg in enumerate(msgs) if msg.type == _TICK]:
            self._append(reading, _Stretch(msgs[start:at], ends[start:at], places[start:at], each, ends[at], places[at]))
            start = at + 1
        if start < len(ends):
            self._append(reading, _Stretch(msgs[start:], ends[start:], places[start:], each))
        if not reading.cut:
            self._scan(reading)

    def removed(self, channel: str, gap: StreamGap) -> None:
        """Retention removed what was to be read next: the next pack reports it, and nothing more of the channel is filtered.

        For the ticks that told what was delivered may be gone. Where to read on is told by `feed`, also without messages.
        Raises InvalidRequest for a channel that was not added.
        """
        self._named(channel).filter = 0
        self._gaps.append(gap)

    def leave_out(self, channel: str) -> None:
        """Until it has a tick above the last pack's end, packs are made without the channel; it keeps position and filter.

        One that has such a tick is not left out. Raises InvalidRequest for a channel that was not added.
        """
        silent = self._named(channel)
        silent.is_left_out = not silent.cut

    def pack(self) -> MsgPack | None:
        """The next pack, or None while a channel that counts has no tick above the last one's end."""
        counting = [channel for channel in self._channels.values() if not channel.is_left_out]
        end_ts = min([channel.cut for channel in counting], default=0)
        if not end_ts:
            return None
        begin_ts, self._end_ts = self._end_ts, end_ts
        pack = MsgPack(begin_ts, end_ts, start_positions=self.positions, gaps=self._gaps)
        self._gaps = []
        encode = self._encode
        for channel in counting:
            if channel.earliest <= end_ts:
                self._take(channel, pack)
            place = channel.places[0] if channel.places else channel.cut_place
            channel.position = MsgPosition(channel.name, encode(place), end_ts)
        self._refused = {name for name in self._refused if self._room(self._channels[name], 1) < 1}
        for channel in counting:
            if channel.cut == end_ts:
                self._scan(channel)
        pack.end_positions = self.positions
        return pack

    def _named(self, name: str) -> _Channel:
        channel = self._channels.get(name)
        if channel is None:
            raise InvalidRequest(f"channel {name!r} is not read")
        return channel

    def _text(self, place: Any) -> str:
        return "" if place is None else self._encode(place)

    def _append(self, channel: _Channel, stretch: _Stretch) -> None:
        channel.ahead.append(stretch)
        self._ahead += len(stretch)
        self._ahead_bytes += stretch.each * len(stretch)

    def _take(self, channel: _Channel, pack: MsgPack) -> None:
        """Moves into the pack what the channel holds up to its end."""
        on_time = channel.earliest > pack.begin_ts
        size = channel.size
        msgs, ends = channel.take(pack.end_ts)
        self._held -= len(msgs)
        self._held_bytes -= size - channel.size
        if on_time:
            for msg in msgs:
                msg.late = False
        else:
            for msg, end in zip(msgs, ends, strict=True):
                msg.late = end <= pack.begin_ts
        pack.msgs += msgs

    def _scan(self, channel: _Channel) -> None:
        """Moves what lies behind the cut to the held ones, up to the next tick above the last pack's end: the new cut."""
        channel.cut = 0
        while channel.ahead:
            stretch = channel.ahead.popleft()
            self._ahead -= len(stretch)
            self._ahead_bytes -= stretch.each * len(stretch)
            if not self._hold(channel, stretch):
                return
            if stretch.tick >= channel.filter:
                channel.filter = 0
            if stretch.tick > self._end_ts:
                channel.cut, channel.cut_place = stretch.tick, stretch.tick_place
                channel.is_left_out = False
                return

    def _hold(self, channel: _Channel, stretch: _Stretch) -> bool:
        """Holds what of the stretch was not delivered before; False if not all of it fits: the rest is to be read again."""
        if channel.filter:
            kept = [index for index, end in enumerate(stretch.ends) if end > channel.filter]
            stretch.msgs = [stretch.msgs[index] for index in kept]
            stretch.ends = [stretch.ends[index] for index in kept]
            stretch.places = [stretch.places[index] for index in kept]
        count = len(stretch.ends)
        if not count:
            return True
        room = self._room(channel, stretch.each)
        if room < count:
            self._drop(channel, stretch.places[room])
            self._refused.add(channel.name)
            del stretch.msgs[room:], stretch.ends[room:], stretch.places[room:]
        if not room:
            return False
        channel.hold(stretch)
        self._held += len(stretch.ends)
        self._held_bytes += stretch.each * len(stretch.ends)
        return room >= count

    def _room(self, channel: _Channel, each: int) -> int:
        """How many more messages of ``each`` bytes the channel may hold."""
        number = len(self._channels)
        messages = max(self._messages_max - self._held, self._messages_max // number - len(channel.ends))
        size = max(self._bytes_max - self._held_bytes, self._bytes_max // number - channel.size)
        return max(min(messages, size // max(each, 1)), 0 if channel.ends else 1)

    def _drop(self, channel: _Channel, place: Any) -> None:
        """Forgets what was read ahead of the channel; it is to be read again from ``place``."""
        for stretch in channel.ahead:
            self._ahead -= len(stretch)
            self._ahead_bytes -= stretch.each * len(stretch)
        channel.ahead.clear()
        channel.next_place = place
        channel.is_lost = True

    def _drop_ahead(self) -> None:
        """Drops what was read ahead, of the channel with most of it first, until the rest fits."""
        if self._fits():
            return
        for channel in sorted(self._channels.values(), key=lambda channel: sum(map(len, channel.ahead)), reverse=True):
            if self._fits() or not channel.ahead:
                return
            first = channel.ahead[0]
            self._drop(channel, first.places[0] if first.places else first.tick_place)

    def _fits(self) -> bool:
        return self._held + self._ahead <= self._messages_max and self._held_bytes + self._ahead_bytes <= self._bytes_max

    def _buffer_full(self, waiting: list[_Channel]) -> BufferFull:
        fullest = max(
            self._channels.values(),
            key=lambda channel: max(len(channel.ends) / self._messages_max, channel.size / self._bytes_max),
        )
        silent = [repr(channel.name) for channel in waiting if not channel.is_left_out] or [repr(fullest.name)]
        names = ", ".join(silent[:_NAMED_MAX]) + (f" and {len(silent) - _NAMED_MAX} more" if len(silent) > _NAMED_MAX else "")
        return BufferFull(
            f"channel {fullest.name!r} holds {len(fullest.ends)} messages of {fullest.size} bytes, and all channels "
            f"{self._held} of {self._held_bytes}: the stream's buffer of {self._messages_max} messages and {self._bytes_max} "
            f"bytes is full, and no pack can be made before a tick above {self._end_ts} comes on {names}; send ticks there, "
            f"or give the stream a larger buffer, or a time-out that leaves silent channels out"
        )
