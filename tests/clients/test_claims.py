"""Consuming under one id, over a link that says what the test wants (contract §4, SPEC §7.4)."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import pytest

from rocksmq.clients.claims import Claims, Unread, release_of
from rocksmq.clients.deadline import Deadline
from rocksmq.clients.link import Link
from rocksmq.protocol.errors import (
    ChannelNotFound,
    ConnectionFailed,
    GroupNotFound,
    LimitExceeded,
    MetaUnavailable,
    OutOfSequence,
    Overloaded,
    RocksMQError,
    ShuttingDown,
    Timeout,
)
from rocksmq.protocol.identity import Identity, birth_of
from rocksmq.protocol.operations import Consume, Empty, ReleaseConsumer
from tests.clients.support import NOTHING, Clock, messages

SOMETHING = messages([b"a", b"b"])
LOST = ConnectionFailed("lost")
PRESENT_ID = 9


class Unsent(NamedTuple):
    """In a script: the request could not be sent."""

    error: BaseException


class ScriptedLink:
    """Ends each transmission as the script has it. Pausing takes a second, or what the broker asked for if that is more."""

    def __init__(self, clock: Clock, script: Sequence[Any]) -> None:
        self.present_id = 1
        self.is_closed = False
        self.requests: list[Any] = []
        self._clock = clock
        self._script = list(script)

    def connected(self, deadline: Deadline, is_stopped: Callable[[], bool] | None) -> None:
        """There is always a connection; it may be lost before the request is sent."""

    def begin(self, request: Any, deadline: Deadline, is_stopped: Callable[[], bool] | None) -> "ScriptedLink":
        if isinstance(self._script[0], Unsent):
            raise self._script.pop(0).error
        self.requests.append(request)
        return self

    def reply(self, deadline: Deadline, is_stopped: Callable[[], bool] | None = None) -> Any:
        answer = self._script.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def call(self, request: Any, deadline: Deadline) -> Any:
        return self.begin(request, deadline, None).reply(deadline)

    def told(self, present_id: int | None) -> None:
        self.present_id = max(self.present_id, present_id or 0)

    def pause(self, delay: float, deadline: Deadline, retry_after: float | None) -> float:
        self._clock.now += max(1, retry_after or 0)
        return delay


class Bench:
    """Claims over a script, with 5 seconds for each call."""

    def __init__(self, clock: Clock, script: Sequence[Any]) -> None:
        self.consumer = Identity.new(1)
        self.link = ScriptedLink(clock, script)
        self.claims = Claims(cast(Link, self.link), "orders", "billing", self.consumer)

    def next(self, is_stopped: Callable[[], bool] | None = None) -> list[bytes]:
        return list(self.claims.next(10, 1_000, Deadline(0), Deadline(5), is_stopped).payloads)

    @property
    def sent(self) -> list[tuple[bytes, int]]:
        """Id and number of each transmission."""
        assert all(isinstance(request, Consume) for request in self.link.requests)
        return [(request.consumer, request.number) for request in self.link.requests]

    @property
    def numbers(self) -> list[int]:
        return [number for _, number in self.sent]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Bench]:
    """Claims over the script given, on a clock of the test's."""
    clock = Clock()
    monkeypatch.setattr("rocksmq.clients.deadline.time", clock)
    return lambda *script: Bench(clock, script)


def out_of_sequence(expected_number: int | None) -> OutOfSequence:
    return OutOfSequence("not that one", expected_number=expected_number, present_id=PRESENT_ID)


def test_given_messages_when_claimed_then_the_request_says_where_and_how_many(bench: Callable[..., Bench]) -> None:
    found = bench(SOMETHING)
    assert found.next() == [b"a", b"b"]
    assert found.link.requests == [Consume("orders", "billing", found.consumer.id, 0, 10, 1_000, 0)]


def test_given_messages_that_were_not_returned_when_claimed_then_the_number_is_repeated_until_they_are(
    bench: Callable[..., Bench],
) -> None:
    found = bench(SOMETHING, SOMETHING, SOMETHING)
    found.next()
    assert found.claims.is_unresolved
    found.next()
    found.claims.returned()
    assert not found.claims.is_unresolved
    found.next()
    assert found.numbers == [0, 0, 1]


def test_given_an_empty_reply_then_no_number_is_spent_and_nothing_is_unresolved(bench: Callable[..., Bench]) -> None:
    found = bench(NOTHING, SOMETHING)
    assert found.next() == []
    assert not found.claims.is_unresolved
    found.next()
    assert found.numbers == [0, 0]


@pytest.mark.parametrize("error", [Overloaded("full"), MetaUnavailable("later"), ShuttingDown("stopping"), LOST])
def test_given_an_error_that_passes_then_the_same_request_is_sent_again(
    error: RocksMQError, bench: Callable[..., Bench]
) -> None:
    found = bench(error, error, SOMETHING)
    assert found.next() == [b"a", b"b"]
    assert len(set(found.link.requests)) == 1
    assert found.numbers == [0, 0, 0]


@pytest.mark.parametrize("error", [GroupNotFound("no such group"), LimitExceeded("too many")])
def test_given_an_error_that_stays_then_it_is_raised_and_the_number_is_resolved(
    error: RocksMQError, bench: Callable[..., Bench]
) -> None:
    found = bench(error)
    with pytest.raises(type(error)):
        found.next()
    assert not found.claims.is_unresolved


@pytest.mark.parametrize("error", [KeyboardInterrupt(), Timeout("late")])
def test_given_a_claim_that_ended_in_an_exception_when_the_next_is_made_then_it_repeats_the_number(
    error: BaseException, bench: Callable[..., Bench]
) -> None:
    found = bench(error, SOMETHING)
    with pytest.raises(type(error)):
        found.next()
    assert found.claims.is_unresolved
    assert found.next() == [b"a", b"b"]
    assert found.numbers == [0, 0]


def test_given_an_interrupt_while_it_is_sent_then_the_number_counts_as_unresolved(bench: Callable[..., Bench]) -> None:
    found = bench(Unsent(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        found.next()
    assert found.claims.is_unresolved


def test_given_no_connection_when_nothing_could_be_sent_then_the_number_is_not_unresolved(bench: Callable[..., Bench]) -> None:
    found = bench(Unsent(LOST), Unsent(Timeout("late")))
    with pytest.raises(ConnectionFailed):
        found.next()
    assert not found.claims.is_unresolved
    assert found.numbers == []


# -- an id that the broker does not know -----------------------------------------------


@pytest.mark.parametrize("expected_number", [None, 0])
def test_given_an_unknown_id_and_nothing_unresolved_then_a_new_one_is_used_unseen(
    expected_number: int | None, bench: Callable[..., Bench]
) -> None:
    found = bench(SOMETHING, out_of_sequence(expected_number), SOMETHING)
    found.next()
    found.claims.returned()
    assert found.next() == [b"a", b"b"]
    first, second, third = found.sent
    assert (first[1], second[1], third[1]) == (0, 1, 0)
    assert first[0] == second[0] != third[0]
    assert birth_of(third[0]) == PRESENT_ID


def test_given_a_lost_claim_below_the_expected_number_then_nothing_was_claimed_and_a_new_id_is_used_unseen(
    bench: Callable[..., Bench],
) -> None:
    found = bench(LOST, out_of_sequence(0), SOMETHING)
    assert found.next() == [b"a", b"b"]
    assert len({consumer for consumer, _ in found.sent}) == 2


@pytest.mark.parametrize("before", [LOST, SOMETHING, ShuttingDown("stopping")])
@pytest.mark.parametrize("expected_number", [None, 5])
def test_given_a_claim_that_may_have_been_made_when_its_id_is_unknown_then_that_is_raised_once_and_a_new_id_is_used(
    before: Any, expected_number: int | None, bench: Callable[..., Bench]
) -> None:
    unresolved = [LOST, before] if isinstance(before, ShuttingDown) else [before]
    found = bench(*unresolved, out_of_sequence(expected_number), SOMETHING)
    if before is SOMETHING:
        found.next()  # and not returned
    with pytest.raises(OutOfSequence):
        found.next()
    assert not found.claims.is_unresolved
    assert found.next() == [b"a", b"b"]
    assert found.sent[-1][0] != found.sent[0][0]
    assert found.numbers[-1] == 0


def test_given_a_refusal_when_its_id_is_unknown_later_then_nothing_is_said_to_be_lost(bench: Callable[..., Bench]) -> None:
    found = bench(SOMETHING, GroupNotFound("no such group"), out_of_sequence(None), SOMETHING)
    found.next()
    found.claims.returned()
    with pytest.raises(GroupNotFound):
        found.next()
    assert found.next() == [b"a", b"b"]


# -- the deadline and the end ------------------------------------------------------------


def test_given_refusals_until_the_deadline_then_the_last_one_is_raised(bench: Callable[..., Bench]) -> None:
    found = bench(Overloaded("full"), MetaUnavailable("later", retry_after=9))
    with pytest.raises(MetaUnavailable, match="later"):
        found.next()
    assert found.numbers == [0, 0]


def test_given_a_refusal_and_then_no_answer_until_the_deadline_then_the_refusal_is_raised(bench: Callable[..., Bench]) -> None:
    found = bench(Overloaded("full"), Timeout("late"))
    with pytest.raises(Overloaded):
        found.next()


def test_given_no_answer_at_all_then_timeout_is_raised(bench: Callable[..., Bench]) -> None:
    found = bench(Timeout("late"))
    with pytest.raises(Timeout):
        found.next()


def test_given_somebody_who_is_told_to_stop_then_an_error_that_passes_is_raised(bench: Callable[..., Bench]) -> None:
    found = bench(LOST)
    with pytest.raises(ConnectionFailed):
        found.next(lambda: True)


def test_given_a_link_that_is_closed_then_an_error_that_passes_is_raised(bench: Callable[..., Bench]) -> None:
    found = bench(LOST)
    found.link.is_closed = True
    with pytest.raises(ConnectionFailed):
        found.next()


# -- releasing ---------------------------------------------------------------------------


def test_given_an_id_that_the_broker_never_met_then_there_is_nothing_to_release(bench: Callable[..., Bench]) -> None:
    found = bench()
    found.claims.release(None, Deadline(5))
    assert found.link.requests == []
    assert release_of("orders", "billing", found.consumer) is None


def test_given_messages_that_were_all_handed_out_when_released_then_nothing_of_them_is_given_back(
    bench: Callable[..., Bench],
) -> None:
    found = bench(SOMETHING, Empty())
    found.next()
    found.claims.returned()
    found.claims.release(None, Deadline(5))
    # Of the number that comes next nothing was claimed.
    assert found.link.requests[-1] == ReleaseConsumer("orders", "billing", found.consumer.id, 1, 0, 0)


def test_given_messages_that_were_not_returned_when_released_then_all_of_them_are_given_back(
    bench: Callable[..., Bench],
) -> None:
    found = bench(SOMETHING, Empty())
    found.next()
    found.claims.release(None, Deadline(5))
    assert found.link.requests[-1] == ReleaseConsumer("orders", "billing", found.consumer.id, 0, 0, 0)


def test_given_messages_of_which_some_are_unread_when_released_then_it_says_from_which_on(bench: Callable[..., Bench]) -> None:
    found = bench(SOMETHING, Empty())
    found.next()
    found.claims.returned()
    found.claims.release(Unread(17, 3), Deadline(5))
    assert found.link.requests[-1] == ReleaseConsumer("orders", "billing", found.consumer.id, 0, 17, 3)


@pytest.mark.parametrize("error", [ChannelNotFound("gone"), GroupNotFound("gone")])
def test_given_a_group_that_is_gone_when_released_then_that_is_no_error(
    error: RocksMQError, bench: Callable[..., Bench]
) -> None:
    found = bench(SOMETHING, error)
    found.next()
    found.claims.release(None, Deadline(5))


@pytest.mark.parametrize("is_lost", [False, True])
def test_given_an_id_that_is_forgotten_when_released_then_that_is_raised_if_it_held_anything(
    is_lost: bool, bench: Callable[..., Bench]
) -> None:
    found = bench(SOMETHING, out_of_sequence(None))
    found.next()
    if is_lost:
        with pytest.raises(OutOfSequence):
            found.claims.release(None, Deadline(5))
    else:
        found.claims.returned()
        found.claims.release(None, Deadline(5))
