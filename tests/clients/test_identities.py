"""The pool of producer and consumer ids: which one the next call gets, and that no interrupt loses one."""

import linecache
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from rocksmq.clients import identities
from rocksmq.clients.identities import Borrowed, IdentityPool
from rocksmq.protocol.identity import Identity, birth_of


def taken(pool: IdentityPool, count: int, place: str = "orders") -> list[Identity]:
    return [pool.take(place) for _ in range(count)]


def unresolved(identity: Identity) -> Identity:
    identity.is_unresolved = True
    return identity


def test_given_an_empty_pool_when_ids_are_taken_then_each_is_new_and_born_now() -> None:
    births = iter([7, 8])
    pool = IdentityPool(lambda: next(births))
    first, second = taken(pool, 2)
    assert (birth_of(first.id), birth_of(second.id)) == (7, 8)
    assert first.id != second.id
    assert (first.number, first.is_unresolved) == (0, False)


def test_given_ids_that_were_given_back_when_taken_then_the_last_one_is_first() -> None:
    pool = IdentityPool(lambda: 0)
    first, second = taken(pool, 2)
    pool.give_back("orders", first)
    pool.give_back("orders", second)
    assert taken(pool, 2) == [second, first]


def test_given_unresolved_ids_when_taken_then_they_are_before_all_others_and_the_longest_first() -> None:
    pool = IdentityPool(lambda: 0)
    a, b, c, d, e = taken(pool, 5)
    for identity in (a, unresolved(b), c, unresolved(d), e):
        pool.give_back("orders", identity)
    assert taken(pool, 5) == [b, d, e, c, a]


def test_given_an_unresolved_id_when_taken_then_its_number_is_the_same_and_it_counts_as_unresolved() -> None:
    pool = IdentityPool(lambda: 0)
    identity = unresolved(pool.take("orders"))
    identity.number = 3
    pool.give_back("orders", identity)
    assert pool.take("orders") is identity
    assert (identity.number, identity.is_unresolved) == (3, True)


def test_given_an_unresolved_id_when_its_outcome_becomes_known_then_others_that_are_unresolved_are_before_it() -> None:
    pool = IdentityPool(lambda: 0)
    first, second = taken(pool, 2)
    pool.give_back("orders", unresolved(first))
    pool.give_back("orders", unresolved(second))
    repeated = pool.take("orders")
    repeated.is_unresolved = False
    pool.give_back("orders", repeated)
    assert taken(pool, 2) == [second, first]


def test_given_an_id_that_is_given_back_twice_when_taken_then_it_is_there_once() -> None:
    pool = IdentityPool(lambda: 0)
    identity = pool.take("orders")
    pool.give_back("orders", identity)
    pool.give_back("orders", identity)
    assert pool.take("orders") is identity
    assert pool.take("orders") is not identity


def test_given_a_place_that_is_gone_when_cleared_then_only_its_ids_are_forgotten() -> None:
    pool = IdentityPool(lambda: 0)
    here, there = pool.take("orders"), pool.take("other")
    pool.give_back("orders", here)
    pool.give_back("other", there)
    pool.clear("orders")
    pool.clear("never seen")
    assert pool.take("orders") is not here
    assert pool.take("other") is there


def test_given_free_ids_when_drained_then_all_are_there_with_their_places_and_the_pool_is_empty() -> None:
    pool = IdentityPool(lambda: 0)
    here, there, used = pool.take("orders"), pool.take("other"), pool.take("orders")
    pool.give_back("orders", here)
    pool.give_back("other", there)
    assert pool.drain() == [("orders", here), ("other", there)]
    assert pool.drain() == []
    assert pool.take("orders") not in (here, used)


# -- borrowing -----------------------------------------------------------------------


def test_given_an_id_that_was_given_back_when_borrowed_then_it_is_that_one_and_nobody_else_gets_it() -> None:
    pool = IdentityPool(lambda: 0)
    identity = pool.take("orders")
    pool.give_back("orders", identity)
    borrowed = Borrowed(pool, "orders")
    assert borrowed.take() is identity
    other = Borrowed(pool, "orders")
    assert other.take() is not identity
    assert pool.take("orders") is not identity
    borrowed.give_back()
    assert pool.take("orders") is identity


def test_given_an_id_that_was_never_taken_when_given_back_then_nothing_happens() -> None:
    pool = IdentityPool(lambda: 0)
    Borrowed(pool, "orders").give_back()
    assert pool.drain() == []


def test_given_a_borrower_that_is_gone_without_giving_back_when_the_next_borrows_then_it_gets_the_id() -> None:
    pool = IdentityPool(lambda: 0)
    identity = Borrowed(pool, "orders").take()
    assert Borrowed(pool, "orders").take() is identity
    assert pool.drain() == [("orders", identity)]


class Interrupted:
    """Raises KeyboardInterrupt before the given line that is executed in the module of the pool; ``was``: there was one.

    A line with `with` is left out: a trace function could raise there between the block and the lock's release, where no
    signal handler ever runs.
    """

    def __init__(self, line: int) -> None:
        self.was = False
        self._left = line
        self._before = sys.gettrace()

    def __enter__(self) -> "Interrupted":
        sys.settrace(self._trace)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(self._before)

    def _trace(self, frame: FrameType, event: str, argument: Any) -> Callable[..., Any] | None:
        if frame.f_code.co_filename != identities.__file__ or self.was:
            return None
        if event == "line" and not linecache.getline(identities.__file__, frame.f_lineno).lstrip().startswith("with "):
            if not self._left:
                self.was = True
                raise KeyboardInterrupt
            self._left -= 1
        return self._trace


def use(pool: IdentityPool) -> None:
    """As a consume does."""
    borrowed = Borrowed(pool, "orders")
    try:
        unresolved(borrowed.take())
    finally:
        borrowed.give_back()


def interrupted_use(pool: IdentityPool, line: int, meanwhile: Callable[[], None] = lambda: None) -> bool:
    """`use`, interrupted before that line; whether there was such a line. Then ``meanwhile``, while the error is handled."""
    with Interrupted(line) as interrupted:
        try:
            use(pool)
        except KeyboardInterrupt:
            sys.settrace(None)
            meanwhile()
    return interrupted.was


def test_given_an_interrupt_before_any_line_when_an_id_is_in_use_then_it_is_free_again_and_free_once() -> None:
    line = 0
    while True:
        pool = IdentityPool(lambda: 0)
        identity = unresolved(pool.take("orders"))
        pool.give_back("orders", identity)
        was_interrupted = interrupted_use(pool, line)
        first, second = Borrowed(pool, "orders"), Borrowed(pool, "orders")
        assert first.take() is identity, f"lost by an interrupt before line {line}"
        assert second.take() is not identity, f"doubled by an interrupt before line {line}"
        if not was_interrupted:
            break
        line += 1
    assert line > 15, "the sweep went through borrowing and giving back"


def test_given_an_interrupt_before_any_line_when_another_takes_the_id_meanwhile_then_it_has_it_for_itself() -> None:
    line = 0
    while True:
        pool = IdentityPool(lambda: 0)
        pool.give_back("orders", unresolved(pool.take("orders")))
        held: list[Identity] = []
        other = Borrowed(pool, "orders")
        was_interrupted = interrupted_use(pool, line, lambda: held.append(pool.take("orders")))  # noqa: B023
        if not was_interrupted:
            break
        assert other.take() is not held[0]
        assert Borrowed(pool, "orders").take() is not held[0]
        line += 1


@pytest.mark.parametrize("line", [0, 3, 6, 9])
def test_given_an_interrupt_when_it_came_while_the_pool_was_locked_then_another_thread_gets_in(line: int) -> None:
    pool = IdentityPool(lambda: 0)
    assert interrupted_use(pool, line)
    found: list[Identity] = []
    thread = threading.Thread(target=lambda: found.append(pool.take("orders")))
    thread.start()
    thread.join(10)
    assert found
