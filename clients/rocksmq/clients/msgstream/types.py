"""What a message stream carries: messages with a time range, positions, packs (contract §7)."""

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, ClassVar, NamedTuple, Self, TypeAlias

from rocksmq.protocol.errors import InvalidRequest

TIMESTAMP_MAX = (1 << 64) - 1
HASH_KEY_MAX = (1 << 32) - 1
ID_MIN, ID_MAX = -(1 << 63), (1 << 63) - 1


class MsgType(IntEnum):
    """The types that come with the library; others may register numbers of their own."""

    INSERT = 400
    DELETE = 401
    SEARCH = 500
    SEARCH_RESULT = 1000
    SEG_STATISTICS = 1100
    TIME_TICK = 1200
    TIME_SYNC = 1201


class MsgPosition(NamedTuple):
    """A place in a channel: the message to read next.

    ``msg_id`` is the transport's, as text; empty: the beginning of the channel. ``timestamp_filter``: on a time-tick
    stream, what lies before the first tick at or above it and ends at or below it was delivered. As JSON: ``_asdict()``.
    """

    channel_name: str
    msg_id: str = ""
    timestamp_filter: int = 0


class StreamGap(NamedTuple):
    """Messages that retention removed unread: of a channel, from ``from_id`` up to, not including, ``to_id``. None: how many
    is unknown."""

    channel_name: str
    from_id: int
    to_id: int
    message_count: int | None


class TsMsg:
    """A message with a time range, both ends of which belong to it.

    ``hash_keys``: unsigned 32-bit, one a row; they choose the channel. ``late``: a time-tick stream delivered it after a pack
    that should have held it. ``position``: where it was read, None before. A type of one's own derives from this, with
    ``type``, `marshal` and `unmarshal`, and is registered with `UnmarshalDispatcher.add_msg_template`.
    """

    __slots__ = ("_channel", "_place", "begin_ts", "end_ts", "hash_keys", "id", "late")

    type: ClassVar[int]

    def __init__(self, id: int, begin_ts: int, end_ts: int, hash_keys: Sequence[int]) -> None:  # noqa: A002
        self.id = id
        self.begin_ts = begin_ts
        self.end_ts = end_ts
        self.hash_keys = hash_keys
        self.late = False
        self._channel: str | None = None
        self._place: Any = None

    def set_ts(self, ts: int) -> None:
        """It begins and ends at ``ts``. Raises InvalidRequest for what is no timestamp."""
        self.begin_ts = self.end_ts = integer("ts", ts, 0, TIMESTAMP_MAX)

    def read_at(self, channel: str, place: str) -> None:
        """It was read from there."""
        self._channel, self._place = channel, place

    @property
    def position(self) -> MsgPosition | None:
        """Where it was read: a seek there delivers it again."""
        return None if self._channel is None else MsgPosition(self._channel, str(self._place))

    def unread(self) -> Self:
        """A shallow copy that was read nowhere yet and is not late."""
        fresh = copy(self)
        fresh.late = False
        fresh._channel = fresh._place = None
        return fresh

    def __repr__(self) -> str:
        return f"{type(self).__name__}(id={self.id}, begin_ts={self.begin_ts}, end_ts={self.end_ts})"

    def marshal(self) -> Any:
        """Itself as bytes."""
        raise NotImplementedError(f"{type(self).__name__} has no marshal")

    @classmethod
    def unmarshal(cls, payload: Any) -> Self:
        """The message in ``payload``. Raises ValueError for what is none."""
        raise NotImplementedError(f"{cls.__name__} has no unmarshal")


@dataclass(slots=True)
class MsgPack:
    """Messages that go together.

    To produce, only ``msgs`` counts. Consumed: every message that is on time has ``begin_ts < end_ts of it <= end_ts``
    on a time-tick stream; on a plain one the two are the messages' minimum and maximum. A seek to ``end_positions`` goes
    on behind the pack, one to ``start_positions`` delivers it again.
    """

    begin_ts: int = 0
    end_ts: int = 0
    msgs: list[TsMsg] = field(default_factory=list[TsMsg])
    start_positions: list[MsgPosition] = field(default_factory=list[MsgPosition])
    end_positions: list[MsgPosition] = field(default_factory=list[MsgPosition])
    gaps: list[StreamGap] = field(default_factory=list[StreamGap])

    @property
    def late_count(self) -> int:
        """How many of the messages are late."""
        return sum(msg.late for msg in self.msgs)


RepackFunc: TypeAlias = Callable[[list[TsMsg], list[Sequence[int]]], Mapping[int, MsgPack]]
"""From messages and, of each, the index of the channel that every hash key stands for, to packs by index of the channel."""
UnmarshalFunc: TypeAlias = Callable[[Any], TsMsg]
"""From a payload of one type to the message."""


def integer(name: str, value: int, least: int, most: int) -> int:
    """``value``, checked. Raises InvalidRequest."""
    if type(value) is not int or not least <= value <= most:
        raise InvalidRequest(f"{name} {value!r} is not an integer from {least} to {most}")
    return value
