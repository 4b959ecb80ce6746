"""From messages to what a transport carries, and back by their type.

`ProtoUDFactory` carries bytes. `MemUDFactory` carries the messages themselves, for streams in memory.

A type of one's own is a class derived from `TsMsg`, with a type number that no `MsgType` has, a `marshal` whose payload
begins with `pack_header`, and an `unmarshal` that is registered by `UnmarshalDispatcher.add_msg_template` or given to
`ProtoUDFactory`.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, Protocol, TypeAlias

from rocksmq.protocol.errors import InvalidRequest

from .header import TYPE_MAX, Header, Undecodable, header_of, pack_header, type_of
from .messages import MESSAGE_CLASSES, ContentMsg
from .schema import ANY, body_class
from .types import MsgType, TsMsg, UnmarshalFunc, integer

Templates: TypeAlias = Mapping[int, UnmarshalFunc] | Iterable[tuple[int, UnmarshalFunc]]


class UnknownMsgType(Undecodable):
    """Nothing is registered for messages of this type."""


class UnmarshalDispatcher(ABC):
    """Knows a function for every type of messages. One belongs to one stream."""

    def __init__(self, templates: Templates = ()) -> None:
        self._templates: dict[int, UnmarshalFunc] = {}
        for msg_type, func in dict(templates).items():
            self.add_msg_template(msg_type, func)

    def add_msg_template(self, msg_type: int, func: UnmarshalFunc) -> None:
        """Read payloads of ``msg_type`` by ``func``, which raises ValueError for what is none.

        It takes the place of the one that was registered for the type, also of one that comes with the library. Raises
        InvalidRequest.
        """
        number = integer("msg_type", int(msg_type) if isinstance(msg_type, MsgType) else msg_type, 1, TYPE_MAX)
        if not callable(func):
            raise InvalidRequest(f"{func!r} is no function that reads payloads of type {number}")
        self._templates[number] = func

    @abstractmethod
    def marshal(self, msg: TsMsg) -> Any:
        """What the transport carries. Raises InvalidRequest for a message that no reader would understand."""

    @abstractmethod
    def header_of(self, payload: Any) -> Header:
        """Type, id and range of what was carried, also of an unknown type. Raises Undecodable."""

    @abstractmethod
    def read(self, payload: Any) -> TsMsg:
        """The message in ``payload``, of the type that it tells. Raises what `header_of` and `unmarshal` raise."""

    @abstractmethod
    def unmarshal(self, payload: Any, msg_type: int) -> TsMsg:
        """The message in ``payload``, of that type. Raises UnknownMsgType, Undecodable, or what the function raises."""


class UnmarshalDispatcherFactory(Protocol):
    """Makes a dispatcher for each stream."""

    def new_unmarshal_dispatcher(self) -> UnmarshalDispatcher:
        """One that nobody else has."""
        ...


class ProtoUDFactory:
    """Dispatchers for messages as bytes (messages.proto). ``templates``: types besides those that come with the library."""

    def __init__(self, templates: Templates = ()) -> None:
        self._templates = dict(templates)

    def new_unmarshal_dispatcher(self) -> UnmarshalDispatcher:
        """One that knows all types of the library. Raises ImportError where protobuf is missing, and says what to install."""
        body_class(ANY)
        return _ProtoDispatcher({**{kind.type: kind.unmarshal for kind in MESSAGE_CLASSES}, **self._templates})


class MemUDFactory:
    """Dispatchers that leave messages as they are; only the reader gets a shallow copy, since it is told where it was read.
    Whoever changes a message that was produced, or a list in one that was read, changes what others read."""

    def new_unmarshal_dispatcher(self) -> UnmarshalDispatcher:
        """One that takes messages of all types."""
        return _MemDispatcher()


class _ProtoDispatcher(UnmarshalDispatcher):
    def marshal(self, msg: TsMsg) -> bytes:
        payload: bytes = msg.marshal()
        if not isinstance(msg, ContentMsg):
            _check_own(msg, payload)
        return payload

    def header_of(self, payload: bytes) -> Header:
        return header_of(payload)

    def read(self, payload: bytes) -> TsMsg:
        return self.unmarshal(payload, type_of(payload))

    def unmarshal(self, payload: bytes, msg_type: int) -> TsMsg:
        func = self._templates.get(msg_type)
        if func is None:
            raise UnknownMsgType(f"nothing is registered for messages of type {msg_type}: add_msg_template does it")
        return _checked(func(payload), msg_type)


class _MemDispatcher(UnmarshalDispatcher):
    def marshal(self, msg: TsMsg) -> TsMsg:
        return msg

    def header_of(self, payload: Any) -> Header:
        if not isinstance(payload, TsMsg):
            raise Undecodable(f"a {type(payload).__name__} is no message")
        return Header(payload.type, payload.id, payload.begin_ts, payload.end_ts)

    def read(self, payload: Any) -> TsMsg:
        return self.unmarshal(payload, self.header_of(payload).type)

    def unmarshal(self, payload: Any, msg_type: int) -> TsMsg:
        msg = _checked(payload, msg_type)
        func = self._templates.get(msg_type)
        return msg.unread() if func is None else _checked(func(msg), msg_type)


def _check_own(msg: TsMsg, payload: bytes) -> None:
    """Refuses what a class of the user's own made, if nobody could read it."""
    try:
        told = header_of(payload)
    except Undecodable as error:
        raise InvalidRequest(f"the payload of {msg!r} does not begin with a header, as pack_header makes it: {error}") from None
    if told != (msg.type, msg.id, msg.begin_ts, msg.end_ts):
        raise InvalidRequest(f"the payload of {msg!r}, of type {msg.type}, tells of another: {told}")


def _checked(msg: Any, msg_type: int) -> TsMsg:
    """What a function gave, if it is a message of the type."""
    if not isinstance(msg, TsMsg) or msg.type != msg_type:
        raise Undecodable(f"{msg!r} is no message of type {msg_type}")
    if not isinstance(msg, ContentMsg):
        try:
            pack_header(msg_type, msg.id, msg.begin_ts, msg.end_ts)
        except InvalidRequest as error:
            raise Undecodable(error.message) from None
    return msg
