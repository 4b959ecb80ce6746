"""The blocking client: one method a call of the contract, over one shared connection that heals.

Owns the identities, and turning wire replies into what users see. Every call is sent again until
its deadline; what makes that harmless is in `recovery` and `claims`.
"""

import logging
import os
import secrets
import socket
import ssl
import time
import weakref
from collections.abc import Iterable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Literal, Self, cast

from rocksmq.protocol.errors import InvalidRequest, RocksMQError, StorageFailed
from rocksmq.protocol.identity import Identity
from rocksmq.protocol.messages import MessageBatch, Outgoing, OutgoingMessage, Start, pack_messages, start_of
from rocksmq.protocol.names import checked_name
from rocksmq.protocol.operations import METADATA_BYTES_MAX, Commit, Empty, Outcome, ReleaseConsumer, Seek

from .address import Address
from .admin import Admin
from .claims import Claims, release_of
from .consumer import BATCH_MESSAGES, Consumer, OnGap, check_options
from .credentials import Credentials
from .deadline import Deadline, checked_timeout
from .delivery import Delivery, deliver
from .exits import EXIT_SECONDS
from .forks import call_in_child
from .identities import Borrowed, IdentityPool
from .link import Link
from .models import SeekOutcome, SeekResult, ServerInfo
from .outbox import WINDOW
from .producer import LINGER_SECONDS, Producer
from .reading import MAX_BYTES, fetch, gap_before, poll
from .sources import AutoSource, ManualSource

logger = logging.getLogger("rocksmq.client")

RELEASE_SECONDS = 1.0  # that `close` may take to give consumer ids up, on a connection that works


class Client(Admin):
    """A client of one broker; a context manager; may be shared by threads.

        with Client("rocksmq://127.0.0.1:7660") as mq:
            mq.create_channel("orders")
            ids = mq.produce("orders", [b"one", b"two"])

    Durations are seconds; None waits for ever, 0 polls. ``timeout`` is every call's deadline, to which consume
    and fetch add their own. Until then a call connects, and is sent again after whatever may pass: a lost connection,
    a full disk, an overloaded or restarting broker. Every method may raise ConnectionFailed and Timeout, and each of
    RocksMQError that its docstring names.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        token: str | None = None,
        timeout: float | None = 10.0,
        ssl_context: ssl.SSLContext | None = None,
        client_name: str | None = None,
    ) -> None:
        address = Address.parse(url)
        credentials = Credentials.found(address, token=token, context=ssl_context)
        self._timeout = checked_timeout(timeout)
        name = client_name or f"{socket.gethostname()}:{os.getpid()}"
        self._link = Link(address, credentials, name)
        self._begin_anew()
        call_in_child(self._begin_anew_in_child)
        self._link.connected(self._deadline())

    def _begin_anew(self) -> None:
        """New ids."""
        self._producers = IdentityPool(lambda: self._link.present_id)
        self._consumers = IdentityPool(lambda: self._link.present_id)
        self._abandoned: list[ReleaseConsumer] = []  # of Consumers that nobody closed
        self._open: weakref.WeakSet[Producer | Consumer] = weakref.WeakSet()

    def _begin_anew_in_child(self) -> None:
        """In a forked child the ids and the connection are the parent's."""
        self._begin_anew()
        self._link.begin_anew()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        failures = self._close()
        if failures and error is None:
            raise failures[0]

    def __repr__(self) -> str:
        return f"<Client of {self._link.address}{', closed' if self._link.is_closed else ''}>"

    def close(self) -> None:
        """End the connection; calls that wait in other threads raise ConnectionFailed. May be repeated.

        While there is a connection, Producers that are still open are flushed, and Consumers give back what they hold, for 5 s
        at most; it waits for no broker that is away. It never raises: what is lost thereby is logged, and raised where a `with`
        ends well.
        """
        self._close()

    def _close(self) -> list[RocksMQError]:
        failures: list[RocksMQError] = []
        if self._link.is_closed:
            return failures
        if not self._link.is_up:
            self._link.close()  # first, so that whoever tries to connect does not hold it up
        deadline = Deadline(EXIT_SECONDS)
        for opened in tuple(self._open):
            try:
                opened.close_within(deadline)
            except RocksMQError as error:
                logger.warning("%r was not closed before its client: %s", opened, error)
                failures.append(error)
        if self._link.is_free:
            self._abandon(None)
            self._give_back(Deadline(RELEASE_SECONDS))
        self._link.close()
        return failures

    def _abandon(self, place: tuple[str, str] | None) -> None:
        """Read no more under the free consumer ids of ``place`` (None: of all)."""
        for known, identity in self._consumers.drain(place):
            if (request := release_of(*cast(tuple[str, str], known), identity)) is not None:
                self._abandoned.append(request)

    def _give_back(self, deadline: Deadline) -> None:
        """Give back what the abandoned ids hold, and what Consumers held that nobody closed, so that it is read next.

        Never raises: what may not have reached the disk is kept for the next time.
        """
        left: list[ReleaseConsumer] = []
        try:
            with suppress(IndexError):
                while True:
                    left.append(self._abandoned.pop())
            sent = [(request, self._link.begin(request, deadline)) for request in left]
            for request, waiting in sent:
                if not waiting.connection.is_answered(waiting.call, deadline):
                    continue
                error = waiting.call.error
                if error is None or not (error.retryable or isinstance(error, StorageFailed)):
                    left.remove(request)
        except RocksMQError:
            pass
        finally:
            self._abandoned += left

    def _forget_channel(self, channel: str) -> None:
        self._producers.clear(channel)

    def _forget_group(self, channel: str, group: str) -> None:
        self._consumers.clear((channel, group))

    # -- messages --------------------------------------------------------------------

    def produce(self, channel: str, messages: Iterable[Outgoing], *, headers: Mapping[str, bytes] | None = None) -> range:
        """Append messages as one atomic batch; their ids, in order. Durable when it returns.

        ``messages``: bytes-like or `OutgoingMessage`; ``headers`` go on each that has none of its own. Nothing
        given: ``range(0)``. Stored once, however often it is sent. Raises TypeError for text, ChannelNotFound, MessageTooLarge,
        LimitExceeded, and at the deadline Overloaded or DiskFull: nothing was stored. After Timeout, ConnectionFailed,
        StorageFailed, OutOfSequence, InternalError or an interrupt it is unknown whether the batch was.
        """
        checked_name("channel", channel)
        if isinstance(messages, (bytes, bytearray, memoryview, str, OutgoingMessage)):
            raise TypeError("messages is a list of payloads: wrap a single one, produce(channel, [payload])")
        batch = pack_messages(messages, headers)
        if not batch.message_count:
            return range(0)
        limits = self.server.limits
        batch.check(messages_max=limits["batch_messages_max"], payload_bytes_max=limits["payload_bytes_max"])
        batch.check_frame(limits["frame_bytes_max"])
        delivery = Delivery(channel, batch)
        deliver([delivery], self._link, self._producers, self._deadline())
        if delivery.ids is None:
            assert delivery.error is not None, "it was stored or not"
            raise delivery.error
        return delivery.ids

    def consume(
        self, channel: str, group: str, max_messages: int = 1_000, *, max_bytes: int = MAX_BYTES, timeout: float | None = 0.0
    ) -> MessageBatch:
        """The group's next messages; its position has moved durably past them. Empty when none came within ``timeout``.

        A batch that is not empty holds one message at least, whatever ``max_bytes`` says. Each message is handed out
        once: after any exception, an interrupt too, the next consume hands the same ones out again. Raises ChannelNotFound,
        GroupNotFound, InvalidRequest, and OutOfSequence in the rare case that messages may have been lost to this client:
        an answer was, and its repeat came too late.
        """
        checked_name("channel", channel)
        checked_name("group", group)
        count, size = _checked_bounds(max_messages, max_bytes)
        until = Deadline(checked_timeout(timeout))
        if self._abandoned:
            self._give_back(self._deadline())
        borrowed = Borrowed(self._consumers, (channel, group))
        try:
            consumer = borrowed.take()
            claims = Claims(self._link, channel, group, consumer)
            batch = poll(lambda wait, deadline: claims.next(count, size, wait, deadline), until, self._timeout)
            if not batch:
                return batch
        except BaseException:
            borrowed.give_back()
            raise
        # No call from here on, in which an interrupt could strike: the loan ends when ``borrowed`` goes.
        consumer.number += 1
        consumer.is_unresolved = False
        return batch

    def fetch(
        self, channel: str, start: Start, max_messages: int = 1_000, *, max_bytes: int = MAX_BYTES, timeout: float | None = 0.0
    ) -> MessageBatch:
        """Messages from ``start`` on, without a group; moves nothing. An empty batch's ``next_position`` is where to go on.

        ``start``: an id, ``"earliest"``, ``"latest"`` (what comes from now on), or an aware datetime. What retention removed
        from an id on is told as ``gap``, at once, also without messages behind it; how many these were is not known. Raises
        ChannelNotFound, InvalidRequest.
        """
        checked_name("channel", channel)
        count, size = _checked_bounds(max_messages, max_bytes)
        position = start_of(start)
        offset: int | None = None
        until = Deadline(checked_timeout(timeout))

        def once(wait: Deadline, deadline: Deadline) -> MessageBatch:
            nonlocal position, offset
            batch = fetch(self._link, channel, position, count, size, wait, deadline)
            batch.gap = gap_before(batch, position[1], offset)
            position, offset = start_of(batch.next_position), batch.next_offset
            return batch

        if start == "latest":
            once(Deadline(0), self._deadline())  # so that what "now" means is known before a connection can be lost
        return poll(once, until, self._timeout)

    def commit(self, channel: str, group: str, position: int, *, generation: int | None = None, metadata: bytes = b"") -> None:
        """Move the group's position forward to ``position``, the next id to read; durable when it returns.

        Below the present position: no effect, use seek. Raises InvalidRequest beyond the end, Conflict for another generation.
        """
        checked_name("channel", channel)
        checked_name("group", group)
        start_of(position)
        if len(metadata) > METADATA_BYTES_MAX:
            raise InvalidRequest(f"metadata of {len(metadata)} bytes exceed the limit of {METADATA_BYTES_MAX}")
        self._call(Commit(channel, group, position, generation, bytes(metadata)))

    def seek(self, channel: str, group: str, to: Start) -> SeekResult:
        """Move the group's position anywhere, inclusive: the next consume returns that message. Durable when it returns.

        Outcome ``exact``; ``next`` (not there: the first message after it; a datetime: the first at or after it); ``earliest``
        (asked for, or below the first kept); ``latest`` (asked for, past the end, or an empty channel).
        """
        checked_name("channel", channel)
        checked_name("group", group)
        sought = self._call(Seek(channel, group, *start_of(to), secrets.token_bytes(16)))
        return SeekResult(sought.position, SeekOutcome(Outcome(sought.outcome).name.lower()), sought.generation)

    # -- streams ---------------------------------------------------------------------

    def producer(
        self,
        channel: str,
        *,
        linger: float = LINGER_SECONDS,
        batch_bytes: int | None = None,
        batch_messages: int | None = None,
        max_in_flight: int = WINDOW,
        name: str | None = None,
    ) -> Producer:
        """A `Producer` for many messages of one channel.

        A batch leaves when it has ``batch_messages`` (None: 1,000) or ``batch_bytes`` (None: 256 KiB), both within the broker's
        limits, or ``linger`` seconds after its first message. Up to ``max_in_flight`` batches, 16 at most, are unanswered at a
        time; beyond that `Producer.send` blocks.

        With a ``name`` each message carries the caller's own sequence, and `Producer.last_sequence` tells how far they are
        stored, also after the caller was restarted. Opening a name fences whoever had it before: Conflict.
        """
        opened = Producer(
            self._link,
            channel,
            self.server.limits,
            timeout=self._timeout,
            linger=linger,
            batch_bytes=batch_bytes,
            batch_messages=batch_messages,
            max_in_flight=max_in_flight,
            name=name,
        )
        self._open.add(opened)
        return opened

    def consumer(
        self,
        channel: str,
        group: str,
        *,
        ack: Literal["auto", "manual"] = "auto",
        batch_messages: int = BATCH_MESSAGES,
        idle_timeout: float | None = None,
        on_gap: OnGap = "log",
    ) -> Consumer:
        """A `Consumer` of a group that exists.

        ``ack="auto"``: each message is handed out once; several consumers may share the group. ``ack="manual"``: the position
        moves with `Consumer.commit` only, so what was not committed is handed out again after a crash; one consumer a group at
        a time: opening takes the group over, and the former gets Conflict.

        ``batch_messages`` are read at a time. Iteration ends after ``idle_timeout`` seconds without a message (None: never).
        ``on_gap``: what to do when retention removed messages unread: ``"log"``, ``"raise"`` GapFound, or a callable that
        gets the `Gap`. Raises ChannelNotFound, GroupNotFound.
        """
        checked_name("channel", channel)
        checked_name("group", group)
        check_options(batch_messages, idle_timeout, on_gap)
        if ack == "manual":
            source: AutoSource | ManualSource = ManualSource(self._link, channel, group, self._timeout)
        elif ack == "auto":
            self.describe_consumer_group(channel, group)  # so that a wrong name is told now
            self._abandon((channel, group))
            self._give_back(self._deadline())  # what this client holds is read first
            claims = Claims(self._link, channel, group, Identity.new(self._link.present_id))
            source = AutoSource(self._link, claims, lambda to: self.seek(channel, group, to), self._abandoned, self._timeout)
        else:
            raise InvalidRequest(f'ack {ack!r} is not "auto" or "manual"')
        opened = Consumer(
            f"of group {group!r} of {channel!r}",
            source,
            timeout=self._timeout,
            batch_messages=batch_messages,
            idle_timeout=idle_timeout,
            on_gap=on_gap,
        )
        self._open.add(opened)
        return opened

    # -- the broker ------------------------------------------------------------------

    def ping(self) -> float:
        """Seconds that a round trip to the broker takes."""
        begin = time.perf_counter()
        self._call(Empty())
        return time.perf_counter() - begin

    @property
    def server(self) -> ServerInfo:
        """The broker at the other end, as of the last connection."""
        hello = self._link.connected(self._deadline()).server
        return ServerInfo(hello.server.removeprefix("rocksmqd/"), hello.version, hello.durability, hello.limits)


def _checked_bounds(max_messages: int, max_bytes: int) -> tuple[int, int]:
    for name, value in (("max_messages", max_messages), ("max_bytes", max_bytes)):
        if type(value) is not int or value < 1:
            raise InvalidRequest(f"{name} {value!r} is not allowed: 1 at least")
    return min(max_messages, 0xFFFF_FFFF), min(max_bytes, 0xFFFF_FFFF)
