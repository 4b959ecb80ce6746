"""Lines: nothing is added, lost or changed, wherever the chunks are cut."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rocksmq.clients.cli.lines import LineCutter
from rocksmq.protocol.errors import MessageTooLarge


@given(st.lists(st.binary(max_size=20) | st.sampled_from([b"\n", b"\r\n", b"\n\n", b"\xff"])))
def test_given_any_chunks_when_cut_then_lines_are_what_stands_between_newlines(chunks: list[bytes]) -> None:
    cutter = LineCutter(1_000_000)
    lines = [line for chunk in chunks for line in cutter.cut(chunk)] + cutter.rest()
    *expected, last = b"".join(chunks).split(b"\n")
    assert lines == expected + ([last] if last else [])


def test_given_a_line_over_the_limit_when_it_goes_on_then_it_is_refused_before_it_ends() -> None:
    cutter = LineCutter(10)
    assert cutter.cut(b"x" * 10) == []
    with pytest.raises(MessageTooLarge, match=r"longer than the limit of 10 bytes \(payload_bytes_max\)"):
        cutter.cut(b"x")
