"""How a mirror is doing, as told by itself: channel by channel, and as one line of JSON from a process to who watches it."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import Any

from rocksmq.protocol.errors import ProtocolError

ERROR_CHARACTERS_MAX = 300
CHANNELS_MAX = 1_000  # in a line: beyond them only the sums are told
SUMS = ("messages", "bytes", "skipped", "gaps", "errors", "lag")


class State(StrEnum):
    """What a channel's mirroring is at."""

    STARTING = "starting"
    RUNNING = "running"
    WAITING = "waiting"  # for the broker, or for Pulsar: one of them is away
    STOPPED = "stopped"  # by what somebody must look at; it is tried again now and then
    ENDED = "ended"  # the channel is gone, or the mirror was told to end


_RANKS = {State.STOPPED: 0, State.WAITING: 1}  # trouble comes first, and so is never cut


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelReport:
    """One channel; counts are of this process' life."""

    channel: str
    topic: str
    state: State
    messages: int = 0  # acknowledged by the other side
    bytes: int = 0  # of their payloads
    skipped: int = 0  # too large for the other side
    gaps: int = 0  # messages that retention removed before they were mirrored
    errors: int = 0
    lag: int | None = None  # messages not mirrored yet; None: not known
    deduplication: bool | None = None  # of the topic; None: not known yet
    last_error: str = ""
    last_error_at: float = 0.0  # seconds since 1970; 0: none yet


@dataclass(frozen=True, slots=True)
class Sums:
    """Of all channels of a mirror, in a report or beyond it."""

    channels: int = 0
    messages: int = 0
    bytes: int = 0
    skipped: int = 0
    gaps: int = 0
    errors: int = 0
    lag: int = 0


class Report(Mapping[str, ChannelReport]):
    """By channel: those that are stopped, those that wait, the others; each by name. It holds CHANNELS_MAX, `sums` are of all.

    ``state`` and ``last_error`` are of what concerns all channels, or those that there are not: the broker is away, say.
    """

    def __init__(
        self,
        mirror: str,
        channels: Iterable[ChannelReport],
        sums: Sums | None = None,
        *,
        state: State = State.RUNNING,
        last_error: str = "",
        last_error_at: float = 0.0,
    ) -> None:
        ordered = sorted(channels, key=lambda one: (_RANKS.get(one.state, len(_RANKS)), one.channel))
        self.mirror = mirror
        self.state = state
        self.last_error = last_error
        self.last_error_at = last_error_at  # seconds since 1970; 0: none yet
        self.sums = _summed(ordered) if sums is None else sums
        self._channels = {one.channel: one for one in ordered[:CHANNELS_MAX]}

    def __getitem__(self, channel: str) -> ChannelReport:
        return self._channels[channel]

    def __iter__(self) -> Iterator[str]:
        return iter(self._channels)

    def __len__(self) -> int:
        return len(self._channels)

    def __repr__(self) -> str:
        return f"<Report of mirror {self.mirror!r}, {self.sums.channels} channels>"

    def to_json(self) -> str:
        """One line."""
        shown = [asdict(one) | {"last_error": one.last_error[:ERROR_CHARACTERS_MAX]} for one in self.values()]
        told = {
            "mirror": self.mirror,
            "state": self.state,
            "last_error": self.last_error[:ERROR_CHARACTERS_MAX],
            "last_error_at": self.last_error_at,
            "sums": asdict(self.sums),
            "channels": shown,
        }
        return json.dumps(told, separators=(",", ":"))

    @classmethod
    def of_json(cls, line: str) -> "Report":
        """What `to_json` made, of a later version or an earlier one too. Raises ProtocolError for anything else."""
        try:
            told: dict[str, Any] = json.loads(line)
            channels = [_channel_of(one) for one in told["channels"]]
            sums = Sums(**{name: int(told["sums"][name]) for name in ("channels", *SUMS)})
            return cls(
                str(told["mirror"]),
                channels,
                sums,
                state=State(told.get("state", State.RUNNING)),
                last_error=str(told.get("last_error", "")),
                last_error_at=float(told.get("last_error_at", 0.0)),
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ProtocolError(f"this is no report of a mirror: {line!r:.100}") from error


def _channel_of(told: Mapping[str, Any]) -> ChannelReport:
    known: dict[str, Any] = {one.name: told[one.name] for one in fields(ChannelReport) if one.name in told}
    known["state"] = State(told["state"])
    return ChannelReport(**known)


def _summed(channels: Iterable[ChannelReport]) -> Sums:
    ordered = list(channels)
    totals = {name: sum(getattr(one, name) or 0 for one in ordered) for name in SUMS}
    return Sums(channels=len(ordered), **totals)
