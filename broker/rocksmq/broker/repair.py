"""`rocksmq check --repair`: does what `check` offered, each argument in a WriteBatch of its own, synced, and nothing else.

Whoever calls it has locked the directory, and has seen that each argument is one of those that `examine` offers now. It is
the one that opens the database for writing, which drops for good what recovery could not read; so if the mark counts more
than is there, the repair of the mark must be among the arguments.
"""

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple, TypeAlias

from rocksmq.protocol.errors import DiskFull, StorageFailed

from . import keys
from .check import FSYNC, Item, check_is_data
from .directory import locked, sync_directory
from .findings import Finding, Repair
from .ids import COUNTER_BITS, clock_ms
from .inventory import Inventory
from .mark import MarkFile
from .patch import NotRepaired, Patch
from .repair_channels import (
    cut_begin,
    cut_end,
    forget_producer,
    forget_producers,
    last_id,
    mend_group,
    rebuild_extent,
    rebuild_settings,
    remove_channel,
    remove_group,
)
from .repair_garbage import remove_garbage
from .rewrite import rewrite
from .store import Family, Store, peek

HOLDER = "rocksmq check --repair"  # what the lock says meanwhile


def _renew_window(patch: Patch) -> str:
    """Behind every id that the records name, and every batch, and up to the clock."""
    inventory = Inventory(FSYNC)
    for _ in (*inventory.read(patch.store), *inventory.compare(None)):
        pass
    stored = (last_id(patch, number) for number in inventory.channels)
    end = max(inventory.highest_id + 1, *(message_id + 1 for message_id in stored), clock_ms() << COUNTER_BITS)
    patch.put(keys.IDS, keys.u64(end))
    return f"the id window ends at {end}"


def _remove_record(patch: Patch, key: str) -> str:
    patch.delete(bytes.fromhex(key))
    return f"record {bytes.fromhex(key)!r} is removed"


def _remove_entry(patch: Patch, key: str) -> str:
    begin = bytes.fromhex(key)
    patch.delete_range(Family.DATA, begin, begin + b"\0")
    return f"the entry with the key {key} is removed"


Verb: TypeAlias = Callable[..., str]
# In the order in which they are done: each may need what those before it have put right.
VERBS: dict[str, tuple[Verb, tuple[type, ...]]] = {
    "ids": (_renew_window, ()),
    "settings": (rebuild_settings, (int, str)),
    "remove-channel": (remove_channel, (int,)),
    "record": (_remove_record, (str,)),
    "entry": (_remove_entry, (str,)),
    "extent": (rebuild_extent, (str,)),
    "begin": (cut_begin, (str, int)),
    "end": (cut_end, (str, int)),
    "producer": (forget_producer, (str, str)),
    "producers": (forget_producers, (str,)),
    "remove-group": (remove_group, (str, str)),
    "group": (mend_group, (str, str)),
    "garbage": (remove_garbage, ()),
}
REWRITE, MARK = "rewrite", "mark"
ORDER = (REWRITE, MARK, *VERBS)


class Offers(NamedTuple):
    """What was found, and what may be done about it, by its argument."""

    items: list[Item]
    repairs: dict[str, Repair]

    @classmethod
    def of(cls, items: Iterable[Item]) -> "Offers":
        listed = list(items)
        return cls(listed, {item.argument: item for item in listed if isinstance(item, Repair)})


@contextmanager
def locked_for_repair(directory: Path) -> Generator[None, None, None]:
    """Keep brokers away. Raises NoDataDirectory, DirectoryInUse, OSError."""
    check_is_data(directory)
    (directory / "lock").touch(mode=0o600)
    with locked(directory / "lock", HOLDER):
        yield


def repair(
    directory: Path, offers: Offers, arguments: Iterable[str], progress: Callable[[int, int], None] = lambda done, total: None
) -> Iterator[tuple[str, str]]:
    """Do what ``arguments`` say, one after the other; each, once it is durable, with what it did in words.

    Raises NotRepaired before anything is changed when they do not go together, and when one cannot be done: those before it
    are done then. Raises StorageFailed, DiskFull, DataRefused, OSError likewise.
    """
    wanted = sorted(set(arguments), key=lambda argument: ORDER.index(_parts(argument)[0]))
    _check_together(offers, wanted)
    for argument in wanted:
        try:
            yield argument, _do(directory, argument, progress)
        except (StorageFailed, DiskFull) as error:
            raise NotRepaired(f"{argument}: {error.message}") from error


def _check_together(offers: Offers, wanted: list[str]) -> None:
    """Raises NotRepaired."""
    for needed, why in (
        (MARK, "opening the database for writing drops for good what could not be read of its log"),
        (REWRITE, "the database does not go on working with what it cannot read"),
    ):
        if needed in offers.repairs and needed not in wanted:
            raise NotRepaired(f"name --repair {needed} as well: {why}")
    cuts: dict[tuple[str, str], int] = {}
    for verb, (channel, message_id) in (_parts(argument) for argument in wanted if _parts(argument)[0] in ("begin", "end")):
        if cuts.setdefault((verb, channel), int(message_id)) != int(message_id):
            raise NotRepaired(f"{channel} can have one {verb} only: name one of the two")
    for verb, channel in cuts:
        if verb == "begin" and cuts["begin", channel] >= cuts.get(("end", channel), keys.ID_MAX):
            raise NotRepaired(f"nothing would be left of {channel}: name one of its two cuts")
    if any(isinstance(item, Finding) and item.is_problem and item.subject in ("database", "records") for item in offers.items):
        raise NotRepaired("the database cannot be read as a whole: only a backup helps (`rocksmq backup restore`)")


def _do(directory: Path, argument: str, progress: Callable[[int, int], None]) -> str:
    verb, names = _parts(argument)
    if verb == REWRITE:
        return rewrite(directory, progress)
    if verb == MARK:
        return _renew_mark(directory)
    do, types = VERBS[verb]
    with closing(MarkFile(directory / "mark")) as mark, closing(Store(directory / "db")) as store:
        patch = Patch(store)
        told = do(patch, *(kind(name) for kind, name in zip(types, names, strict=True)))
        patch.write(mark)
    return told


def _renew_mark(directory: Path) -> str:
    stored, log_gap = peek(directory / "db", Family.META, keys.COMMIT_NUMBER)
    number = 0 if stored is None else keys.from_u64(stored)
    MarkFile.create(directory / "mark", number).close()
    sync_directory(directory)
    if log_gap is not None:
        with closing(Store(directory / "db")) as store:
            store.write(())
            store.sync()
    return f"the durable mark says {number}"


def _parts(argument: str) -> tuple[str, list[str]]:
    """Verb and names. Raises NotRepaired."""
    verb, *names = argument.split(":")
    if verb not in ORDER or (verb in VERBS and len(names) != len(VERBS[verb][1])):
        raise NotRepaired(f"{argument} is no argument of --repair")
    return verb, names
