"""Reading on behind what the database cannot read: where a block of a table is damaged, the entries behind it can be had."""

from collections.abc import Iterator
from typing import NamedTuple

from rocksmq.protocol.errors import StorageFailed

from .store import Family, Store

KEY_BYTES = 16  # that count: of a batch


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
    """The first key behind ``failed`` that can be read from: found by doubling the step, then by halving it."""
    last = _number(end)
    step, bad = 1, failed
    while not _is_readable(store, good := failed + step, end):
        bad, step = good, step * 2
        if failed + step >= last:
            return None
    while good - bad > 1:
        middle = (bad + good) // 2
        if _is_readable(store, middle, end):
            good = middle
        else:
            bad = middle
    return _key(good)


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
