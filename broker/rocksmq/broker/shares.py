"""One reply for many channels: what it may hold is shared evenly among those that have something.

Each channel is visited in turn and gets its share, but one message at least if that fits at all; what some do not
need is shared in the next round among those that have more. Where not all can have a message, or are too large to be
looked at for one reply, those go first at which a reply begins: a place drawn at random, so each is served as often as
the others in the long run, and that one waits for ever is as good as impossible.
"""

from collections.abc import Sequence
from random import Random
from typing import NamedTuple

from .log import PARTIAL_BYTES_MAX, Log, Reading, Slice
from .records import Extent
from .replies import MESSAGE_BYTES, PART_BYTES

ROUNDS_MAX = 4  # each gives what the one before has left to those that have more
LOADED_BYTES_MAX = PARTIAL_BYTES_MAX  # of batches that a reply takes a part of; the log keeps no more for the next round
MISFITS_MAX = 8  # channels that are looked at in vain, because their next message does not fit
RANDOM = Random()  # noqa: S311 - of no secrets
BYTES_BESIDE = 1_024  # of a frame, at most: heads of the columns, correlation, status


class Place(NamedTuple):
    """A channel with something to read: its index in the request, and from where on."""

    channel_index: int
    channel_number: int
    start: int
    extent: Extent


class _Share:
    """What one channel gets."""

    __slots__ = ("count", "place", "position", "size", "slices")

    def __init__(self, place: Place) -> None:
        self.place = place
        self.position = place.start
        self.slices: list[Slice] = []
        self.count = self.size = 0

    @property
    def has_more(self) -> bool:
        return self.position <= self.place.extent.end_id

    def add(self, reading: Reading) -> None:
        first, *others = reading.slices
        if self.slices and self.slices[-1].batch.first_id == first.batch.first_id:
            first = self.slices.pop()._replace(stop=first.stop)  # one run, and one copy
        self.slices += (first, *others)
        self.position = reading.next_position
        self.count += reading.message_count
        self.size += reading.size


class _Sharing:
    """What is left of a reply while it is given away."""

    def __init__(self, log: Log, count_max: int, bytes_max: int) -> None:
        self._log = log
        self._count_left = count_max
        self._bytes_left = bytes_max
        self._loaded_left = LOADED_BYTES_MAX
        self._misfits_left = MISFITS_MAX
        self._is_empty = True

    @property
    def is_over(self) -> bool:
        return self._count_left <= 0 or self._bytes_left <= 0 or self._misfits_left <= 0

    def give(self, hungry: Sequence[_Share]) -> list[_Share]:
        """Visit each; those that have more."""
        left: list[_Share] = []
        sharers = max(1, len(hungry))
        count, size = max(1, self._count_left // sharers), self._bytes_left // sharers  # the same for each, first or last
        for share in hungry:
            if self.is_over:
                break
            if share.slices or self._loaded_left > 0:
                self._visit(share, count, min(size, self._bytes_left))
                if share.has_more and share.slices:
                    left.append(share)
        return left

    def _visit(self, share: _Share, count_max: int, bytes_max: int) -> None:
        reading = self._log.read(
            share.place.channel_number,
            share.position,
            share.place.extent,
            count_max,
            bytes_max,
            None if self._is_empty else self._bytes_left,
        )
        if not reading.slices:
            self._misfits_left -= 1
            self._loaded_left -= reading.misfit_bytes
            return
        share.add(reading)
        self._is_empty = False
        self._count_left -= reading.message_count
        self._bytes_left -= reading.size
        self._loaded_left -= sum(len(piece.batch.value) for piece in reading.slices)


def read_evenly(
    log: Log, places: Sequence[Place], count_max: int, bytes_max: int, frame_bytes_max: int, random: Random = RANDOM
) -> dict[int, Reading]:
    """What a reply has of ``places``, by their channels' indexes in their order; one message at least, if there are places.

    At most ``count_max`` messages, and ``bytes_max`` bytes or one message; with all its columns it fits into a frame.
    ``random`` draws where it begins.
    """
    beside = BYTES_BESIDE + PART_BYTES * min(count_max, len(places)) + MESSAGE_BYTES * count_max
    sharing = _Sharing(log, count_max, max(1, min(bytes_max, frame_bytes_max - beside)))
    begin = random.randrange(max(1, len(places)))
    shares = [_Share(place) for place in places]
    hungry = shares[begin:] + shares[:begin]
    for _ in range(ROUNDS_MAX):
        hungry = sharing.give(hungry)
    return {
        share.place.channel_index: Reading(share.slices, share.count, share.position, share.size)
        for share in shares
        if share.slices
    }
