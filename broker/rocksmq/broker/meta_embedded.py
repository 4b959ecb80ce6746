"""Groups in the broker's own RocksDB, next to the messages: the default."""

from collections.abc import Iterator

from rocksmq.metrics.instruments import MetricFamily

from . import keys
from .channels import Channel
from .commit import Commit
from .config import EMBEDDED
from .core import Core
from .directory import DataDirectory
from .reconcile import checked, misbound, positions_ahead
from .records import GroupState, MetaBinding
from .store import Delete, Family, Put, Store
from .waiters import Waiter


class EmbeddedMeta:
    """As `MetaStore`. Positions change in the group commit, so they are as durable as the messages they pass."""

    kind = EMBEDDED
    problem: str | None = None

    def __init__(self, core: Core, directory: DataDirectory, *, accept_loss: bool = False) -> None:
        self._core = core
        self._committer = core.committer
        self._waiters = core.waiters
        self._store = directory.store
        self._accept_loss = accept_loss

    async def open(self) -> None:
        self.load()

    def load(self) -> None:
        """Raises DataRefused."""
        bound = stored_binding(self._store)
        if bound.store != EMBEDDED:
            checked(misbound(bound, EMBEDDED, has_groups=False), accept_loss=self._accept_loss)
            self._committer.open.put(Put(Family.META, keys.META_BINDING, bound._replace(store=EMBEDDED).encode()))
            self._committer.open.changes.append(Delete(Family.META, keys.META_SHADOW))
        attached, _ = self._core.channels.attach(stored_groups(self._store))
        ahead = positions_ahead(attached, self._core.channels, self._core.channels.extents())
        checked([str(lost) for lost in ahead if lost.is_refused], accept_loss=self._accept_loss)
        for lost in ahead:
            self._core.groups.bring_back(self._committer.open, lost.group, lost.extent)
            self._core.brought_back(lost)
        if not self._committer.open.is_empty:
            self._committer.wake()

    async def run(self) -> None:
        pass

    async def close(self) -> None:
        pass

    def submit(self, waiter: Waiter, wait_ms: int) -> Waiter | None:
        if waiter.attempt(self._committer.open, False):
            return None
        return self._waiters.wait(waiter, wait_ms)

    def attempt(self, waiter: Waiter) -> None:
        self._waiters.attempt(waiter, self._committer.open)

    def extent_changed(self, channel: Channel) -> None:
        pass

    def before_seal(self, commit: Commit, channel: Channel) -> None:
        for waiter in self._waiters.of(channel.number):
            if waiter.starts is None:
                self._waiters.attempt(waiter, commit, sealing=True)

    def destroy(self, commit: Commit, channel: Channel) -> None:
        self._core.groups.destroy_all(commit, channel.groups.values())

    @property
    def pending(self) -> tuple[Commit, ...]:
        return self._committer.pending

    def families(self) -> Iterator[MetricFamily]:
        return iter(())

    def check_loaded(self) -> None:
        pass


def stored_groups(store: Store) -> Iterator[tuple[tuple[str, str], GroupState]]:
    """Group and channel name, and state, of every group in ``store``. Raises StorageFailed."""
    for key, value in store.scan(Family.META, keys.GROUP, keys.prefix_end(keys.GROUP)):
        group, channel, leaf = keys.group_of(key)
        if leaf == keys.STATE:
            yield (group, channel), GroupState.decode(value)


def has_groups(store: Store) -> bool:
    """Whether positions are kept in ``store`` itself. Raises StorageFailed."""
    return next(stored_groups(store), None) is not None


def stored_binding(store: Store) -> MetaBinding:
    """Where the positions of ``store`` are kept. Raises StorageFailed."""
    data = store.get(Family.META, keys.META_BINDING)
    return MetaBinding(EMBEDDED, EMBEDDED, 0, 0) if data is None else MetaBinding.decode(data)
