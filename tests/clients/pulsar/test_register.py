"""The register of a subscription: whoever reads the log, however much of it is left, finds the same; and what is fenced."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from rocksmq.clients import Conflict
from rocksmq.clients.pulsar.places import Place
from rocksmq.clients.pulsar.register import (
    Entry,
    Register,
    Standing,
    State,
    committed,
    sought,
    subscribed,
    taken_over,
    unsubscribed,
)
from rocksmq.protocol.errors import GroupNotFound, ProtocolError, UnsupportedVersion

A = Standing(None, 0, "first")
HELD = {"a": "first", "b": "first"}


class Log:
    """A topic: what has arrived, from ``begin`` on; `opened` reads it as `Positions.open` does."""

    def __init__(self) -> None:
        self.begin = 0
        self.entries: list[Entry] = []

    def append(self, entry: Entry) -> None:
        self.entries.append(entry)

    def read(self, register: Register, start: int, stop: int) -> int:
        for index in range(max(self.begin, start), stop):
            register.read(Place(0, index), self.entries[index])
        return stop

    def opened(self) -> Register:
        register = Register()
        if self.entries:
            follows = self.entries[-1].follows
            self.read(register, 0 if follows is None else follows.entry, len(self.entries))
        register.settle()
        return register


class Writer:
    """One that appends to the log, as far as it has read that."""

    def __init__(self, register: Register, read_to: int) -> None:
        self.register = register
        self.read_to = read_to


class RegisterMachine(RuleBasedStateMachine):
    """Several writers add one to a counter, each swap at most once; what they send may be late, lost, or there twice."""

    writers = Bundle("writers")
    sent = Bundle("sent")

    def __init__(self) -> None:
        super().__init__()
        self.log = Log()
        self.count = 0

    @rule(target=writers)
    def open(self) -> Writer:
        return Writer(self.log.opened(), len(self.log.entries))

    @rule(writer=writers, most=st.integers(0, 5))
    def read(self, writer: Writer, most: int) -> None:
        writer.read_to = self.log.read(writer.register, writer.read_to, min(writer.read_to + most, len(self.log.entries)))

    @rule(target=sent, writer=writers)
    def send(self, writer: Writer) -> Entry:
        self.count += 1
        state = writer.register.state
        added = state.get("a", A)
        place = Place(0, 0 if added.place is None else added.place.entry + 1)
        return writer.register.following({**state, "a": added._replace(place=place)}, f"id-{self.count}")

    @rule(entry=sent)
    def arrive(self, entry: Entry) -> None:
        """It may do so again: without deduplication a lost acknowledgement doubles it."""
        self.log.append(entry)

    @rule(entry=consumes(sent))
    def lose(self, entry: Entry) -> None:
        pass

    @rule(data=st.data())
    def trim(self, data: st.DataObject) -> None:
        """Retention removes at the most what lies before the last two entries that count."""
        entry = self.log.opened().entry
        if entry is not None and entry.follows is not None:
            self.log.begin = data.draw(st.integers(self.log.begin, max(self.log.begin, entry.follows.entry)))

    @invariant()
    def whoever_reads_all_finds_the_same(self) -> None:
        whole = Register()
        whole.settle()
        counted: list[Entry] = []
        for index, entry in enumerate(self.log.entries):
            whole.read(Place(0, index), entry)
            if whole.place == Place(0, index):
                counted.append(entry)
        assert [entry.number for entry in counted] == list(range(1, len(counted) + 1))
        # Each swap that counts is upon the one before: none is lost.
        assert [entry.state["a"].place for entry in counted] == [Place(0, number) for number in range(len(counted))]
        assert self.log.opened().entry == whole.entry


TestRegister = RegisterMachine.TestCase
TestRegister.settings = settings(max_examples=300, stateful_step_count=50, deadline=None)


@given(
    st.dictionaries(
        st.text(max_size=5),
        st.builds(
            Standing,
            st.none() | st.builds(Place, st.integers(0, 9), st.integers(0, 9), st.integers(-1, 9)),
            st.integers(0, (1 << 64) - 1),
            st.text(max_size=5),
            st.text(max_size=5),
        ),
        max_size=3,
    )
)
def test_given_an_entry_when_written_and_read_then_it_is_the_same(state: State) -> None:
    for follows in (None, Place(1, 2)):
        entry = Entry(7, "id", follows, state)
        assert Entry.decode(entry.encode()) == entry


@pytest.mark.parametrize("text", [b"", b"{}", b"null", b"[1]", b"\xff", b'[1,null,"",null,{}]', b'[1,1,"",null,{"a":[]}]'])
def test_given_what_is_no_entry_when_read_then_it_is_told(text: bytes) -> None:
    with pytest.raises(ProtocolError):
        Entry.decode(text)


def test_given_an_entry_of_a_newer_version_when_read_then_it_is_not_passed_over() -> None:
    with pytest.raises(UnsupportedVersion):
        Entry.decode(b'[2,1,"",null,{},0]')


def test_given_a_stream_of_a_topic_that_was_removed_when_it_appends_to_the_new_one_then_that_is_void() -> None:
    old, new = Register(), Register()
    for register in (old, new):
        register.settle()
    old.read(Place(1, 5), old.following({"a": A}, "old"))
    entry = new.following({"b": A}, "new")
    new.read(Place(2, 0), entry)
    new.read(Place(2, 1), old.following({"a": A}, "late"))

    assert new.entry == entry
    opened = Register()
    opened.read(Place(2, 0), entry)
    opened.read(Place(2, 1), old.following({"a": A}, "late"))
    opened.settle()
    assert opened.entry == entry


def test_given_a_subscription_when_made_again_then_it_stays_where_it_is() -> None:
    state: State = {"a": A._replace(place=Place(1, 1))}
    assert subscribed(state, {"a": A, "b": A}) == {**state, "b": A}


def test_given_a_taken_over_channel_when_the_former_moves_it_then_it_is_refused_and_other_channels_are_not() -> None:
    state = taken_over({"a": A, "b": A}, ["a"], "second")

    for names in (["a"], ["b", "a"]):
        wanted = {name: (Place(1, 1), 5) for name in names}
        with pytest.raises(Conflict):
            committed(state, wanted, HELD)
        with pytest.raises(Conflict):
            sought(state, wanted, HELD, "seek", "third")
        with pytest.raises(Conflict):
            unsubscribed(state, names, HELD)
    assert committed(state, {"b": (Place(1, 1), 5)}, HELD)["b"] == Standing(Place(1, 1), 5, "first")


def test_given_a_commit_when_it_leads_back_then_that_channel_stays_and_the_others_move() -> None:
    state: State = {"a": A._replace(place=Place(5, 5), timestamp_filter=9), "b": A}

    found = committed(state, {"a": (Place(5, 4), 1), "b": (Place(1, 1), 2)}, HELD)

    assert found == {"a": state["a"], "b": Standing(Place(1, 1), 2, "first")}
    assert committed(state, {"a": (None, 0), "b": (None, 0)}, HELD) == state


def test_given_a_seek_when_repeated_under_its_id_then_nothing_moves() -> None:
    done = sought({"a": A}, {"a": (Place(1, 1), 5)}, HELD, "seek", "second")
    further = committed(done, {"a": (Place(2, 2), 6)}, {"a": "second"})

    assert sought(further, {"a": (Place(1, 1), 5)}, HELD, "seek", "third") == further
    with pytest.raises(Conflict):
        sought(taken_over(further, ["a"], "fourth"), {"a": (Place(1, 1), 5)}, HELD, "seek", "third")


def test_given_channels_that_are_gone_when_used_then_it_is_told_but_for_unsubscribing() -> None:
    state: State = {"b": A}
    with pytest.raises(GroupNotFound):
        committed(state, {"a": (None, 0)}, HELD)
    with pytest.raises(GroupNotFound):
        taken_over(state, ["a"], "second")
    assert unsubscribed(state, ["a", "b"], HELD) == {}
