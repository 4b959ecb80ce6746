"""Destroys groups that nobody reads (``retention.group_idle_seconds``): what consumed_by_all keeps for them is free then.

A group is idle while it has unread messages and is neither read, committed nor sought; one that has read all is not. What it
was before the broker's start is not known: then it begins anew.
"""

import logging
import time
from collections.abc import Callable
from typing import Any

import trio

from rocksmq.protocol.errors import MetaUnavailable, RocksMQError, StorageFailed
from rocksmq.protocol.operations import DestroyGroup

from .channels import Channel, Channels
from .groups import Group, Groups

logger = logging.getLogger("rocksmq.broker")

LOOKS = 10  # while a group may be idle
LOOK_SECONDS_MAX = 60.0
A_TURN = 50  # groups that are looked at in one go


class IdleGroups:
    """``expired`` counts those that were destroyed since the start."""

    def __init__(
        self,
        channels: Channels,
        groups: Groups,
        groups_of: Callable[[Channel], dict[str, Group]],
        submit: Callable[[Any, Callable[[Any], None]], object],
        idle_seconds: float,
        is_away: Callable[[], bool] = lambda: False,
    ) -> None:
        """``submit`` does an operation; ``idle_seconds`` 0: none is ever destroyed.

        ``is_away``: positions cannot be moved at the moment, so whoever reads does so in vain.
        """
        self.expired = 0
        self._channels = channels
        self._groups = groups
        self._groups_of = groups_of
        self._submit = submit
        self._idle_seconds = idle_seconds
        self._is_away = is_away

    async def run(self) -> None:
        """Look for ever."""
        while self._idle_seconds:
            await trio.sleep(min(self._idle_seconds / LOOKS, LOOK_SECONDS_MAX))
            try:
                await self._look()
            except MetaUnavailable as error:
                logger.warning("idle groups are looked for later: %s", error)

    async def _look(self) -> None:
        count = 0
        for channel in list(self._channels):
            try:
                for group in list(self._groups_of(channel).values()):
                    self._look_at(channel, group)
                    count += 1
                    if count % A_TURN == 0:
                        await trio.lowlevel.checkpoint()
            except StorageFailed as error:
                logger.warning("idle groups of channel %s are looked for later: %s", channel.name, error)

    def _look_at(self, channel: Channel, group: Group) -> None:
        now = time.monotonic()
        unread = self._groups.lag(group, channel.visible)
        if not unread or self._is_away():
            group.used_at = now
        elif now - group.used_at >= self._idle_seconds:
            self._destroy(channel, group, unread)

    def _destroy(self, channel: Channel, group: Group, unread: int) -> None:
        def done(reply: Any) -> None:
            if isinstance(reply, RocksMQError):
                logger.warning(
                    "group %s of channel %s is idle and cannot be destroyed yet: %s", group.name, channel.name, reply
                )
                return
            self.expired += 1
            logger.warning(
                "group %s of channel %s was destroyed: nobody read its %d unread messages for %g s (group_idle_seconds)",
                *(group.name, channel.name, unread, self._idle_seconds),
            )

        self._submit(DestroyGroup(channel.name, group.name, group.state.creation_id), done)
