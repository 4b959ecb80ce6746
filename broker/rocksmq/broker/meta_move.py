"""Moving positions between stores, with the broker stopped: `rocksmq meta export` and `import`.

The file is text: a line of JSON about where the positions come from, then one for each group, as in `prefix`.
What is imported is read back and compared before the data directory is bound to its new store; until then it stays
with the old one, and the command may be given again.
"""

import json
import secrets
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from . import keys
from .config import EMBEDDED
from .core import Core
from .directory import DataDirectory
from .durability import Durability
from .fence import Attempt, CommitValue, Fence, Met
from .groups import Group
from .ids import IDAllocator
from .limits import Limits
from .meta_embedded import has_groups, stored_binding, stored_groups
from .meta_remote import Remote, RemoteFailed
from .prefix import DATA, DataMark, Found, GroupKey, decode_state, encode_state, group_entries
from .reconcile import check_owner, checked, foreign, misbound, positions_ahead
from .records import GroupState, MetaBinding
from .store import Change, DataRefused, DeleteRange, Family, Put

KIND, VERSION = "rocksmq positions", 1
GROUPS_A_TRANSACTION = 20  # with every consumer entry they can have, below what etcd takes


class Header(NamedTuple):
    """The first line: where and when the positions were read."""

    kind: str
    version: int
    instance: str
    store: str
    commit_number: int  # of the data directory
    epoch: int  # of the latest takeover of a store elsewhere
    group_count: int


class Positions(NamedTuple):
    """A file of positions."""

    header: Header
    groups: dict[GroupKey, GroupState]

    def lines(self) -> Iterator[str]:
        """As text."""
        yield json.dumps(self.header._asdict())
        for (group, channel), state in self.groups.items():
            yield json.dumps({"group": group, "channel": channel, "state": json.loads(encode_state(state))})

    @classmethod
    def parse(cls, lines: Iterable[str]) -> "Positions":
        """Raises DataRefused for a text that `lines` did not make, or a part of one."""
        try:
            first, *rest = map(json.loads, lines)
            header = Header(**first)
            groups = {(line["group"], line["channel"]): decode_state(json.dumps(line["state"])) for line in rest}
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise DataRefused(f"this is not a file of `rocksmq meta export`: {error}") from error
        if (header.kind, header.version) != (KIND, VERSION):
            raise DataRefused(f"this is a file of {header.kind} {header.version}, not of {KIND} {VERSION}")
        if len(groups) != header.group_count:
            raise DataRefused(f"the file has {len(groups)} groups and says {header.group_count}: a part of it is missing")
        return cls(header, groups)


class Mover:
    """One data directory, opened while no broker runs, and the store that ``remote`` is, or the directory's own.

    ``durability`` is what the broker runs with. Problems are refused with DataRefused, unless ``accept_loss``.
    """

    def __init__(
        self, directory: DataDirectory, remote: Remote | None, durability: Durability, *, accept_loss: bool = False
    ) -> None:
        self._directory = directory
        self._core = Core(directory, IDAllocator(), Limits(), durability)
        self._remote = remote
        self._store_name = EMBEDDED if remote is None else remote.name
        self._bound = stored_binding(directory.store)
        self._accept_loss = accept_loss

    def read(self) -> Positions:
        """The positions in the store. Raises DataRefused, PrefixInUse, RemoteFailed."""
        found = self._found()
        problems = misbound(self._bound, self._store_name, has_groups=has_groups(self._directory.store))
        if self._remote is not None and not problems:
            problems = foreign(found, self._bound, self._directory.instance, self._directory.commit_number)
        self._check(problems)
        self._core.attach(found.groups.items())
        groups = {
            (group.name, channel.name): group.state for channel in self._core.channels for group in channel.groups.values()
        }
        epoch = 0 if found.commit is None else found.commit.epoch
        instance, number = self._directory.instance, self._directory.commit_number
        return Positions(Header(KIND, VERSION, instance, self._store_name, number, epoch, len(groups)), groups)

    def write(self, positions: Positions) -> None:
        """Make ``positions`` all that the store has, and bind the directory to it. Raises what `read` raises."""
        self._check(self._misplaced(positions))
        if self._remote is None:
            self._write_embedded(positions.groups)
        else:
            self._write_remote(self._remote, positions.groups)

    def _misplaced(self, positions: Positions) -> list[str]:
        """What is wrong with writing ``positions`` here."""
        header, directory, bound = positions.header, self._directory, self._bound
        if header.instance != directory.instance:
            return [
                f"the positions belong to the data directory of instance {header.instance}, and this is {directory.instance}"
            ]
        problems: list[str] = []
        if header.commit_number != directory.commit_number or (
            header.store != EMBEDDED and header.epoch != bound.applied_epoch
        ):
            problems.append(
                f"a broker has run since the export (group commit {header.commit_number} then, {directory.commit_number} now):"
                " export again"
            )
        if bound.store == self._store_name and (self._remote is not None or has_groups(directory.store)):
            problems.append(f"the positions are kept in {self._store_name} already, and would be replaced")
        attached, garbage = self._core.attach(positions.groups.items())
        problems += [f"group {group!r} is of a channel {channel!r} that is not here" for group, channel in garbage]
        ahead = positions_ahead(attached, self._core.channels, self._core.extents())
        return problems + [str(lost) for lost in ahead if lost.is_refused]

    def _write_embedded(self, groups: dict[GroupKey, GroupState]) -> None:
        store = self._directory.store
        changes: list[Change] = [DeleteRange(Family.META, keys.GROUP, keys.prefix_end(keys.GROUP))]
        for (name, channel), state in groups.items():
            changes += Group(name, channel, state).changes(None)
        changes.append(_binding(self._bound._replace(store=EMBEDDED)))
        store.write(changes)
        store.sync()
        _compare(groups, dict(stored_groups(store)))

    def _write_remote(self, remote: Remote, groups: dict[GroupKey, GroupState]) -> None:
        found = self._found()
        self._check(foreign(found, self._bound, self._directory.instance, self._directory.commit_number))
        epoch = 1 + max(self._bound.applied_epoch, 0 if found.commit is None else found.commit.epoch)
        store = self._directory.store
        store.write([_binding(self._bound._replace(planned_epoch=epoch))])
        store.sync()
        fence = Fence(CommitValue(epoch, secrets.randbits(62)))
        data: dict[str, str | None] = {DATA: DataMark(self._directory.instance, self._directory.commit_number).encode()}
        _sent(remote, Attempt(found.commit, fence.known), data)
        changed: dict[GroupKey, GroupState | None] = {**dict.fromkeys(found.groups), **groups}
        names = list(changed)
        for begin in range(0, len(names), GROUPS_A_TRANSACTION):
            entries: dict[str, str | None] = {}
            for name in names[begin : begin + GROUPS_A_TRANSACTION]:
                entries |= group_entries(name, changed[name])
            attempt = fence.begin()
            fence.answered(attempt, _sent(remote, attempt, entries))
        _compare(groups, Found.decode(remote.read(), remote.name).groups)
        embedded = DeleteRange(Family.META, keys.GROUP, keys.prefix_end(keys.GROUP))
        store.write([embedded, _binding(MetaBinding(remote.name, epoch, epoch))])
        store.sync()

    def _found(self) -> Found:
        if self._remote is None:
            return Found(None, None, None, dict(stored_groups(self._directory.store)), set())
        found = Found.decode(self._remote.read(), self._remote.name)
        check_owner(found, self._directory.instance, self._remote.name)
        return found

    def _check(self, problems: list[str]) -> None:
        checked(problems, accept_loss=self._accept_loss)


def _binding(binding: MetaBinding) -> Put:
    return Put(Family.META, keys.META_BINDING, binding.encode())


def _sent(remote: Remote, attempt: Attempt, entries: dict[str, str | None]) -> Met:
    met = remote.transact(attempt, entries, None)
    if not met.is_applied:
        raise RemoteFailed("something else writes there: see that no broker runs, and give the command again")
    return met


def _compare(wanted: dict[GroupKey, GroupState], found: dict[GroupKey, GroupState]) -> None:
    if wanted != found:
        raise DataRefused("what was written differs from what is read back: nothing was moved, give the command again")
