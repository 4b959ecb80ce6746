"""Messages as users see them: packing what goes in, and the lazy batch that comes out (SPEC §4.2, §7.1)."""

from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rocksmq.protocol.batch import encode_headers, pack_lengths
from rocksmq.protocol.cbor import Gathered
from rocksmq.protocol.errors import InvalidRequest, LimitExceeded, ProtocolError
from rocksmq.protocol.messages import (
    Gap,
    Message,
    MessageBatch,
    Outgoing,
    OutgoingMessage,
    columns_of,
    milliseconds_of,
    outgoing_of,
    pack_messages,
    start_of,
    timestamp_of,
)
from rocksmq.protocol.operations import Messages, Position
from tests.protocol.strategies import columns, deterministic, outgoing, u32s, u64s

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FIRST_ID = 1_800_000_000_000 << 18
HEADED = OutgoingMessage(b"two", {"k": b"v"})


def runs_of(*runs: tuple[int, int]) -> bytes:
    return b"".join(first.to_bytes(8, "little") + count.to_bytes(4, "little") for first, count in runs)


def reply_of(messages: list[Outgoing], *runs: tuple[int, int], gap: Any = None) -> Messages:
    return Messages(FIRST_ID + 1_000, 1_000, 5, gap, runs_of(*runs), *pack_messages(messages))


def content_of(message: Outgoing) -> tuple[bytes, dict[str, bytes]]:
    if isinstance(message, OutgoingMessage):
        return bytes(message.payload), dict(message.headers or {})
    return bytes(message), {}


# -- packing ---------------------------------------------------------------------


def test_given_nothing_when_packed_then_the_batch_is_empty() -> None:
    assert pack_messages([]) == (0, b"", b"", None, None)
    assert pack_messages(iter(())) == (0, b"", b"", None, None)


@pytest.mark.parametrize(
    "messages",
    [
        [b"one", b"two"],
        (b"one", b"two"),
        [bytearray(b"one"), memoryview(b"two")],
        [OutgoingMessage(b"one"), OutgoingMessage(b"two", {})],
    ],
)
def test_given_payloads_without_headers_when_packed_then_there_are_no_header_columns(messages: Any) -> None:
    assert pack_messages(messages) == (2, pack_lengths([3, 3]), b"onetwo", None, None)


def test_given_headers_on_one_message_when_packed_then_the_others_have_none() -> None:
    batch = pack_messages([b"one", HEADED])
    assert batch == (2, pack_lengths([3, 3]), b"onetwo", pack_lengths([0, 5]), b"\xa1\x61k\x41v")


def test_given_common_headers_when_packed_then_they_go_on_each_message_that_names_none() -> None:
    messages: list[Outgoing] = [b"1", HEADED, OutgoingMessage(b"3"), OutgoingMessage(b"4", {})]
    batch = MessageBatch(Messages(0, None, 0, None, runs_of((1, 4)), *pack_messages(messages, {"c": b"ommon"})))
    assert [message.headers for message in batch] == [{"c": b"ommon"}, {"k": b"v"}, {"c": b"ommon"}, {}]


@pytest.mark.parametrize("wrong", ["text", 7, None, [b"x"], OutgoingMessage("text")])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
def test_given_a_payload_that_is_not_bytes_when_packed_then_it_is_a_type_error(wrong: Any) -> None:
    with pytest.raises(TypeError, match="a payload is bytes-like"):
        pack_messages([b"fine", wrong])


def test_given_headers_beyond_the_limits_when_packed_then_they_are_refused() -> None:
    with pytest.raises(LimitExceeded, match="headers_max"):
        pack_messages([b"x"], {str(number): b"" for number in range(65)})
    with pytest.raises(InvalidRequest, match="names are str"):
        pack_messages([OutgoingMessage(b"x", {"k": "v"})])  # type: ignore[dict-item]  # pyright: ignore[reportArgumentType]


def test_given_a_mutable_payload_when_packed_then_later_changes_do_not_reach_the_batch() -> None:
    payload = bytearray(b"before")
    batch = pack_messages([payload])
    payload[:] = b"after!"
    assert batch.payloads == b"before"


# -- the batch that comes out ----------------------------------------------------


@deterministic
@given(st.lists(outgoing, max_size=20), st.data())
def test_given_any_messages_when_packed_and_read_then_they_come_back_in_order(
    messages: list[Outgoing], data: st.DataObject
) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(1, max(1, len(messages) - 1)), max_size=3))) if len(messages) > 1 else []
    bounds = [0, *cuts, len(messages)] if messages else []
    runs = [(FIRST_ID + 1_000 * begin, end - begin) for begin, end in pairwise(bounds)]
    batch = MessageBatch(reply_of(messages, *runs))
    assert len(batch) == len(messages)
    assert [(message.payload, message.headers) for message in batch] == [content_of(message) for message in messages]
    assert [message.id for message in batch] == [first + i for first, count in runs for i in range(count)]
    assert list(batch.ids) == [message.id for message in batch]
    assert batch.payloads == [message.payload for message in batch]
    assert [batch[index] for index in range(-len(batch), len(batch))] == [*batch, *batch]


def test_given_gathered_columns_when_read_then_they_are_joined() -> None:
    whole = reply_of([b"one", HEADED, b""], (1, 3))
    pieces: list[Any] = [
        Gathered((column[:1], column[1:]), len(column)) if isinstance(column, bytes) else column for column in whole[6:]
    ]
    assert list(MessageBatch(Messages(*whole[:6], *pieces))) == list(MessageBatch(whole))


def test_given_views_of_a_buffer_when_read_then_the_batch_keeps_its_own_copy() -> None:
    reply = reply_of([b"one", HEADED], (1, 2))
    sent: list[Any] = [*reply[6:]]
    buffers = [bytearray(column) for column in sent]
    views: list[Any] = [memoryview(buffer) for buffer in buffers]
    batch = MessageBatch(Messages(*reply[:6], *views))
    for buffer in buffers:
        buffer[:] = bytes(len(buffer))
    assert list(batch) == [Message(1, b"one", {}), Message(2, b"two", {"k": b"v"})]


def test_given_a_batch_when_indexed_as_a_sequence_then_it_behaves_like_a_list() -> None:
    batch = MessageBatch(reply_of([b"a", HEADED, b"c"], (10, 1), (20, 2)))
    messages = [Message(10, b"a", {}), Message(20, b"two", {"k": b"v"}), Message(21, b"c", {})]
    assert batch[0:2] == messages[:2]
    assert batch[::-1] == messages[::-1]
    assert batch[-1] == messages[-1]
    assert messages[1] in batch
    assert batch.index(messages[2]) == 2
    for index in (3, -4):
        with pytest.raises(IndexError):
            batch[index]


def test_given_an_empty_reply_when_read_then_the_batch_is_false_and_says_where_to_go_on() -> None:
    batch = MessageBatch(Messages(7, 3, 5, None, b"", 0, b"", b"", None, None))
    assert not batch
    assert (list(batch), list(batch.ids), batch.payloads) == ([], [], [])
    assert (batch.next_position, batch.next_offset, batch.generation, batch.gap) == (7, 3, 5, None)
    assert repr(batch) == "<MessageBatch of 0 messages, next_position 7>"


def test_given_a_gap_when_read_then_it_is_named() -> None:
    assert MessageBatch(reply_of([], gap=[1, 9, 3])).gap == Gap(from_id=1, to_id=9, message_count=3)
    assert MessageBatch(reply_of([], gap=[1, 9, None])).gap == Gap(1, 9, None)


@deterministic
@given(st.lists(outgoing, max_size=8), st.data())
def test_given_any_part_of_a_batch_when_taken_then_it_is_a_batch_of_those_messages(
    messages: list[Outgoing], data: st.DataObject
) -> None:
    cut = data.draw(st.integers(1, len(messages) - 1)) if len(messages) > 1 else len(messages)
    runs = [(first, count) for first, count in ((10, cut), (100, len(messages) - cut)) if count]
    batch = MessageBatch(reply_of(messages, *runs, gap=[1, 9, 3]))
    begin = data.draw(st.integers(0, len(messages)))
    end = data.draw(st.integers(begin, len(messages)))
    part = batch.part(begin, end)
    assert list(part) == list(batch)[begin:end]
    assert [part[index] for index in range(len(part))] == list(part)
    assert (part.payloads, list(part.ids)) == (batch.payloads[begin:end], list(batch.ids)[begin:end])
    assert part.next_position == (batch.ids[end] if end < len(batch) else batch.next_position)
    assert part.next_offset == 1_000 - len(batch) + end
    assert part.gap == (batch.gap if begin == 0 else None)
    assert part.generation == batch.generation
    inner = part.part(0, len(part) // 2)
    assert list(inner) == list(part)[: len(part) // 2]
    assert len(batch) == len(messages)  # it stays as it was


def test_given_no_messages_when_an_empty_batch_is_made_then_it_says_where_to_go_on() -> None:
    assert (MessageBatch.empty().next_position, MessageBatch.empty().generation, len(MessageBatch.empty())) == (0, 0, 0)
    batch = MessageBatch.empty(7, 5)
    assert (list(batch), list(batch.ids), batch.gap, batch.next_position, batch.generation) == ([], [], None, 7, 5)


def test_given_messages_that_were_encoded_before_when_packed_then_the_columns_are_the_same() -> None:
    encoded = encode_headers({"k": b"v"})
    assert columns_of([b"one", (b"two", encoded)]) == pack_messages([b"one", HEADED])
    assert columns_of([b"one", (b"two", b"")]) == pack_messages([b"one", b"two"])
    assert columns_of([]) == pack_messages([])
    assert outgoing_of(b"one") == OutgoingMessage(b"one")
    assert outgoing_of((b"two", encoded)) == HEADED


@pytest.mark.parametrize("size", [1, 11, 13, 23])
def test_given_runs_that_are_cut_off_when_read_then_it_is_a_protocol_error(size: int) -> None:
    reply = reply_of([b"a"], (1, 1))
    with pytest.raises(ProtocolError):
        MessageBatch(reply._replace(runs=runs_of((1, 1), (2, 1))[:size]))


@pytest.mark.parametrize(
    "change",
    [
        {"runs": b""},
        {"runs": runs_of((1, 1))},
        {"runs": runs_of((1, 2), (3, 1))},
        {"message_count": 1},
        {"message_count": 2**32 - 1},
        {"lengths": pack_lengths([3])},
        {"lengths": bytes(9)},
        {"lengths": pack_lengths([3, 4])},
        {"lengths": pack_lengths([2**32 - 1, 2**32 - 1])},
        {"payloads": b"onetw"},
        {"payloads": b"onetwo!"},
        {"payloads": b""},
    ],
)
def test_given_columns_that_do_not_add_up_when_read_then_it_is_a_protocol_error(change: dict[str, Any]) -> None:
    reply = reply_of([b"one", b"two"], (1, 2))
    assert len(MessageBatch(reply)) == 2
    with pytest.raises(ProtocolError, match="do not add up"):
        MessageBatch(reply._replace(**change))


@pytest.mark.parametrize(
    "change", [{"header_lengths": bytes(4)}, {"header_lengths": pack_lengths([0, 9])}, {"headers": b"\xa0"}, {"headers": b""}]
)
def test_given_header_columns_that_do_not_add_up_when_headers_are_read_then_it_is_a_protocol_error(
    change: dict[str, Any],
) -> None:
    batch = MessageBatch(reply_of([b"one", HEADED], (1, 2))._replace(**change))
    assert batch.payloads == [b"one", b"two"]
    with pytest.raises(ProtocolError, match="do not add up"):
        batch.headers_of(0)


@pytest.mark.parametrize("change", [{"header_lengths": None}, {"headers": None}])
def test_given_one_of_two_header_columns_when_read_then_it_is_a_protocol_error(change: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError, match="headers come without their lengths"):
        MessageBatch(reply_of([b"one", HEADED], (1, 2))._replace(**change))


def test_given_headers_of_a_careless_sender_when_read_then_only_that_message_fails() -> None:
    reply = Messages(
        3, None, 0, None, runs_of((1, 2)), 2, pack_lengths([1, 1]), b"ab", pack_lengths([1, 5]), b"\xff\xa1\x61k\x41v"
    )
    batch = MessageBatch(reply)
    with pytest.raises(ProtocolError):
        batch.headers_of(0)
    assert batch[1] == Message(2, b"b", {"k": b"v"})
    assert batch.payloads == [b"a", b"b"]


@deterministic
@given(st.tuples(columns, st.integers(0, 4) | u32s, columns, columns, st.none() | columns, st.none() | columns))
def test_given_any_columns_when_read_then_a_batch_or_a_protocol_error(found: tuple[Any, ...]) -> None:
    try:
        batch = MessageBatch(Messages(0, None, 0, None, *found))
        assert len(list(batch)) == found[1]
    except ProtocolError:
        return


# -- times and positions ---------------------------------------------------------


def test_given_an_id_when_asked_for_its_time_then_it_is_exact_to_the_millisecond() -> None:
    moment = datetime(2027, 1, 15, 8, 0, 0, 1_000, tzinfo=UTC)
    assert timestamp_of((1_800_000_000_001 << 18) + 262_143) == moment
    assert Message(1_800_000_000_001 << 18, b"", {}).timestamp == moment
    assert timestamp_of(0) == EPOCH
    assert timestamp_of(2**64 - 1).year == 4199


@deterministic
@given(st.datetimes(timezones=st.timezones(), min_value=datetime(1970, 1, 3), max_value=datetime(4000, 1, 1)))
def test_given_any_moment_when_turned_to_milliseconds_then_it_is_the_first_not_before_it(moment: datetime) -> None:
    found = milliseconds_of(moment)
    assert timestamp_of(found << 18) >= moment
    assert timestamp_of((found - 1) << 18) < moment


def test_given_a_moment_before_1970_when_turned_to_milliseconds_then_it_is_0() -> None:
    assert milliseconds_of(EPOCH - timedelta(days=1)) == 0
    assert milliseconds_of(EPOCH) == 0
    assert milliseconds_of(EPOCH + timedelta(microseconds=1)) == 1


@pytest.mark.parametrize("moment", [datetime(2027, 1, 1), datetime.max])
def test_given_a_moment_without_a_time_zone_when_used_then_it_is_refused(moment: datetime) -> None:
    with pytest.raises(InvalidRequest, match="needs a time zone"):
        start_of(moment)


@pytest.mark.parametrize(
    ("start", "kind", "value"),
    [
        ("earliest", Position.EARLIEST, 0),
        ("latest", Position.LATEST, 0),
        (0, Position.ID, 0),
        (2**64 - 1, Position.ID, 2**64 - 1),
        (datetime(1970, 1, 1, 1, 0, 0, 1, tzinfo=timezone(timedelta(hours=1))), Position.TIME_MS, 1),
    ],
)
def test_given_a_start_when_translated_then_kind_and_value_are_those_of_the_wire(
    start: Any, kind: Position, value: int
) -> None:
    assert start_of(start) == (kind, value)


@pytest.mark.parametrize("start", [-1, 2**64, True, 1.0, "first", "", None, b"earliest", [1]])
def test_given_another_start_when_translated_then_it_is_refused(start: Any) -> None:
    with pytest.raises(InvalidRequest, match="is no position"):
        start_of(start)


@deterministic
@given(u64s)
def test_given_any_id_when_used_as_start_then_it_is_itself(message_id: int) -> None:
    assert start_of(message_id) == (Position.ID, message_id)
