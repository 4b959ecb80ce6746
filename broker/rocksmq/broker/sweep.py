"""One channel's stored batches, in order, against what its records say; for `check`.

`Sweep.take` looks at each batch: its CRC, its head, its columns, and that ids and offsets go on where the
batch before ended. `Sweep.finish` holds the whole against the channel's extent. On the way it notes how many messages
lie before the positions that groups and consumer ids name. Knows no store; memory goes by those positions.
"""

from collections.abc import Iterator

from rocksmq.protocol.errors import InvalidRequest, StorageFailed

from .findings import Finding, counted, note, problem
from .inventory import FoundChannel
from .keys import first_id_of
from .records import WITH_HEADERS, Extent, GroupState, StoredBatch

BATCH_KEY_BYTES = 16
NO_LIMIT = 1 << 62
PAYLOAD_BYTES_AT = slice(16, 20)  # in a stored batch's head


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
        self._wanted = sorted({p for p in _positions(channel) if p >= extent.begin_id})
        self._known = 0  # so many of the wanted lie before what comes
        self._next_offset = extent.begin_offset
        self._left_over = 0
        self._is_torn = False  # something is missing or damaged, so that sums cannot agree

    def take(self, key: bytes, value: bytes) -> Iterator[Finding]:
        """The next entry."""
        if len(key) != BATCH_KEY_BYTES:
            yield problem(self._subject, f"an entry has the key {key.hex()}, which is none of a batch")
            return
        try:
            batch = _checked(key, value)
        except (StorageFailed, InvalidRequest) as error:
            self._is_torn = True
            yield problem(self._subject, f"the batch with id {first_id_of(key)}: {error.message}")
            return
        if batch.end_id < self._extent.begin_id:
            self._left_over += 1
            return
        yield from self._follow(batch)
        self._place(batch)
        self._next_offset = batch.base_offset + batch.count
        self.first_id = self.first_id or batch.first_id
        self.last_id = max(self.last_id, batch.end_id)
        self.message_count += batch.count
        self.byte_count += batch.size

    def finish(self) -> Iterator[Finding]:
        """All is read."""
        extent, subject = self._extent, self._subject
        if self._left_over:
            yield note(subject, f"{counted(self._left_over, 'batch entry')} before its begin, {extent.begin_id}: garbage")
        if self._next_offset < extent.end_offset:
            missing = counted(extent.end_offset - self._next_offset, "message")
            yield problem(subject, f"{missing} missing at its end, behind id {self.last_id} up to {extent.end_id}")
            self._is_torn = True
        elif self._next_offset > extent.end_offset:
            more = counted(self._next_offset - extent.end_offset, "message")
            yield problem(subject, f"{more} more are stored than its end says: it ends at {extent.end_id}")
        elif self.last_id not in (0, extent.end_id):
            yield problem(subject, f"its last message has id {self.last_id}, but its end says {extent.end_id}")
        if not self._is_torn and self.byte_count != extent.byte_count:
            yield problem(subject, f"{self.byte_count:,} bytes are stored, but its record says {extent.byte_count:,}")
        for position in self._wanted[self._known :]:
            if position == extent.end_id + 1:
                self.offsets[position] = extent.end_offset
        for name, state in self._channel.groups.items():
            yield from self._compare(f"group {name} of {subject.removeprefix('channel ')}", state)

    def _follow(self, batch: StoredBatch) -> Iterator[Finding]:
        """Whether it goes on where the one before ended."""
        missing = batch.base_offset - self._next_offset
        if missing > 0:
            self._is_torn = True
            where = f"between ids {self.last_id} and" if self.first_id else "at its begin, before id"
            yield problem(self._subject, f"{counted(missing, 'message')} missing {where} {batch.first_id}")
        elif missing < 0:
            yield problem(
                self._subject,
                f"the batch with id {batch.first_id} counts {batch.base_offset} messages before it, not {self._next_offset}",
            )
        elif not self.first_id and batch.first_id != self._extent.begin_id:
            yield problem(
                self._subject, f"its first message has id {batch.first_id}, but its begin says {self._extent.begin_id}"
            )
        if batch.first_id <= self.last_id:
            yield problem(self._subject, f"ids do not rise: {batch.first_id} comes behind {self.last_id}")

    def _place(self, batch: StoredBatch) -> None:
        """Note the offsets of the wanted positions up to the end of ``batch``."""
        is_behind_gap = batch.base_offset != self._next_offset
        while self._known < len(self._wanted) and self._wanted[self._known] <= batch.end_id:
            position = self._wanted[self._known]
            if position >= batch.first_id or not is_behind_gap:
                self.offsets[position] = batch.base_offset + max(0, position - batch.first_id)
            self._known += 1

    def _compare(self, subject: str, state: GroupState) -> Iterator[Finding]:
        """A group's own counts against the messages."""
        counted_offset = self.offsets.get(state.position, state.offset)
        if state.position < self._extent.begin_id:
            counted_offset = min(state.offset, self._extent.begin_offset)
        if counted_offset != state.offset:
            yield problem(
                subject,
                f"{counted(counted_offset, 'message')} lie before its position {state.position}, but it counts {state.offset}",
            )
        for consumer, entry in state.consumers.items():
            begin, end = self.offsets.get(entry.begin), self.offsets.get(entry.end)
            if entry.generation != state.generation:
                continue  # never handed out again
            if begin is not None and end is not None and end - begin != entry.message_count:
                yield problem(
                    subject,
                    f"consumer id {consumer.hex()}: {counted(end - begin, 'message')} lie in the range that it was handed, "
                    f"but it counts {entry.message_count}",
                )


def _positions(channel: FoundChannel) -> Iterator[int]:
    for state in channel.groups.values():
        yield state.position
        for entry in state.consumers.values():
            yield entry.begin
            yield entry.end


def _checked(key: bytes, value: bytes) -> StoredBatch:
    """The batch, if bytes, head and columns agree. Raises StorageFailed, InvalidRequest."""
    batch = StoredBatch.decode(key, value)
    columns = batch.columns
    columns.check(messages_max=NO_LIMIT, payload_bytes_max=NO_LIMIT)
    stated = int.from_bytes(value[PAYLOAD_BYTES_AT], "little")
    if value[1] > WITH_HEADERS or value[2:4] != b"\0\0" or stated != len(columns.payloads):
        raise StorageFailed("its head does not fit its columns")
    return batch
