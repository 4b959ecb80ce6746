"""Streams that only look: they read as any other, but nobody keeps a subscription, and nothing moves or stays behind.

Where such a stream stands is known here alone. Messages of a type that nobody registered are delivered as `ForeignMsg`.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rocksmq.protocol.messages import Start, start_of

from ..admin import channel_numbers
from ..deadline import Deadline
from ..pulsar import SCHEMES
from ..reading import fetch
from .dispatch import ProtoUDFactory, UnknownMsgType, UnmarshalDispatcher
from .header import Header, header_of, type_of
from .rmq import RmqTransport
from .stream import MsgStream, StreamOptions
from .transport import Place, Transport
from .tt_stream import TtMsgStream
from .types import MsgPosition, TsMsg

_FIRST_BYTES_MAX = 1  # a fetch gives one message however large: it is asked for its id


class ForeignMsg(TsMsg):
    """A message of a type that is not known here, as far as its header tells."""

    __slots__ = ("msg_type",)
    type = 0  # none that a payload has; ``msg_type`` is its own

    def __init__(self, header: Header) -> None:
        super().__init__(header.id, header.begin_ts, header.end_ts, ())
        self.msg_type = header.type


class LookingDispatcher(UnmarshalDispatcher):
    """As that of `ProtoUDFactory`, for reading."""

    def __init__(self) -> None:
        """Raises ImportError where protobuf is missing, and says what to install."""
        super().__init__()
        self._known = ProtoUDFactory().new_unmarshal_dispatcher()

    def marshal(self, msg: TsMsg) -> bytes:
        """Never: such a stream sends nothing."""
        raise NotImplementedError("this stream only looks")

    def header_of(self, payload: bytes) -> Header:
        """Of any type. Raises Undecodable."""
        return header_of(payload)

    def read(self, payload: bytes) -> TsMsg:
        """The message, or what its header tells of it. Raises Undecodable."""
        return self.unmarshal(payload, type_of(payload))

    def unmarshal(self, payload: bytes, msg_type: int) -> TsMsg:
        """As `read`, for a type that is known to be its own."""
        try:
            return self._known.unmarshal(payload, msg_type)
        except UnknownMsgType:
            return ForeignMsg(header_of(payload))


class Standing:
    """What moves the subscription of a `Transport`, where only this object knows of it. ``_stands``: positions by channel."""

    _stands: dict[str, MsgPosition]

    def take_over(self, channels: Sequence[str]) -> Sequence[MsgPosition]:
        """Where it stands; there is nobody to be fenced."""
        return [self._stands[channel] for channel in channels]

    def seek(self, positions: Sequence[MsgPosition], request_id: bytes) -> Sequence[MsgPosition]:
        """Stand there."""
        self.commit(positions)
        return positions

    def commit(self, positions: Sequence[MsgPosition], deadline: Deadline | None = None) -> None:
        """Stand there."""
        self._stands |= {position.channel_name: position for position in positions}

    def unsubscribe(self, channels: Sequence[str]) -> None:
        """Stand nowhere."""
        self._stands = {}


class LookingTransport(Standing, RmqTransport):
    """As `RmqTransport`, with a subscription that only this object knows of."""

    def __init__(self, url: str | None = None, *, token: str | None = None, timeout: float | None = 10.0) -> None:
        super().__init__(url, token=token, timeout=timeout)
        self._stands = {}

    def subscribe(self, channels: Sequence[str], subscription: str, start: Start) -> None:
        """Find the channels, and where in them ``start`` is. Raises ChannelNotFound with all that do not exist."""
        deadline = self._deadline()
        numbers = dict(zip(channels, channel_numbers(self._link, channels, deadline), strict=True))
        stands = {name: MsgPosition(name, self.encode(self._place_of(name, start, deadline))) for name in channels}
        self._numbers, self._stands = numbers, stands | self._stands

    def _place_of(self, channel: str, start: Start, deadline: Deadline) -> int:
        if start == "earliest":
            return 0
        found = fetch(self._link, channel, start_of(start), 1, _FIRST_BYTES_MAX, Deadline(0.0), deadline)
        place = found.ids[0] if found else found.next_position
        if found.next_offset is not None:
            self._offsets[channel] = {place: found.next_offset - len(found)}
        return place


class LookingStream(MsgStream):
    """A plain stream that only looks. ``skipped``: undecodable messages by channel; who shows them may clear it."""

    def __init__(self, transport: Transport, dispatcher: LookingDispatcher, options: StreamOptions) -> None:
        super().__init__(transport, dispatcher, options)
        self.skipped: Counter[str] = Counter()

    def _skip(self, channel: str, place: Place, error: Exception) -> None:
        self._undecodable += 1
        self.skipped[channel] += 1


class LookingTtStream(LookingStream, TtMsgStream):
    """A time-tick stream that only looks."""


def looking_stream(
    url: str | None,
    channels: Sequence[str],
    start: Start,
    *,
    is_tt: bool,
    timeout: float | None,
    of_pulsar: Mapping[str, Any] | None = None,
    **options: Any,
) -> LookingStream:
    """A started stream over ``channels`` from ``start`` on, time-tick or plain; ``options`` are those of `StreamOptions`.

    ``of_pulsar``: ``token``, ``ca`` and ``topic_template`` of `PulsarTransport`, for an address of Pulsar. Raises ImportError
    where protobuf or Pulsar's client is missing, ConnectionFailed, Timeout, ChannelNotFound, InvalidRequest.
    """
    dispatcher, wanted = LookingDispatcher(), StreamOptions(**options)
    kind = LookingTtStream if is_tt else LookingStream
    stream = kind(_transport(url, timeout, of_pulsar or {}), dispatcher, wanted)
    try:
        stream.as_consumer(channels, "looking", start)
        stream.start()
    except BaseException:
        stream.close()
        raise
    return stream


def _transport(url: str | None, timeout: float | None, of_pulsar: Mapping[str, Any]) -> Transport:
    if url is None or not url.startswith(SCHEMES):
        return LookingTransport(url, timeout=timeout)
    from ..pulsar.looking import LookingPulsarTransport  # only here: it needs Pulsar's client

    return LookingPulsarTransport(url, timeout=timeout, **of_pulsar)
