"""A copy in the data directory of the groups that a store elsewhere keeps.

A lone etcd before 3.5.5 can lose at a crash what it has acknowledged (etcd issue 14370), and any can be restored from a
backup. The copy is written when a transaction is known to be applied, before anybody is answered; so whoever was
answered is in it, short of a power cut of this machine. It is the embedded store's form of the groups, beside the commit
value that it is of.
"""

from collections.abc import Iterable

from rocksmq.protocol.errors import DiskFull

from . import keys
from .fence import CommitValue
from .groups import Group
from .meta_embedded import stored_groups
from .prefix import GroupKey
from .records import GroupState, Shadow
from .store import Change, DeleteRange, Family, Put, Store


class MetaShadow:
    """``commit``: the value that it is a copy of. ``is_ahead``: the store elsewhere has lost something, and was not told all
    of it again yet.
    """

    def __init__(self, store: Store) -> None:
        """Raises StorageFailed."""
        self._store = store
        self._unwritten: dict[bytes, Change] = {}  # by key; while the disk is full
        data = store.get(Family.META, keys.META_SHADOW)
        shadow = None if data is None else Shadow.decode(data)
        self.commit = None if shadow is None else CommitValue(shadow.epoch, shadow.number)
        self.is_ahead = shadow is not None and shadow.is_ahead

    def lacks(self, found: CommitValue | None) -> bool:
        """Whether a store in which ``found`` stands has lost what is here."""
        return self.is_ahead or (self.commit is not None and (found is None or found < self.commit))

    def groups(self) -> dict[GroupKey, GroupState]:
        """The copy. Raises StorageFailed."""
        return dict(stored_groups(self._store))

    def replace(self, commit: CommitValue, groups: Iterable[Group], *others: Change) -> None:
        """Make it a copy of ``groups`` and no others. Raises DiskFull, StorageFailed."""
        changes: list[Change] = [DeleteRange(Family.META, keys.GROUP, keys.prefix_end(keys.GROUP)), *others]
        for group in groups:
            changes += group.changes(None)
        self._unwritten.clear()
        self.commit = commit
        self._store.write([*changes, self._record()])
        self._store.sync()

    def mark_ahead(self) -> None:
        """The store elsewhere has lost something. Raises DiskFull, StorageFailed."""
        self.is_ahead = True
        if self.commit is not None:
            self._store.write([self._record()])
            self._store.sync()

    def note(self, commit: CommitValue, changes: Iterable[Change], *, is_ahead: bool) -> None:
        """``changes`` of groups were applied with ``commit``. On a full disk they are kept for later. Raises StorageFailed."""
        self._unwritten |= {change.key: change for change in changes if not isinstance(change, DeleteRange)}
        self.commit, self.is_ahead = commit, is_ahead
        try:
            self._store.write([*self._unwritten.values(), self._record()])
        except DiskFull:
            return  # it stays a copy of before, and says so
        self._unwritten.clear()

    def _record(self) -> Put:
        assert self.commit is not None, "it is a copy of something"
        return Put(Family.META, keys.META_SHADOW, Shadow(*self.commit, self.is_ahead).encode())
