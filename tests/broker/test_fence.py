"""Who may write, and what became of a transaction: several writers against a store that loses, delays and forgets to answer.

`World` holds the truth about each transaction that was ever sent. What a writer learns of one must be so, and stay so
until the store goes back to an earlier value and loses it; then the writer learns of that before it does anything else.
Hypothesis walks through long histories, and every short one is tried.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum, auto

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    rule,
    run_state_machine_as_test,  # pyright: ignore[reportUnknownVariableType]
)

from rocksmq.broker.fence import Attempt, CommitValue, Fence, Fenced, Met, Reverted

WRITERS_MAX = 3  # that live at a time
SHORT = 6  # events of a history, when all are tried
RANDOM = 1_000  # a takeover's number is this times how many there were: far from any other, as a random one is


class Kind(Enum):
    """What an attempt is for."""

    TAKEOVER = auto()
    TRANSACTION = auto()
    BARRIER = auto()


@dataclass(eq=False)
class Sent:
    """One attempt on its way, and what its writer was told of it."""

    writer: "Writer"
    kind: Kind
    attempt: Attempt
    again: tuple["Sent", ...] | None = None  # what it carries beside itself, from a writer that was told of a loss
    told: bool | None = None


@dataclass(eq=False)
class Writer:
    """One life of a broker: it takes over, then sends one transaction after the other."""

    fence: Fence | None = None
    waiting: Sent | None = None  # for the answer to this
    unsettled: Sent | None = None  # the transaction that it knows nothing of
    takeovers: set[CommitValue] = field(default_factory=set[CommitValue])
    believed: tuple[Sent, ...] = ()  # what it holds to be in the store, once that was told of a loss
    is_behind: bool = False  # the store has lost something, and was not told it again yet


class World:
    """Writers, the value that they compare, and all that is on its way."""

    def __init__(self) -> None:
        self.value: CommitValue | None = None
        self.owner: Writer | None = None  # whose takeover was applied last
        self.writers = [Writer()]
        self.under_way: list[Sent] = []
        self.contents: dict[CommitValue | None, tuple[Sent, ...]] = {None: ()}  # transactions, by the value then
        self.past: list[CommitValue] = []  # values of this epoch
        self.has_gone_back = False
        self.numbers: set[CommitValue] = set()
        self.takeovers = 0

    # -- what writers do ---------------------------------------------------------------

    def go_on(self, writer: Writer) -> None:
        """Its next attempt: the store is read and taken over, or it sends what its fence says."""
        if writer.waiting is not None:
            return
        if writer.fence is None:
            self._take_over(writer)
            return
        kind = Kind.BARRIER if writer.fence.is_in_doubt else Kind.TRANSACTION
        sent = self._send(writer, kind, writer.fence.begin())
        if kind is Kind.TRANSACTION:
            assert writer.unsettled is None, "one transaction in doubt at most"
            writer.unsettled = sent

    def _take_over(self, writer: Writer) -> None:
        if self.value in writer.takeovers:
            assert self.value is not None
            self._begin_at(writer, self.value)
            return
        self.takeovers += 1
        epoch = 1 if self.value is None else self.value.epoch + 1
        attempt = Attempt(self.value, CommitValue(epoch, self.takeovers * RANDOM))
        writer.takeovers.add(attempt.value)
        self._send(writer, Kind.TAKEOVER, attempt)

    def _begin_at(self, writer: Writer, value: CommitValue) -> None:
        writer.fence = Fence(value)
        writer.believed = self.contents[value]

    def _send(self, writer: Writer, kind: Kind, attempt: Attempt) -> Sent:
        assert attempt.value not in self.numbers, "a number is used once"
        self.numbers.add(attempt.value)
        again = writer.believed if writer.is_behind and kind is Kind.TRANSACTION else None
        writer.waiting = sent = Sent(writer, kind, attempt, again)
        self.under_way.append(sent)
        return sent

    def give_up(self, writer: Writer) -> None:
        """No answer came in time."""
        writer.waiting = None

    def die(self, writer: Writer) -> None:
        """Killed; what it sent is still on its way. Another life begins."""
        self.writers.remove(writer)
        writer.waiting = None
        self.begin()

    def begin(self) -> None:
        """Another writer, maybe beside one that lives: a copy of it."""
        if len(self.writers) < WRITERS_MAX:
            self.writers.append(Writer())

    # -- what the network and the store do -----------------------------------------------

    def arrive(self, sent: Sent, *, is_heard: bool = True) -> None:
        """It reaches the store, however late; the answer reaches its writer if that still waits."""
        self.under_way.remove(sent)
        met = Met(sent.attempt.expected == self.value, None if sent.attempt.expected == self.value else self.value)
        if met.is_applied:
            self._apply(sent)
        if sent.writer.waiting is sent:
            sent.writer.waiting = None
            if is_heard:
                self._tell(sent, met)

    def lose(self, sent: Sent) -> None:
        """It never reaches the store."""
        self.under_way.remove(sent)

    def go_back(self, index: int) -> None:
        """It loses what came after an earlier value of this epoch, and was acknowledged."""
        del self.past[index + 1 :]
        self.value = self.past[index]
        self.has_gone_back = True

    def _apply(self, sent: Sent) -> None:
        before, self.value = self.value, sent.attempt.value
        assert sent.told is None or self.has_gone_back, "what a writer was told of before never arrives later"
        found = self.contents[before] if sent.again is None else sent.again
        self.contents[self.value] = (*found, sent) if sent.kind is Kind.TRANSACTION else found
        self.past = [self.value] if sent.kind is Kind.TAKEOVER else [*self.past, self.value]
        if sent.kind is Kind.TAKEOVER:
            assert before is None or before.epoch < self.value.epoch
            self.owner = sent.writer
        else:
            assert self.owner is sent.writer, "nothing of a fenced writer is applied"
            assert before is not None
            assert before.epoch == self.value.epoch

    def _tell(self, sent: Sent, met: Met) -> None:
        writer = sent.writer
        if sent.kind is Kind.TAKEOVER:
            if met.is_applied:
                self._begin_at(writer, sent.attempt.value)
            return
        assert writer.fence is not None
        assert writer.unsettled is not None
        try:
            was_applied = writer.fence.answered(sent.attempt, met)
        except Fenced:
            assert self.owner is not writer, "only a takeover fences"
            self.writers.remove(writer)
            self.begin()
            return
        except Reverted as error:
            assert self.has_gone_back
            writer.fence.resume(error.found)
            writer.is_behind = True
            was_applied = False
        writer.unsettled.told = was_applied
        assert was_applied == (writer.unsettled in self.contents[self.value]), "what a writer learns is true"
        assert not writer.fence.is_in_doubt
        assert writer.fence.known == self.value
        if was_applied:
            writer.believed = (*writer.believed, writer.unsettled)
            writer.is_behind = False
        assert writer.is_behind or self.contents[self.value] == writer.believed, "no loss goes unnoticed"
        writer.unsettled = None

    # -- at the end ------------------------------------------------------------------------

    def rest(self) -> None:
        """Everything under way arrives or is lost; each writer then learns the rest, by one attempt that arrives."""
        for sent in tuple(self.under_way):
            self.arrive(sent)
        for writer in tuple(self.writers):
            for _ in range(2):  # of one that is not settled: the barrier, and its own next transaction
                if writer in self.writers and writer.fence is not None:
                    writer.waiting = None
                    self.go_on(writer)
                    self.arrive(self.under_way[-1])
            assert writer.unsettled is None or writer not in self.writers, "settled by one barrier that is answered"
            assert (self.owner is writer) == (writer in self.writers and writer.fence is not None) or writer.fence is None
            assert self.owner is not writer or writer.fence is None or self.contents[self.value] == writer.believed

    def events(self) -> Iterator[tuple[str, int]]:
        """All that may happen next, as the name of a method and an index."""
        for index, writer in enumerate(self.writers):
            if writer.waiting is None:
                yield "go_on", index
            else:
                yield "give_up", index
            yield "die", index
        for index in range(len(self.under_way)):
            yield "arrive", index
            yield "arrive_unheard", index
        for index in range(len(self.past) - 1):
            yield "go_back", index
        yield "begin", 0

    def happen(self, name: str, index: int) -> None:
        if name == "begin":
            self.begin()
        elif name == "go_back":
            self.go_back(index)
        elif name in ("go_on", "give_up", "die"):
            getattr(self, name)(self.writers[index])
        else:
            self.arrive(self.under_way[index], is_heard=name == "arrive")


class Histories(RuleBasedStateMachine):
    """Long ones."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.world.go_on(self.world.writers[0])

    @rule(pick=st.integers(0, WRITERS_MAX - 1), again=st.booleans())
    def a_writer_goes_on(self, pick: int, again: bool) -> None:
        writer = self.world.writers[pick % len(self.world.writers)]
        if again:
            self.world.give_up(writer)
        self.world.go_on(writer)

    @rule(pick=st.integers(0, 9), is_heard=st.sampled_from([True, True, False]), is_newest=st.booleans())
    def one_arrives(self, pick: int, is_heard: bool, is_newest: bool) -> None:
        if under_way := self.world.under_way:
            self.world.arrive(under_way[-1 if is_newest else pick % len(under_way)], is_heard=is_heard)

    @rule(pick=st.integers(0, 9))
    def one_is_lost(self, pick: int) -> None:
        if under_way := self.world.under_way:
            self.world.lose(under_way[pick % len(under_way)])

    @rule(pick=st.integers(0, 20))
    def a_writer_dies_or_is_copied(self, pick: int) -> None:
        if pick < len(self.world.writers):
            self.world.die(self.world.writers[pick])
        elif pick < 2 * WRITERS_MAX:
            self.world.begin()

    @rule(pick=st.integers(0, 40))
    def the_store_goes_back(self, pick: int) -> None:
        if pick < len(self.world.past) - 1:
            self.world.go_back(pick)

    def teardown(self) -> None:
        self.world.rest()


def test_given_lost_late_and_unheard_transactions_of_many_writers_when_they_learn_of_one_then_it_is_so_for_ever() -> None:
    run_state_machine_as_test(
        Histories,
        settings=settings(
            derandomize=True, deadline=None, database=None, max_examples=250, stateful_step_count=50, print_blob=False
        ),
    )


def test_given_every_short_history_when_all_comes_to_rest_then_all_that_was_learned_is_so() -> None:
    histories: list[list[tuple[str, int]]] = [[]]
    count = 0
    while histories:
        history = histories.pop()
        world = begun()
        for name, index in history:
            world.happen(name, index)
        if len(history) < SHORT:
            histories += [[*history, event] for event in world.events()]
        world.rest()
        count += 1
    assert count > 10_000, "they were tried"


def begun() -> World:
    """One writer has taken over and has sent a transaction; a second writer was begun."""
    world = World()
    world.go_on(world.writers[0])
    world.arrive(world.under_way[0])
    world.go_on(world.writers[0])
    world.begin()
    return world


# -- one by one -------------------------------------------------------------------------------

KNOWN = CommitValue(3, 70)


def test_given_an_answer_when_nothing_is_in_doubt_then_it_is_what_it_says() -> None:
    fence = Fence(KNOWN)
    first = fence.begin()
    assert first == Attempt(KNOWN, CommitValue(3, 71))
    assert fence.is_in_doubt
    assert fence.answered(first, Met(True, None))
    assert not fence.is_in_doubt
    assert fence.begin() == Attempt(CommitValue(3, 71), CommitValue(3, 72))


def test_given_no_answer_when_a_barrier_is_applied_then_the_transaction_never_will_be() -> None:
    fence = Fence(KNOWN)
    fence.begin()
    barrier = fence.begin()
    assert barrier == Attempt(KNOWN, CommitValue(3, 72)), "it compares the same and sets what is fresh"
    assert not fence.answered(barrier, Met(True, None))
    assert fence.begin() == Attempt(CommitValue(3, 72), CommitValue(3, 73))


def test_given_no_answer_when_the_barrier_finds_its_number_then_the_transaction_was_applied() -> None:
    fence = Fence(KNOWN)
    sent = fence.begin()
    assert fence.answered(fence.begin(), Met(False, sent.value))
    assert fence.begin().expected == sent.value


def test_given_barriers_without_an_answer_when_a_later_one_finds_an_earlier_one_then_the_transaction_was_not_applied() -> None:
    fence = Fence(KNOWN)
    fence.begin()
    earlier, _, later = fence.begin(), fence.begin(), fence.begin()
    assert not fence.answered(later, Met(False, earlier.value))
    assert fence.begin() == Attempt(earlier.value, CommitValue(3, 75))


@pytest.mark.parametrize("found", [None, CommitValue(4, 71), CommitValue(3, 69), CommitValue(3, 99)])
def test_given_a_value_that_it_never_set_when_found_then_the_writer_is_fenced(found: CommitValue | None) -> None:
    fence = Fence(KNOWN)
    with pytest.raises(Fenced) as fenced:
        fence.answered(fence.begin(), Met(False, found))
    assert fenced.value.found == found


@pytest.mark.parametrize("number", [70, 71, 72, 73])
def test_given_an_earlier_value_of_this_writer_when_found_then_the_store_went_back_and_it_goes_on_from_there(
    number: int,
) -> None:
    """By a transaction, a barrier that was applied or not, or the takeover; met by a transaction, or looked at."""
    fence = Fence(KNOWN)
    fence.begin()
    fence.answered(fence.begin(), Met(True, None))
    fence.answered(fence.begin(), Met(True, None))
    last = fence.begin()
    fence.answered(last, Met(True, None))
    found = CommitValue(3, number)
    with pytest.raises(Reverted, match=f"the commit value is 3 {number}"):
        fence.check(found)
    with pytest.raises(Reverted):
        fence.answered(fence.begin(), Met(False, found))
    fence.resume(found)
    assert not fence.is_in_doubt
    assert fence.begin() == Attempt(found, CommitValue(3, 76)), "what was sent before can never meet what is set now"


def test_given_a_value_when_looked_at_then_it_is_that_of_this_writer_or_not() -> None:
    fence = Fence(KNOWN)
    fence.check(KNOWN)
    for found in (None, CommitValue(2, 70), CommitValue(3, 71)):
        with pytest.raises(Fenced):
            fence.check(found)


@pytest.mark.parametrize("value", [CommitValue(0, 0), CommitValue(1, (1 << 63) + 1)])
def test_given_a_value_when_written_then_it_is_read_back(value: CommitValue) -> None:
    assert CommitValue.parse(str(value)) == value


@pytest.mark.parametrize("text", ["", "1", "1 2 3", "a b", "1  2", "1.0 2"])
def test_given_text_that_no_writer_wrote_when_parsed_then_it_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        CommitValue.parse(text)
