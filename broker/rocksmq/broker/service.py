"""The Message Stream Service: channels made, described and destroyed many at a time, all or none (contract §1)."""

from collections.abc import Callable, Sequence
from typing import Any

from rocksmq.protocol.columns import pack_numbers
from rocksmq.protocol.errors import LimitExceeded
from rocksmq.protocol.names import checked_name
from rocksmq.protocol.operations import (
    ChannelsCreated,
    ChannelsDescribed,
    CreateChannels,
    DescribeChannels,
    DestroyChannels,
    Empty,
)

from . import columns
from .answers import Answers
from .channels import Channel, Channels, names_of
from .commit import Commit, Done
from .limits import Limits
from .log import Log
from .waiters import Waiter

TEXT_HEAD_BYTES = 5  # at most, of a text in a frame
BYTES_BESIDE = 1_024  # of a reply, at most, beside numbers and owners


class MessageStreamService:
    """``destroyed`` is told the number of each channel that is gone for good."""

    def __init__(self, answers: Answers, channels: Channels, log: Log, limits: Limits, destroyed: Done) -> None:
        self._answers = answers
        self._committer = answers.committer
        self._channels = channels
        self._log = log
        self._limits = limits
        self._destroyed = destroyed
        self.handlers: dict[type[Any], Callable[[Any, Done], Waiter | None]] = {
            CreateChannels: self._create,
            DestroyChannels: self._destroy,
            DescribeChannels: self._describe,
        }

    def remove(self, commit: Commit, wanted: Sequence[tuple[str, int]]) -> list[Channel]:
        """Destroy the channels of those names and numbers and all that belongs to them; those that were there."""
        channels = self._channels.destroy(commit, wanted)
        for channel in channels:
            self._answers.meta.destroy(commit, channel)
            self._log.cache.drop(channel.number)
            commit.answer(self._destroyed, channel.number)
        for channel in channels:
            self._answers.attempt_all(channel.number)
        return channels

    def _create(self, request: CreateChannels, done: Done) -> None:
        columns.check_channel_count(request.channel_count, self._limits)
        channels = self._channels.create_many(self._committer.open, request)
        self._answers.in_commit(self._answers.creating(channels[0]), done, ChannelsCreated(names_of(request)))

    def _destroy(self, request: DestroyChannels, done: Done) -> None:
        columns.check_channel_count(len(request.channels), self._limits)
        numbers = columns.numbers("numbers", request.numbers, len(request.channels))
        columns.check_distinct(numbers)
        commit = self._committer.open
        if self.remove(commit, tuple(zip(request.channels, numbers, strict=True))):
            self._answers.in_open(done, Empty())
        else:
            self._answers.in_commit(self._answers.removing_channels(), done, Empty())

    def _describe(self, request: DescribeChannels, done: Done) -> None:
        columns.check_channel_count(len(request.channels), self._limits)
        channels = [self._channels.get(checked_name("channel", name)) for name in request.channels]
        numbers = pack_numbers(0 if channel is None else channel.number for channel in channels)
        owners = [None if channel is None else channel.settings.owner for channel in channels]
        texts = [text for owner in owners if owner is not None for text in owner]
        size = len(numbers) + len(owners) + sum(TEXT_HEAD_BYTES + len(text.encode()) for text in texts) + BYTES_BESIDE
        if size > self._limits.frame_bytes_max:
            raise LimitExceeded(
                f"the owners of {len(owners)} channels do not fit into a frame of {self._limits.frame_bytes_max} bytes"
                " (frame_bytes_max): ask for fewer"
            )
        commit = self._answers.telling(channels)
        self._answers.in_commit(commit, done, ChannelsDescribed(numbers, owners))
