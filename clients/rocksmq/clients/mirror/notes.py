"""What a mirror leaves with its group's position, so that anybody sees how it was doing, also when it is dead.

    p1 STATE MESSAGES BYTES SKIPPED GAPS TIME PLACE TOPIC ERROR

in UTF-8, within the broker's METADATA_BYTES_MAX: counts in total over all lives of the mirror, TIME of the last error in
seconds since 1970 (0: none), PLACE (ledger:entry:index) of a message in the topic up to which all before the group's
position is stored (`-`: not known), TOPIC cut at its beginning and ERROR at its end to what fits. ERROR alone may hold spaces.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from rocksmq.protocol.operations import METADATA_BYTES_MAX

from .report import ChannelReport, State

_FORMAT = "p1"
_TOPIC_BYTES_MAX = 100
_FIELDS = 10
_PLACE = re.compile("-|([0-9]{1,18}):([0-9]{1,18}):(-1|[0-9]{1,9})")
CUT = "…"
COUNT_MAX = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Note:
    """Read from a group's metadata."""

    state: State
    messages: int  # that were mirrored in all, as far as this was written down
    bytes: int
    skipped: int
    gaps: int
    last_error_at: float
    place: tuple[int, int, int] | None  # ledger, entry, index
    topic: str  # begins with `CUT` if it was too long
    last_error: str  # ends with `CUT` if it was too long

    @property
    def totals(self) -> "Totals":
        """What the next life of the mirror adds to."""
        return Totals(self.messages, self.bytes, self.skipped, self.gaps)


@dataclass(frozen=True, slots=True)
class Totals:
    """Counts of the mirror's lives before this one."""

    messages: int = 0
    bytes: int = 0
    skipped: int = 0
    gaps: int = 0


def encode(report: ChannelReport, before: Totals | None = None, place: Sequence[int] | None = None) -> bytes:
    """The metadata, METADATA_BYTES_MAX at most; ``before``: what earlier lives have counted."""
    earlier = before or Totals()
    counts = [
        min(COUNT_MAX, count)
        for count in (
            earlier.messages + report.messages,
            earlier.bytes + report.bytes,
            earlier.skipped + report.skipped,
            earlier.gaps + report.gaps,
            int(report.last_error_at),
        )
    ]
    where = ":".join(map(str, place or ())) or "-"
    head = " ".join((_FORMAT, report.state.value, *map(str, counts), where, ""))
    topic = _cut(report.topic, min(_TOPIC_BYTES_MAX, METADATA_BYTES_MAX - len(head) - 1), at_begin=True)
    head += f"{topic} "
    error = " ".join(report.last_error.split())
    return (head + _cut(error, METADATA_BYTES_MAX - len(head.encode()), at_begin=False)).encode()


def decode(metadata: bytes) -> Note | None:
    """What `encode` made; None for anything else, as of a group that no mirror has committed to."""
    try:
        parts = metadata.decode().split(" ", _FIELDS - 1)
        if len(parts) != _FIELDS or parts[0] != _FORMAT:
            return None
        messages, size, skipped, gaps, error_at = (int(part) for part in parts[2:7])
        if (place := _PLACE.fullmatch(parts[7])) is None:
            return None
        ledger, entry, index = (int(part) for part in place.groups("0"))
        found = (ledger, entry, index) if place[1] else None
        return Note(State(parts[1]), messages, size, skipped, gaps, float(error_at), found, parts[8], parts[9])
    except ValueError:
        return None


def _cut(text: str, bytes_max: int, *, at_begin: bool) -> str:
    """As much of ``text`` as fits, with `CUT` where something is missing."""
    content = text.encode(errors="replace")
    if len(content) <= bytes_max:
        return content.decode()
    room = bytes_max - len(CUT.encode())
    if room <= 0:
        return ""
    kept = content[len(content) - room :] if at_begin else content[:room]
    shown = kept.decode(errors="ignore")
    return CUT + shown if at_begin else shown + CUT
