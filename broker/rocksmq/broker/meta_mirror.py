"""What a store elsewhere is told beside positions: ids of channels, and that groups of destroyed channels are gone.

It rides along with the operations on groups, in what room they leave; the ids are information, and a while late.
"""

import trio

from .channels import Channels
from .meta_transaction import KEYS_A_CHANNEL, KEYS_A_GROUP, Carried
from .prefix import GroupKey, channel_entries, group_entries

MIRROR_SECONDS = 0.5
CHANNELS_MAX = 20  # whose ids ride along
GARBAGE_MAX = 20  # groups of destroyed channels that do
STALE_MAX = 1_000  # channels that are gone, and whose keys the store is still to delete


class Mirror:
    """What is still to be told. ``garbage``: groups to delete."""

    def __init__(self, channels: Channels) -> None:
        self.garbage: dict[GroupKey, None] = {}
        self._channels = channels
        self._changed: dict[str, None] = {}  # channels whose ids the store was not told
        self._due = 0.0

    @property
    def has_ids(self) -> bool:
        """Whether there are ids to tell."""
        return bool(self._changed)

    @property
    def due(self) -> float:
        """When ids are told next."""
        return self._due if self._changed else float("inf")

    def ids_changed(self, channel_name: str) -> bool:
        """Tell them before long; whether they are the first that are to be told."""
        is_first = not self._changed
        if is_first:
            self._due = trio.current_time() + MIRROR_SECONDS
        self._changed[channel_name] = None
        if len(self._changed) > 2 * len(self._channels) + STALE_MAX:  # channels come and go while the store is away
            self._changed = {name: None for name in self._changed if self._channels.get(name) is not None}
        return is_first

    def hurry(self) -> None:
        """Tell ids with the next transaction."""
        self._due = 0.0

    def carry(self, entries: dict[str, str | None], keys_max: int) -> Carried:
        """``entries``, and what else fits into ``keys_max``, some of each kind; it counts as told."""
        room = keys_max - len(entries)
        garbage: list[GroupKey] = []
        for key in list(self.garbage)[: min(GARBAGE_MAX, room // (KEYS_A_GROUP + KEYS_A_CHANNEL))]:
            del self.garbage[key]
            name, channel_name = key
            channel = self._channels.get(channel_name)
            if channel is None or name not in channel.groups:  # else it was made anew, over the old
                garbage.append(key)
                entries |= group_entries(key, None)
        room = keys_max - len(entries)
        count = min(CHANNELS_MAX, room // KEYS_A_CHANNEL) if trio.current_time() >= self._due else 0
        names = list(self._changed)[: max(0, count)]
        for name in names:
            del self._changed[name]
            channel = self._channels.get(name)
            ids = None if channel is None or not channel.is_public else (channel.visible.begin_id, channel.visible.end_id)
            entries |= channel_entries(name, ids)
        if self._changed:
            self._due = max(self._due, trio.current_time())
        return Carried(entries, names, garbage)
