"""Lines and batches: nothing is added, lost or changed, wherever the chunks are cut."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rocksmq.clients.cli.lines import BATCH_BYTES, BATCH_MESSAGES, LineCutter, batches
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


@given(st.lists(st.integers(0, BATCH_BYTES + 1), max_size=20), st.integers(0, 1_000))
def test_given_any_payloads_when_batched_then_all_come_in_order_and_no_batch_is_too_large(
    sizes: list[int], overhead: int
) -> None:
    payloads = [bytes(size) for size in sizes]
    found = list(batches(payloads, overhead))
    assert [payload for batch in found for payload in batch] == payloads
    for batch in found:
        assert len(batch) == 1 or sum(len(payload) + overhead for payload in batch) <= BATCH_BYTES


def test_given_many_small_payloads_when_batched_then_batches_are_full() -> None:
    assert [len(batch) for batch in batches([b""] * 2_500, 0)] == [BATCH_MESSAGES, BATCH_MESSAGES, 500]
