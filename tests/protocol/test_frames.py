"""Framing (SPEC §2.1): the same bodies however the bytes arrive, and memory by what was received, not by what was declared."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rocksmq.protocol.errors import ProtocolError
from rocksmq.protocol.frames import BUFFER_BYTES_MIN, LENGTH_BYTES, READ_BYTES_MAX, FrameDecoder
from tests.protocol.feeding import fed
from tests.protocol.strategies import deterministic

MIB = 1 << 20


def framed(body: bytes) -> bytes:
    return len(body).to_bytes(LENGTH_BYTES, "big") + body


def put(decoder: FrameDecoder, data: bytes) -> None:
    """Receive ``data`` in one read."""
    space = decoder.space()
    space[: len(data)] = data
    decoder.received(len(data))


def taken(decoder: FrameDecoder) -> bytes | None:
    """A copy of the next body, or None for not yet."""
    body = decoder.next_frame()
    return None if body is None else bytes(body)


def pattern(size: int) -> bytes:
    return (bytes(range(251)) * (size // 251 + 1))[:size]


bodies = st.lists(st.integers(0, 3 * BUFFER_BYTES_MIN).map(pattern) | st.binary(max_size=20), max_size=8)


@deterministic
@given(bodies, st.integers(1, 2 * BUFFER_BYTES_MIN))
def test_given_frames_when_fed_in_pieces_of_any_size_then_the_same_bodies_come_out(sent: list[bytes], piece: int) -> None:
    decoder = FrameDecoder(3 * BUFFER_BYTES_MIN)
    assert fed(decoder, b"".join(map(framed, sent)), piece) == sent
    assert decoder.pending_bytes == 0


@pytest.mark.parametrize("size", [0, 1, BUFFER_BYTES_MIN - LENGTH_BYTES, BUFFER_BYTES_MIN, BUFFER_BYTES_MIN + 1, 50_000])
def test_given_a_frame_when_fed_whole_and_byte_by_byte_and_with_a_tail_then_it_is_the_same(size: int) -> None:
    body = pattern(size)
    assert fed(FrameDecoder(size), framed(body)) == [body]
    assert fed(FrameDecoder(size), framed(body), 1) == [body]
    decoder = FrameDecoder(size)
    assert fed(decoder, framed(body) + framed(body)[:3]) == [body]
    assert decoder.pending_bytes == 3


def test_given_a_frame_in_the_making_when_asked_then_not_yet_until_its_last_byte() -> None:
    decoder = FrameDecoder(100)
    for index, byte in enumerate(framed(b"abc")):
        assert decoder.next_frame() is None
        assert decoder.pending_bytes == index
        put(decoder, bytes((byte,)))
    assert taken(decoder) == b"abc"
    assert decoder.next_frame() is None


def test_given_a_body_of_the_limit_when_fed_then_one_byte_more_is_refused_before_it_comes() -> None:
    assert fed(FrameDecoder(1_000), framed(bytes(1_000))) == [bytes(1_000)]
    decoder = FrameDecoder(1_000)
    put(decoder, (1_001).to_bytes(LENGTH_BYTES, "big"))
    for _ in range(2):
        with pytest.raises(ProtocolError, match=r"1001 bytes exceeds the limit of 1000 \(frame_bytes_max\)"):
            decoder.next_frame()


def test_given_another_name_of_the_limit_when_it_is_exceeded_then_that_name_is_told() -> None:
    decoder = FrameDecoder(10, "handshake_bytes_max")
    put(decoder, framed(bytes(11)))
    with pytest.raises(ProtocolError, match=r"\(handshake_bytes_max\)"):
        decoder.next_frame()
    decoder.limit_name = "frame_bytes_max"
    with pytest.raises(ProtocolError, match=r"\(frame_bytes_max\)"):
        decoder.next_frame()


def test_given_a_length_of_four_gigabytes_when_fed_then_it_is_refused_and_nothing_grows() -> None:
    decoder = FrameDecoder(8 * MIB)
    put(decoder, b"\xff\xff\xff\xff")
    with pytest.raises(ProtocolError, match="4294967295 bytes"):
        decoder.next_frame()
    assert len(decoder.space()) <= BUFFER_BYTES_MIN


def test_given_a_raised_limit_when_the_next_frame_comes_then_it_may_be_longer() -> None:
    decoder = FrameDecoder(10)
    put(decoder, framed(b"HELLO") + framed(bytes(11)))
    assert taken(decoder) == b"HELLO"
    decoder.frame_bytes_max = 11
    assert taken(decoder) == bytes(11)


def test_given_a_long_frame_when_its_bytes_trickle_in_then_the_buffer_follows_them_and_not_the_length() -> None:
    decoder = FrameDecoder(8 * MIB)
    frame = framed(bytes(6 * MIB))
    received = 0
    while received < len(frame):
        piece = frame[received : received + max(1_000, received // 50)]
        room = len(decoder.space())
        assert decoder.pending_bytes + room <= max(BUFFER_BYTES_MIN, 4 * received)
        put(decoder, piece[:room])
        received += len(piece[:room])
        if received < len(frame):
            assert decoder.next_frame() is None
    assert taken(decoder) == bytes(6 * MIB)


@deterministic
@given(st.lists(st.integers(0, 2_000), min_size=1, max_size=50), st.integers(1, 5_000))
def test_given_any_traffic_when_space_is_asked_for_then_it_is_a_quarter_of_the_buffer_at_least(
    sizes: list[int], piece: int
) -> None:
    data = b"".join(framed(bytes(size)) for size in sizes)
    decoder = FrameDecoder(2_000)
    while data:
        room = len(decoder.space())
        assert room * 4 >= BUFFER_BYTES_MIN
        assert room * 3 >= decoder.pending_bytes
        count = min(room, piece, len(data))
        put(decoder, data[:count])
        data = data[count:]
        while decoder.next_frame() is not None:
            pass


def test_given_reads_that_fill_the_room_when_more_come_then_each_takes_more_up_to_the_maximum() -> None:
    decoder = FrameDecoder(8 * MIB)
    rooms: list[int] = []
    for _ in range(12):
        room = len(decoder.space())
        rooms.append(room)
        put(decoder, bytes(room))  # frames without a body
        while decoder.next_frame() is not None:
            pass
    assert rooms[:3] == [BUFFER_BYTES_MIN, 2 * BUFFER_BYTES_MIN, 4 * BUFFER_BYTES_MIN]
    assert rooms[-2:] == [READ_BYTES_MAX] * 2


def test_given_short_frames_when_each_read_ends_inside_one_then_the_buffer_stays_as_it_is() -> None:
    decoder = FrameDecoder(8 * MIB)
    stream = framed(bytes(1_000)) * 100
    while len(stream) >= BUFFER_BYTES_MIN:
        room = len(decoder.space())
        assert decoder.pending_bytes + room <= BUFFER_BYTES_MIN
        put(decoder, stream[: room - 1])
        stream = stream[room - 1 :]
        while decoder.next_frame() is not None:
            pass


def test_given_a_small_limit_when_reads_fill_the_room_then_the_buffer_stays_small() -> None:
    decoder = FrameDecoder(BUFFER_BYTES_MIN)
    for _ in range(5):
        room = len(decoder.space())
        assert room == BUFFER_BYTES_MIN
        put(decoder, bytes(room))
        while decoder.next_frame() is not None:
            pass


def test_given_bodies_handed_out_when_more_is_cut_and_received_then_they_stay_until_space_is_asked_for() -> None:
    decoder = FrameDecoder(BUFFER_BYTES_MIN * 4)
    first = framed(b"first")
    filling = framed(pattern(BUFFER_BYTES_MIN - 2 * len(first) - LENGTH_BYTES))
    space = decoder.space()
    space[: len(first)] = first
    decoder.received(len(first))
    view = decoder.next_frame()
    assert view is not None
    rest = filling + framed(b"again")
    space[len(first) :] = rest  # to the brim, so that the buffer grows while the view is out
    decoder.received(len(rest))
    assert bytes(view) == b"first"
    later = [taken(decoder), taken(decoder)]
    assert bytes(view) == b"first"
    assert later == [filling[LENGTH_BYTES:], b"again"]


def test_given_a_frame_that_begins_behind_another_when_space_is_asked_for_then_its_bytes_are_kept() -> None:
    decoder = FrameDecoder(BUFFER_BYTES_MIN)
    large = framed(pattern(BUFFER_BYTES_MIN - 500))
    begun = framed(b"tail" * 20)
    put(decoder, large + begun[:50])
    assert taken(decoder) == large[LENGTH_BYTES:]
    assert decoder.next_frame() is None
    put(decoder, begun[50:])
    assert taken(decoder) == begun[LENGTH_BYTES:]


def test_given_a_grown_buffer_when_nothing_pends_then_shrink_gives_it_back() -> None:
    decoder = FrameDecoder(MIB)
    assert fed(decoder, framed(bytes(100_000))) == [bytes(100_000)]
    assert len(decoder.space()) > 100_000
    decoder.shrink()
    assert len(decoder.space()) == BUFFER_BYTES_MIN
    assert fed(decoder, framed(b"goes on")) == [b"goes on"]


def test_given_a_grown_buffer_when_little_pends_then_shrink_keeps_that_and_gives_the_rest_back() -> None:
    decoder = FrameDecoder(MIB)
    assert fed(decoder, framed(bytes(100_000))) == [bytes(100_000)]
    frame = framed(pattern(9_000))
    put(decoder, frame[:5_000])
    assert decoder.buffer_bytes > 100_000
    decoder.shrink()
    assert decoder.buffer_bytes == 10_000
    put(decoder, frame[5_000:])
    assert taken(decoder) == pattern(9_000)


def test_given_a_small_buffer_when_shrunk_then_it_is_kept() -> None:
    decoder = FrameDecoder(MIB)
    buffer = decoder.space().obj
    decoder.shrink()
    assert decoder.space().obj is buffer


@pytest.mark.parametrize("size", [2 * MIB + 1, 8 * MIB])
def test_given_a_long_frame_when_it_has_come_then_the_buffer_is_no_larger_than_it(size: int) -> None:
    decoder = FrameDecoder(8 * MIB)
    for _ in range(2):
        assert fed(decoder, framed(pattern(size)), 4_000) == [pattern(size)]
        assert decoder.buffer_bytes == LENGTH_BYTES + size


def test_given_a_frame_in_the_making_when_shrunk_then_nothing_is_lost() -> None:
    decoder = FrameDecoder(100)
    frame = framed(b"in two parts")
    put(decoder, frame[:7])
    decoder.shrink()
    put(decoder, frame[7:])
    assert taken(decoder) == b"in two parts"
