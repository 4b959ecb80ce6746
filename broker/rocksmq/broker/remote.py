"""A store of text elsewhere, with transactions that compare one key: what `meta_remote` needs of it (meta_etcd.py is one)."""

from collections.abc import Mapping
from typing import Protocol

from .fence import Attempt, CommitValue, Met

LEASE_SECONDS = 10
KEYS_MAX = 124  # a transaction: etcd takes 128, of which commit, data and owner are three
STATE_BYTES_MAX = 1 << 20  # of groups' states a transaction: etcd takes 1.5 MiB
METHODS = "read", "transact", "found", "grant", "keep_alive", "revoke", "close"  # of `Remote`


class RemoteFailed(Exception):
    """The store gave no answer, or refused: whether a transaction was applied is not known.

    ``detail``: the address, and what the network said; for logs and operators, not for clients.
    """

    def __init__(self, why: str, detail: str = "") -> None:
        super().__init__(why)
        self.detail = detail


class Remote(Protocol):
    """A store of text under one prefix. Each method blocks, for a bounded time, and raises RemoteFailed."""

    name: str  # for messages and for binding a data directory to it

    def read(self) -> dict[str, str]:
        """Everything under the prefix, at one moment, by keys without the prefix."""
        ...

    def transact(self, attempt: Attempt, entries: Mapping[str, str | None], lease: int | None) -> Met:
        """Set ``entries`` (None deletes) if `commit` is as expected, and `commit` with them; `owner` is put on ``lease``."""
        ...

    def found(self) -> CommitValue | None:
        """What `commit` is now; None: nothing that is such a value."""
        ...

    def grant(self, seconds: int) -> int:
        """A new lease."""
        ...

    def keep_alive(self, lease: int) -> bool:
        """Whether it still lived, and was renewed."""
        ...

    def revoke(self, lease: int) -> None:
        """End it, and what was put on it."""
        ...

    def close(self) -> None:
        """Let go of the connection."""
        ...
