"""Records in the store: what was written reads back, and damage is found."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rocksmq.broker.keys import batch_key
from rocksmq.broker.records import (
    EMPTY_EXTENT,
    ChannelSettings,
    ConsumerEntry,
    Extent,
    GroupState,
    LastSeek,
    ProducedEntry,
    ProducerName,
    StoredBatch,
)
from rocksmq.protocol.batch import RecordBatch
from rocksmq.protocol.cbor import decode_value, encode_value
from rocksmq.protocol.errors import StorageFailed
from rocksmq.protocol.messages import OutgoingMessage, pack_messages

from .support import batch_of

PLAIN = batch_of(b"one", b"", b"three")
BEFORE = EMPTY_EXTENT.appended(10, 42, 1 << 40)
WITH_HEADERS = pack_messages([OutgoingMessage(b"a", {"k": b"v"}), b"bb", OutgoingMessage(b"", {"x": b"", "y": b"12"})])
U64 = st.integers(0, (1 << 64) - 1)


def columns(batch: RecordBatch) -> list[bytes | None]:
    """The columns as bytes, to compare."""
    return [None if column is None else bytes(column) for column in batch[1:]]


@pytest.mark.parametrize("batch", [PLAIN, WITH_HEADERS], ids=["plain", "headers"])
def test_given_a_batch_when_stored_and_read_then_everything_is_as_it_was(batch: RecordBatch) -> None:
    key, stored = StoredBatch.encode(7, 1000, BEFORE, batch)
    assert key == batch_key(7, 1000)
    for found in (stored, StoredBatch.decode(key, stored.value)):
        assert (found.first_id, found.end_id, found.base_offset, found.base_bytes, found.count) == (1000, 1002, 42, 1 << 40, 3)
        assert columns(found.columns) == columns(batch)


@pytest.mark.parametrize("source", [PLAIN, WITH_HEADERS], ids=["plain", "headers"])
def test_given_a_stored_batch_when_any_byte_is_damaged_then_it_is_refused(source: RecordBatch) -> None:
    key, stored = StoredBatch.encode(7, 1000, BEFORE, source)
    for index in range(len(stored.value)):
        damaged = bytearray(stored.value)
        damaged[index] ^= 1
        with pytest.raises(StorageFailed, match=key.hex()):
            StoredBatch.decode(key, bytes(damaged))


@pytest.mark.parametrize("size", [0, 1, 31, 32, 40])
def test_given_a_stored_batch_when_cut_short_then_it_is_refused(size: int) -> None:
    key, stored = StoredBatch.encode(7, 1000, BEFORE, PLAIN)
    with pytest.raises(StorageFailed):
        StoredBatch.decode(key, stored.value[:size])


def test_given_a_stored_batch_when_it_lies_under_another_key_then_it_is_refused() -> None:
    key, stored = StoredBatch.encode(7, 1000, BEFORE, PLAIN)
    assert StoredBatch.decode(key, stored.value).first_id == 1000
    for other in (batch_key(7, 1001), batch_key(8, 1000)):
        with pytest.raises(StorageFailed, match="damaged"):
            StoredBatch.decode(other, stored.value)


def test_given_a_newer_version_when_read_then_it_is_refused_as_such() -> None:
    key, stored = StoredBatch.encode(7, 1000, BEFORE, PLAIN)
    with pytest.raises(StorageFailed, match="version"):
        StoredBatch.decode(key, b"\x02" + stored.value[1:])


@pytest.mark.parametrize("source", [PLAIN, WITH_HEADERS], ids=["plain", "headers"])
def test_given_a_stored_batch_when_cut_anywhere_then_the_part_is_the_same_as_packing_it(source: RecordBatch) -> None:
    _, stored = StoredBatch.encode(7, 1000, BEFORE, source)
    payloads = [b"a", b"bb", b""] if source is WITH_HEADERS else [b"one", b"", b"three"]
    for start in range(4):
        for stop in range(start, 4):
            part = stored.slice(start, stop)
            assert part.message_count == stop - start
            assert bytes(part.payloads) == b"".join(payloads[start:stop])
            assert bytes(part.lengths) == bytes(batch_of(*payloads[start:stop]).lengths)
            if source is WITH_HEADERS:
                assert part.headers is not None
                assert part.header_lengths is not None
                assert len(part.header_lengths) == 4 * (stop - start)
                assert sum(memoryview(bytes(part.header_lengths)).cast("I")) == len(part.headers)
            else:
                assert part.headers is part.header_lengths is None


def test_given_messages_when_their_sizes_are_asked_then_payloads_and_headers_count() -> None:
    _, plain = StoredBatch.encode(7, 1, EMPTY_EXTENT, batch_of(b"12", b"345", b"6"))
    assert plain.sizes(0, 3) == [2, 3, 1]
    assert plain.sizes(1, 2) == [3]
    assert plain.size == 6
    headers = b"\xa1aka1"
    _, headed = StoredBatch.encode(7, 1, EMPTY_EXTENT, pack_messages([OutgoingMessage(b"1", {"k": b"1"}), b"2", b"3"]))
    assert headed.sizes(0, 3) == [1 + len(headers), 1, 1]
    assert headed.size == 3 + len(headers)


def test_given_an_empty_extent_when_batches_are_appended_then_it_reaches_from_the_first_to_the_last() -> None:
    one = EMPTY_EXTENT.appended(10, 3, 100)
    assert one == Extent(10, 12, 0, 3, 0, 100, 0)
    assert one.appended(50, 1, 5) == Extent(10, 50, 0, 4, 0, 105, 0)


def test_given_an_extent_emptied_when_appended_then_it_begins_anew_and_counts_on() -> None:
    assert Extent(13, 12, 3, 3, 0, 0, 0).appended(50, 2, 7) == Extent(50, 51, 3, 5, 0, 7, 0)


def test_given_an_id_that_does_not_rise_when_appended_then_it_is_caught() -> None:
    with pytest.raises(AssertionError):
        Extent(10, 12, 0, 3, 0, 100, 0).appended(12, 1, 1)


@settings(derandomize=True, deadline=None)
@given(st.tuples(U64, U64, U64, U64, U64, U64, U64))
def test_given_an_extent_when_stored_then_it_reads_back(fields: tuple[int, int, int, int, int, int, int]) -> None:
    assert Extent.decode(Extent(*fields).encode()) == Extent(*fields)


@pytest.mark.parametrize(
    "settings_of",
    [
        ChannelSettings("orders", b"r" * 16, 1_700_000_000_000, None, None, None),
        ChannelSettings("orders", b"r" * 16, 0, "interval:5", {"max_age_ms": 5}, ["role", "address", "text"]),
    ],
)
def test_given_settings_when_stored_then_they_read_back(settings_of: ChannelSettings) -> None:
    assert ChannelSettings.decode(settings_of.encode()) == settings_of


@pytest.mark.parametrize("last_seek", [None, LastSeek(b"s" * 16, 5, 4, 1, 6)])
@pytest.mark.parametrize(
    "consumers",
    [
        {},
        {
            b"c" * 16: ConsumerEntry(1, 2, 3, 1, 4, 5),
            b"d" * 16: ConsumerEntry(0, 9, 9, 1, 4, 5, is_released=True, gap_begin=3, gap_count=2),
        },
    ],
)
def test_given_a_groups_state_when_stored_then_it_reads_back(
    last_seek: LastSeek | None, consumers: dict[bytes, ConsumerEntry]
) -> None:
    state = GroupState(1, 2, b"r" * 16, (1 << 64) - 1, 3, 4, b"meta\x00", last_seek, consumers, 7)
    found = GroupState.decode(state.encode())
    assert found == state
    assert all(isinstance(entry, ConsumerEntry) for entry in found.consumers.values())
    assert last_seek is None or isinstance(found.last_seek, LastSeek)


@settings(derandomize=True, deadline=None)
@given(st.tuples(U64, U64, st.integers(0, (1 << 32) - 1)))
def test_given_a_produced_entry_when_stored_then_it_reads_back(fields: tuple[int, int, int]) -> None:
    assert ProducedEntry.decode(ProducedEntry(*fields).encode()) == ProducedEntry(*fields)


@settings(derandomize=True, deadline=None)
@given(st.binary(min_size=16, max_size=16), st.none() | U64 | st.binary(max_size=32), U64)
def test_given_a_producers_name_when_stored_then_it_reads_back(
    producer: bytes, last: int | bytes | None, last_use: int
) -> None:
    name = ProducerName(producer, last, last_use)
    found = ProducerName.decode(name.encode())
    assert found == name
    assert type(found.last_sequence) is type(last)


@pytest.mark.parametrize("damaged", [b"", b"\xff", b"\x80", b"\x81\x01", b"\x83\x01\x41x\xf6", b"\x82\x02\x01"])
def test_given_a_producers_name_when_damaged_then_it_is_refused(damaged: bytes) -> None:
    with pytest.raises(StorageFailed, match="producer name"):
        ProducerName.decode(damaged)


def test_given_small_records_of_a_newer_version_when_read_then_they_are_refused() -> None:
    channel = ChannelSettings("orders", b"r" * 16, 0, None, None, None)
    group = GroupState(1, 2, b"r" * 16, 1, 3, 4, b"", None, {}, 7)
    for record in (channel, group, ProducerName(b"p" * 16, 5, 6)):
        newer = encode_value([2, *decode_value(record.encode())[1:]])
        with pytest.raises(StorageFailed, match="version 2"):
            type(record).decode(newer)
    with pytest.raises(StorageFailed, match="version 2"):
        Extent.decode(b"\x02" + EMPTY_EXTENT.encode()[1:])
