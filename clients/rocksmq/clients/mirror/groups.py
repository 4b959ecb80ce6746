"""The mirror's group on each channel: taken over, moved behind what Pulsar has acknowledged, watched."""

import secrets
from collections.abc import Sequence
from typing import Any, NamedTuple

from rocksmq.protocol.batch import pack_lengths, unpack_lengths
from rocksmq.protocol.columns import pack_numbers, unpack_numbers
from rocksmq.protocol.errors import ChannelNotFound, Conflict, ProtocolError, RocksMQError
from rocksmq.protocol.operations import (
    ChannelDescribed,
    CommitMany,
    DescribeChannel,
    DescribeGroup,
    GroupDescribed,
    Position,
    SeekMany,
    Subscribe,
)

from ..deadline import Deadline
from ..link import Link, Sent


class TakenOver(Conflict):
    """Somebody else has the group now: another mirror of this name, or whoever sought it."""


class ChannelGone(ChannelNotFound):
    """The channel, not a topic."""


class Taken(NamedTuple):
    """A group that is ours."""

    position: int
    generation: int
    metadata: bytes


class Place(NamedTuple):
    """What to commit of a channel."""

    number: int
    generation: int
    position: int
    metadata: bytes


class Groups:
    """Of one name. Calls are sent again until the deadline."""

    def __init__(self, link: Link, name: str, timeout: float) -> None:
        self._link = link
        self._name = name
        self._timeout = timeout

    def take_over(self, number: int) -> Taken:
        """Whoever had it is refused from then on; it is made, at the channel's beginning, where it is missing.

        Raises ChannelGone, LimitExceeded.
        """
        column = pack_numbers([number])
        self._call(Subscribe(self._name, column, Position.EARLIEST, 0, secrets.token_bytes(16)))
        reply = self._call(SeekMany(self._name, column, None, None, None, None, secrets.token_bytes(16)))
        positions, generations = unpack_numbers(reply.positions), unpack_numbers(reply.generations)
        if not len(positions) == len(generations) == len(unpack_lengths(reply.metadata_lengths)) == 1:
            raise ProtocolError("a reply to SEEK_MANY does not fit its request")
        return Taken(positions[0], generations[0], bytes(reply.metadata))

    def check(self, channel: str, generation: int) -> GroupDescribed:
        """As `checked`, now. Raises TakenOver, ChannelGone, GroupNotFound."""
        return checked(self._call(DescribeGroup(channel, self._name)), channel, generation)

    def describe(self, channel: str, number: int) -> ChannelDescribed:
        """The channel. Raises ChannelGone, also when its name is another's."""
        found: ChannelDescribed = self._call(DescribeChannel(channel))
        if found.number != number:
            raise ChannelGone(f"channel {channel!r} was destroyed, and made anew")
        return found

    def begin_check(self, channel: str) -> Sent:
        """The reply is for `checked`."""
        return self._link.begin(DescribeGroup(channel, self._name), Deadline(self._timeout))

    def begin_commit(self, places: Sequence[Place]) -> Sent:
        """All or none of them."""
        return self._link.begin(self._commit_of(places), Deadline(self._timeout))

    def commit(self, places: Sequence[Place], deadline: Deadline) -> None:
        """All or none of them; durable when it returns. Raises what `told` makes."""
        self._call(self._commit_of(places), deadline)

    def _call(self, request: Any, deadline: Deadline | None = None) -> Any:
        try:
            return self._link.call(request, deadline or Deadline(self._timeout))
        except RocksMQError as error:
            raise told(error) from error

    def _commit_of(self, places: Sequence[Place]) -> CommitMany:
        return CommitMany(
            self._name,
            pack_numbers(place.number for place in places),
            pack_numbers(place.generation for place in places),
            pack_numbers(place.position for place in places),
            pack_lengths([len(place.metadata) for place in places]),
            b"".join(place.metadata for place in places),
        )


def told(error: RocksMQError) -> RocksMQError:
    """The broker's ``error``, as one that cannot be taken for Pulsar's."""
    if isinstance(error, Conflict):
        return TakenOver(f"the mirror's group was taken over, or sought, by somebody else: {error.message}")
    return ChannelGone(error.message) if isinstance(error, ChannelNotFound) else error


def checked(described: GroupDescribed, channel: str, generation: int) -> GroupDescribed:
    """``described`` itself. Raises TakenOver."""
    if described.generation != generation:
        raise TakenOver(f"the mirror's group on {channel!r} was taken over, or sought, by somebody else")
    return described
