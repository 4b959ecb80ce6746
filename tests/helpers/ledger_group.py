"""The ledger of one consumer group: what it was handed, and the positions that this implies."""

import threading
from bisect import bisect_left
from typing import NamedTuple

from rocksmq.clients import Client, MessageBatch

from .ledger import Ledger, digest


class Handed(NamedTuple):
    """What one consume returned."""

    ids: list[int]
    digests: list[bytes]
    next_position: int


class GroupLedger:
    """Checks a group against the log of its channel. May be shared by threads.

    ``certain``: its consumer repeats a consume of unknown outcome, so that nothing may be left out.
    """

    def __init__(self, ledger: Ledger, channel: str, group: str, *, certain: bool = False) -> None:
        self.channel = channel
        self.group = group
        self._ledger = ledger
        self._certain = certain
        self._lock = threading.Lock()
        self._asked: dict[int, int] = {}  # unanswered consumes: the most messages that each may have been handed
        self._handed: list[Handed] = []
        self._position_shown = 0
        self._next_index = 0  # in the log: all before it is accounted for
        self._calls = 0

    def asked(self, max_messages: int) -> int:
        """A consume is about to be sent; what to name it by."""
        with self._lock:
            self._calls += 1
            self._asked[self._calls] = max_messages
            return self._calls

    def handed(self, call: int, batch: MessageBatch) -> None:
        """It returned ``batch``."""
        entry = Handed(list(batch.ids), [digest(payload) for payload in batch.payloads], batch.next_position)
        with self._lock:
            del self._asked[call]
            if entry.ids:
                self._handed.append(entry)
        if entry.ids:
            self._ledger.progress()

    def shown(self, position: int) -> None:
        """Somebody was told that the group's position is ``position``."""
        with self._lock:
            self._position_shown = max(self._position_shown, position)

    def check(self, mq: Client) -> None:
        """Hold the group against the log, which `Ledger.check` has just read. Raises AssertionError."""
        log = self._ledger.logs[self.channel]
        info = mq.describe_consumer_group(self.channel, self.group)
        where = f"{self.channel}/{self.group}"
        index = bisect_left(log.ids, info.position)
        assert info.lag_messages == len(log.ids) - index, f"{where}: lag {info.lag_messages}, not {len(log.ids) - index}"
        assert info.position >= self._position_shown, f"{where}: position {info.position}, {self._position_shown} was shown"
        at = self._next_index
        left_out: list[int] = []
        for entry in sorted(self._handed):
            start = bisect_left(log.ids, entry.ids[0])
            assert start >= at, f"{where}: {entry.ids[0]} was handed out twice"
            assert log.ids[start : start + len(entry.ids)] == entry.ids, f"{where}: not a stretch of the log: {entry.ids[:3]}…"
            assert log.digests[start : start + len(entry.ids)] == entry.digests, f"{where}: other bytes than in the log"
            assert info.position >= entry.next_position, (
                f"{where}: position {info.position}, but messages up to {entry.next_position} were handed out durably"
            )
            if start > at:
                left_out.append(start - at)
            at = start + len(entry.ids)
        if index > at:
            left_out.append(index - at)
        self._check_left_out(where, left_out)
        self._next_index = at if self._certain else index
        self._handed.clear()
        if not self._certain:
            self._asked.clear()

    def _check_left_out(self, where: str, stretches: list[int]) -> None:
        """What the position has passed and nobody got must have been on its way to somebody."""
        if self._certain and not self._asked:
            assert not stretches, f"{where}: {stretches} messages were skipped"
        assert sum(stretches) <= sum(self._asked.values()), (
            f"{where}: {stretches} messages were skipped, and the consumes without an answer asked for {self._asked}"
        )
