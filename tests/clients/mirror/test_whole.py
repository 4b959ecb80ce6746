import pytest
from hypothesis import given
from hypothesis import strategies as st

from rocksmq.clients.mirror.whole import compared

SENT = [(1, 10), (2, 20), (3, 30), (4, 40)]


@pytest.mark.parametrize(
    ("there", "lost"),
    [
        ((), []),
        ((1, 2), []),
        ((1, 2, 3, 4), []),
        ((2,), [1]),
        ((1, 4), [2, 3]),
        ((4, 9), [1, 2, 3]),
        ((9,), [1, 2, 3, 4]),
        ((1, 2, 1, 2, 3), []),
        ((1, 3, 1, 3, 4), [2]),
    ],
)
def test_given_what_was_sent_when_some_is_not_there_before_what_is_then_it_is_missing(
    there: tuple[int, ...], lost: list[int]
) -> None:
    assert [message_id for message_id, _ in compared(SENT, there).missing] == lost


@pytest.mark.parametrize(("there", "may_be"), [((1, 2), True), ((1, 3), True), ((1, 2, 4), False), ((4,), False)])
def test_given_what_is_missing_when_it_is_larger_than_what_is_there_then_it_may_be_skipped(
    there: tuple[int, ...], may_be: bool
) -> None:
    told = compared([(1, 10), (2, 30), (3, 20), (4, 25)], there)
    assert told.may_be_skipped(1_000) is may_be
    assert told.may_be_skipped(9)


@given(sent=st.sets(st.integers(0, 60)), there=st.sets(st.integers(0, 60)), again=st.integers(0, 20))
def test_given_any_messages_when_compared_then_as_by_sets(sent: set[int], there: set[int], again: int) -> None:
    found = sorted(there)
    told = compared([(one, one) for one in sorted(sent)], found[: again + 1] + found)
    assert [one for one, _ in told.missing] == [one for one in sorted(sent - there) if one < max(there, default=0)]
    assert told.largest == max(sent & there, default=0)
