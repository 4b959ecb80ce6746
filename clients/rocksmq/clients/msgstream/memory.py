"""Message streams in memory, for tests: the same program without a broker.

    streams = MemBroker()
    channels = streams.create_channels(OwnerDescription("test"), 2)
    factory = MemMsgStreamFactory(streams)

Channels are lists of whatever the dispatcher makes of messages: the messages themselves, or bytes. Nothing is ever removed but
by `MemBroker.trim`, and nothing outlives the process.
"""

import secrets
import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from rocksmq.protocol.errors import ChannelNotFound, Conflict, ConnectionFailed, GroupNotFound, InvalidRequest, RocksMQError
from rocksmq.protocol.messages import Start
from rocksmq.protocol.names import checked_name

from ..deadline import SLICE_SECONDS, Deadline
from ..models import ChannelDescription, OwnerDescription
from .transport import Part, Received
from .types import MsgPosition, StreamGap


class _Group(NamedTuple):
    """Where a subscription stands on a channel. ``timestamp_filter`` is None before the first commit."""

    place: int
    timestamp_filter: int | None
    generation: int


class _Channel:
    """``payloads[i]`` is message ``begin + i``."""

    def __init__(self, owner: OwnerDescription | None) -> None:
        self.owner = owner
        self.begin = 1
        self.payloads: list[Any] = []
        self.groups: dict[str, _Group] = {}

    @property
    def end(self) -> int:
        return self.begin + len(self.payloads)


class MemBroker:
    """Channels in this process, shared by the streams of any number of factories; may be shared by threads."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
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
        prefix = f"{owner.role}-{secrets.token_hex(16)}"
        names = [checked_name("channel", f"{prefix}-{index}") for index in range(count)]
        for name in names:
            self.create_channel(name, owner=owner)
        return names

    def destroy_channels(self, names: Sequence[str]) -> None:
        """As `Client.destroy_channels`."""
        with self.changed:
            self.find(names)
            for name in names:
                self._channels.pop(name, None)
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
        self._generations: dict[str, int] = {}
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
            for name, channel in zip(channels, self._broker.find(channels), strict=True):
                place = _place_of(start, channel)
                channel.groups.setdefault(subscription, _Group(place, None, self._broker.new_generation()))
                self._generations[name] = 0
            self._subscription = subscription

    def take_over(self) -> Sequence[MsgPosition]:
        with self._changed:
            positions = list[MsgPosition]()
            for name in self._generations:
                channel, group = self._group(name)
                self._put(name, group.place, group.timestamp_filter)
                is_beginning = group.timestamp_filter is None and group.place <= channel.begin
                positions.append(
                    MsgPosition(name, "" if is_beginning else self.encode(group.place), group.timestamp_filter or 0)
                )
            return positions

    def seek(self, positions: Sequence[MsgPosition]) -> None:
        with self._changed:
            found = [(position, *self._held(position.channel_name)) for position in positions]
            for position, channel, _ in found:
                self._put(position.channel_name, min(self.decode(position.msg_id), channel.end), position.timestamp_filter)

    def commit(self, positions: Sequence[MsgPosition], deadline: Deadline | None = None) -> None:
        with self._changed:
            found = [(position, *self._held(position.channel_name)) for position in positions]
            for position, channel, group in found:
                moved = group._replace(place=self.decode(position.msg_id), timestamp_filter=position.timestamp_filter)
                if moved.place >= group.place:
                    channel.groups[self._subscription] = moved

    def unsubscribe(self) -> None:
        with self._changed:
            for channel, _ in [self._held(name) for name in self._generations]:
                del channel.groups[self._subscription]
            self._generations.clear()

    def _group(self, name: str) -> tuple[_Channel, _Group]:
        (channel,) = self._broker.find([name])
        if self._subscription not in channel.groups:
            raise GroupNotFound(f"channel {name!r} has no subscription {self._subscription!r}: it was removed")
        return channel, channel.groups[self._subscription]

    def _held(self, name: str) -> tuple[_Channel, _Group]:
        channel, group = self._group(name)
        if group.generation != self._generations[name]:
            raise Conflict(f"subscription {self._subscription!r} of {name!r} was taken over by another stream")
        return channel, group

    def _put(self, name: str, place: int, timestamp_filter: int | None) -> None:
        generation = self._generations[name] = self._broker.new_generation()
        self._broker.find([name])[0].groups[self._subscription] = _Group(place, timestamp_filter, generation)

    # -- reading -----------------------------------------------------------------

    def receive(
        self, wanted: Sequence[tuple[str, int]], max_messages: int, wait: Deadline, is_stopped: Callable[[], bool]
    ) -> Sequence[Received]:
        with self._changed:
            while True:
                if self._is_closed or is_stopped():
                    raise ConnectionFailed("the stream was closed while it waited")
                channels = self._broker.find([name for name, _ in wanted])
                ready = [
                    (name, place or 0, channel)
                    for (name, place), channel in zip(wanted, channels, strict=True)
                    if max(place or 0, channel.begin) < channel.end
                ]
                if ready or wait.is_over:
                    share = max(1, max_messages // max(1, len(ready)))
                    return [_read(name, place, channel, share) for name, place, channel in ready]
                self._changed.wait(min(wait.remaining, SLICE_SECONDS))

    def encode(self, place: int | None) -> str:
        return str(place) if place else ""

    def decode(self, msg_id: str) -> int:
        if msg_id and not (msg_id.isascii() and msg_id.isdigit()):
            raise InvalidRequest(f"{msg_id!r} is no message id of a stream in memory")
        return int(msg_id or 0)


def _read(name: str, place: int, channel: _Channel, share: int) -> Received:
    begin = max(place, channel.begin)
    gap = StreamGap(name, place, begin, begin - place) if 0 < place < begin else None
    payloads = channel.payloads[begin - channel.begin : begin - channel.begin + share]
    behind = begin + len(payloads)
    size = sum(len(payload) if isinstance(payload, bytes) else 1 for payload in payloads)
    return Received(name, payloads, range(begin, behind), behind, size, gap)


def _place_of(start: Start, channel: _Channel) -> int:
    if start == "latest":
        return channel.end
    if start == "earliest":
        return channel.begin
    if isinstance(start, int):
        return max(channel.begin, min(start, channel.end))
    raise InvalidRequest(f'streams in memory begin at "earliest", "latest" or an id, not at {start!r}')
