"""What a backup could do wrong, done to a restored directory, to see that the audit of `backups` finds it.

The mutant "stale", which restores the backup before, is made there.
"""

from collections.abc import Callable
from pathlib import Path

from rocksmq.broker import keys
from rocksmq.broker.meta_embedded import stored_groups
from rocksmq.broker.records import GroupState
from rocksmq.broker.store import Delete, Family, Put, Store

END = b"\xff" * 17


def _hole(directory: Path) -> None:
    """A batch in the midst of the last channel is missing."""
    store = Store(directory / "db")
    entries = [key for key, _ in store.scan(Family.DATA, b"", END)]
    if len(entries) > 2:
        store.write([Delete(Family.DATA, entries[len(entries) // 2])])
    store.close()


def _positions_back(directory: Path) -> None:
    """All groups begin anew."""
    store = Store(directory / "db")
    groups = dict(stored_groups(store))
    for (group, channel), state in groups.items():
        moved: GroupState = state._replace(position=1, offset=0)
        store.write([Put(Family.META, keys.group_key(group, channel, keys.STATE), moved.encode())])
    store.close()


MUTANTS: dict[str, Callable[[Path], None]] = {"hole": _hole, "positions-back": _positions_back}
