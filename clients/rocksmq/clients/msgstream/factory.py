"""What makes message streams: on a RocksMQ broker, on Apache Pulsar, and in memory."""

from typing import TYPE_CHECKING, Any, Protocol

from ..deadline import checked_timeout
from .dispatch import MemUDFactory, ProtoUDFactory, UnmarshalDispatcherFactory
from .memory import MemBroker, MemTransport
from .rmq import RmqTransport
from .stream import BUFFER_BYTES, BUFFER_MESSAGES, MsgStream, OnGap, StreamOptions
from .tt_stream import TtMsgStream

if TYPE_CHECKING:
    from ..pulsar.transport import PulsarTransport

PULSAR_SCHEMES = ("pulsar://", "pulsar+ssl://")


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


class PulsarMsgStream(MsgStream):
    """A plain stream on Apache Pulsar, over connections of its own."""


class PulsarTtMsgStream(TtMsgStream):
    """A time-tick stream on Apache Pulsar, over connections of its own."""


class PulsarMsgStreamFactory:
    """Makes streams on the Apache Pulsar at ``url``, as ``pulsar://host:6650`` or ``pulsar+ssl://host:6651``.

    ``topic_template``: the topic of a channel, without partitions; ``positions_template``: that of a subscription's positions,
    whose channel is called ``_positions.<sub_name>``; None: the same. ``token``: Pulsar's; ``ca``: a file that vouches for it.
    For the others see `RmqMsgStreamFactory`. Raises ImportError where Pulsar's client is missing, and says what to install;
    InvalidRequest.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        ca: str | None = None,
        topic_template: str | None = None,
        positions_template: str | None = None,
        timeout: float | None = 10.0,
        buffer_size: int = BUFFER_MESSAGES,
        buffer_bytes: int = BUFFER_BYTES,
        silence_timeout: float | None = None,
        on_gap: OnGap = "log",
        dispatchers: UnmarshalDispatcherFactory | None = None,
    ) -> None:
        from ..pulsar import client, transport  # only here: they need Pulsar's client

        self._make = transport.PulsarTransport
        self._url = url
        self._given = {
            **{"token": token, "ca": ca, "timeout": checked_timeout(timeout)},
            **{"topic_template": topic_template or client.TOPIC_TEMPLATE, "positions_template": positions_template},
        }
        self._dispatchers = dispatchers or ProtoUDFactory()
        self._options = StreamOptions(
            buffer_size=buffer_size, buffer_bytes=buffer_bytes, silence_timeout=silence_timeout, on_gap=on_gap
        )

    def new_msg_stream(self) -> PulsarMsgStream:
        """A plain stream. It connects when it is used."""
        dispatcher = self._dispatchers.new_unmarshal_dispatcher()
        return PulsarMsgStream(self._transport(), dispatcher, self._options)

    def new_tt_msg_stream(self) -> PulsarTtMsgStream:
        """A time-tick stream. It connects when it is used."""
        dispatcher = self._dispatchers.new_unmarshal_dispatcher()
        return PulsarTtMsgStream(self._transport(), dispatcher, self._options)

    def _transport(self) -> "PulsarTransport":
        given: dict[str, Any] = self._given
        return self._make(self._url, **given)


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


def msg_stream_factory(url: str | None = None, **options: Any) -> MsgStreamFactory:
    """What makes streams at ``url``: on Pulsar for pulsar:// and pulsar+ssl://, else on RocksMQ.

    ``options``: of `PulsarMsgStreamFactory` or `RmqMsgStreamFactory`, most of which are the same. Raises what these raise.
    """
    if url is not None and url.startswith(PULSAR_SCHEMES):
        return PulsarMsgStreamFactory(url, **options)
    return RmqMsgStreamFactory(url, **options)
