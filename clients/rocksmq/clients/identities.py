"""A pool of producer or consumer ids a place, one for each call at a time (contract §4)."""

import threading
from collections import deque
from collections.abc import Callable, Hashable

from rocksmq.protocol.identity import Identity


class IdentityPool:
    """Free identities by place (a channel, or a channel and group); ``present_id`` tells the birth of new ones."""

    def __init__(self, present_id: Callable[[], int]) -> None:
        self._present_id = present_id
        self._free: dict[Hashable, deque[Identity]] = {}
        self._lock = threading.Lock()

    def take(self, place: Hashable) -> Identity:
        """One whose number is unresolved, the longest first; else the one that was given back last; else a new one."""
        borrowed = Borrowed(self, place)
        borrowed.take()
        return borrowed.identity

    def borrow(self, place: Hashable, into: "Borrowed") -> None:
        """As `take`; ``into`` has the identity before the pool lets go of it, so that no interrupt loses it."""
        with self._lock:
            if free := self._free.get(place):
                into.identity = free[0]
                free.popleft()
                return
        into.identity = Identity.new(self._present_id())

    def give_back(self, place: Hashable, identity: Identity) -> None:
        """It may be taken again; whether the outcome of its number is known, it says itself."""
        with self._lock:
            free = self._free.setdefault(place, deque())
            if identity not in free:
                free.insert(sum(known.is_unresolved for known in free), identity)

    def clear(self, place: Hashable) -> None:
        """Forget the identities of a place that is gone."""
        with self._lock:
            self._free.pop(place, None)

    def drain(self) -> list[tuple[Hashable, Identity]]:
        """All free identities with their places; the pool is empty then."""
        with self._lock:
            found = [(place, identity) for place, free in self._free.items() for identity in free]
            self._free.clear()
        return found


class Borrowed:
    """An identity in use by one call; made before it is taken, so that whatever interrupts the call, it can go back."""

    def __init__(self, pool: IdentityPool, place: Hashable) -> None:
        self._pool = pool
        self._place = place
        self.identity: Identity

    def take(self) -> Identity:
        """Take it from the pool."""
        self._pool.borrow(self._place, self)
        return self.identity

    def give_back(self) -> None:
        """Give it back, if it was taken."""
        if hasattr(self, "identity"):
            self._pool.give_back(self._place, self.identity)
