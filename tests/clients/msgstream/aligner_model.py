"""What a time-tick stream has to deliver, straight from its definition (contract §7): sets over logs, of any speed.

Nothing of the aligner is used here, and none of its ideas: no buffers, no filters while reading, no state but what was
delivered. A message is named by where it stands in its channel's log.
"""

import copy
from typing import NamedTuple


class Entry(NamedTuple):
    """One entry of a log: a tick of value ``end_ts``, or a message."""

    is_tick: bool
    begin_ts: int
    end_ts: int


class ModelPack(NamedTuple):
    """``msgs``: (channel, place, is late). ``positions``: (channel, place or None for the beginning, filter)."""

    begin_ts: int
    end_ts: int
    msgs: list[tuple[str, int, bool]]
    positions: list[tuple[str, int | None, int]]


class ModelChannel:
    """What was read of one channel: a log, perhaps with holes where retention removed something unread."""

    def __init__(self, place: int | None, timestamp_filter: int) -> None:
        self.log: dict[int, Entry] = {}  # in rising order of places
        self.position: tuple[int | None, int] = (place, timestamp_filter)
        self.begun_at = self.read_to = place or 0
        self.begun_with = timestamp_filter
        self.filtered_to: int | None = None  # behind a gap nothing is filtered
        self.delivered: set[int] = set()
        self.is_left_out = False

    def first_tick(self, least: int) -> int | None:
        """The place of the first tick at or above ``least``."""
        return next((place for place, entry in self.log.items() if entry.is_tick and entry.end_ts >= least), None)

    def messages_before(self, cut: int | None) -> list[int]:
        return [place for place, entry in self.log.items() if not entry.is_tick and (cut is None or place < cut)]

    def delivered_before_it_was_added(self) -> set[int]:
        if not self.begun_with:
            return set()
        return {
            place
            for place in self.messages_before(self.first_tick(self.begun_with))
            if self.log[place].end_ts <= self.begun_with and (self.filtered_to is None or place < self.filtered_to)
        }

    def undelivered(self, cut: int | None) -> list[int]:
        gone = self.delivered | self.delivered_before_it_was_added()
        return [place for place in self.messages_before(cut) if place not in gone]

    def forget_from(self, place: int) -> None:
        """It was not kept, and will be read again."""
        self.log = {at: entry for at, entry in self.log.items() if at < place}
        self.read_to = place


class Model:
    """The definition."""

    def __init__(self) -> None:
        self.channels: dict[str, ModelChannel] = {}
        self.end_ts = 0

    def add(self, name: str, place: int | None, timestamp_filter: int) -> None:
        self.channels[name] = ModelChannel(place, timestamp_filter)
        self.end_ts = max(self.end_ts, timestamp_filter)

    def read(self, name: str, place: int, entries: list[Entry]) -> None:
        channel = self.channels[name]
        assert place == channel.read_to, "it is read from where it was read to"
        channel.log |= dict(enumerate(entries, place))
        channel.read_to = place + len(entries)

    def let_in(self) -> None:
        """Channels that were left out and have a tick now."""
        for channel in self.channels.values():
            channel.is_left_out &= channel.first_tick(self.end_ts + 1) is None

    def removed(self, name: str, to: int) -> None:
        """All before ``to`` that was not read is gone, and so is the knowledge of what behind it was delivered."""
        channel = self.channels[name]
        channel.read_to = to
        channel.filtered_to = to if channel.filtered_to is None else channel.filtered_to
        channel.delivered = {place for place in channel.delivered if place < to}

    def leave_out(self, name: str) -> None:
        channel = self.channels[name]
        channel.is_left_out = channel.first_tick(self.end_ts + 1) is None

    def restarted(self) -> "Model":
        """Another that reads again from where this one's channels stand, and knows what had been delivered there."""
        other = copy.deepcopy(self)
        for channel in other.channels.values():
            place, _ = channel.position
            channel.forget_from(channel.begun_at if place is None else place)
            channel.filtered_to = None
            channel.is_left_out = False
        return other

    def pack(self) -> ModelPack | None:
        begin_ts = self.end_ts
        counting = {name: channel for name, channel in self.channels.items() if not channel.is_left_out}
        nexts = [channel.first_tick(begin_ts + 1) for channel in counting.values()]
        if not nexts or None in nexts:
            return None
        end_ts = min(
            channel.log[tick].end_ts for channel, tick in zip(counting.values(), nexts, strict=True) if tick is not None
        )
        self.end_ts = end_ts
        msgs: list[tuple[str, int, bool]] = []
        for name, channel in counting.items():
            cut = channel.first_tick(end_ts)
            given = [place for place in channel.undelivered(cut) if channel.log[place].end_ts <= end_ts]
            msgs += [(name, place, channel.log[place].end_ts <= begin_ts) for place in given]
            channel.delivered |= set(given)
            left = channel.undelivered(cut)
            channel.position = (left[0] if left else cut, end_ts)
        return ModelPack(begin_ts, end_ts, msgs, self.positions())

    def stalled(self) -> list[str]:
        nexts = {name: channel.first_tick(self.end_ts + 1) for name, channel in self.channels.items()}
        return [
            name
            for name, tick in nexts.items()
            if tick is None and (any(other is not None for other in nexts.values()) or self.channels[name].is_left_out)
        ]

    def held(self) -> list[int]:
        """How many messages of each channel are read, before its next tick, and undelivered."""
        return [len(channel.undelivered(channel.first_tick(self.end_ts + 1))) for channel in self.channels.values()]

    def positions(self) -> list[tuple[str, int | None, int]]:
        return [(name, *channel.position) for name, channel in self.channels.items()]
