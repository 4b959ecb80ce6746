"""What a client does to channels and groups. Every call is resent until its deadline.

Each carries what makes a repeat harmless: a creation its request id, a destruction what was looked
up just before (SPEC §3.4 to §3.9).
"""

import secrets
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from rocksmq.protocol.errors import ChannelNotFound, GroupNotFound, InvalidRequest
from rocksmq.protocol.messages import Start, start_of
from rocksmq.protocol.names import checked_name
from rocksmq.protocol.operations import (
    CreateChannel,
    CreateGroup,
    DescribeChannel,
    DescribeGroup,
    DestroyChannel,
    DestroyGroup,
    ListChannels,
    ListGroups,
)

from .deadline import Deadline
from .link import Link
from .models import ChannelInfo, GroupInfo, OwnerDescription

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

        ``durability``: ``"fsync"``, ``"interval:<ms>"`` or ``"os"``; None is the broker's. Durable when it returns.
        Raises InvalidRequest, LimitExceeded.
        """
        checked_name("channel", channel)
        if retention:
            raise InvalidRequest("retention is not supported by this version: leave it out")
        if owner is not None and not isinstance(owner, OwnerDescription):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidRequest(f"owner is an OwnerDescription, not {type(owner).__name__}")
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
        self._forget_channel(channel)

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

    def _pages(self, request: Callable[[str], Any], deadline: Deadline | None = None) -> list[str]:
        deadline = deadline or self._deadline()
        names: list[str] = []
        more = True
        while more:
            page = self._call(request(names[-1] if names else ""), deadline)
            names += page.names
            more = page.more
        return names
