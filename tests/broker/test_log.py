"""Reading by position: the cache and the store together give every message once, in order."""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rocksmq.broker.keys import batch_key
from rocksmq.broker.log import ENTRY_BYTES, EVICTED_MAX, HEAD_CHANNELS_MAX, HEADS_MAX, Log, Place, Reading, TailCache
from rocksmq.broker.records import EMPTY_EXTENT, Extent, StoredBatch
from rocksmq.broker.store import Family, Put, Store
from rocksmq.protocol.errors import StorageFailed

from .support import batch_of, payloads_of

CHANNEL = 7


class Written:
    """A log in which a test appends batches at ids that it chooses; batches are of the payloads b"<id>"."""

    def __init__(self, store: Store, cache_bytes: int = 1 << 20) -> None:
        self.store = store
        self.log = Log(store, cache_bytes)
        self.extents: dict[int, Extent] = {}
        self.ids: dict[int, list[int]] = {}

    def append(self, first_id: int, count: int, channel: int = CHANNEL, *, written: bool = True, size: int = 0) -> None:
        """One batch; with ``size`` each payload is filled up to it."""
        ids = range(first_id, first_id + count)
        batch = batch_of(*(b"%d" % number + bytes(max(0, size - len(b"%d" % number))) for number in ids))
        extent = self.extents.get(channel, EMPTY_EXTENT)
        key, stored = StoredBatch.encode(channel, first_id, extent, batch)
        self.extents[channel] = extent.appended(first_id, count, batch.size)
        self.ids.setdefault(channel, []).extend(ids)
        self.log.cache.append(channel, stored)
        if written:
            self.store.write([Put(Family.DATA, key, stored.value)])
            self.log.cache.written()

    def read(
        self, position: int, count_max: int = 1000, bytes_max: int = 1 << 30, channel: int = CHANNEL
    ) -> tuple[list[int], int]:
        """The ids that a read gives by their payloads, and the position behind them."""
        reading = self.log.read(channel, position, self.extents[channel], count_max, bytes_max)
        payloads = [int(payload.rstrip(b"\0")) for payload in payloads_of(reading.slices)]
        ids = [piece.first_id + index for piece in reading.slices for index in range(piece.stop - piece.start)]
        assert payloads == ids
        assert reading.message_count == len(ids)
        return ids, reading.next_position


@pytest.fixture(params=["cached", "stored", "half and half"])
def written(store: Store, request: pytest.FixtureRequest) -> Written:
    """Batches 100-102, 110, 120-124 between two neighbours, in the cache, in the store, or in both."""
    cache_bytes = {"cached": 1 << 20, "stored": 0, "half and half": 100 + ENTRY_BYTES}[request.param]
    made = Written(store, cache_bytes)
    made.append(1_000, 3, CHANNEL - 1)
    made.append(90, 3, CHANNEL + 1)
    for first_id, count in ((100, 3), (110, 1), (120, 5)):
        made.append(first_id, count)
    begin = made.log.cache.begin(CHANNEL)
    assert begin == {"cached": 100, "stored": None, "half and half": 120}[request.param]
    return made


EVERYTHING = [100, 101, 102, 110, 120, 121, 122, 123, 124]


def test_given_all_positions_when_read_then_it_begins_with_the_message_there_or_the_first_behind_it(written: Written) -> None:
    for position in range(127):
        expected = [number for number in EVERYTHING if number >= position]
        ids, behind = written.read(position)
        assert ids == expected, position
        assert behind == (125 if expected else position)


def test_given_a_count_when_read_step_by_step_then_every_message_comes_once(written: Written) -> None:
    for count in range(1, 11):
        position, found = 0, list[int]()
        while ids := written.read(position, count)[0]:
            assert len(ids) <= count
            found += ids
            position = ids[-1] + 1
        assert found == EVERYTHING


def test_given_a_number_of_bytes_when_read_then_it_holds_no_more_but_one_message_at_least(written: Written) -> None:
    for size in range(1, 30):
        position, found = 0, list[int]()
        while (reading := written.read(position, bytes_max=size))[0]:
            ids, position = reading
            assert len(ids) == min(max(1, size // 3), len(EVERYTHING) - len(found))
            found += ids
        assert found == EVERYTHING


def test_given_an_extent_that_ends_earlier_when_read_then_nothing_behind_it_is_seen(written: Written) -> None:
    reading = written.log.read(CHANNEL, 0, Extent(100, 110, 0, 4, 0, 12, 0), 1000, 1 << 30)
    assert (reading.message_count, reading.next_position) == (4, 111)
    behind = written.log.read(CHANNEL, 111, Extent(100, 110, 0, 4, 0, 12, 0), 1000, 1 << 30)
    assert (behind.message_count, behind.next_position) == (0, 111)


def test_given_an_extent_that_begins_later_when_read_then_nothing_before_it_is_seen(written: Written) -> None:
    reading = written.log.read(CHANNEL, 0, Extent(110, 124, 3, 9, 0, 18, 0), 1000, 1 << 30)
    assert payloads_of(reading.slices) == [b"%d" % number for number in EVERYTHING[3:]]


def test_given_an_extent_that_begins_before_the_first_batch_when_read_then_no_neighbour_is_seen(written: Written) -> None:
    reading = written.log.read(CHANNEL, 0, Extent(95, 124, 0, 9, 0, 18, 0), 1000, 1 << 30)
    assert payloads_of(reading.slices) == [b"%d" % number for number in EVERYTHING]


def test_given_all_positions_when_placed_then_it_is_the_message_there_or_behind_and_the_count_before_it(
    written: Written,
) -> None:
    for position in range(100, 127):
        before = [number for number in EVERYTHING if number < position]
        behind = [number for number in EVERYTHING if number >= position]
        place = written.log.place(CHANNEL, position, written.extents[CHANNEL])
        assert place == Place(behind[0] if behind else 125, len(before)), position


def test_given_a_channel_without_messages_when_read_then_nothing_comes(store: Store) -> None:
    log = Log(store, 1 << 20)
    reading = log.read(CHANNEL, 5, EMPTY_EXTENT, 10, 10)
    assert (list(reading.slices), reading.message_count, reading.next_position) == ([], 0, 5)
    assert log.place(CHANNEL, 5, Extent(51, 50, 9, 9, 0, 0, 0)) == Place(51, 9)


def test_given_batches_read_in_part_by_many_when_they_go_on_then_each_finds_its_place(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rocksmq.broker.log.PARTIAL_BYTES_MAX", 2_000)
    written = Written(store, 0)
    positions = range(10, 2_000, 10)
    for position in positions:
        written.append(position, 8)
    for position in positions[:-1]:
        assert written.read(position, 3) == ([position, position + 1, position + 2], position + 3)
    for position in positions[:-1]:
        assert written.read(position + 3, 6)[0] == [*range(position + 3, position + 8), position + 10]


def test_given_many_more_batches_than_the_cache_holds_when_read_anywhere_then_all_are_found(store: Store) -> None:
    written = Written(store, 20 * (ENTRY_BYTES + 100))
    for position in range(10, 10 + 3 * EVICTED_MAX * 10, 10):
        written.append(position, 2)
    begin = written.log.cache.begin(CHANNEL)
    assert begin is not None
    assert begin > 10
    for position in (0, 10, begin - 10, begin - 1, begin, begin + 1, begin + 95):
        assert written.read(position, 5)[0] == [number for number in written.ids[CHANNEL] if number >= position][:5]
    assert written.read(0, 1 << 20)[0] == written.ids[CHANNEL]


def test_given_messages_larger_than_the_limit_when_read_then_they_come_one_by_one(store: Store) -> None:
    written = Written(store)
    written.append(10, 3, size=1000)
    assert written.read(10, bytes_max=10) == ([10], 11)
    assert written.read(11, bytes_max=10) == ([11], 12)
    assert written.read(10, bytes_max=2000) == ([10, 11], 12)


def test_given_a_place_when_looked_up_again_in_its_batch_then_the_store_is_not_asked(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = Written(store, 0)
    written.append(10, 8)
    extent = written.extents[CHANNEL]
    assert written.log.place(CHANNEL, 12, extent) == Place(12, 2)
    monkeypatch.setattr(Store, "scan", None)
    assert [written.log.place(CHANNEL, position, extent).offset for position in range(10, 18)] == [*range(8)]


def test_given_a_payload_damaged_on_disk_when_only_its_place_is_asked_for_then_it_is_told_and_a_reader_is_not_served(
    store: Store,
) -> None:
    written = Written(store, 0)
    written.append(10, 8)
    extent, key = written.extents[CHANNEL], batch_key(CHANNEL, 10)
    value = store.get(Family.DATA, key)
    assert value is not None
    store.write([Put(Family.DATA, key, value[:-1] + b"?")])
    assert written.log.place(CHANNEL, 12, extent) == Place(12, 2)
    with pytest.raises(StorageFailed, match="damaged"):
        written.read(12)


# -- the cache -----------------------------------------------------------------------


def stored(first_id: int, size: int = 100) -> StoredBatch:
    return StoredBatch.encode(CHANNEL, first_id, EMPTY_EXTENT, batch_of(bytes(size)))[1]


COST = len(stored(1).value) + ENTRY_BYTES  # in the cache


def cached(cache: TailCache, channel: int = CHANNEL) -> list[int]:
    return [batch.first_id for batch in cache.batches(channel, 0)]


def test_given_a_full_cache_when_written_then_the_oldest_go_first_over_all_channels() -> None:
    cache = TailCache(bytes_max=3 * COST)
    for first_id, channel in ((1, 1), (2, 2), (3, 1), (4, 2), (5, 2)):
        cache.append(channel, stored(first_id))
        cache.written()
    assert (cached(cache, 1), cached(cache, 2)) == ([3], [4, 5])
    assert (cache.begin(1), cache.begin(2), cache.begin(3)) == (3, 4, None)


def test_given_batches_that_are_not_written_when_the_cache_is_full_then_they_stay() -> None:
    cache = TailCache(bytes_max=COST - 1)
    for first_id in range(1, 6):
        cache.append(CHANNEL, stored(first_id))
    assert cached(cache) == [1, 2, 3, 4, 5]
    cache.written()
    assert cached(cache) == []
    assert cache.begin(CHANNEL) is None


def test_given_a_roll_back_when_made_then_only_what_was_not_written_is_gone() -> None:
    cache = TailCache(bytes_max=1 << 20)
    cache.append(CHANNEL, stored(1))
    cache.written()
    cache.append(CHANNEL, stored(2))
    cache.append(CHANNEL + 1, stored(3))
    cache.append(CHANNEL, stored(4))
    cache.roll_back()
    assert (cached(cache), cached(cache, CHANNEL + 1)) == ([1], [])
    cache.append(CHANNEL, stored(5))
    cache.written()
    cache.roll_back()
    assert cached(cache) == [1, 5]


def test_given_a_channel_dropped_when_its_batches_were_rolled_back_or_evicted_then_others_are_not_touched() -> None:
    cache = TailCache(bytes_max=2 * COST)
    cache.append(1, stored(1))
    cache.append(2, stored(2))
    cache.written()
    cache.append(1, stored(3))
    cache.drop(1)
    cache.append(2, stored(4))
    cache.roll_back()
    assert (cached(cache, 1), cached(cache, 2)) == ([], [2])
    for first_id in (5, 6, 7):
        cache.append(2, stored(first_id))
        cache.written()
    assert cached(cache, 2) == [6, 7]


def test_given_a_channel_that_was_dropped_and_came_back_when_its_old_batches_age_out_then_its_new_ones_stay() -> None:
    cache = TailCache(bytes_max=3 * COST)
    cache.append(1, stored(1))
    cache.written()
    cache.drop(1)
    cache.append(1, stored(2))
    cache.append(2, stored(3))
    cache.append(2, stored(4))
    cache.written()
    assert (cached(cache, 1), cached(cache, 2)) == ([2], [3, 4])


def test_given_a_read_in_part_that_is_rolled_back_when_more_was_appended_then_it_is_never_seen(store: Store) -> None:
    written = Written(store)
    written.append(10, 2)
    before = written.extents[CHANNEL], list(written.ids[CHANNEL])
    written.append(20, 5, written=False)
    assert written.read(20, 2) == ([20, 21], 22)
    written.log.roll_back()
    written.extents[CHANNEL], written.ids[CHANNEL] = before
    written.append(30, 2)
    assert written.read(22) == ([30, 31], 32)


def test_given_a_read_in_part_of_what_is_not_durable_when_others_read_there_then_they_see_nothing(store: Store) -> None:
    written = Written(store)
    written.append(10, 2)
    durable = written.extents[CHANNEL]
    written.append(20, 5, written=False)
    assert written.read(20, 2) == ([20, 21], 22)
    assert written.log.read(CHANNEL, 22, durable, 10, 100).message_count == 0
    assert written.read(22) == ([22, 23, 24], 25)


@settings(derandomize=True, deadline=None, max_examples=60)
@given(data=st.data())
def test_given_any_batches_and_evictions_when_read_by_several_then_each_gets_everything(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory: Path = tmp_path_factory.mktemp("log")
    store = Store(directory / "db")
    written = Written(store, data.draw(st.sampled_from([0, 2 * ENTRY_BYTES, 5 * ENTRY_BYTES, 1 << 20])))
    readers = {1: 0, 2: 0}
    found: dict[int, list[int]] = {1: [], 2: []}
    next_id = 100
    try:
        for _ in range(data.draw(st.integers(1, 25))):
            if data.draw(st.booleans()) or CHANNEL not in written.extents:
                next_id += data.draw(st.integers(1, 5))
                count = data.draw(st.integers(1, 6))
                written.append(next_id, count)
                next_id += count
            else:
                reader = data.draw(st.sampled_from([1, 2]))
                count_max, bytes_max = data.draw(st.integers(1, 8)), data.draw(st.integers(1, 40))
                ids, readers[reader] = written.read(readers[reader], count_max, bytes_max)
                found[reader] += ids
        for reader, position in readers.items():
            assert found[reader] + written.read(position)[0] == written.ids[CHANNEL]
        assert all(a < b for a, b in pairwise(written.ids[CHANNEL]))
    finally:
        store.close()


# -- places of what was read ---------------------------------------------------------------


class Counted(Store):
    """Counts what is looked up."""

    scans = 0

    def scan(self, family: Family, begin: bytes, end: bytes, *, at_or_before: bool = False) -> Iterator[tuple[bytes, bytes]]:
        self.scans += 1
        return super().scan(family, begin, end, at_or_before=at_or_before)


def test_given_batches_that_were_read_when_places_in_them_are_asked_for_then_the_store_is_not(tmp_path: Path) -> None:
    store = Counted(tmp_path / "db")
    written = Written(store, cache_bytes=0)
    for channel in range(1, 11):
        for first_id in range(100, 200, 10):
            written.append(first_id, 5, channel)
    for channel in range(1, 11):
        written.read(100, channel=channel)
    scans = store.scans
    for channel in range(1, 11):
        extent = written.extents[channel]
        for index, message_id in enumerate(written.ids[channel]):
            assert written.log.place(channel, message_id, extent) == Place(message_id, index)
    assert store.scans == scans
    assert written.log.place(3, 105, written.extents[3]) == Place(110, 5), "between two batches"
    store.close()


def test_given_a_batch_that_was_read_and_has_gone_from_the_extent_when_a_place_in_it_is_asked_for_then_it_is_behind_it(
    store: Store,
) -> None:
    written = Written(store)
    written.append(100, 5)
    written.append(110, 5)
    written.read(100)
    trimmed = written.extents[CHANNEL]._replace(begin_id=110, begin_offset=5)
    assert written.log.place(CHANNEL, 102, trimmed) == Place(110, 5)
    short = Extent(100, 104, 0, 5, 0, 0, 0)
    assert written.log.place(CHANNEL, 112, short) == Place(105, 5)


def test_given_a_batch_that_was_read_and_rolled_back_when_another_lies_there_then_places_are_of_that(store: Store) -> None:
    written = Written(store)
    written.append(100, 5)
    before = written.extents[CHANNEL]
    written.append(110, 5, written=False)
    written.read(100)
    written.log.roll_back()
    written.extents[CHANNEL] = before
    written.append(108, 4)
    assert written.log.place(CHANNEL, 110, written.extents[CHANNEL]) == Place(110, 7)


def test_given_many_channels_and_batches_when_they_are_read_then_what_is_remembered_of_them_is_bounded(store: Store) -> None:
    written = Written(store)
    for channel in range(1, HEAD_CHANNELS_MAX + 100):
        written.append(100, 1, channel, written=False)
        written.read(100, channel=channel)
    for first_id in range(200, 300):
        written.append(first_id, 1, 1, written=False)
    written.read(100, channel=1)
    heads = written.log._heads  # pyright: ignore[reportPrivateUsage]
    assert len(heads) == HEAD_CHANNELS_MAX
    assert len(heads[1]) == HEADS_MAX


def test_given_a_first_message_when_it_is_larger_than_it_may_be_then_nothing_is_read(store: Store) -> None:
    written = Written(store)
    written.append(100, 3, size=50)
    extent = written.extents[CHANNEL]
    found = written.log.read(CHANNEL, 100, extent, 9, 10, 49)
    assert found._replace(misfit_bytes=0) == Reading([], 0, 100, 0)
    assert found.misfit_bytes > 150, "of the batch"
    one = written.log.read(CHANNEL, 100, extent, 9, 10, 50)
    assert (one.message_count, one.next_position, one.size) == (1, 101, 50)
    assert written.log.read(CHANNEL, 100, extent, 9, 10).size == 50, "as large as it is"
