"""Even shares of a reply: how much is looked at for it, beside what the tests of FETCH_MANY see of it."""

from collections import Counter
from collections.abc import Iterator, Sequence
from random import Random
from typing import NamedTuple

import pytest

from rocksmq.broker import shares
from rocksmq.broker.log import Log, Reading
from rocksmq.broker.records import Extent, StoredBatch
from rocksmq.broker.shares import Place, read_evenly

from .support import World, payloads_of

FRAME = 8 << 20


class CountedLog(Log):
    """Notes which channels are read."""

    def __init__(self, log: Log) -> None:
        self.read_channels: list[int] = []
        self._log = log

    def read(
        self,
        channel_number: int,
        position: int,
        extent: Extent,
        count_max: int,
        bytes_max: int,
        first_bytes_max: int | None = None,
    ) -> Reading:
        self.read_channels.append(channel_number)
        return self._log.read(channel_number, position, extent, count_max, bytes_max, first_bytes_max)


def places_of(world: World, count: int, payloads: Sequence[bytes]) -> list[Place]:
    found: list[Place] = []
    for index in range(count):
        world.produce(payloads, f"c{index}")
        channel = world.channel(f"c{index}")
        found.append(Place(index, channel.number, channel.visible.begin_id, channel.visible))
    return found


class Part(NamedTuple):
    """What one channel gets."""

    channel_index: int
    reading: Reading


def share(log: Log, places: Sequence[Place], n: int = 10_000, size: int = 7 << 20, seed: int = 0) -> list[Part]:
    return [Part(*found) for found in read_evenly(log, places, n, size, FRAME, Random(seed)).items()]


def test_given_nothing_to_read_when_shared_then_there_is_nothing(world: World) -> None:
    assert share(world.log, []) == []


def test_given_large_messages_when_few_of_them_fit_then_few_channels_are_looked_at_in_vain(world: World) -> None:
    log = CountedLog(world.log)
    parts = share(log, places_of(world, 40, [bytes(10_000)]), size=35_000)
    assert len(parts) == 3
    assert len(log.read_channels) <= 3 + shares.MISFITS_MAX
    log.read_channels.clear()
    assert len(share(log, places_of(world, 40, [bytes(10_000)]), size=1)) == 1
    assert len(log.read_channels) == 1, "nothing is left for others"


def test_given_a_message_that_does_not_fit_among_small_ones_when_shared_then_the_small_ones_still_come(world: World) -> None:
    places = places_of(world, 6, [b"small"])
    world.produce([bytes(50_000)], "large")
    large = world.channel("large")
    places.insert(3, Place(6, large.number, 0, large.visible))
    for seed in range(20):
        parts = share(world.log, places, size=1_000, seed=seed)
        found = [part.channel_index for part in parts]
        assert found in ([0, 1, 2, 3, 4, 5], [6]), "a first message comes alone, however large"


def test_given_large_batches_when_little_of_each_is_needed_then_not_all_of_them_are_loaded(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shares, "LOADED_BYTES_MAX", 200_000)
    log = CountedLog(world.log)
    places = places_of(world, 40, [bytes(100)] * 500)  # 52 kB each
    seen: set[int] = set()
    for seed in range(200):
        log.read_channels.clear()
        parts = share(log, places, size=20_000, seed=seed)
        looked_at = set(log.read_channels)
        assert len(looked_at) <= 4
        assert 20_000 - 4 * 100 < sum(part.reading.size for part in parts) <= 20_000, "those have what the others leave"
        seen |= looked_at
    assert len(seen) == 40, "another time it is the others' turn"


def test_given_large_batches_that_do_not_fit_when_asked_again_then_few_are_loaded_and_those_are_kept(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shares, "LOADED_BYTES_MAX", 200_000)
    places = places_of(world, 10, [bytes(1_000)] * 100)
    log = CountedLog(world.log)
    assert len(share(log, places, size=1_500)) == 1
    looked_at = list(dict.fromkeys(log.read_channels))
    assert len(looked_at) == 2, "of 100 kB each"
    (kept,) = [place for place in places if place.channel_number == looked_at[-1]]
    loaded: list[int] = []
    batches = Log.batches

    def noted(log: Log, channel_number: int, position: int, extent: Extent) -> Iterator[StoredBatch]:
        loaded.append(channel_number)
        return batches(log, channel_number, position, extent)

    monkeypatch.setattr(Log, "batches", noted)
    for _ in range(2):
        misfit = world.log.read(kept.channel_number, kept.start, kept.extent, 10, 10, 10)
        assert not misfit.slices
        assert misfit.misfit_bytes > 100_000
    assert loaded == []


def test_given_shares_of_one_batch_when_they_follow_on_each_other_then_they_are_one_slice(world: World) -> None:
    places = places_of(world, 1, [b"%d" % i for i in range(1_000)])
    world.produce([b"x"], "other")
    other = world.channel("other")
    places.append(Place(1, other.number, 0, other.visible))
    first, second = share(world.log, places, n=901)
    assert len(first.reading.slices) == len(second.reading.slices) == 1
    assert payloads_of(first.reading.slices) == [b"%d" % i for i in range(900)]
    assert first.reading.next_position == first.reading.slices[0].first_id + 900


def test_given_room_for_one_when_asked_again_and_again_then_each_channel_is_served_about_as_often(world: World) -> None:
    places = places_of(world, 8, [b"x"])
    random = Random(1)
    served = Counter(index for _ in range(4_000) for index in read_evenly(world.log, places, 1, 7 << 20, FRAME, random))
    assert len(served) == 8
    assert min(served.values()) > 400, f"of 500: {served}"
