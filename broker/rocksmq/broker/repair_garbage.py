"""The repair `garbage`: what belongs to no channel goes. Only once it is certain which channels there are."""

from collections.abc import Iterator

from rocksmq.protocol.errors import StorageFailed

from . import keys
from .config import EMBEDDED
from .findings import counted
from .meta_embedded import stored_binding
from .patch import NotRepaired, Patch
from .records import ChannelSettings, GroupState
from .store import Family

DATA_END = b"\xff" * 17


def remove_garbage(patch: Patch) -> str:
    """Batches, producers' records and groups of no channel."""
    names = _names(patch)
    entry_count = 0
    for begin, end in _between(sorted(names)):
        count = sum(1 for _ in patch.store.scan(Family.DATA, begin, end))
        if count:
            patch.delete_range(Family.DATA, begin, end)
            entry_count += count
    record_count = 0
    for prefix in (keys.PRODUCER, keys.NAME):
        for key, _ in patch.records(prefix):
            if int.from_bytes(key[1:9], "big") not in names:
                patch.delete(key)
                record_count += 1
    groups = _groups(patch, names) if stored_binding(patch.store).store == EMBEDDED else []
    for group, channel in groups:
        for leaf in (keys.STATE, keys.CURRENT_ID):
            patch.delete(keys.group_key(group, channel, leaf))
    entries = "1 entry" if entry_count == 1 else f"{entry_count:,} entries"
    records = counted(record_count, "producers' record")
    return f"removed what belonged to no channel: {entries}, {records}, {counted(len(groups), 'group')}"


def _names(patch: Patch) -> dict[int, str]:
    """Of all channels, by number. Raises NotRepaired when a channel's own record is damaged or missing."""
    names: dict[int, str] = {}
    for key, value in patch.records(keys.SETTINGS):
        number = int.from_bytes(key[1:9], "big")
        try:
            names[number] = ChannelSettings.decode(value).name
        except StorageFailed as error:
            raise NotRepaired(f"the settings of channel number {number} are damaged: repair that before") from error
    for key, _ in patch.records(keys.EXTENT):
        number = int.from_bytes(key[1:9], "big")
        if number not in names:
            raise NotRepaired(f"the settings of channel number {number} are missing: repair that before")
    return names


def _between(numbers: list[int]) -> Iterator[tuple[bytes, bytes]]:
    """The spans of the family ``data`` where none of the channels is."""
    behind = b""
    for number in numbers:
        begin, end = keys.channel_span(number)
        yield behind, begin
        behind = end
    yield behind, DATA_END


def _groups(patch: Patch, names: dict[int, str]) -> list[tuple[str, str]]:
    """Those whose channel does not exist."""
    found: list[tuple[str, str]] = []
    for key, value in patch.records(keys.GROUP):
        group, channel, leaf = keys.group_of(key)
        if leaf == keys.STATE and names.get(GroupState.decode(value).channel_number) != channel:
            found.append((group, channel))
    return found
