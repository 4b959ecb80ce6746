"""The ledger of the tiny disk: what was acknowledged, refused or left open, and whether a broker's channels agree.

Owns no connection. A payload is written down before it is sent. `ChannelBook.check` reads a channel from its beginning: what
was acknowledged is there with its id and bytes, what was refused is not, and nothing is there twice. Of a channel with a rule
of retention a beginning may be missing, never more.
"""

import threading
from collections.abc import Sequence
from hashlib import blake2b
from random import Random

from rocksmq.clients import Client, Message

FETCH_MESSAGES = 10_000


def digest(payload: bytes) -> bytes:
    """What the book keeps of a payload."""
    return blake2b(payload, digest_size=16).digest()


class ChannelBook:
    """What one channel was sent; may be shared by threads."""

    def __init__(self, name: str, *, is_trimmed: bool = False) -> None:
        self.name = name
        self.is_trimmed = is_trimmed
        self.size = 0  # bytes acknowledged
        self.stored: dict[int, bytes] = {}  # id -> digest
        self._refused: set[bytes] = set()
        self._unknown: set[bytes] = set()
        self._lock = threading.Lock()
        self._count = 0

    def payloads(self, random: Random, batch_bytes: int) -> list[bytes]:
        """A batch of some messages, none of which was there before."""
        count = random.choice((5, 10, 20))
        with self._lock:
            begin, self._count = self._count, self._count + count
        name, size = self.name.encode(), batch_bytes // count
        return [b"%s/%d|" % (name, number) + random.randbytes(size) for number in range(begin, begin + count)]

    def acknowledged(self, payloads: Sequence[bytes], ids: range) -> None:
        """They are stored, under these ids."""
        assert len(ids) == len(payloads), f"{len(ids)} ids for {len(payloads)} messages"
        with self._lock:
            for message_id, payload in zip(ids, payloads, strict=True):
                assert message_id not in self.stored, f"{self.name}: id {message_id} was given out twice"
                self.stored[message_id] = digest(payload)
            self.size += sum(map(len, payloads))

    def refused(self, payloads: Sequence[bytes]) -> None:
        """They are certainly not stored."""
        with self._lock:
            self._refused.update(map(digest, payloads))

    def unknown(self, payloads: Sequence[bytes]) -> None:
        """They may be stored or not."""
        with self._lock:
            self._unknown.update(map(digest, payloads))

    def check_handed(self, messages: Sequence[Message]) -> None:
        """What a reader got is what was sent."""
        with self._lock:
            for message in messages:
                content = digest(message.payload)
                assert content not in self._refused, f"{self.name}: {message.id} was refused, and is there"
                known = self.stored.get(message.id)
                assert known is None or known == content, f"{self.name}: {message.id} has other bytes than were acknowledged"

    def check(self, mq: Client) -> int:
        """Read all of it; how many messages it has. No load runs meanwhile. Raises AssertionError."""
        found: dict[int, bytes] = {}
        position: int | str = "earliest"
        while batch := mq.fetch(self.name, position, FETCH_MESSAGES):
            self.check_handed(batch)
            for message in batch:
                assert message.id > max(self._last(found), 0), f"{self.name}: id {message.id} does not rise"
                found[message.id] = digest(message.payload)
            position = batch.next_position
        missing = sorted(self.stored.keys() - found.keys())
        begin = min(found, default=1 << 64)
        if self.is_trimmed:
            missing = [message_id for message_id in missing if message_id > begin]
        assert not missing, f"{self.name}: {len(missing)} acknowledged messages are lost, the first is {missing[0]}"
        extra = [content for message_id, content in found.items() if message_id not in self.stored]
        assert self._unknown.issuperset(extra), f"{self.name} holds messages that nobody sent"
        assert len(set(found.values())) == len(found), f"{self.name} holds messages twice"
        described = mq.describe_channel(self.name).message_count
        assert self.is_trimmed or described == len(found), f"{self.name} is said to hold {described} messages, not {len(found)}"
        return len(found)

    @staticmethod
    def _last(found: dict[int, bytes]) -> int:
        return next(reversed(found), 0)
