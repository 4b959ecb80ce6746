"""Where a channel's mirroring goes on: behind what the topic holds last, whatever the group says. Pure.

Of a batch Pulsar's deduplication knows the first sequence id only: its `last_sequence_id` does not tell, the last message does.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from .envelope import ID, MIRROR

_ORIGIN = re.compile(r"(.+)#([0-9]{1,20})")
_ID = re.compile("[0-9]{1,20}")


@dataclass(frozen=True, slots=True)
class Last:
    """The topic's last message, by its properties; all None: no mirror has sent it."""

    message_id: int | None = None
    mirror: str | None = None
    channel_number: int | None = None

    @classmethod
    def of(cls, properties: Mapping[str, str]) -> "Last":
        origin, message_id = _ORIGIN.fullmatch(properties.get(MIRROR, "")), _ID.fullmatch(properties.get(ID, ""))
        if origin is None or message_id is None:
            return cls()
        return cls(int(message_id[0]), origin[1], int(origin[2]))


@dataclass(frozen=True, slots=True)
class Resume:
    """Send what has this id or a higher one; whatever is lower is stored."""

    position: int


@dataclass(frozen=True, slots=True)
class Refusal:
    """Nothing may be sent; ``reason`` is for people."""

    reason: str


Decision: TypeAlias = Resume | Refusal


def decide(last: Last | None, mirror: str, channel_number: int, group_position: int, end_id: int) -> Decision:
    """What to do with a topic whose last message is ``last``; None: it is empty.

    ``end_id`` is of the channel's last message, read after ``last`` was: what is stored in the topic is not beyond it, unless
    the broker has less than it had.
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
    # A channel that was destroyed and made anew: ids rise over that, so all of it is above.
    if last.channel_number == channel_number and last.message_id > end_id:
        return Refusal(
            f"the topic's last message, {last.message_id}, is beyond the channel's end, {end_id}: was the broker restored from "
            "an older copy? It goes on once the channel's end has passed it"
        )
    return Resume(last.message_id + 1)
