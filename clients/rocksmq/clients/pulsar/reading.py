"""Messages of many topics of Pulsar, as `Transport.receive` gives them."""

from collections.abc import Callable, Sequence
from typing import Any

from rocksmq.protocol.errors import ChannelNotFound, Timeout

from ..deadline import SLICE_SECONDS, Deadline
from ..msgstream.transport import Received
from ..msgstream.types import StreamGap
from .answers import Answers
from .places import Place
from .tail import NOT_FOUND, Tail

PREFETCH_MAX = 1_000  # messages, of one topic
TOGETHER_SECONDS = 1.0  # what is ready waits once for channels of which it is not known yet whether they have anything
POLL_SECONDS = 30.0  # after which Pulsar is asked whether it is there


class Reading:
    """Reads topics by the names of their channels, ``prefetch`` messages ahead. For one thread at a time."""

    def __init__(
        self, client: Any, answers: Answers, topic_of: Callable[[str], str], timeout: float | None, prefetch: int
    ) -> None:
        self._client = client
        self._answers = answers
        self._topic_of = topic_of
        self._timeout = timeout
        self._prefetch = prefetch
        self._tails: dict[str, Tail] = {}

    def close(self) -> None:
        """Let go of all readers."""
        tails, self._tails = self._tails, {}
        for tail in tails.values():
            tail.close()

    def check(self, channels: Sequence[str], deadline: Deadline) -> None:
        """Raises ChannelNotFound for those of the channels that are gone, as far as a lost connection hints at it."""
        tails = [self._tails[channel] for channel in channels if channel in self._tails]
        asked = {tail.name: tail.looked_for() for tail in tails if tail.is_cut_off}
        self._answers.wait(asked.values(), deadline)
        if gone := [name for name, answer in asked.items() if answer.result == NOT_FOUND]:
            raise ChannelNotFound(f"there are no channels {', '.join(map(repr, gone))} any more")

    def receive(
        self,
        wanted: Sequence[tuple[str, Place | None]],
        max_messages: int,
        max_bytes: int,
        wait: Deadline,
        is_stopped: Callable[[], bool],
    ) -> Sequence[Received]:
        """As `Transport.receive`."""
        prefetch = min(PREFETCH_MAX, max(1, self._prefetch // max(1, len(wanted))))
        tails: list[Tail] = []
        for channel, place in wanted:
            if (tail := self._tails.get(channel)) is None:
                topic = self._topic_of(channel)
                tail = self._tails[channel] = Tail(self._client, self._answers, topic, channel, prefetch)
            tail.stand(place)
            tails.append(tail)
        poll, together = wait.at_most(POLL_SECONDS), Deadline(TOGETHER_SECONDS)
        while True:
            ready = self._ready(tails, is_stopped)
            unknown = [tail for tail in tails if not tail.is_known]
            if ready and (not unknown or together.is_over):
                for tail in unknown:
                    tail.is_known = True  # enough waited
                return _taken(ready[:max_messages], max_messages, max_bytes)
            for tail in unknown if ready else ():
                tail.maybe_at_end()
            if not ready and poll.is_over:
                break
            self._wait(tails, together if ready else poll, is_stopped)
        ready = self._last_look(tails, poll.extended(self._timeout), is_stopped)
        return _taken(ready[:max_messages], max_messages, max_bytes)

    def _ready(self, tails: Sequence[Tail], is_stopped: Callable[[], bool]) -> list[Tail]:
        self._answers.check(is_stopped)
        for tail in tails:
            tail.advance()
        return [tail for tail in tails if tail.is_ready()]

    def _last_look(self, tails: Sequence[Tail], deadline: Deadline, is_stopped: Callable[[], bool]) -> list[Tail]:
        """What is stored by now is on its way, and waited for. Raises Timeout when Pulsar does not say whether anything is."""
        at_end: dict[Tail, bool | None] = dict.fromkeys(tails)
        while True:
            ready = self._ready(tails, is_stopped)
            for tail, known in at_end.items():
                if not known and (found := tail.maybe_at_end()) is not None:
                    at_end[tail] = found
            if all(known or tail in ready for tail, known in at_end.items()):
                return ready
            if not self._wait(tails, deadline, is_stopped) and deadline.is_over:
                if ready or None not in at_end.values():
                    return ready
                name = next(tail.name for tail, known in at_end.items() if known is None)
                raise Timeout(f"Pulsar does not tell in time whether {name!r} has messages")

    def _wait(self, tails: Sequence[Tail], deadline: Deadline, is_stopped: Callable[[], bool] | None) -> bool:
        """Whether anything has changed by then, or for a moment."""
        for tail in tails:
            tail.park()
        slice_end = deadline.at_most(SLICE_SECONDS)
        with self._answers.changed:
            while not any(tail.has_changed() for tail in tails):
                self._answers.check(is_stopped)
                if slice_end.is_over:
                    return not deadline.is_over
                self._answers.changed.wait(slice_end.remaining)
        return True


def _taken(ready: Sequence[Tail], max_messages: int, max_bytes: int) -> list[Received]:
    found: list[Received] = []
    share = max(1, max_messages // max(1, len(ready)))
    for tail in ready:
        taken = tail.take(share, max_bytes, gives_one=not found)
        if not taken:
            break  # what there is of it is too large for this time
        payloads = [message.data() for _, message in taken]
        places = [place for place, _ in taken]
        size, behind = sum(map(len, payloads)), places[-1].behind
        gap, tail.gap = tail.gap, None
        told = None if gap is None else StreamGap(tail.name, gap.begin.number, gap.end.number, None)
        found.append(Received(tail.name, payloads, places, behind, size, told))
        tail.settle(behind)
        max_bytes = max(0, max_bytes - size)
    return found
