"""Named producers: whose a name is, and how far its caller's sequences are stored (contract §4).

Pure state. A name is tied to one producer id at a time; opening it anew fences the former. The
record changes in the same write as the messages, so after any crash its last sequence tells
exactly what is stored.
"""

from collections import OrderedDict
from collections.abc import Container
from functools import partial
from typing import NamedTuple

from rocksmq.protocol.errors import Conflict, InvalidRequest, LimitExceeded
from rocksmq.protocol.names import checked_name
from rocksmq.protocol.operations import OpenProducer, Produce

from . import keys
from .commit import Commit
from .ids import COUNTER_BITS, IDAllocator
from .limits import Limits
from .records import ProducerName
from .store import Change, Delete, Family, Put

IDLE_NAME_MS_MAX = 30 * 24 * 3600 * 1000
Sequence = int | bytes


class NameCell:
    """One name of one channel; no value before it is opened first."""

    __slots__ = ("channel_number", "name", "value")

    def __init__(self, channel_number: int, name: str, value: ProducerName | None = None) -> None:
        self.channel_number = channel_number
        self.name = name
        self.value = value

    @property
    def key(self) -> tuple[int, str]:
        return self.channel_number, self.name

    def changes(self, old: ProducerName | None) -> list[Change]:
        """As a cell of the commit."""
        assert self.value is not None, "what was opened is written"
        return [Put(Family.META, keys.name_key(self.channel_number, self.name), self.value.encode())]


class Named(NamedTuple):
    """What a batch means for its producer's name. ``is_stored``: everything in it was stored before."""

    cell: NameCell
    last_sequence: Sequence
    is_stored: bool


class ProducerNames:
    """All names, longest idle first."""

    def __init__(self, ids: IDAllocator, limits: Limits) -> None:
        self._ids = ids
        self._limits = limits
        self._cells: OrderedDict[tuple[int, str], NameCell] = OrderedDict()
        self._holders: dict[tuple[int, bytes], NameCell] = {}  # by producer id

    def load(self, names: dict[tuple[int, str], ProducerName]) -> None:
        """Rebuild the table at start."""
        for (channel_number, name), value in sorted(names.items(), key=lambda item: item[1].last_use):
            cell = NameCell(channel_number, name, value)
            self._cells[cell.key] = cell
            self._holders[channel_number, value.producer] = cell

    def open(self, commit: Commit, channel_number: int, request: OpenProducer) -> Sequence | None:
        """Tie the name to the request's producer id; the last sequence stored under it. Raises LimitExceeded."""
        checked_name("producer", request.name)
        cell = self._cells.get((channel_number, request.name))
        if self._holders.get((channel_number, request.producer), cell) is not cell:
            raise InvalidRequest("the producer id holds another name on this channel: open each name under an id of its own")
        if cell is None:
            if len(self._cells) >= self._limits.producer_names_max:
                raise LimitExceeded(
                    f"{len(self._cells)} names of producers are known, and the limit is {self._limits.producer_names_max}"
                    " (producer_names_max): use fewer"
                )
            cell = self._cells[channel_number, request.name] = NameCell(channel_number, request.name)
            commit.undo.append(partial(self._cells.pop, cell.key, None))
        former = cell.value
        last_sequence = None if former is None else former.last_sequence
        self._hold(commit, cell, former, request.producer)
        self._set(commit, cell, ProducerName(request.producer, last_sequence, self._ids.present_id))
        return last_sequence

    def admit(self, channel_number: int, request: Produce) -> Named | None:
        """What the batch's sequences mean; None for a producer without a name. Changes nothing.

        Raises Conflict when another has the name by now, InvalidRequest for sequences that do not follow.
        """
        cell = self._holders.get((channel_number, request.producer))
        if request.sequences is None:
            if cell is not None:
                raise InvalidRequest(f"the batch has no sequences, but producer {cell.name!r} has a name: each needs them")
            return None
        if cell is None or cell.value is None:
            raise Conflict("the producer's name was opened by another producer since, or is long forgotten")
        first, last = request.sequences
        stored = cell.value.last_sequence
        if type(first) is not type(last) or (stored is not None and type(first) is not type(stored)):
            raise InvalidRequest(f"sequences of producer {cell.name!r} are of one kind: {_kind(stored, first)}")
        if not _rises(first, last, request.message_count):
            raise InvalidRequest(f"sequences {first!r} to {last!r} of {request.message_count} messages do not rise strictly")
        if stored is None or _is_below(stored, first):
            return Named(cell, last, is_stored=False)
        if not _is_below(stored, last):
            return Named(cell, last, is_stored=True)
        raise InvalidRequest(
            f"sequences {first!r} to {last!r} begin before the last stored one of producer {cell.name!r}, which is"
            f" {stored!r}, and end behind it: nothing was stored; go on behind it"
        )

    def stored(self, commit: Commit, named: Named) -> None:
        """Note the batch that ``commit`` stores."""
        assert named.cell.value is not None, "it was admitted"
        self._set(
            commit,
            named.cell,
            named.cell.value._replace(last_sequence=named.last_sequence, last_use=self._ids.present_id),
        )

    def forget(self, commit: Commit) -> None:
        """Forget the names that are idle for too long."""
        idle_before = self._ids.present_id - (IDLE_NAME_MS_MAX << COUNTER_BITS)
        while self._cells:
            cell = next(iter(self._cells.values()))
            if cell in commit.cells or cell.value is None or cell.value.last_use >= idle_before:
                return
            self._remove(commit, cell, at_front=True)
            commit.changes.append(Delete(Family.META, keys.name_key(*cell.key)))

    def drop(self, commit: Commit, channel_numbers: Container[int]) -> None:
        """The channels are destroyed."""
        for cell in [cell for cell in self._cells.values() if cell.channel_number in channel_numbers]:
            self._remove(commit, cell, at_front=False)
            commit.discard(cell)

    def _set(self, commit: Commit, cell: NameCell, value: ProducerName) -> None:
        commit.set(cell, value)
        self._cells.move_to_end(cell.key)

    def _hold(self, commit: Commit, cell: NameCell, former: ProducerName | None, producer: bytes) -> None:
        if former is not None:
            if former.producer == producer:
                return
            del self._holders[cell.channel_number, former.producer]
            commit.undo.append(partial(self._holders.__setitem__, (cell.channel_number, former.producer), cell))
        self._holders[cell.channel_number, producer] = cell
        commit.undo.append(partial(self._holders.pop, (cell.channel_number, producer), None))

    def _remove(self, commit: Commit, cell: NameCell, *, at_front: bool) -> None:
        assert cell.value is not None, "it was opened"
        holder = (cell.channel_number, cell.value.producer)
        del self._cells[cell.key], self._holders[holder]

        def restore() -> None:
            self._cells[cell.key] = self._holders[holder] = cell
            self._cells.move_to_end(cell.key, last=not at_front)

        commit.undo.append(restore)


def _is_below(one: Sequence, other: Sequence) -> bool:
    return one < other  # type: ignore[operator]  # pyright: ignore[reportOperatorIssue]  # of one kind, as checked


def _rises(first: Sequence, last: Sequence, message_count: int) -> bool:
    if isinstance(first, int) and isinstance(last, int):
        return first == last if message_count == 1 else last - first >= message_count - 1
    return first == last if message_count == 1 else _is_below(first, last)


def _kind(stored: Sequence | None, first: Sequence) -> str:
    return "integers" if isinstance(first if stored is None else stored, int) else "byte strings"
