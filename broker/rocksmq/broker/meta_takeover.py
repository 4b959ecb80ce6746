"""Becoming the one writer of a store elsewhere, with the groups that it has (design §6).

Everything under the prefix is read at one moment and held against the data directory; then one transaction sets the
owner and a higher epoch over the commit value that was read. So nothing that was read has changed when it is applied, and
nothing of a predecessor is applied after it. The directory notes first that it is about to, lest a crash in between
look like a directory that is too old.
"""

import logging
import os
import secrets
import socket
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from . import keys
from .core import Core
from .directory import DataDirectory
from .fence import Attempt, CommitValue
from .groups import Group
from .meta_embedded import has_groups, stored_binding
from .meta_shadow import MetaShadow
from .prefix import DATA, OWNER, DataMark, Found, GroupKey, Owner
from .reconcile import Ahead, check_owner, checked, foreign, misbound, positions_ahead
from .records import MetaBinding
from .remote import LEASE_SECONDS, Remote
from .store import Family, Put

logger = logging.getLogger("rocksmq.broker")


class Taken(NamedTuple):
    """What a takeover found. ``ahead``: groups to bring back; ``garbage``: groups of channels that are not there."""

    value: CommitValue
    lease: int | None
    channels: set[str]  # whose ids stand there
    ahead: dict[Group, Ahead]
    garbage: list[GroupKey]


class Takeover:
    """The attempts of one broker to take over ``remote``."""

    def __init__(self, core: Core, directory: DataDirectory, remote: Remote, shadow: MetaShadow, *, accept_loss: bool) -> None:
        self._core = core
        self._store = directory.store
        self._instance = directory.instance
        self._recovered_number = directory.commit_number
        self._recovered = core.extents()
        self._remote = remote
        self._shadow = shadow
        self._accept_loss = accept_loss
        self._lease: int | None = None
        self._sent: set[CommitValue] = set()  # each maybe applied

    def check_binding(self, *, is_attached: bool = False) -> None:
        """Raises DataRefused when the positions of the directory are kept in another store."""
        kept = has_groups(self._store) or is_attached
        problems = misbound(stored_binding(self._store), self._remote.name, has_groups=kept)
        checked(problems, accept_loss=self._accept_loss)

    def owner(self, epoch: int) -> str:
        """The value of the key `owner`."""
        return Owner(self._instance, epoch, socket.gethostname(), os.getpid()).encode()

    async def attempt(self, call: Callable[..., Awaitable[Any]]) -> Taken | None:
        """Take over, and give the core its groups; None: something was written meanwhile. ``call`` runs a method of ``remote``.

        Raises PrefixInUse, DataRefused, RemoteFailed, DiskFull; after these it may be attempted again.
        """
        found = Found.decode(await call(self._remote.read), self._remote.name)
        check_owner(found, self._instance, self._remote.name)
        self._compare_shadow(found)
        groups = self._shadow.groups() if self._shadow.is_ahead else found.groups
        attached, garbage = self._core.attach(groups.items())
        ahead = positions_ahead(attached, self._core.channels, self._recovered)
        value = found.commit
        if value is None or value not in self._sent:
            epoch = self._plan(found, ahead, is_attached=bool(attached))
            self._lease = await call(self._remote.grant, LEASE_SECONDS)
            attempt = Attempt(value, CommitValue(epoch, secrets.randbits(62)))
            self._sent.add(attempt.value)
            data = DataMark(self._instance, self._core.committer.synced_number)
            entries = {OWNER: self.owner(epoch), DATA: data.encode()}
            if not (await call(self._remote.transact, attempt, entries, self._lease)).is_applied:
                return None
            value = attempt.value
        self._shadow.replace(value, attached, self._binding(value.epoch, value.epoch))
        return Taken(value, self._lease, found.channels, {lost.group: lost for lost in ahead}, garbage)

    def _compare_shadow(self, found: Found) -> None:
        if stored_binding(self._store).store == self._remote.name and self._shadow.lacks(found.commit):
            if not self._shadow.is_ahead:
                logger.error(
                    "%s has lost what it had acknowledged: it was at %s, and is at %s; the data directory has a copy",
                    *(self._remote.name, self._shadow.commit, found.commit),
                )
            self._shadow.mark_ahead()

    def _plan(self, found: Found, ahead: list[Ahead], *, is_attached: bool) -> int:
        """The epoch to take over with, noted in the directory."""
        self.check_binding(is_attached=is_attached)
        bound = stored_binding(self._store).at(self._remote.name)
        problems = foreign(found, bound, self._instance, self._recovered_number)
        problems += [str(lost) for lost in ahead if lost.is_refused]
        checked(problems, accept_loss=self._accept_loss)
        epoch = 1 + max(0 if found.commit is None else found.commit.epoch, bound.applied_epoch)
        self._store.write([self._binding(epoch, 0 if problems else bound.applied_epoch)])
        self._store.sync()
        return epoch

    def _binding(self, planned_epoch: int, applied_epoch: int) -> Put:
        name = self._remote.name
        return Put(Family.META, keys.META_BINDING, MetaBinding(name, name, planned_epoch, applied_epoch).encode())
