"""What makes message streams: on a RocksMQ broker, on Apache Pulsar, and in memory."""

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol, TypedDict, TypeVar, Unpack

from ..deadline import checked_timeout
from ..pulsar import PREFETCH, SCHEMES, TOPIC_TEMPLATE
from .dispatch import MemUDFactory, ProtoUDFactory, UnmarshalDispatcherFactory
from .memory import MemBroker, MemTransport
from .rmq import RmqTransport
from .stream import MsgStream, OnGap, StreamOptions
from .transport import Transport
from .tt_stream import TtMsgStream

Stream = TypeVar("Stream", bound=MsgStream)


class MsgStreamFactory(Protocol):
    """Makes streams that are alike but for what carries them."""

    def new_msg_stream(self) -> MsgStream:
        """A plain stream."""
        ...

    def new_tt_msg_stream(self) -> TtMsgStream:
        """A time-tick stream."""
        ...


class Options(TypedDict, total=False):
    """The arguments of `StreamOptions`, which every factory takes."""

    buffer_size: int
    buffer_bytes: int
    silence_timeout: float | None
    on_gap: OnGap


class _Factory:
    """What all factories are: a transport for each stream, and something that turns payloads into messages."""

    def __init__(self, connect: Callable[[], Transport], dispatchers: UnmarshalDispatcherFactory, options: Options) -> None:
        """Raises InvalidRequest."""
        self._connect = connect
        self._dispatchers = dispatchers
        self._options = StreamOptions(**options)

    def _made(self, kind: type[Stream]) -> Stream:
        dispatcher = self._dispatchers.new_unmarshal_dispatcher()  # first: without protobuf nothing is connected
        return kind(self._connect(), dispatcher, self._options)


class RmqMsgStream(MsgStream):
    """A plain stream on a RocksMQ broker, over a connection of its own."""


class RmqTtMsgStream(TtMsgStream):
    """A time-tick stream on a RocksMQ broker, over a connection of its own."""


class RmqMsgStreamFactory(_Factory):
    """Makes streams on the broker at ``url`` (None: as for `Client`), each of which connects when it is made.

    ``timeout``: seconds that every call may take beyond what it waits for messages. ``dispatchers`` makes what turns payloads
    into messages: `ProtoUDFactory` with the types of one's own. ``options``: ``buffer_size``, ``buffer_bytes``,
    ``silence_timeout`` and ``on_gap``, of `StreamOptions`. Raises InvalidRequest.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        token: str | None = None,
        timeout: float | None = 10.0,
        dispatchers: UnmarshalDispatcherFactory | None = None,
        **options: Unpack[Options],
    ) -> None:
        connect = partial(RmqTransport, url, token=token, timeout=checked_timeout(timeout))
        super().__init__(connect, dispatchers or ProtoUDFactory(), options)

    def new_msg_stream(self) -> RmqMsgStream:
        """A plain stream. Raises ConnectionFailed, Timeout."""
        return self._made(RmqMsgStream)

    def new_tt_msg_stream(self) -> RmqTtMsgStream:
        """A time-tick stream. Raises ConnectionFailed, Timeout."""
        return self._made(RmqTtMsgStream)


class PulsarMsgStream(MsgStream):
    """A plain stream on Apache Pulsar, over connections of its own."""


class PulsarTtMsgStream(TtMsgStream):
    """A time-tick stream on Apache Pulsar, over connections of its own."""


class PulsarMsgStreamFactory(_Factory):
    """Makes streams on the Apache Pulsar at ``url``, as ``pulsar://host:6650`` or ``pulsar+ssl://host:6651``.

    ``topic_template``: the topic of a channel, without partitions; ``positions_template``: that of a subscription's positions,
    whose channel is called ``_positions.<sub_name>``; None: the same. ``token``: Pulsar's; ``ca``: a file that vouches for it.
    ``prefetch``: messages that a stream reads ahead, of all its channels together, one of each at least; Pulsar's client counts
    no bytes. For the others see `RmqMsgStreamFactory`. Raises ImportError where Pulsar's client is missing, and says what to
    install; InvalidRequest.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        ca: str | None = None,
        topic_template: str = TOPIC_TEMPLATE,
        positions_template: str | None = None,
        timeout: float | None = 10.0,
        prefetch: int = PREFETCH,
        dispatchers: UnmarshalDispatcherFactory | None = None,
        **options: Unpack[Options],
    ) -> None:
        from ..pulsar.transport import PulsarTransport  # only here: it needs Pulsar's client

        connect = partial(
            PulsarTransport,
            url,
            token=token,
            ca=ca,
            topic_template=topic_template,
            positions_template=positions_template,
            timeout=checked_timeout(timeout),
            prefetch=prefetch,
        )
        super().__init__(connect, dispatchers or ProtoUDFactory(), options)

    def new_msg_stream(self) -> PulsarMsgStream:
        """A plain stream. It connects when it is used."""
        return self._made(PulsarMsgStream)

    def new_tt_msg_stream(self) -> PulsarTtMsgStream:
        """A time-tick stream. It connects when it is used."""
        return self._made(PulsarTtMsgStream)


class MemMsgStreamFactory(_Factory):
    """Makes streams on the channels of a `MemBroker`, for tests; ``dispatchers``: `MemUDFactory`, which needs no protobuf."""

    def __init__(
        self, broker: MemBroker, *, dispatchers: UnmarshalDispatcherFactory | None = None, **options: Unpack[Options]
    ) -> None:
        super().__init__(partial(MemTransport, broker), dispatchers or MemUDFactory(), options)

    def new_msg_stream(self) -> MsgStream:
        """A plain stream."""
        return self._made(MsgStream)

    def new_tt_msg_stream(self) -> TtMsgStream:
        """A time-tick stream."""
        return self._made(TtMsgStream)


def msg_stream_factory(url: str | None = None, **options: Any) -> MsgStreamFactory:
    """What makes streams at ``url``: on Pulsar for pulsar:// and pulsar+ssl://, else on RocksMQ.

    ``options``: of `PulsarMsgStreamFactory` or `RmqMsgStreamFactory`, most of which are the same. Raises what these raise.
    """
    if url is not None and url.startswith(SCHEMES):
        return PulsarMsgStreamFactory(url, **options)
    return RmqMsgStreamFactory(url, **options)
