"""Reading on behind what the database cannot read: where a block of a table is damaged, the entries behind it can be had."""

from collections.abc import Iterator
from typing import NamedTuple

from rocksmq.protocol.errors import StorageFailed

from .store import Family, Store

KEY_BYTES = 16  # that count: of a batch
PROBES = 64  # of what lies between two places that cannot be read


class Unread(NamedTuple):
    """What lies at ``begin`` was not read; ``next_key`` is where reading went on, None: nothing more was read."""

    begin: bytes
    next_key: bytes | None
    message: str


def entries(store: Store, begin: bytes, end: bytes) -> Iterator[tuple[bytes, bytes] | Unread]:
    """Keys and values of the family ``data`` from ``begin`` up to, not including, ``end``, as far as they can be read."""
    next_key: bytes | None = begin.ljust(KEY_BYTES, b"\0")
    while next_key is not None:
        failed = _number(next_key)
        try:
            for key, value in store.scan(Family.DATA, _key(failed), end):
                failed = _number(key) + 1
                yield key, value
            return
        except StorageFailed as error:
            next_key = _readable_behind(store, failed, end)
            yield Unread(_key(failed), next_key, error.message)


def _readable_behind(store: Store, failed: int, end: bytes) -> bytes | None:
    """A key behind ``failed`` that can be read from, the first but for what is small between damaged blocks.

    Found by doubling the step, then by halving it, and by probing what was jumped over.
    """
    last = _number(end)
    step, bad = 1, failed
    good: int | None
    while not _is_readable(store, good := failed + step, end):
        bad, step = good, step * 2
        if failed + step >= last:
            bad, good = last, None
            break
    while True:
        if good is not None:
            bad, good = _edge(store, bad, good, end)
        before = _probed(store, failed, bad, end)
        if before is None:
            return None if good is None else _key(good)
        bad, good = before


def _edge(store: Store, bad: int, good: int, end: bytes) -> tuple[int, int]:
    """Two places side by side between ``bad`` and ``good``, of which the second can be read from and the first cannot."""
    while good - bad > 1:
        middle = (bad + good) // 2
        if _is_readable(store, middle, end):
            good = middle
        else:
            bad = middle
    return bad, good


def _probed(store: Store, failed: int, behind: int, end: bytes) -> tuple[int, int] | None:
    """Of some places between two that cannot be read, the first that can be, and the one before it: what lies between two
    damaged blocks."""
    bad = failed
    for place in range(failed, behind, max(1, (behind - failed) // PROBES)):
        if place > failed and _is_readable(store, place, end):
            return bad, place
        bad = place
    return None


def _is_readable(store: Store, number: int, end: bytes) -> bool:
    try:
        next(store.scan(Family.DATA, _key(number), end), None)
    except StorageFailed:
        return False
    return True


def _number(key: bytes) -> int:
    return int.from_bytes(key[:KEY_BYTES].ljust(KEY_BYTES, b"\0"), "big")


def _key(number: int) -> bytes:
    return number.to_bytes(KEY_BYTES, "big")
