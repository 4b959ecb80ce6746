"""A store elsewhere that does what a real one cannot be made to do on demand, and a broker that keeps its positions there.

`SimulatedEtcd` is the store: it outlives brokers, and holds the transactions that nobody was answered: each may still
arrive. `SimulatedRemote` is one broker's way to it, where every call waits for its turn on Trio's clock instead of
blocking a thread. `RemoteSimulation` is a broker over both.
"""

import tempfile
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from copy import deepcopy
from enum import Enum, auto
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn, Self, TypeVar, TypeVarTuple, cast

import trio

from rocksmq.broker import keys
from rocksmq.broker.core import Core
from rocksmq.broker.directory import DataDirectory
from rocksmq.broker.fence import Attempt, CommitValue, Met
from rocksmq.broker.ids import IDAllocator
from rocksmq.broker.limits import Limits
from rocksmq.broker.meta_calls import RemoteCalls
from rocksmq.broker.meta_remote import RemoteMeta
from rocksmq.broker.prefix import COMMIT, OWNER, STATE, decode_state
from rocksmq.broker.records import ChannelSettings, Extent, GroupState
from rocksmq.broker.remote import RemoteFailed
from rocksmq.broker.store import Family

from .simulated_broker import Simulation
from .support import FSYNC

OPERATIONS_MAX = 128  # etcd's --max-txn-ops
REQUEST_BYTES_MAX = 1_572_864  # etcd's --max-request-bytes
OPERATION_BYTES = 32  # of each beside its key and value, at most
PREFIX = "rocksmq/a"
NAME = f"etcd prefix {PREFIX}"
Result = TypeVar("Result")
Arguments = TypeVarTuple("Arguments")


class Fate(Enum):
    """What becomes of a call."""

    ANSWERED = auto()
    UNHEARD = auto()  # done, and the answer is lost
    LOST = auto()  # it never arrives
    LATE = auto()  # it arrives whenever `SimulatedEtcd.arrive` says
    HELD = auto()  # one of the above: `SimulatedRemote.release` says, or LATE when the call has lasted too long


class Transaction:
    """One that was sent."""

    def __init__(self, attempt: Attempt, entries: Mapping[str, str | None], lease: int | None) -> None:
        self.attempt = attempt
        self.entries = dict(entries)
        self.lease = lease
        self.on_applied: Callable[[], None] = lambda: None


class SimulatedEtcd:
    """The keys under one prefix, their leases, and what is on its way. ``on_applied`` looks at each that was applied."""

    def __init__(self) -> None:
        self.entries: dict[str, str] = {}
        self.late: list[Transaction] = []
        self.applied: list[Transaction] = []
        self.on_applied: Callable[[Transaction], None] = lambda transaction: None
        self._leases: dict[int, float] = {}  # until when each lives
        self._granted = 0
        self._owner_lease: int | None = None

    @property
    def commit(self) -> CommitValue | None:
        return CommitValue.parse(self.entries[COMMIT]) if COMMIT in self.entries else None

    def group(self, channel: str, group: str) -> GroupState | None:
        """What stands there."""
        state = self.entries.get(f"{group}/{channel}/{STATE}")
        return None if state is None else decode_state(state)

    def read(self) -> dict[str, str]:
        self._expire()
        return dict(self.entries)

    def apply(self, transaction: Transaction) -> Met:
        """As etcd does it. Raises RemoteFailed beyond its limits, or for a lease that is over."""
        self._expire()
        attempt, entries = transaction.attempt, {**transaction.entries, COMMIT: str(transaction.attempt.value)}
        size = sum(OPERATION_BYTES + len(PREFIX) + len(key) + len(value or "") for key, value in entries.items())
        if len(entries) > OPERATIONS_MAX or size > REQUEST_BYTES_MAX:
            raise RemoteFailed(f"it refuses: {len(entries)} operations, {size} bytes")
        if self.commit != attempt.expected:
            return Met(False, self.commit)
        if OWNER in entries:
            if transaction.lease not in self._leases:
                raise RemoteFailed("it refuses: requested lease not found")
            self._owner_lease = transaction.lease
        for key, value in entries.items():
            if value is None:
                self.entries.pop(key, None)
            else:
                self.entries[key] = value
        self.applied.append(transaction)
        transaction.on_applied()
        self.on_applied(transaction)
        return Met(True, None)

    def go_back(self, entries: Mapping[str, str]) -> None:
        """To what was `read` before: it loses what came since, also what it has acknowledged. What is late may still arrive."""
        self.entries = dict(entries)

    def arrive(self, index: int) -> None:
        """A transaction that nobody waits for any more."""
        transaction = self.late.pop(index)
        with suppress(RemoteFailed):  # nobody hears of it
            self.apply(transaction)

    def grant(self, seconds: int) -> int:
        self._granted += 1
        self._leases[self._granted] = trio.current_time() + seconds
        return self._granted

    def keep_alive(self, lease: int, seconds: int) -> bool:
        self._expire()
        if lease not in self._leases:
            return False
        self._leases[lease] = trio.current_time() + seconds
        return True

    def revoke(self, lease: int) -> None:
        """End it, as when its time is over."""
        self._leases.pop(lease, None)
        self._expire()

    def revoke_all(self) -> None:
        """Every lease is lost."""
        for lease in tuple(self._leases):
            self.revoke(lease)

    def _expire(self) -> None:
        now = trio.current_time()
        self._leases = {lease: until for lease, until in self._leases.items() if until > now}
        if self._owner_lease not in self._leases:
            self.entries.pop(OWNER, None)
            self._owner_lease = None


class SimulatedRemote:
    """As `Remote`. ``fates`` of the next transactions, in turn; while ``is_away`` no call is answered."""

    name = NAME

    def __init__(self, etcd: SimulatedEtcd, call_seconds: float) -> None:
        self.fates: deque[Fate] = deque()
        self.is_away = False
        self.away_fate = Fate.LOST
        self.in_flight: Transaction | None = None
        self.calls: list[str] = []
        self.on_send: Callable[[Transaction], None] = lambda transaction: None
        self.on_call: Callable[[], None] = lambda: None  # before any call
        self.is_closed = False
        self._etcd = etcd
        self._call_seconds = call_seconds
        self._seconds = 0
        self._released = trio.Event()
        self._fate = Fate.LATE
        self._scopes: set[trio.CancelScope] = set()

    def read(self) -> dict[str, str]:
        return self._etcd.read()

    def found(self) -> CommitValue | None:
        return self._etcd.commit

    def transact(self, attempt: Attempt, entries: Mapping[str, str | None], lease: int | None) -> Met:
        return self._etcd.apply(Transaction(attempt, entries, lease))

    def grant(self, seconds: int) -> int:
        self._seconds = seconds
        return self._etcd.grant(seconds)

    def keep_alive(self, lease: int) -> bool:
        return self._etcd.keep_alive(lease, self._seconds)

    def revoke(self, lease: int) -> None:
        self._etcd.revoke(lease)

    def close(self) -> None:
        self.is_closed = True

    async def call(self, function: Callable[[*Arguments], Result], *arguments: *Arguments) -> Result:
        """``function`` as a thread would run it: not cancelled on the way, unless by `kill`."""
        assert not self.is_closed
        await trio.lowlevel.checkpoint_if_cancelled()
        self.calls.append(function.__name__)
        self.on_call()
        with trio.CancelScope(shield=True) as scope:
            self._scopes.add(scope)
            try:
                if function.__name__ == "transact":
                    return cast(Result, await self._transact(Transaction(*cast("Any", arguments))))
                if self.is_away and function.__name__ != "close":
                    await self._time_out()
                await trio.lowlevel.checkpoint()
                return function(*arguments)
            finally:
                self._scopes.discard(scope)
        raise AssertionError("nothing cancels it")

    def release(self, fate: Fate) -> None:
        """Decide what becomes of the transaction that is held."""
        self._fate = fate
        self._released.set()

    def kill(self) -> None:
        """The process is gone; what it sent may arrive."""
        for scope in self._scopes:
            scope.shield = False

    async def _transact(self, transaction: Transaction) -> Met:
        self.on_send(transaction)
        self.in_flight = transaction
        self._etcd.late.append(transaction)  # until it is known to arrive, or never to
        try:
            fate = await self._fate_of_next()
        finally:
            self.in_flight = None
        if transaction not in self._etcd.late:
            raise RemoteFailed("its answer is lost")  # it has arrived meanwhile
        if fate is not Fate.LATE:
            self._etcd.late.remove(transaction)
        if fate in (Fate.LATE, Fate.LOST):
            raise RemoteFailed("no answer")
        met = self._etcd.apply(transaction)
        if fate is Fate.UNHEARD:
            raise RemoteFailed("its answer is lost")
        return met

    async def _fate_of_next(self) -> Fate:
        if self.is_away:
            await trio.sleep(self._call_seconds)
            return self.away_fate
        fate = self.fates.popleft() if self.fates else Fate.ANSWERED
        if fate is not Fate.HELD:
            await trio.lowlevel.checkpoint()
            return fate
        self._fate, self._released = Fate.LATE, trio.Event()
        with trio.move_on_after(self._call_seconds):
            await self._released.wait()
        return self._fate

    async def _time_out(self) -> NoReturn:
        await trio.sleep(self._call_seconds)
        raise RemoteFailed("no answer")


class ThreadlessCalls(RemoteCalls):
    """They wait on Trio's clock, which a test may hold still."""

    def __init__(self, remote: SimulatedRemote) -> None:
        super().__init__()
        self._remote = remote

    async def __call__(self, function: Callable[[*Arguments], Result], *arguments: *Arguments) -> Result:
        return await self._remote.call(function, *arguments)


class RemoteSimulation(Simulation):
    """A broker whose positions are in ``etcd``, over its crashes. Data is committed by hand, or by `committing`."""

    meta: RemoteMeta
    remote: SimulatedRemote

    def __init__(self, limits: Limits, etcd: SimulatedEtcd, *, instance: str = "1f", accept_loss: bool = False) -> None:
        self.etcd = etcd
        self.instance = instance
        self.accept_loss = accept_loss
        super().__init__(limits)

    def start(self) -> None:
        """Load what was written; no task runs yet."""
        stored = self.store.get(Family.META, keys.COMMIT_NUMBER)
        found = SimpleNamespace(
            store=self.store,
            commit_number=0 if stored is None else keys.from_u64(stored),
            path=Path(tempfile.gettempdir()),
            instance=self.instance,
        )
        directory = cast(DataDirectory, found)
        self.core = Core(directory, IDAllocator(clock=lambda: self.now_ms), self._limits, FSYNC)
        self.core.committer._clock = lambda: 0.0  # pyright: ignore[reportPrivateUsage]  # so that no sync goes to a thread
        self.remote = SimulatedRemote(self.etcd, self._limits.meta_call_seconds)
        self.meta = RemoteMeta(self.core, directory, self.remote, accept_loss=self.accept_loss)
        self.meta._call = ThreadlessCalls(self.remote)  # pyright: ignore[reportPrivateUsage]
        self.core.meta = self.meta
        self._present = {}
        self._waiting = []

    def twin(self) -> Self:
        """A copy of its directory that is started beside it."""
        twin = type(self)(self._limits, self.etcd, instance=self.instance, accept_loss=self.accept_loss)
        twin.now_ms = self.now_ms
        on_write, on_sync = self.store.on_write, self.store.on_sync
        self.store.on_write = self.store.on_sync = lambda: None
        twin.store = deepcopy(self.store)
        self.store.on_write, self.store.on_sync = on_write, on_sync
        twin.start()
        return twin

    async def call(self, request: Any) -> Any:
        """The reply to ``request``, or the error."""
        answered = trio.Event()
        replies: list[Any] = []

        def done(reply: Any) -> None:
            replies.append(reply)
            answered.set()

        self.core.submit(request, done)
        await answered.wait()
        return replies[0]

    def durable_extents(self) -> dict[str, tuple[int, Extent]]:
        """Number and extent of each channel in the store, by name."""
        found: dict[str, tuple[int, Extent]] = {}
        for key, value in self.store.scan(Family.META, keys.SETTINGS, keys.prefix_end(keys.SETTINGS)):
            number = keys.from_u64(key[1:])
            extent = self.store.get(Family.META, keys.extent_key(number))
            assert extent is not None
            found[ChannelSettings.decode(value).name] = number, Extent.decode(extent)
        return found

    def check_is_behind_the_data(self) -> None:
        """Nothing in the remote refers to what is not durable here."""
        extents, window = self.durable_extents(), self.store.get(Family.META, keys.IDS)
        ids_end = 0 if window is None else keys.from_u64(window)
        for key in self.etcd.entries:
            group, _, rest = key.partition("/")
            channel, _, leaf = rest.partition("/")
            if leaf != STATE:
                continue
            state = self.etcd.group(channel, group)
            assert state is not None
            assert max(state.creation_id, state.generation, state.channel_number) < ids_end, "an id that is not durable"
            number, extent = extents.get(channel, (0, None))
            if extent is not None and number == state.channel_number:
                assert state.position <= extent.end_id + 1, "a position ahead of the data"
            else:
                assert state.channel_number < number or extent is None, "a group of a channel that was never made"
