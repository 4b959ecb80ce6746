"""Reading the state from the store at start: channels, producers, the id window. Groups are loaded by who keeps them."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import TypeVar

from . import keys
from .channels import Channels
from .clock import ClockNote
from .ids import IDAllocator
from .names import ProducerNames
from .producers import Producers
from .records import EMPTY_EXTENT, ChannelSettings, Extent, ProducedEntry, ProducerName
from .store import DataRefused, Family, Put, Store


def load(
    store: Store, channels: Channels, producers: Producers, names: ProducerNames, ids: IDAllocator, *, is_new: bool
) -> None:
    """Fill them from ``store``, which ``is_new`` when nothing was ever stored. Raises DataRefused, StorageFailed."""
    extents = {keys.from_u64(key[1:]): extent for key, extent in _records(store, keys.EXTENT, Extent.decode)}
    for key, settings in _records(store, keys.SETTINGS, ChannelSettings.decode):
        number = keys.from_u64(key[1:])
        channels.load(number, settings, extents.get(number, EMPTY_EXTENT))
    entries: defaultdict[tuple[int, bytes], list[ProducedEntry]] = defaultdict(list)
    for key, entry in _records(store, keys.PRODUCER, ProducedEntry.decode):
        entries[keys.producer_of(key)].append(entry)
    producers.load(entries)
    names.load({keys.name_of(key): name for key, name in _records(store, keys.NAME, ProducerName.decode)})
    window_end = stored_number(store, keys.IDS, 1 if is_new else None)
    window_end = max(window_end, *(extent.end_id + 1 for extent in extents.values()), 1)

    def save(end: int) -> None:
        store.write([Put(Family.META, keys.IDS, keys.u64(end))])
        store.sync()

    ids.restore(window_end, save)


Record = TypeVar("Record")


def _records(store: Store, prefix: bytes, decode: Callable[[bytes], Record]) -> Iterator[tuple[bytes, Record]]:
    for key, value in store.scan(Family.META, prefix, keys.prefix_end(prefix)):
        yield key, decode(value)


def stored_clock(store: Store) -> ClockNote | None:
    stored = store.get(Family.META, keys.CLOCK)
    return None if stored is None else ClockNote.decode(stored)


def stored_number(store: Store, key: bytes, default: int | None) -> int:
    stored = store.get(Family.META, key)
    if stored is None and default is None:
        raise DataRefused("the id window cannot be read, so ids might repeat: restore a backup")
    return default or 0 if stored is None else keys.from_u64(stored)
