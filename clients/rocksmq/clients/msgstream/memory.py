"""Message streams in memory, for tests: the same program without a broker.

    streams = MemBroker()
    channels = streams.create_channels(OwnerDescription("test"), 2)
    factory = MemMsgStreamFactory(streams)

Channels are lists of whatever the dispatcher makes of messages: the messages themselves, or bytes. Nothing is ever removed but
by `MemBroker.trim`, and nothing outlives the process.
"""

import re
import secrets
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from rocksmq.protocol.errors import ChannelNotFound, Conflict, ConnectionFailed, GroupNotFound, InvalidRequest, RocksMQError
from rocksmq.protocol.messages import Start
from rocksmq.protocol.names import checked_name

from ..deadline import SLICE_SECONDS, Deadline
from ..models import ChannelDescription, OwnerDescription
from .transport import Part, Received
from .types import MsgPosition, StreamGap

_MSG_ID = re.compile("[0-9]{0,20}")


class _Group(NamedTuple):
    """Where a subscription stands on a channel. ``timestamp_filter`` is None before the first commit."""

    place: int
    timestamp_filter: int | None
    generation: int
    seek_id: bytes = b""  # of the seek that began the generation


class _Channel:
    """``payloads[i]`` is message ``begin + i``."""

    def __init__(self, owner: OwnerDescription | None) -> None:
        self.owner = owner
        self.begin = 1
        self.payloads: list[Any] = []

    @property
    def end(self) -> int:
        return self.begin + len(self.payloads)


class MemBroker:
    """Channels in this process, shared by the streams of any number of factories; may be shared by threads."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.groups: dict[tuple[str, str], _Group] = {}  # by subscription and channel; replaced as a whole, never changed
        self._channels: dict[str, _Channel] = {}
        self._generation = 0

    def create_channel(self, channel: str, *, owner: OwnerDescription | None = None) -> bool:
        """As `Client.create_channel`."""
        checked_name("channel", channel)
        with self.changed:
            is_new = channel not in self._channels
            self._channels.setdefault(channel, _Channel(owner))
            return is_new

    def create_channels(self, owner: OwnerDescription, count: int) -> list[str]:
        """As `Client.create_channels`."""
        if type(count) is not int or count < 1:
            raise InvalidRequest(f"count {count!r} is not allowed: 1 at least")
        prefix = f"{owner.role}-{secrets.token_hex(16)}"
        names = [checked_name("channel", f"{prefix}-{index}") for index in range(count)]
        for name in names:
            self.create_channel(name, owner=owner)
        return names

    def destroy_channels(self, names: Sequence[str]) -> None:
        """As `Client.destroy_channels`."""
        if isinstance(names, str):
            raise InvalidRequest(f"names are a list: [{names!r}]")
        with self.changed:
            self.find(names)
            for name in names:
                self._channels.pop(name, None)
            self.groups = {key: group for key, group in self.groups.items() if key[1] in self._channels}
            self.changed.notify_all()

    def describe_channels(self, names: Sequence[str]) -> list[ChannelDescription]:
        """As `Client.describe_channels`."""
        with self.changed:
            return [ChannelDescription(name, found.owner) for name, found in zip(names, self.find(names), strict=True)]

    def trim(self, channel: str, message_count: int) -> None:
        """Remove the oldest messages, as retention does."""
        with self.changed:
            (found,) = self.find([channel])
            taken = min(message_count, len(found.payloads))
            del found.payloads[:taken]
            found.begin += taken
            self.changed.notify_all()  # who waits behind them is told of a gap

    def find(self, names: Sequence[str]) -> list[_Channel]:
        """The channels. Raises ChannelNotFound with all that do not exist. By the holder of ``changed``."""
        if missing := [checked_name("channel", name) for name in names if name not in self._channels]:
            raise ChannelNotFound(f"there are no channels {', '.join(map(repr, missing))}: check the names, or create them")
        return [self._channels[name] for name in names]

    def new_generation(self) -> int:
        """One that no group has had. By the holder of ``changed``."""
        self._generation += 1
        return self._generation


class MemPart:
    """As `Part`."""

    def __init__(self, channel: str, payloads: Sequence[Any]) -> None:
        self.channel = channel
        self.payloads = payloads
        self.ids: range | None = None
        self.error: RocksMQError | None = None


class MemTransport:
    """As `Transport`. A place is the number of a message in its channel, from 1; 0 is the beginning."""

    def __init__(self, broker: MemBroker) -> None:
        self._broker = broker
        self._changed = broker.changed
        self._subscription = ""
        self._channels: dict[str, _Channel] = {}
        self._generations: dict[str, int] = {}
        self._begins: dict[str, int] = {}  # where the beginning of a channel was when its subscription was told to stand there
        self._is_closed = False

    def close(self) -> None:
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    # -- sending -----------------------------------------------------------------

    def open_producers(self, channels: Sequence[str]) -> None:
        with self._changed:
            self._broker.find(channels)

    def parts(self, payloads: Sequence[Any], channels: Sequence[str]) -> Sequence[Part]:
        return [MemPart(channel, payloads) for channel in channels]

    def send(self, parts: Sequence[Part]) -> None:
        with self._changed:
            for part in parts:
                if isinstance(part, MemPart):
                    self._append(part)
            self._changed.notify_all()

    def _append(self, part: MemPart) -> None:
        try:
            (channel,) = self._broker.find([part.channel])
        except RocksMQError as error:
            part.error = error
            return
        part.ids, part.error = range(channel.end, channel.end + len(part.payloads)), None
        channel.payloads += part.payloads

    # -- the subscription --------------------------------------------------------

    def subscribe(self, channels: Sequence[str], subscription: str, start: Start) -> None:
        with self._changed:
            known = self._channels.keys() & set(channels)
            self._known(known)
            found = self._channels | dict(zip(channels, self._broker.find(channels), strict=True))
            new = {
                (subscription, name): _Group(_place_of(start, found[name]), None, self._broker.new_generation())
                for name in channels
            }
            self._broker.groups = new | self._broker.groups
            self._subscription, self._channels = subscription, {name: found[name] for name in channels}

    def take_over(self, channels: Sequence[str]) -> Sequence[MsgPosition]:
        with self._changed:
            held = {name: self._group(name) for name in channels}
            self._put({name: (group.place, group.timestamp_filter) for name, (_, group) in held.items()})
            self._begins |= {name: group.place for name, (_, group) in held.items()}
            return [_position_of(name, *found) for name, found in held.items()]

    def seek(self, positions: Sequence[MsgPosition], request_id: bytes) -> Sequence[MsgPosition]:
        with self._changed:
            groups = {position.channel_name: self._group(position.channel_name)[1] for position in positions}
            if all(group.seek_id == request_id for group in groups.values()):
                self._generations |= {name: group.generation for name, group in groups.items()}
            ends = {position.channel_name: self._held(position.channel_name)[0].end for position in positions}
            sought = [
                position._replace(msg_id=self.encode(min(self.decode(position.msg_id), ends[position.channel_name])))
                for position in positions
            ]
            places = {position.channel_name: (self.decode(position.msg_id), position.timestamp_filter) for position in sought}
            self._put(places, request_id)
            self._begins = {name: begin for name, begin in self._begins.items() if name not in places}
            return sought

    def commit(self, positions: Sequence[MsgPosition], deadline: Deadline | None = None) -> None:
        with self._changed:
            moved: dict[tuple[str, str], _Group] = {}
            for position in positions:
                channel, group = self._held(position.channel_name)
                place = self.decode(position.msg_id)
                if place > channel.end:
                    raise InvalidRequest(f"position {place} lies beyond the end of {position.channel_name!r}")
                if place >= group.place:
                    moved[self._subscription, position.channel_name] = group._replace(
                        place=place, timestamp_filter=position.timestamp_filter
                    )
            self._broker.groups = self._broker.groups | moved

    def unsubscribe(self, channels: Sequence[str]) -> None:
        with self._changed:
            there = [name for name in channels if (self._subscription, name) in self._broker.groups]
            gone = {(self._subscription, name) for name in there if self._held(name)}
            self._broker.groups = {key: group for key, group in self._broker.groups.items() if key not in gone}
            self._channels, self._generations = {}, {}

    def _known(self, names: Iterable[str]) -> list[_Channel]:
        """The channels as they were when they were subscribed. Raises ChannelNotFound for one that was made anew since."""
        names = list(names)
        for name, found in zip(names, self._broker.find(names), strict=True):
            if found is not self._channels[name]:
                raise ChannelNotFound(f"channel {name!r} was destroyed, and made anew: subscribe to it with another stream")
        return [self._channels[name] for name in names]

    def _group(self, name: str) -> tuple[_Channel, _Group]:
        (channel,) = self._known([name])
        group = self._broker.groups.get((self._subscription, name))
        if group is None:
            raise GroupNotFound(f"channel {name!r} has no subscription {self._subscription!r}: it was removed")
        return channel, group

    def _held(self, name: str) -> tuple[_Channel, _Group]:
        channel, group = self._group(name)
        if group.generation != self._generations[name]:
            raise Conflict(f"subscription {self._subscription!r} of {name!r} was taken over by another stream")
        return channel, group

    def _put(self, places: Mapping[str, tuple[int, int | None]], seek_id: bytes = b"") -> None:
        """Each of the channels' groups there, in a new generation."""
        generation = self._broker.new_generation()
        put = {(self._subscription, name): _Group(*place, generation, seek_id) for name, place in places.items()}
        self._broker.groups = self._broker.groups | put
        self._generations |= dict.fromkeys(places, generation)

    # -- reading -----------------------------------------------------------------

    def receive(
        self,
        wanted: Sequence[tuple[str, int]],
        max_messages: int,
        max_bytes: int,
        wait: Deadline,
        is_stopped: Callable[[], bool],
    ) -> Sequence[Received]:
        with self._changed:
            while True:
                if self._is_closed or is_stopped():
                    raise ConnectionFailed("the stream was closed while it waited")
                channels = self._known([name for name, _ in wanted])
                ready = [
                    (name, place or 0, channel)
                    for (name, place), channel in zip(wanted, channels, strict=True)
                    if max(place or 0, channel.begin) < channel.end or self._stood(name, place or 0, channel) < channel.begin
                ][:max_messages]
                if ready or wait.is_over:
                    share = max_messages // max(1, len(ready))
                    return [self._read(name, place, channel, share) for name, place, channel in ready]
                self._changed.wait(min(wait.remaining, SLICE_SECONDS))

    def _stood(self, name: str, place: int, channel: _Channel) -> int:
        """Which message ``place`` means, or meant when it was still there."""
        return place or self._begins.get(name, channel.begin)

    def _read(self, name: str, place: int, channel: _Channel, share: int) -> Received:
        begin = max(place, channel.begin)
        removed = begin - self._stood(name, place, channel)
        gap = StreamGap(name, place, begin, removed) if removed > 0 else None
        payloads = channel.payloads[begin - channel.begin : begin - channel.begin + share]
        behind = begin + len(payloads)
        size = sum(len(payload) if isinstance(payload, bytes) else 1 for payload in payloads)
        return Received(name, payloads, range(begin, behind), behind, size, gap)

    def encode(self, place: int | None) -> str:
        return str(place) if place else ""

    def decode(self, msg_id: str) -> int:
        if not isinstance(msg_id, str) or not _MSG_ID.fullmatch(msg_id):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidRequest(f"{msg_id!r:.50} is no message id of a stream in memory")
        return int(msg_id or 0)


def _position_of(name: str, channel: _Channel, group: _Group) -> MsgPosition:
    is_beginning = group.timestamp_filter is None and group.place <= channel.begin
    return MsgPosition(name, "" if is_beginning else str(group.place), group.timestamp_filter or 0)


def _place_of(start: Start, channel: _Channel) -> int:
    if start == "latest":
        return channel.end
    if start == "earliest":
        return channel.begin
    if isinstance(start, int):
        return max(channel.begin, min(start, channel.end))
    raise InvalidRequest(f'streams in memory begin at "earliest", "latest" or an id, not at {start!r}')
