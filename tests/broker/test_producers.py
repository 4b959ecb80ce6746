"""The producers' table: a repeat gets its first answer, a stranger with a number is refused, forgetting leaves a mark."""

import pytest

from rocksmq.broker import keys
from rocksmq.broker.commit import Commit
from rocksmq.broker.ids import COUNTER_BITS
from rocksmq.broker.producers import IDLE_MS_MAX, WINDOW, Producers
from rocksmq.broker.records import ProducedEntry
from rocksmq.broker.store import Change, Delete, Family, Put
from rocksmq.protocol.errors import OutOfSequence

from .support import identity

CHANNEL = 7
PRESENT = 1 << 60
ME, OTHER = identity(1000, 1), identity(1000, 2)


class Table:
    """A table, its open commit, and everything that was written so far."""

    def __init__(self, mark: int = 0, **options: int) -> None:
        self.options = options
        self.producers = Producers(mark, **options)
        self.commit = Commit()
        self.stored: dict[bytes, bytes] = {}
        self.next_id = 5000

    def look_up(self, number: int, producer: bytes = ME, channel: int = CHANNEL) -> ProducedEntry | None:
        """What a repeat would get; None for the next number."""
        return self.producers.look_up(channel, producer, number, PRESENT).repeated

    def produce(self, number: int, producer: bytes = ME, channel: int = CHANNEL, count: int = 1) -> ProducedEntry:
        """The next batch."""
        verdict = self.producers.look_up(channel, producer, number, PRESENT)
        assert verdict.repeated is None
        entry = ProducedEntry(number, self.next_id, count)
        self.next_id += count
        self.producers.stored(self.commit, verdict.cell, entry)
        return entry

    def write(self) -> list[Change]:
        """Commit what is open."""
        commit, self.commit = self.commit, Commit()
        changes = [change for change in commit.seal(1) if change[1] != keys.COMMIT_NUMBER]
        for change in changes:
            if isinstance(change, Put):
                self.stored[change.key] = change.value
            elif isinstance(change, Delete):
                del self.stored[change.key]
        return changes

    def roll_back(self) -> None:
        commit, self.commit = self.commit, Commit()
        commit.roll_back()

    def restarted(self) -> "Table":
        """The same table, loaded from what was written."""
        mark = self.stored.get(keys.FORGOTTEN)
        again = Table(0 if mark is None else keys.from_u64(mark), **self.options)
        entries: dict[tuple[int, bytes], list[ProducedEntry]] = {}
        for key, value in sorted(self.stored.items()):
            if key != keys.FORGOTTEN:
                entries.setdefault(keys.producer_of(key), []).append(ProducedEntry.decode(value))
        again.producers.load(entries)
        again.stored = self.stored
        again.next_id = self.next_id
        return again


def test_given_an_unknown_producer_when_it_begins_with_its_first_number_then_it_is_accepted() -> None:
    table = Table()
    assert table.look_up(0) is None


@pytest.mark.parametrize("number", [1, 2, 16, (1 << 64) - 1])
def test_given_an_unknown_producer_when_it_begins_with_another_number_then_nothing_is_expected_of_it(number: int) -> None:
    with pytest.raises(OutOfSequence) as refused:
        Table().look_up(number)
    assert refused.value.expected_number is None
    assert refused.value.present_id == PRESENT


def test_given_batches_when_repeated_within_the_window_then_each_gets_its_first_answer() -> None:
    table = Table()
    entries = [table.produce(number, count=number + 1) for number in range(40)]
    for number in range(40 - WINDOW, 40):
        assert table.look_up(number) == entries[number]
    assert table.look_up(40) is None


@pytest.mark.parametrize("number", [0, 40 - WINDOW - 1, 41, 42, 1000])
def test_given_batches_when_a_number_is_behind_the_window_or_ahead_then_the_next_one_is_told(number: int) -> None:
    table = Table()
    for sent in range(40):
        table.produce(sent)
    with pytest.raises(OutOfSequence) as refused:
        table.look_up(number)
    assert refused.value.expected_number == 40
    assert refused.value.present_id == PRESENT


def test_given_two_producers_and_channels_when_they_number_alike_then_they_do_not_meet() -> None:
    table = Table()
    entries = {(p, c): table.produce(0, p, c) for p in (ME, OTHER) for c in (1, 2)}
    assert len({entry.first_id for entry in entries.values()}) == 4
    for (producer, channel), entry in entries.items():
        assert table.look_up(0, producer, channel) == entry


def test_given_a_refused_number_when_looked_up_then_nothing_is_changed() -> None:
    table = Table()
    with pytest.raises(OutOfSequence):
        table.look_up(5)
    assert table.look_up(0) is None
    assert table.write() == []


def test_given_batches_of_several_commits_when_written_then_each_is_written_once_in_its_slot() -> None:
    table = Table()
    table.produce(0)
    table.produce(1)
    assert [change[1] for change in table.write()] == [keys.producer_key(CHANNEL, ME, 0), keys.producer_key(CHANNEL, ME, 1)]
    table.produce(2)
    assert [change[1] for change in table.write()] == [keys.producer_key(CHANNEL, ME, 2)]
    for number in range(3, 30):
        table.produce(number)
    table.write()
    assert len(table.stored) == WINDOW


@pytest.mark.parametrize("batches", [1, 5, WINDOW, WINDOW + 1, 40])
@pytest.mark.parametrize("commits_of", [1, 7])
def test_given_what_was_written_when_loaded_then_repeats_and_the_next_number_are_as_before(
    batches: int, commits_of: int
) -> None:
    table = Table()
    entries: list[ProducedEntry] = []
    for number in range(batches):
        entries.append(table.produce(number))
        if number % commits_of == 0:
            table.write()
    table.write()
    again = table.restarted()
    for number in range(max(0, batches - WINDOW), batches):
        assert again.look_up(number) == entries[number]
    assert again.look_up(batches) is None
    with pytest.raises(OutOfSequence):
        again.look_up(batches + 1)


def test_given_a_roll_back_when_made_then_the_batch_may_come_again_with_its_number() -> None:
    table = Table()
    table.produce(0)
    table.roll_back()
    with pytest.raises(OutOfSequence):
        table.look_up(1)
    first = table.produce(0)
    table.write()
    table.produce(1)
    table.roll_back()
    assert table.look_up(0) == first
    assert table.look_up(1) is None


# -- forgetting ----------------------------------------------------------------------


def test_given_more_producers_than_are_kept_when_forgetting_then_the_longest_idle_go_and_leave_their_mark() -> None:
    table = Table(producers_max=3)
    entries = {which: table.produce(0, identity(1000, which)) for which in range(5)}
    entries[0] = table.produce(1, identity(1000, 0))
    table.write()
    table.producers.forget(table.commit, table.next_id)
    changes = table.write()
    assert {change[1] for change in changes if isinstance(change, Delete)} == {
        keys.producer_key(CHANNEL, identity(1000, which), 0) for which in (1, 2)
    }
    assert table.stored[keys.FORGOTTEN] == keys.u64(entries[2].first_id)
    for which in (1, 2):
        with pytest.raises(OutOfSequence) as refused:
            table.look_up(1, identity(1000, which))
        assert refused.value.expected_number is None
    for which in (0, 3, 4):
        assert table.look_up(entries[which].number, identity(1000, which)) == entries[which]


def test_given_a_forgotten_producer_when_it_repeats_its_first_batch_then_it_is_refused_and_never_stored_twice() -> None:
    table = Table(producers_max=1)
    table.produce(0, ME)
    last = table.produce(0, OTHER)
    table.write()
    table.producers.forget(table.commit, table.next_id)
    table.write()
    for found in (table, table.restarted()):
        with pytest.raises(OutOfSequence):
            found.look_up(0, ME)
        assert found.look_up(0, OTHER) == last
        assert found.look_up(0, identity(table.next_id, 9)) is None


def test_given_a_mark_when_a_producer_was_born_at_it_or_before_then_it_is_refused_and_behind_it_accepted() -> None:
    table = Table(mark=5000)
    for birth in (0, 4999, 5000):
        with pytest.raises(OutOfSequence):
            table.look_up(0, identity(birth))
    assert table.look_up(0, identity(5001)) is None


def test_given_a_producer_idle_for_a_day_when_forgetting_then_it_goes_and_one_idle_for_less_stays() -> None:
    table = Table()
    day = IDLE_MS_MAX << COUNTER_BITS
    table.next_id = 1 << 60
    first = table.produce(0, ME)
    second = table.produce(0, OTHER)
    table.write()
    table.producers.forget(table.commit, first.first_id + day)
    assert table.write() == []
    table.producers.forget(table.commit, second.first_id + day)
    table.write()
    with pytest.raises(OutOfSequence):
        table.look_up(1, ME)
    assert table.look_up(0, OTHER) == second
    assert table.stored[keys.FORGOTTEN] == keys.u64(first.first_id)


def test_given_a_producer_in_the_open_commit_when_forgetting_then_it_stays() -> None:
    table = Table(producers_max=1)
    entries = [table.produce(0, identity(1000, which)) for which in range(3)]
    table.producers.forget(table.commit, table.next_id)
    for which, entry in enumerate(entries):
        assert table.look_up(0, identity(1000, which)) == entry


def test_given_a_forgetting_that_is_rolled_back_then_all_are_known_in_their_order_and_the_mark_is_as_before() -> None:
    table = Table(producers_max=2)
    entries = [table.produce(0, identity(1000, which)) for which in range(5)]
    table.write()
    table.producers.forget(table.commit, table.next_id)
    table.roll_back()
    for which, entry in enumerate(entries):
        assert table.look_up(0, identity(1000, which)) == entry
    assert table.look_up(0, identity(1001, 9)) is None
    table.producers.forget(table.commit, table.next_id)
    table.write()
    assert {keys.producer_of(key)[1] for key in table.stored if key != keys.FORGOTTEN} == {identity(1000, 3), identity(1000, 4)}


def test_given_a_channel_destroyed_then_its_producers_are_unknown_and_come_back_when_that_is_rolled_back() -> None:
    table = Table()
    first = table.produce(0, ME, 1)
    other = table.produce(0, ME, 2)
    table.write()
    table.producers.drop(table.commit, {1})
    with pytest.raises(OutOfSequence):
        table.look_up(1, ME, 1)
    assert table.look_up(0, ME, 2) == other
    table.roll_back()
    assert table.look_up(0, ME, 1) == first


def test_given_a_channel_destroyed_in_the_commit_of_its_produce_then_that_producer_is_not_written() -> None:
    table = Table()
    table.produce(0, ME, 1)
    table.producers.drop(table.commit, {1})
    assert table.write() == []


def test_given_tables_loaded_then_the_longest_idle_is_still_the_first_to_go() -> None:
    table = Table(producers_max=2)
    for which in (2, 0, 1):
        table.produce(0, identity(1000, which))
    table.write()
    again = table.restarted()
    again.producers.forget(again.commit, again.next_id)
    assert [change[1] for change in again.write() if change[0] is Family.META and isinstance(change, Delete)] == [
        keys.producer_key(CHANNEL, identity(1000, 2), 0)
    ]
