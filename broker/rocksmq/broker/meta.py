"""Where channel groups keep their positions: the seam between the state and its stores.

The embedded store puts them into the same RocksDB, so that a position rides in the group
commit of the messages it passes. Keys are those of the seeds: `<group>/<channel>/current_id`,
and `.../state` beside it with everything else, always written together.
"""

from collections.abc import Iterator
from typing import Protocol

from . import keys
from .records import GroupState
from .store import Change, Delete, Family, Put, Store

CURRENT_ID, STATE = "current_id", "state"


class MetaStore(Protocol):
    """Loads all groups at start, and says what stores a group's present state."""

    def load(self) -> Iterator[tuple[str, str, GroupState]]:
        """Group name, channel name and state of every group. Raises StorageFailed."""
        ...

    def changes(self, group: str, channel: str, state: GroupState | None) -> list[Change]:
        """What makes ``state`` durable with the commit that it is part of; None deletes the group."""
        ...


class EmbeddedMeta:
    """Positions in the broker's own RocksDB."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def load(self) -> Iterator[tuple[str, str, GroupState]]:
        for key, value in self._store.scan(Family.META, keys.GROUP, keys.prefix_end(keys.GROUP)):
            group, channel, leaf = keys.group_of(key)
            if leaf == STATE:
                yield group, channel, GroupState.decode(value)

    def changes(self, group: str, channel: str, state: GroupState | None) -> list[Change]:
        current_id, rest = (keys.group_key(group, channel, leaf) for leaf in (CURRENT_ID, STATE))
        if state is None:
            return [Delete(Family.META, current_id), Delete(Family.META, rest)]
        return [
            Put(Family.META, current_id, str(state.position).encode()),
            Put(Family.META, rest, state.encode()),
        ]
