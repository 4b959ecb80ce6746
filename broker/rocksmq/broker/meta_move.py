"""Moving positions between stores, with the broker stopped: `rocksmq meta export` and `import`.

The file is text: a line of JSON about where the positions come from, one for each group, as in `prefix`, and a last one with
the SHA-256 of those before it. What is imported is read back and compared before the data directory is bound to its new
store; until then it stays with the old one, and the command may be given again.
"""

import hashlib
import json
import secrets
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from . import keys
from .check import kept_from_brokers
from .config import EMBEDDED
from .core import Core
from .directory import DataDirectory, check_format, read_format
from .durability import Durability
from .fence import Attempt, CommitValue
from .groups import Group
from .ids import IDAllocator
from .limits import Limits
from .meta_embedded import has_groups, stored_binding, stored_groups
from .meta_shadow import MetaShadow
from .prefix import DATA, DataMark, Found, GroupKey, decode_state, encode_state, group_entries
from .reconcile import PrefixInUse, foreign, listed, misbound, positions_ahead
from .records import GroupState, MetaBinding
from .remote import KEYS_MAX, LEASE_SECONDS, STATE_BYTES_MAX, Remote, RemoteFailed
from .store import Change, DataRefused, Delete, DeleteRange, Family, Put, Store, looking_at

KIND, VERSION = "rocksmq positions", 1
HOLDER = "rocksmq meta"  # what the lock says meanwhile
IMPORT = "import"  # key under the prefix: the epoch of an import that is under way, or was cut short
NOWHERE = MetaBinding(EMBEDDED, EMBEDDED, 0, 0)
SHOWN_MAX = 5
Check = Callable[[list[str]], None]  # refuses problems, or accepts them
ALL_GROUPS = DeleteRange(Family.META, keys.GROUP, keys.prefix_end(keys.GROUP))
NO_COPY = Delete(Family.META, keys.META_SHADOW)  # the groups in the directory are none of another store's


class Header(NamedTuple):
    """The first line: where and when the positions were read."""

    kind: str
    version: int
    instance: str
    store: str
    commit_number: int  # of the data directory
    epoch: int  # of its latest takeover of a store elsewhere


class Positions(NamedTuple):
    """A file of positions."""

    header: Header
    groups: dict[GroupKey, GroupState]

    def lines(self) -> Iterator[str]:
        """As text."""
        lines = [json.dumps(self.header._asdict())]
        for (group, channel), state in sorted(self.groups.items()):
            lines.append(json.dumps({"group": group, "channel": channel, "state": json.loads(encode_state(state))}))
        yield from lines
        yield json.dumps(_last_line(lines))

    @classmethod
    def parse(cls, text: Iterable[str]) -> "Positions":
        """Raises DataRefused for a text that `lines` did not make, or a part of one."""
        try:
            lines = [line.rstrip("\r\n") for line in text]
            first = json.loads(lines[0])
            found = first["kind"], first["version"]
        except (ValueError, TypeError, LookupError, RecursionError) as error:
            raise DataRefused("this is no file of `rocksmq meta export`") from error
        if found != (KIND, VERSION):
            raise DataRefused(f"this is a file of {found[0]} {found[1]}, and this rocksmq reads {KIND} {VERSION}")
        try:
            if json.loads(lines[-1]) != _last_line(lines[:-1]):
                raise ValueError(lines[-1])
            groups = {(line["group"], line["channel"]): line["state"] for line in map(json.loads, lines[1:-1])}
            states = {key: decode_state(json.dumps(state)) for key, state in groups.items()}
            return cls(Header(**first), states)
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
            raise DataRefused("the file was changed, or a part of it is missing: export again") from error


def _last_line(lines: list[str]) -> dict[str, Any]:
    digest = hashlib.sha256("".join(f"{line}\n" for line in lines).encode())
    return {"groups": len(lines) - 1, "sha256": digest.hexdigest()}


def read_positions(path: Path, remote: Remote | None, check: Check) -> Positions:
    """Those of the data directory ``path`` in ``remote``, or in itself. Nothing is changed, neither here nor there.

    ``check`` gets what is wrong. Raises what it does, NoDataDirectory, DirectoryInUse, PrefixInUse, DataRefused, RemoteFailed.
    """
    with kept_from_brokers(path, HOLDER):
        version, instance = read_format(path)
        check_format(path, version)
        with looking_at(path / "db") as store:
            number, bound, kept = (0, NOWHERE, {}) if store is None else _stored(store)
            shadow = None if store is None else MetaShadow(store)
        name = EMBEDDED if remote is None else remote.name
        problems = _misnamed(bound, name, has_groups=bool(kept))
        if remote is not None:
            found, _ = _found(remote)
            problems += foreign(found, name, bound.at(name), instance, number)
            if not problems and shadow is not None and shadow.lacks(found.commit):
                problems.append(
                    f"{name} has lost what it had acknowledged: it was at {shadow.commit}, and is at {found.commit}; start the"
                    " broker on it once, which writes that there again"
                )
            kept = found.groups
        check(problems)
        return Positions(Header(KIND, VERSION, instance, name, number, bound.applied_epoch), kept)


def _stored(store: Store) -> tuple[int, MetaBinding, dict[GroupKey, GroupState]]:
    number = store.get(Family.META, keys.COMMIT_NUMBER)
    return 0 if number is None else keys.from_u64(number), stored_binding(store), dict(stored_groups(store))


def _misnamed(bound: MetaBinding, name: str, *, has_groups: bool) -> list[str]:
    if not misbound(bound, name, has_groups=has_groups):
        return []
    return [f"the positions of this data directory are kept in {bound.store}, not in {name}: --meta names their store"]


class Importer:
    """One data directory, opened while no broker runs, and the store that ``remote`` is, or the directory's own.

    ``durability`` is what the broker runs with. ``check`` gets what is wrong before anything is written.
    """

    def __init__(self, directory: DataDirectory, remote: Remote | None, durability: Durability, check: Check) -> None:
        self.name = EMBEDDED if remote is None else remote.name
        self.left_out: list[GroupKey] = []  # groups whose channel was destroyed
        self._directory = directory
        self._core = Core(directory, IDAllocator(), Limits(), durability)
        self._remote = remote
        self._bound = stored_binding(directory.store)
        self._check = check

    def write(self, positions: Positions) -> int:
        """Make ``positions`` all that the store has, and bind the directory to it; how many groups those are.

        Raises what ``check`` raises, PrefixInUse, DataRefused, RemoteFailed; the directory then stays with its old store.
        """
        found, is_cut_short = (None, False) if self._remote is None else _found(self._remote)
        attached, self.left_out = self._core.channels.attach(positions.groups.items())
        problems = self._misplaced(positions.header)
        if found is not None:
            known = self._bound.at(self.name)
            if self._bound.store != self.name:  # then it may be deleted, and an import that was cut short may have begun anew
                planned = found.commit.epoch if is_cut_short and found.commit is not None else known.planned_epoch
                known = known._replace(applied_epoch=0, planned_epoch=planned)
            problems += foreign(found, self.name, known, self._directory.instance, self._directory.commit_number)
        ahead = positions_ahead(attached, self._core.channels, self._core.channels.extents())
        self._check(problems + [str(lost) for lost in ahead if lost.is_refused])
        groups = {(group.name, group.channel_name): group.state for group in attached}
        if self._remote is None or found is None:
            self._write_embedded(groups)
        else:
            self._write_remote(self._remote, found, groups)
        return len(groups)

    def _misplaced(self, header: Header) -> list[str]:
        """What is wrong with writing positions from there to here."""
        directory, bound = self._directory, self._bound
        if header.instance != directory.instance:
            return [f"the file is of the data directory of instance {header.instance}, and this one is {directory.instance}"]
        problems: list[str] = []
        is_moved = header.store != bound.store and misbound(bound, header.store, has_groups=has_groups(directory.store))
        if bound.store == self.name and (bound.applied_epoch if self._remote else has_groups(directory.store)):
            problems.append(f"the positions are kept in {self.name} already, and would be replaced: --meta names where they go")
        elif is_moved:
            problems.append(f"the positions have moved to {bound.store} since they were exported from {header.store}")
        if not is_moved and (header.commit_number, header.epoch) != (directory.commit_number, bound.applied_epoch):
            problems.append(
                f"a broker has run since the export (group commit {header.commit_number} and takeover {header.epoch} then,"
                f" {directory.commit_number} and {bound.applied_epoch} now): export again"
            )
        return problems

    def _write_embedded(self, groups: dict[GroupKey, GroupState]) -> None:
        store = self._directory.store
        changes: list[Change] = [ALL_GROUPS, NO_COPY]
        for (name, channel), state in groups.items():
            changes += Group(name, channel, state).changes(None)
        store.write(changes)
        store.sync()
        _compare(groups, dict(stored_groups(store)))
        self._bind(self._bound._replace(store=EMBEDDED))

    def _write_remote(self, remote: Remote, found: Found, groups: dict[GroupKey, GroupState]) -> None:
        epoch = 1 + max(self._bound.at(remote.name).planned_epoch, 0 if found.commit is None else found.commit.epoch)
        mark = DataMark(self._directory.instance, self._directory.commit_number)
        known, value = found.commit, CommitValue(epoch, secrets.randbits(62))
        _send(remote, Attempt(known, value), {DATA: mark.encode(), IMPORT: str(epoch)})
        is_own = found.data is None or found.data.instance == self._directory.instance
        stale = dict.fromkeys(found.groups if is_own else ())  # of another directory's, nothing is deleted
        for entries in _in_transactions({**stale, **groups}):
            known, value = value, value._replace(number=value.number + 1)
            _send(remote, Attempt(known, value), entries)
        there = Found.decode(remote.read(), remote.name).groups
        _compare(groups, {key: state for key, state in there.items() if is_own or key in groups})
        self._bind(MetaBinding(remote.name, remote.name, epoch, epoch), ALL_GROUPS, NO_COPY)
        with suppress(RemoteFailed):  # it is done; the next takeover makes the key mean nothing
            _send(remote, Attempt(value, value._replace(number=value.number + 1)), {IMPORT: None})

    def _bind(self, binding: MetaBinding, *changes: Change) -> None:
        store = self._directory.store
        store.write([*changes, Put(Family.META, keys.META_BINDING, binding.encode())])
        store.sync()


def _found(remote: Remote) -> tuple[Found, bool]:
    """What is there, and whether an import was cut short that nobody has taken over from since.

    Raises PrefixInUse while a broker writes there, DataRefused, RemoteFailed.
    """
    entries = remote.read()
    found = Found.decode(entries, remote.name)
    if (owner := found.owner) is not None:
        raise PrefixInUse(
            f"{remote.name} is in use by the broker with pid {owner.pid} on {owner.host} (instance {owner.instance}): stop it"
            f" first; one that was killed lets go of it after {LEASE_SECONDS} seconds"
        )
    return found, found.commit is not None and entries.get(IMPORT) == str(found.commit.epoch)


def _in_transactions(groups: dict[GroupKey, GroupState | None]) -> Iterator[dict[str, str | None]]:
    """Their keys and values, as many at a time as the store takes."""
    entries: dict[str, str | None] = {}
    size = 0
    for key, state in groups.items():
        more = group_entries(key, state)
        more_bytes = sum(len(path) + len(value or "") for path, value in more.items())
        if entries and (size + more_bytes > STATE_BYTES_MAX or len(entries) + len(more) > KEYS_MAX):
            yield entries
            entries, size = {}, 0
        entries |= more
        size += more_bytes
    if entries:
        yield entries


def _send(remote: Remote, attempt: Attempt, entries: dict[str, str | None]) -> None:
    if not remote.transact(attempt, entries, None).is_applied:
        raise RemoteFailed("something else writes there: see that no broker runs, and give the command again")


def _compare(wanted: dict[GroupKey, GroupState], found: dict[GroupKey, GroupState]) -> None:
    if wanted != found:
        raise DataRefused("what was written differs from what is read back: nothing was moved, give the command again")


def refusing(problems: list[str]) -> None:
    """As ``check``: raises DataRefused that names the first ``problems``."""
    if problems:
        raise DataRefused(f"{listed(problems)}. --accept-loss goes on all the same")
