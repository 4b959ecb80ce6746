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
from .store import Change, Family, Put

logger = logging.getLogger("rocksmq.broker")


class Taken(NamedTuple):
    """What a takeover found. ``ahead``: groups to bring back; ``others``: groups of channel numbers that are not here."""

    value: CommitValue
    lease: int | None
    channels: set[str]  # whose ids stand there
    ahead: dict[Group, Ahead]
    others: dict[GroupKey, int]
    is_lost: bool  # groups come from the data directory's copy


class Takeover:
    """The attempts of one broker to take over ``remote``."""

    def __init__(self, core: Core, directory: DataDirectory, remote: Remote, shadow: MetaShadow, *, accept_loss: bool) -> None:
        self._core = core
        self._store = directory.store
        self._instance = directory.instance
        self._recovered_number = directory.commit_number
        self._recovered = core.channels.extents()
        self._remote = remote
        self._shadow = shadow
        self._accept_loss = accept_loss
        self._lease: int | None = None
        self._sent: Attempt | None = None  # the latest, maybe applied; no earlier one can be any more

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
        is_lost = stored_binding(self._store).store == self._remote.name and self._shadow.lacks(found.commit)
        groups = self._shadow.groups() if is_lost else found.groups
        attached, others = self._core.channels.attach(groups.items())
        ahead = positions_ahead(attached, self._core.channels, self._recovered)
        if self._sent is None or found.commit not in self._sent:
            epoch = self._plan(found, ahead, is_attached=bool(attached))
            if not is_lost:
                self._shadow.unmark()
            else:
                self._shadow.mark_lost(epoch)
                logger.error(
                    "%s has lost what it had acknowledged: it was at %s, and is at %s; it is told again from the copy here",
                    *(self._remote.name, self._shadow.commit, found.commit),
                )
            self._sent = Attempt(found.commit, CommitValue(epoch, secrets.randbits(62)))
        value = self._sent.value
        if found.commit != value:
            if self._lease is None or not await call(self._remote.keep_alive, self._lease):
                self._lease = await call(self._remote.grant, LEASE_SECONDS)
            data = DataMark(self._instance, self._core.committer.synced_number)
            entries = {OWNER: self.owner(value.epoch), DATA: data.encode()}
            met = await call(self._remote.transact, self._sent, entries, self._lease)
            if not met.is_applied and met.found != value:
                return None
        numbers = {key: groups[key].channel_number for key in others}
        self._shadow.replace(value, attached, self._binding(value.epoch, value.epoch))
        return Taken(value, self._lease, found.channels, {lost.group: lost for lost in ahead}, numbers, is_lost)

    def _plan(self, found: Found, ahead: list[Ahead], *, is_attached: bool) -> int:
        """The epoch to take over with, noted in the directory."""
        if is_attached and not has_groups(self._store):
            self.check_binding(is_attached=True)
        bound = stored_binding(self._store).at(self._remote.name)
        problems = foreign(found, self._remote.name, bound, self._instance, self._recovered_number)
        problems += [str(lost) for lost in ahead if lost.is_refused]
        checked(problems, accept_loss=self._accept_loss)
        epoch = 1 + max(0 if found.commit is None else found.commit.epoch, bound.applied_epoch)
        changes: list[Change] = [self._binding(epoch, 0 if problems else bound.applied_epoch)]
        if bound.store != self._remote.name:
            changes.append(self._shadow.forget())
        self._store.write(changes)
        self._store.sync()
        return epoch

    def _binding(self, planned_epoch: int, applied_epoch: int) -> Put:
        name = self._remote.name
        return Put(Family.META, keys.META_BINDING, MetaBinding(name, name, planned_epoch, applied_epoch).encode())
