"""Groups in a store elsewhere: one transaction in flight, written by one broker only (design §6).

Operations on groups wait in a queue until the transaction before them is settled; then as many as fit are done in
memory and sent together, and answered when that was applied. So memory never runs ahead of the store by more than
what is in flight, and that is undone if it was not applied. While nobody can tell, nothing else is done: whoever waits
is answered MetaUnavailable, and a repeat finds out. Messages are written and read meanwhile as ever.
"""

import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress

import trio

from rocksmq.metrics import catalogue
from rocksmq.metrics.instruments import MetricFamily, gauge
from rocksmq.protocol.errors import DiskFull, LimitExceeded, MetaUnavailable, RocksMQError, ShuttingDown

from .channels import Channel
from .commit import Commit
from .core import Core
from .directory import DataDirectory
from .fence import CommitValue, Fence, Fenced, Reverted
from .groups import Group
from .meta_calls import RemoteCalls
from .meta_mirror import Mirror
from .meta_shadow import MetaShadow
from .meta_takeover import Takeover
from .meta_transaction import KEYS_A_GROUP, Carried, Needs, Room, check_count, entries_of, groups_of, too_large
from .prefix import DATA, OWNER, DataMark, Found
from .reconcile import Ahead, PrefixInUse
from .remote import KEYS_MAX, LEASE_SECONDS, STATE_BYTES_MAX, Remote, RemoteFailed
from .store import DataRefused
from .waiters import Waiter

logger = logging.getLogger("rocksmq.broker")

KEEP_ALIVE_SECONDS = 3.0
RETRY_SECONDS = 0.2
TELL_SECONDS = 10.0  # between two lines of log about failures
DESTROYED_MAX = 10_000
LAST_TRANSACTIONS = 10  # to tell the ids of channels at the end
TURNS = 2  # of the loop, in which requests that have arrived are read


class RemoteMeta:
    """As `MetaStore`."""

    kind = "etcd"

    def __init__(self, core: Core, directory: DataDirectory, remote: Remote, *, accept_loss: bool = False) -> None:
        self.open_commit = Commit()  # being filled, which takes no turn of the loop
        self.current: Commit | None = None  # sent, and not settled
        self.problem: str | None = "not reached yet"
        self._told: str | None = ""  # of what the log was told last; None: that all is well
        self._told_at = float("-inf")
        self._core = core
        self._waiters = core.waiters
        self._instance = directory.instance
        self._remote = remote
        self._call = RemoteCalls()
        self._fence: Fence | None = None
        self._lease: int | None = None
        self._is_owner_known = False
        self._carried = Carried({}, [], [])
        self._has_answered = False
        self._is_careful = False  # one operation at a time, behind a transaction that was not applied
        self._keep_alive_due = 0.0
        self._queue: deque[Waiter] = deque()
        self._mirror = Mirror(core.channels)
        self._room = Room(core.channels, core.limits.consumers_max)
        self._destroyed: dict[int, None] = {}  # numbers of channels, by this broker, the latest DESTROYED_MAX
        self._ahead: dict[Group, Ahead] = {}
        self._shadow = MetaShadow(directory.store)
        self._takeover = Takeover(core, directory, remote, self._shadow, accept_loss=accept_loss)
        self._unheard: dict[Group, None] = {}  # whose state the store has lost, maybe
        self._is_reread_due = False
        self._work = trio.Event()
        self._over = trio.Event()
        self._over.set()

    # -- as MetaStore ------------------------------------------------------------

    async def open(self) -> None:
        self._takeover.check_binding()
        with trio.move_on_after(self._core.limits.meta_start_seconds):
            while self._fence is None:
                await self._try(self._take_over)
        if self._fence is None:
            logger.warning("starting without %s", self._remote.name)

    async def run(self) -> None:
        self._over = trio.Event()
        try:
            while not self._core.is_closing:
                if self._fence is None:
                    await self._try(self._take_over)
                elif self._fence.is_in_doubt:
                    await self._try(self._settle)
                else:
                    await self._wait_for_work()
                    await self._try(self._serve)
        finally:
            self._over.set()

    async def close(self) -> None:
        self._work.set()
        await self._over.wait()
        if self.current is not None:
            self.current.fail(self._unavailable())  # in doubt; the next start finds out
        with suppress(PrefixInUse, DataRefused):  # it ends anyway
            for _ in range(LAST_TRANSACTIONS):
                if self._mirror.has_ids and self.problem is None and self.current is None:
                    await self._try(self._tell_ids)
        lease, self._lease = self._lease, None
        if lease is not None and self.problem is None:
            await self._try(lambda: self._call(self._remote.revoke, lease))
        await self._call(self._remote.close)

    def submit(self, waiter: Waiter, wait_ms: int) -> Waiter | None:
        if waiter.many is not None:
            check_count(waiter.many)
        if len(self._queue) >= self._core.limits.meta_queue_max:
            self._queue = deque(filter(self._waiters.holds, self._queue))
            if len(self._queue) >= self._core.limits.meta_queue_max:
                raise self._unavailable()
        waiter.until = trio.current_time() + wait_ms / 1000
        self._enqueue(waiter)
        return waiter

    def attempt(self, waiter: Waiter) -> None:
        if not waiter.is_queued:
            self._enqueue(waiter)

    def before_seal(self, commit: Commit, channel: Channel) -> None:
        pass

    def extent_changed(self, channel: Channel) -> None:
        self._ids_changed(channel.name)

    def destroy(self, commit: Commit, channel: Channel) -> None:
        def destroyed(result: int | RocksMQError) -> None:
            if isinstance(result, int):
                self._destroyed[channel.number] = None
                if len(self._destroyed) > DESTROYED_MAX:
                    del self._destroyed[next(iter(self._destroyed))]
                self._mirror.garbage |= dict.fromkeys((group, channel.name) for group in channel.groups)
                self._ids_changed(channel.name)

        commit.answer(destroyed, channel.number)
        for waiter in self._waiters.of(channel.number):
            if waiter.consumer is not None:
                self._waiters.attempt(waiter, self.open_commit)  # tells them that it is gone, which needs no store

    @property
    def pending(self) -> tuple[Commit, ...]:
        return (self.open_commit,) if self.current is None else (self.open_commit, self.current)

    def check_loaded(self) -> None:
        if self._fence is None:
            raise self._unavailable()

    def families(self) -> Iterator[MetricFamily]:
        yield gauge(catalogue.ETCD_UP, self.problem is None)
        yield from self._call.families()
        yield gauge(catalogue.POSITIONS_WAITING, len(self._queue))

    # -- what waits ----------------------------------------------------------------

    def _enqueue(self, waiter: Waiter) -> None:
        waiter.is_queued, waiter.unavailable = True, self._unavailable
        self._waiters.park(waiter, self._core.limits.meta_wait_seconds)
        self._queue.append(waiter)
        self._work.set()

    def _unavailable(self) -> RocksMQError:
        if self._core.is_closing:
            return ShuttingDown("the broker is stopping: try again once it is back")
        why = self.problem or "it is slow"
        return MetaUnavailable(
            f"positions cannot be moved in {self._remote.name} ({why}): it goes on once that is over", retry_after=RETRY_SECONDS
        )

    def _ids_changed(self, channel_name: str) -> None:
        if self._fence is not None and self._mirror.ids_changed(channel_name):  # else the takeover tells of all
            self._work.set()

    async def _wait_for_work(self) -> None:
        def is_busy() -> bool:
            is_behind = self._is_reread_due or self._shadow.lost_epoch > 0
            return bool(is_behind or self._queue or self._mirror.garbage or self._ahead or self._core.is_closing)

        while not is_busy():
            due = min(self._keep_alive_due, self._mirror.due)
            if due <= trio.current_time():
                return
            self._work = trio.Event()
            with trio.move_on_at(due):
                await self._work.wait()

    # -- transactions ----------------------------------------------------------------

    async def _serve(self) -> None:
        """Send one transaction with all there is to do, as far as it fits."""
        if self._has_answered:
            for _ in range(TURNS):
                await trio.lowlevel.checkpoint()  # those that the last one answered come again, and ride along
        self._has_answered = False
        await self._keep_alive()
        if self._is_reread_due:
            await self._reread()
        if self._core.is_closing:
            return
        self._catch_up()
        carried = self._carried = self._carry(KEYS_MAX - self._needs_of_first().keys)
        commit = self._fill(KEYS_MAX - len(carried.entries))
        entries = carried.entries | entries_of(commit)
        if not entries:
            self._resolve(commit, is_applied=True)
            return
        try:
            await self._make_durable(commit)
        except RocksMQError as error:
            commit.fail(error)
            self._resolve(commit, is_applied=False)
            raise
        entries[DATA] = DataMark(self._instance, self._core.committer.synced_number).encode()
        await self._send(commit, entries)

    async def _tell_ids(self) -> None:
        """At the end, those of channels that the store was not told yet."""
        self._mirror.hurry()
        self._carried = self._carry(KEYS_MAX)
        self.current = Commit()
        await self._send(self.current, self._carried.entries)

    async def _settle(self) -> None:
        """Find out what became of the transaction that was not answered."""
        assert self.current is not None, "there is one"
        await self._send(self.current, {})

    async def _send(self, commit: Commit, entries: dict[str, str | None]) -> None:
        """Send ``entries`` of ``commit``, or a barrier behind it; resolve it by the answer."""
        assert self._fence is not None, "it has taken over"
        attempt = self._fence.begin()
        try:
            met = await self._call(self._remote.transact, attempt, entries, self._lease)
            self._resolve(commit, is_applied=self._fence.answered(attempt, met))
        except Reverted as error:
            self._resolve(commit, is_applied=False)
            self._tell_again(error.found)
        except BaseException as error:
            if isinstance(error, RemoteFailed):
                self._is_away(error)
            commit.fail(self._unavailable())
            raise

    def _resolve(self, commit: Commit, *, is_applied: bool) -> None:
        self.current = None
        self._is_careful = not is_applied
        if is_applied:
            self._is_owner_known = self._is_owner_known or OWNER in self._carried.entries
            for group in commit.cells:
                group.visible = group.value
                if not self._shadow.lost_epoch and (lost := self._ahead.pop(group, None)) is not None:
                    self._core.brought_back(lost)
            self._note(commit)
            commit.tell()
            self._has_answered = True
            return
        commit.roll_back()
        commit.fail(self._unavailable())
        self._mirror.garbage |= dict.fromkeys((*self._carried.garbage, *groups_of(commit)))
        for name in self._carried.channels:
            self._ids_changed(name)
        for name in {group.channel_name for group in commit.cells}:
            if (channel := self._core.channels.get(name)) is not None:
                self._core.attempt_consumers(channel.number)

    async def _keep_alive(self) -> None:
        """Renew the lease, and see that nobody has taken over: a broker without work would not meet it."""
        now = trio.current_time()
        if now >= self._keep_alive_due:
            if self._lease is None or not await self._call(self._remote.keep_alive, self._lease):
                self._lease = await self._call(self._remote.grant, LEASE_SECONDS)
                self._is_owner_known = False
            assert self._fence is not None, "it has taken over"
            try:
                self._fence.check(await self._call(self._remote.found))
            except Reverted as error:
                self._tell_again(error.found)
            self._keep_alive_due = now + KEEP_ALIVE_SECONDS

    def _carry(self, keys_max: int) -> Carried:
        """The owner where its lease had ended, and what the mirror has to tell."""
        entries: dict[str, str | None] = {}
        if not self._is_owner_known and self._fence is not None:
            entries[OWNER] = self._takeover.owner(self._fence.known.epoch)
        return self._mirror.carry(entries, keys_max)

    def _needs_of_first(self) -> Needs:
        """What is left free for the operation whose turn it is, lest what rides along keeps it waiting for ever."""
        first = None if self._shadow.lost_epoch else next(filter(self._waiters.holds, self._queue), None)
        return self._room.needs(self.open_commit, first)

    def _fill(self, keys_max: int) -> Commit:
        """Do the operations that wait, as far as they fit into one transaction."""
        commit = self.open_commit
        if self._shadow.lost_epoch:
            self._tell_unheard(commit, keys_max)
            self.current, self.open_commit = commit, Commit()
            return commit
        for group, lost in tuple(self._ahead.items()):
            if not self._exists(group):
                del self._ahead[group]
            elif self._has_room(commit, keys_max, None):
                self._core.groups.bring_back(commit, group, lost.extent)
        while self._queue:
            waiter = self._queue[0]
            is_held = self._waiters.holds(waiter)
            if is_held and not self._has_room(commit, keys_max, waiter):
                break
            self._queue.popleft()
            waiter.is_queued = False
            if not is_held or self._refuses(waiter):
                continue
            waiter.unavailable = None
            if waiter.until > trio.current_time():
                self._waiters.attempt(waiter, commit)
            else:
                self._waiters.serve(waiter, commit)
            if self._waiters.holds(waiter):
                self._wait_for_messages(waiter)
        self.current, self.open_commit = commit, Commit()
        return commit

    def _exists(self, group: Group) -> bool:
        """Whether it is still there: not destroyed, nor made anew."""
        channel = self._core.channels.get(group.channel_name)
        return channel is not None and channel.groups.get(group.name) is group

    def _wait_for_messages(self, waiter: Waiter) -> None:
        seconds = waiter.until - trio.current_time()
        if seconds <= 0:
            if self._waiters.cancel(waiter):
                waiter.expire()
            return
        try:
            if not waiter.has_waited:
                self._waiters.check_places()  # it has its own already
        except LimitExceeded as error:
            self._waiters.cancel(waiter)
            waiter.done(error)
            return
        waiter.has_waited = True
        self._waiters.park(waiter, seconds)

    def _has_room(self, commit: Commit, keys_max: int, waiter: Waiter | None) -> bool:
        """Whether the operation that waits fits too; None: one on any group."""
        needs = self._room.needs(commit, waiter)
        if not commit.cells and not commit.changes:
            return needs.keys <= max(keys_max, KEYS_A_GROUP)
        return self._room.takes(commit, needs, keys_max) and not self._is_careful

    def _refuses(self, waiter: Waiter) -> bool:
        """Whether no transaction takes it, however empty; it is told so."""
        if waiter.many is None or self._room.needs(Commit(), waiter).size <= STATE_BYTES_MAX:
            return False
        self._waiters.cancel(waiter)
        waiter.done(too_large(waiter.many))
        return True

    async def _make_durable(self, commit: Commit) -> None:
        """Make durable what ``commit`` refers to: ids that were given out, channels. Raises DiskFull, StorageFailed."""
        channels = {self._core.channels.get(group.channel_name) for group in commit.cells}
        if self._core.ids.unsaved_end is None and all(channel is None or channel.is_public for channel in channels):
            return
        saved = trio.Event()
        result: list[object] = []

        def done(reply: object) -> None:
            result.append(reply)
            saved.set()

        self._core.committer.open.answer(done, None)
        self._core.committer.wake()
        await saved.wait()
        if isinstance(result[0], RocksMQError):
            raise result[0]

    # -- what the store has lost -------------------------------------------------------

    def _note(self, commit: Commit) -> None:
        """What was applied, in the copy; before anybody is answered."""
        assert self._fence is not None, "it has taken over"
        for group in commit.cells:
            self._unheard.pop(group, None)
        changes = [change for key in self._carried.garbage for change in Group(*key, None).deletion()]
        changes += commit.changes
        for group in commit.cells:
            changes += group.changes(None)
        if changes and not self._shadow.lost_epoch:
            self._shadow.note(self._fence.known, changes)

    def _tell_again(self, found: CommitValue) -> None:
        """The store went back to ``found``, a value of this broker: it gets all groups anew."""
        assert self._fence is not None, "it has taken over"
        logger.error(
            "%s has lost what it had acknowledged: it was at %s, and is at %s; it is told all positions again",
            *(self._remote.name, self._fence.known, found),
        )
        self._fence.resume(found)
        self._is_reread_due = True
        self._keep_alive_due = 0.0  # the lease may be gone with it

    async def _reread(self) -> None:
        """Note which groups to tell the store again, and which it should not have."""
        assert self._fence is not None, "it has taken over"
        self._shadow.mark_lost(self._fence.known.epoch)
        found = Found.decode(await self._call(self._remote.read), self._remote.name)
        groups = {(group.name, channel.name): group for channel in self._core.channels for group in channel.groups.values()}
        self._unheard = {group: None for key, group in groups.items() if found.groups.get(key) != group.value}
        numbers = {channel.number for channel in self._core.channels} | self._destroyed.keys()
        self._mirror.garbage |= {
            key: None for key, state in found.groups.items() if key not in groups and state.channel_number in numbers
        }
        for name in found.channels | {channel.name for channel in self._core.channels}:
            self._ids_changed(name)
        self._is_owner_known = self._is_reread_due = False

    def _tell_unheard(self, commit: Commit, keys_max: int) -> None:
        for group in tuple(self._unheard):
            if not self._exists(group):
                del self._unheard[group]
            elif self._has_room(commit, keys_max, None):
                commit.set(group, group.value)

    def _catch_up(self) -> None:
        """Go on with what waits, once the store was told all again. Raises DiskFull, StorageFailed."""
        if self._shadow.lost_epoch and not (self._unheard or self._mirror.garbage or self._is_reread_due):
            assert self._fence is not None, "it has taken over"
            self._shadow.caught_up(self._fence.known)

    # -- ownership -------------------------------------------------------------------

    async def _take_over(self) -> None:
        """Become the writer, and load the groups. Raises PrefixInUse, DataRefused."""
        taken = await self._takeover.attempt(self._call)
        if taken is None:
            return
        self._fence = Fence(taken.value)
        self._lease = taken.lease
        self._is_owner_known = False
        self._is_reread_due = taken.is_lost
        self._keep_alive_due = 0.0
        self._ahead = taken.ahead
        self._mirror.garbage |= {key: None for key, number in taken.others.items() if number in self._destroyed}
        if left := len(taken.others.keys() - self._mirror.garbage.keys()):
            logger.warning("%d groups in %s are of channels that are not here: they are left alone", left, self._remote.name)
        for name in taken.channels | {channel.name for channel in self._core.channels}:
            self._ids_changed(name)

    # -- failures --------------------------------------------------------------------

    async def _try(self, act: Callable[[], Awaitable[object]]) -> None:
        """``act``, or wait a little when the store fails. Raises PrefixInUse once another broker has taken over."""
        try:
            await act()
        except (RemoteFailed, DiskFull) as error:
            self._is_away(error)
            await trio.sleep(RETRY_SECONDS)
        except Fenced as error:
            if error.found is None or (self._fence is not None and error.found.epoch < self._fence.known.epoch):
                raise DataRefused(
                    f"{self._remote.name} was deleted, edited or restored from a backup while this broker wrote there"
                ) from error
            raise PrefixInUse(
                f"another broker has taken over {self._remote.name}: {error}. Never run two on copies of one data directory"
            ) from error
        else:
            if self._told is not None:
                logger.info("positions are kept in %s", self._remote.name)
            self.problem = self._told = None

    def _is_away(self, error: Exception) -> None:
        now = trio.current_time()
        if self._told != str(error) and now > self._told_at + TELL_SECONDS:
            detail = f" ({error.detail})" if isinstance(error, RemoteFailed) and error.detail else ""
            logger.warning(
                "positions cannot be moved in %s, and consume answers MetaUnavailable: %s%s", self._remote.name, error, detail
            )
            self._told, self._told_at = str(error), now
        self.problem = str(error)
