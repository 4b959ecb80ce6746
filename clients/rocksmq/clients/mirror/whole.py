"""Whether a topic has all of what was sent there. Pure.

Pulsar may refuse an entry and take the ones behind it, when a topic's policy changes under way; and a mirror that goes on
behind the topic's last message would never send it again.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(slots=True)
class Compared:
    """``missing``: ids and sizes, in order; ``largest``: size of the largest message that is there."""

    missing: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    largest: int = 0

    def may_be_skipped(self, size_max: int) -> bool:
        """Whether one who skips what has more than ``size_max`` bytes, or than Pulsar takes, may have skipped all of it."""
        return all(size > min(size_max, self.largest) for _, size in self.missing)


def compared(sent: Iterable[tuple[int, int]], found: Iterable[int]) -> Compared:
    """Messages of a channel, by id and size, with the ids in a topic up to its last; each in order, some of those maybe again.

    What comes behind all that is found is not missing: it is not sent yet.
    """
    told = Compared()
    coming = iter(sent)
    message_id, size = next(coming, (None, 0))
    for one in found:
        while message_id is not None and message_id <= one:
            if message_id == one:
                told.largest = max(told.largest, size)
            else:
                told.missing.append((message_id, size))
            message_id, size = next(coming, (None, 0))
    return told
