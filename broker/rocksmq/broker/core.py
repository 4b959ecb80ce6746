"""Every operation: from a typed request to its durable answer.

`Core.submit` is the one way in, for connections and for the in-process engine alike. It
changes the state at once, synchronously, and calls ``done`` with the reply or a RocksMQError
when the result is durable. Long polls are parked and attempted again whenever there may
be more. Knows no sockets and no tasks; `engine` owns those. All in the loop's thread. The operations on
many channels at once are in `service` and `streams`.
"""

import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from rocksmq.protocol.administration import ConfirmClock, SetChannel, Status
from rocksmq.protocol.errors import DiskFull, Overloaded, RocksMQError, ShuttingDown, StorageFailed
from rocksmq.protocol.operations import Commit as CommitRequest
from rocksmq.protocol.operations import (
    Consume,
    CreateChannel,
    Created,
    CreateGroup,
    DescribeChannel,
    DescribeGroup,
    DestroyChannel,
    DestroyGroup,
    Empty,
    Fetch,
    ListChannels,
    ListGroups,
    Names,
    OpenProducer,
    Position,
    Produce,
    Produced,
    ProducerOpened,
    ReleaseConsumer,
    Seek,
)

from . import keys, readings
from .answers import Answers
from .channels import Channel, Channels, Listing
from .checkpoints import Checkpoints
from .clock import ClockGuard
from .commit import Commit, Committer, Done
from .directory import DataDirectory
from .disk import STUCK_SECONDS, DiskGuard
from .durability import Durability, Mode
from .groups import Group, Groups
from .idle_groups import IdleGroups
from .ids import IDAllocator
from .limits import Bounds, Limits
from .loading import load, stored_clock, stored_number
from .log import Log
from .meta import MetaStore
from .names import ProducerNames
from .producers import Producers
from .reconcile import Ahead
from .replies import gap_before, merged, nothing
from .retention import RetentionSection
from .service import MessageStreamService
from .status import StatusReports
from .store import Family, Put
from .streams import Streams
from .telemetry import Telemetry
from .trimmer import Trimmer
from .waiters import Waiter

logger = logging.getLogger("rocksmq.broker")

OVERLOADED_RETRY_SECONDS = 0.1
NO_RULES = RetentionSection()
DISK_FULL_RETRY_SECONDS = 1.0


class Core:
    """The state of one broker and what may be done to it. ``meta``, set once by the owner, loads its groups.

    ``positions_brought_back`` counts groups that had passed messages which a power cut took.
    """

    def __init__(
        self,
        directory: DataDirectory,
        ids: IDAllocator,
        limits: Limits,
        durability: Durability,
        retention: RetentionSection = NO_RULES,
    ) -> None:
        """Load the state from ``directory``. Raises DataRefused, StorageFailed."""
        store = directory.store
        self.ids = ids
        self.limits = limits
        self.durability = durability
        self.telemetry = telemetry = Telemetry(partial(readings.of_channels, self))
        telemetry.add(partial(readings.of_core, self))
        telemetry.add(lambda: readings.of_disk(self.disk))
        self.committer = Committer(
            telemetry.timed(telemetry.write_seconds, store.write),
            telemetry.timed(telemetry.sync_seconds, store.sync),
            self,
            number=directory.commit_number,
        )
        self._answers = Answers(self.committer, limits.waiting_channels_max)
        self.waiters = self._answers.waiters
        self.attempt_consumers, self.attempt_held = self._answers.attempt_consumers, self._answers.attempt_held
        self.on_destroyed: Callable[[int], None] = lambda channel_number: None
        self.is_closing = False
        self.disk_full_at: float | None = None  # when the last commit was undone for that, by time.monotonic; None: it was not
        self.positions_brought_back = 0
        self.disk = DiskGuard(directory.path, owed=store.owed_bytes, waiting=lambda: self.committer.open.size)
        self.log = Log(store, limits.tail_cache_bytes)
        self._producers = Producers(stored_number(store, keys.FORGOTTEN, 0))
        self._names = ProducerNames(ids, limits)
        self.channels = Channels(self.log, ids, self._producers, self._names, limits, durability, retention.rules)
        self.groups = Groups(self.log, ids, limits)
        self._service = MessageStreamService(self._answers, self.channels, self.log, limits, self._destroyed)
        clock = stored_clock(store)
        self.retention = Trimmer(
            self.committer,
            self.channels,
            self.log,
            ids,
            retention,
            lambda channel: self.shown_groups(channel).values(),
            ClockGuard(clock),
            clock,
        )
        self.idle_groups = IdleGroups(
            *(self.channels, self.groups, self.shown_groups, self.submit, retention.group_idle_seconds),
            is_away=lambda: self.meta.problem is not None,
        )
        self._streams = Streams(self._answers, self.channels, self.groups, self.log, limits, telemetry, self.retention.looking)
        self.checkpoints = Checkpoints(directory, self.committer, self.disk)
        self.status = StatusReports(telemetry.exposition, limits.frame_bytes_max)
        self._handlers = self._handlers_of_all()
        load(store, self.channels, self._producers, self._names, ids, is_new=not self.committer.written_number)

    def _handlers_of_all(self) -> dict[type[Any], Callable[[Any, Done], Waiter | None]]:
        return {
            CreateChannel: self._create_channel,
            SetChannel: self._set_channel,
            ConfirmClock: self._confirm_clock,
            DestroyChannel: self._destroy_channel,
            ListChannels: self._list_channels,
            Listing: lambda listing, done: done(self.channels.page(*listing)),
            DescribeChannel: self._describe_channel,
            CreateGroup: self._create_group,
            DestroyGroup: self._destroy_group,
            ListGroups: self._list_groups,
            DescribeGroup: self._describe_group,
            Produce: self._produce,
            Consume: self._consume,
            Fetch: self._fetch,
            CommitRequest: self._commit,
            Seek: self._seek,
            OpenProducer: self._open_producer,
            ReleaseConsumer: self._release_consumer,
            Status: self.status.submit,
            **self._service.handlers,
            **self._streams.handlers,
            **self.checkpoints.handlers,
        }

    @property
    def meta(self) -> MetaStore:
        """Where the groups are kept; set once by the owner."""
        return self._answers.meta

    @meta.setter
    def meta(self, meta: MetaStore) -> None:
        self._answers.meta = meta

    def submit(self, request: Any, done: Done) -> Waiter | None:
        """Do ``request``; ``done`` is called once, now or later, with the reply or a RocksMQError.

        Returns the waiter when the request is parked, for `Waiters.cancel`.
        """
        try:
            if self.committer.failure is not None:
                raise StorageFailed(self.committer.failure.message)
            if self.is_closing:
                raise ShuttingDown("the broker is stopping: try again once it is back")
            return self._handlers[type(request)](request, done)
        except RocksMQError as error:
            self._answers.refuse(done, error)
            return None

    def close(self) -> None:
        """Refuse what is new, answer who waits, and let the committer finish."""
        self.is_closing = True
        for waiter in self.waiters:
            self.waiters.cancel(waiter)
            waiter.expire()
        self.ids.close_window()
        if self.ids.unsaved_end is not None:
            self.committer.open.answer(lambda saved: None, None)  # so that there is a commit to save it in
        self.committer.close()

    def fail(self, error: RocksMQError) -> None:
        """The store failed: whoever waits is told so, and nothing more is taken."""
        self.is_closing = True
        for waiter in self.waiters:
            self.waiters.cancel(waiter)
            waiter.done(type(error)(error.message))

    # -- operations ------------------------------------------------------------

    def _create_channel(self, request: CreateChannel, done: Done) -> None:
        reply = Created(self.channels.create(self.committer.open, request))
        self._answers.in_commit(self._answers.creating(self.channels.find(request.channel)), done, reply)

    def _destroy_channel(self, request: DestroyChannel, done: Done) -> None:
        self._service.remove(self.committer.open, [request])
        self._answers.in_open(done, Empty())

    def _set_channel(self, request: SetChannel, done: Done) -> None:
        channel = self.channels.set_retention(self.committer.open, request)
        self._answers.in_open(self.retention.looking(done, [channel]), Empty())

    def _confirm_clock(self, request: ConfirmClock, done: Done) -> None:
        self.retention.confirm_clock()
        self._answers.in_open(done, Empty())

    def _destroyed(self, result: int | RocksMQError) -> None:
        if isinstance(result, int):
            self.on_destroyed(result)

    def _list_channels(self, request: ListChannels, done: Done) -> None:
        done(self.channels.page(request))

    def _describe_channel(self, request: DescribeChannel, done: Done) -> None:
        channel = self.channels.find(request.channel)
        held, is_age_suspended = self.retention.held(channel), self.retention.clock.doubt is not None
        reply = self.channels.describe(channel)._replace(held=held, is_age_suspended=is_age_suspended)
        self._answers.in_commit(self._answers.creating(channel), done, reply)

    def _create_group(self, request: CreateGroup, done: Done) -> Waiter | None:
        def create(commit: Commit) -> None:
            channel = self.channels.find(request.channel)
            if request.group not in channel.groups:
                self.channels.check_room_for_groups(1)
            created = self.groups.create(commit, channel.groups, channel.number, channel.visible, request)
            self._answers.in_commit(self._answers.creating(channel.groups[request.group]), done, Created(created))

        return self._answers.in_meta(self.channels.find(request.channel).number, create, done)

    def _destroy_group(self, request: DestroyGroup, done: Done) -> Waiter | None:
        def destroy(commit: Commit) -> None:
            channel = self.channels.get(request.channel)
            groups = channel.groups if channel is not None else {}
            group = self.groups.destroy(commit, groups, request.group, request.creation_id)
            if group is None or channel is None:
                self._answers.in_commit(commit, done, Empty())
            else:
                self._answers.in_commit(commit, self.retention.looking(done, [channel]), Empty())
                self.attempt_consumers(channel.number)

        channel = self.channels.get(request.channel)
        return self._answers.in_meta(channel.number if channel is not None else 0, destroy, done)

    def _list_groups(self, request: ListGroups, done: Done) -> None:
        groups = self.shown_groups(self.channels.find(request.channel))
        names = sorted(name for name, group in groups.items() if name > request.after and group.visible is not None)
        page = names[: self.limits.page_names_max]
        done(Names(page, len(names) > len(page)))

    def _describe_group(self, request: DescribeGroup, done: Done) -> None:
        channel = self.channels.find(request.channel)
        group = self.groups.find(self.shown_groups(channel), channel.name, request.group)
        self._answers.in_commit(
            self._answers.creating(group), done, self.groups.describe(group, channel.number, channel.visible)
        )

    def _produce(self, request: Produce, done: Done) -> None:
        channel, first_id = self.channels.produce(self.committer.open, request, self._admit)
        commit = self.committer.holding(
            lambda commit: self._producers.came_with(commit, channel.number, request.producer, request.number)
        )
        self._answers.in_commit(commit, done, Produced(first_id), channel.durability)

    def _open_producer(self, request: OpenProducer, done: Done) -> None:
        channel = self.channels.find(request.channel)
        last_sequence = self._names.open(self.committer.open, channel.number, request)
        self._answers.in_open(done, ProducerOpened(last_sequence))

    def _admit(self, size: int) -> None:
        if self.committer.open.size + size > self.limits.produce_queue_bytes_max:
            raise Overloaded(
                f"{self.limits.produce_queue_bytes_max} bytes wait to be written (produce_queue_bytes_max): try again",
                retry_after=OVERLOADED_RETRY_SECONDS,
            )
        if not self.disk.admits(size):
            raise DiskFull(
                f"the broker's disk has {self.disk.free_bytes >> 20} MiB free, and {self.disk.reserve >> 20} MiB are kept"
                " in reserve: nothing was stored; free space, then it goes on by itself",
                retry_after=DISK_FULL_RETRY_SECONDS,
            )

    def _consume(self, request: Consume, done: Done) -> Waiter | None:
        bounds = Bounds.of(request, self.limits)

        def attempt(commit: Commit, sealing: bool) -> bool:
            channel = self.channels.find(request.channel)
            group = self.groups.find(channel.groups, channel.name, request.group)
            may_repeat = group.repeats(request)
            holding = self._answers.holding(lambda commit: may_repeat and group.came_with(commit, request.consumer))
            extent = channel.value if sealing or holding is not None else channel.visible
            claim = self.groups.consume(commit, group, extent, request)
            if claim is None:
                return False
            if not claim.is_repeat:
                holding = commit
            if holding is not None:
                holding.hold(claim.reading.size)  # the reply, until that commit is durable
            told = self.telemetry.delivering(claim.reading, group.delivered, done, is_repeat=claim.is_repeat)
            self._answers.in_commit(holding, told, merged(claim.reading, claim.generation, claim.gap), channel.durability)
            return True

        def expire() -> None:
            channel = self.channels.find(request.channel)
            group = self.groups.find(channel.groups, channel.name, request.group)
            if group.repeats(request) and attempt(self.committer.open, False):
                return  # claimed for an earlier sending of it: an empty reply would deny that
            holding = self._answers.holding(lambda commit: group in commit.cells)  # that there is nothing may be undone with it
            self._answers.in_commit(holding, done, nothing(group.state.position, group.state.generation), channel.durability)

        waiter = Waiter([self.channels.find(request.channel).number], attempt, expire, done)
        waiter.consumer = (request.group, request.consumer)
        return self.meta.submit(waiter, bounds.wait_ms)

    def _release_consumer(self, request: ReleaseConsumer, done: Done) -> Waiter | None:
        def release(commit: Commit) -> None:
            channel = self.channels.find(request.channel)
            group = self.groups.find(channel.groups, channel.name, request.group)
            for waiter in self.waiters.of(channel.number):
                if waiter.consumer == (request.group, request.consumer) and self.waiters.cancel(waiter):
                    waiter.done(nothing(group.state.position, group.state.generation))
            self.groups.release(commit, group, channel.visible, request)
            self._answers.in_commit(commit, done, Empty(), channel.durability)
            self.attempt_consumers(channel.number)

        return self._answers.in_meta(self.channels.find(request.channel).number, release, done)

    def _fetch(self, request: Fetch, done: Done) -> Waiter | None:
        bounds = Bounds.of(request, self.limits)
        channel = self.channels.find(request.channel)
        position = request.start
        if request.start_kind != Position.ID:
            target = self.groups.target(channel.number, channel.visible, request.start_kind, request.start)
            position = target.place.message_id

        def attempt(commit: Commit, sealing: bool) -> bool:
            channel = self.channels.find(request.channel)
            extent = channel.visible
            gap = gap_before(position, channel.number, extent)
            reading = self.log.read(channel.number, position, extent, bounds.count_max, bounds.bytes_max)
            if reading.message_count:
                self.telemetry.deliver(reading, channel.delivered)
                done(merged(reading, 0, gap))
            elif gap is not None:
                done(nothing(extent.begin_id, 0, extent.begin_offset, gap))
            return reading.message_count > 0 or gap is not None

        def expire() -> None:
            extent = self.channels.find(request.channel).visible
            done(nothing(position, 0, extent.end_offset if position == extent.end_id + 1 else None))

        if attempt(self.committer.open, False):
            return None
        waiter = Waiter([channel.number], attempt, expire, done, {channel.number: position})
        return self.waiters.wait(waiter, bounds.wait_ms)

    def _commit(self, request: CommitRequest, done: Done) -> Waiter | None:
        def move(commit: Commit) -> None:
            channel = self.channels.find(request.channel)
            group = self.groups.find(channel.groups, channel.name, request.group)
            self.groups.move(commit, group, channel.visible, request)
            self._answers.in_commit(commit, done, Empty(), channel.durability)

        return self._answers.in_meta(self.channels.find(request.channel).number, move, done)

    def _seek(self, request: Seek, done: Done) -> Waiter | None:
        def seek(commit: Commit) -> None:
            channel = self.channels.find(request.channel)
            group = self.groups.find(channel.groups, channel.name, request.group)
            sought = self.groups.seek(commit, group, channel.visible, request)
            self._answers.in_commit(commit, done, sought)
            self.attempt_consumers(channel.number)

        return self._answers.in_meta(self.channels.find(request.channel).number, seek, done)

    def shown_groups(self, channel: Channel) -> dict[str, Group]:
        """With those whose removal is not durable yet. Raises MetaUnavailable."""
        self.meta.check_loaded()
        removed = [group for commit in self.meta.pending for group in commit.removed if isinstance(group, Group)]
        here = {group.name: group for group in removed if group.visible and group.visible.channel_number == channel.number}
        return here | channel.groups

    # -- what the committer tells ------------------------------------------------

    def before_seal(self, commit: Commit) -> None:
        for cell in tuple(commit.cells):
            if isinstance(cell, Channel):
                self.meta.before_seal(commit, cell)
        if commit.changes:
            self._producers.forget(commit, self.ids.present_id)
            self._names.forget(commit)
        if (end := self.ids.unsaved_end) is not None:
            commit.changes.append(Put(Family.META, keys.IDS, keys.u64(end)))
            commit.answer(self._window_saved, end)
            commit.sync_first = True

    def _window_saved(self, result: int | RocksMQError) -> None:
        if isinstance(result, int):
            self.ids.saved(result)

    def written(self, commit: Commit) -> None:
        self.log.cache.written()
        for cell, value in commit.sealed.items():
            if isinstance(cell, Channel):
                self.channels.trimmed(cell, value)
        if not commit.sync_first:
            self._publish(commit, synced=False)

    def synced(self, commit: Commit) -> None:
        self._publish(commit, synced=True)

    def answered(self, commit: Commit) -> None:
        self.telemetry.committed(commit)
        if commit.changes:
            self.disk_full_at = None
            self.disk.accepted()
        for cell in commit.sealed:
            if isinstance(cell, Channel):
                self.waiters.announce(cell.number, cell.visible.end_id)
        self.waiters.attempt_due()
        self.attempt_held()

    def rolled_back(self, commit: Commit) -> None:
        self.telemetry.commits_refused.value += 1
        self.disk_full_at = time.monotonic()
        logger.warning("the disk is full: a group commit was undone, and those who wait for it are answered DiskFull")
        self.log.roll_back()
        changed: dict[Channel, None] = {}
        for cell in commit.cells:
            channel = self.channels.get(cell.channel_name) if isinstance(cell, Group) else cell
            if isinstance(channel, Channel):
                changed[channel] = None
        for channel in changed:
            if self.channels.get_numbered(channel.number) is None:
                self._answers.attempt_all(channel.number)  # it was never made
            else:
                self.attempt_consumers(channel.number)  # what others claimed may be free again
        self.attempt_held()
        if self.disk.refused():
            raise StorageFailed(
                f"for {STUCK_SECONDS:g} s the database finds the disk full though {self.disk.free_bytes >> 20} MiB are free:"
                " it goes on once the broker is started again; see whether a quota bounds the data directory"
            )

    def _publish(self, commit: Commit, *, synced: bool) -> None:
        for cell, value in commit.sealed.items():
            if isinstance(cell, Channel) and (synced or cell.durability.mode is not Mode.FSYNC):
                size = self.telemetry.produce(cell, value)
                cell.visible = value
                self.retention.grew(cell, size)
                if synced and not cell.is_public:
                    self.channels.publish(cell)
                self.meta.extent_changed(cell)
            elif isinstance(cell, Group) and (synced or self._is_lax(cell.channel_name)):
                cell.visible = value

    def _is_lax(self, channel_name: str) -> bool:
        channel = self.channels.get(channel_name)
        return channel is not None and channel.durability.mode is not Mode.FSYNC

    def brought_back(self, lost: Ahead) -> None:
        """A group was moved back to the end that a power cut left."""
        self.positions_brought_back += 1
        logger.warning("%s: it goes on behind that end", lost)
