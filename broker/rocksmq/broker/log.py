"""The messages of all channels: the tail cache over the store, and reading by position.

Owns no truth: a batch is in the cache, in the store, or in both, and always the same.
Batches of a commit that is not written yet are in the cache only; `TailCache` keeps them
until `TailCache.written`. Readers are bounded by the extent that the caller gives,
so nothing that is not durable is read unless the caller asks for it.
"""

from bisect import bisect_right
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from typing import NamedTuple

from rocksmq.protocol.batch import RecordBatch

from .keys import batch_key, first_id_of
from .records import Extent, StoredBatch
from .store import Family, Store

PARTIAL_BYTES_MAX = 16 << 20  # batches that readers stopped inside of, and find again without the store
ENTRY_BYTES = 300  # what a batch costs in the cache beside its value
EVICTED_MAX = 1_024  # evicted entries that a list keeps before it is cut
HEADS_MAX = 16  # batches of a channel that were read last, and whose offsets are known without the store
HEAD_CHANNELS_MAX = 2_048  # of which that holds, those that were read last


Decode = Callable[[bytes, bytes], StoredBatch]


class Slice(NamedTuple):
    """Messages ``start`` up to, not including, ``stop`` of ``batch``."""

    batch: StoredBatch
    start: int
    stop: int

    @property
    def first_id(self) -> int:
        return self.batch.first_id + self.start

    @property
    def columns(self) -> RecordBatch:
        return self.batch.slice(self.start, self.stop)


class Reading(NamedTuple):
    """What a read found: slices in order, and the position behind them."""

    slices: list[Slice]
    message_count: int
    next_position: int
    size: int  # bytes of payloads and headers
    misfit_bytes: int = 0  # of the batch that was loaded in vain, as its next message does not fit

    @property
    def next_offset(self) -> int:
        """How many messages were ever appended before ``next_position``; there are messages."""
        return self.slices[-1].batch.base_offset + self.slices[-1].stop

    @property
    def first_id(self) -> int:
        """Of its messages."""
        return self.slices[0].first_id


class Place(NamedTuple):
    """Where a position lies: id of the first message at or after it, and how many were ever appended before that."""

    message_id: int
    offset: int


class _Head(NamedTuple):
    """What is known of a batch that was read."""

    first_id: int
    end_id: int
    base_offset: int


class _Tail:
    """The newest batches of one channel, contiguous up to the channel's end; what lies before ``head`` was evicted."""

    __slots__ = ("batches", "first_ids", "head")

    def __init__(self) -> None:
        self.batches: list[StoredBatch | None] = []
        self.first_ids: list[int] = []
        self.head = 0

    def evict(self) -> None:
        """Drop the oldest."""
        self.batches[self.head] = None
        self.head += 1
        if self.head > EVICTED_MAX and self.head * 2 > len(self.batches):
            del self.batches[: self.head], self.first_ids[: self.head]
            self.head = 0

    @property
    def is_empty(self) -> bool:
        return self.head == len(self.batches)


class TailCache:
    """The newest batches, bounded in bytes over all channels; the oldest go first."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        self._tails: dict[int, _Tail] = {}
        self._age: deque[tuple[int, StoredBatch]] = deque()  # oldest first; a dropped channel's stay until their turn
        self._unwritten = 0  # so many of the newest must stay

    def append(self, channel_number: int, batch: StoredBatch) -> None:
        """Add the newest batch of a channel; it stays until `written` at least."""
        tail = self._tails.get(channel_number)
        if tail is None:
            tail = self._tails[channel_number] = _Tail()
        tail.batches.append(batch)
        tail.first_ids.append(batch.first_id)
        self._age.append((channel_number, batch))
        self._bytes += len(batch.value) + ENTRY_BYTES
        self._unwritten += 1

    def written(self) -> None:
        """All batches so far are in the store."""
        self._unwritten = 0
        while self._bytes > self._bytes_max and self._age:
            channel_number, batch = self._age.popleft()
            self._bytes -= len(batch.value) + ENTRY_BYTES
            tail = self._tails.get(channel_number)
            if tail is not None and tail.batches[tail.head] is batch:
                tail.evict()
                if tail.is_empty:
                    del self._tails[channel_number]

    def roll_back(self) -> None:
        """Forget the batches that were not written."""
        for _ in range(self._unwritten):
            channel_number, batch = self._age.pop()
            self._bytes -= len(batch.value) + ENTRY_BYTES
            tail = self._tails.get(channel_number)
            if tail is not None and tail.batches[-1] is batch:
                tail.batches.pop()
                tail.first_ids.pop()
                if tail.is_empty:
                    del self._tails[channel_number]
        self._unwritten = 0

    def drop(self, channel_number: int) -> None:
        """The channel is gone."""
        self._tails.pop(channel_number, None)

    @property
    def size(self) -> int:
        """Bytes, about."""
        return self._bytes

    def begin(self, channel_number: int) -> int | None:
        """Id of the oldest message in the cache."""
        tail = self._tails.get(channel_number)
        return tail.first_ids[tail.head] if tail else None

    def batches(self, channel_number: int, position: int) -> Iterator[StoredBatch]:
        """From the batch that holds ``position``, or the first behind it."""
        tail = self._tails.get(channel_number)
        if tail is None:
            return
        for index in range(max(tail.head, bisect_right(tail.first_ids, position, tail.head) - 1), len(tail.batches)):
            batch = tail.batches[index]
            assert batch is not None, "what lies at or behind the head is there"
            if batch.end_id >= position:
                yield batch


class Log:
    """Reads messages by position, from the cache where it can, else from the store."""

    def __init__(self, store: Store, cache_bytes_max: int) -> None:
        self.cache = TailCache(cache_bytes_max)
        self.hit_count = self.miss_count = 0  # reads that found messages, beginning in memory or in the store
        self._store = store
        self._partial: OrderedDict[tuple[int, int], StoredBatch] = OrderedDict()
        self._partial_bytes = 0
        self._heads: OrderedDict[int, deque[_Head]] = OrderedDict()  # by channel number

    def roll_back(self) -> None:
        """Forget everything that was not written."""
        self.cache.roll_back()
        self._heads.clear()
        self._partial.clear()
        self._partial_bytes = 0

    def batches(
        self, channel_number: int, position: int, extent: Extent, decode: Decode = StoredBatch.decode
    ) -> Iterator[StoredBatch]:
        """Batches from the one that holds ``position``, or the first behind it, to the extent's end. Raises StorageFailed."""
        position = max(position, extent.begin_id)
        cached_from = self.cache.begin(channel_number)
        if cached_from is None or position < cached_from:
            end = min(extent.end_id + 1, cached_from or extent.end_id + 1)
            key = batch_key(channel_number, position)
            stored = self._store.scan(Family.DATA, key, batch_key(channel_number, end), at_or_before=True)
            for found, value in stored:
                if found[:8] != key[:8]:
                    continue  # the channel before this one
                batch = decode(found, value)
                if batch.end_id >= position:
                    yield batch
        for batch in self.cache.batches(channel_number, position):
            if batch.first_id > extent.end_id:
                return
            yield batch

    def read(
        self,
        channel_number: int,
        position: int,
        extent: Extent,
        count_max: int,
        bytes_max: int,
        first_bytes_max: int | None = None,
    ) -> Reading:
        """At most ``count_max`` messages and ``bytes_max`` bytes from ``position`` on, but one at least if there is one.

        From the extent's begin on, if ``position`` lies before it.

        That one may be as large as ``first_bytes_max``; None: however large it is.
        """
        slices: list[Slice] = []
        count = size = 0
        position = max(position, extent.begin_id)
        if position > extent.end_id:
            return Reading(slices, 0, position, 0)
        cached_from = self.cache.begin(channel_number)
        is_hit = (channel_number, position) in self._partial or (cached_from is not None and position >= cached_from)
        for batch in self._resumed(channel_number, position, extent):
            start = max(0, position - batch.first_id)
            stop = min(batch.count, start + count_max - count)
            stop, taken = _fitting(batch, start, stop, bytes_max - size)
            if stop == start and not slices:
                (first,) = batch.sizes(start, start + 1)
                if first_bytes_max is None or first <= first_bytes_max:
                    stop, taken = start + 1, first
            if stop == start and not slices:
                self._remember(channel_number, position, batch)
                return Reading(slices, 0, position, 0, len(batch.value))
            if stop == start:
                break
            slices.append(Slice(batch, start, stop))
            self._note(channel_number, batch)
            count += stop - start
            size += taken
            position = batch.first_id + stop
            if stop < batch.count:
                self._remember(channel_number, position, batch)
                break
            if count >= count_max or size >= bytes_max:
                break
        self.hit_count += is_hit and bool(slices)
        self.miss_count += not is_hit and bool(slices)
        return Reading(slices, count, position, size)

    def place(self, channel_number: int, position: int, extent: Extent) -> Place:
        """Where ``position`` lies; before the begin: the extent's begin, behind the end: its end.

        Many are asked for at once, so the batch's CRC is left to who reads its messages, and its head is noted.
        """
        if position <= extent.begin_id:
            return Place(extent.begin_id, extent.begin_offset)
        if position <= extent.end_id:
            for head in self._heads.get(channel_number, ()):
                if head.first_id <= position <= head.end_id:
                    return Place(position, head.base_offset + position - head.first_id)
            for batch in self.batches(channel_number, position, extent, StoredBatch.unchecked):
                self._note(channel_number, batch)
                index = max(0, position - batch.first_id)
                return Place(batch.first_id + index, batch.base_offset + index)
        return Place(extent.end_id + 1, extent.end_offset)

    def holding(
        self, channel_number: int, position: int, extent: Extent, decode: Decode = StoredBatch.unchecked
    ) -> StoredBatch | None:
        """The batch that holds ``position``, or the first behind it; None behind the end."""
        return next(self.batches(channel_number, position, extent, decode), None)

    def end_before(self, channel_number: int, position: int) -> int | None:
        """The id behind the last stored message before ``position``, where a batch begins; None: there is none."""
        key = batch_key(channel_number, position - 1)
        for found, value in self._store.scan(Family.DATA, key, batch_key(channel_number, position), at_or_before=True):
            if found[:8] == key[:8]:
                return StoredBatch.unchecked(found, value).end_id + 1
        return None

    def first_ids(self, channel_number: int, extent: Extent, end: int, count_max: int) -> list[int] | None:
        """Of the stored batches of ``extent`` before the id ``end``; None: they are more than ``count_max``."""
        begin_key, end_key = batch_key(channel_number, extent.begin_id), batch_key(channel_number, end)
        found: list[int] = []
        for key, _ in self._store.scan(Family.DATA, begin_key, end_key, at_or_before=True):
            if key[:8] == begin_key[:8]:
                found.append(first_id_of(key))
            if len(found) > count_max:
                return None
        return found

    def _resumed(self, channel_number: int, position: int, extent: Extent) -> Iterator[StoredBatch]:
        partial = self._partial.pop((channel_number, position), None)
        if partial is not None:
            self._partial_bytes -= len(partial.value)
            yield partial
            position = partial.end_id + 1
        if position <= extent.end_id:
            yield from self.batches(channel_number, position, extent)

    def _note(self, channel_number: int, batch: StoredBatch) -> None:
        """What was read or looked up is committed soon, and then its offset is asked for again."""
        heads = self._heads.get(channel_number)
        if heads is None:
            heads = self._heads[channel_number] = deque(maxlen=HEADS_MAX)
            if len(self._heads) > HEAD_CHANNELS_MAX:
                self._heads.popitem(last=False)
        if not heads or heads[-1].first_id != batch.first_id:
            heads.append(_Head(batch.first_id, batch.end_id, batch.base_offset))
            self._heads.move_to_end(channel_number)

    def _remember(self, channel_number: int, position: int, batch: StoredBatch) -> None:
        if (channel_number, position) in self._partial:
            return
        self._partial[channel_number, position] = batch
        self._partial_bytes += len(batch.value)
        while self._partial_bytes > PARTIAL_BYTES_MAX and len(self._partial) > 1:
            _, oldest = self._partial.popitem(last=False)
            self._partial_bytes -= len(oldest.value)


def _fitting(batch: StoredBatch, start: int, stop: int, bytes_max: int) -> tuple[int, int]:
    """The last stop up to ``stop`` with at most ``bytes_max`` bytes from ``start`` on, maybe ``start``, and those bytes."""
    if start == 0 and stop == batch.count and batch.size <= bytes_max:
        return stop, batch.size
    size = 0
    for index, message_size in enumerate(batch.sizes(start, stop)):
        if size + message_size > bytes_max:
            return start + index, size
        size += message_size
    return stop, size
