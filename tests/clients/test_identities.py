"""The pool of producer and consumer ids: which one the next call gets."""

from rocksmq.clients.identities import IdentityPool
from rocksmq.protocol.identity import Identity, birth_of


def taken(pool: IdentityPool, count: int, place: str = "orders") -> list[Identity]:
    return [pool.take(place) for _ in range(count)]


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
    assert [known.id for known in taken(pool, 2)] == [second.id, first.id]


def test_given_unresolved_ids_when_taken_then_they_are_before_all_others_and_the_longest_first() -> None:
    pool = IdentityPool(lambda: 0)
    a, b, c, d, e = taken(pool, 5)
    pool.give_back("orders", a)
    pool.give_back_unresolved("orders", b)
    pool.give_back("orders", c)
    pool.give_back_unresolved("orders", d)
    pool.give_back("orders", e)
    assert [known.id for known in taken(pool, 5)] == [b.id, d.id, e.id, c.id, a.id]


def test_given_an_unresolved_id_when_taken_then_its_number_is_the_same_and_it_counts_as_unresolved() -> None:
    pool = IdentityPool(lambda: 0)
    identity = pool.take("orders")
    identity.number = 3
    pool.give_back_unresolved("orders", identity)
    again = pool.take("orders")
    assert (again.id, again.number, again.is_unresolved) == (identity.id, 3, True)


def test_given_an_unresolved_id_when_its_outcome_becomes_known_then_others_that_are_unresolved_are_before_it() -> None:
    pool = IdentityPool(lambda: 0)
    first, second = taken(pool, 2)
    pool.give_back_unresolved("orders", first)
    pool.give_back_unresolved("orders", second)
    repeated = pool.take("orders")
    repeated.is_unresolved = False
    pool.give_back("orders", repeated)
    assert [known.id for known in taken(pool, 2)] == [second.id, first.id]


def test_given_a_place_that_is_gone_when_cleared_then_only_its_ids_are_forgotten() -> None:
    pool = IdentityPool(lambda: 0)
    here, there = pool.take("orders"), pool.take("other")
    pool.give_back_unresolved("orders", here)
    pool.give_back_unresolved("other", there)
    pool.clear("orders")
    pool.clear("never seen")
    assert pool.take("orders").id != here.id
    assert pool.take("other").id == there.id
