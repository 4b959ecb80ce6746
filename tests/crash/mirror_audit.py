"""Whether two sides have the same messages: pure. It names what was lost, doubled, moved, changed or made up.

A message is a key, its id or its label, and the digest of all that it carries.
"""

from array import array
from collections import Counter
from collections.abc import Iterable, Mapping
from hashlib import blake2b

SHOWN = 5  # keys, of each kind of fault


def digest(payload: bytes, headers: Mapping[str, bytes]) -> int:
    """What is kept of a message's content, in 64 bits."""
    made = blake2b(payload, digest_size=8)
    for name in sorted(headers):
        made.update(b"|%d|%s|%d|" % (len(name), name.encode(), len(headers[name])))
        made.update(headers[name])
    return int.from_bytes(made.digest())


class Copy:
    """The messages of one side of one channel, in order."""

    def __init__(self, messages: Iterable[tuple[int, int]] = ()) -> None:
        self.keys = array("Q")
        self.digests = array("Q")
        for key, made in messages:
            self.add(key, made)

    def add(self, key: int, made: int) -> None:
        """The next message."""
        self.keys.append(key)
        self.digests.append(made)

    def __len__(self) -> int:
        return len(self.keys)

    def pairs(self) -> list[tuple[int, int]]:
        """Keys with their digests."""
        return list(zip(self.keys, self.digests, strict=True))


def check_same(what: str, wanted: Copy, found: Copy) -> None:
    """Each message once, in order. Raises AssertionError."""
    if wanted.keys != found.keys or wanted.digests != found.digests:
        raise AssertionError(f"{what}: {_faults(wanted, found, allows_doubles=False)}")


def check_first(what: str, wanted: Copy, found: Copy) -> int:
    """Each message at least once, those seen first in order; the number of doubles. Raises AssertionError."""
    firsts = Copy()
    seen: dict[int, int] = {}
    doubles = 0
    for key, made in zip(found.keys, found.digests, strict=True):
        if key not in seen:
            seen[key] = made
            firsts.add(key, made)
        else:
            assert seen[key] == made, f"{what}: message {key} is there twice with different content"
            doubles += 1
    if wanted.keys != firsts.keys or wanted.digests != firsts.digests:
        raise AssertionError(f"{what}: {_faults(wanted, found, allows_doubles=True)}")
    return doubles


def _faults(wanted: Copy, found: Copy, *, allows_doubles: bool) -> str:
    """All kinds of differences."""
    due, there = Counter(wanted.keys), Counter(found.keys)
    contents: dict[int, set[int]] = {}
    for key, made in wanted.pairs():
        contents.setdefault(key, set()).add(made)
    faults = {
        "lost": [key for key, count in due.items() if there[key] < count],
        "doubled": [key for key, count in there.items() if 0 < due[key] < count and not allows_doubles],
        "never sent": [key for key in there if key not in due],
        "changed": [key for key, made in found.pairs() if key in contents and made not in contents[key]],
        "out of order": _moved(wanted, found),
    }
    told = [f"{len(keys)} {kind} ({_shown(keys)})" for kind, keys in faults.items() if keys]
    return f"of {len(wanted)} messages {'; '.join(told) or 'some are not as they were sent'}; {len(found)} are there"


def _moved(wanted: Copy, found: Copy) -> list[int]:
    """Those whose first occurrence comes behind that of a later one."""
    place = {key: number for number, key in reversed(list(enumerate(wanted.keys)))}
    moved: list[int] = []
    seen: set[int] = set()
    furthest = -1
    for key in found.keys:
        if key in seen or key not in place:
            continue
        seen.add(key)
        if place[key] < furthest:
            moved.append(key)
        furthest = max(furthest, place[key])
    return moved


def _shown(keys: list[int]) -> str:
    return ", ".join(map(str, keys[:SHOWN])) + (", …" if len(keys) > SHOWN else "")
