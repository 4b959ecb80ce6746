"""What a broker's numbers say, in words: what is wrong, and what to do about it.

Thresholds are those at which somebody should look; what should wake somebody is for the alerts. What a failing check says
itself is not said twice. Pure: sentences made from one or two looks at the broker.
"""

from collections.abc import Callable, Iterator

from rocksmq.metrics import catalogue
from rocksmq.metrics.catalogue import Metric

from ..interval import Interval
from ..status import BrokerStatus, LabelValues
from .figures import count, counted, duration, moment, size

BEHIND_SECONDS = 300.0  # the oldest message that a group has not read; who reads as it is written is seconds behind
GROUPS_TOLD = 5  # the worst
DISK_FREE_SHARE = 0.1
DISK_FREE_RESERVES = 2
SYNC_SECONDS = 0.1  # ten times what a spinning disk takes
AHEAD_SECONDS = 5.0
CONNECTIONS_SHARE = 0.9
P99 = 0.99


def groups_behind(status: BrokerStatus) -> list[LabelValues]:
    """Channel and group of those that are far behind, the worst first; () if the broker tells of all groups together only."""
    lags = status.metrics.get(catalogue.GROUP_LAG_SECONDS.name)
    found = lags.values.items() if lags is not None else ()
    return [labels for labels, lag in sorted(found, key=lambda entry: -entry[1]) if lag >= BEHIND_SECONDS]


def present(look: Interval, now: float) -> list[str]:
    """What is wrong as it is now, beside the checks that fail; ``now`` is in seconds since 1970."""
    return [sentence for finding in _PRESENT for sentence in finding(_Look(look), now)]


def notes(look: Interval) -> list[str]:
    """What is good to know: what went wrong since the broker's start and may be over, and what is not shown."""
    found = _Look(look)
    bugs = sum(number for (_, code), number in look.values(catalogue.REQUESTS.name).items() if code == "InternalError")
    said = [f"{_times(bugs)} since its start the broker met a bug: its log has each"] if bugs else []
    if found.value(catalogue.AFTER_CRASH):
        said.append(
            "the broker before this one did not end in order: it was killed, or its storage failed; what was acknowledged is"
            " there, and its log, or the system's, says why"
        )
    said += [f"{_times(number)} {text}" for metric, text in _COUNTED if (number := found.total(metric))]
    if topics := found.total(catalogue.MIRROR_NOT_DEDUPLICATED):
        said.append(
            f"Pulsar does not deduplicate {counted(topics, 'topic')} of the mirror: after a failure messages may be there"
            " twice; turn it on in Pulsar (set-deduplication --enable), or do without"
        )
    if found.value(catalogue.AGGREGATED):
        said.append(
            f"{count(found.value(catalogue.SERIES))} channels and groups are too many to be shown one by one, so only their"
            " sums are: ask for one channel (`rocksmq top --channel NAME`, /metrics/detailed?channel=NAME), or raise"
            " metrics_series_max"
        )
    return said


def _times(number: float) -> str:
    return "once" if number == 1 else f"{count(number)} times"


class _Look:
    """Values by metric, 0 where there is none."""

    def __init__(self, look: Interval) -> None:
        self.look = look
        self.failing = {problem.partition(":")[0] for problem in look.later.problems}

    def value(self, metric: Metric, *labels: str) -> float:
        return self.look.value(metric.name, *labels) or 0

    def total(self, metric: Metric) -> float:
        """Of all labels together."""
        return sum(self.look.values(metric.name).values())


def _disk(look: _Look, now: float) -> Iterator[str]:
    free, total, reserve = map(look.value, (catalogue.DISK_FREE, catalogue.DISK_TOTAL, catalogue.DISK_RESERVE))
    if "disk" not in look.failing and total and free < max(DISK_FREE_SHARE * total, DISK_FREE_RESERVES * reserve):
        yield (
            f"the disk is nearly full: {size(free)} of {size(total)} are free, and below {size(reserve)} produce is refused:"
            " free space, or enlarge the disk"
        )


def _syncs(look: _Look, now: float) -> Iterator[str]:
    metric = look.look.later.metrics.get(catalogue.SYNC_SECONDS.name)
    histogram = metric.histograms.get(()) if metric is not None else None
    slowest = histogram.quantile(P99) if histogram is not None else None
    if slowest is not None and slowest >= SYNC_SECONDS:
        yield (
            f"the disk is slow to sync: one sync in a hundred has taken {duration(slowest)} or longer since the broker's start,"
            " and producers wait as long for their answers: see who else writes to that disk, or use a faster one"
        )


def _stalls(look: _Look, now: float) -> Iterator[str]:
    pending = size(look.value(catalogue.COMPACTION_PENDING))
    rate = look.value(catalogue.WRITE_RATE)
    if look.value(catalogue.WRITE_STALLED):
        yield f"RocksDB stops writes until it has caught up ({pending} to compact): produce less, or use a faster disk"
    elif rate:
        yield (
            f"RocksDB slows writes down to {size(rate)}/s until it has caught up ({pending} to compact): produce less, or use a"
            " faster disk"
        )


def _etcd(look: _Look, now: float) -> Iterator[str]:
    if "meta" not in look.failing and look.look.values(catalogue.ETCD_UP.name) == {(): 0}:
        yield (
            "etcd does not answer, so consume, commit and seek are refused; produce and fetch go on: get etcd to answer, then"
            " it goes on by itself"
        )


def _ids(look: _Look, now: float) -> Iterator[str]:
    if (ahead := look.value(catalogue.ID_AHEAD)) >= AHEAD_SECONDS:
        yield (
            f"message ids run {duration(ahead)} ahead of the clock, which was set back: seeks by time miss by as much, until it"
            " has caught up; let NTP set the clock"
        )


def _connections(look: _Look, now: float) -> Iterator[str]:
    number, limit = look.total(catalogue.CONNECTIONS), look.value(catalogue.CONNECTIONS_LIMIT)
    if limit and number >= CONNECTIONS_SHARE * limit:
        yield (
            f"{count(number)} of {count(limit)} connections are taken, and beyond these clients are refused: close some, or"
            " raise connections_max or the limit on open files (ulimit -n)"
        )


def _groups(look: _Look, now: float) -> Iterator[str]:
    mirrors = _mirrors(look)
    behind = [labels for labels in groups_behind(look.look.later) if labels[1:] not in mirrors]
    if behind == [()]:
        oldest = look.value(catalogue.GROUP_LAG_SECONDS)
        yield (
            f"a group is {duration(oldest)} behind, of {count(look.value(catalogue.GROUPS))}, which are too many to name it:"
            " `rocksmq top --channel NAME` shows those of a channel"
        )
        return
    for labels in behind[:GROUPS_TOLD]:
        yield _group(look, labels, now)
    if len(behind) > GROUPS_TOLD:
        yield f"{counted(len(behind) - GROUPS_TOLD, 'more group')} are behind: `rocksmq top` shows them"


def _group(look: _Look, labels: LabelValues, now: float) -> str:
    channel, group = labels
    moved = look.look.changes(catalogue.GROUP_OFFSET.name)
    oldest = look.value(catalogue.GROUP_LAG_SECONDS, *labels)
    unread = (
        f"{counted(look.value(catalogue.GROUP_LAG, *labels), 'message')} unread, the oldest since {moment(now - oldest)}"
        f" ({duration(oldest)} ago)"
    )
    if moved.get(labels) or look.value(catalogue.GROUP_WAITING, *labels):
        return f"group {group} of channel {channel} is read, but far behind: {unread}: add consumers if it does not catch up"
    return (
        f"nobody reads group {group} of channel {channel}: {unread}: start its consumers, or destroy the group if it is needed"
        " no more"
    )


def _mirrors(look: _Look) -> dict[LabelValues, LabelValues]:
    """The groups of the mirrors that the broker runs, with their names: the mirror's findings speak for them."""
    return {(f"mirror.{name}",): (name,) for (name,) in look.look.values(catalogue.MIRROR_UP.name)}


def _mirror(look: _Look, now: float) -> Iterator[str]:
    for group, (name,) in _mirrors(look).items():
        waiting, stopped = (look.value(catalogue.MIRROR_CHANNELS, name, state) for state in ("waiting", "stopped"))
        behind = [labels for labels in groups_behind(look.look.later) if labels[1:] == group]
        if not look.value(catalogue.MIRROR_UP, name):
            yield f"the mirror {name} to Pulsar does not run: the broker starts it again, and its log says why it ended"
            continue
        if stopped:
            yield (
                f"the mirror {name} has stopped at {counted(stopped, 'channel')}, by what does not go away by itself:"
                " `rocksmq mirror status` says why"
            )
        if waiting:
            yield (
                f"the mirror {name} waits for Pulsar with {counted(waiting, 'channel')}, and goes on by itself once it is back:"
                " `rocksmq mirror status` says what it tried"
            )
        if behind and not stopped and not waiting:
            oldest = look.value(catalogue.GROUP_LAG_SECONDS, *behind[0])
            yield (
                f"the mirror {name} is far behind, most at channel {behind[0][0]}, by {duration(oldest)}: if it does not catch"
                " up, Pulsar or the network takes less than is produced"
            )


def _reload(look: _Look, now: float) -> Iterator[str]:
    if look.look.values(catalogue.RELOAD_OK.name) == {(): 0}:
        yield "the last SIGHUP failed, and the former options stay: the broker's log says what is wrong with the new ones"


_PRESENT: tuple[Callable[[_Look, float], Iterator[str]], ...] = (
    _stalls,
    _etcd,
    _disk,
    _syncs,
    _groups,
    _mirror,
    _connections,
    _ids,
    _reload,
)
_COUNTED: tuple[tuple[Metric, str], ...] = (
    (
        catalogue.COMMITS_REFUSED,
        "since its start the broker refused a group commit because the disk was full: nothing of it was stored,"
        " and whoever waited was told DiskFull",
    ),
    (
        catalogue.BACKGROUND_ERRORS,
        "since the broker's start RocksDB failed in the background: its log has why; see to the disk",
    ),
    (
        catalogue.MARK_FAILURES,
        "since the broker's start the durable mark was not written: while it is not, a loss of data might not be"
        " noticed at the next start",
    ),
    (
        catalogue.CONNECTIONS_REJECTED,
        "since the broker's start a client was refused because there were too many connections",
    ),
    (
        catalogue.POSITIONS_BROUGHT_BACK,
        "at the broker's start a group was moved back to its channel's end, which a power cut had shortened",
    ),
    (
        catalogue.MIRROR_GAPS,
        "since the broker's start a message was removed before the mirror had sent it, and is missing in Pulsar",
    ),
    (
        catalogue.MIRROR_SKIPPED,
        "since the broker's start the mirror left a message out that is too large for Pulsar",
    ),
)
