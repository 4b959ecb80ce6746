"""Message streams on a RocksMQ broker: many channels over one connection.

A subscription is a consumer group of the same name on each channel, its filter stands in the group's metadata. What concerns
all channels is one request, so it happens on all or none.
"""

import os
import re
import secrets
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from rocksmq.protocol.batch import pack_lengths, unpack_lengths
from rocksmq.protocol.columns import pack_numbers, unpack_numbers
from rocksmq.protocol.errors import ChannelNotFound, InvalidRequest, LimitExceeded, MessageTooLarge, ProtocolError
from rocksmq.protocol.messages import Start, pack_messages, start_of
from rocksmq.protocol.operations import (
    POLL_MS_MAX,
    CommitMany,
    FetchMany,
    ManyMessages,
    SeekMany,
    Subscribe,
    Unsubscribe,
)

from ..address import Address
from ..admin import channel_numbers
from ..credentials import Credentials
from ..deadline import Deadline
from ..delivery import Delivery, deliver
from ..forks import call_in_child
from ..identities import IdentityPool
from ..link import Link
from ..many import Cut, cut
from .transport import Part, Received
from .types import MsgPosition, StreamGap

_POSITION_MAX = (1 << 64) - 1
_MSG_ID = re.compile("[0-9]{0,20}")
_METADATA = re.compile(b"([0-9]{1,20})@([0-9]{1,20})")


class _Metadata(NamedTuple):
    """What a stream leaves with a position, as text: the filter, and the position that it is of.

    Whoever moves the subscription otherwise, a client's seek, a consumer or a power cut, leaves another position behind, of
    which the filter tells nothing.
    """

    timestamp_filter: int
    place: int

    @classmethod
    def of(cls, text: bytes, subscription: str, channel: str) -> "_Metadata":
        """Raises InvalidRequest for what no stream has left."""
        if not text:
            return cls(0, 0)  # no stream has committed there yet
        found = _METADATA.fullmatch(text)
        if found is None:
            raise InvalidRequest(f"group {subscription!r} of {channel!r} is no stream's subscription, by its metadata")
        return cls(int(found[1]), int(found[2]))


class RmqTransport:
    """As `Transport`."""

    def __init__(self, url: str | None = None, *, token: str | None = None, timeout: float | None = 10.0) -> None:
        """Connects. Raises ConnectionFailed, Timeout when no broker answers within ``timeout`` seconds."""
        address = Address.parse(url)
        self._timeout = timeout
        self._link = Link(address, Credentials.found(address, token=token), f"{socket.gethostname()}:{os.getpid()}")
        self._producers = IdentityPool(lambda: self._link.present_id)
        self._subscription = ""
        self._numbers: dict[str, int] = {}  # of channels, by name
        self._generations: dict[str, int] = {}  # of those that this stream has taken over
        self._offsets: dict[str, dict[int, int]] = {}  # by channel and place: how many messages were ever appended before it
        call_in_child(self._close_in_child)
        self._limits = self._link.connected(self._deadline()).server.limits

    def _deadline(self) -> Deadline:
        return Deadline(self._timeout)

    def _close_in_child(self) -> None:
        """In a forked child: the connection and the ids are the parent's."""
        self._link.begin_anew()
        self._link.close()

    def close(self) -> None:
        self._link.close()

    # -- sending -----------------------------------------------------------------

    def open_producers(self, channels: Sequence[str]) -> None:
        channel_numbers(self._link, channels, self._deadline())

    def parts(self, payloads: Sequence[Any], channels: Sequence[str]) -> Sequence[Part]:
        batch = pack_messages(payloads)
        try:
            batch.check(messages_max=self._limits["batch_messages_max"], payload_bytes_max=self._limits["payload_bytes_max"])
            batch.check_frame(self._limits["frame_bytes_max"])
        except (LimitExceeded, MessageTooLarge) as error:
            raise InvalidRequest(f"the part of the pack for {channels[0]!r} is too large: {error.message}") from error
        return [Delivery(channel, batch) for channel in channels]

    def send(self, parts: Sequence[Part]) -> None:
        deliver([part for part in parts if isinstance(part, Delivery)], self._link, self._producers, self._deadline())

    # -- the subscription --------------------------------------------------------

    def subscribe(self, channels: Sequence[str], subscription: str, start: Start) -> None:
        deadline = self._deadline()
        new = [channel for channel in channels if channel not in self._numbers]
        numbers = self._numbers | dict(zip(new, channel_numbers(self._link, new, deadline), strict=True))
        column = pack_numbers(numbers[channel] for channel in channels)
        self._link.call(Subscribe(subscription, column, *start_of(start), secrets.token_bytes(16)), deadline)
        self._subscription, self._numbers = subscription, {channel: numbers[channel] for channel in channels}

    def take_over(self, channels: Sequence[str]) -> Sequence[MsgPosition]:
        numbers = self._column(self._numbers, channels)
        request = SeekMany(self._subscription, numbers, None, None, None, None, secrets.token_bytes(16))
        return self._sought(request, channels)

    def seek(self, positions: Sequence[MsgPosition], request_id: bytes) -> Sequence[MsgPosition]:
        channels = [position.channel_name for position in positions]
        numbers, generations = self._column(self._numbers, channels), self._column(self._generations, channels)
        found = self._sought(
            SeekMany(self._subscription, numbers, generations, *self._columns(positions), request_id), channels
        )
        # One that retention has passed stays as it is, so that the gap is told; beyond the end there is nothing to filter.
        return [
            asked if self.decode(asked.msg_id) <= self.decode(answered.msg_id) else answered
            for asked, answered in zip(positions, found, strict=True)
        ]

    def _sought(self, request: SeekMany, channels: Sequence[str]) -> Sequence[MsgPosition]:
        reply = self._call(request)
        places, offsets, generations = map(unpack_numbers, (reply.positions, reply.offsets, reply.generations))
        lengths = unpack_lengths(reply.metadata_lengths)
        is_whole = len(channels) == len(places) == len(offsets) == len(generations) == len(lengths)
        if not is_whole or sum(lengths) != len(reply.metadata):
            raise ProtocolError("a reply to SEEK_MANY does not fit its request")
        self._generations |= zip(channels, generations, strict=True)
        self._offsets |= {channel: {place: offset} for channel, place, offset in zip(channels, places, offsets, strict=True)}
        begin, positions = 0, list[MsgPosition]()
        for channel, place, length in zip(channels, places, lengths, strict=True):
            text = bytes(reply.metadata[begin : begin + length])
            begin += length
            told = _Metadata.of(text, self._subscription, channel)
            positions.append(MsgPosition(channel, self.encode(place), told.timestamp_filter if told.place == place else 0))
        return positions

    def commit(self, positions: Sequence[MsgPosition], deadline: Deadline | None = None) -> None:
        channels = [position.channel_name for position in positions]
        numbers, generations = self._column(self._numbers, channels), self._column(self._generations, channels)
        self._call(CommitMany(self._subscription, numbers, generations, *self._columns(positions)), deadline)

    def unsubscribe(self, channels: Sequence[str]) -> None:
        numbers, generations = self._column(self._numbers, channels), self._column(self._generations, channels)
        self._call(Unsubscribe(self._subscription, numbers, generations))
        self._numbers, self._generations = {}, {}

    def _call(self, request: Any, deadline: Deadline | None = None) -> Any:
        try:
            return self._link.call(request, deadline or self._deadline())
        except ChannelNotFound as error:  # the broker knows no name any more
            gone = [name for name, number in self._numbers.items() if str(number) in error.message]
            raise ChannelNotFound(f"channel {', '.join(map(repr, gone))} is gone: {error.message}") from error

    def _columns(self, positions: Sequence[MsgPosition]) -> tuple[bytes, bytes, bytes]:
        """Positions, and metadata with its lengths."""
        places = [self.decode(position.msg_id) for position in positions]
        texts = [b"%d@%d" % (position.timestamp_filter, place) for position, place in zip(positions, places, strict=True)]
        return pack_numbers(places), pack_lengths([len(text) for text in texts]), b"".join(texts)

    @staticmethod
    def _column(values: Mapping[str, int], channels: Sequence[str]) -> bytes:
        return pack_numbers(values[channel] for channel in channels)

    # -- reading -----------------------------------------------------------------

    def receive(
        self,
        wanted: Sequence[tuple[str, int]],
        max_messages: int,
        max_bytes: int,
        wait: Deadline,
        is_stopped: Callable[[], bool],
    ) -> Sequence[Received]:
        numbers = self._numbers
        starts = pack_numbers(number for channel, place in wanted for number in (numbers[channel], place or 0))
        size, poll = min(max_bytes, self._limits["consume_bytes_max"]), wait.at_most(POLL_MS_MAX / 1000)
        deadline = Deadline(None if self._timeout is None else poll.remaining + self._timeout)

        def send() -> ManyMessages:
            self._link.connected(deadline, is_stopped)  # before the wait is told, for that may take some of it
            request = FetchMany(starts, max_messages, size, poll.milliseconds)
            reply: ManyMessages = self._link.begin(request, deadline, is_stopped).reply(deadline, is_stopped)
            return reply

        found: list[Received] = []
        whole, cuts = cut(self._link.retried(send, deadline, is_stopped), len(wanted))
        for part in cuts:
            channel, place = wanted[part.channel]
            payloads, ids = whole.payloads[part.begin : part.end], whole.ids[part.begin : part.end]
            gap = self._gap(channel, place or 0, part, ids[0] if payloads else part.next_place)
            found.append(Received(channel, payloads, ids, part.next_place, sum(map(len, payloads)), gap))
        return found

    def _gap(self, channel: str, place: int, part: Cut, end: int) -> StreamGap | None:
        """What was removed before ``end``: counted here where it is known how many messages lie before ``place``."""
        offsets = self._offsets.get(channel, {})
        # An interrupt may have the same be read again; 0 is the beginning, of which the broker tells no gap.
        kept = {known: offset for known, offset in offsets.items() if known in (0, place)}
        self._offsets[channel] = kept | {part.next_place: part.next_offset}
        if place not in offsets:
            return None if part.gap is None else StreamGap(channel, *part.gap)
        removed = part.next_offset - (part.end - part.begin) - offsets[place]
        return StreamGap(channel, place, end, removed) if removed > 0 else None

    def encode(self, place: int | None) -> str:
        return str(place) if place else ""

    def decode(self, msg_id: str) -> int:
        if not isinstance(msg_id, str) or not _MSG_ID.fullmatch(msg_id) or int(msg_id or 0) > _POSITION_MAX:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidRequest(f"{msg_id!r:.50} is no message id of RocksMQ: was the position stored by another transport?")
        return int(msg_id or 0)
