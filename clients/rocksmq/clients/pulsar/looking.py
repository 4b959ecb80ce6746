"""A transport on Pulsar that only looks: neither a subscription nor positions, so nothing of it stays behind."""

from collections.abc import Sequence
from typing import Any

from rocksmq.protocol.errors import InvalidRequest
from rocksmq.protocol.messages import Start

from ..msgstream.looking import Standing
from ..msgstream.types import MsgPosition
from .places import LATEST
from .transport import PulsarTransport


class LookingPulsarTransport(Standing, PulsarTransport):
    """As `PulsarTransport`, with a subscription that only this object knows of."""

    def __init__(self, url: str, **options: Any) -> None:
        super().__init__(url, **options)
        self._stands = {}

    def subscribe(self, channels: Sequence[str], subscription: str, start: Start) -> None:
        """Begin at ``start``; the latest is that of the first look. Raises InvalidRequest for any but that and the earliest."""
        if start not in ("earliest", "latest"):
            raise InvalidRequest(
                "on Pulsar one looks from earliest or latest on; a stream with a subscription begins elsewhere too"
            )
        self._check_topics(channels, self._deadline())
        msg_id = self.encode(None if start == "earliest" else LATEST)
        self._stands = {channel: MsgPosition(channel, msg_id) for channel in channels} | self._stands
