"""12 shapes of CBOR that are small on the wire and large, deep or slow for who decodes them, before and after HELLO.

Each fills a frame of its size; the last ones only declare 4 GiB. The broker must end the connection, and hold no more
meanwhile than a few frames of the largest size that it allows.
"""

import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from rocksmq.broker.limits import Limits
from rocksmq.clients.testing import Broker
from rocksmq.protocol.codec import NO_CORRELATION, SUCCESS
from rocksmq.protocol.operations import Empty
from tests.helpers.raw import Raw
from tests.helpers.raw_bystander import Bystander

from .memory import Memory, forget_peak
from .result import MIB, Check, Result

KIB = 1 << 10
FRAME_BYTES_MAX = Limits().frame_bytes_max
DECLARED = (1 << 32) - 1  # of which a few bytes come
SIZES = (KIB, 64 * KIB, MIB, FRAME_BYTES_MAX - 16, DECLARED)
CAME_BYTES = 64 * KIB  # of those that are only declared
FRAMES_MAX = 3  # that the broker's memory may grow by
ARRAY, MAP, BYTES, TEXT = 0x9A, 0xBA, 0x5A, 0x7A  # with a length of 32 bits
TEXT_BYTES = 4_096  # as long as one may be
WIDE_TEXT = "\N{PILE OF POO}".encode() + b"x" * (TEXT_BYTES - 4)  # one character makes Python take 4 bytes for each
Shape = Callable[[int], bytes]


def head(kind: int, count: int) -> bytes:
    """Of an item with a count or length of 32 bits."""
    return struct.pack(">BI", kind, count)


def filled(begin: bytes, item: bytes, size: int) -> bytes:
    """``begin``, and as much of ``item`` again and again as makes ``size`` bytes."""
    return (begin + item * ((size - len(begin)) // len(item) + 1))[:size]


def many(kind: int, item: bytes, size: int) -> bytes:
    """A container that really holds that many of ``item``."""
    count = (size - 5) // len(item)
    return head(kind, count if kind == ARRAY else count // 2) + item * count


def texts(size: int) -> bytes:
    """Nested, and each as long as allowed; all of it is good CBOR."""
    text = head(TEXT, TEXT_BYTES) + WIDE_TEXT
    count = max(1, (size - 6) // len(text))
    return b"\x81" + head(ARRAY, count) + text * count


SHAPES: dict[str, Shape] = {
    "nested arrays": lambda size: b"\x81" * (size - 1) + b"\x00",
    "nested maps": lambda size: filled(b"\x81", b"\xa1\x00", size),
    "a huge array": lambda size: filled(b"\x9b" + b"\x7f" * 8, b"\x00", size),
    "a huge map": lambda size: filled(b"\x81\xbb" + b"\x7f" * 8, b"\x00", size),
    "huge bytes": lambda size: filled(b"\x81\x5b" + b"\x7f" * 8, b"\x00", size),
    "a huge text": lambda size: filled(b"\x81" + head(TEXT, DECLARED), b"x", size),
    "empty maps": lambda size: many(ARRAY, b"\xa0", size),
    "small integers": lambda size: many(ARRAY, b"\x01", size),
    "indefinite lengths": lambda size: filled(b"\x9f", b"\x9f\x01\xbf", size),
    "tags and bignums": lambda size: filled(b"\x82\xc4\x82\x1b" + b"\x7f" * 8 + b"\xc2" + head(BYTES, size), b"\xff", size),
    "keys twice": lambda size: many(MAP, b"\x61a", size),
    "half floats": lambda size: many(ARRAY, b"\xf9\x7c\x00", size),
    "nested texts": texts,
}


class Bomb(NamedTuple):
    """One of them; ``size`` of its frame."""

    shape: str
    size: int
    is_greeted: bool

    def __str__(self) -> str:
        size = "4 GiB declared" if self.size == DECLARED else f"{self.size // KIB} KiB"
        return f"{self.shape}, {size}, {'after' if self.is_greeted else 'before'} HELLO"

    def frame(self) -> bytes:
        body = SHAPES[self.shape](min(self.size, CAME_BYTES) if self.size == DECLARED else self.size)
        return struct.pack(">I", self.size if self.size == DECLARED else len(body)) + body


class Outcome(NamedTuple):
    """Whether an error was answered, and the connection ended."""

    is_answered: bool
    is_closed: bool


def thrown(address: str, bomb: Bomb) -> Outcome:
    """What the broker does about it. What it answers may be lost on the way, when it ends a connection with bytes unread."""
    with Raw(address, says_hello=bomb.is_greeted) as raw:
        is_answered = False
        try:
            with suppress(ConnectionError):
                raw.socket.sendall(bomb.frame())
            while True:
                items = raw.receive()
                is_answered = is_answered or (items[0] == NO_CORRELATION and items[1] != SUCCESS)
        except (EOFError, ConnectionError):
            return Outcome(is_answered, is_closed=True)
        except TimeoutError:
            return Outcome(is_answered, is_closed=False)


def run(place: Path, *, is_short: bool) -> Result:
    """All of them, one after the other; the peak of each is held against what was held just before it. Short is no less.

    What the broker's allocator keeps for the next one, and so does not grow by again, is told besides.
    """
    bombs = [Bomb(shape, size, is_greeted) for shape in SHAPES for size in SIZES for is_greeted in (False, True)]
    outcomes: list[Outcome] = []
    peaks: dict[Bomb, int] = {}
    with Broker(place / "data") as broker, Bystander(broker) as bystander:
        bystander.check()
        before = Memory.of(broker.pid)
        for bomb in bombs:
            with Raw(broker.address) as raw:
                raw.call(Empty())  # by now it has let go of the connection before
            held = forget_peak(broker.pid).resident_bytes
            outcomes.append(thrown(broker.address, bomb))
            peaks[bomb] = Memory.of(broker.pid).peak_bytes - held
        bystander.check()  # raises when it missed anything
        rounds = bystander.rounds
        kept = Memory.of(broker.pid).resident_bytes - before.resident_bytes
    worst = max(peaks, key=lambda bomb: peaks[bomb])
    return Result(
        "bombs",
        {"shapes": len(SHAPES), "sizes": len(SIZES)},
        {
            "bombs": len(bombs),
            "answered": sum(outcome.is_answered for outcome in outcomes),
            "closed": sum(outcome.is_closed for outcome in outcomes),
            "rounds of the bystander": rounds,
        },
        {f"MiB grown, the most, by {worst}": peaks[worst] / MIB, "MiB kept at the end": kept / MIB},
        (
            Check("MiB grown at most", peaks[worst] / MIB, FRAMES_MAX * FRAME_BYTES_MAX / MIB),
            Check("connections left open", sum(not outcome.is_closed for outcome in outcomes), 0),
        ),
    )
