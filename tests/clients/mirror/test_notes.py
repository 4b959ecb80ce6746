import pytest
from hypothesis import given
from hypothesis import strategies as st

from rocksmq.clients.mirror.notes import CUT, Totals, decode, encode
from rocksmq.clients.mirror.report import ChannelReport, State
from rocksmq.protocol.operations import METADATA_BYTES_MAX

LARGEST = (10**18 - 1, 10**18 - 1, 10**9 - 1)
COUNTS = st.integers(min_value=0, max_value=1 << 70)


def of(topic: str = "persistent://a/b/c", error: str = "", state: State = State.RUNNING, **more: int) -> ChannelReport:
    return ChannelReport(channel="c", topic=topic, state=state, last_error=error, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("state", list(State))
def test_given_a_report_when_noted_then_it_is_read_again(state: State) -> None:
    note = decode(encode(of(error="was away", state=state, messages=5, bytes=6, skipped=7, gaps=8, last_error_at=9)))
    assert note is not None
    assert (note.state, note.topic, note.last_error) == (state, "persistent://a/b/c", "was away")
    assert note.place is None
    assert (note.messages, note.bytes, note.skipped, note.gaps, note.last_error_at) == (5, 6, 7, 8, 9.0)


@pytest.mark.parametrize("place", [(1, 2, 3), (LARGEST[0], 0, -1), LARGEST, None])
def test_given_a_place_when_noted_then_it_is_read_again(place: tuple[int, int, int] | None) -> None:
    note = decode(encode(of(), place=place))
    assert note is not None
    assert note.place == place


def test_given_earlier_lives_when_noted_then_counts_are_of_all() -> None:
    note = decode(encode(of(messages=5, bytes=50, gaps=1), Totals(messages=10, bytes=100, skipped=2, gaps=3)))
    assert note is not None
    assert note.totals == Totals(messages=15, bytes=150, skipped=2, gaps=4)


def test_given_long_texts_when_noted_then_the_ends_that_tell_most_are_kept() -> None:
    note = decode(encode(of(topic="persistent://" + "t" * 300 + "/end", error="begin " + "e" * 300)))
    assert note is not None
    assert note.topic.startswith(CUT)
    assert note.topic.endswith("/end")
    assert note.last_error.startswith("begin")
    assert note.last_error.endswith(CUT)


@given(topic=st.text(min_size=1).filter(lambda text: not text.split() or text.split() == [text]), error=st.text(), count=COUNTS)
def test_given_whatever_when_noted_then_it_fits(topic: str, error: str, count: int) -> None:
    report = of(topic=topic, error=error, messages=count, bytes=count, skipped=count, gaps=count, last_error_at=count)
    assert len(encode(report, Totals(count, count, count, count), LARGEST)) <= METADATA_BYTES_MAX


@pytest.mark.parametrize(
    "metadata",
    [
        b"",
        b"p1",
        b"7@8",
        b"p1 walking 1 2 3 4 5 - t e",
        b"p1 running a 2 3 4 5 - t e",
        b"p1 running 1 2 3 4 5 1:2 t e",
        b"\xff" * 20,
    ],
)
def test_given_what_no_mirror_has_left_when_read_then_none(metadata: bytes) -> None:
    assert decode(metadata) is None
