"""RocksMQ in process: the seeds' engine as an async class, durable like the server and without TCP.

Owns the data directory and the tasks that serve it: the committer, the waiters' clock, the
durable mark, compaction. Several engines may live in one process, one Trio loop each
or shared. The server is a thin layer over `RocksMQ.core`.
"""

import logging
import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import trio

from rocksmq.metrics import catalogue, process
from rocksmq.metrics.instruments import MetricFamily, gauge
from rocksmq.protocol.administration import SetChannel
from rocksmq.protocol.errors import OutOfSequence, RocksMQError, StorageFailed
from rocksmq.protocol.identity import Identity
from rocksmq.protocol.messages import MessageBatch, Outgoing, Start, pack_messages, start_of
from rocksmq.protocol.operations import (
    Consume,
    CreateChannel,
    CreateGroup,
    DescribeChannel,
    DescribeGroup,
    DestroyChannel,
    DestroyGroup,
    Fetch,
    Messages,
    Produce,
    Seek,
    Sought,
)
from rocksmq.protocol.retention import to_wire

from .core import Core
from .directory import DataDirectory
from .durability import Durability
from .groups import Groups
from .ids import IDAllocator
from .limits import Limits
from .meta import MetaStore
from .meta_embedded import EmbeddedMeta
from .meta_remote import RemoteMeta
from .readings import of_store
from .remote import Remote
from .retention import RetentionSection
from .space import Space
from .store import DataRefused

logger = logging.getLogger("rocksmq.broker")

MARK_SECONDS = 0.1  # the mark is behind by one commit or this, whichever is more
LOOP_WATCH_SECONDS = 0.25
PROCESS_WATCH_SECONDS = 5.0  # between two looks at the process, in a thread
FSYNC = Durability.parse("fsync")


class RocksMQ:
    """A message queue in a directory; an async context manager.

        async with RocksMQ("data") as mq:
            await mq.create_channel("orders")
            ids = await mq.produce("orders", [b"one", b"two"])

    ``name`` is the data directory, ``id_allocator`` gives out the ids (one of its own by default). What a method
    returned is durable. ``remote`` keeps the positions of groups elsewhere, None in the directory. Opening raises
    DirectoryInUse, PrefixInUse, DataRefused, DiskFull or OSError; StorageFailed ends the
    context: nothing is acknowledged after it. Leaving the context finishes what is in flight.
    """

    def __init__(
        self,
        name: str | os.PathLike[str],
        id_allocator: IDAllocator | None = None,
        *,
        durability: Durability = FSYNC,
        limits: Limits | None = None,
        accept_loss: bool = False,
        remote: Remote | None = None,
        retention: RetentionSection | None = None,
    ) -> None:
        self._path = Path(name)
        self._retention = retention or RetentionSection()
        self._ids = id_allocator or IDAllocator()
        self._durability = durability
        self._limits = limits or Limits()
        self._accept_loss = accept_loss
        self._remote = remote
        self._stack = AsyncExitStack()
        self._identities: dict[tuple[int, ...], list[Identity]] = {}

    async def __aenter__(self) -> Self:
        try:
            self._directory = DataDirectory(self._path, accept_loss=self._accept_loss)
        except StorageFailed as error:
            raise DataRefused(f"the data in {self._path} cannot be read: {error}") from error
        try:
            self.core = Core(self._directory, self._ids, self._limits, self._durability, self._retention)
            self.core.meta = self._meta()
            await self.core.meta.open()
            self._nursery = await self._stack.enter_async_context(trio.open_nursery())
        except BaseException as error:
            if self._remote is not None:
                self._remote.close()
            self._ids.release()
            self._directory.close(in_order=not self._directory.follows_crash)
            if isinstance(error, StorageFailed):
                raise DataRefused(f"the data in {self._path} cannot be read: {error}") from error
            raise
        self._space = Space(self._directory.store, self.core.channels, lambda: self.core.disk.is_full)
        self.core.on_destroyed, self.core.retention.freed = self._space.destroyed, self._space.trimmed
        self.core.status.spawn = self._nursery.start_soon
        self.core.checkpoints.spawn = self._nursery.start_soon
        self._committed = trio.Event()
        self._nursery.start_soon(self._commit)
        self._nursery.start_soon(self.core.waiters.run)
        self._nursery.start_soon(self.core.retention.run)
        self._nursery.start_soon(self._space.run)
        self._nursery.start_soon(self.core.idle_groups.run)
        self._nursery.start_soon(self.core.meta.run)
        self._nursery.start_soon(self._keep_mark)
        self._nursery.start_soon(self.core.checkpoints.remove_left_over)
        self._process = process.read()
        self._nursery.start_soon(self._watch_loop)
        self._nursery.start_soon(self._watch_process)
        self.core.telemetry.add(self._families)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        try:
            if self.core.committer.failure is None:
                with trio.CancelScope(shield=True):
                    await self.drain()
            self._directory.store.stop_compacting()
            self._nursery.cancel_scope.cancel()
            return await self._stack.__aexit__(kind, error, trace)
        except BaseExceptionGroup as group:
            if self.core.committer.failure is not None:
                raise StorageFailed(self.core.committer.failure.message) from group
            if group.exceptions == (error,):
                return False  # it came from the body, and goes on as it was
            raise
        finally:
            if self._remote is not None:
                self._remote.close()
            self._ids.release()
            if self.core.committer.failure is None:
                self._write_mark()
            self._directory.close(in_order=self.core.committer.failure is None)

    async def drain(self) -> None:
        """Refuse what is new with ShuttingDown, answer who waits, and finish what was accepted."""
        self.core.close()
        await self._committed.wait()
        await self.core.meta.close()

    async def probe(self) -> None:
        """Wait until what makes a message durable has answered, the disk included. Raises StorageFailed."""
        await self.core.committer.probe()

    def _meta(self) -> MetaStore:
        if self._remote is None:
            return EmbeddedMeta(self.core, self._directory, accept_loss=self._accept_loss)
        return RemoteMeta(self.core, self._directory, self._remote, accept_loss=self._accept_loss)

    # -- the seeds' operations -------------------------------------------------

    async def create_channel(
        self, channel: str, *, durability: str | None = None, retention: Mapping[str, Any] | None = None
    ) -> bool:
        """True if it was created, False if it existed: its data and settings stay. ``retention`` as in `set_retention`."""
        request = CreateChannel(channel, durability, to_wire(retention), None, secrets.token_bytes(16))
        created: bool = (await self.call(request)).created
        return created

    async def set_retention(self, channel: str, retention: Mapping[str, Any] | None) -> None:
        """Give the channel other rules, all of them; what they let go is removed soon.

        ``max_age`` in seconds, ``max_bytes`` of payloads and headers, ``max_messages``, ``consumed_by_all``; empty: all is
        kept; None: those of ``RocksMQ(retention=...)``. Raises ChannelNotFound, InvalidRequest.
        """
        await self.call(SetChannel(channel, to_wire(retention)))

    async def destroy_channel(self, channel: str) -> None:
        """Remove the channel, its messages and groups. Raises ChannelNotFound."""
        described = await self.call(DescribeChannel(channel))
        await self.call(DestroyChannel(channel, described.number))

    async def create_consumer_group(self, channel: str, group: str, *, start: Start = "earliest") -> bool:
        """True if it was created, False if it existed: its position stays."""
        request = CreateGroup(channel, group, *start_of(start), secrets.token_bytes(16))
        created: bool = (await self.call(request)).created
        return created

    async def destroy_consumer_group(self, channel: str, group: str) -> None:
        """Remove the group. Raises ChannelNotFound, GroupNotFound."""
        described = await self.call(DescribeGroup(channel, group))
        await self.call(DestroyGroup(channel, group, described.creation_id))

    async def produce(self, channel: str, messages: Iterable[Outgoing], *, headers: Mapping[str, bytes] | None = None) -> range:
        """Append all or none; their ids, in order. Nothing given: ``range(0)``."""
        batch = pack_messages(messages, headers)
        if not batch.message_count:
            return range(0)
        place = (self.core.channels.find(channel).number,)

        def request(identity: Identity) -> Produce:
            return Produce(channel, identity.id, identity.number, *batch)

        reply = await self._call_numbered(place, request, keep=False)
        return range(reply.first_id, reply.first_id + batch.message_count)

    async def consume(
        self, channel: str, group: str, n: int = 1_000, *, max_bytes: int = 1 << 22, timeout: float = 0.0
    ) -> MessageBatch:
        """The group's next messages; its position has moved durably past them. Empty when none came within ``timeout`` s."""
        found = self.core.channels.find(channel)
        place = (found.number, Groups.find(self.core.shown_groups(found), channel, group).state.creation_id)

        def request(identity: Identity) -> Consume:
            return Consume(channel, group, identity.id, identity.number, n, max_bytes, round(timeout * 1000))

        # A claim whose reply was not had, because the call was cancelled, is repeated by the next consume.
        reply = await self._call_numbered(place, request, keep=True)
        return MessageBatch(reply)

    async def fetch(
        self, channel: str, start: Start, n: int = 1_000, *, max_bytes: int = 1 << 22, timeout: float = 0.0
    ) -> MessageBatch:
        """Messages from ``start`` on; no group, moves nothing."""
        return MessageBatch(await self.call(Fetch(channel, *start_of(start), n, max_bytes, round(timeout * 1000))))

    async def seek(self, channel: str, group: str, to: Start) -> Sought:
        """Move the group's position anywhere; the next consume returns that message."""
        sought: Sought = await self.call(Seek(channel, group, *start_of(to), secrets.token_bytes(16)))
        return sought

    async def call(self, request: Any) -> Any:
        """Any operation by its typed request (rocksmq.protocol.operations); the reply, once durable. Raises RocksMQError."""
        answered = trio.Event()
        result: list[Any] = []

        def done(reply: Any) -> None:
            result.append(reply)
            answered.set()

        waiter = self.core.submit(request, done)
        try:
            await answered.wait()
        except trio.Cancelled:
            if waiter is not None:
                self.core.waiters.cancel(waiter)
            raise
        if isinstance(result[0], RocksMQError):
            raise result[0]
        return result[0]

    async def _call_numbered(self, place: tuple[int, ...], request: Callable[[Identity], Any], *, keep: bool) -> Any:
        """Call with a free identity of ``place``; with ``keep`` it is used again even if the reply was not had."""
        while True:
            free = self._identities.setdefault(place, [])
            identity = free.pop() if free else Identity.new(self._ids.present_id)
            try:
                reply = await self.call(request(identity))
            except OutOfSequence:
                continue  # long forgotten; nothing was done
            except BaseException:
                if keep:
                    free.append(identity)
                raise
            identity.number += not isinstance(reply, Messages) or reply.message_count > 0
            free.append(identity)
            return reply

    # -- tasks -----------------------------------------------------------------

    async def _commit(self) -> None:
        try:
            await self.core.committer.run()
        except StorageFailed as error:
            logger.critical("the store failed: nothing more is acknowledged", exc_info=True)
            self.core.fail(error)
            raise
        finally:
            self._committed.set()

    async def _keep_mark(self) -> None:
        while True:
            await self.core.committer.sync_beyond(self._directory.mark.number)
            await trio.to_thread.run_sync(self._write_mark)
            await trio.sleep(MARK_SECONDS)

    def _write_mark(self) -> None:
        number = self.core.committer.synced_number
        if number == self._directory.mark.number:
            return
        try:
            self._directory.mark.write(number)
        except OSError:
            self.core.telemetry.mark_failures.value += 1
            logger.exception("the durable mark could not be written: a loss of data might not be noticed at the next start")

    async def _watch_loop(self) -> None:
        while True:
            due = trio.current_time() + LOOP_WATCH_SECONDS
            await trio.sleep_until(due)
            self.core.telemetry.loop_lag.observe(max(0.0, trio.current_time() - due))

    async def _watch_process(self) -> None:
        while True:
            await trio.sleep(PROCESS_WATCH_SECONDS)
            try:
                self._process = await trio.to_thread.run_sync(process.read)
            except Exception:
                logger.exception("a bug: the metrics of the process are not renewed")

    def _families(self) -> Iterator[MetricFamily]:
        yield from self._process
        yield gauge(catalogue.AFTER_CRASH, self._directory.follows_crash)
        yield gauge(catalogue.MARK_LAG, self.core.committer.synced_number - self._directory.mark.number)
        yield gauge(catalogue.UNCOMPACTED_BYTES, self._space.pending_bytes)
        yield from of_store(self._directory.store)
