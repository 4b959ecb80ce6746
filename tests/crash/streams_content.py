"""The messages of `streams`: what producers make, where each of its rows belongs, and how it is told from any other."""

from collections.abc import Sequence
from hashlib import blake2b
from random import Random
from typing import NamedTuple

from rocksmq.clients.msgstream import (
    DeleteMsg,
    InsertMsg,
    MsgType,
    SearchMsg,
    SearchResultMsg,
    SegStatisticsMsg,
    TimeSyncMsg,
    TsMsg,
)

from .streams_clock import Stamps

ROWS_MAX = 6
ROW_BYTES = (0, 3, 40, 40, 400)
LARGE_BYTES = 60_000  # of one row in LARGE_EVERY
LARGE_EVERY = 500
OLD_MAX = 60  # how far below what is settled a timestamp may be that straddles a tick, or comes late
_INSERTS, _DELETES = (MsgType.INSERT,), (MsgType.DELETE,)
_OTHERS = (MsgType.SEARCH, MsgType.SEARCH_RESULT, MsgType.SEG_STATISTICS, MsgType.TIME_SYNC)
_ALL = _INSERTS + _DELETES + _OTHERS


class Item(NamedTuple):
    """A message in a channel, as it was sent. ``is_due``: it must not come late."""

    id: int
    end_ts: int
    digest: str
    is_due: bool

    @classmethod
    def of(cls, msg: TsMsg, *, is_due: bool = False) -> "Item":
        return cls(msg.id, msg.end_ts, digest(msg), is_due)


def digest(msg: TsMsg) -> str:
    """All that the message says, in short."""
    content: tuple[object, ...]
    match msg:
        case InsertMsg():
            content = msg.timestamps, msg.row_ids, msg.rows
        case DeleteMsg():
            content = msg.timestamps, msg.primary_keys
        case SearchMsg() | SearchResultMsg() | SegStatisticsMsg():
            content = (msg.payload,)
        case _:
            content = ()
    whole = (int(msg.type), msg.id, msg.begin_ts, msg.end_ts, list(msg.hash_keys), content)
    return blake2b(repr(whole).encode(), digest_size=8).hexdigest()


def made(random: Random, first_id: int, stamps: Stamps, *, mixes: bool) -> list[TsMsg]:
    """The messages of one pack, with ids from ``first_id`` on: some straddle ticks, some are late on purpose.

    They are of types that go together without a repack function, unless this ``mixes``.
    """
    choices = [_ALL] if mixes else [_INSERTS, _INSERTS, _DELETES, _OTHERS]
    kinds = random.choice(choices)
    return [_message(random, random.choice(kinds), first_id + index, stamps) for index in range(random.randint(1, 6))]


def by_id(msgs: list[TsMsg], count: int) -> dict[int, list[TsMsg]]:
    """As `parts`, of a writer with a repack function of its own: a message goes as a whole."""
    found: dict[int, list[TsMsg]] = {}
    for msg in msgs:
        found.setdefault(msg.id % count, []).append(msg)
    return found


def parts(msgs: Sequence[TsMsg], count: int) -> dict[int, list[TsMsg]]:
    """What each of ``count`` channels is to get of them, by index."""
    found: dict[int, list[TsMsg]] = {}
    for msg in msgs:
        if not isinstance(msg, InsertMsg | DeleteMsg):
            found.setdefault(msg.hash_keys[0] % count, []).append(msg)
            continue
        for index in range(count):
            rows = [row for row, key in enumerate(msg.hash_keys) if key % count == index]
            if rows:
                found.setdefault(index, []).append(_rows(msg, rows))
    return found


def _rows(msg: InsertMsg | DeleteMsg, rows: Sequence[int]) -> TsMsg:
    stamps, keys = [msg.timestamps[row] for row in rows], [msg.hash_keys[row] for row in rows]
    if isinstance(msg, DeleteMsg):
        return DeleteMsg(msg.id, stamps, [msg.primary_keys[row] for row in rows], keys)
    return InsertMsg(msg.id, stamps, [msg.row_ids[row] for row in rows], [msg.rows[row] for row in rows], keys)


def _message(random: Random, kind: MsgType, number: int, stamps: Stamps) -> TsMsg:
    is_late = random.random() < 0.05
    if kind not in (MsgType.INSERT, MsgType.DELETE):
        key, stamp = [random.getrandbits(32)], _old(random, stamps) if is_late else _stamp(random, stamps)
        if kind is MsgType.TIME_SYNC:
            return TimeSyncMsg(stamp, id=number, hash_keys=key)
        classes = {MsgType.SEARCH: SearchMsg, MsgType.SEARCH_RESULT: SearchResultMsg, MsgType.SEG_STATISTICS: SegStatisticsMsg}
        return classes[kind](id=number, timestamp=stamp, payload=random.randbytes(_size(random)), hash_keys=key)
    count = random.randint(1, ROWS_MAX)
    times = [_old(random, stamps) if is_late else _stamp(random, stamps) for _ in range(count)]
    ids, keys = [random.getrandbits(63) for _ in range(count)], [random.getrandbits(32) for _ in range(count)]
    if kind is MsgType.DELETE:
        return DeleteMsg(number, times, ids, keys)
    return InsertMsg(number, times, ids, [random.randbytes(_size(random)) for _ in range(count)], keys)


def _stamp(random: Random, stamps: Stamps) -> int:
    chance = random.random()
    if chance < 0.1:
        return stamps.ahead
    return _old(random, stamps) if chance < 0.2 else random.randint(stamps.first, stamps.last)


def _old(random: Random, stamps: Stamps) -> int:
    return max(0, stamps.settled - random.randint(0, OLD_MAX))


def _size(random: Random) -> int:
    return LARGE_BYTES if random.randrange(LARGE_EVERY) == 0 else random.choice(ROW_BYTES)
