"""The ledger of administration: channels made and destroyed, groups sought and committed, over crashes."""

from collections.abc import Callable
from random import Random

from rocksmq.clients import Client

from .ledger import Ledger

KEPT = 4  # temporary channels at a time
GROUP = "visited"


class AdminLedger:
    """One thread's administration. Each call may be under way when the broker ends: then both outcomes are right."""

    def __init__(self, ledger: Ledger, channel: str, group: str) -> None:
        self._ledger = ledger
        self._channel = channel
        self._group = group
        self._there: list[str] = []
        self._gone: list[str] = []
        self._unsure: str | None = None
        self._positions: set[int] = set()  # where the group may be

    def create(self, mq: Client) -> None:
        """Make the group that is moved about."""
        mq.create_consumer_group(self._channel, self._group)
        self._positions = {mq.describe_consumer_group(self._channel, self._group).position}

    def work(self, cycle: int) -> Callable[[Client, Random], None]:
        """Its thread in one life of the broker."""

        def run(mq: Client, random: Random) -> None:
            number = 0
            while True:
                self._make(mq, f"temporary-{cycle}-{number}")
                if len(self._there) > KEPT:
                    self._destroy(mq, self._there.pop(random.randrange(KEPT)))
                if log := self._ledger.logs.get(self._channel):
                    self._move(mq, random, log.ids)
                number += 1

        return run

    def check(self, mq: Client) -> None:
        """Hold the broker against what was answered. Raises AssertionError."""
        names = set(mq.list_channels("temporary-"))
        assert names >= set(self._there), f"channels are lost: {set(self._there) - names}"
        assert not names & set(self._gone), f"destroyed channels are back: {names & set(self._gone)}"
        more = names - set(self._there)
        assert more <= {self._unsure}, f"channels that nobody made: {more}"
        for name in self._there:
            assert mq.list_consumer_groups(name) == [GROUP], f"{name} has lost its group"
        for name in more:
            mq.create_consumer_group(name, GROUP)
            self._there.append(name)
        self._unsure = None
        position = mq.describe_consumer_group(self._channel, self._group).position
        assert position in self._positions, f"{self._group} is at {position}, not at one of {self._positions}"
        self._positions = {position}

    def _make(self, mq: Client, name: str) -> None:
        self._unsure = name
        assert mq.create_channel(name), f"{name} was there already"
        mq.create_consumer_group(name, GROUP)
        self._there.append(name)
        self._unsure = None
        self._ledger.progress()

    def _destroy(self, mq: Client, name: str) -> None:
        self._unsure = name
        mq.destroy_channel(name)
        self._gone.append(name)
        self._unsure = None
        self._ledger.progress()

    def _move(self, mq: Client, random: Random, ids: list[int]) -> None:
        """Seek to a message, then commit a later one."""
        first, second = sorted(random.choices(ids, k=2))
        self._positions |= {first}
        result = mq.seek(self._channel, self._group, first)
        assert result.position == first, f"a seek to {first} led to {result.position}"
        self._positions = {first, second}
        mq.commit(self._channel, self._group, second)
        self._positions = {second}
        self._ledger.progress()
