"""Packs as readers of `streams` write them down, and those that follow from the logs: straight from the definition.

A time E and a channel: *cut* is the first tick at or above E. The pack behind E ends at the least, over all channels, of the
first ticks above E; it has what stands before the cut at its end, ends by then, and was in no pack before.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from rocksmq.clients.msgstream import MsgPack, MsgPosition, TimeTickMsg, TsMsg

from .streams_content import digest


class Entry(NamedTuple):
    """A message where it stands in a channel's log."""

    place: int
    id: int
    is_tick: bool
    end_ts: int
    digest: str

    @classmethod
    def of(cls, place: int, msg: TsMsg) -> "Entry":
        return cls(place, msg.id, isinstance(msg, TimeTickMsg), msg.end_ts, digest(msg))


Logs = Mapping[str, Sequence[Entry]]


class Read(NamedTuple):
    """A message as it was delivered."""

    place: int
    digest: str
    is_late: bool


class Pack(NamedTuple):
    """``msgs``: in order, by channel. ``starts``, ``ends``: positions, by channel."""

    begin_ts: int
    end_ts: int
    msgs: dict[str, list[Read]]
    starts: dict[str, MsgPosition]
    ends: dict[str, MsgPosition]

    @classmethod
    def of(cls, pack: MsgPack) -> "Pack":
        msgs: dict[str, list[Read]] = {}
        for msg in pack.msgs:
            position = msg.position
            assert position is not None, "it was read"
            msgs.setdefault(position.channel_name, []).append(Read(int(position.msg_id), digest(msg), msg.late))
        assert not pack.gaps, f"nothing was removed: {pack.gaps}"
        return cls(pack.begin_ts, pack.end_ts, msgs, _by_channel(pack.start_positions), _by_channel(pack.end_positions))

    def json(self) -> Any:
        return [self.begin_ts, self.end_ts, self.msgs, list(self.starts.values()), list(self.ends.values())]

    @classmethod
    def of_json(cls, value: Any) -> "Pack":
        begin_ts, end_ts, msgs, starts, ends = value
        read = {str(channel): [Read(*fields) for fields in listed] for channel, listed in msgs.items()}
        return cls(
            begin_ts, end_ts, read, _by_channel([MsgPosition(*p) for p in starts]), _by_channel([MsgPosition(*p) for p in ends])
        )

    def __str__(self) -> str:
        return f"pack {self.begin_ts} to {self.end_ts}"

    @property
    def msg_count(self) -> int:
        return sum(map(len, self.msgs.values()))

    @property
    def late_count(self) -> int:
        return sum(read.is_late for listed in self.msgs.values() for read in listed)


class _Channel:
    """One log, and how far packs have got in it."""

    def __init__(self, log: Sequence[Entry]) -> None:
        self._log = log
        self._next = 0  # index of the first tick above the last pack's end
        self.undelivered: list[Entry] = []
        self._reached = 0  # what is before this index is undelivered, or was delivered

    def next_tick(self, end_ts: int) -> int | None:
        """The first above ``end_ts``, which never falls."""
        log = self._log
        while self._next < len(log) and not (log[self._next].is_tick and log[self._next].end_ts > end_ts):
            self._next += 1
        return log[self._next].end_ts if self._next < len(log) else None

    def take(self, end_ts: int) -> tuple[list[Entry], int]:
        """What a pack that ends then has of it; the place to read on."""
        log = self._log
        while not (log[self._reached].is_tick and log[self._reached].end_ts >= end_ts):
            if not log[self._reached].is_tick:
                self.undelivered.append(log[self._reached])
            self._reached += 1
        taken = [entry for entry in self.undelivered if entry.end_ts <= end_ts]
        self.undelivered = [entry for entry in self.undelivered if entry.end_ts > end_ts]
        return taken, self.undelivered[0].place if self.undelivered else log[self._reached].place


def packs_of(logs: Logs) -> list[Pack]:
    """All packs of a time-tick stream from the beginning on."""
    channels = {name: _Channel(log) for name, log in logs.items()}
    packs: list[Pack] = []
    begin_ts, starts = 0, {name: MsgPosition(name) for name in logs}
    while True:
        nexts = [channel.next_tick(begin_ts) for channel in channels.values()]
        ticks = [tick for tick in nexts if tick is not None]
        if len(ticks) < len(nexts):
            return packs
        end_ts = min(ticks)
        msgs: dict[str, list[Read]] = {}
        ends: dict[str, MsgPosition] = {}
        for name, channel in channels.items():
            taken, place = channel.take(end_ts)
            ends[name] = MsgPosition(name, str(place), end_ts)
            if taken:
                msgs[name] = [Read(entry.place, entry.digest, entry.end_ts <= begin_ts) for entry in taken]
        packs.append(Pack(begin_ts, end_ts, msgs, starts, ends))
        begin_ts, starts = end_ts, ends


def _by_channel(positions: Sequence[MsgPosition]) -> dict[str, MsgPosition]:
    found = {position.channel_name: position for position in positions}
    assert len(found) == len(positions), f"a channel has two positions: {positions}"
    return found
