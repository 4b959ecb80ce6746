"""Producer and consumer ids with their numbers (contract §4): a pool a place, one id for each call at a time.

An id is the broker's present message id (its birth) and 64 random bits. A number is raised
only once its outcome is known; an id whose outcome stayed unknown is dropped.
"""

import secrets
import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass


@dataclass(slots=True)
class Identity:
    """One id and the number that its next batch or consume carries."""

    id: bytes
    number: int = 0


class IdentityPool:
    """Free identities by place (a channel, or a channel and group); ``present_id`` tells the birth of new ones."""

    def __init__(self, present_id: Callable[[], int]) -> None:
        self._present_id = present_id
        self._free: dict[Hashable, list[Identity]] = {}
        self._lock = threading.Lock()

    def take(self, place: Hashable) -> Identity:
        """A free identity, or a new one."""
        with self._lock:
            if free := self._free.get(place):
                return free.pop()
        return Identity(self._present_id().to_bytes(8, "big") + secrets.token_bytes(8))

    def give_back(self, place: Hashable, identity: Identity) -> None:
        """Its outcome is known: it may be used again."""
        with self._lock:
            self._free.setdefault(place, []).append(identity)

    def clear(self, place: Hashable = None) -> None:
        """Forget the identities of a place that is gone, or of all."""
        with self._lock:
            if place is None:
                self._free.clear()
            else:
                self._free.pop(place, None)
