"""Which cuts make a channel whole again, of whose batches some are damaged or missing; for `check`. Pure.

What is left of such a channel are runs of batches that follow each other. A channel has no holes, so one run can stay: the
channel's end is cut off behind it, its beginning before it.
"""

from collections.abc import Iterator

from .findings import Repair, argument
from .records import Extent


class Run:
    """Messages that can be read and follow each other; ``end_id`` is the last one's, ``end_offset`` lies behind it."""

    def __init__(self, first_id: int, begin_offset: int) -> None:
        self.first_id = first_id
        self.begin_offset = begin_offset
        self.end_id = first_id - 1
        self.end_offset = begin_offset

    @property
    def message_count(self) -> int:
        return self.end_offset - self.begin_offset


def cuts(channel: str, extent: Extent, runs: list[Run], *, has_more_behind: bool) -> Iterator[Repair]:
    """Those that keep the first run, the last, the longest. ``has_more_behind``: something damaged stands behind the last."""
    if not runs:
        empty = f"empties {channel}, whose offsets go on"
        lost = extent.message_count
        ids = (extent.begin_id, extent.end_id) if lost else (None, None)
        yield Repair(argument("begin", channel, extent.end_id + 1), empty, "", lost, 0, *ids)
        return
    longest = max(range(len(runs)), key=lambda index: runs[index].message_count)
    is_whole_before = runs[0].begin_offset <= extent.begin_offset
    is_whole_behind = runs[-1].end_offset >= extent.end_offset and not has_more_behind
    for index in sorted({0, longest, len(runs) - 1}):
        if index or not is_whole_before:
            yield _begin(channel, extent, runs, index)
        if index < len(runs) - 1 or not is_whole_behind:
            yield _end(channel, extent, runs, index)


def _begin(channel: str, extent: Extent, runs: list[Run], index: int) -> Repair:
    run = runs[index]
    lost = max(0, run.begin_offset - extent.begin_offset)
    readable = sum(other.message_count for other in runs[:index])
    return Repair(
        argument("begin", channel, run.first_id),
        f"lets {channel} begin with id {run.first_id}; groups that were to read what goes are told of a gap",
        "",
        max(lost, readable),
        readable,
        extent.begin_id,
        run.first_id - 1,
    )


def _end(channel: str, extent: Extent, runs: list[Run], index: int) -> Repair:
    run = runs[index]
    lost = max(0, extent.end_offset - run.end_offset)
    readable = sum(other.message_count for other in runs[index + 1 :])
    return Repair(
        argument("end", channel, run.end_id + 1),
        f"lets {channel} end with id {run.end_id}; groups that have passed it are brought back to its end",
        "",
        max(lost, readable),
        readable,
        run.end_id + 1,
        max(extent.end_id, runs[-1].end_id),
    )
