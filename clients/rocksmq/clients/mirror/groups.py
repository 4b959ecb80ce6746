"""The mirror's group on each channel: taken over, moved behind what Pulsar has acknowledged, watched."""

import secrets
from collections.abc import Iterator, Sequence
from itertools import repeat
from typing import Any, NamedTuple

from rocksmq.protocol.batch import pack_lengths, unpack_lengths
from rocksmq.protocol.columns import pack_numbers, unpack_numbers
from rocksmq.protocol.errors import ChannelNotFound, Conflict, ProtocolError, RocksMQError, Timeout
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
from .reading import Poll, Wanted

SIZES_MESSAGES = 10_000
SIZES_BYTES = 1 << 20


class TakenOver(Conflict):
    """Somebody else has the group now: another mirror of this name, or whoever sought it."""


class ChannelGone(ChannelNotFound):
    """The channel, not a topic."""


class Taken(NamedTuple):
    """A group that is ours; ``offset`` messages were ever appended before its position."""

    position: int
    offset: int
    generation: int
    metadata: bytes


class Progress(NamedTuple):
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
        positions, offsets, generations = map(unpack_numbers, (reply.positions, reply.offsets, reply.generations))
        if not len(positions) == len(offsets) == len(generations) == len(unpack_lengths(reply.metadata_lengths)) == 1:
            raise ProtocolError("a reply to SEEK_MANY does not fit its request")
        return Taken(positions[0], offsets[0], generations[0], bytes(reply.metadata))

    def check(self, channel: str, generation: int) -> GroupDescribed:
        """As `checked`, now. Raises TakenOver, ChannelGone, GroupNotFound."""
        return checked(self._call(DescribeGroup(channel, self._name)), channel, generation)

    def describe(self, channel: str, number: int) -> ChannelDescribed:
        """The channel. Raises ChannelGone, also when its name is another's."""
        found: ChannelDescribed = self._call(DescribeChannel(channel))
        if found.number != number:
            raise ChannelGone(f"channel {channel!r} was destroyed, and made anew")
        return found

    def messages_from(self, number: int, position: int) -> Iterator[tuple[int, int, bytes]]:
        """Ids, payloads' lengths and headers of the channel's messages, from there to its end; blocks. Raises RocksMQError."""
        wanted = Wanted(None, number, position)
        while True:
            parts = Poll(self._link, [wanted], SIZES_MESSAGES, SIZES_BYTES, 0.0, self._timeout).parts(self._timeout)
            if parts is None:
                raise Timeout(f"the broker does not answer within {self._timeout} s")
            if not parts or parts[0].next_place <= wanted.place:
                return
            part = parts[0]
            headers = part.headers or repeat(b"", len(part.ids))
            for message_id, payload, header in zip(part.ids, part.payloads, headers, strict=True):
                yield message_id, len(payload), header
            wanted = wanted._replace(place=part.next_place)

    def begin_check(self, channel: str) -> Sent:
        """The reply is for `checked`."""
        return self._link.begin(DescribeGroup(channel, self._name), Deadline(self._timeout))

    def begin_commit(self, places: Sequence[Progress]) -> Sent:
        """All or none of them."""
        return self._link.begin(self._commit_of(places), Deadline(self._timeout))

    def commit(self, places: Sequence[Progress], deadline: Deadline) -> None:
        """All or none of them; durable when it returns. Raises what `told` makes."""
        self._call(self._commit_of(places), deadline)

    def _call(self, request: Any, deadline: Deadline | None = None) -> Any:
        try:
            return self._link.call(request, deadline or Deadline(self._timeout))
        except RocksMQError as error:
            raise told(error) from error

    def _commit_of(self, places: Sequence[Progress]) -> CommitMany:
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
