"""Changes to a stopped broker's database, made by hand: one numbered, synced WriteBatch, as a group commit is one."""

from collections.abc import Iterator

from . import keys
from .ids import COUNTER_BITS, clock_ms
from .mark import MarkFile
from .records import ChannelSettings, Extent
from .store import Change, Delete, DeleteRange, Family, Put, Store


class NotRepaired(Exception):
    """It was not done, and nothing was changed by it; the text says why."""


class Patch:
    """What is stored, and what is to be changed in it; `write` does that. Raises StorageFailed, as the store does."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.changes: list[Change] = []
        self._next_id: int | None = None

    def get(self, key: bytes) -> bytes | None:
        """A record, as it was before the changes."""
        return self.store.get(Family.META, key)

    def records(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Keys and values, as they were before the changes."""
        return self.store.scan(Family.META, prefix, keys.prefix_end(prefix))

    def put(self, key: bytes, value: bytes) -> None:
        self.changes.append(Put(Family.META, key, value))

    def delete(self, key: bytes) -> None:
        self.changes.append(Delete(Family.META, key))

    def delete_range(self, family: Family, begin: bytes, end: bytes) -> None:
        """Every key from ``begin`` up to, not including, ``end``."""
        self.changes.append(DeleteRange(family, begin, end))

    def new_id(self) -> int:
        """An id that nobody was given, nor will be."""
        if self._next_id is None:
            window_end = self.get(keys.IDS)
            if window_end is None:
                raise NotRepaired("the id window is missing: repair `ids` before")
            self._next_id = max(keys.from_u64(window_end), clock_ms() << COUNTER_BITS)
        self._next_id += 1
        return self._next_id - 1

    def number_of(self, channel: str) -> int:
        """Of a channel that has settings."""
        for key, value in self.records(keys.SETTINGS):
            if ChannelSettings.decode(value).name == channel:
                return keys.from_u64(key[1:])
        raise NotRepaired(f"there is no channel {channel}")

    def extent_of(self, number: int) -> Extent:
        value = self.get(keys.extent_key(number))
        if value is None:
            raise NotRepaired("the record of what the channel holds is missing: repair `extent` before")
        return Extent.decode(value)

    def write(self, mark: MarkFile) -> None:
        """Make the changes, all or none; they are durable when this returns, and the mark counts them."""
        if self._next_id is not None:
            self.put(keys.IDS, keys.u64(self._next_id))
        stored = self.get(keys.COMMIT_NUMBER)
        number = 1 if stored is None else keys.from_u64(stored) + 1
        self.put(keys.COMMIT_NUMBER, keys.u64(number))
        self.store.write(self.changes)
        self.store.sync()
        mark.write(number)
