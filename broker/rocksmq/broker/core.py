"""Every operation: from a typed request to its durable answer.

`Core.submit` is the one way in, for connections and for the in-process engine alike. It
changes the state at once, synchronously, and calls ``done`` with the reply or a RocksMQError
when the result is durable. Long polls are parked and attempted again whenever there may
be more. Knows no sockets and no tasks; `engine` owns those. All in the loop's thread. The operations on
many channels at once are in `service` and `streams`.
"""

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, TypeVar

from rocksmq.protocol.errors import DiskFull, InvalidRequest, Overloaded, RocksMQError, ShuttingDown, StorageFailed
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
    Status,
)

from . import keys, readings
from .answers import Answers
from .channels import Channel, Channels
from .commit import Commit, Committer, Done
from .directory import DataDirectory
from .disk import DiskGuard
from .durability import Durability, Mode
from .groups import Group, Groups
from .ids import IDAllocator
from .limits import Bounds, Limits
from .log import Log
from .meta import MetaStore
from .names import ProducerNames
from .producers import Producers
from .reconcile import Ahead
from .records import EMPTY_EXTENT, ChannelSettings, Extent, ProducedEntry, ProducerName
from .replies import merged, nothing
from .service import MessageStreamService
from .status import StatusReports
from .store import DataRefused, Family, Put, Store
from .streams import Streams
from .telemetry import Telemetry
from .waiters import Waiter

logger = logging.getLogger("rocksmq.broker")

OVERLOADED_RETRY_SECONDS = 0.1
DISK_FULL_RETRY_SECONDS = 1.0


class Core:
    """The state of one broker and what may be done to it. ``meta``, set once by the owner, loads its groups.

    ``positions_brought_back`` counts groups that had passed messages which a power cut took.
    """

    def __init__(self, directory: DataDirectory, ids: IDAllocator, limits: Limits, durability: Durability) -> None:
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
        self._answers = Answers(self.committer)
        self.waiters = self._answers.waiters
        self.attempt_consumers, self.attempt_held = self._answers.attempt_consumers, self._answers.attempt_held
        self.on_destroyed: Callable[[int], None] = lambda channel_number: None
        self.is_closing = False
        self.disk_full_at: float | None = None  # when the last commit was undone for that, by time.monotonic; None: it was not
        self.positions_brought_back = 0
        self.disk = DiskGuard(directory.path)
        self.log = Log(store, limits.tail_cache_bytes)
        self._producers = Producers(_stored_number(store, keys.FORGOTTEN, 0))
        self._names = ProducerNames(ids, limits)
        self.channels = Channels(self.log, ids, self._producers, self._names, limits, durability)
        self.groups = Groups(self.log, ids, limits)
        self._service = MessageStreamService(self._answers, self.channels, self.log, limits, self._destroyed)
        self._streams = Streams(self._answers, self.channels, self.groups, self.log, limits, telemetry)
        self.status = StatusReports(telemetry.exposition, limits.frame_bytes_max)
        self._handlers: dict[type[Any], Callable[[Any, Done], Waiter | None]] = {
            CreateChannel: self._create_channel,
            DestroyChannel: self._destroy_channel,
            ListChannels: self._list_channels,
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
        }
        self._load(store)

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
        if request.retention:
            raise InvalidRequest("retention is not supported by this version of the broker: leave it out")
        reply = Created(self.channels.create(self.committer.open, request))
        self._answers.in_commit(self._answers.creating(self.channels.find(request.channel)), done, reply)

    def _destroy_channel(self, request: DestroyChannel, done: Done) -> None:
        self._service.remove(self.committer.open, [request])
        self._answers.in_open(done, Empty())

    def _destroyed(self, result: int | RocksMQError) -> None:
        if isinstance(result, int):
            self.on_destroyed(result)

    def _list_channels(self, request: ListChannels, done: Done) -> None:
        done(self.channels.page(request))

    def _describe_channel(self, request: DescribeChannel, done: Done) -> None:
        reply = self.channels.describe(request.channel)
        self._answers.in_commit(self._answers.creating(self.channels.find(request.channel)), done, reply)

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
            self._answers.in_commit(commit, done, Empty())
            if group is not None and channel is not None:
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
            is_repeat = group.repeats(request)
            holding = self._answers.holding(lambda commit: is_repeat and group.came_with(commit, request.consumer))
            extent = channel.value if sealing or holding is not None else channel.visible
            claim = self.groups.consume(commit, group, extent, request)
            if claim is None:
                return False
            if not is_repeat:
                holding = commit
            if holding is not None:
                holding.hold(claim.reading.size)  # the reply, until that commit is durable
            told = self.telemetry.delivering(claim.reading, group.delivered, done, is_repeat=is_repeat)
            self._answers.in_commit(holding, told, merged(claim.reading, claim.generation), channel.durability)
            return True

        def expire() -> None:
            channel = self.channels.find(request.channel)
            group = self.groups.find(channel.groups, channel.name, request.group)
            if group.repeats(request):
                attempt(self.committer.open, False)  # claimed for an earlier sending of it: an empty reply would deny that
                return
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
            reading = self.log.read(channel.number, position, channel.visible, bounds.count_max, bounds.bytes_max)
            if reading.message_count:
                self.telemetry.deliver(reading, channel.delivered)
                done(merged(reading, 0))
            return reading.message_count > 0

        if attempt(self.committer.open, False):
            return None
        waiter = Waiter([channel.number], attempt, lambda: done(nothing(position, 0)), done, {channel.number: position})
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
        if not commit.sync_first:
            self._publish(commit, synced=False)

    def synced(self, commit: Commit) -> None:
        self._publish(commit, synced=True)

    def answered(self, commit: Commit) -> None:
        self.telemetry.committed(commit)
        if commit.changes:
            self.disk_full_at = None
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

    def _publish(self, commit: Commit, *, synced: bool) -> None:
        for cell, value in commit.sealed.items():
            if isinstance(cell, Channel) and (synced or cell.durability.mode is not Mode.FSYNC):
                self.telemetry.produce(cell, value)
                cell.visible = value
                if synced and not cell.is_public:
                    self.channels.publish(cell)
                self.meta.extent_changed(cell)
            elif isinstance(cell, Group) and (synced or self._is_lax(cell.channel_name)):
                cell.visible = value

    def _is_lax(self, channel_name: str) -> bool:
        channel = self.channels.get(channel_name)
        return channel is not None and channel.durability.mode is not Mode.FSYNC

    # -- start -----------------------------------------------------------------

    def _load(self, store: Store) -> None:
        extents = {keys.from_u64(key[1:]): extent for key, extent in _records(store, keys.EXTENT, Extent.decode)}
        for key, settings in _records(store, keys.SETTINGS, ChannelSettings.decode):
            number = keys.from_u64(key[1:])
            self.channels.load(number, settings, extents.get(number, EMPTY_EXTENT))
        entries: defaultdict[tuple[int, bytes], list[ProducedEntry]] = defaultdict(list)
        for key, entry in _records(store, keys.PRODUCER, ProducedEntry.decode):
            entries[keys.producer_of(key)].append(entry)
        self._producers.load(entries)
        names = _records(store, keys.NAME, ProducerName.decode)
        self._names.load({keys.name_of(key): name for key, name in names})
        window_end = _stored_number(store, keys.IDS, None if self.committer.written_number else 1)
        window_end = max(window_end, *(extent.end_id + 1 for extent in extents.values()), 1)

        def save(end: int) -> None:
            store.write([Put(Family.META, keys.IDS, keys.u64(end))])
            store.sync()

        self.ids.restore(window_end, save)

    def brought_back(self, lost: Ahead) -> None:
        """A group was moved back to the end that a power cut left."""
        self.positions_brought_back += 1
        logger.warning("%s: it goes on behind that end", lost)


Record = TypeVar("Record")


def _records(store: Store, prefix: bytes, decode: Callable[[bytes], Record]) -> Iterator[tuple[bytes, Record]]:
    for key, value in store.scan(Family.META, prefix, keys.prefix_end(prefix)):
        yield key, decode(value)


def _stored_number(store: Store, key: bytes, default: int | None) -> int:
    stored = store.get(Family.META, key)
    if stored is None and default is None:
        raise DataRefused("the id window cannot be read, so ids might repeat: restore a backup")
    return default or 0 if stored is None else keys.from_u64(stored)
