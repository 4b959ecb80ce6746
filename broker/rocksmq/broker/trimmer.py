"""Removes what retention lets go (contract §6): looks once a second, finds the place, trims in the group commit.

Owns when it looks and how much it does in one go; what may go is decided in `retention`. Few batches are deleted one by one,
many by one range delete: thousands of those make each read slow, so each takes much with it. Then `space` gives the disk
back. All in the loop's thread, with a turn for others between any two reads of the store.
"""

import logging
from collections.abc import Callable, Iterable
from enum import Enum
from heapq import heapify, heappop, heappush
from typing import NamedTuple

import trio

from rocksmq.protocol.errors import MetaUnavailable, RocksMQError, StorageFailed

from . import keys
from .channels import Channel, Channels
from .clock import ClockGuard, ClockNote
from .commit import Committer, Done
from .durability import Durability
from .groups import Group
from .ids import IDAllocator, clock_ms, time_ms_of
from .log import Log
from .records import Begin, Extent, StoredBatch
from .retention import Cut, Hold, RetentionSection, cut, holds
from .store import Family, Put

logger = logging.getLogger("rocksmq.broker")

LOOK_SECONDS = 1.0
PAUSE_SECONDS = 0.05  # between two looks, however urgent
FEW_BATCHES, FEW_BYTES = 1_024, 4 << 20  # up to so many are deleted one by one
TRIMS_MAX = 64  # of a look, besides those of channels far above a cap; the others' turn is with the next
TELL_SECONDS = 600.0  # between two lines in the log that a channel cannot be read
A_TURN = 50  # channels and groups that are looked at in one go
SLACK_BYTES, SLACK_PART = 16 << 20, 16  # so far, or by a 16th, a cap is exceeded before that is urgent: whichever is more
STEP_BYTES, STEP_PART = 16 << 20, 8  # of the broker's cap: so much of a channel, or an 8th, before the next oldest has its turn
WRITTEN = Durability.parse("os")


def slack(cap: int) -> int:
    """By how many bytes ``cap`` may be exceeded until the next look."""
    return max(SLACK_BYTES, cap // SLACK_PART)


def is_urgent(channel: Channel) -> bool:
    """Whether it is so far above one of its caps that the next look would be late."""
    extent, rules = channel.visible, channel.rules
    if rules.max_bytes and extent.byte_count > rules.max_bytes + slack(rules.max_bytes):
        return True
    if not rules.max_messages or extent.message_count <= rules.max_messages:
        return False
    kept_bytes = extent.byte_count * rules.max_messages // extent.message_count
    return extent.byte_count > kept_bytes + slack(kept_bytes)


class Measure(Enum):
    """What is counted before a message."""

    MESSAGES = "messages"
    BYTES = "bytes"

    def begin(self, batch: StoredBatch) -> int:
        """Before the batch."""
        return batch.base_offset if self is Measure.MESSAGES else batch.base_bytes

    def end(self, batch: StoredBatch) -> int:
        """Up to its end."""
        return self.begin(batch) + (batch.count if self is Measure.MESSAGES else batch.size)

    def sizes(self, batch: StoredBatch) -> list[int]:
        """How much each of its messages is."""
        return [1] * batch.count if self is Measure.MESSAGES else batch.sizes(0, batch.count)


class Found(NamedTuple):
    """Where a channel may begin, and the first id of the batch that holds that."""

    begin: Begin
    first_kept_id: int


class Trimmer:
    """``freed`` is told what was trimmed: the channel, up to which id its batches are gone, and the bytes of its messages."""

    def __init__(
        self,
        committer: Committer,
        channels: Channels,
        log: Log,
        ids: IDAllocator,
        section: RetentionSection,
        groups_of: Callable[[Channel], Iterable[Group]],
        clock: ClockGuard,
        stored_clock: ClockNote | None,
    ) -> None:
        """``groups_of`` a channel, those included that may come back; it raises MetaUnavailable when they are not known."""
        self.clock = clock
        self.section = section
        self.removed_messages = self.removed_bytes = 0
        self.freed: Callable[[Channel, int, int], None] = lambda channel, kept_id, size: None
        self._committer = committer
        self._channels = channels
        self._log = log
        self._ids = ids
        self._groups_of = groups_of
        self._noted = stored_clock
        self._urgent: dict[Channel, None] = {}
        self._told_at: dict[int, float] = {}  # when a channel was said to be unreadable
        self._first = 0  # of the channels, where the next look begins
        self._grown = 0  # bytes since the last look
        self._soon = trio.Event()
        self._trims = 0  # of this look, or of the broker's cap in it
        self._in_a_row = 0  # channels and groups looked at, since others had a turn
        self._now_ms = 0

    # -- what is told ------------------------------------------------------------

    def look_soon(self, channel: Channel) -> None:
        """Look at it at once."""
        self._urgent[channel] = None
        self._soon.set()

    def looking(self, done: Done, channels: Iterable[Channel]) -> Done:
        """``done``, which also has ``channels`` looked at: what changed for them is durable then."""

        def answered(reply: object) -> None:
            done(reply)
            if not isinstance(reply, RocksMQError):
                for channel in channels:
                    self.look_soon(channel)

        return answered

    def grew(self, channel: Channel, size: int) -> None:
        """So many bytes were appended to it."""
        if is_urgent(channel):
            self.look_soon(channel)
        self._grown += size
        cap = self.section.total_bytes_max
        if cap and self._grown > slack(cap):
            self._soon.set()

    def confirm_clock(self) -> None:
        """The clock is right as it is."""
        self.clock.confirm()
        self._soon.set()

    def lowest(self, channel: Channel) -> list[Hold]:
        """What its groups keep, who keeps most comes first; empty when they are not known."""
        try:
            return holds(self._groups_of(channel), 0 if self.clock.doubt is not None else clock_ms())
        except MetaUnavailable:
            return []

    def held(self, channel: Channel) -> list[str | int] | None:
        """The group that keeps most of the channel, from which id on, and how many bytes; None where that cannot be read."""
        extent = channel.visible
        kept = self.lowest(channel) if channel.rules.consumed_by_all and extent.message_count else []
        if not kept or kept[0].message_id > extent.end_id:
            return None
        group, message_id = kept[0]
        try:
            begin = self._at(channel, extent, message_id).begin
        except StorageFailed:
            return None
        return [group, begin.message_id, extent.end_bytes - begin.size]

    # -- looking -----------------------------------------------------------------

    async def run(self) -> None:
        """Look for ever."""
        while True:
            with trio.move_on_after(LOOK_SECONDS):
                await self._soon.wait()
            self._soon = trio.Event()
            await self._look()
            await trio.sleep(PAUSE_SECONDS)

    async def _look(self) -> None:
        self._now_ms = clock_ms()  # of the whole look: a step behind this line is seen by the next one
        self.clock.look(time_ms_of(self._ids.present_id))
        self._note_clock()
        self._trims = 0
        urgent, self._urgent = self._urgent, {}
        for channel in urgent:
            await self._look_at(channel)
        everything = list(self._channels)
        begin = self._first % max(1, len(everything))
        for index, channel in enumerate(everything[begin:] + everything[:begin]):
            if self._trims >= TRIMS_MAX:
                self._first = begin + index
                break
            if any(channel.rules):
                await self._look_at(channel)
            self._in_a_row += 1
            if self._in_a_row >= A_TURN:
                self._in_a_row = 0
                await trio.lowlevel.checkpoint()
        self._trims = 0
        if self.section.total_bytes_max:
            await self._keep_total(self.section.total_bytes_max)

    def _note_clock(self) -> None:
        """Store what is known of the clock, once it is another."""
        note = self.clock.note
        is_needed = note.doubt is not None or any(channel.rules.max_age_ms for channel in self._channels)
        if note == self._noted or not (is_needed or self._noted is not None):
            return
        if note.doubt is not None and (self._noted is None or self._noted.doubt is None):
            logger.warning(
                "%s: no message is removed for its age until `rocksmq status --confirm-clock` says that the clock is right",
                note.doubt,
            )
        self._committer.open.put(Put(Family.META, keys.CLOCK, note.encode()))
        former, self._noted = self._noted, note

        def done(reply: object) -> None:
            if isinstance(reply, RocksMQError):
                self._noted = former  # the next look stores it

        self._committer.open.answer(done, None, WRITTEN)
        self._committer.wake()

    def _kept(self, channel: Channel) -> Extent:
        """What readers have of it, without what is being removed."""
        is_trimmed = (
            channel.value.begin_id > channel.visible.begin_id and channel.value.begin_offset > channel.visible.begin_offset
        )
        return channel.visible.trimmed(channel.value.begin) if is_trimmed else channel.visible

    async def _look_at(self, channel: Channel) -> None:
        extent, rules = self._kept(channel), channel.rules
        if not extent.message_count:
            return
        kept = self.lowest(channel) if rules.consumed_by_all else []
        self._in_a_row += len(kept)
        expired_before_ms = None if self.clock.doubt is not None else self._now_ms - rules.max_age_ms
        wanted = cut(rules, extent, expired_before_ms=expired_before_ms, lowest=kept[0] if kept else None)
        if wanted.takes(extent):
            await self._trim(channel, wanted)

    async def _keep_total(self, cap: int) -> None:
        """Remove the broker's oldest messages while it holds more than ``cap`` bytes."""
        self._grown = 0
        extents = {channel.number: self._kept(channel) for channel in self._channels}
        excess = sum(extent.byte_count for extent in extents.values()) - cap
        if excess <= 0:
            return
        oldest = [(extent.begin_id, number) for number, extent in extents.items() if extent.byte_count]
        heapify(oldest)
        while excess > 0 and oldest and self._trims < TRIMS_MAX:
            _, number = heappop(oldest)
            if (channel := self._channels.get_numbered(number)) is None:
                continue
            extent = self._kept(channel)
            step = min(excess, max(STEP_BYTES, extent.byte_count // STEP_PART))
            size = await self._trim(channel, Cut(0, 0, extent.begin_bytes + step))
            excess -= size
            if size and (extent := self._kept(channel)).byte_count:
                heappush(oldest, (extent.begin_id, number))

    # -- trimming ----------------------------------------------------------------

    async def _trim(self, channel: Channel, wanted: Cut) -> int:
        """Remove what ``wanted`` says; how many bytes that is."""
        extent, rules = self._kept(channel), channel.rules
        try:
            found = self._at(channel, extent, wanted.message_id)
            if wanted.offset > found.begin.offset:
                found = await self._find(channel, extent, Measure.MESSAGES, wanted.offset)
            if wanted.size > found.begin.size:
                found = await self._find(channel, extent, Measure.BYTES, wanted.size)
        except StorageFailed as error:
            self._tell_unreadable(channel, error)
            return 0
        former = channel.value
        is_other = self._channels.get_numbered(channel.number) is not channel or channel.rules != rules
        if is_other or found.begin.message_id <= former.begin_id:
            return 0
        begin = found.begin
        count, size = begin.offset - former.begin_offset, begin.size - former.begin_bytes
        try:
            if begin.message_id > extent.end_id:  # there may be messages that readers do not have yet
                begin = begin._replace(message_id=self._log.place(channel.number, begin.message_id, former).message_id)
            few = self._log.first_ids(channel.number, former, found.first_kept_id, FEW_BATCHES) if size <= FEW_BYTES else None
        except StorageFailed as error:
            self._tell_unreadable(channel, error)
            return 0
        self._channels.trim(self._committer.open, channel, begin, found.first_kept_id, few)

        def done(reply: object) -> None:
            if isinstance(reply, RocksMQError):
                return  # it was undone, and the next look finds the same
            self.removed_messages += count
            self.removed_bytes += size
            self.freed(channel, found.first_kept_id, size)

        self._committer.open.answer(done, None, WRITTEN)
        self._committer.wake()
        self._trims += 1
        await trio.lowlevel.checkpoint()
        return size

    def _tell_unreadable(self, channel: Channel, error: StorageFailed) -> None:
        now = trio.current_time()
        if now - self._told_at.get(channel.number, -TELL_SECONDS) >= TELL_SECONDS:
            self._told_at[channel.number] = now
            logger.error("nothing is removed from channel %s: %s", channel.name, error)

    def _at(self, channel: Channel, extent: Extent, message_id: int) -> Found:
        """The first message at or behind ``message_id``, or the end."""
        if message_id <= extent.begin_id:
            return Found(extent.begin, extent.begin_id)
        batch = None
        if message_id <= extent.end_id:
            batch = self._log.holding(channel.number, message_id, extent, StoredBatch.decode)
        if batch is None:
            return Found(Begin(extent.end_id + 1, extent.end_offset, extent.end_bytes, extent.end_id + 1), extent.end_id + 1)
        index = max(0, message_id - batch.first_id)
        removed_end = message_id if index else self._log.end_before(channel.number, batch.first_id)
        return Found(_within(batch, index, removed_end or extent.removed_end), batch.first_id)

    async def _find(self, channel: Channel, extent: Extent, measure: Measure, target: int) -> Found:
        """The first message with ``target`` before it, as ``measure`` counts. Raises StorageFailed."""
        low, high = extent.begin_id, extent.end_id
        found: StoredBatch | None = None
        while low <= high:
            middle = (low + high) // 2
            batch = self._log.holding(channel.number, middle, extent)
            if batch is not None and measure.end(batch) < target:
                low = batch.end_id + 1
            else:
                found, high = batch or found, min(middle, high if batch is None else batch.first_id) - 1
            await trio.lowlevel.checkpoint()
        if found is not None:
            found = self._log.holding(channel.number, found.first_id, extent, StoredBatch.decode)
        if found is None:
            return self._at(channel, extent, extent.end_id + 1)
        index, reached = 0, measure.begin(found)
        for size in measure.sizes(found):
            if reached >= target:
                break
            index, reached = index + 1, reached + size
        if index == found.count:
            return self._at(channel, extent, found.end_id + 1)
        return Found(_within(found, index, found.first_id + index if index else low), found.first_id)


def _within(batch: StoredBatch, index: int, removed_end: int) -> Begin:
    """At message ``index`` of ``batch``."""
    size = sum(batch.sizes(0, index)) if index else 0
    return Begin(batch.first_id + index, batch.base_offset + index, batch.base_bytes + size, removed_end)
