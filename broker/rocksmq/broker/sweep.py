"""One channel's stored batches, in order, against what its records say; for `check`.

`Sweep.take` looks at each batch: its CRC, its head, its columns, and that ids, offsets and bytes go on where the
batch before ended. `Sweep.finish` holds the whole against the channel's extent, and says which cuts would leave a whole
channel. On the way it notes how many messages lie before the positions that groups and consumer ids name. Knows no store;
memory goes by those positions, and by the holes.
"""

from collections.abc import Iterator

from rocksmq.protocol.errors import InvalidRequest, StorageFailed

from . import proposals
from .cuts import Run, cuts
from .findings import Finding, Repair, counted, note, problem
from .inventory import FoundChannel
from .keys import first_id_of
from .records import WITH_HEADERS, Extent, GroupState, StoredBatch

BATCH_KEY_BYTES = 16
NO_LIMIT = 1 << 62
PAYLOAD_BYTES_AT = slice(24, 28)  # in a stored batch's head


class Sweep:
    """Feed every entry to `take`, then call `finish`; ``extent`` is what the channel's record says."""

    def __init__(self, channel: FoundChannel, extent: Extent) -> None:
        self.message_count = 0
        self.byte_count = 0
        self.first_id = self.last_id = 0
        self.offsets: dict[int, int] = {}  # of wanted positions: how many messages lie before
        self._channel = channel
        self._subject = channel.subject
        self._extent = extent
        self._wanted = sorted(set(_positions(channel)))
        self._known = 0  # so many of the wanted lie before what comes
        self._next_offset = extent.begin_offset
        self._next_bytes = extent.begin_bytes
        self._left_over = 0
        self._damaged_before: list[Finding] = []  # damaged batches that may lie before the begin
        self._runs: list[Run] = []  # of batches that follow each other
        self._is_cut = False  # the next batch begins a new run
        self._is_torn = False  # something is missing or damaged, so that sums cannot agree
        self._is_extent_wrong = False

    def take(self, key: bytes, value: bytes) -> Iterator[Finding | Repair]:
        """The next entry."""
        if len(key) != BATCH_KEY_BYTES:
            yield problem(self._subject, f"an entry has the key {key.hex()}, which is none of a batch")
            yield proposals.entry(key)
            return
        if first_id_of(key) <= self._extent.begin_id:
            yield from self._tell_damaged_before(is_before=True)
        try:
            batch = checked(key, value)
        except (StorageFailed, InvalidRequest) as error:
            text = error.message.partition(": run `rocksmq check`")[0]
            found = problem(self._subject, f"the batch with id {first_id_of(key)}: {text}")
            if first_id_of(key) < self._extent.begin_id:
                self._damaged_before.append(found)
                return
            self.skipped()
            yield found
            return
        if batch.end_id < self._extent.begin_id:
            yield from self._take_left_over(batch)
            return
        yield from self._follow(batch)
        self._place(batch)
        self._count(batch)

    def skipped(self) -> None:
        """Something that stands here was not read."""
        self._is_cut = self._is_torn = True

    def finish(self) -> Iterator[Finding | Repair]:
        """All is read."""
        extent, subject = self._extent, self._subject
        if not self._runs:
            yield from self._tell_damaged_before(is_before=extent.message_count == 0)
        if self._left_over:
            left_over = "1 batch" if self._left_over == 1 else f"{self._left_over:,} batches"
            yield note(subject, f"{left_over} before its begin, {extent.begin_id}: not removed yet")
        if self._next_offset < extent.end_offset:
            missing = counted(extent.end_offset - self._next_offset, "message")
            yield problem(subject, f"{missing} missing at its end, behind id {self.last_id} up to {extent.end_id}")
            self._is_torn = True
        elif self._next_offset > extent.end_offset:
            more = counted(self._next_offset - extent.end_offset, "message")
            yield self._wrong_extent(f"{more} more are stored than its end says: it ends at {extent.end_id}")
        elif self.last_id not in (0, extent.end_id):
            yield self._wrong_extent(f"its last message has id {self.last_id}, but its end says {extent.end_id}")
        if not self._is_torn and self._next_bytes != extent.end_bytes:
            stored = self._next_bytes - extent.begin_bytes
            yield self._wrong_extent(f"{stored:,} bytes are stored, but its record says {extent.byte_count:,}")
        yield from self._repairs()
        for position in self._wanted[self._known :]:
            if position == extent.end_id + 1:
                self.offsets[position] = extent.end_offset
        for name, state in self._channel.groups.items():
            yield from self._compare(name, state)

    # -- each batch --------------------------------------------------------------

    def _take_left_over(self, batch: StoredBatch) -> Iterator[Finding]:
        self._left_over += 1
        if batch.end_id >= self._extent.removed_end:
            removed = f"but only what lies before {self._extent.removed_end} was removed, as its record says"
            yield self._wrong_extent(f"the batch with id {batch.first_id} lies before its begin, {removed}")

    def _follow(self, batch: StoredBatch) -> Iterator[Finding]:
        """Whether it goes on where the one before ended."""
        before, before_bytes = self._before_begin(batch)
        offset, size = batch.base_offset + before, batch.base_bytes + before_bytes
        is_first = not self._runs
        missing = offset - self._next_offset
        if is_first:
            yield from self._tell_damaged_before(is_before=missing <= 0)
        if missing > 0:
            self.skipped()
            where = "at its begin, before id" if is_first else f"between ids {self.last_id} and"
            yield problem(self._subject, f"{counted(missing, 'message')} missing {where} {batch.first_id + before}")
        elif missing < 0:
            yield self._wrong_batch(
                f"the batch with id {batch.first_id} counts {batch.base_offset} messages before it, not"
                f" {self._next_offset - before}",
                is_first=is_first,
            )
        elif size != self._next_bytes:
            yield self._wrong_batch(
                f"the batch with id {batch.first_id} counts {batch.base_bytes:,} bytes before it, not"
                f" {self._next_bytes - before_bytes:,}",
                is_first=is_first,
            )
        elif is_first and batch.first_id + before != self._extent.begin_id:
            yield self._wrong_extent(f"its first message has id {batch.first_id}, but its begin says {self._extent.begin_id}")
        elif before and self._extent.removed_end != self._extent.begin_id:
            yield self._wrong_extent(
                f"it begins at {self._extent.begin_id}, inside of a batch, but its record says that only what lies before"
                f" {self._extent.removed_end} was removed"
            )
        if batch.first_id <= self.last_id:
            self._is_cut = True
            yield problem(self._subject, f"ids do not rise: {batch.first_id} comes behind {self.last_id}")

    def _before_begin(self, batch: StoredBatch) -> tuple[int, int]:
        """How many of its messages are no longer there, since the channel begins behind them, and their bytes."""
        before = max(0, self._extent.begin_id - batch.first_id)
        return before, sum(batch.sizes(0, before)) if before else 0

    def _wrong_extent(self, text: str) -> Finding:
        self._is_extent_wrong = True
        return problem(self._subject, text)

    def _wrong_batch(self, text: str, *, is_first: bool) -> Finding:
        self._is_cut = True
        self._is_extent_wrong |= is_first
        return problem(self._subject, text)

    def _tell_damaged_before(self, *, is_before: bool) -> Iterator[Finding]:
        """Those whose end is not known: ``is_before`` if no message of the channel can be in them."""
        for found in self._damaged_before:
            if is_before:
                yield note(found.subject, f"{found.text}; it lies before the channel's begin: not removed yet")
            else:
                self.skipped()
                yield found
        self._damaged_before.clear()

    def _count(self, batch: StoredBatch) -> None:
        before, before_bytes = self._before_begin(batch)
        self._next_offset = batch.base_offset + batch.count
        self._next_bytes = batch.base_bytes + batch.size
        self.first_id = self.first_id or batch.first_id + before
        self.last_id = max(self.last_id, batch.end_id)
        self.message_count += batch.count - before
        self.byte_count += batch.size - before_bytes
        if self._is_cut or not self._runs:
            self._is_cut = False
            self._runs.append(Run(batch.first_id + before, batch.base_offset + before))
        self._runs[-1].end_id = batch.end_id
        self._runs[-1].end_offset = self._next_offset

    def _place(self, batch: StoredBatch) -> None:
        """Note the offsets of the wanted positions up to the end of ``batch``."""
        is_behind_gap = not self._runs or batch.base_offset != self._next_offset
        while self._known < len(self._wanted) and self._wanted[self._known] <= batch.end_id:
            position = self._wanted[self._known]
            if position >= batch.first_id or not is_behind_gap:
                self.offsets[position] = batch.base_offset + max(0, position - batch.first_id)
            self._known += 1

    # -- the whole ---------------------------------------------------------------

    def _repairs(self) -> Iterator[Repair]:
        name = self._channel.name
        if self._is_extent_wrong:
            yield proposals.extent(name)
        is_broken = self._is_torn or self._is_cut or len(self._runs) > 1
        if is_broken and not (self._is_extent_wrong and len(self._runs) == 1):
            yield from cuts(name, self._extent, self._runs, has_more_behind=self._is_cut)

    def _compare(self, name: str, state: GroupState) -> Iterator[Finding | Repair]:
        """A group's own counts against the messages."""
        subject = f"group {name} of {self._subject.removeprefix('channel ')}"
        counted_offset = self.offsets.get(state.position, state.offset)
        if state.position < self._extent.begin_id and state.position not in self.offsets:
            counted_offset = min(state.offset, self._extent.begin_offset)
            if state.position >= self._extent.removed_end:
                counted_offset = self._extent.begin_offset
        is_wrong = counted_offset != state.offset
        if is_wrong:
            yield problem(
                subject,
                f"{counted(counted_offset, 'message')} lie before its position {state.position}, but it counts {state.offset}",
            )
        for consumer, entry in state.consumers.items():
            begin, end = self.offsets.get(entry.begin), self.offsets.get(entry.end)
            if entry.generation != state.generation:
                continue  # never handed out again
            if begin is not None and end is not None and end - begin != entry.message_count:
                is_wrong = True
                yield problem(
                    subject,
                    f"consumer id {consumer.hex()}: {counted(end - begin, 'message')} lie in the range that it was handed, "
                    f"but it counts {entry.message_count}",
                )
        if is_wrong:
            yield from self._channel.group_repair(name)


def checked(key: bytes, value: bytes) -> StoredBatch:
    """The batch, if bytes, head and columns agree. Raises StorageFailed, InvalidRequest."""
    batch = StoredBatch.decode(key, value)
    columns = batch.columns
    columns.check(messages_max=NO_LIMIT, payload_bytes_max=NO_LIMIT)
    stated = int.from_bytes(value[PAYLOAD_BYTES_AT], "little")
    if value[1] > WITH_HEADERS or value[2:4] != b"\0\0" or stated != len(columns.payloads):
        raise StorageFailed("its head does not fit its columns")
    return batch


def _positions(channel: FoundChannel) -> Iterator[int]:
    for state in channel.groups.values():
        yield state.position
        for entry in state.consumers.values():
            yield entry.begin
            yield entry.end
