"""Keys: byte order is number order, and spans hold what they name and nothing else."""

from hypothesis import given, settings
from hypothesis import strategies as st

from rocksmq.broker import keys

numbers = st.integers(0, keys.ID_MAX - 1)
pairs = st.tuples(numbers, numbers)
SETTINGS = settings(derandomize=True, deadline=None)


@SETTINGS
@given(st.lists(pairs))
def test_given_batches_when_their_keys_are_sorted_then_they_are_in_order_of_channel_and_id(
    found: list[tuple[int, int]],
) -> None:
    assert sorted(keys.batch_key(*pair) for pair in found) == [keys.batch_key(*pair) for pair in sorted(found)]


@SETTINGS
@given(numbers)
def test_given_a_number_when_written_then_it_reads_back(number: int) -> None:
    assert keys.from_u64(keys.u64(number)) == number
    assert keys.first_id_of(keys.batch_key(7, number)) == number


@SETTINGS
@given(numbers, pairs)
def test_given_a_channels_span_when_a_key_lies_in_it_then_it_is_that_channels(number: int, pair: tuple[int, int]) -> None:
    begin, end = keys.channel_span(number)
    for channel_number in (pair[0], number, max(0, number - 1), number + 1):
        assert (begin <= keys.batch_key(channel_number, pair[1]) < end) == (channel_number == number)


@SETTINGS
@given(numbers, st.binary(min_size=16, max_size=16), st.integers(0, 15))
def test_given_a_producers_key_when_read_then_it_names_channel_and_producer_and_lies_in_their_span(
    number: int, producer: bytes, slot: int
) -> None:
    key = keys.producer_key(number, producer, slot)
    assert keys.producer_of(key) == (number, producer)
    begin, end = keys.producer_span(number)
    assert begin <= key < end
    assert not begin <= keys.producer_key(number + 1, producer, slot) < end


@SETTINGS
@given(numbers, st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}", fullmatch=True))
def test_given_the_key_of_a_producers_name_when_read_then_it_names_channel_and_name_and_lies_in_their_span(
    number: int, name: str
) -> None:
    key = keys.name_key(number, name)
    assert keys.name_of(key) == (number, name)
    begin, end = keys.name_span(number)
    assert begin <= key < end
    assert not begin <= keys.name_key(number + 1, name) < end


def test_given_a_groups_key_when_read_then_it_names_group_channel_and_leaf() -> None:
    key = keys.group_key("billing", "orders", "current_id")
    assert key == b"g/billing/orders/current_id"
    assert keys.group_of(key) == ("billing", "orders", "current_id")


def test_given_the_kinds_of_keys_when_compared_then_no_prefix_holds_another_kinds_key() -> None:
    samples = {
        keys.SETTINGS: keys.settings_key(keys.ID_MAX - 1),
        keys.EXTENT: keys.extent_key(keys.ID_MAX - 1),
        keys.PRODUCER: keys.producer_key(keys.ID_MAX - 1, b"\xff" * 16, 15),
        keys.NAME: keys.name_key(keys.ID_MAX - 1, "z" * 200),
        keys.GROUP: keys.group_key("z", "z", "state"),
        b"!": keys.COMMIT_NUMBER,
    }
    for prefix in samples:
        inside = [key for key in (*samples.values(), keys.IDS, keys.FORGOTTEN) if prefix <= key < keys.prefix_end(prefix)]
        assert all(key.startswith(prefix) for key in inside)
        assert samples[prefix] in inside
    assert len({keys.COMMIT_NUMBER, keys.IDS, keys.FORGOTTEN}) == 3
