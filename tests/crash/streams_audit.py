"""The audit of `streams`: each check raises AssertionError that says what is wrong, with which message or pack.

- What was acknowledged is in the logs once, under the ids that were told; what has an unknown outcome once or not, each part
  whole; a producer's parts are in order. Behind its tick stands only what is late on purpose, or of unknown outcome.
- The time-tick packs of each reader are those that follow from the logs: range, messages and their order, lateness, positions.
- A reader that stores positions with its output has each pack once. One without gets at each restart at most its last pack
  again, on all channels or on none.
"""

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from .streams_evidence import Ending, Evidence, ReaderLife, SentPart, by_channel
from .streams_pack import Entry, Logs, Pack, packs_of


class Figures(NamedTuple):
    """What was found in order."""

    messages: int
    ticks: int
    unknown: int  # parts of unknown outcome
    unknown_stored: int
    packs: int
    late: int
    repeated: int  # packs, of readers by subscription
    lives: int  # of those readers


def audit(evidence: Evidence) -> Figures:
    """Check everything."""
    logs = evidence.logs
    unknown, unknown_stored = _check_stored(evidence)
    packs = packs_of(logs)
    for name, read in evidence.exact.items():
        _check_exact(name, read, packs)
    for name, copied in evidence.copies.items():
        _check_copy(name, copied, logs)
    repeated = sum(_check_subscribed(name, lives, packs) for name, lives in evidence.subscribed.items())
    repeated += sum(_check_plain(name, lives, logs) for name, lives in evidence.plain.items())
    ticks = sum(entry.is_tick for log in logs.values() for entry in log)
    messages = sum(map(len, logs.values())) - ticks
    delivered = sum(pack.msg_count for pack in packs)
    assert delivered == messages, f"lost: {messages - delivered} messages behind the last tick"
    late = sum(pack.late_count for pack in packs)
    lives = sum(len(lives) for readers in (evidence.subscribed, evidence.plain) for lives in readers.values())
    return Figures(messages, ticks, unknown, unknown_stored, len(packs), late, repeated, lives)


# -- what is stored --------------------------------------------------------------------


def _check_stored(evidence: Evidence) -> tuple[int, int]:
    """How many parts have an unknown outcome, and how many of these are stored."""
    places: dict[str, dict[int, int]] = {}  # where a message is in its channel's log, by its id
    for channel, log in evidence.logs.items():
        index = places[channel] = {}
        for at, entry in enumerate(log):
            assert at == 0 or log[at - 1].place < entry.place, f"{channel}: id {entry.place} does not rise"
            assert entry.id not in index, f"doubled: {_told(channel, entry)} is also at {log[index[entry.id]].place}"
            index[entry.id] = at
    counts: Counter[bool] = Counter()
    seen: Counter[str] = Counter()
    for sender, parts in evidence.senders.items():
        for channel, sent in by_channel(parts).items():
            reached = -1
            for part in sent:
                begin = _check_part(f"{sender} to {channel}", part, evidence.logs[channel], places[channel])
                if part.stored is None:
                    counts[begin is not None] += 1
                if begin is not None:
                    assert begin > reached, f"{sender}: {_told(channel, evidence.logs[channel][begin])} is out of order"
                    reached = begin + len(part.items) - 1
                    seen[channel] += len(part.items)
    for channel, log in evidence.logs.items():
        assert seen[channel] == len(log), (
            f"{channel} has {len(log)} messages, of which {len(log) - seen[channel]} were never sent"
        )
    _check_promises(evidence)
    return counts.total(), counts[True]


def _check_part(name: str, part: SentPart, log: Sequence[Entry], places: dict[int, int]) -> int | None:
    """Where in the log it begins; None if it is not there."""
    found = [places.get(item.id) for item in part.items]
    if part.stored is None and all(at is None for at in found):
        return None
    for item, at in zip(part.items, found, strict=True):
        assert at is not None, f"lost: message {item.id:#x}, of {name}, {'un' * (part.stored is None)}known to be stored"
        entry = log[at]
        assert (entry.digest, entry.end_ts) == (item.digest, item.end_ts), f"{_told(name, entry)} is not what was sent"
    begin = found[0]
    assert begin is not None, "a part has messages"
    assert found == list(range(begin, begin + len(found))), (
        f"{name}: {_told(name, log[begin])} begins a part that is torn or swapped"
    )
    first_id, last_id = log[begin].place, log[begin + len(found) - 1].place
    assert last_id - first_id == len(found) - 1, f"{_told(name, log[begin])} begins a part whose ids have a hole"
    assert part.stored in (None, (first_id, len(found))), f"{_told(name, log[begin])} is not at {part.stored}, as was told"
    return begin


def _check_promises(evidence: Evidence) -> None:
    """Nothing that is due stands behind a tick at or above it."""
    due = {
        (part.channel, item.id)
        for parts in evidence.senders.values()
        for part in parts
        for item in part.items
        if item.is_due and part.stored is not None
    }
    for channel, log in evidence.logs.items():
        ticked = 0
        for entry in log:
            if entry.is_tick:
                ticked = max(ticked, entry.end_ts)
            elif (channel, entry.id) in due:
                assert entry.end_ts > ticked, f"{_told(channel, entry)} is behind tick {ticked}"


# -- time-tick streams -----------------------------------------------------------------


def _check_exact(name: str, read: Sequence[Pack], packs: Sequence[Pack]) -> None:
    """The very packs, each once."""
    for before, pack in pairwise(read):
        again = "it is repeated" if pack.end_ts <= before.end_ts else "something between is lost"
        assert pack.begin_ts == before.end_ts, f"{name}: {pack} follows on {before}: {again}"
    for pack, right in zip(read, packs, strict=False):
        check_same(name, pack, right)
    assert len(read) == len(packs), f"{name}: lost: it has {len(read)} packs of {len(packs)}"


def check_same(name: str, pack: Pack, right: Pack) -> None:
    """``pack`` is ``right`` in all it says."""
    assert pack[:2] == right[:2], f"{name}: {pack} should be {right}"
    for channel in pack.msgs.keys() | right.msgs.keys():
        has, due = pack.msgs.get(channel, []), right.msgs.get(channel, [])
        lost = [read.place for read in due if read not in has]
        more = [read.place for read in has if read not in due]
        assert not lost, f"{name}: {pack}, {channel}: lost or changed {lost}, wrong or changed {more}"
        assert not more, f"{name}: {pack}, {channel}: wrong {more}"
        assert has == due, f"{name}: {pack}, {channel}: {[read.place for read in has]} are doubled, or in another order"
    assert pack.starts == right.starts, f"{name}: {pack} starts at {pack.starts}, not {right.starts}"
    assert pack.ends == right.ends, f"{name}: {pack} ends at {pack.ends}, not {right.ends}"


def _check_subscribed(name: str, lives: Sequence[ReaderLife], packs: Sequence[Pack]) -> int:
    """How many packs were repeated; each life may begin where the one before may have got its subscription to."""
    index = {pack.end_ts: at for at, pack in enumerate(packs)}
    starts, reached, repeated = {0}, 0, 0
    for life in lives:
        if not life.packs:
            continue
        begin = index.get(life.packs[0].end_ts)
        right = " or ".join(str(packs[at]) for at in starts if at < len(packs))
        assert begin in starts, f"{life.name}: it begins with {life.packs[0]}, and not with {right}: lost, or repeated"
        for at, pack in enumerate(life.packs, begin):
            assert at < len(packs), f"{life.name}: {pack} is repeated"
            check_same(life.name, pack, packs[at])
        repeated += begin < reached
        reached = begin + len(life.packs)
        starts = {Ending.BEHIND: {reached}, Ending.BEFORE: {reached - 1}, Ending.EITHER: {reached - 1, reached}}[life.ending]
    assert reached == len(packs), f"{name}: lost: it has read {reached} packs of {len(packs)}"
    return repeated


# -- plain streams ---------------------------------------------------------------------

Standing = tuple[int, ...]  # how many messages of each channel were read


def _check_copy(name: str, copied: Sequence[Pack], logs: Logs) -> None:
    """Each message of each channel once, in order."""
    standing: Standing = (0,) * len(logs)
    for pack in copied:
        after = _after(pack, standing, logs)
        assert after is not None, f"{name}: {_parts_of(pack)} does not follow on {standing}: lost, doubled or in another order"
        standing = after
    assert standing == tuple(map(len, logs.values())), f"{name}: lost: it has read {standing}"


def _check_plain(name: str, lives: Sequence[ReaderLife], logs: Logs) -> int:
    """How many packs were repeated. The subscription moves on all channels of a pack or on none."""
    starts: set[Standing] = {(0,) * len(logs)}
    behind = starts
    repeated = 0
    for life in lives:
        if not life.packs:
            continue
        ends: set[tuple[Standing, Standing, Standing]] = set()
        for start in starts:
            before, after = start, start
            for pack in life.packs:
                before, found = after, _after(pack, after, logs)
                if found is None:
                    break
                after = found
            else:
                ends.add((start, before, after))
        assert ends, f"{life.name}: {_parts_of(life.packs[0])} and what follows begins at none of {starts}: lost, or repeated"
        repeated += behind.isdisjoint(start for start, _, _ in ends)
        behind = {after for _, _, after in ends}
        starts = {before for _, before, _ in ends} if life.ending is not Ending.BEHIND else set()
        starts |= behind if life.ending is not Ending.BEFORE else set()
    assert behind == {tuple(map(len, logs.values()))}, f"{name}: lost: it has read {behind}"
    return repeated


def _after(pack: Pack, standing: Standing, logs: Logs) -> Standing | None:
    """Where the channels stand behind the pack; None if it does not follow on ``standing``."""
    after = list(standing)
    for at, (channel, log) in enumerate(logs.items()):
        read = pack.msgs.get(channel, [])
        there = log[standing[at] : standing[at] + len(read)]
        if [(entry.place, entry.digest) for entry in there] != [(msg.place, msg.digest) for msg in read]:
            return None
        after[at] += len(read)
        if read:
            _check_bounds(pack, channel, log, standing[at], after[at])
    assert pack.starts.keys() == pack.ends.keys() == pack.msgs.keys(), f"positions are of other channels than {_parts_of(pack)}"
    return tuple(after)


def _check_bounds(pack: Pack, channel: str, log: Sequence[Entry], begin: int, end: int) -> None:
    """Its positions on the channel stand for exactly what it has from there."""
    for position, at in ((pack.starts[channel], begin), (pack.ends[channel], end)):
        low = log[at - 1].place if at else -1
        high = log[at].place if at < len(log) else log[-1].place + 1
        assert low < int(position.msg_id or 0) <= high, f"{position} is not behind {low}, up to {high}"


def _parts_of(pack: Pack) -> dict[str, int]:
    """Where it begins on each channel."""
    return {channel: read[0].place for channel, read in pack.msgs.items()}


def _told(channel: str, entry: Entry) -> str:
    return f"message {entry.id:#x} at {entry.place} of {channel}"
