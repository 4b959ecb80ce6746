"""Gives the disk back what was removed: compaction of just the spans that trims and destroyed channels left.

RocksDB drops what a range delete covers only when it compacts the tables that hold it, and where nothing more is written it
never does. Owns what is still to be compacted, and one task; the work is done in a thread of its own, one span at a time.
A start finds what is left in the tables themselves, but for what shares a table with messages before it: less than a table.
"""

import logging
import math
from collections.abc import Callable
from typing import NamedTuple

import trio

from rocksmq.protocol.errors import StorageFailed

from . import keys
from .channels import Channel, Channels
from .store import Family, Store

logger = logging.getLogger("rocksmq.broker")

MIB = 1 << 20
DUE_BYTES, DUE_PART = 16 * MIB, 8  # removed of a channel, or an 8th of what it has left, whichever is more: then at once
WAIT_SECONDS = 60.0  # for what is less, if it is worth a compaction; none while the disk is full
LEAST_BYTES = MIB  # what is less waits for more
LOOK_SECONDS = 1.0  # while something is left
RETRY_SECONDS = 5.0  # after a compaction that failed


class _Removed(NamedTuple):
    """Of one channel: before ``end``, and how many bytes of messages; since when; ``is_due`` whatever the size."""

    end: bytes
    size: int
    since: float
    is_due: bool


class Space:
    """``pending_bytes`` of removed messages may still take space on the disk, those of destroyed channels not counted."""

    def __init__(self, store: Store, channels: Channels, is_disk_full: Callable[[], bool]) -> None:
        self._store = store
        self._channels = channels
        self._is_disk_full = is_disk_full
        self._removed: dict[int, _Removed] = {}
        self._more = trio.Event()
        self._thread = trio.CapacityLimiter(1)  # its own, lest compactions take every thread from syncs

    @property
    def pending_bytes(self) -> int:
        return sum(removed.size for removed in self._removed.values())

    def trimmed(self, channel: Channel, kept_id: int, size: int) -> None:
        """Batches before ``kept_id`` were removed, ``size`` bytes of messages."""
        self._add(channel.number, _Removed(keys.batch_key(channel.number, kept_id), size, trio.current_time(), is_due=False))

    def destroyed(self, channel_number: int) -> None:
        """The whole channel was removed."""
        self._add(channel_number, _Removed(keys.channel_span(channel_number)[1], 0, trio.current_time(), is_due=True))

    def _add(self, number: int, removed: _Removed) -> None:
        before = self._removed.get(number, removed._replace(size=0))
        self._removed[number] = _Removed(
            max(before.end, removed.end), before.size + removed.size, before.since, before.is_due or removed.is_due
        )
        self._more.set()

    def _find_left(self) -> None:
        """What a former run removed and did not compact, as far as tables begin with it."""
        for table in self._store.tables():
            number, first_id = keys.batch_place(table.begin) or (0, 0)
            channel = self._channels.get_numbered(number)
            if channel is None and number:
                self.destroyed(number)
            elif channel is not None and first_id < channel.visible.begin_id:
                end = keys.batch_key(number, channel.visible.begin_id)
                self._add(number, _Removed(end, 0, trio.current_time(), is_due=True))

    async def run(self) -> None:
        """Compact for ever."""
        self._find_left()
        while True:
            with trio.move_on_after(LOOK_SECONDS if self._removed else math.inf):
                await self._more.wait()
            self._more = trio.Event()
            for number in [number for number in self._removed if self._is_due(number)]:
                await self._compact(number)

    def _is_due(self, number: int) -> bool:
        removed, channel = self._removed[number], self._channels.get_numbered(number)
        left = 0 if channel is None else channel.visible.byte_count
        if removed.is_due or removed.size >= max(DUE_BYTES, left // DUE_PART):
            return True
        is_late = trio.current_time() - removed.since >= WAIT_SECONDS
        return removed.size >= LEAST_BYTES and (is_late or self._is_disk_full())

    async def _compact(self, number: int) -> None:
        removed = self._removed.pop(number)
        begin = keys.channel_span(number)[0]
        try:
            await trio.to_thread.run_sync(self._store.compact, Family.DATA, begin, removed.end, limiter=self._thread)
        except StorageFailed as error:
            logger.warning("the space of removed messages is given back later: %s", error)
            self._add(number, removed)
            await trio.sleep(RETRY_SECONDS)
