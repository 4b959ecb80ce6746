"""The time-tick stream: packs between ticks, which are a function of the channels' logs alone (contract §7).

What belongs into which pack is `aligner`'s; here it is fed.
"""

import time
from collections.abc import Sequence

from rocksmq.protocol.errors import InvalidRequest

from ..deadline import Deadline
from .aligner import TickAligner
from .stream import MsgStream
from .transport import Place
from .types import MsgPack, MsgPosition


class TtMsgStream(MsgStream):
    """A stream whose packs end at a tick that all channels have passed; ticks themselves are not delivered.

    A tick promises that no message with ``end_ts`` at or below it follows on its channel. One that does is delivered in the
    next pack, ``late``.
    """

    _aligner: TickAligner | None = None

    @property
    def stalled_channels(self) -> list[str]:
        """Channels for which the next pack waits, or that are left out of it: without a tick above the last pack's end."""
        return [] if self._aligner is None else self._aligner.stalled

    def _check_positions(self, positions: Sequence[MsgPosition]) -> None:
        super()._check_positions(positions)
        if missing := self._consuming.keys() - {position.channel_name for position in positions}:
            raise InvalidRequest(f"a time-tick stream is sought on all its channels: {', '.join(sorted(missing))} not named")

    def _restart(self, positions: Sequence[MsgPosition]) -> None:
        aligner = TickAligner(
            self._transport.encode, messages_max=self._options.buffer_size, bytes_max=self._options.buffer_bytes
        )
        for position in positions:
            aligner.add(position.channel_name, self._transport.decode(position.msg_id), position.timestamp_filter)
        self._silence = _Silence(self._options.silence_timeout)
        self._aligner = aligner

    def _next(self, until: Deadline) -> MsgPack | None:
        aligner = self._aligner
        assert aligner is not None, "it was restarted"
        while True:
            self._is_torn = True
            if (pack := aligner.pack()) is not None:
                return pack
            self._is_torn = False
            received = self._receive(aligner.wanted(), self._silence.until(aligner.stalled, until))
            self._is_torn = True
            for part in received:
                if part.gap is not None:
                    aligner.removed(part.channel, part.gap)
                msgs, places = self._decoded(part)
                aligner.feed(part.channel, msgs, places, part.next_place, part.size)
                self._silence.heard(part.channel, part.next_place)
            self._is_torn = False
            silent = self._silence.over()
            for channel in silent:
                aligner.leave_out(channel)
            if not received and not silent and until.is_over:
                return None


class _Silence:
    """Which channels have kept the others waiting for ``timeout`` seconds (None: that is never too long)."""

    def __init__(self, timeout: float | None) -> None:
        self._timeout = timeout
        self._since: dict[str, float] = {}  # of the channels without a tick while others have one
        self._left_out: set[str] = set()
        self._read_to: dict[str, Place] = {}

    def heard(self, channel: str, next_place: Place) -> None:
        """It was read up to there: something has come of it, unless it was read so far before."""
        if self._read_to.get(channel) != next_place:
            self._read_to[channel] = next_place
            self._since.pop(channel, None)

    def until(self, stalled: Sequence[str], until: Deadline) -> Deadline:
        """``until``, or when the first of them has been silent for too long."""
        if self._timeout is None:
            return until
        now = time.monotonic()
        self._left_out &= set(stalled)
        self._since = {channel: self._since.get(channel, now) for channel in stalled if channel not in self._left_out}
        return until.at_most(max(0.0, min(self._since.values()) + self._timeout - now)) if self._since else until

    def over(self) -> list[str]:
        """Those that have been silent for too long by now, to be left out."""
        oldest = time.monotonic() - (self._timeout or 0.0)
        silent = [channel for channel, since in self._since.items() if since <= oldest]
        self._left_out.update(silent)
        return silent
