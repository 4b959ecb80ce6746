"""The seven messages and their payloads (contract §7): what is refused, what is read, and what a payload looks like."""

import os
import subprocess
import sys
from collections.abc import Callable
from copy import copy
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rocksmq.clients.msgstream import messages_pb2 as pb
from rocksmq.clients.msgstream.header import Header, Undecodable, header_of, pack_header
from rocksmq.clients.msgstream.messages import (
    MESSAGE_CLASSES,
    DeleteMsg,
    InsertMsg,
    SearchMsg,
    SearchResultMsg,
    SegStatisticsMsg,
    TimeSyncMsg,
    TimeTickMsg,
)
from rocksmq.clients.msgstream.types import ID_MIN, TIMESTAMP_MAX, MsgType, TsMsg
from rocksmq.protocol.errors import InvalidRequest
from tests.protocol.strategies import deterministic

from .message_strategies import inserts, messages

INSERT: dict[str, Any] = {"id": 7, "timestamps": [30, 10], "row_ids": [1, 2], "rows": [b"a", b"b"], "hash_keys": [5, 6]}
DELETE: dict[str, Any] = {"id": 7, "timestamps": [30, 10], "primary_keys": [1, 2], "hash_keys": [5, 6]}
SEARCH: dict[str, Any] = {"id": 7, "timestamp": 30, "payload": b"p", "hash_keys": [5]}
TICK: dict[str, Any] = {"timestamp": 30, "id": 7, "hash_keys": [5]}
ARGUMENTS: dict[type[TsMsg], dict[str, Any]] = {
    InsertMsg: INSERT,
    DeleteMsg: DELETE,
    SearchMsg: SEARCH,
    SearchResultMsg: SEARCH,
    SegStatisticsMsg: SEARCH,
    TimeTickMsg: TICK,
    TimeSyncMsg: TICK,
}
EVERY_CLASS = pytest.mark.parametrize("kind", MESSAGE_CLASSES, ids=lambda kind: kind.__name__)


def made(kind: type[Any], **changes: Any) -> Any:
    return kind(**{**ARGUMENTS[kind], **changes})


def of_one_row(kind: type[Any]) -> Any:
    columns = {"timestamps", "row_ids", "rows", "primary_keys", "hash_keys"} & set(ARGUMENTS[kind])
    return made(kind, **{name: ARGUMENTS[kind][name][:1] for name in columns})


# What a message is


@EVERY_CLASS
def test_given_a_class_when_made_by_keyword_or_by_order_then_the_attributes_are_the_arguments(kind: type[Any]) -> None:
    by_keyword = made(kind)
    assert {name: getattr(by_keyword, name) for name in ARGUMENTS[kind]} == ARGUMENTS[kind]
    assert kind(*ARGUMENTS[kind].values()) == by_keyword


def test_given_the_classes_when_listed_then_each_type_has_one() -> None:
    assert {kind.type for kind in MESSAGE_CLASSES} == set(MsgType)


def test_given_a_tick_when_only_its_time_is_said_then_the_rest_is_zero() -> None:
    for kind in (TimeTickMsg, TimeSyncMsg):
        msg = kind(5)
        assert (msg.timestamp, msg.begin_ts, msg.end_ts, msg.id, msg.hash_keys) == (5, 5, 5, 0, [0])


@pytest.mark.parametrize("kind", [InsertMsg, DeleteMsg])
def test_given_rows_when_asked_for_its_range_then_it_is_the_least_and_the_greatest_timestamp(kind: type[Any]) -> None:
    assert (made(kind).begin_ts, made(kind).end_ts) == (10, 30)


@EVERY_CLASS
def test_given_a_message_when_its_time_is_set_then_all_its_timestamps_are_that(kind: type[Any]) -> None:
    msg = made(kind)
    msg.set_ts(99)
    assert (msg.begin_ts, msg.end_ts) == (99, 99)
    assert msg.timestamps == [99, 99] if "timestamps" in ARGUMENTS[kind] else msg.timestamp == 99
    assert header_of(msg.marshal()) == Header(kind.type, 7, 99, 99)
    assert kind.unmarshal(msg.marshal()) == msg


@EVERY_CLASS
def test_given_messages_when_compared_then_content_counts_and_where_they_were_read_does_not(kind: type[Any]) -> None:
    one, other = made(kind), made(kind)
    other.late = True
    other.read_at("somewhere", "1")
    assert one == other
    assert one == copy(one)
    for name, value in ARGUMENTS[kind].items():
        changed: Any = {"payload": b"other", "rows": [b"a", b"c"]}.get(name, 8 if isinstance(value, int) else [8] * len(value))
        assert one != made(kind, **{name: changed})
    assert one != object()
    with pytest.raises(TypeError, match="unhashable"):
        hash(one)


def test_given_classes_of_equal_fields_when_compared_then_the_class_tells_them_apart() -> None:
    assert SearchMsg(**SEARCH) != SearchResultMsg(**SEARCH)
    assert TimeTickMsg(5) != TimeSyncMsg(5)


def test_given_a_message_when_shown_then_it_is_short_however_much_it_holds() -> None:
    big = InsertMsg(1, [7] * 1000, range(1000), [b"x" * 100] * 1000, range(1000))
    assert repr(big) == "InsertMsg(id=1, begin_ts=7, end_ts=7)"


def test_given_lists_when_a_message_was_made_of_them_then_it_has_its_own() -> None:
    stamps, rows = [1, 2], [b"a", b"b"]
    msg = made(InsertMsg, timestamps=stamps, rows=rows)
    stamps.append(3)
    rows.clear()
    assert (msg.timestamps, msg.rows) == ([1, 2], [b"a", b"b"])


def test_given_any_iterables_when_a_message_is_made_then_they_become_lists_of_ints_and_bytes() -> None:
    msg = InsertMsg(1, (n for n in (1, 2)), range(2), cast(list[bytes], [bytearray(b"a"), memoryview(b"b")]), b"\x05\x06")
    assert msg == InsertMsg(1, [1, 2], [0, 1], [b"a", b"b"], [5, 6])
    assert {type(row) for row in msg.rows} == {bytes}


# What is refused

WRONG: dict[str, list[Any]] = {
    "hash_keys": [[-1, 1], [1, 1 << 32], [1, 1.0], [1, "2"], None, 1],
    "id": [1 << 63, -(1 << 63) - 1, 1.0, "1", None, True],
    "timestamp": [-1, 1 << 64, 1.0, None],
    "timestamps": [[1, -1], [1, 1 << 64], [1, 1.0], [1, None], "12", None, 1, [1], [1, 2, 3], []],
    "row_ids": [[1, 1 << 63], [1, "2"], None, [1]],
    "primary_keys": [[1, 1 << 63], [1, "2"], None, [1]],
    "rows": [[b"a", "b"], [b"a", None], [b"a", 1], b"ab", "ab", None, [b"a"]],
    "payload": ["text", None, 5, [1]],
}


@EVERY_CLASS
def test_given_a_field_that_is_wrong_when_made_then_it_is_refused_by_name(kind: type[Any]) -> None:
    for name in ARGUMENTS[kind]:
        for value in WRONG[name]:
            with pytest.raises(InvalidRequest, match=rf"\b{name}\b"):
                made(kind, **{name: value})


def test_given_no_rows_when_made_then_it_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="at least one row"):
        InsertMsg(1, [], [], [], [])
    with pytest.raises(InvalidRequest, match="at least one row"):
        DeleteMsg(1, [], [], [])


@pytest.mark.parametrize("name", ["timestamps", "row_ids", "rows", "hash_keys"])
def test_given_a_column_that_was_changed_when_marshalled_then_it_is_refused_before_it_is_sent(name: str) -> None:
    msg = made(InsertMsg)
    getattr(msg, name).pop()
    with pytest.raises(InvalidRequest, match=name):
        msg.marshal()
    msg = made(InsertMsg)
    getattr(msg, name)[0] = None
    with pytest.raises(InvalidRequest, match="a field of InsertMsg"):
        msg.marshal()


@pytest.mark.parametrize(("name", "value"), [("timestamps", -1), ("row_ids", 1 << 63), ("rows", "text"), ("hash_keys", None)])
def test_given_one_row_that_was_changed_when_marshalled_then_it_is_refused_before_it_is_sent(name: str, value: Any) -> None:
    msg = InsertMsg(1, [2], [3], [b"row"], [4])
    getattr(msg, name)[0] = value
    with pytest.raises(InvalidRequest, match="a field of InsertMsg"):
        msg.marshal()
    msg = InsertMsg(1, [2], [3], [b"row"], [4])
    getattr(msg, name).append(value)
    with pytest.raises(InvalidRequest, match=name):
        msg.marshal()


def test_given_a_timestamp_that_was_changed_when_marshalled_then_the_header_tells_the_range_as_it_is() -> None:
    msg = made(InsertMsg)
    msg.timestamps[0] = 40
    assert header_of(msg.marshal()) == Header(400, 7, 10, 40)


# What a payload is


@deterministic
@given(messages)
@example(InsertMsg(ID_MIN, [0, TIMESTAMP_MAX], [0, 0], [b"", b""], [0, 0]))
@example(TimeTickMsg(0))
def test_given_any_message_when_marshalled_then_what_is_read_is_equal_and_the_header_tells_the_same(msg: TsMsg) -> None:
    payload = msg.marshal()
    assert type(msg).unmarshal(payload) == msg
    assert header_of(payload) == Header(msg.type, msg.id, msg.begin_ts, msg.end_ts)


@deterministic
@given(messages)
def test_given_any_payload_when_read_by_plain_protobuf_then_it_is_the_message_of_the_schema(msg: TsMsg) -> None:
    payload = msg.marshal()
    found = getattr(pb, type(msg).__name__).FromString(payload)
    header = found.header
    assert (header.type, header.id, header.begin_ts, header.end_ts) == (msg.type, msg.id, msg.begin_ts, msg.end_ts)
    assert list(found.hash_keys) == msg.hash_keys
    for name in ("timestamps", "row_ids", "rows", "primary_keys"):
        assert list(getattr(found, name, [])) == getattr(msg, name, [])
    assert getattr(found, "payload", None) == getattr(msg, "payload", None)
    found.ClearField("header")
    assert payload == pack_header(msg.type, msg.id, msg.begin_ts, msg.end_ts) + found.SerializeToString()


@deterministic
@given(messages)
def test_given_any_message_when_encoded_by_plain_protobuf_then_it_is_read_all_the_same(msg: TsMsg) -> None:
    found = getattr(pb, type(msg).__name__).FromString(msg.marshal())
    written = found.SerializeToString()  # zeros of the header are left out
    assert type(msg).unmarshal(written) == msg
    assert header_of(written) == header_of(msg.marshal())
    behind = found.__class__()
    behind.CopyFrom(found)
    behind.ClearField("header")
    header_last = behind.SerializeToString() + pb.AnyMsg(header=found.header).SerializeToString()
    assert type(msg).unmarshal(header_last) == msg


def test_given_a_payload_when_looked_at_then_its_bytes_are_these() -> None:
    assert InsertMsg(1, [3], [-1], [b"row"], [4]).marshal().hex(" ", 1) == (
        "0a 20 0d 90 01 00 00 11 01 00 00 00 00 00 00 00 19 03 00 00 00 00 00 00 00 21 03 00 00 00 00 00 00 00 "
        "12 04 04 00 00 00 1a 08 03 00 00 00 00 00 00 00 22 08 ff ff ff ff ff ff ff ff 2a 03 72 6f 77"
    )


@pytest.mark.parametrize("size", [0, 1, 127, 128, 129, 255, 256, (1 << 14) - 1, 1 << 14, (1 << 14) + 1, 1 << 21])
def test_given_one_row_of_any_size_when_marshalled_then_it_is_what_protobuf_makes_and_read_alike(size: int) -> None:
    msg = InsertMsg(1, [2], [3], [b"x" * size], [4])
    payload = msg.marshal()
    by_protobuf = pb.InsertMsg(hash_keys=[4], timestamps=[2], row_ids=[3], rows=[b"x" * size]).SerializeToString()
    assert payload == pack_header(400, 1, 2, 2) + by_protobuf
    assert InsertMsg.unmarshal(payload) == msg


@pytest.mark.parametrize("size", [3, 200])
def test_given_one_row_when_cut_anywhere_then_it_is_undecodable(size: int) -> None:
    payload = InsertMsg(1, [2], [3], [b"x" * size], [4]).marshal()
    for end in range(len(payload)):
        with pytest.raises(Undecodable):
            InsertMsg.unmarshal(payload[:end])


@pytest.mark.parametrize("kind", [InsertMsg, DeleteMsg])
def test_given_one_row_when_something_stands_behind_it_then_only_a_field_of_a_later_version_is_passed_over(
    kind: type[Any],
) -> None:
    msg = of_one_row(kind)
    payload = msg.marshal()
    assert kind.unmarshal(payload + b"\xfa\x06\x03new") == msg
    for behind in (b"\x12\x04\x01\x00\x00\x00", b"\x22\x08" + bytes(8), payload[:34], b"\xff"):
        with pytest.raises(Undecodable):
            kind.unmarshal(payload + behind)


@EVERY_CLASS
@pytest.mark.parametrize("holder", [bytearray, memoryview])
def test_given_a_payload_that_is_bytes_like_when_read_then_the_message_holds_bytes_of_its_own(
    kind: type[Any], holder: Callable[[bytes], Any]
) -> None:
    msg = of_one_row(kind)
    read = kind.unmarshal(holder(msg.marshal()))
    assert read == msg
    assert {type(value) for value in [*getattr(read, "rows", []), getattr(read, "payload", b"")]} == {bytes}


def test_given_one_row_when_its_size_is_written_in_more_bytes_than_needed_then_it_is_read_all_the_same() -> None:
    msg = InsertMsg(1, [2], [3], [b"row"], [4])
    payload = msg.marshal()
    assert payload[-5:] == b"\x2a\x03row"
    for size in (b"\x83\x00", b"\x83\x80\x00"):
        assert InsertMsg.unmarshal(payload[:-4] + size + b"row") == msg


@pytest.mark.parametrize("kind", [InsertMsg, DeleteMsg])
@pytest.mark.parametrize("at", [18, 26, 42], ids=["begin", "end", "timestamp"])
def test_given_one_row_when_header_and_timestamp_differ_then_it_is_undecodable(kind: type[Any], at: int) -> None:
    payload = bytearray(of_one_row(kind).marshal())
    payload[at] += 1
    with pytest.raises(Undecodable):
        kind.unmarshal(bytes(payload))


@EVERY_CLASS
def test_given_a_payload_with_fields_of_a_later_version_when_read_then_they_are_passed_over(kind: type[Any]) -> None:
    assert kind.unmarshal(made(kind).marshal() + b"\xfa\x06\x03new") == made(kind)


# What is no payload


def insert_payload(header: bytes | None = None, **columns: list[Any]) -> bytes:
    fields = {name: columns.get(name, INSERT[name]) for name in ("timestamps", "row_ids", "rows", "hash_keys")}
    body = pb.InsertMsg(
        timestamps=fields["timestamps"], row_ids=fields["row_ids"], rows=fields["rows"], hash_keys=fields["hash_keys"]
    )
    return (pack_header(400, 7, 10, 30) if header is None else header) + body.SerializeToString()


BAD_PAYLOADS: dict[str, Callable[[], bytes]] = {
    "empty": lambda: b"",
    "no header": lambda: insert_payload(b""),
    "another type": lambda: made(DeleteMsg).marshal(),
    "an unknown type": lambda: insert_payload(pack_header(401 + 1, 7, 10, 30)),
    "begins too early": lambda: insert_payload(pack_header(400, 7, 9, 30)),
    "begins too late": lambda: insert_payload(pack_header(400, 7, 11, 30)),
    "ends too late": lambda: insert_payload(pack_header(400, 7, 10, 31)),
    "too few timestamps": lambda: insert_payload(timestamps=[30]),
    "too few row ids": lambda: insert_payload(row_ids=[1]),
    "too many rows": lambda: insert_payload(rows=[b"a", b"b", b"c"]),
    "too few hash keys": lambda: insert_payload(hash_keys=[5]),
    "no rows": lambda: pack_header(400, 7, 10, 30),
    "two headers": lambda: insert_payload() + pack_header(400, 8, 10, 30),
    "not protobuf": lambda: pack_header(400, 7, 10, 30) + b"\xff\xff",
}


@pytest.mark.parametrize("what", BAD_PAYLOADS)
def test_given_what_is_no_payload_of_the_type_when_read_then_it_is_undecodable(what: str) -> None:
    assert InsertMsg.unmarshal(insert_payload()) == made(InsertMsg)
    with pytest.raises(Undecodable):
        InsertMsg.unmarshal(BAD_PAYLOADS[what]())


@pytest.mark.parametrize("kind", [SearchMsg, SearchResultMsg, SegStatisticsMsg, TimeTickMsg, TimeSyncMsg])
def test_given_a_header_with_a_range_when_read_as_a_message_of_one_time_then_it_is_undecodable(kind: type[Any]) -> None:
    body = made(kind).marshal()[34:]
    assert kind.unmarshal(pack_header(kind.type, 7, 30, 30) + body) == made(kind)
    with pytest.raises(Undecodable, match="one timestamp"):
        kind.unmarshal(pack_header(kind.type, 7, 29, 30) + body)


@EVERY_CLASS
def test_given_a_payload_when_cut_anywhere_then_it_is_undecodable_or_a_whole_shorter_message(kind: type[Any]) -> None:
    whole = made(kind)
    payload = whole.marshal()
    for end in range(len(payload)):
        try:
            read = kind.unmarshal(payload[:end])
        except Undecodable:
            continue
        assert "timestamps" not in ARGUMENTS[kind]  # its fields are optional, so they may be missing as a whole
        assert read.marshal() == payload[:end]


@deterministic
@given(st.sampled_from(MESSAGE_CLASSES), st.binary(max_size=120))
@example(InsertMsg, b"\x0b" * 100)
@example(InsertMsg, b"\x0a\x22" + bytes(32))
def test_given_any_bytes_when_read_then_they_are_a_message_or_undecodable(kind: type[TsMsg], payload: bytes) -> None:
    for read in (header_of, kind.unmarshal):
        try:
            cast(Any, read)(payload)
        except Undecodable:
            continue


@deterministic
@given(messages, st.data())
def test_given_a_payload_with_some_bytes_changed_when_read_then_it_is_a_message_or_undecodable(
    msg: TsMsg, data: st.DataObject
) -> None:
    payload = bytearray(msg.marshal())
    for _ in range(data.draw(st.integers(1, 3))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    try:
        read = type(msg).unmarshal(bytes(payload))
    except Undecodable:
        return
    assert type(msg).unmarshal(read.marshal()) == read
    assert header_of(bytes(payload)) == Header(read.type, read.id, read.begin_ts, read.end_ts)


# The header


@pytest.mark.parametrize("type_and_range", [(0, 1, 1), (5, 2, 1)])
def test_given_a_header_that_no_message_has_when_packed_or_read_then_it_is_refused(
    type_and_range: tuple[int, int, int],
) -> None:
    msg_type, begin_ts, end_ts = type_and_range
    with pytest.raises(InvalidRequest):
        pack_header(msg_type, 1, begin_ts, end_ts)
    canonical = bytearray(pack_header(9, 1, 7, 7))
    canonical[3], canonical[17], canonical[26] = msg_type, begin_ts, end_ts
    plain = pb.AnyMsg(header=pb.Header(type=msg_type, id=1, begin_ts=begin_ts, end_ts=end_ts)).SerializeToString()
    for payload in (bytes(canonical), plain):
        with pytest.raises(Undecodable):
            header_of(payload)


@pytest.mark.parametrize(
    "fields",
    [(1 << 32, 0, 0, 0), (-1, 0, 0, 0), (1, 1 << 63, 0, 0), (1, 0, -1, 0), (1, 0, 0, 1 << 64), (1, "x", 0, 0), (None, 0, 0, 0)],
)
def test_given_fields_out_of_range_when_a_header_is_packed_then_it_is_refused(fields: tuple[Any, Any, Any, Any]) -> None:
    with pytest.raises(InvalidRequest, match="the type is an integer"):
        pack_header(*fields)


def test_given_a_header_alone_when_read_then_it_is_a_payload_of_any_type() -> None:
    assert header_of(pack_header(77, -5, 3, 9)) == Header(77, -5, 3, 9)


@pytest.mark.parametrize("payload", [None, "text", 5, object()])
def test_given_what_is_not_even_bytes_when_read_then_it_is_undecodable(payload: Any) -> None:
    with pytest.raises(Undecodable):
        header_of(payload)


# Rows as messages of their own


@deterministic
@given(inserts, st.data())
def test_given_rows_when_some_are_taken_then_they_are_a_message_of_the_same_id_with_what_was_theirs(
    msg: InsertMsg, data: st.DataObject
) -> None:
    indexes = data.draw(st.lists(st.integers(0, len(msg.rows) - 1), min_size=1, unique=True))
    part = msg.rows_at(indexes)
    assert part.id == msg.id
    taken = zip(part.timestamps, part.row_ids, part.rows, part.hash_keys, strict=True)
    assert list(taken) == [(msg.timestamps[i], msg.row_ids[i], msg.rows[i], msg.hash_keys[i]) for i in indexes]
    assert (part.begin_ts, part.end_ts) == (min(part.timestamps), max(part.timestamps))
    assert InsertMsg.unmarshal(part.marshal()) == part


# Without protobuf

WITHOUT_PROTOBUF = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name == "google" or name.startswith("google."):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocked())
from copy import copy
from rocksmq.clients.msgstream.messages import InsertMsg, TimeTickMsg
msg = InsertMsg(1, [5, 6], [1, 2], [b"a", b"b"], [3, 4])
msg.set_ts(9)
assert copy(msg) == msg and msg.rows_at([0]).rows == [b"a"] and TimeTickMsg(5).timestamp == 5
for call in (msg.marshal, lambda: InsertMsg.unmarshal(b"")):
    try:
        call()
    except ImportError as error:
        print(error)
"""


def test_given_no_protobuf_when_messages_are_kept_in_memory_then_it_is_not_missed_and_a_payload_says_what_to_install() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_PROTOBUF], capture_output=True, text=True, timeout=60, check=True, env=environment
    )
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    assert all("pip install 'rocksmq[msgstream]'" in line for line in lines)
    assert Path(pb.__file__).is_file()
