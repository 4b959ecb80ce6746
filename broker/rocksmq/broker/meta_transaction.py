"""What a transaction of a store elsewhere carries, from a commit with operations on groups."""

from typing import NamedTuple

from . import keys
from .commit import Commit
from .prefix import GroupKey, group_entries
from .records import GroupState
from .store import Delete


class Carried(NamedTuple):
    """What a transaction carries beside the groups that were operated on."""

    entries: dict[str, str | None]
    channels: list[str]
    garbage: list[GroupKey]


def groups_of(commit: Commit) -> dict[GroupKey, GroupState | None]:
    """The groups that it changes; None: it deletes them."""
    groups: dict[GroupKey, GroupState | None] = {}
    for change in commit.changes:
        assert isinstance(change, Delete), "groups are only changed as cells, or deleted"
        group, channel, _ = keys.group_of(change.key)
        groups[group, channel] = None
    return groups | {(group.name, group.channel_name): group.value for group in commit.cells}


def entries_of(commit: Commit) -> dict[str, str | None]:
    entries: dict[str, str | None] = {}
    for key, state in groups_of(commit).items():
        entries |= group_entries(key, state)
    return entries
