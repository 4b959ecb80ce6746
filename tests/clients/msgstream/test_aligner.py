"""Packs between ticks: each sentence of contract §7 on the time-tick stream, as an example.

A log is written as text: ``3`` a message that ends at 3, ``2-8`` one that begins at 2, ``|5`` a tick. The place of an entry is
its index; a message is shown as channel:end, with a ``!`` when it is late.
"""

import json

import pytest

from rocksmq.clients.msgstream.aligner import TickAligner
from rocksmq.clients.msgstream.types import MsgPack, MsgPosition, MsgType, StreamGap, TsMsg
from rocksmq.protocol.errors import BufferFull, InvalidRequest

MAX = (1 << 64) - 1
PLENTY = 1 << 30


class Data(TsMsg):
    type = MsgType.INSERT


class Tick(TsMsg):
    type = MsgType.TIME_TICK


class Sync(TsMsg):
    type = MsgType.TIME_SYNC


def read(channel: str, log: str, start: int = 0) -> list[TsMsg]:
    msgs: list[TsMsg] = []
    for place, entry in enumerate(log.split(), start):
        begin_ts, _, end_ts = entry.lstrip("|").partition("-")
        msg = (Tick if entry.startswith("|") else Data)(place, int(begin_ts), int(end_ts or begin_ts), [0])
        msg.read_at(channel, str(place))
        msgs.append(msg)
    return msgs


def feed(aligner: TickAligner, channel: str, log: str, start: int = 0, size: int | None = None) -> None:
    """What stands in the log from its place ``start`` on; 10 bytes an entry."""
    msgs = read(channel, log, start)
    places = range(start, start + len(msgs))
    aligner.feed(channel, msgs, places, start + len(msgs), 10 * len(msgs) if size is None else size)


def reading(**logs: str) -> TickAligner:
    """An aligner at the beginning of these channels that was fed all of their logs."""
    return reading_at_most(PLENTY, PLENTY, **logs)


def reading_at_most(messages_max: int, bytes_max: int, **logs: str) -> TickAligner:
    aligner = TickAligner(messages_max=messages_max, bytes_max=bytes_max)
    for channel in logs:
        aligner.add(channel, None, 0)
    for channel, log in logs.items():
        feed(aligner, channel, log)
    return aligner


def sought(positions: list[MsgPosition], **logs: str) -> TickAligner:
    """A fresh aligner that reads these logs from those positions on."""
    aligner = TickAligner(messages_max=PLENTY, bytes_max=PLENTY)
    for position in positions:
        aligner.add(position.channel_name, int(position.msg_id) if position.msg_id else None, position.timestamp_filter)
    for position in positions:
        start = int(position.msg_id or "0")
        feed(aligner, position.channel_name, " ".join(logs[position.channel_name].split()[start:]), start)
    return aligner


def shown(pack: MsgPack) -> tuple[int, int, str]:
    """Its range and its messages."""
    names = [f"{msg.position and msg.position.channel_name}:{msg.end_ts}{'!' if msg.late else ''}" for msg in pack.msgs]
    return pack.begin_ts, pack.end_ts, " ".join(names)


def packs(aligner: TickAligner) -> list[tuple[int, int, str]]:
    return [shown(pack) for pack in all_packs(aligner)]


def all_packs(aligner: TickAligner) -> list[MsgPack]:
    return list(iter(aligner.pack, None))


def test_given_a_tick_on_every_channel_when_packed_then_each_gives_what_ends_up_to_the_lowest() -> None:
    assert packs(reading(a="3 4 |5", b="1 |7")) == [(0, 5, "a:3 a:4 b:1")]


def test_given_a_channel_without_a_tick_when_packed_then_there_is_none_until_it_was_read() -> None:
    aligner = reading(a="3 |5", b="1")
    assert aligner.pack() is None
    assert aligner.wanted() == [("b", 1)]
    feed(aligner, "b", "|5", 1)
    assert packs(aligner) == [(0, 5, "a:3 b:1")]


def test_given_no_channel_when_packed_then_there_is_no_pack() -> None:
    aligner = reading()
    assert (aligner.pack(), aligner.wanted(), aligner.stalled, aligner.positions) == (None, [], [], [])


def test_given_ticks_of_one_channel_between_those_of_another_when_packed_then_a_pack_ends_at_each_tick_of_either() -> None:
    assert [end for _, end, _ in packs(reading(a="|10 |20 |30", b="|10 |30"))] == [10, 20, 30]


def test_given_a_message_behind_the_tick_that_is_not_its_own_when_packed_then_it_waits_for_the_next() -> None:
    """Ends and arrivals as in the original's vector: what is behind the cut waits, even when it was read and is old enough."""
    assert packs(reading(a="1 |5 3 |10", b="2 |10")) == [(0, 5, "a:1 b:2"), (5, 10, "a:3!")]


def test_given_a_message_behind_a_cut_above_the_end_when_packed_then_it_waits_though_it_was_read() -> None:
    """Else the pack would depend on how far the channel happened to be read."""
    logs = {"a": "|30 8 |40", "b": "|10 |30 |40"}
    assert packs(reading(**logs)) == [(0, 10, ""), (10, 30, ""), (30, 40, "a:8!")]


def test_given_a_message_that_ends_above_the_tick_when_packed_then_it_waits_for_its_end_and_begins_where_it_likes() -> None:
    assert packs(reading(a="3 4-8 |5 |10")) == [(0, 5, "a:3"), (5, 10, "a:8")]


def test_given_ends_equal_to_a_tick_when_packed_then_they_belong_to_the_pack_that_ends_there() -> None:
    assert packs(reading(a="5 6 |5 |6")) == [(0, 5, "a:5"), (5, 6, "a:6")]


def test_given_messages_that_end_at_or_below_the_begin_when_packed_then_they_are_late_and_counted() -> None:
    pack = all_packs(reading(a="1 |5 5 4 6 |9"))[1]
    assert shown(pack) == (5, 9, "a:5! a:4! a:6")
    assert pack.late_count == 2


def test_given_a_message_that_was_late_elsewhere_when_it_is_on_time_here_then_it_is_not_late() -> None:
    """Messages of an in-memory transport are the very objects."""
    aligner = TickAligner(messages_max=PLENTY, bytes_max=PLENTY)
    aligner.add("a", None, 0)
    msgs = read("a", "3 |5")
    msgs[0].late = True
    aligner.feed("a", msgs, range(2), 2, 20)
    assert packs(aligner) == [(0, 5, "a:3")]


@pytest.mark.parametrize("ticks", ["|5 |5 |9", "|5 |3 |9", "|0 |5 |0 |9", "|5 |5 |4 |5 |9"])
def test_given_ticks_that_do_not_exceed_the_last_end_when_packed_then_they_are_ignored(ticks: str) -> None:
    assert packs(reading(a=ticks)) == [(0, 5, ""), (5, 9, "")]


def test_given_a_tick_of_0_when_packed_then_it_is_none() -> None:
    """Case 111 of the original."""
    assert reading(a="|0", b="|0").pack() is None
    assert packs(reading(a="|0 1 |5", b="|0 3 |5")) == [(0, 5, "a:1 b:3")]


def test_given_a_message_that_ends_at_0_when_packed_then_it_is_delivered_late() -> None:
    assert packs(reading(a="0 |5")) == [(0, 5, "a:0!")]


def test_given_the_largest_timestamps_when_packed_then_they_are_as_any() -> None:
    assert packs(reading(a=f"{MAX} {MAX - 1} |{MAX - 1} |{MAX}")) == [(0, MAX - 1, f"a:{MAX - 1}"), (MAX - 1, MAX, f"a:{MAX}")]


def test_given_a_pack_without_messages_when_made_then_its_positions_advance() -> None:
    """Case 127 of the original."""
    first, second = all_packs(reading(a="|5 |9"))
    assert (shown(first), shown(second)) == ((0, 5, ""), (5, 9, ""))
    assert second.start_positions == first.end_positions == [MsgPosition("a", "0", 5)]
    assert second.end_positions == [MsgPosition("a", "1", 9)]


def test_given_a_time_sync_when_packed_then_it_is_delivered_and_ends_nothing() -> None:
    aligner = TickAligner(messages_max=PLENTY, bytes_max=PLENTY)
    aligner.add("a", None, 0)
    aligner.feed("a", [Sync(0, 3, 3, [0]), Tick(1, 5, 5, [0])], range(2), 2, 20)
    pack = aligner.pack()
    assert pack is not None
    assert [msg.type for msg in pack.msgs] == [MsgType.TIME_SYNC]


def test_given_channels_when_packed_then_they_come_as_they_were_added_and_messages_as_in_the_log() -> None:
    assert packs(reading(b="3 1 2 |5", a="4 1 |5")) == [(0, 5, "b:3 b:1 b:2 a:4 a:1")]


def test_given_a_channel_read_from_its_beginning_when_packed_then_the_first_start_position_has_no_id() -> None:
    aligner = reading(a="1 |5")
    assert aligner.positions == [MsgPosition("a", "", 0)]
    assert all_packs(aligner)[0].start_positions == [MsgPosition("a", "", 0)]


def test_given_messages_left_before_the_cut_when_packed_then_the_end_position_is_the_first_of_them_else_the_tick() -> None:
    pack = all_packs(reading(a="1 9 2 8 |5", b="1 |7 3"))[0]
    assert pack.end_positions == [MsgPosition("a", "1", 5), MsgPosition("b", "1", 5)]


LOGS = {"a": "1 9 |3 4 2 |5 25 |12 6 |12 13 |30", "b": "3 2-11 |5 5 |12 12 14 |11 1 |30 31"}


def test_given_end_positions_when_sought_then_the_very_packs_that_follow_are_made_again() -> None:
    made = all_packs(reading(**LOGS))
    assert [pack.end_ts for pack in made] == [3, 5, 12, 30]
    for number, pack in enumerate(made):
        positions = [MsgPosition(**fields) for fields in json.loads(json.dumps([at._asdict() for at in pack.end_positions]))]
        again = all_packs(sought(positions, **LOGS))
        assert [(shown(one), one.start_positions, one.end_positions) for one in again] == [
            (shown(one), one.start_positions, one.end_positions) for one in made[number + 1 :]
        ]


def test_given_start_positions_when_sought_then_the_pack_is_delivered_again() -> None:
    """Case 113 of the original: and with the BeginTs that it had, not 0."""
    made = all_packs(reading(**LOGS))
    for number, pack in enumerate(made):
        assert packs(sought(pack.start_positions, **LOGS)) == [shown(one) for one in made[number:]]


def test_given_a_seek_when_read_then_it_drops_what_ends_up_to_the_filter_before_the_first_tick_at_or_above_it() -> None:
    assert packs(sought([MsgPosition("a", "1", 5)], a="9 4 6 5 |4 3 |5 5 2 |7")) == [(5, 7, "a:6 a:5! a:2!")]


def test_given_a_first_tick_above_the_filter_when_sought_then_it_ends_the_next_pack() -> None:
    assert packs(sought([MsgPosition("a", "0", 5)], a="4 6 |7 1 |8")) == [(5, 7, "a:6"), (7, 8, "a:1!")]


def test_given_positions_with_different_filters_when_sought_then_the_first_pack_begins_at_the_greatest() -> None:
    aligner = sought([MsgPosition("a", "0", 5), MsgPosition("b", "0", 8)], a="4 6 |5 3 |7 9 |10", b="7 9 |8 |12")
    assert aligner.end_ts == 8
    assert packs(aligner) == [(8, 10, "a:6! a:3! a:9 b:9")]


def test_given_a_position_without_a_filter_when_sought_then_nothing_is_dropped() -> None:
    assert packs(sought([MsgPosition("a", "1", 0)], a="1 2 0 |5")) == [(0, 5, "a:2 a:0!")]


def test_given_pieces_of_any_size_when_fed_then_packs_are_the_same() -> None:
    whole = packs(reading(**LOGS))
    for count in range(1, 12):
        aligner = TickAligner(messages_max=PLENTY, bytes_max=PLENTY)
        aligner.add("a", None, 0)
        aligner.add("b", None, 0)
        made: list[tuple[int, int, str]] = []
        while len(made) < len(whole):
            for channel, place in aligner.wanted():
                entries = LOGS[channel].split()[place or 0 :][:count]
                feed(aligner, channel, " ".join(entries), place or 0)
            made += packs(aligner)
        assert made == whole


def test_given_a_silent_channel_when_it_is_left_out_then_packs_go_on_without_it_and_it_keeps_its_position() -> None:
    aligner = reading(a="1 |5 6 |9 |12", b="2 3 |4 4 8")
    assert packs(aligner) == [(0, 4, "a:1 b:2 b:3")]
    assert aligner.stalled == ["b"]
    aligner.leave_out("b")
    first, second, third = all_packs(aligner)
    assert [shown(pack) for pack in (first, second, third)] == [(4, 5, ""), (5, 9, "a:6"), (9, 12, "")]
    assert [pack.end_positions[1] for pack in (first, third)] == [MsgPosition("b", "2", 4)] * 2
    assert aligner.stalled == ["b"]
    assert aligner.wanted() == [("a", 5), ("b", 5)]


def test_given_a_channel_left_out_when_it_has_a_tick_above_the_last_end_then_it_is_back_and_what_it_had_is_late() -> None:
    aligner = reading(a="|5 |9", b="4")
    aligner.leave_out("b")
    assert packs(aligner) == [(0, 5, ""), (5, 9, "")]
    feed(aligner, "b", "|9 10 |12", 1)
    feed(aligner, "a", "|11 |20", 2)
    assert aligner.stalled == []
    assert packs(aligner) == [(9, 11, "b:4! b:10"), (11, 12, "")]
    assert aligner.stalled == ["b"]


def test_given_positions_of_packs_without_a_channel_when_sought_then_the_channel_goes_on_where_it_was() -> None:
    logs = {"a": "|5 |9 |12", "b": "3 6 |5 4 7 |12"}
    aligner = reading(a=logs["a"], b="3 6 |5 4 7")
    assert packs(aligner) == [(0, 5, "b:3")]
    aligner.leave_out("b")
    pack = all_packs(aligner)[0]
    assert pack.end_positions == [MsgPosition("a", "1", 9), MsgPosition("b", "1", 5)]
    assert packs(sought(pack.end_positions, **logs)) == [(9, 12, "b:6! b:4! b:7!")]


def test_given_a_channel_that_has_its_tick_when_left_out_then_it_counts_all_the_same() -> None:
    aligner = reading(a="1 |5", b="2 |5")
    aligner.leave_out("a")
    assert packs(aligner) == [(0, 5, "a:1 b:2")]


def test_given_that_all_channels_are_left_out_when_packed_then_there_is_no_pack() -> None:
    aligner = reading(a="1", b="2")
    assert aligner.stalled == []
    aligner.leave_out("a")
    aligner.leave_out("b")
    assert aligner.pack() is None
    assert aligner.stalled == ["a", "b"]


def test_given_an_added_channel_when_packed_then_what_it_has_up_to_the_last_end_is_late() -> None:
    aligner = reading(a="1 |5 |9")
    assert packs(aligner)[-1] == (5, 9, "")
    aligner.add("b", None, 0)
    feed(aligner, "a", "|12", 3)
    assert aligner.pack() is None
    feed(aligner, "b", "3 |4 9 10 |12")
    (pack,) = all_packs(aligner)
    assert shown(pack) == (9, 12, "b:3! b:9! b:10")
    assert pack.start_positions == [MsgPosition("a", "2", 9), MsgPosition("b", "", 0)]


@pytest.mark.parametrize(
    ("timestamp_filter", "expected"),
    [(7, [(7, 10, "a:6! b:9"), (10, 12, "a:11 b:11")]), (10, [(10, 12, "a:6! a:11 b:11")])],
)
def test_given_a_channel_added_with_a_filter_above_the_last_end_when_packed_then_it_goes_on_there_as_if_sought(
    timestamp_filter: int, expected: list[tuple[int, int, str]]
) -> None:
    """What it had delivered is known for its filter only, not for any earlier end."""
    logs = {"a": "1 |5 6 |7 11 |12", "b": "9 11 |10 |12"}
    aligner = reading(a=logs["a"])
    pack = aligner.pack()
    assert pack is not None
    aligner.add("b", 0, timestamp_filter)
    feed(aligner, "b", logs["b"])
    assert aligner.end_ts == timestamp_filter
    assert aligner.positions == [*pack.end_positions, MsgPosition("b", "0", timestamp_filter)]
    assert packs(sought(aligner.positions, **logs)) == expected
    assert packs(aligner) == expected


def test_given_a_channel_that_is_read_when_it_is_added_then_it_is_refused() -> None:
    aligner = reading(a="1")
    with pytest.raises(InvalidRequest, match="'a' is read already"):
        aligner.add("a", None, 0)


def test_given_a_channel_that_is_not_read_when_it_is_named_then_it_is_refused() -> None:
    aligner = reading(a="1")
    with pytest.raises(InvalidRequest, match="'b' is not read"):
        feed(aligner, "b", "1")
    with pytest.raises(InvalidRequest, match="'b' is not read"):
        aligner.leave_out("b")
    with pytest.raises(InvalidRequest, match="'b' is not read"):
        aligner.removed("b", StreamGap("b", 0, 1, None))


def test_given_a_removed_position_when_sought_then_the_gap_is_reported_once_and_nothing_is_filtered() -> None:
    """The tick up to which things were delivered may be gone too."""
    aligner = TickAligner(messages_max=PLENTY, bytes_max=PLENTY)
    aligner.add("a", 3, 5)
    gap = StreamGap("a", 3, 8, 5)
    aligner.removed("a", gap)
    feed(aligner, "a", "4 |6 |7", 8)
    first, second = all_packs(aligner)
    assert shown(first) == (5, 6, "a:4!")
    assert (first.gaps, second.gaps) == ([gap], [])


def test_given_a_gap_with_nothing_behind_it_when_fed_without_messages_then_it_is_read_on_behind_it() -> None:
    aligner = TickAligner(messages_max=PLENTY, bytes_max=PLENTY)
    aligner.add("a", None, 0)
    aligner.removed("a", StreamGap("a", 0, 8, None))
    aligner.feed("a", [], [], 8, 0)
    assert aligner.wanted() == [("a", 8)]


@pytest.mark.parametrize(("messages_max", "bytes_max"), [(4, PLENTY), (PLENTY, 40)])
def test_given_a_silent_channel_when_another_is_far_ahead_then_what_was_read_ahead_is_dropped_and_read_again(
    messages_max: int, bytes_max: int
) -> None:
    ahead = "1 |5 6 |7 8 |9"
    aligner = reading_at_most(messages_max, bytes_max, a=ahead, b="2")
    assert aligner.wanted() == [("b", 1)]
    feed(aligner, "a", "10", 6)  # it was under way when what stands before it was dropped
    feed(aligner, "b", "|5 |9", 1)
    assert packs(aligner) == [(0, 5, "a:1 b:2")]
    assert aligner.wanted() == [("a", 2)]
    feed(aligner, "a", "6 |7 8 |9", 2)
    assert packs(aligner) == [(5, 7, "a:6"), (7, 9, "a:8")]


def test_given_a_pack_that_can_be_made_when_the_buffer_is_over_full_then_nothing_is_dropped() -> None:
    aligner = reading_at_most(1, PLENTY, a="1 |5 6 |7 8 |9")
    assert aligner.wanted() == []
    assert packs(aligner) == [(0, 5, "a:1"), (5, 7, "a:6"), (7, 9, "a:8")]


@pytest.mark.parametrize(("messages_max", "bytes_max"), [(4, PLENTY), (PLENTY, 45)])
def test_given_held_messages_that_fill_the_buffer_when_read_on_then_it_is_said_and_nothing_is_lost(
    messages_max: int, bytes_max: int
) -> None:
    aligner = reading_at_most(messages_max, bytes_max, full="1 2 3 4 6 7 |5", b="|5")
    with pytest.raises(BufferFull) as raised:
        aligner.wanted()
    for told in ("'full' holds 4", "40 bytes", str(messages_max), str(bytes_max), "above 0", "time-out"):
        assert told in str(raised.value)
    assert aligner.wanted() == [("full", 4)]  # to read on where it did not fit


def test_given_a_full_buffer_when_it_is_read_again_then_a_tick_that_comes_before_what_does_not_fit_heals_it() -> None:
    aligner = reading_at_most(2, PLENTY, a="1 2 3", b="|5")
    with pytest.raises(BufferFull):
        aligner.wanted()
    assert aligner.wanted() == [("a", 2)]
    feed(aligner, "a", "|5 3 |9", 2)
    assert packs(aligner) == [(0, 5, "a:1 a:2")]


def test_given_a_full_buffer_when_more_is_fed_then_each_time_it_is_said_once() -> None:
    aligner = reading_at_most(2, PLENTY, a="1 2 3", b="|5")
    for _ in range(3):
        with pytest.raises(BufferFull):
            aligner.wanted()
        assert aligner.wanted() == [("a", 2)]
        feed(aligner, "a", "3 4 |5", 2)


@pytest.mark.parametrize(("messages_max", "bytes_max"), [(4, PLENTY), (PLENTY, 40)])
def test_given_a_channel_that_fills_the_buffer_when_another_needs_a_tick_then_its_even_share_is_read_all_the_same(
    messages_max: int, bytes_max: int
) -> None:
    aligner = reading_at_most(messages_max, bytes_max, full="8 8 8 8 |9", b="1")
    assert aligner.wanted() == [("b", 1)]
    feed(aligner, "b", "2 |5 6 |9", 1)
    assert packs(aligner) == [(0, 5, "b:1 b:2"), (5, 9, "full:8 full:8 full:8 full:8 b:6")]


def test_given_a_message_larger_than_the_buffer_when_read_then_it_is_taken_alone() -> None:
    aligner = TickAligner(messages_max=PLENTY, bytes_max=5)
    aligner.add("a", None, 0)
    feed(aligner, "a", "1 |5")
    assert packs(aligner) == [(0, 5, "a:1")]


def test_given_a_full_channel_that_is_left_out_when_the_others_go_on_then_it_is_said_in_between() -> None:
    aligner = reading_at_most(2, PLENTY, a="1 2 3", b="|5")
    with pytest.raises(BufferFull):
        aligner.wanted()
    aligner.leave_out("a")
    assert packs(aligner) == [(0, 5, "")]
    assert aligner.wanted() == [("a", 2), ("b", 1)]
    feed(aligner, "a", "3", 2)
    with pytest.raises(BufferFull, match="'a' holds 2"):
        aligner.wanted()
    feed(aligner, "b", "|9", 1)
    assert packs(aligner) == [(5, 9, "")]


def test_given_many_silent_channels_when_the_buffer_is_full_then_some_are_named() -> None:
    aligner = reading_at_most(1, PLENTY, a="1 2", b="", c="", d="", e="")
    with pytest.raises(BufferFull, match="comes on 'a', 'b', 'c' and 2 more"):
        aligner.wanted()


def test_given_all_channels_left_out_and_full_when_read_on_then_it_is_said() -> None:
    aligner = reading_at_most(2, PLENTY, a="1 2 3", b="1 2 3")
    for name in "ab":
        aligner.leave_out(name)
    with pytest.raises(BufferFull, match="'a'"):
        aligner.wanted()
    assert [name for name, _ in aligner.wanted()] == ["a", "b"]
