"""Where the states of groups are kept: the seam between the operations on them and the stores.

Embedded (meta_embedded.py), they are in the broker's own RocksDB, and change in the group commit of the messages that they
pass. Kept elsewhere (meta_remote.py), they change in transactions of their own, once the messages are durable.
"""

from collections.abc import Iterator
from typing import Protocol

from rocksmq.metrics.instruments import MetricFamily

from .channels import Channel
from .commit import Commit
from .waiters import Waiter


class MetaStore(Protocol):
    """Does the operations on groups, each in a commit that makes its outcome durable."""

    async def open(self) -> None:
        """Load the groups, or give up for now when the store is away. Raises DataRefused, PrefixInUse."""
        ...

    async def run(self) -> None:
        """Serve, from `open` until cancelled. Raises what `open` raises."""
        ...

    async def close(self) -> None:
        """Finish what is in flight, and let go of the store."""
        ...

    def submit(self, waiter: Waiter, wait_ms: int) -> Waiter | None:
        """Attempt it now, or as soon as the store can; one that finds nothing then waits for ``wait_ms``.

        Returns the waiter when it is parked. Raises RocksMQError.
        """
        ...

    def attempt(self, waiter: Waiter) -> None:
        """There may be something for a parked one."""
        ...

    def before_seal(self, commit: Commit, channel: Channel) -> None:
        """``commit`` brings messages of ``channel``."""
        ...

    def extent_changed(self, channel: Channel) -> None:
        """What ``channel`` holds is durable, and was not before."""
        ...

    def destroy(self, commit: Commit, channel: Channel) -> None:
        """``commit`` destroys ``channel``, and its groups with it."""
        ...

    @property
    def pending(self) -> tuple[Commit, ...]:
        """Commits with operations on groups that are not durable yet, the latest first."""
        ...

    kind: str  # "embedded" or "etcd"
    problem: str | None  # why positions cannot be moved, None: they can

    def families(self) -> Iterator[MetricFamily]:
        """Its metrics."""
        ...

    def check_loaded(self) -> None:
        """Raises MetaUnavailable while it is not known which groups there are."""
        ...
