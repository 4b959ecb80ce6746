"""Producer and consumer ids with their numbers (SPEC §7).

An id is the broker's present message id when it was made (its birth), u64 big-endian, and 64 random
bits. Its batches or consumes are numbered from 0; a number is raised once its outcome is known.
"""

import secrets
from dataclasses import dataclass

BIRTH_BYTES = 8
RANDOM_BYTES = 8


@dataclass(slots=True, eq=False)
class Identity:
    """One id and the number that its next batch or consume carries.

    ``is_unresolved``: that was sent, with unknown outcome; ``is_used``: something was sent under the id.
    """

    id: bytes
    number: int = 0
    is_unresolved: bool = False
    is_used: bool = False

    @classmethod
    def new(cls, present_id: int) -> "Identity":
        """One that was born now."""
        return cls(_new_id(present_id))

    def renew(self, present_id: int) -> None:
        """Go on under a new id, from number 0."""
        self.id, self.number, self.is_unresolved, self.is_used = _new_id(present_id), 0, False, False


def _new_id(present_id: int) -> bytes:
    return present_id.to_bytes(BIRTH_BYTES, "big") + secrets.token_bytes(RANDOM_BYTES)


def birth_of(identity: bytes) -> int:
    """The broker's present message id when the id was made."""
    return int.from_bytes(identity[:BIRTH_BYTES], "big")
