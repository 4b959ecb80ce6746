"""What Pulsar leaves unanswered of one channel, and when that is given up. Pure: no Pulsar, no clock.

A topic whose own policy refuses a message does not say so: Pulsar's client takes it for a lost connection, and sends it again
and again, at once. What is seen then is one message alone on its way, and a connection that does not last, opening by opening.
A Pulsar that cannot write looks the same, so such a message is never skipped: the channel stops, and is tried again.
"""

from dataclasses import dataclass
from typing import NamedTuple

from rocksmq.protocol.errors import MessageTooLarge, RocksMQError, Timeout

SILENT_SECONDS = 5.0  # with something on the way, until it is told
GIVEN_UP_SECONDS = 60.0  # until the topic is opened anew
REFUSED_OPENINGS = 3  # that one message costs until it is taken for refused
REFUSED_SECONDS = 1.0  # for each of its later ones: whatever else uses the connection loses it too


class Alone(NamedTuple):
    """What is on its way with nothing beside it: one message, or several that Pulsar takes or refuses as one."""

    message_id: int  # of the first
    messages: int
    size: int  # with properties

    def __str__(self) -> str:
        what = f"message {self.message_id}" if self.messages == 1 else f"{self.messages} messages from {self.message_id} on"
        return f"{what} of {self.size} bytes with headers"


@dataclass(slots=True)
class Silence:
    """Of one channel, over its openings."""

    _is_lost: bool = False  # the connection was, in this opening
    _alone: Alone | None = None  # the last that was given up
    _openings: int = 0  # that it has cost

    @property
    def is_suspect(self) -> bool:
        """Whether a message of the channel may be what costs connections."""
        return self._openings > 0

    def broken(self, *, is_answered: bool) -> None:
        """By an answer, another opening, or since nothing is on the way."""
        self._is_lost = False
        if is_answered:
            self._alone, self._openings = None, 0

    def look(
        self, topic: str, seconds: float, alone: Alone | None, *, is_connected: bool, is_pulsar_there: bool
    ) -> RocksMQError | None:
        """Why the opening is to be given up, after so many ``seconds``; None: not yet. To be asked again and again.

        ``is_pulsar_there``: another topic is connected.
        """
        self._is_lost = self._is_lost or not is_connected
        is_refused = alone is not None and self._is_lost
        patience = GIVEN_UP_SECONDS
        if is_refused or (is_pulsar_there and not is_connected):
            patience = SILENT_SECONDS
        if is_refused and alone == self._alone and self._openings >= REFUSED_OPENINGS:
            patience = REFUSED_SECONDS
        if seconds <= patience:
            return None
        if alone is None or not is_refused:
            return silent(topic, seconds, alone)
        self._openings = self._openings + 1 if alone == self._alone else 1
        self._alone = alone
        if self._openings < REFUSED_OPENINGS:
            return silent(topic, seconds, alone)
        return MessageTooLarge(
            f"{topic}: {alone} is never answered, and costs the connection each time ({self._openings} openings): a "
            "maxMessageSize of the topic's own? Or Pulsar cannot write: its client does not tell which, so it is not skipped, "
            "but tried again"
        )


def silent(topic: str, seconds: float, alone: Alone | None) -> Timeout:
    """As it is told while Pulsar may be away."""
    on_the_way = "" if alone is None else f"; on its way, alone, is {alone}"
    return Timeout(f"{topic}: Pulsar has acknowledged nothing for {seconds:.0f} s{on_the_way}")
