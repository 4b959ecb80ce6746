"""What a client does to channels and groups. Every call is resent until its deadline.

Each carries what makes a repeat harmless: a creation its request id, a destruction what was looked
up just before (SPEC §3.4 to §3.9, §3.19 to §3.21).
"""

import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from rocksmq.protocol.administration import ConfirmClock, SetChannel, Status
from rocksmq.protocol.columns import NUMBER_BYTES, pack_numbers, unpack_numbers
from rocksmq.protocol.errors import ChannelNotFound, GroupNotFound, InvalidRequest, LimitExceeded, ProtocolError
from rocksmq.protocol.messages import Start, start_of
from rocksmq.protocol.names import checked_name
from rocksmq.protocol.operations import (
    OWNER_BYTES_MAX,
    REQUEST_CHANNELS_MAX,
    CreateChannel,
    CreateChannels,
    CreateGroup,
    DescribeChannel,
    DescribeChannels,
    DescribeGroup,
    DestroyChannel,
    DestroyChannels,
    DestroyGroup,
    ListChannels,
    ListGroups,
)
from rocksmq.protocol.retention import of_wire, to_wire

from .deadline import Deadline
from .link import Link
from .models import ChannelDescription, ChannelInfo, GroupInfo, HeldSpace, OwnerDescription
from .status import BrokerStatus, parsed

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Admin:
    """The calls of `Client` that messages have no part in."""

    _link: Link
    _timeout: float | None

    def _forget_channel(self, channel: str) -> None:
        """It was destroyed."""

    def _forget_group(self, channel: str, group: str) -> None:
        """It was destroyed."""

    def _deadline(self) -> Deadline:
        return Deadline(self._timeout)

    def _call(self, request: Any, deadline: Deadline | None = None) -> Any:
        """One request that may be repeated."""
        return self._link.call(request, deadline or self._deadline())

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

        ``durability``: ``"fsync"``, ``"interval:<ms>"`` or ``"os"``; None is the broker's. ``retention``: as in
        `set_retention`. Durable when it returns. Raises InvalidRequest, LimitExceeded.
        """
        checked_name("channel", channel)
        rules = to_wire(retention)
        parts = None if owner is None else _texts_of(owner)
        request = CreateChannel(channel, durability, rules, parts, secrets.token_bytes(16))
        created: bool = self._call(request).created
        return created

    def set_retention(self, channel: str, retention: Mapping[str, Any] | None) -> None:
        """Give the channel other rules, all of them: what any one lets go is removed, and who had not read it gets a Gap.

        ``max_age`` in seconds, ``max_bytes`` of payloads and headers, ``max_messages``, ``consumed_by_all`` True; empty: all is
        kept; None: the broker's own rules. Durable when it returns; what goes, goes within a second or so. Raises
        ChannelNotFound, InvalidRequest.
        """
        checked_name("channel", channel)
        self._call(SetChannel(channel, to_wire(retention)))

    def confirm_clock(self) -> None:
        """The broker's clock is right as it is: it removes messages for their age again, if it does not (`age_suspended`)."""
        self._call(ConfirmClock())

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
        self._forget_channel(channel)

    def list_channels(self, prefix: str = "") -> list[str]:
        """Names of all channels that start with ``prefix``, sorted."""
        return self._pages(lambda after: ListChannels(prefix, after))

    def describe_channel(self, channel: str) -> ChannelInfo:
        """What the channel holds, as readers see it. Raises ChannelNotFound."""
        checked_name("channel", channel)
        deadline = self._deadline()
        found = self._call(DescribeChannel(channel), deadline)
        return ChannelInfo(
            name=channel,
            owner=_owner_of(found.owner),
            created_at=_EPOCH + timedelta(milliseconds=found.created_ms),
            begin_id=found.begin_id if found.message_count else None,
            end_id=found.end_id if found.message_count else None,
            message_count=found.message_count,
            byte_count=found.byte_count,
            durability=found.durability,
            retention=of_wire(found.retention),
            groups=self._pages(lambda after: ListGroups(channel, after), deadline),
            retention_is_default=found.has_default,
            held=None if found.held is None else HeldSpace(*found.held),
            age_suspended=found.is_age_suspended,
        )

    # -- the Message Stream Service --------------------------------------------------

    def create_channels(self, owner: OwnerDescription, count: int) -> list[str]:
        """Create ``count`` channels of ``owner``, all or none; their names, `<role>-<request id>-<i>`.

        The names are new with each call, and durable with the channels when it returns. Raises InvalidRequest for a role that
        makes no channel names, LimitExceeded for more than the broker takes at once (`request_channels_max`) or holds.
        """
        texts = _texts_of(owner)
        if type(count) is not int or count < 1:
            raise InvalidRequest(f"count {count!r} is not allowed: 1 at least")
        deadline = self._deadline()
        request_id = secrets.token_bytes(16)
        checked_name("channel", f"{owner.role}-{request_id.hex()}-{count - 1}")
        _check_count(self._link, count, deadline)
        created: list[str] = self._call(CreateChannels(texts, count, request_id), deadline).names
        return created

    def destroy_channels(self, names: Iterable[str]) -> None:
        """Delete the channels with their messages, groups and positions, all or none; a name that comes twice counts once.

        Raises ChannelNotFound with every unknown name, LimitExceeded for more than the broker takes at once
        (`request_channels_max`), InvalidRequest.
        """
        channels = list(dict.fromkeys(_checked_names(names)))
        if not channels:
            return
        deadline = self._deadline()
        _check_count(self._link, len(channels), deadline)
        numbers = channel_numbers(self._link, channels, deadline)
        self._call(DestroyChannels(channels, pack_numbers(numbers)), deadline)
        for channel in channels:
            self._forget_channel(channel)

    def describe_channels(self, names: Iterable[str]) -> list[ChannelDescription]:
        """The owner of each of the channels, in the order of ``names``; a name that comes twice is answered twice.

        Many are asked for in several requests. Raises ChannelNotFound with every unknown name, InvalidRequest.
        """
        channels = _checked_names(names)
        found = _lookup(self._link, channels, self._deadline())
        return [ChannelDescription(name, _owner_of(texts)) for name, (_, texts) in zip(channels, found, strict=True)]

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
        self._forget_group(channel, group)

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

    # -- the broker ------------------------------------------------------------------

    def status(self, channel: str = "") -> BrokerStatus:
        """Whether the broker is ready, what is wrong with it, and what it counts and measures.

        A broker with very many channels and groups tells their sums only (``rocksmq_metrics_aggregated`` is 1 then); with a
        ``channel``, the series of that one and its groups stand in place of those of all. Counters count from the broker's
        start; units stand in the names: seconds, bytes, messages.

        Raises ChannelNotFound, InvalidRequest, Overloaded when many ask at once, ProtocolError for metrics that cannot be read.
        """
        reply = self._call(Status(checked_name("channel", channel) if channel else ""))
        return BrokerStatus(reply.is_ready, reply.problems, parsed(reply.metrics))

    def _pages(self, request: Callable[[str], Any], deadline: Deadline | None = None) -> list[str]:
        deadline = deadline or self._deadline()
        names: list[str] = []
        more = True
        while more:
            page = self._call(request(names[-1] if names else ""), deadline)
            names += page.names
            more = page.more
        return names


def channel_numbers(link: Link, names: Iterable[str], deadline: Deadline) -> list[int]:
    """The number of each of the channels, by which requests about many of them name it (SPEC §3.33).

    Raises ChannelNotFound with every unknown name, InvalidRequest.
    """
    return [number for number, _ in _lookup(link, _checked_names(names), deadline)]


def _lookup(link: Link, channels: Sequence[str], deadline: Deadline) -> list[tuple[int, list[str] | None]]:
    """Number and owner of each of the channels."""
    found: list[tuple[int, list[str] | None]] = []
    while len(found) < len(channels):
        limits = link.connected(deadline).server.limits
        page_size = min(_channels_max(link, deadline), max(1, limits["frame_bytes_max"] // OWNER_BYTES_MAX))
        page = channels[len(found) : len(found) + page_size]
        reply = link.call(DescribeChannels(list(page)), deadline)
        if not len(page) == len(reply.owners) == len(reply.numbers) / NUMBER_BYTES:
            raise ProtocolError(f"the broker described {len(reply.owners)} channels of {len(page)}")
        found += zip(unpack_numbers(reply.numbers), reply.owners, strict=True)
    unknown = dict.fromkeys(name for name, (number, _) in zip(channels, found, strict=True) if not number)
    if unknown:
        raise ChannelNotFound(f"there is no channel {', '.join(map(repr, unknown))}: check the name, or create it")
    return found


def _channels_max(link: Link, deadline: Deadline) -> int:
    """How many channels the broker takes in a request."""
    return max(1, link.connected(deadline).server.limits.get("request_channels_max", REQUEST_CHANNELS_MAX))


def _check_count(link: Link, count: int, deadline: Deadline) -> None:
    if count > (most := _channels_max(link, deadline)):
        raise LimitExceeded(
            f"{count} channels in a request exceed the limit of {most} (request_channels_max): take fewer at once"
        )


def _checked_names(names: Iterable[str]) -> list[str]:
    if isinstance(names, str):
        raise InvalidRequest(f"names are a list, not the text {names!r}: give [{names!r}]")
    return [checked_name("channel", name) for name in names]


def _texts_of(owner: OwnerDescription) -> list[str]:
    if not isinstance(owner, OwnerDescription):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InvalidRequest(f"owner is an OwnerDescription, not {type(owner).__name__}")
    return [owner.role, owner.address, owner.description_text]


def _owner_of(texts: list[str] | None) -> OwnerDescription | None:
    return None if texts is None else OwnerDescription(*texts)
