"""A copy in the data directory of the groups that a store elsewhere keeps.

A lone etcd before 3.5.5 can lose at a crash what it has acknowledged (etcd issue 14370), and any can be restored from a
backup. The copy is written when a transaction is known to be applied, before anybody is answered; so whoever was
answered is in it, short of a power cut of this machine. It is the embedded store's form of the groups, beside the commit
value that it is of. While the store is told again what it has lost, nothing else is done: the copy stays what was
acknowledged, whatever crashes.
"""

from collections.abc import Iterable
from contextlib import suppress

from rocksmq.protocol.errors import DiskFull

from . import keys
from .fence import CommitValue
from .groups import Group
from .meta_embedded import stored_groups
from .prefix import GroupKey
from .records import GroupState, Shadow
from .store import Change, Delete, DeleteRange, Family, Put, Store


class MetaShadow:
    """``commit``: the value that it is a copy of. ``lost_epoch``: from that takeover on the store elsewhere is being told again
    what it had lost; 0: it has lost nothing.
    """

    def __init__(self, store: Store) -> None:
        """Raises StorageFailed."""
        self._store = store
        self._unwritten: dict[bytes, Change] = {}  # by key; while the disk is full
        data = store.get(Family.META, keys.META_SHADOW)
        shadow = None if data is None else Shadow.decode(data)
        self.commit = None if shadow is None else CommitValue(shadow.epoch, shadow.number)
        self.lost_epoch = 0 if shadow is None else shadow.lost_epoch

    def lacks(self, found: CommitValue | None) -> bool:
        """Whether a store in which ``found`` stands has lost what is here, or was not told all of it again yet."""
        if self.commit is None or found is None:
            return self.commit is not None
        return found < self.commit or 0 < self.lost_epoch <= found.epoch

    def groups(self) -> dict[GroupKey, GroupState]:
        """The copy. Raises StorageFailed."""
        return dict(stored_groups(self._store))

    def replace(self, commit: CommitValue, groups: Iterable[Group], *others: Change) -> None:
        """Make it a copy of ``groups`` and no others. Raises DiskFull, StorageFailed."""
        changes: list[Change] = [DeleteRange(Family.META, keys.GROUP, keys.prefix_end(keys.GROUP)), *others]
        for group in groups:
            changes += group.changes(None)
        self._unwritten.clear()
        self._write(commit, self.lost_epoch, *changes)
        self._store.sync()

    def mark_lost(self, epoch: int) -> None:
        """The store elsewhere has lost something, and is told it again from the takeover ``epoch`` on.

        Raises DiskFull, StorageFailed.
        """
        assert self.commit is not None, "it is a copy of something"
        self._write(self.commit, min(self.lost_epoch or epoch, epoch))
        self._store.sync()

    def caught_up(self, commit: CommitValue) -> None:
        """At ``commit`` the store elsewhere has all that is here. Raises DiskFull, StorageFailed."""
        self._write(commit, 0)
        self._store.sync()

    def forget(self) -> Change:
        """What removes the mark that there is a copy: the store is another one."""
        self.commit, self.lost_epoch = None, 0
        return Delete(Family.META, keys.META_SHADOW)

    def unmark(self) -> None:
        """The store elsewhere has lost nothing after all. Raises DiskFull, StorageFailed."""
        if self.commit is not None and self.lost_epoch:
            self.caught_up(self.commit)

    def note(self, commit: CommitValue, changes: Iterable[Change]) -> None:
        """``changes`` of groups were applied with ``commit``. On a full disk they are kept for later. Raises StorageFailed."""
        self._unwritten |= {change.key: change for change in changes if not isinstance(change, DeleteRange)}
        self.commit = commit
        with suppress(DiskFull):  # it stays a copy of before, and says so
            self._write(commit, self.lost_epoch)

    def _write(self, commit: CommitValue, lost_epoch: int, *changes: Change) -> None:
        record = Put(Family.META, keys.META_SHADOW, Shadow(*commit, lost_epoch).encode())
        self._store.write([*changes, *self._unwritten.values(), record])
        self._unwritten.clear()
        self.commit, self.lost_epoch = commit, lost_epoch
