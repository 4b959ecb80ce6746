"""Who may add to a commit that is full: weighted fair queueing by bytes, all weights the same.

Each writer has a finish tag: how far it has got on a virtual clock, in bytes. What it adds begins where it finished, but not
before the clock, which goes on as if all that wait were served at once, each a byte at a time. While a commit is full its
writers wait; once there is room those come first that would have finished first. So a small batch does not stand behind
a hundred large ones, and nobody waits for ever.

Demers, Keshav, Shenker: Analysis and Simulation of a Fair Queueing Algorithm (SIGCOMM 1989).
"""

from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count

import trio


class Writer:
    """One that adds to commits, batch by batch.

    ``size``: what it added last, in bytes, to the commit number ``commit``; 0: it has not added since, but read.
    """

    __slots__ = ("commit", "event", "finish", "promised", "size")

    def __init__(self) -> None:
        self.finish = 0.0
        self.size = self.promised = 0
        self.commit = -1
        self.event: trio.Event | None = None  # it waits for this


class FairQueue:
    """The writers that wait. ``room``: how many bytes more the commit takes; ``excess_max``: how many too many at most.

    Room is promised to those that are let in, until they have added something or turned out not to. As long as somebody
    waits, the room is taken or promised: so whoever waits is let in.
    """

    def __init__(self, room: Callable[[], int], excess_max: int) -> None:
        self._room = room
        self._excess_max = excess_max
        self._commit = 0  # the open one
        self._clock = 0.0
        self._waiting: list[tuple[float, int, Writer]] = []
        self._waiting_count = 0  # without those that have left
        self._arrivals = count()
        self._promised = 0

    def must_wait(self, writer: Writer) -> bool:
        """Whether to `wait` before the next batch.

        Not whoever has read last, since the last commit was taken; nor who would be let in before all that wait already.
        """
        if not writer.size or writer.promised or (room := self._room()) > self._promised:
            return False
        return room <= -self._excess_max or not self._waiting or self._start(writer) + writer.size >= self._waiting[0][0]

    async def wait(self, writer: Writer) -> None:
        """Until room is promised to ``writer``, or it leaves. A promise is to be redeemed at once, by `added` or `pass_on`."""
        writer.event = trio.Event()
        writer.finish = self._start(writer)
        self._waiting_count += 1
        heappush(self._waiting, (writer.finish + writer.size, next(self._arrivals), writer))
        await writer.event.wait()

    def added(self, writer: Writer, size: int) -> None:
        """``writer`` has added so many bytes to the commit, maybe none."""
        if size:
            writer.finish = size + (writer.finish if writer.promised else self._start(writer))
            self._clock += size / (1 + self._waiting_count)
        if size or writer.commit != self._commit:
            writer.size, writer.commit = size, self._commit
        self.pass_on(writer)

    def pass_on(self, writer: Writer) -> None:
        """What was promised to ``writer`` and is left is for others."""
        if writer.promised:
            self._promised -= writer.promised
            writer.promised = 0
            self._let_in()

    def leave(self, writer: Writer) -> None:
        """``writer`` adds nothing any more."""
        if writer.event is not None:
            self._wake(writer)
        self.pass_on(writer)

    def taken(self) -> None:
        """The commit was taken, and the next one is empty."""
        self._commit += 1
        self._let_in()

    def _let_in(self) -> None:
        while self._waiting and self._promised < self._room():
            writer = heappop(self._waiting)[-1]
            if writer.event is not None:
                writer.promised = writer.size
                self._promised += writer.size
                self._wake(writer)

    def _wake(self, writer: Writer) -> None:
        assert writer.event is not None, "it waits"
        writer.event.set()
        writer.event = None
        self._waiting_count -= 1

    def _start(self, writer: Writer) -> float:
        """Where its next batch begins."""
        return max(self._clock, writer.finish)
