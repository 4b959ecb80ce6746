"""What a FETCH_MANY brought, channel by channel (SPEC §3.24)."""

from struct import Struct
from typing import Any

import pytest

from rocksmq.clients.many import Cut, cut
from rocksmq.protocol.errors import ProtocolError
from rocksmq.protocol.messages import pack_messages
from rocksmq.protocol.operations import ManyMessages

PART, RUN = Struct("<IIIQQ"), Struct("<QI")
PAYLOADS = [b"a", b"b", b"c"]


def reply(parts: bytes, *gaps: list[Any]) -> ManyMessages:
    """Messages 5, 6 and 40."""
    return ManyMessages(parts, list(gaps), RUN.pack(5, 2) + RUN.pack(40, 1), *pack_messages(PAYLOADS))


def test_given_messages_of_some_channels_when_cut_then_each_has_its_own_and_its_gap() -> None:
    parts = PART.pack(3, 1, 2, 7, 12) + PART.pack(0, 0, 0, 99, 3) + PART.pack(1, 1, 1, 41, 8)
    whole, cuts = cut(reply(parts, [1, 8, 40, None], [0, 2, 99, 12]), 4)
    assert cuts == [Cut(3, 0, 2, 7, 12, None), Cut(0, 2, 2, 99, 3, (2, 99, 12)), Cut(1, 2, 3, 41, 8, (8, 40, None))]
    assert [(list(whole.ids[one.begin : one.end]), whole.payloads[one.begin : one.end]) for one in cuts] == [
        ([5, 6], [b"a", b"b"]),
        ([], []),
        ([40], [b"c"]),
    ]


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        (PART.pack(0, 2, 3, 41, 0)[:-1], "cut off"),
        (PART.pack(0, 1, 2, 41, 0), "do not add up"),
        (PART.pack(0, 1, 2, 41, 0) + PART.pack(2, 1, 1, 41, 0), "not asked for"),
    ],
)
def test_given_parts_that_do_not_fit_when_cut_then_protocol_error(parts: bytes, said: str) -> None:
    with pytest.raises(ProtocolError, match=said):
        cut(reply(parts), 2)
