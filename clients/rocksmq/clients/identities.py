"""A pool of producer or consumer ids a place, one for each call at a time (contract §4)."""

import threading
import weakref
from collections import deque
from collections.abc import Callable, Hashable
from typing import NamedTuple

from rocksmq.protocol.identity import Identity


class IdentityPool:
    """Free identities by place (a channel, or a channel and group); ``present_id`` tells the birth of new ones."""

    def __init__(self, present_id: Callable[[], int]) -> None:
        self._present_id = present_id
        self._free: dict[Hashable, deque[Identity]] = {}
        self._loans: dict[Identity, Loan] = {}
        self._lock = threading.Lock()

    def take(self, place: Hashable) -> Identity:
        """One whose number is unresolved, the longest first; else the one that was given back last; else a new one."""
        with self._lock:
            free = self._free.get(place)
            identity = free.popleft() if free else Identity.new(self._present_id())
            self._loans.pop(identity, None)
            return identity

    def give_back(self, place: Hashable, identity: Identity) -> None:
        """It may be taken again; whether the outcome of its number is known, it says itself."""
        with self._lock:
            self._put(place, identity)

    def lend(self, place: Hashable, borrower: "Borrowed") -> Identity:
        """As `take`. The identity is always free or lent, or both for a moment, so that no interrupt loses it."""
        with self._lock:
            self._recover()
            free = self._free.get(place)
            identity = free[0] if free else Identity.new(self._present_id())
            self._loans[identity] = Loan(place, weakref.ref(borrower))
            if free:
                free.popleft()
            return identity

    def recover(self, borrower: "Borrowed") -> None:
        """What was lent to ``borrower`` is free again."""
        with self._lock:
            self._recover(borrower)

    def clear(self, place: Hashable) -> None:
        """Forget the identities of a place that is gone."""
        with self._lock:
            self._free.pop(place, None)

    def drain(self, place: Hashable = None) -> list[tuple[Hashable, Identity]]:
        """All free identities, or those of one place, with their places; they are in the pool no more."""
        with self._lock:
            self._recover()
            places = tuple(self._free) if place is None else (place,)
            return [(known, identity) for known in places for identity in self._free.pop(known, ())]

    def _recover(self, borrower: "Borrowed | None" = None) -> None:
        """End the loans of ``borrower``, and of those who were interrupted before they gave back, and are gone."""
        for identity, loan in tuple(self._loans.items()):
            if loan.borrower() is None or loan.borrower() is borrower:
                self._put(loan.place, identity)
                del self._loans[identity]

    def _put(self, place: Hashable, identity: Identity) -> None:
        free = self._free.setdefault(place, deque())
        if identity not in free:
            free.insert(sum(known.is_unresolved for known in free), identity)


class Loan(NamedTuple):
    """Whose an identity is for now."""

    place: Hashable
    borrower: "weakref.ref[Borrowed]"


class Borrowed:
    """An identity in use by one call. However that is interrupted, the identity can be borrowed again once this is gone."""

    def __init__(self, pool: IdentityPool, place: Hashable) -> None:
        self._pool = pool
        self._place = place

    def take(self) -> Identity:
        """Take it from the pool."""
        return self._pool.lend(self._place, self)

    def give_back(self) -> None:
        """Give it back, if it was taken."""
        self._pool.recover(self)
