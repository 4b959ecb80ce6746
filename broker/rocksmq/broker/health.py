"""Whether the broker can do its work, and if not: what is wrong, what goes on meanwhile, what to do.

One list of checks, asked anew each time, for `/readyz`, for the metrics and for `rocksmq status`. It only
looks: nothing is produced, synced or sent. Reasons are for people: no text of an exception, no path, no secret.
"""

import time
from collections.abc import Callable, Iterator, Mapping

from rocksmq.metrics import catalogue
from rocksmq.metrics.instruments import MetricFamily, gauge, gauges

from .core import Core
from .status import Check

REFUSED_SECONDS = 10.0  # since a commit was undone; then, with room on the disk, whoever comes may try: nobody else would tell
CLOCK = "clock"
SYNC_SECONDS_MAX = 5.0  # a disk that is only slow is done by then


class Health:
    """The checks of one broker."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._reasons: Mapping[str, Callable[[], str | None]] = {
            "store": self._store,
            "disk": self._disk,
            "meta": self._meta,
            "draining": self._draining,
            CLOCK: self._clock,
        }

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._reasons)

    def checks(self) -> list[Check]:
        """All of them, in the order of `names`."""
        reasons = ((name, why()) for name, why in self._reasons.items())
        return [Check(name, reason is None, reason or "", name != CLOCK) for name, reason in reasons]

    def families(self) -> Iterator[MetricFamily]:
        """The same as metrics."""
        checks = [check for check in self.checks() if check.is_vital]  # another has a metric of its own
        yield gauge(catalogue.READY, all(check.passes for check in checks))
        yield gauges(catalogue.READY_CHECK, (((check.name,), check.ok) for check in checks))
        yield gauge(catalogue.READ_ONLY, self._core.committer.failure is not None)

    def _store(self) -> str | None:
        if (seconds := self._core.committer.syncing_seconds) > SYNC_SECONDS_MAX:
            return (
                f"a sync of the disk has not come back for {seconds:.0f} s, and nobody is acknowledged before it does; what is"
                " stored is read meanwhile: see what the disk does; a restart does not help while it hangs"
            )
        if self._core.committer.failure is None:
            return None
        return (
            "the database failed: nothing is acknowledged any more, and the broker ends with exit code 5; see its log for the"
            " cause, check the disk, and start it again: what was acknowledged is safe"
        )

    def _disk(self) -> str | None:
        disk = self._core.disk
        is_admitted = disk.admits(0)
        full_at = self._core.disk_full_at
        if full_at is not None and (not is_admitted or time.monotonic() - full_at < REFUSED_SECONDS):
            return (
                "the disk is full to the last byte: produce, consume, commit and seek are refused with DiskFull, fetch goes on;"
                " free space, or enlarge the disk, then it goes on by itself"
            )
        if not disk.is_known:
            return (
                "the file system of the data directory does not tell how much of it is free: see whether it is mounted and"
                " answers; until then writes are tried, and a write that fails ends the broker"
            )
        if is_admitted:
            return None
        return (
            f"the disk has {disk.free_bytes >> 20} MiB free, and {disk.reserve >> 20} MiB are kept in reserve: produce is"
            " refused with DiskFull, reading and positions go on; free space, or enlarge the disk, then it goes on by itself"
        )

    def _meta(self) -> str | None:
        problem = self._core.meta.problem
        if problem is None:
            return None
        return (
            f"positions cannot be moved in the store that --meta names ({problem}): consume, commit and seek are refused with"
            " MetaUnavailable, produce and fetch go on; get that store to answer, then it goes on by itself"
        )

    def _clock(self) -> str | None:
        doubt = self._core.retention.clock.doubt
        if doubt is None:
            return None
        return (
            f"{doubt}: no message is removed for its age, all else goes on; set the clock right, then say so with"
            " `rocksmq status --confirm-clock`"
        )

    def _draining(self) -> str | None:
        if not self._core.is_closing:
            return None
        return "the broker is stopping: it answers what it accepted and takes nothing new; come again once it was restarted"
