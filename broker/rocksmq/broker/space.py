"""Gives the disk back what was removed: compaction of just the spans that trims and destroyed channels left.

RocksDB drops what a range delete covers only when it compacts the tables that hold it, and where nothing more is written it
never does. Owns what is still to be compacted, and one task; the work is done in a thread of its own, one span at a time.
A start knows nothing of what was left: RocksDB gives that back itself, with what is written later, or the next trim does.
"""

import logging
from typing import NamedTuple

import trio

from rocksmq.protocol.errors import StorageFailed

from . import keys
from .channels import Channel, Channels
from .store import Family, Store

logger = logging.getLogger("rocksmq.broker")

MIB = 1 << 20
DUE_BYTES, DUE_PART = 16 * MIB, 8  # removed of a channel, or an 8th of what it has left, whichever is more: then at once
WAIT_SECONDS = 60.0  # for what is less, if it is worth a compaction
LEAST_BYTES = MIB  # what is less waits for more


class _Removed(NamedTuple):
    """Of one channel: before ``end``, and how many bytes of messages; since when."""

    end: bytes
    size: int
    since: float


class Space:
    """``pending_bytes`` of removed messages may still take space on the disk."""

    def __init__(self, store: Store, channels: Channels) -> None:
        self._store = store
        self._channels = channels
        self._removed: dict[int, _Removed] = {}
        self._destroyed: dict[int, None] = {}
        self._more = trio.Event()
        self._thread = trio.CapacityLimiter(1)  # its own, lest compactions take every thread from syncs

    @property
    def pending_bytes(self) -> int:
        return sum(removed.size for removed in self._removed.values())

    def trimmed(self, channel: Channel, kept_id: int, size: int) -> None:
        """Batches before ``kept_id`` were removed, ``size`` bytes of messages."""
        before = self._removed.get(channel.number)
        since = trio.current_time() if before is None else before.since
        self._removed[channel.number] = _Removed(
            keys.batch_key(channel.number, kept_id), size + (0 if before is None else before.size), since
        )
        self._more.set()

    def destroyed(self, channel_number: int) -> None:
        """The whole channel was removed."""
        self._removed.pop(channel_number, None)
        self._destroyed[channel_number] = None
        self._more.set()

    async def run(self) -> None:
        """Compact for ever."""
        while True:
            with trio.move_on_after(WAIT_SECONDS):
                await self._more.wait()
            self._more = trio.Event()
            while self._destroyed:
                number = next(iter(self._destroyed))
                del self._destroyed[number]
                await self._compact(*keys.channel_span(number))
            for number in [number for number in self._removed if self._is_due(number)]:
                await self._compact(keys.channel_span(number)[0], self._removed.pop(number).end)

    def _is_due(self, number: int) -> bool:
        removed, channel = self._removed[number], self._channels.get_numbered(number)
        left = 0 if channel is None else channel.visible.byte_count
        if removed.size >= max(DUE_BYTES, left // DUE_PART):
            return True
        return removed.size >= LEAST_BYTES and trio.current_time() - removed.since >= WAIT_SECONDS

    async def _compact(self, begin: bytes, end: bytes) -> None:
        try:
            await trio.to_thread.run_sync(self._store.compact, Family.DATA, begin, end, limiter=self._thread)
        except StorageFailed:
            logger.exception("the space of removed messages is given back later, by the database itself")
