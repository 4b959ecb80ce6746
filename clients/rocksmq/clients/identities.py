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
        with self._lock:
            if free := self._free.get(place):
                return free.popleft()
        return Identity.new(self._present_id())

    def give_back(self, place: Hashable, identity: Identity) -> None:
        """Its number's outcome is known."""
        with self._lock:
            free = self._free.setdefault(place, deque())
            free.insert(sum(known.is_unresolved for known in free), identity)

    def give_back_unresolved(self, place: Hashable, identity: Identity) -> None:
        """The outcome of its number is unknown: the next call repeats it."""
        identity.is_unresolved = True
        self.give_back(place, identity)

    def clear(self, place: Hashable) -> None:
        """Forget the identities of a place that is gone."""
        with self._lock:
            self._free.pop(place, None)
