"""What makes message streams: on a RocksMQ broker, and in memory."""

from typing import Protocol

from ..deadline import checked_timeout
from .dispatch import MemUDFactory, ProtoUDFactory, UnmarshalDispatcherFactory
from .memory import MemBroker, MemTransport
from .rmq import RmqTransport
from .stream import BUFFER_BYTES, BUFFER_MESSAGES, MsgStream, OnGap, StreamOptions
from .tt_stream import TtMsgStream


class MsgStreamFactory(Protocol):
    """Makes streams that are alike but for what carries them."""

    def new_msg_stream(self) -> MsgStream:
        """A plain stream."""
        ...

    def new_tt_msg_stream(self) -> TtMsgStream:
        """A time-tick stream."""
        ...


class RmqMsgStream(MsgStream):
    """A plain stream on a RocksMQ broker, over a connection of its own."""


class RmqTtMsgStream(TtMsgStream):
    """A time-tick stream on a RocksMQ broker, over a connection of its own."""


class RmqMsgStreamFactory:
    """Makes streams on the broker at ``url`` (None: as for `Client`), each of which connects when it is made.

    ``timeout``: seconds that every call may take beyond what it waits for messages. ``dispatchers`` makes what turns payloads
    into messages: `ProtoUDFactory` with the types of one's own. For the others see `StreamOptions`.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        token: str | None = None,
        timeout: float | None = 10.0,
        buffer_size: int = BUFFER_MESSAGES,
        buffer_bytes: int = BUFFER_BYTES,
        silence_timeout: float | None = None,
        on_gap: OnGap = "log",
        dispatchers: UnmarshalDispatcherFactory | None = None,
    ) -> None:
        self._url = url
        self._token = token
        self._timeout = checked_timeout(timeout)
        self._dispatchers = dispatchers or ProtoUDFactory()
        self._options = StreamOptions(
            buffer_size=buffer_size, buffer_bytes=buffer_bytes, silence_timeout=silence_timeout, on_gap=on_gap
        )

    def new_msg_stream(self) -> RmqMsgStream:
        """A plain stream. Raises ConnectionFailed, Timeout."""
        dispatcher = self._dispatchers.new_unmarshal_dispatcher()  # first: without protobuf nothing is connected
        return RmqMsgStream(self._transport(), dispatcher, self._options)

    def new_tt_msg_stream(self) -> RmqTtMsgStream:
        """A time-tick stream. Raises ConnectionFailed, Timeout."""
        dispatcher = self._dispatchers.new_unmarshal_dispatcher()
        return RmqTtMsgStream(self._transport(), dispatcher, self._options)

    def _transport(self) -> RmqTransport:
        return RmqTransport(self._url, token=self._token, timeout=self._timeout)


class MemMsgStreamFactory:
    """Makes streams on the channels of a `MemBroker`, for tests; ``dispatchers``: `MemUDFactory`, which needs no protobuf."""

    def __init__(
        self,
        broker: MemBroker,
        *,
        buffer_size: int = BUFFER_MESSAGES,
        buffer_bytes: int = BUFFER_BYTES,
        silence_timeout: float | None = None,
        on_gap: OnGap = "log",
        dispatchers: UnmarshalDispatcherFactory | None = None,
    ) -> None:
        self._broker = broker
        self._dispatchers = dispatchers or MemUDFactory()
        self._options = StreamOptions(
            buffer_size=buffer_size, buffer_bytes=buffer_bytes, silence_timeout=silence_timeout, on_gap=on_gap
        )

    def new_msg_stream(self) -> MsgStream:
        """A plain stream."""
        return MsgStream(MemTransport(self._broker), self._dispatchers.new_unmarshal_dispatcher(), self._options)

    def new_tt_msg_stream(self) -> TtMsgStream:
        """A time-tick stream."""
        return TtMsgStream(MemTransport(self._broker), self._dispatchers.new_unmarshal_dispatcher(), self._options)
