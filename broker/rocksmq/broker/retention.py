"""What may go: the rules of a channel's retention, who holds messages back, and when the clock is in doubt (contract §6).

Pure: it decides, `trim` does. Any rule that lets a message go lets it go. The caps are counted from the end: what stands
behind them stays, to the message. ``consumed_by_all`` is worked out from the groups as they are, at each look.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import NamedTuple

from rocksmq.protocol.errors import InvalidRequest

from .groups import Group
from .ids import COUNTER_BITS, time_ms_of
from .records import Extent

REPEAT_MS = 300_000  # a range that was handed out so lately may be asked for again
SECONDS_MOST = 1 << 53
MAX_AGE_MS, MAX_BYTES, MAX_MESSAGES, CONSUMED_BY_ALL = KEYS = ("max_age_ms", "max_bytes", "max_messages", "consumed_by_all")


class Rules(NamedTuple):
    """A channel's; 0 and False: there is no such rule."""

    max_age_ms: int = 0
    max_bytes: int = 0  # of payloads and headers
    max_messages: int = 0
    consumed_by_all: bool = False

    @classmethod
    def parse(cls, retention: Mapping[str, int]) -> "Rules":
        """From the map that requests and records carry. Raises InvalidRequest."""
        for key, value in retention.items():
            if key not in KEYS:
                raise InvalidRequest(f"retention has no rule {key!r}: it has {', '.join(KEYS)}")
            if key == CONSUMED_BY_ALL and value > 1:
                raise InvalidRequest(f"retention's {key} is 1, or 0 for no, not {value}")
            if key != CONSUMED_BY_ALL and value < 1:
                raise InvalidRequest(f"retention's {key} is 1 at least, not {value}: leave it out for no such rule")
        max_age_ms, max_bytes, max_messages, consumed_by_all = (retention.get(key, 0) for key in KEYS)
        return cls(max_age_ms, max_bytes, max_messages, bool(consumed_by_all))

    def as_map(self) -> dict[str, int]:
        """As requests and records carry it."""
        return {key: int(value) for key, value in zip(KEYS, self, strict=True) if value}


KEEP_ALL = Rules()


class Hold(NamedTuple):
    """A group keeps all messages from an id on."""

    group: str
    message_id: int


class Cut(NamedTuple):
    """What may go: all messages before an id, so many of those ever appended, and so many of their bytes, whichever is more."""

    message_id: int
    offset: int
    size: int

    def takes(self, extent: Extent) -> bool:
        """Whether ``extent`` has something that may go."""
        return extent.message_count > 0 and (
            self.message_id > extent.begin_id or self.offset > extent.begin_offset or self.size > extent.begin_bytes
        )


def cut(rules: Rules, extent: Extent, *, expired_before_ms: int | None, lowest: Hold | None) -> Cut:
    """What ``rules`` let go of ``extent``.

    ``expired_before_ms``: what is older has reached its age; None: the clock is in doubt. ``lowest``: who keeps most; None: it
    is not known, or there is no group.
    """
    message_id = 0
    if rules.max_age_ms and expired_before_ms is not None:
        message_id = max(0, expired_before_ms) << COUNTER_BITS
    if rules.consumed_by_all and lowest is not None:
        message_id = max(message_id, lowest.message_id)
    return Cut(
        min(message_id, extent.end_id + 1),
        extent.end_offset - rules.max_messages if rules.max_messages else 0,
        extent.end_bytes - rules.max_bytes if rules.max_bytes else 0,
    )


def holds(groups: Iterable[Group], now_ms: int) -> list[Hold]:
    """What each group has not read, may ask for again, or was given back; who keeps most comes first."""
    return sorted((_hold(group, now_ms) for group in groups), key=lambda hold: hold.message_id)


def _hold(group: Group, now_ms: int) -> Hold:
    states = [state for state in (group.value, group.visible) if state is not None]  # what is not durable may be undone
    kept = min(state.position for state in states)
    for state in states[:1] if states[0] is states[-1] else states:
        for entry in state.consumers.values():
            if entry.begin < kept:
                is_fresh = entry.generation == state.generation and time_ms_of(entry.last_use) > now_ms - REPEAT_MS
                if entry.is_released or is_fresh:
                    kept = entry.begin
    return Hold(group.name, kept)


@dataclass(frozen=True, slots=True)
class RetentionSection:
    """The table ``[retention]``: rules of channels that have none of their own, and of the broker. 0: no such rule."""

    max_age: float = 0.0  # seconds
    max_bytes: int = 0
    max_messages: int = 0
    consumed_by_all: bool = False
    total_bytes_max: int = 0  # of all channels; then the oldest messages go first, wherever they are
    group_idle_seconds: float = 0.0  # a group with unread messages that nobody has read for so long is destroyed

    @property
    def rules(self) -> Rules:
        return Rules(round(self.max_age * 1000), self.max_bytes, self.max_messages, self.consumed_by_all)

    def problems(self) -> Iterator[tuple[str, str]]:
        """Options that cannot be used, and why."""
        for field in fields(self):
            if not 0 <= getattr(self, field.name) < SECONDS_MOST:
                yield field.name, "0, for no such rule, or more"
        if 0 < self.max_age < 0.001:
            yield "max_age", "a millisecond at least"
        if 0 < self.group_idle_seconds < 1:
            yield "group_idle_seconds", "a second at least"
