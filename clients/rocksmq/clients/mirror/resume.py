"""Where a channel's mirroring goes on: behind what the topic holds last, whatever the group says. Pure.

Of a batch Pulsar's deduplication knows the first sequence id only: its `last_sequence_id` does not tell, the last message does.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from .envelope import ID, MIRROR

_ORIGIN = re.compile(r"(.+)#([0-9]{1,20})@([0-9]{1,20})")
_ID = re.compile("[0-9]{1,20}")


class Identity(NamedTuple):
    """Which channel of all brokers it is: its number there, and when it was made, in milliseconds since 1970."""

    number: int
    created_ms: int


class Extent(NamedTuple):
    """``begin_id``: of the first message that the channel holds; beyond ``end_id``, of the last one it had: it holds none."""

    begin_id: int
    end_id: int


@dataclass(frozen=True, slots=True)
class Last:
    """The topic's last message, by its properties; all None: no mirror has sent it."""

    message_id: int | None = None
    mirror: str | None = None
    channel: Identity | None = None

    @classmethod
    def of(cls, properties: Mapping[str, str]) -> "Last":
        origin, message_id = _ORIGIN.fullmatch(properties.get(MIRROR, "")), _ID.fullmatch(properties.get(ID, ""))
        if origin is None or message_id is None:
            return cls()
        return cls(int(message_id[0]), origin[1], Identity(int(origin[2]), int(origin[3])))


@dataclass(frozen=True, slots=True)
class Resume:
    """Send what has this id or a higher one; whatever is lower is stored."""

    position: int


@dataclass(frozen=True, slots=True)
class Refusal:
    """Nothing may be sent; ``reason`` is for people."""

    reason: str


Decision: TypeAlias = Resume | Refusal


def decide(last: Last | None, mirror: str, channel: Identity, group_position: int, extent: Extent) -> Decision:
    """What to do with a topic whose last message is ``last``; None: it is empty.

    ``extent`` is the channel's, read after ``last`` was: what is stored in the topic is not beyond its end, unless the broker
    has less than it had.
    """
    if last is None:
        return Resume(group_position)
    if last.message_id is None:
        return Refusal("foreign messages: the topic's last one came from no mirror; give the mirror a topic of its own")
    if last.mirror != mirror:
        return Refusal(
            f"foreign messages: the topic's last one came from mirror {last.mirror!r}, this is {mirror!r}; "
            "give each mirror topics of its own"
        )
    if last.channel == channel:
        return _behind(last.message_id, extent)
    # One that was destroyed and made anew has nothing at or below that id, for ids rise over this. Another broker's may.
    if extent.begin_id <= min(last.message_id, extent.end_id):
        return Refusal(
            "foreign messages: the topic's last one came from another channel of this name, and this one has messages as old: "
            "does another broker's mirror of the same name send there? Give each mirror a name and topics of its own"
        )
    return Resume(group_position)


def _behind(last_id: int, extent: Extent) -> Decision:
    if last_id > extent.end_id:
        return Refusal(
            f"the topic's last message, {last_id}, is beyond the channel's end, {extent.end_id}: was the broker restored from "
            "an older copy? It goes on once the channel's end has passed it"
        )
    return Resume(last_id + 1)
