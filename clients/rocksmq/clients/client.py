"""The blocking client: one method a call of the contract, over one shared connection.

Owns the connection and its renewal, identities, and turning wire replies into what users see.
Admin calls and fetch are resent until the call's deadline; they carry what makes a repeat
harmless. A produce or consume whose connection is lost raises ConnectionFailed.
"""

import os
import secrets
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Self, TypeVar

from rocksmq.protocol.batch import RecordBatch
from rocksmq.protocol.errors import (
    OUTCOME_UNKNOWN,
    ChannelNotFound,
    ConnectionFailed,
    GroupNotFound,
    InvalidRequest,
    OutOfSequence,
    RocksMQError,
    Timeout,
)
from rocksmq.protocol.messages import MessageBatch, Outgoing, OutgoingMessage, Start, pack_messages, start_of
from rocksmq.protocol.names import checked_name
from rocksmq.protocol.operations import (
    METADATA_BYTES_MAX,
    POLL_MS_MAX,
    Commit,
    Consume,
    CreateChannel,
    CreateGroup,
    DescribeChannel,
    DescribeGroup,
    DestroyChannel,
    DestroyGroup,
    Empty,
    Fetch,
    ListChannels,
    ListGroups,
    Outcome,
    Produce,
    Seek,
)

from .address import Address
from .connection import Connection
from .deadline import Deadline, checked_timeout
from .forks import call_in_child
from .identities import IdentityPool
from .models import ChannelInfo, GroupInfo, OwnerDescription, SeekOutcome, SeekResult, ServerInfo
from .pipeline import Pipeline

MAX_BYTES = 4 << 20  # of a consume or fetch, when the caller names none
RETRY_SECONDS = 0.05
RETRY_SECONDS_MAX = 1.0
NEW_IDS_MAX = 3  # a broker that refuses so many new ids in a row is not going to take one
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
Result = TypeVar("Result")


class Client:
    """A client of one broker; a context manager; may be shared by threads.

        with Client("rocksmq://127.0.0.1:7660") as mq:
            mq.create_channel("orders")
            ids = mq.produce("orders", [b"one", b"two"])

    Durations are seconds; None waits for ever, 0 polls. ``timeout`` is every call's deadline, to which consume
    and fetch add their own. Connecting is retried until the deadline, at first and whenever
    the connection was lost. Every method may raise ConnectionFailed and Timeout, and each of RocksMQError that
    its docstring names.
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
        self._address = Address.parse(url)
        if ssl_context is not None:
            raise InvalidRequest("TLS is not supported by this version: leave ssl_context out")
        self._timeout = checked_timeout(timeout)
        self._token = token if token is not None else self._address.token
        self._name = client_name or f"{socket.gethostname()}:{os.getpid()}"
        self._closed = threading.Event()
        self._present_id = 0
        self._connection: Connection | None = None
        self._connecting: Connection | None = None
        self._begin_anew()
        call_in_child(self._begin_anew)
        self._connected(self._deadline())

    def _begin_anew(self) -> None:
        """New ids, and a new connection when one is needed; in a forked child the old ones are the parent's."""
        inherited = self._connection, self._connecting
        self._connection = self._connecting = None
        was_closed, self._closed = self._closed.is_set(), threading.Event()
        if was_closed:
            self._closed.set()
        self._id = secrets.token_bytes(16)
        self._lock = threading.Lock()
        self._producers = IdentityPool(lambda: self._present_id)
        self._consumers = IdentityPool(lambda: self._present_id)
        for connection in inherited:
            if connection is not None:
                connection.abandon()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Client of {self._address}{', closed' if self._closed.is_set() else ''}>"

    def close(self) -> None:
        """End the connection; calls that wait in other threads raise ConnectionFailed. Never blocks; may be repeated."""
        self._closed.set()
        for connection in (self._connection, self._connecting):
            if connection is not None:
                connection.close()

    # -- channels ------------------------------------------------------------------

    def create_channel(
        self,
        channel: str,
        *,
        durability: str | None = None,
        retention: Mapping[str, Any] | None = None,
        owner: OwnerDescription | None = None,
    ) -> bool:
        """Create a channel; True if it was created, False if it existed: then its data and settings stay.

        ``durability``: ``"fsync"``, ``"interval:<ms>"`` or ``"os"``; None is the broker's. Durable when it returns.
        Raises InvalidRequest, LimitExceeded.
        """
        checked_name("channel", channel)
        if retention:
            raise InvalidRequest("retention is not supported by this version: leave it out")
        parts = None if owner is None else [owner.role, owner.address, owner.description_text]
        request = CreateChannel(channel, durability, None, parts, secrets.token_bytes(16))
        created: bool = self._call(request).created
        return created

    def destroy_channel(self, channel: str, *, missing_ok: bool = False) -> None:
        """Delete a channel with its messages, groups and positions; the disk gets the space back.

        Waiting readers get ChannelNotFound. Raises ChannelNotFound unless ``missing_ok``.
        """
        checked_name("channel", channel)
        deadline = self._deadline()
        try:
            number = self._call(DescribeChannel(channel), deadline).number
        except ChannelNotFound:
            if missing_ok:
                return
            raise
        self._call(DestroyChannel(channel, number), deadline)
        self._producers.clear(channel)

    def list_channels(self, prefix: str = "") -> list[str]:
        """Names of all channels that start with ``prefix``, sorted."""
        return self._pages(lambda after: ListChannels(prefix, after))

    def describe_channel(self, channel: str) -> ChannelInfo:
        """What the channel holds, as readers see it. Raises ChannelNotFound."""
        checked_name("channel", channel)
        deadline = self._deadline()
        found = self._call(DescribeChannel(channel), deadline)
        owner = None if found.owner is None else OwnerDescription(*found.owner)
        return ChannelInfo(
            name=channel,
            owner=owner,
            created_at=_EPOCH + timedelta(milliseconds=found.created_ms),
            begin_id=found.begin_id if found.message_count else None,
            end_id=found.end_id if found.message_count else None,
            message_count=found.message_count,
            byte_count=found.byte_count,
            durability=found.durability,
            retention=found.retention,
            groups=self._pages(lambda after: ListGroups(channel, after), deadline),
        )

    # -- consumer groups -------------------------------------------------------------

    def create_consumer_group(self, channel: str, group: str, *, start: Start = "earliest") -> bool:
        """Create a group; True if it was created, False if it existed: then its position stays.

        ``start``: ``"earliest"``, ``"latest"``, an id, or an aware datetime. Raises ChannelNotFound, InvalidRequest,
        LimitExceeded.
        """
        checked_name("channel", channel)
        checked_name("group", group)
        created: bool = self._call(CreateGroup(channel, group, *start_of(start), secrets.token_bytes(16))).created
        return created

    def destroy_consumer_group(self, channel: str, group: str, *, missing_ok: bool = False) -> None:
        """Delete a group and its position. Raises ChannelNotFound, and GroupNotFound unless ``missing_ok``."""
        checked_name("channel", channel)
        checked_name("group", group)
        deadline = self._deadline()
        try:
            creation_id = self._call(DescribeGroup(channel, group), deadline).creation_id
        except GroupNotFound:
            if missing_ok:
                return
            raise
        self._call(DestroyGroup(channel, group, creation_id), deadline)
        self._consumers.clear((channel, group))

    def list_consumer_groups(self, channel: str) -> list[str]:
        """Names of the channel's groups, sorted. Raises ChannelNotFound."""
        checked_name("channel", channel)
        return self._pages(lambda after: ListGroups(channel, after))

    def describe_consumer_group(self, channel: str, group: str) -> GroupInfo:
        """The group's position and its exact lag. Raises ChannelNotFound, GroupNotFound."""
        checked_name("channel", channel)
        checked_name("group", group)
        found = self._call(DescribeGroup(channel, group))
        return GroupInfo(
            channel, group, found.position, found.lag_messages, found.lag_ms / 1000, found.generation, bytes(found.metadata)
        )

    # -- messages --------------------------------------------------------------------

    def produce(self, channel: str, messages: Iterable[Outgoing], *, headers: Mapping[str, bytes] | None = None) -> range:
        """Append messages as one atomic batch; their ids, in order. Durable when it returns.

        ``messages``: bytes-like or `OutgoingMessage`; ``headers`` go on each that has none of its own. Nothing
        given: ``range(0)``. Raises TypeError for text, ChannelNotFound, MessageTooLarge, LimitExceeded, Overloaded, DiskFull:
        nothing was stored.
        After Timeout, ConnectionFailed, StorageFailed, OutOfSequence or InternalError it is unknown whether the batch was.
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
        deadline = self._deadline()
        return self._under_new_ids(lambda: self._produce_once(channel, batch, deadline), deadline)

    def consume(
        self, channel: str, group: str, max_messages: int = 1_000, *, max_bytes: int = MAX_BYTES, timeout: float | None = 0.0
    ) -> MessageBatch:
        """The group's next messages; its position has moved durably past them. Empty when none came within ``timeout``.

        A batch that is not empty holds one message at least, whatever ``max_bytes`` says. Raises ChannelNotFound,
        GroupNotFound, InvalidRequest. After any other error the messages may be handed out again.
        """
        checked_name("channel", channel)
        checked_name("group", group)
        count, size = _checked_bounds(max_messages, max_bytes)

        def once(poll: Deadline, deadline: Deadline) -> MessageBatch:
            consumer = self._consumers.take((channel, group))
            request = Consume(channel, group, consumer.id, consumer.number, count, size, _milliseconds(poll))
            try:
                batch = MessageBatch(self._call_once(request, deadline))
            except (ChannelNotFound, GroupNotFound, OutOfSequence):
                raise  # the broker does not know the id, or will not
            except BaseException:
                # Its claim, if there is one, is repeated by the next consume.
                self._consumers.give_back_unresolved((channel, group), consumer)
                raise
            consumer.is_unresolved = False
            consumer.number += len(batch) > 0
            self._consumers.give_back((channel, group), consumer)
            return batch

        return self._poll(lambda poll, deadline: self._under_new_ids(lambda: once(poll, deadline), deadline), timeout)

    def fetch(
        self, channel: str, start: Start, max_messages: int = 1_000, *, max_bytes: int = MAX_BYTES, timeout: float | None = 0.0
    ) -> MessageBatch:
        """Messages from ``start`` on, without a group; moves nothing. An empty batch's ``next_position`` is where to go on.

        ``start``: an id, ``"earliest"``, ``"latest"`` (what comes from now on), or an aware datetime. Raises ChannelNotFound,
        InvalidRequest.
        """
        checked_name("channel", channel)
        count, size = _checked_bounds(max_messages, max_bytes)
        position = start_of(start)

        def once(poll: Deadline, deadline: Deadline) -> MessageBatch:
            nonlocal position

            def send() -> Any:
                return self._call_once(Fetch(channel, *position, count, size, _milliseconds(poll)), deadline)

            batch = MessageBatch(self._retried(send, deadline))
            position = start_of(batch.next_position)
            return batch

        if start == "latest":
            once(Deadline(0), self._deadline())  # so that what "now" means is known before a connection can be lost
        return self._poll(once, timeout)

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

    # -- the broker ------------------------------------------------------------------

    def ping(self) -> float:
        """Seconds that a round trip to the broker takes."""
        begin = time.perf_counter()
        self._call(Empty())
        return time.perf_counter() - begin

    @property
    def server(self) -> ServerInfo:
        """The broker at the other end, as of the last connection."""
        hello = self._connected(self._deadline()).server
        return ServerInfo(hello.server.removeprefix("rocksmqd/"), hello.version, hello.durability, hello.limits)

    # -- how calls are made ------------------------------------------------------------

    def _deadline(self) -> Deadline:
        return Deadline(self._timeout)

    def _connected(self, deadline: Deadline) -> Connection:
        """The connection, made anew if it was lost. Retries until the deadline, then raises the last failure."""
        connection = self._connection
        if connection is not None and connection.is_alive():
            return connection
        held = False
        try:
            held = self._lock.acquire(timeout=min(deadline.remaining, threading.TIMEOUT_MAX))
            if not held:
                raise Timeout(f"no connection to {self._address} in time")
            return self._reconnected(deadline)
        finally:
            if held:
                self._lock.release()

    def _reconnected(self, deadline: Deadline) -> Connection:
        delay = RETRY_SECONDS
        failure: RocksMQError | None = None
        while not self._closed.is_set():
            if self._connection is not None and self._connection.is_alive():
                return self._connection
            try:
                self._connecting = connection = Connection(self._address)
                if self._closed.is_set():
                    connection.close()  # it was made too late for `close` to see it
                connection.open(self._name, self._id, self._token, deadline)
            except RocksMQError as error:
                if not error.retryable and not isinstance(error, Timeout):
                    raise
                failure = error if failure is None or error.retryable else failure
                if deadline.is_over:
                    raise failure from None
                delay = self._pause(max(delay, error.retry_after or 0), deadline)
            else:
                self._connection, self._connecting = connection, None
                self._present_id = max(self._present_id, connection.server.present_id)
                if not self._closed.is_set():
                    return connection
        self.close()
        raise ConnectionFailed("the client was closed")

    def _call_once(self, request: Any, deadline: Deadline) -> Any:
        """One request, sent once."""
        connection = self._connected(deadline)
        return connection.wait(connection.begin(request, deadline), deadline)

    def _call(self, request: Any, deadline: Deadline | None = None) -> Any:
        """One request that may be repeated."""
        until = deadline or self._deadline()
        return self._retried(lambda: self._call_once(request, until), until)

    def _retried(self, send: Callable[[], Any], deadline: Deadline) -> Any:
        """``send`` until the deadline while the error is retryable; then the last refusal is raised."""
        delay = RETRY_SECONDS
        failure: RocksMQError | None = None
        while True:
            try:
                return send()
            except RocksMQError as error:
                if failure is not None and isinstance(error, Timeout):
                    raise failure from None
                if not error.retryable or self._closed.is_set() or deadline.is_over:
                    raise
                failure = error
            delay = self._pause(max(delay, failure.retry_after or 0), deadline)

    def _pause(self, delay: float, deadline: Deadline) -> float:
        """Wait about ``delay`` seconds, but not past the deadline or `close`; the next delay."""
        self._closed.wait(min(deadline.remaining, delay * (0.5 + secrets.randbelow(1_000) / 2_000)))
        return min(delay * 2, RETRY_SECONDS_MAX)

    def _poll(self, once: Callable[[Deadline, Deadline], MessageBatch], timeout: float | None) -> MessageBatch:
        """Long polls of at most POLL_MS_MAX until something comes or ``timeout`` has passed.

        ``once`` gets the moment until which it waits for messages, and its deadline.
        """
        until = Deadline(checked_timeout(timeout))
        while True:
            wait_s = min(until.remaining, POLL_MS_MAX / 1000)
            batch = once(Deadline(wait_s), self._deadline().extended(wait_s))
            if batch or until.is_over:
                return batch

    def pipeline(self, channel: str) -> Pipeline:
        """Batches in flight on the present connection; internal, for one thread."""
        deadline = self._deadline()
        connection = self._connected(deadline)
        return Pipeline(connection, channel, self._producers.take((channel, "pipeline")))

    def _produce_once(self, channel: str, batch: RecordBatch, deadline: Deadline) -> range:
        producer = self._producers.take(channel)
        request = Produce(channel, producer.id, producer.number, *batch)
        try:
            first_id: int = self._call_once(request, deadline).first_id
        except OUTCOME_UNKNOWN:
            raise  # and the id is not used again
        except RocksMQError:
            self._producers.give_back(channel, producer)
            raise
        producer.number += 1
        self._producers.give_back(channel, producer)
        return range(first_id, first_id + batch.message_count)

    def _under_new_ids(self, use: Callable[[], Result], deadline: Deadline) -> Result:
        """Run ``use`` again while the broker does not know its id: that refusal is an answer, so nothing was done."""
        delay = RETRY_SECONDS
        for _ in range(NEW_IDS_MAX):
            try:
                return use()
            except OutOfSequence as error:
                self._present_id = max(self._present_id, error.present_id or 0)
                delay = self._pause(delay, deadline)
        return use()

    def _pages(self, request: Callable[[str], Any], deadline: Deadline | None = None) -> list[str]:
        deadline = deadline or self._deadline()
        names: list[str] = []
        more = True
        while more:
            page = self._call(request(names[-1] if names else ""), deadline)
            names += page.names
            more = page.more
        return names


def _milliseconds(poll: Deadline) -> int:
    return round(poll.remaining * 1000)


def _checked_bounds(max_messages: int, max_bytes: int) -> tuple[int, int]:
    for name, value in (("max_messages", max_messages), ("max_bytes", max_bytes)):
        if type(value) is not int or value < 1:
            raise InvalidRequest(f"{name} {value!r} is not allowed: 1 at least")
    return min(max_messages, 0xFFFF_FFFF), min(max_bytes, 0xFFFF_FFFF)
