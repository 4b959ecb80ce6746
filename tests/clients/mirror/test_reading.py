"""What a poll of many channels brought, and how many messages retention removed before it (SPEC §8.5)."""

from struct import Struct
from typing import Any

import pytest

from rocksmq.clients.mirror.reading import Part, Poll, Wanted
from rocksmq.protocol.messages import pack_messages
from rocksmq.protocol.operations import ManyMessages

PART, RUN = Struct("<IIIQQ"), Struct("<QI")


class Answered:
    """As `Link`, and what it gives: the reply is there."""

    def __init__(self, reply: ManyMessages) -> None:
        self.reply = reply
        self.connection = self.call = self

    def begin(self, request: Any, deadline: Any) -> "Answered":
        return self

    def is_answered(self, call: Any, deadline: Any) -> bool:
        return True

    def result(self) -> ManyMessages:
        return self.reply


def read(wanted: Wanted[str], part: bytes, *gaps: list[Any]) -> Part[str]:
    """The messages 40 and 41, or a part without any."""
    messages = pack_messages([b"a", b"b"] if PART.unpack(part)[2] else [])
    runs = RUN.pack(40, 2) if messages.message_count else b""
    link: Any = Answered(ManyMessages(part, list(gaps), runs, *messages))
    parts = Poll(link, [wanted], 10, 10, 0.0, 1.0).parts(1.0)
    assert parts is not None
    return parts[0]


@pytest.mark.parametrize(
    ("offset", "gap", "expected"),
    [
        (100, None, (False, 0)),
        (97, None, (True, 3)),
        (97, [0, 8, 40, None], (True, 3)),
        (100, [0, 8, 40, None], (False, 0)),  # nothing was unread
        (None, [0, 8, 40, None], (True, None)),
        (None, [0, 8, 40, 32], (True, 32)),
        (None, None, (False, 0)),
    ],
)
def test_given_messages_when_read_then_a_gap_before_them_is_counted_where_the_offset_is_known(
    offset: int | None, gap: list[Any] | None, expected: tuple[bool, int | None]
) -> None:
    part = read(Wanted("orders", 1, 8, offset), PART.pack(0, 1, 2, 42, 102), *([gap] if gap else []))
    assert (list(part.ids), part.next_place, part.next_offset) == ([40, 41], 42, 102)
    assert (part.has_gap, part.gap_messages) == expected


def test_given_a_gap_with_nothing_behind_it_when_read_then_it_is_counted_and_reading_goes_on_behind_it() -> None:
    part = read(Wanted("orders", 1, 8, 97), PART.pack(0, 0, 0, 42, 102), [0, 8, 42, None])
    assert (list(part.ids), part.next_place, part.has_gap, part.gap_messages) == ([], 42, True, 5)
