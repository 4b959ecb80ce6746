"""What a message stream is carried by: channels to append to, and to read from at places of their own.

A *place* is the transport's name for where a message stands in its channel, given back to it as it came; `encode` and
`decode` turn it into the text of a `MsgPosition` and back. Whatever fails raises a RocksMQError. `receive` is called by one
thread at a time, `send` by any, `close` at any time. There are three: `rmq`, `memory`, and `rocksmq.clients.pulsar.transport`.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias

from rocksmq.protocol.errors import RocksMQError
from rocksmq.protocol.messages import Start

from ..deadline import Deadline
from .types import MsgPosition, StreamGap

Place: TypeAlias = Any


class Received(NamedTuple):
    """What was read of a channel, in order: each message with its place, and the place behind the last; ``size`` in bytes."""

    channel: str
    payloads: Sequence[Any]
    places: Sequence[Place]
    next_place: Place
    size: int
    gap: StreamGap | None = None


class Part(Protocol):
    """What one channel is to get of a pack, as one atomic batch: `Transport.send` sets ``ids``, or ``error``."""

    @property
    def channel(self) -> str:
        """Whose part it is."""
        ...

    @property
    def ids(self) -> range | None:
        """Of its messages, once they are stored."""
        ...

    @property
    def error(self) -> RocksMQError | None:
        """Why they are not, or not known to be."""
        ...


class Transport(Protocol):
    """A connection to whatever keeps the channels."""

    def open_producers(self, channels: Sequence[str]) -> None:
        """Be ready to send to ``channels``. Raises ChannelNotFound with all that do not exist."""
        ...

    def parts(self, payloads: Sequence[Any], channels: Sequence[str]) -> Sequence[Part]:
        """The same messages for each of the channels. Raises InvalidRequest when they are too many or too large."""
        ...

    def send(self, parts: Sequence[Part]) -> None:
        """Append all parts that are not stored, each exactly once, however often it is sent."""
        ...

    def subscribe(self, channels: Sequence[str], subscription: str, start: Start) -> None:
        """Make the subscription on those of the channels that it is new on, to begin at ``start``; on all or none."""
        ...

    def take_over(self, channels: Sequence[str]) -> Sequence[MsgPosition]:
        """Fence whoever reads them under the subscription; where it stands on each."""
        ...

    def seek(self, positions: Sequence[MsgPosition], request_id: bytes) -> Sequence[MsgPosition]:
        """Put the subscription there, or, for one beyond a channel's end, at that end; where it stands then.

        A repeat of ``request_id`` moves nothing. Raises Conflict when it was taken over, InvalidRequest.
        """
        ...

    def commit(self, positions: Sequence[MsgPosition], deadline: Deadline | None = None) -> None:
        """Move the subscription forward on those channels, on all or none. Raises Conflict when it was taken over.

        ``deadline``: when to give up, None: as for any other call.
        """
        ...

    def unsubscribe(self, channels: Sequence[str]) -> None:
        """Remove the subscription from them; what is gone is done. Raises Conflict when it was taken over since `take_over`."""
        ...

    def receive(
        self,
        wanted: Sequence[tuple[str, Place]],
        max_messages: int,
        max_bytes: int,
        wait: Deadline,
        is_stopped: Callable[[], bool],
    ) -> Sequence[Received]:
        """Messages of each of the channels from its place on, as soon as one has any; nothing when none had until then.

        Not more than that in all, but one if there is one.
        """
        ...

    def encode(self, place: Place) -> str:
        """As text; empty for the beginning of the channel."""
        ...

    def decode(self, msg_id: str) -> Place:
        """The place that `encode` gave as ``msg_id``. Raises InvalidRequest."""
        ...

    def close(self) -> None:
        """Let go of everything; calls that wait in other threads raise ConnectionFailed. May be repeated."""
        ...
