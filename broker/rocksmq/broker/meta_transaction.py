"""What a transaction of a store elsewhere carries, from a commit with operations on groups, and how much it can take."""

from collections.abc import Iterable
from typing import NamedTuple

from rocksmq.protocol.errors import LimitExceeded

from . import keys
from .channels import Channels
from .commit import Commit
from .groups import Group
from .prefix import GroupKey, group_entries
from .records import GroupState
from .remote import STATE_BYTES_MAX
from .store import Delete
from .waiters import CLAIM_BYTES_MAX, Many, Waiter

KEYS_A_GROUP = KEYS_A_CHANNEL = 2
GROUPS_MAX = 60  # of one operation: two keys each, and some are left for what rides along
STATE_BYTES, CONSUMER_BYTES = 1_300, 330  # of a group's state, at most, and of each consumer entry in it


class Carried(NamedTuple):
    """What a transaction carries beside the groups that were operated on."""

    entries: dict[str, str | None]
    channels: list[str]
    garbage: list[GroupKey]


class Needs(NamedTuple):
    """What an operation adds to a transaction, at most."""

    keys: int
    size: int  # bytes


class Room:
    """What fits into one transaction."""

    def __init__(self, channels: Channels, consumers_max: int) -> None:
        self._channels = channels
        self._of_one = Needs(KEYS_A_GROUP, STATE_BYTES + CONSUMER_BYTES * consumers_max)  # whichever group it is

    def needs(self, commit: Commit, waiter: Waiter | None) -> Needs:
        """Of the operation that waits, on top of ``commit``; None: of one on any group."""
        if waiter is None or waiter.many is None:
            return self._of_one
        channels = [channel for channel in map(self._channels.get_numbered, waiter.many.channel_numbers) if channel]
        groups = [channel.groups.get(waiter.many.group) for channel in channels]
        only_missing = waiter.many.only_missing
        added = [group for group in groups if group is None or not (only_missing or group in commit.cells)]
        return Needs(KEYS_A_GROUP * len(added), _size_of(added) if waiter.many.is_written else 0)

    def takes(self, commit: Commit, needs: Needs, keys_max: int) -> bool:
        """Whether ``commit`` still has room for that."""
        keys_used = len(commit.changes) + KEYS_A_GROUP * len(commit.cells)
        has_room = _size_of(commit.cells) + needs.size <= STATE_BYTES_MAX and commit.size < CLAIM_BYTES_MAX
        return has_room and keys_used + needs.keys <= keys_max


def _size_of(groups: Iterable[Group | None]) -> int:
    return sum(STATE_BYTES + (CONSUMER_BYTES * len(group.state.consumers) if group is not None else 0) for group in groups)


def check_count(many: Many) -> None:
    """Raises LimitExceeded for more groups than any transaction takes."""
    if len(many.channel_numbers) > GROUPS_MAX:
        raise LimitExceeded(
            f"{len(many.channel_numbers)} channels in a request exceed the limit of {GROUPS_MAX} that holds where positions are"
            " kept in etcd, for one transaction takes no more: use subscriptions of fewer channels"
        )


def too_large(many: Many) -> LimitExceeded:
    """What is answered about groups whose states no transaction takes."""
    return LimitExceeded(
        f"the groups {many.group!r} of {len(many.channel_numbers)} channels have more consumers than one transaction of etcd"
        f" takes ({STATE_BYTES_MAX} bytes): ask for fewer channels at a time"
    )


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
