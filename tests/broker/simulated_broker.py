"""The broker's core over a store in memory, driven by hand: what is taken, when it is committed, and what goes wrong.

No socket and no task: a turn of the loop is a call of `Simulation.commit`. A crash drops the core and loads
another from what was written.
"""

import tempfile
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from rocksmq.broker import keys
from rocksmq.broker.core import Core
from rocksmq.broker.directory import DataDirectory
from rocksmq.broker.ids import IDAllocator
from rocksmq.broker.limits import Limits
from rocksmq.broker.meta_embedded import EmbeddedMeta
from rocksmq.broker.store import Change, Delete, Family, Put
from rocksmq.broker.waiters import Waiter
from rocksmq.protocol.operations import HelloReply

from .reference_client import Link
from .support import FSYNC, NOON_MS


class Killed(BaseException):
    """The process is gone in the middle of a commit."""


class MemoryStore:
    """As `store.Store`, for small contents. ``on_write`` and ``on_sync`` may raise, before anything is done."""

    def __init__(self) -> None:
        self.on_write: Callable[[], None] = lambda: None
        self.on_sync: Callable[[], None] = lambda: None
        self._values: dict[Family, dict[bytes, bytes]] = {family: {} for family in Family}

    def owed_bytes(self) -> int:
        return 0

    def write(self, changes: Iterable[Change]) -> None:
        self.on_write()
        for change in changes:
            values = self._values[change.family]
            if isinstance(change, Put):
                values[change.key] = change.value
            elif isinstance(change, Delete):
                values.pop(change.key, None)
            else:
                for key in [key for key in values if change.begin <= key < change.end]:
                    del values[key]

    def sync(self) -> None:
        self.on_sync()

    def get(self, family: Family, key: bytes) -> bytes | None:
        return self._values[family].get(key)

    def scan(self, family: Family, begin: bytes, end: bytes, *, at_or_before: bool = False) -> Iterator[tuple[bytes, bytes]]:
        values = self._values[family]
        found = sorted(values)
        first = max(0, bisect_right(found, begin) - 1) if at_or_before else bisect_left(found, begin)
        for key in found[first : bisect_left(found, end)]:
            yield key, values[key]


class Simulation:
    """One broker over its crashes, and the links to it."""

    def __init__(self, limits: Limits) -> None:
        self.now_ms = NOON_MS
        self.store = MemoryStore()
        self._limits = limits
        self.start()

    def start(self) -> None:
        """Load what was written; every link is broken."""
        stored = self.store.get(Family.META, keys.COMMIT_NUMBER)
        number = 0 if stored is None else keys.from_u64(stored)
        directory = SimpleNamespace(store=self.store, commit_number=number, path=Path(tempfile.gettempdir()))
        self.core = Core(cast(DataDirectory, directory), IDAllocator(clock=lambda: self.now_ms), self._limits, FSYNC)
        meta = EmbeddedMeta(self.core, cast(DataDirectory, directory))
        self.core.meta = meta
        meta.load()
        self._present: dict[int, Link] = {}  # each client's newest connection, by its index
        self._waiting: list[tuple[Link, Waiter]] = []

    def take(self, link: Link) -> None:
        """Do the link's first request, if its connection was not ended by a newer one."""
        if not link.requests:
            return
        correlation, request = link.requests.popleft()
        if request is None:
            self.end(link.client)
            self._present[link.client] = link
            limits = self._limits.of_clients()
            link.replies.append((correlation, HelloReply(1, "simulated", "fsync", limits, self.core.ids.present_id)))
        elif self._present.get(link.client) is link:
            waiter = self.core.submit(request, partial(self._answer, link, correlation))
            if waiter is not None:
                self._waiting.append((link, waiter))

    def end(self, client: int) -> None:
        """The client's connection is over: what waits on it is forgotten."""
        ended = self._present.pop(client, None)
        for link, waiter in self._waiting:
            if link is ended:
                self.core.waiters.cancel(waiter)

    def expire(self) -> None:
        """The deadline of all that waits is over."""
        for waiter in self.core.waiters:
            self.core.waiters.cancel(waiter)
            waiter.expire()

    def commit(self) -> None:
        """Take the open commit. What ``store`` raises comes out, unless it is a full disk."""
        if self.core.committer.open.is_empty:
            return
        self.core.committer.sync_seconds = 0.0  # however slow this machine is, the sync stays on this thread
        commit = self.core.committer._commit()  # pyright: ignore[reportPrivateUsage]  # as `run` does once a turn
        try:
            commit.send(None)
        except StopIteration:
            return
        raise AssertionError("nothing in a commit waits")

    def ask(self, request: Any) -> Any:
        """The reply to ``request``; None while it waits for the open commit."""
        replies: list[Any] = []
        self.core.submit(request, replies.append)
        return replies[0] if replies else None

    @staticmethod
    def _answer(link: Link, correlation: int, reply: Any) -> None:
        link.replies.append((correlation, reply))
