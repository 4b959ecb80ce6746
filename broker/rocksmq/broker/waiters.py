"""Long polls that found nothing yet: who waits on which channels, and until when.

Level-triggered: a waiter is kept with the attempt that was made for it, and the attempt is simply
made again whenever there may be more; the event itself decides no more than which channels are looked at.
A waiter on many channels is one waiter, with a place in the table of each: parking it and letting it go takes
time by their number, and being woken by those that have something.
"""

import logging
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from heapq import heapify, heappop, heappush
from itertools import count
from typing import NamedTuple

import trio

from rocksmq.protocol.errors import InternalError, LimitExceeded, RocksMQError

from .commit import Commit, Done

logger = logging.getLogger("rocksmq.broker")

CLAIM_BYTES_MAX = 16 << 20  # of a commit, above which waiting consumers have to wait for the next
TURN_SECONDS = 0.005  # of attempts in one go; then others have a turn of the loop
PLACES_EACH = 16  # what a waiter takes besides its places on channels, in such places: some 2 kB
STALE_MAX = 1_000  # deadlines kept of long polls that are gone, some 100 bytes each; then they are swept out


class Many(NamedTuple):
    """The groups of one name on several channels; whether an operation on them writes their states, or deletes them.

    ``only_missing``: it makes those that are not there, and leaves the others alone.
    """

    group: str
    channel_numbers: Sequence[int]
    is_written: bool = True
    only_missing: bool = False


class Waiter:
    """One parked request, on one channel or on many.

    ``attempt(commit, sealing)`` answers it if it can and says whether it did; with ``sealing`` it may claim
    what ``commit`` itself brings. ``expire`` answers that nothing came, ``done`` takes an error. ``starts`` is
    what a fetch waits for on each channel, None for an operation on groups; ``ready`` are those of its channels that
    may have something since the last attempt, which an attempt may keep to; ``consumer`` is a consume's group and consumer
    id; ``many`` are the groups of an operation on several, all of which are changed in one commit. While
    ``must_wait`` it is not attempted: its answer could not leave. ``unavailable`` makes the error to answer when its
    deadline, told apart by ``order``, passes while it waits for its store, in whose queue it is or not; ``until`` is how
    long it wants to wait for messages, and ``has_waited`` whether it did.
    """

    __slots__ = (
        *("_expire", "attempt", "channel_numbers", "consumer", "done", "has_waited", "is_queued"),
        *("many", "must_wait", "order", "ready", "starts", "unavailable", "until"),
    )

    def __init__(
        self,
        channel_numbers: Sequence[int],
        attempt: Callable[[Commit, bool], bool],
        expire: Callable[[], None],
        done: Done,
        starts: Mapping[int, int] | None = None,
        ready: set[int] | None = None,
    ) -> None:
        self.channel_numbers = channel_numbers
        self.attempt = attempt
        self.done = done
        self.starts = starts
        self.ready: set[int] = set() if ready is None else ready
        self.consumer: tuple[str, bytes] | None = None
        self.many: Many | None = None
        self.must_wait: Callable[[], bool] = _never
        self.unavailable: Callable[[], RocksMQError] | None = None
        self.is_queued = self.has_waited = False
        self.order = -1
        self.until = 0.0
        self._expire = expire

    @property
    def reads(self) -> bool:
        """Whether it waits for messages."""
        return self.starts is not None or self.consumer is not None

    def may_read(self, channel_number: int, end_id: int) -> bool:
        """Whether a channel that reaches to ``end_id`` may have something for it."""
        return self.starts is None or self.starts[channel_number] <= end_id

    def expire(self) -> None:
        """Answer that nothing came, or why nothing can."""
        try:
            if self.unavailable is not None:
                raise self.unavailable()
            self._expire()
        except RocksMQError as error:
            self.done(error)


def _never() -> bool:
    return False


def _places(waiter: Waiter) -> int:
    return PLACES_EACH + len(waiter.channel_numbers)


class Waiters:
    """All parked requests, first come first served a channel.

    ``place_count`` is on how many channels each of them waits, and PLACES_EACH more, added up; above ``places_max`` no more may
    wait for messages. ``passed_over``: those whose answer could not leave, or would have made the commit too large.
    """

    def __init__(
        self,
        places_max: int,
        refuse: Callable[[Done, RocksMQError], None] = lambda done, error: done(error),
        attempt: Callable[[Waiter], None] = lambda waiter: None,
    ) -> None:
        """``refuse`` answers with an error, now or once that is sure; ``attempt`` attempts one where its commit is open."""
        self._places_max = places_max
        self._refuse = refuse
        self._attempt = attempt
        self._due: OrderedDict[Waiter, None] = OrderedDict()  # not attempted yet since one of their channels brought more
        self.passed_over: dict[Waiter, None] = {}
        self.place_count = 0
        self._parked: dict[Waiter, None] = {}
        self._waiting: dict[int, dict[Waiter, None]] = {}  # by channel number
        self._deadlines: list[tuple[float, int]] = []  # with those of waiters that are gone, but nothing else of them
        self._expiring: dict[int, Waiter] = {}  # by the order of its deadline
        self._order = count()
        self._sooner = trio.Event()

    def park(self, waiter: Waiter, seconds: float) -> None:
        """Keep ``waiter`` until it is served, cancelled, or ``seconds`` have passed: from now on, if it is parked already."""
        if waiter not in self._parked:
            self._parked[waiter] = None
            self.place_count += _places(waiter)
            for channel_number in waiter.channel_numbers:
                self._waiting.setdefault(channel_number, {})[waiter] = None
        if len(self._deadlines) > 2 * len(self._parked) + STALE_MAX:
            self._deadlines = [entry for entry in self._deadlines if entry[1] in self._expiring]
            heapify(self._deadlines)
        self._expiring.pop(waiter.order, None)
        waiter.order = next(self._order)
        self._expiring[waiter.order] = waiter
        heappush(self._deadlines, (trio.current_time() + seconds, waiter.order))
        if self._deadlines[0][1] == waiter.order:
            self._sooner.set()

    def wait(self, waiter: Waiter, wait_ms: int) -> Waiter | None:
        """Park it, if it waits at all; None: it was told that nothing came. Raises LimitExceeded."""
        if wait_ms == 0:
            waiter.expire()
            return None
        self.check_places(_places(waiter))
        waiter.has_waited = True
        self.park(waiter, wait_ms / 1000)
        return waiter

    def check_places(self, more: int = 0) -> None:
        """Whether those that wait for messages may have so many ``more``. Raises LimitExceeded."""
        if self.place_count + more > self._places_max:
            raise LimitExceeded(
                f"requests wait on {self._places_max} channels already, each of which counts as {PLACES_EACH} more"
                " (waiting_channels_max): wait on fewer channels or with fewer readers, or raise the limit"
            )

    def announce(self, channel_number: int, end_id: int) -> None:
        """A channel reaches to ``end_id``: those for whom it may have something are attempted in `attempt_due`."""
        for waiter in self._waiting.get(channel_number, ()):
            if waiter.may_read(channel_number, end_id):
                waiter.ready.add(channel_number)
                self._due[waiter] = None

    def attempt_due(self) -> None:
        """Attempt those, in the order they were announced, for TURN_SECONDS; `run` goes on with the others."""
        end = trio.current_time() + TURN_SECONDS if self._due else 0
        while self._due:
            waiter, _ = self._due.popitem(last=False)
            self._attempt(waiter)
            if self._due and trio.current_time() > end:
                self._sooner.set()
                return

    def attempt(self, waiter: Waiter, commit: Commit, *, sealing: bool = False) -> None:
        """Attempt it in ``commit``, unless its answer could not leave."""
        if waiter.must_wait() or commit.size >= CLAIM_BYTES_MAX:
            self.passed_over[waiter] = None
        else:
            self.serve(waiter, commit, sealing=sealing)

    def serve(self, waiter: Waiter, commit: Commit, *, sealing: bool = False) -> None:
        """Attempt it in ``commit``."""
        try:
            if waiter.attempt(commit, sealing):
                self.cancel(waiter)
            else:
                waiter.ready.clear()  # there is nothing, and what comes will be announced
        except RocksMQError as error:
            self.cancel(waiter)
            self._refuse(waiter.done, error)
        except Exception:
            logger.exception("a bug: a waiting request could not be handled")
            self.cancel(waiter)
            waiter.done(InternalError("the broker met a bug; its log has the details"))

    def holds(self, waiter: Waiter) -> bool:
        """Whether it still waits."""
        return waiter in self._parked

    def cancel(self, waiter: Waiter) -> bool:
        """Forget it without an answer; whether it still waited."""
        if waiter not in self._parked:
            return False
        del self._parked[waiter], self._expiring[waiter.order]
        self.passed_over.pop(waiter, None)
        self._due.pop(waiter, None)
        self.place_count -= _places(waiter)
        for channel_number in waiter.channel_numbers:
            waiting = self._waiting[channel_number]
            del waiting[waiter]
            if not waiting:
                del self._waiting[channel_number]
        return True

    def of(self, channel_number: int) -> Iterator[Waiter]:
        """Those on a channel, in the order they came; those that are served or cancelled meanwhile are left out."""
        return filter(self.holds, tuple(self._waiting.get(channel_number, ())))

    def __iter__(self) -> Iterator[Waiter]:
        """Each once, in the order they came."""
        return filter(self.holds, tuple(self._parked))

    def __len__(self) -> int:
        return len(self._parked)

    async def run(self) -> None:
        """Expire waiters at their deadlines, and attempt those for whom one turn was too short, for ever."""
        while True:
            self._sooner = trio.Event()
            if self._due:
                await trio.lowlevel.checkpoint()
                self.attempt_due()
            else:
                deadline = self._deadlines[0][0] if self._deadlines else float("inf")
                with trio.move_on_at(deadline):
                    await self._sooner.wait()
            while self._deadlines and self._deadlines[0][0] <= trio.current_time():
                waiter = self._expiring.get(heappop(self._deadlines)[1])
                if waiter is not None and self.cancel(waiter):
                    waiter.expire()
