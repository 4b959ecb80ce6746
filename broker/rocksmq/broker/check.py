"""Is everything in a stopped broker's data directory as it was written? It reads all of it and changes nothing.

`check` says what it finds while it goes: first the `Overview`, then each `ChannelFound`, a `Finding`
wherever something is wrong or worth knowing, and at the end the `Total`. One batch at a time is in memory, and the records
of channels and groups. Where a part cannot be read, it says so and goes on behind it. If it is asked to, it also says
by which `Repair` a problem would be put right; `repair` does that.
"""

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, nullcontext, suppress
from itertools import chain
from pathlib import Path
from typing import NamedTuple, TypeAlias

from rocksmq.protocol.errors import StorageFailed

from . import keys, proposals
from .check_positions import read_positions
from .config import EMBEDDED
from .directory import FORMAT, check_format, check_not_rewriting, locked, read_format
from .durability import Durability
from .findings import Finding, Repair, counted, note, problem
from .inventory import FoundChannel, Inventory
from .mark import MarkFile
from .meta_shadow import MetaShadow
from .remote import Remote
from .salvage import Unread, entries
from .store import DataRefused, Family, Store, Table, looking_at
from .sweep import Sweep
from .tables import damage

HOLDER = "rocksmq check"  # what the lock says meanwhile
FSYNC = Durability.parse("fsync")
DATA_END = b"\xff" * 17
RESTORE = "restore a backup (`rocksmq backup restore`)"


class NoDataDirectory(Exception):
    """There is no RocksMQ data in this directory."""


class Overview(NamedTuple):
    """The directory itself; None is what is missing or cannot be read. ``mark``: the last commit that was synced for sure."""

    path: Path
    format: int | None
    instance: str | None
    mark: int | None
    commit_number: int | None
    window_end: int | None


class ChannelFound(NamedTuple):
    """What is stored of a channel, as counted. ``byte_count``: payloads and headers. Ids are None when it is empty."""

    name: str
    message_count: int
    byte_count: int
    begin_id: int | None
    end_id: int | None
    groups: int


class Total(NamedTuple):
    """Of the whole check."""

    channels: int
    groups: int
    message_count: int
    byte_count: int
    problems: int
    notes: int


Item: TypeAlias = Overview | ChannelFound | Finding | Repair | Total


def check(
    directory: Path,
    remote: Remote | None = None,
    durability: Durability = FSYNC,
    progress: Callable[[int, int], None] = lambda done, total: None,
    *,
    offers_repairs: bool = False,
) -> Generator[Item, None, None]:
    """Check the data in ``directory``, whose broker must be stopped.

    ``remote`` is read too: the store that keeps the positions, if not the directory. ``durability`` is that of channels that
    name none. ``progress`` is told how many bytes of messages are done, of how many. With ``offers_repairs`` a `Repair` follows
    the first problem that it is for. The last item is the `Total`; until it came, or the generator is closed, the directory is
    locked. Raises NoDataDirectory, DirectoryInUse, OSError.
    """
    with kept_from_brokers(directory, HOLDER):
        yield from examine(directory, remote, durability, progress, offers_repairs=offers_repairs)


def examine(
    directory: Path,
    remote: Remote | None = None,
    durability: Durability = FSYNC,
    progress: Callable[[int, int], None] = lambda done, total: None,
    *,
    offers_repairs: bool = False,
) -> Generator[Item, None, None]:
    """As `check`, by who has locked the directory."""
    channels = found_groups = message_count = byte_count = problems = notes = 0
    offered: set[str] = set()
    for item in _Check(directory, remote, durability, progress).run():
        if isinstance(item, Repair):
            if not offers_repairs or item.argument in offered:
                continue
            offered.add(item.argument)
        elif isinstance(item, ChannelFound):
            channels += 1
            found_groups += item.groups
            message_count += item.message_count
            byte_count += item.byte_count
        elif isinstance(item, Finding):
            problems += item.is_problem
            notes += not item.is_problem
        yield item
    yield Total(channels, found_groups, message_count, byte_count, problems, notes)


@contextmanager
def kept_from_brokers(directory: Path, holder: str) -> Generator[None, None, None]:
    """Keep brokers away from a data directory that is only read. Raises NoDataDirectory, DirectoryInUse, OSError.

    Without the file `lock` there never was a broker here, as in a copy: then none is made.
    """
    check_is_data(directory)
    path = directory / "lock"
    with locked(path, holder) if path.exists() else nullcontext():
        yield


def check_is_data(directory: Path) -> None:
    """Raises NoDataDirectory."""
    if not ((directory / "format").exists() or (directory / "db").exists()):
        raise NoDataDirectory(f"{directory} is no RocksMQ data directory: it holds neither `format` nor `db`")


class _Check:
    """One check, under way."""

    def __init__(
        self, directory: Path, remote: Remote | None, durability: Durability, progress: Callable[[int, int], None]
    ) -> None:
        self._directory = directory
        self._remote = remote
        self._durability = durability
        self._progress = progress
        self._bytes_done = 0
        self._bytes_total = 0
        self._unread: list[str] = []  # what RocksDB said

    def run(self) -> Iterator[Item]:
        found: list[Finding | Repair] = []
        version, instance = self._format(found)
        mark = self._mark(found)
        if version is not None and version != FORMAT:
            yield Overview(self._directory, version, instance, mark, None, None)
            yield from found
            return
        try:
            check_not_rewriting(self._directory)
        except DataRefused as error:
            yield Overview(self._directory, version, instance, mark, None, None)
            yield from (*found, problem("database", str(error)))
            return
        try:
            with looking_at(self._directory / "db") as store:
                if store is None:
                    yield Overview(self._directory, version, instance, mark, 0, None)
                    yield from (*found, *_compare_mark(mark, 0))
                    yield from self._positions(None, Inventory(self._durability), instance, 0)
                    return
                commit_number = _number(store, keys.COMMIT_NUMBER, "commit number", found, default=0)
                is_new = commit_number == 0
                window_end = _number(store, keys.IDS, "id window", found, default=1 if is_new else None)
                yield Overview(self._directory, version, instance, mark, commit_number, window_end)
                yield from found
                if commit_number is not None:
                    yield from _compare_mark(mark, commit_number)
                if store.log_gap is not None:
                    yield problem("logs", store.log_gap)
                    yield proposals.mark(None)
                inventory = Inventory(self._durability)
                yield from inventory.read(store)
                yield from self._positions(store, inventory, instance, commit_number)
                yield from inventory.compare(window_end)
                for item in chain(self._messages(store, inventory), self._tables(store)):
                    if inventory.is_whole or item is not proposals.REWRITE:
                        yield item
        except DataRefused as error:
            yield Overview(self._directory, version, instance, mark, None, None)
            yield from (*found, problem("database", f"{error}: {RESTORE}"))

    def _format(self, found: list[Finding | Repair]) -> tuple[int | None, str | None]:
        try:
            version, instance = read_format(self._directory)
        except FileNotFoundError:
            found.append(problem("format", "the file is missing, so the broker would refuse this directory"))
        except DataRefused as error:
            found.append(problem("format", str(error)))
        else:
            try:
                check_format(self._directory, version)
            except DataRefused as error:
                found.append(problem("format", f"{error}; nothing else was checked"))
            return version, instance
        return None, None

    def _mark(self, found: list[Finding | Repair]) -> int | None:
        path = self._directory / "mark"
        if not path.exists():
            return None
        try:
            mark = MarkFile(path, for_reading=True)
        except DataRefused as error:
            found.append(problem("mark", str(error)))
            return None
        mark.close()
        return mark.number

    def _positions(
        self, store: Store | None, inventory: Inventory, instance: str | None, commit_number: int | None
    ) -> Iterator[Finding]:
        """Take in those that are kept elsewhere."""
        bound = inventory.binding
        if self._remote is not None:
            shadow = None
            with suppress(StorageFailed):  # which the inventory told
                shadow = None if store is None else MetaShadow(store)
            yield from read_positions(self._remote, inventory, shadow, instance, commit_number)
        elif bound is not None and bound.store != EMBEDDED:
            yield note("positions", f"they are kept in {bound.store}: not checked; --meta etcd://HOST:PORT/PREFIX names it")

    def _messages(self, store: Store, inventory: Inventory) -> Iterator[ChannelFound | Finding | Repair]:
        known = inventory.channels
        self._bytes_total = sum(channel.extent.byte_count for channel in known.values() if channel.extent is not None)
        self._bytes_total += sum(self._file(table).stat().st_size for table in store.tables())
        behind = b""
        for number in sorted(known):
            begin, end = keys.channel_span(number)
            yield from _left_over(store, behind, begin, is_certain=inventory.is_whole)
            yield from self._channel(store, known[number])
            behind = end
        yield from _left_over(store, behind, DATA_END, is_certain=inventory.is_whole)

    def _channel(self, store: Store, channel: FoundChannel) -> Iterator[ChannelFound | Finding | Repair]:
        extent, settings = channel.extent, channel.settings
        if extent is None or settings is None:
            begin, end = keys.channel_span(channel.number)
            is_garbage = extent is None and settings is None and not channel.is_damaged
            yield from _left_over(store, begin, end, is_certain=is_garbage)
            return
        sweep = Sweep(channel, extent)
        for entry in entries(store, *keys.channel_span(channel.number)):
            if isinstance(entry, Unread):
                sweep.skipped()
                self._unread.append(entry.message)
                yield _unread(channel, entry)
                yield proposals.REWRITE
            else:
                yield from sweep.take(*entry)
                self._bytes_done += len(entry[1])
                self._progress(self._bytes_done, self._bytes_total)
        yield from sweep.finish()
        is_empty = sweep.message_count == 0
        begin_id, end_id = (None, None) if is_empty else (sweep.first_id, sweep.last_id)
        yield ChannelFound(settings.name, sweep.message_count, sweep.byte_count, begin_id, end_id, len(channel.groups))

    def _tables(self, store: Store) -> Iterator[Finding | Repair]:
        """What is damaged, and nobody reads: RocksDB does, and stops."""
        for table in store.tables():
            told = [message for message in self._unread if table.name in message]
            found = [
                damaged
                for damaged in damage(self._file(table))
                if not any(f"{table.name} offset {damaged.offset} " in message for message in told)
            ]
            if found:
                more = f", and {counted(len(found) - 1, 'other')}" if len(found) > 1 else ""
                yield problem(f"table {table.name}", f"{found[0].what}{more}: a compaction will stop the broker")
                yield proposals.REWRITE
            self._bytes_done += self._file(table).stat().st_size
            self._progress(self._bytes_done, self._bytes_total)

    def _file(self, table: Table) -> Path:
        return self._directory / "db" / table.name


def _compare_mark(mark: int | None, commit_number: int) -> Iterator[Finding | Repair]:
    if mark is None:
        if commit_number:
            yield problem("mark", "it is missing or damaged, so it cannot be told whether acknowledged messages are lost")
            yield proposals.mark(None)
    elif commit_number < mark:
        missing = counted(mark - commit_number, "commit")
        yield problem("mark", f"commit {mark} was synced, the database ends at {commit_number}: {missing} missing")
        yield proposals.mark(mark - commit_number)
    if commit_number == 0 and not mark:
        yield note("database", "nothing was ever stored")


def _number(store: Store, key: bytes, what: str, found: list[Finding | Repair], *, default: int | None) -> int | None:
    """The number under ``key``; None, and a problem, when there is none and no default, or it cannot be read."""
    try:
        value = store.get(Family.META, key)
    except StorageFailed as error:
        found.append(problem(what, error.message))
        return None
    if value is None and default is not None:
        return default
    if value is None or len(value) != len(keys.u64(0)):
        found.append(problem(what, "its record is missing" if value is None else f"its record is damaged: {value!r}"))
        if key == keys.IDS:
            found.append(proposals.IDS)
        return None
    return keys.from_u64(value)


def _unread(channel: FoundChannel, unread: Unread) -> Finding:
    _, end = keys.channel_span(channel.number)
    where = "nothing more was read"
    if unread.next_key is not None and unread.next_key < end:
        where = f"read again from id {keys.first_id_of(unread.next_key)} on"
    return problem(channel.subject, f"from id {keys.first_id_of(unread.begin)} on: {unread.message}; {where}")


def _left_over(store: Store, begin: bytes, end: bytes, *, is_certain: bool) -> Iterator[Finding | Repair]:
    """What lies where no channel is; with ``is_certain`` it is garbage, else a channel's record may only be lost."""
    count = 0
    try:
        for _ in store.scan(Family.DATA, begin, end):
            count += 1
    except StorageFailed as error:
        if is_certain:
            yield note("messages", f"where no channel is, {error.message}: a compaction of it will stop the broker")
        else:
            yield problem("messages", error.message)
        yield proposals.REWRITE
    if not count:
        return
    stored = f"{count:,} {'entry' if count == 1 else 'entries'}"
    if is_certain:
        yield note("messages", f"{stored} of channels that do not exist: garbage")
        yield proposals.GARBAGE
    else:
        yield problem("messages", f"{stored} of a channel whose records are damaged: not checked")
