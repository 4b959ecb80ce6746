"""What each producer last stored, so that a repeat is answered and not stored again (contract §4).

Pure state: a table over (channel number, producer id), bounded, longest idle forgotten
first. The mark is the last use of anything forgotten: an unknown id is accepted only if
it was born after the mark, so a late retry becomes an error and never a double.
"""

from collections import OrderedDict
from collections.abc import Container
from functools import partial
from typing import NamedTuple

from rocksmq.protocol.errors import OutOfSequence
from rocksmq.protocol.identity import birth_of

from . import keys
from .commit import Commit
from .ids import COUNTER_BITS
from .records import ProducedEntry
from .store import Change, Delete, Family, Put

WINDOW = 16
PRODUCERS_MAX = 10_000
IDLE_MS_MAX = 24 * 3600 * 1000

Entries = tuple[ProducedEntry, ...]


class ProducerCell:
    """The last produces of one producer on one channel, oldest first; none: unknown."""

    __slots__ = ("channel_number", "producer", "value")

    def __init__(self, channel_number: int, producer: bytes, value: Entries = ()) -> None:
        self.channel_number = channel_number
        self.producer = producer
        self.value = value

    def changes(self, old: Entries) -> list[Change]:
        after = old[-1].number if old else -1
        return [
            Put(Family.META, keys.producer_key(self.channel_number, self.producer, entry.number % WINDOW), entry.encode())
            for entry in self.value
            if entry.number > after
        ]


class Mark:
    """The forgetting mark."""

    __slots__ = ("value",)

    def __init__(self, value: int) -> None:
        self.value = value

    def changes(self, old: int) -> list[Change]:
        return [Put(Family.META, keys.FORGOTTEN, keys.u64(self.value))]


class Verdict(NamedTuple):
    """``repeated``: the answer of the first time, or None when the batch is the next one of ``cell``."""

    cell: ProducerCell
    repeated: ProducedEntry | None


class Producers:
    """The table. Memory: some 2 kB an entry, PRODUCERS_MAX entries."""

    def __init__(self, mark: int, *, producers_max: int = PRODUCERS_MAX) -> None:
        self._mark = Mark(mark)
        self._producers_max = producers_max
        self._cells: OrderedDict[tuple[int, bytes], ProducerCell] = OrderedDict()  # longest idle first

    def load(self, entries: dict[tuple[int, bytes], list[ProducedEntry]]) -> None:
        """Rebuild the table at start."""
        for (channel_number, producer), found in sorted(entries.items(), key=lambda item: max(e.first_id for e in item[1])):
            newest = max(entry.number for entry in found)
            kept = sorted(entry for entry in found if entry.number > newest - WINDOW)
            self._cells[channel_number, producer] = ProducerCell(channel_number, producer, tuple(kept))

    def look_up(self, channel_number: int, producer: bytes, number: int, present_id: int) -> Verdict:
        """Whether the batch is the next one, or was stored before. Raises OutOfSequence otherwise; changes nothing."""
        cell = self._cells.get((channel_number, producer))
        if cell is not None and cell.value:
            newest = cell.value[-1].number
            if number == newest + 1:
                return Verdict(cell, None)
            for entry in cell.value:
                if entry.number == number:
                    return Verdict(cell, entry)
            raise OutOfSequence(
                f"batch {number} is not the next of this producer: {newest + 1} is",
                expected_number=newest + 1,
                present_id=present_id,
            )
        if number == 0 and birth_of(producer) > self._mark.value:
            return Verdict(cell or ProducerCell(channel_number, producer), None)
        raise OutOfSequence(f"batch {number} of an unknown producer: it may be long forgotten", present_id=present_id)

    def stored(self, commit: Commit, cell: ProducerCell, entry: ProducedEntry) -> None:
        """Note the batch of ``cell`` that ``commit`` stores."""
        key = (cell.channel_number, cell.producer)
        self._cells[key] = cell
        self._cells.move_to_end(key)
        commit.set(cell, (*cell.value[1 - WINDOW :], entry))

    def came_with(self, commit: Commit, channel_number: int, producer: bytes, number: int) -> bool:
        """Whether the batch ``number`` is in ``commit``, and not in one before it."""
        cell = self._cells.get((channel_number, producer))
        return cell in commit.cells and all(entry.number != number for entry in commit.cells[cell])

    def forget(self, commit: Commit, present_id: int) -> None:
        """Forget who is idle for too long, or too many."""
        idle_before = present_id - (IDLE_MS_MAX << COUNTER_BITS)
        while self._cells:
            key, cell = next(iter(self._cells.items()))
            last_use = cell.value[-1].first_id if cell.value else 0
            if cell in commit.cells or (len(self._cells) <= self._producers_max and last_use >= idle_before):
                return
            del self._cells[key]
            commit.undo.append(partial(self._restore, key, cell))
            commit.changes += [
                Delete(Family.META, keys.producer_key(cell.channel_number, cell.producer, e.number % WINDOW))
                for e in cell.value
            ]
            if last_use > self._mark.value:
                commit.set(self._mark, last_use)

    def drop(self, commit: Commit, channel_numbers: Container[int]) -> None:
        """The channels are destroyed."""
        for key in [key for key in self._cells if key[0] in channel_numbers]:
            cell = self._cells.pop(key)
            commit.undo.append(partial(self._restore, key, cell))
            commit.discard(cell)

    def _restore(self, key: tuple[int, bytes], cell: ProducerCell) -> None:
        self._cells[key] = cell
        self._cells.move_to_end(key, last=False)
