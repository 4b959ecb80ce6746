"""A store elsewhere in memory, for whoever has no broker to run on Trio's clock; and a broker's life with one."""

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import trio

from rocksmq.broker.engine import RocksMQ
from rocksmq.broker.fence import Attempt, CommitValue, Met
from rocksmq.broker.meta_embedded import stored_binding, stored_groups
from rocksmq.broker.prefix import COMMIT, OWNER, Found, GroupKey
from rocksmq.broker.records import GroupState, MetaBinding
from rocksmq.broker.remote import RemoteFailed
from rocksmq.broker.store import Store

OPERATIONS_MAX = 128  # etcd's --max-txn-ops
REQUEST_BYTES_MAX = 1_572_864  # etcd's --max-request-bytes


class MemoryRemote:
    """As `Remote`. Call number ``fails_at`` has no answer: it is done all the same when ``is_done``, and else is not."""

    def __init__(self, name: str = "etcd prefix p") -> None:
        self.name = name
        self.entries: dict[str, str] = {}
        self.calls = 0
        self.fails_at: int | None = None
        self.is_done = False
        self.on_read: Callable[[dict[str, str]], dict[str, str]] = lambda entries: entries

    @property
    def groups(self) -> dict[GroupKey, GroupState]:
        return Found.decode(self.entries, self.name).groups

    def read(self) -> dict[str, str]:
        self._call()
        return self.on_read(dict(self.entries))

    def transact(self, attempt: Attempt, entries: Mapping[str, str | None], lease: int | None) -> Met:
        size = sum(len(self.name) + len(key) + len(value or "") for key, value in entries.items())
        assert len(entries) < OPERATIONS_MAX
        assert size < REQUEST_BYTES_MAX
        fails = self._call()
        commit = self.found()
        if commit == attempt.expected:
            for key, value in entries.items():
                self.entries.pop(key, None)
                if value is not None:
                    self.entries[key] = value
            self.entries[COMMIT] = str(attempt.value)
        if fails:
            raise RemoteFailed("its answer is lost")
        return Met(commit == attempt.expected, commit)

    def found(self) -> CommitValue | None:
        return CommitValue.parse(self.entries[COMMIT]) if COMMIT in self.entries else None

    def grant(self, seconds: int) -> int:
        return 1

    def keep_alive(self, lease: int) -> bool:
        return True

    def revoke(self, lease: int) -> None:
        self.entries.pop(OWNER, None)

    def close(self) -> None:
        pass

    def _call(self) -> bool:
        """Whether this one is done and not answered."""
        self.calls += 1
        if self.calls != self.fails_at:
            return False
        if not self.is_done:
            raise RemoteFailed("no answer")
        return True


async def nothing(mq: RocksMQ) -> None:
    """A life in which nothing happens."""


def live(path: Path, remote: MemoryRemote | None = None, work: Callable[[RocksMQ], Awaitable[object]] = nothing) -> None:
    """A broker's life with ``work`` in it."""

    async def run() -> None:
        async with RocksMQ(path, remote=remote) as mq:
            await work(mq)

    trio.run(run)


def embedded_groups(path: Path) -> dict[GroupKey, GroupState]:
    """Those in the directory itself."""
    store = Store(path / "db")
    groups = dict(stored_groups(store))
    store.close()
    return groups


def binding_of(path: Path) -> MetaBinding:
    store = Store(path / "db")
    binding = stored_binding(store)
    store.close()
    return binding
